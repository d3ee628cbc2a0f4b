// Where a service listens: socket_type, protocol, wait, port, bind or interface,
// v6only, and the flags of sockets.

package xinetd

import (
	"net/netip"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// families are words that are no protocols, but are meant as one.
var families = []string{"tcp4", "tcp6", "udp4", "udp6"}

// sockets reads what kind of sockets it has, and who accepts. One of socket_type and
// protocol is enough.
func (s *svc) sockets() {
	a, socket, typed := s.one("socket_type")
	b, protocol, spoken := s.one("protocol")
	switch {
	case !typed && !spoken:
		s.wrongAt(s.name.Pos, "socket_type", "there is none; write socket_type = stream or dgram")
	case typed && !slices.Contains([]string{"stream", "dgram", "raw", "seqpacket"}, socket.V):
		s.bad(a, socket, "is no type of socket; write stream or dgram")
	case slices.Contains(families, protocol.V):
		s.bad(b, protocol, "is no protocol; write protocol = %s and flags = IPv%s", protocol.V[:3], protocol.V[3:])
	case socket.V == "stream" && protocol.V == "udp", socket.V == "dgram" && protocol.V == "tcp":
		s.bad(b, protocol, "has no %s sockets; write socket_type = %s or another protocol", socket.V, map[string]string{"tcp": "stream", "udp": "dgram"}[protocol.V])
	}
	s.dgram = socket.V == "dgram" || !typed && protocol.V == "udp"
	switch {
	case s.dgram:
		s.out.Socket = config.String{V: "dgram", Pos: socket.Pos}
		if !typed {
			s.out.Socket.Pos = protocol.Pos
		}
	case typed && socket.V == "stream":
		s.out.Socket = socket
	}
	if !s.isSet("wait") {
		s.wrongAt(s.name.Pos, "wait", "there is none; write wait = no, or yes if the program takes its peers itself")
	}
	s.wait = s.yes("wait")
	_, w, _ := s.one("wait")
	switch {
	case s.kind == relay && s.dgram:
		s.wrongAt(s.name.Pos, "redirect", "only streams are relayed; write socket_type = stream, or take redirect out")
		s.out.Socket = config.String{}
	case s.wait && s.kind == relay:
		s.wrongAt(w.Pos, "wait", "is for programs, and the service is redirected; write wait = no")
	case s.named && s.dgram:
		s.wrongAt(s.name.Pos, "protocol", "only streams are reached by name; write socket_type = stream")
	case s.named && s.wait:
		s.wrongAt(w.Pos, "wait", "the multiplexer keeps its sockets; write wait = no")
	case s.kind == program && s.wait:
		s.out.Wait = config.Bool{V: true, Pos: w.Pos}
	case s.kind == program && s.dgram && w.V == "no":
		s.changed(w, "gives every peer of a datagram socket a program and a socket of its own; xinetd gives the one socket to one program after the other")
	case s.kind != program && s.wait && !s.dgram:
		s.lost(w, "is not used: the service runs in tcpmuxd itself and serves all its peers at once")
	}
}

// listen reads the address and the port.
func (s *svc) listen() {
	if s.named {
		s.unbound()
		return
	}
	port, ported := s.port()
	if s.is("RPC") && !ported {
		port.V = "0" // any that is free
	}
	bind, bound := s.bind()
	only6 := s.yes("v6only") || !s.isSet("v6only") && s.t.defaults.yes("v6only")
	v4, v6 := s.is("IPv4"), s.is("IPv6")
	if bound {
		if a, err := netip.ParseAddr(bind.V); err == nil && a.IsUnspecified() {
			v4, v6, bound = a.Is4(), a.Is6(), false
		}
	}
	protocol := map[bool]string{true: "udp", false: "tcp"}[s.dgram]
	pos := s.out.Socket.Pos
	if _, v, ok := s.one("protocol"); ok {
		pos = v.Pos
	}
	switch {
	case v4 && !v6:
		protocol += "4"
	case only6:
		protocol += "6"
	}
	if s.kind != mux || len(protocol) > 3 {
		s.out.Protocol = config.String{V: protocol, Pos: pos}
	}
	s.socketFlags()
	var list []config.String
	switch {
	case bound:
		if host, ok := s.host(bind); ok {
			list = []config.String{{V: host + ":" + port.V, Pos: bind.Pos}}
		}
	case ported:
		list = []config.String{{V: port.V, Pos: port.Pos}}
	default:
		return // the port of its name
	}
	if list != nil {
		s.out.Listen = config.List{V: list, Pos: list[0].Pos}
	}
}

// port is the port, or the name that stands for it.
func (s *svc) port() (port config.String, written bool) {
	a, v, ok := s.one("port")
	switch {
	case !ok && s.is("RPC"):
	case !ok && s.is("UNLISTED") && s.kind != mux:
		s.wrong(s.types["UNLISTED"], "says that the service has no port in services(5), and there is none here; write port = NUMBER")
	case !ok && s.kind == mux:
		return config.String{V: "1", Pos: s.name.Pos}, false
	case !ok:
	case !isNumber(v.V):
		s.bad(a, v, "is no port; write a number from 1 to 65535")
	default:
		return v, true
	}
	return s.name, false
}

// bind is the address, of the service or of the defaults.
func (s *svc) bind() (config.String, bool) {
	for _, scope := range []*scope{s.scope, s.t.defaults} {
		for _, name := range []string{"bind", "interface"} {
			if _, v, ok := scope.one(name); ok {
				return v, true
			}
		}
	}
	return config.String{}, false
}

// host is what bind says, as it stands before a port.
func (s *svc) host(bind config.String) (host string, ok bool) {
	a, err := netip.ParseAddr(bind.V)
	switch {
	case err == nil && a.Unmap().Is6():
		return "[" + bind.V + "]", true
	case err == nil:
		return bind.V, true
	case !isHost(bind.V):
		s.wrongAt(bind.Pos, "bind", "%s is neither an address nor a name of a host; write an address", clip(bind.V))
		return "", false
	}
	s.changed(bind, "is looked up when the file is read, and the service is on all addresses of it that its protocol has; xinetd takes one of them")
	return bind.V, true
}

// isHost reports what can be a host's name before a port; Compile judges it.
func isHost(s string) bool { return !strings.ContainsAny(s, ":[]/@*,") }

// socketFlags reads NODELAY and KEEPALIVE. REUSE is always so, and NORETRY means
// nothing where nothing is tried twice.
func (s *svc) socketFlags() {
	for _, name := range []string{"NODELAY", "KEEPALIVE"} {
		w, ok := s.flags[name]
		switch {
		case !ok:
		case s.dgram:
			s.lost(w, "means nothing for datagrams, and is passed over")
		case name == "NODELAY":
			s.out.Nodelay = config.Bool{V: true, Pos: w.Pos}
		default:
			s.out.Keepalive = config.Keepalive{Pos: w.Pos, On: true}
		}
	}
}

// unbound notes what a service that is reached by name has of sockets.
func (s *svc) unbound() {
	for _, name := range []string{"port", "bind", "interface", "v6only"} {
		if a, _, ok := s.one(name); ok {
			s.lost(a.name, "is not used: the service is reached by name, on the sockets of the internal service tcpmux")
		}
	}
	for _, name := range []string{"NODELAY", "KEEPALIVE", "IPv4", "IPv6"} {
		if w, ok := s.flags[name]; ok {
			s.lost(w, "is not used: the service is reached by name, on the sockets of the internal service tcpmux")
		}
	}
	s.out.Name, s.out.Socket = config.String{}, config.String{}
}

func isNumber(s string) bool {
	for _, c := range []byte(s) {
		if c < '0' || c > '9' {
			return false
		}
	}
	return s != "" && len(s) < 10
}
