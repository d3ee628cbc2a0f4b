// Where a service is reached: its name, addresses and protocol.

package inetd

import (
	"net/netip"
	"path"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// A proto is a word of the third column: the protocol, and which family is meant.
type proto struct{ transport, digits string }

var protos = map[string]proto{
	"tcp": {"tcp", ""}, "tcp4": {"tcp", "4"}, "tcp6": {"tcp", "6"}, "tcp46": {"tcp", "46"}, "tcp6only": {"tcp", "6only"},
	"udp": {"udp", ""}, "udp4": {"udp", "4"}, "udp6": {"udp", "6"}, "udp46": {"udp", "46"}, "udp6only": {"udp", "6only"},
}

// socket fills in the sockets of a row, its key and its name.
func (p *parser) socket(s *config.Service, e *entry) bool {
	switch e.typ.s {
	case "stream", "dgram":
	case "seqpacket":
		e.only(knowSeq, e.typ)
	case "raw", "rdm":
		p.refuse(e.typ, "there are no such sockets here; start the program by itself")
		return false
	default:
		p.refuse(e.typ, "is no type of socket; write stream, dgram or seqpacket")
		return false
	}
	if e.proto.s == "unix" || e.name.s[0] == '/' || isOwned(e.name.s) {
		return p.unix(s, e)
	}
	if rest, ok := strings.CutPrefix(e.proto.s, "rpc/"); ok {
		e.only(knowRPC, e.proto)
		if !p.rpc(s, e) {
			return false
		}
		e.proto = e.proto.part(len(e.proto.s)-len(rest), len(e.proto.s))
	}
	base := e.proto.s
	if w, suffix, sep := e.proto.cut("/"); sep != 0 {
		base = w.s
		if suffix.s == "faith" {
			p.refuse(e.proto, "faith is not there any more, in FreeBSD neither; write %s alone", clip(w.s))
			return false
		}
		if suffix.s != "ttcp" {
			p.refuse(e.proto, "is no protocol; write tcp, udp or unix")
			return false
		}
		defer func() {
			p.note(config.Lost, s.ID, e.proto, "there is no T/TCP; this is %s", w.s)
		}()
	}
	pr, ok := protos[base]
	if !ok {
		p.refuse(e.proto, "is no protocol; write tcp, tcp4, tcp6, udp, udp4, udp6 or unix")
		return false
	}
	name := e.name.s
	if s.RPC.Pos.IsSet() {
		name = string(s.RPC.Program.V)
	}
	s.ID = p.id(name, base)
	p.family(s, e, pr)
	if !p.addresses(s, e) {
		return false
	}
	if want := map[string]string{"tcp": "stream", "udp": "dgram"}[pr.transport]; e.typ.s != want {
		s.Socket = p.str(e.typ) // Compile says what is wrong with it
	}
	return true
}

// rpc fills in what the row is registered as: NAME/VERSION or NAME/FIRST-LAST, where
// the name may be a number.
func (p *parser) rpc(s *config.Service, e *entry) bool {
	name, versions, sep := e.name.cut("/")
	if sep == 0 || name.s == "" || versions.s == "" {
		p.refuse(e.name, "has no version, as a service of Sun RPC must; write NAME/VERSION or NAME/FIRST-LAST")
		return false
	}
	s.RPC.Pos = p.at(e.proto)
	put(&s.RPC.Program, name.s, p.at(name))
	put(&s.RPC.Versions, versions.s, p.at(versions))
	return true
}

// put fills in what may be a number or a name.
func put[T ~string](dst *config.Value[T], s string, pos config.Pos) {
	*dst = config.Value[T]{V: T(s), Pos: pos}
}

// family fills in the protocol, which is of a family where the dialect says so.
func (p *parser) family(s *config.Service, e *entry, pr proto) {
	word := pr.transport
	switch pr.digits {
	case "":
		switch {
		case p.bound(e): // the address says it
		case s.RPC.Pos.IsSet():
			word += "4" // whatever tcp is: the inetds register no more
		default:
			p.doubt(doubtPlain, e.proto)
			word += strings.TrimPrefix(p.d.plain, "tcp")
		}
	case "4":
		e.only(knowFour, e.proto)
		word += "4"
	case "6":
		bound := p.bound(e) // then there is nothing but IPv6
		if !bound {
			p.doubt(doubtSix, e.proto)
		}
		if e.six = p.d.six == "tcp" && !bound; !e.six {
			word += "6"
		}
	case "46":
		e.only(knowBoth, e.proto)
	case "6only":
		e.only(knowSixOnly, e.proto)
		word += "6"
	}
	e.four = strings.HasSuffix(word, "4")
	s.Protocol = config.String{V: word, Pos: p.at(e.proto)}
}

// A six is a row on IPv6 that has IPv4, too, if no other row has it.
type six struct {
	s  *config.Service
	at string
}

// at is where e is reached, but for the family.
func (e *entry) at(transport string, host word) string {
	if e.host.s != "" {
		host = e.host
	}
	return transport + " " + host.s + " " + e.name.s
}

// bound reports whether e is bound to addresses, which tell its family, and not to
// names.
func (p *parser) bound(e *entry) bool {
	hosts := p.host.s
	if e.host.s != "" {
		hosts = e.host.s
	}
	for h := range strings.SplitSeq(hosts, ",") {
		if _, err := netip.ParseAddr(strings.Trim(h, "[]")); err != nil {
			return false
		}
	}
	return true
}

// addresses fills in listen, where the name alone does not say it.
func (p *parser) addresses(s *config.Service, e *entry) bool {
	name := e.name.s
	number := strings.Trim(name, "0123456789") == ""
	rpc := s.RPC.Pos.IsSet()
	if rpc {
		if program := string(s.RPC.Program.V); s.ID != program {
			s.Name = config.String{V: program, Pos: s.RPC.Program.Pos}
		}
	} else if !number && s.ID != name {
		s.Name = p.str(e.name)
	}
	hosts := e.host
	switch {
	case hosts.s == "":
		hosts = p.host
	default:
		e.only(knowHost, hosts)
	}
	port := name
	if name == "tcpmux" && e.program.s == "internal" {
		port = "1" // as the row has without an address
	}
	if rpc {
		port = "0"
	}
	listen := func(v string, w word) {
		s.Listen.V = append(s.Listen.V, config.String{V: v, Pos: p.at(w)})
		s.Listen.Pos = s.Listen.V[0].Pos
	}
	if strings.Contains(hosts.s, ",") && e.host.s != "" {
		e.only(knowHosts, hosts)
	}
	for more := hosts.s != ""; more; {
		h, rest, sep := hosts.cut(",")
		hosts, more = rest, sep != 0
		host := strings.TrimSuffix(strings.TrimPrefix(h.s, "["), "]")
		switch {
		case host == "":
			p.refuse(h, "there is an address missing before or behind the comma; write one, or take the comma out")
			return false
		case host == "*":
			s.Listen, more = config.List{}, false // that is all of them
		case strings.Contains(host, ":"):
			listen("["+host+"]:"+port, h)
		default:
			listen(host+":"+port, h)
		}
	}
	if number && !rpc && !s.Listen.IsSet() {
		listen(name, e.name)
	}
	return true
}

// unix fills in a unix socket: /PATH, or FreeBSD's :USER:GROUP:MODE:/PATH.
func (p *parser) unix(s *config.Service, e *entry) bool {
	if e.proto.s != "unix" {
		p.refuse(e.proto, "%s is a path; write unix as its protocol", clip(e.name.s))
		return false
	}
	file := e.name
	e.only(knowUnix, e.proto)
	if isOwned(file.s) {
		e.only(knowOwner, file)
		var user, group, mode word
		rest := file.part(1, len(file.s))
		user, rest, _ = rest.cut(":")
		group, rest, _ = rest.cut(":")
		mode, file, _ = rest.cut(":")
		if file.s == "" {
			p.refuse(e.name, "a unix socket with its owner is :USER:GROUP:MODE:/PATH; write it so, or the path alone")
			return false
		}
		for _, o := range []struct {
			w   word
			dst *config.String
		}{{user, &s.SocketUser}, {group, &s.SocketGroup}, {mode, &s.SocketMode}} {
			if o.w.s != "" {
				*o.dst = p.str(o.w)
			}
		}
	} else if p.doubt(doubtMode, e.name); p.d.unixMode != "" {
		s.SocketMode = config.String{V: p.d.unixMode, Pos: p.at(e.name)}
	}
	s.ID = p.id(path.Base(file.s), "unix")
	s.Protocol = config.String{V: "unix", Pos: p.at(e.proto)}
	s.Listen = config.List{V: []config.String{p.str(file)}, Pos: p.at(file)}
	if e.typ.s != "stream" {
		s.Socket = p.str(e.typ)
	}
	return true
}
