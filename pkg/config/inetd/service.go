// One service: its words become the keys of a row.

package inetd

import (
	"fmt"
	"path"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// An entry is a service in words, in whichever notation it was written. What was
// not written is empty.
type entry struct {
	host, name  word
	typ         word // stream, dgram, …
	acceptMax   word
	filter      word
	proto       word // without the buffers
	sndbuf      word
	rcvbuf      word
	wait        word // wait or nowait
	perMinute   word // starts of it
	instances   word
	ipPerMinute word
	ipInstances word
	user, group word
	program     word
	args        []word // with argv[0]
	keyed       bool   // key = value
	four, six   bool   // on IPv4; on IPv6 and on IPv4 as well if nothing else is
	strange     []strange
}

// A strange is a word that not all dialects know.
type strange struct {
	knows set
	w     word
}

// only notes that only such dialects know w.
func (e *entry) only(knows set, w word) { e.strange = append(e.strange, strange{knows, w}) }

// service reads a line of columns; host is what stood before the name with a blank
// behind it.
func (p *parser) service(host word, f []word) {
	if len(f) < 6 {
		p.refuse(f[0], "the line has %d of at least 6 columns; write NAME stream|dgram PROTOCOL wait|nowait USER PROGRAM ARGUMENTS", len(f))
		return
	}
	if f[0].s == "" {
		p.refuse(f[0], "the service has no name; write one or a port")
		return
	}
	e := &entry{host: host, name: f[0], user: f[4], program: f[5], args: f[6:]}
	if host.s == "" {
		e.host, e.name = address(f[0])
	}
	e.typ, e.filter, _ = f[1].cut(":")
	e.typ, e.acceptMax, _ = e.typ.cut(",")
	proto, buffers, _ := f[2].cut(",")
	e.proto = proto
	for buffers.s != "" {
		var b word
		b, buffers, _ = buffers.cut(",")
		key, value, _ := b.cut("=")
		switch key.s {
		case "sndbuf":
			e.sndbuf = value
		case "rcvbuf":
			e.rcvbuf = value
		default:
			p.refuse(b, "there is sndbuf= and rcvbuf= behind a protocol; write one of these or take it out")
			return
		}
	}
	wait, max, sep := f[3].cut("./:")
	e.wait = wait
	switch sep {
	case '.':
		e.only(knowMax, f[3])
		e.perMinute = max
	case ':':
		e.only(knowColonMax, f[3])
		e.perMinute = max
	case '/':
		e.only(knowLimits, f[3])
		var rest word
		e.instances, rest, _ = max.cut("/")
		e.ipPerMinute, rest, _ = rest.cut("/")
		e.ipInstances, rest, sep = rest.cut("/")
		if sep != 0 {
			p.note(config.Lost, "", rest, "what stands behind the third number means nothing there either")
		}
		if e.instances.s == "" {
			p.refuse(f[3], "there is no number behind the slash; write wait or nowait alone, or a number")
			return
		}
	}
	if wait.s != "wait" && wait.s != "nowait" {
		p.doubt(doubtLax, wait)
		if !p.d.lax {
			p.refuse(wait, "write wait or nowait instead")
			return
		}
		p.note(config.Changed, "", wait, "any word but wait means nowait to %s; write nowait if that is meant", p.d.Name)
		e.wait.s = "nowait"
	}
	p.row(e)
}

// address parts ADDRESS:SERVICE, where there is an address.
func address(w word) (host, name word) {
	if w.s[0] == '/' || isOwned(w.s) {
		return word{}, w
	}
	i := strings.LastIndexByte(w.s, ':')
	if i <= 0 || i == len(w.s)-1 {
		return word{}, w
	}
	return w.part(0, i), w.part(i+1, len(w.s))
}

// isOwned reports FreeBSD's :USER:GROUP:MODE:/PATH, which ::1:ftp is not.
func isOwned(s string) bool { return s[0] == ':' && strings.Contains(s, "/") }

// row makes a row of an entry, nil if it cannot be one.
func (p *parser) row(e *entry) *config.Service {
	if len(p.f.Services) >= maxRows {
		if !p.tooMany {
			p.tooMany = true
			p.refuse(e.name, "more than %d services; nothing from here on was read", maxRows)
		}
		return nil
	}
	if len(p.spare) == 0 {
		p.spare = make([]config.Service, 64)
	}
	s := &p.spare[0]
	s.Pos = p.at(e.name)
	if !p.runs(s, e) {
		*s = config.Service{}
		return nil
	}
	p.wrap(s, e)
	for _, o := range e.strange {
		p.foreign(o.knows, s.ID, o.w)
	}
	switch transport := e.proto.s[:min(3, len(e.proto.s))]; {
	case e.four:
		p.fours[e.at(transport, p.host)] = true
	case e.six:
		p.sixes = append(p.sixes, six{s, e.at(transport, p.host)})
	case strings.HasPrefix(s.ID, "tcpmux/"):
		p.ids[s.ID]++
		p.mux = append(p.mux, s)
	}
	p.muxer = p.muxer || s.Builtin.V == "tcpmux" && e.name.s == "tcpmux"
	p.spare = p.spare[1:]
	p.f.Services = append(p.f.Services, s)
	return s
}

func (p *parser) str(w word) config.String       { return config.String{V: w.s, Pos: p.at(w)} }
func (p *parser) yes(b bool, w word) config.Bool { return config.Bool{V: b, Pos: p.at(w)} }

// runs fills in s, and reports whether the entry can be one.
func (p *parser) runs(s *config.Service, e *entry) bool {
	isMux := strings.HasPrefix(e.name.s, "tcpmux/")
	switch {
	case isMux:
		s.ID = e.name.s // as it is: Compile judges it
		if p.ids[s.ID] > 0 {
			p.refuse(e.name, "there is a line for this name already; take one of them out")
			return false
		}
		e.only(knowMux, e.name)
		if e.typ.s != "stream" || !strings.HasPrefix(e.proto.s, "tcp") {
			p.refuse(e.name, "the multiplexer has streams over TCP alone; write stream and tcp, or a name without tcpmux/")
			return false
		}
		if e.wait.s == "wait" {
			p.note(config.Changed, s.ID, e.wait, "the multiplexer keeps its socket, so this is nowait to every inetd")
		}
		if e.host.s != "" {
			p.note(config.Lost, s.ID, e.host, "a name of the multiplexer has no address of its own; write the address at the line of tcpmux")
		}
	default:
		if !p.socket(s, e) {
			return false
		}
	}
	if e.program.s == "internal" {
		p.builtin(s, e, isMux)
	} else {
		p.program(s, e, isMux)
	}
	return p.limits(s, e, isMux) && p.buffers(s, e, isMux)
}

// builtin fills in what runs in the daemon. What it would run as means nothing.
func (p *parser) builtin(s *config.Service, e *entry, isMux bool) {
	name := strings.TrimPrefix(strings.TrimPrefix(e.name.s, "tcpmux/"), "+")
	s.Builtin = config.String{V: name, Pos: p.at(e.program)}
	if name == "auth" || name == "ident" { // its alias in services(5)
		s.Builtin.V = "auth"
		p.ident(s, e)
		return
	}
	if len(e.args) > 0 && e.args[0].s != "internal" && e.args[0].s != name || len(e.args) > 1 {
		p.note(config.Lost, s.ID, e.args[0], "a built-in service takes no arguments here")
	}
}

// program fills in what is started and as whom.
func (p *parser) program(s *config.Service, e *entry, isMux bool) {
	s.Exec = config.List{V: []config.String{p.str(e.program)}, Pos: p.at(e.program)}
	if p.d.path && e.program.s != "" && !strings.Contains(e.program.s, "/") {
		// As env(1) does.
		p.note(config.Changed, s.ID, e.program, "it is looked for in PATH by env when it is started, as busybox does; write its whole path")
		s.Exec.V = append([]config.String{{V: "/usr/bin/env", Pos: p.at(e.program)}}, s.Exec.V...)
		if len(e.args) > 0 && e.args[0].s != e.program.s {
			p.note(config.Lost, s.ID, e.args[0], "the program is called by its own name")
		}
	}
	argv0 := config.String{V: path.Base(e.program.s), Pos: p.at(e.program)}
	if len(e.args) > 0 {
		argv0 = p.str(e.args[0])
		for _, a := range e.args[1:] {
			s.Exec.V = append(s.Exec.V, p.str(a))
		}
	}
	if argv0.V != e.program.s && s.Exec.V[0].V == e.program.s {
		s.Argv0 = argv0
	}
	if p.d.argv > 0 && len(e.args) > p.d.argv {
		p.note(config.Changed, s.ID, e.args[p.d.argv], "%s passes no more than %d arguments; here the program gets all %d", p.d.Name, p.d.argv, len(e.args))
	}
	switch {
	case isMux:
	case e.wait.s == "wait":
		s.Wait = p.yes(true, e.wait)
	case e.typ.s == "dgram":
		p.note(config.Changed, s.ID, e.wait, "each peer has a program of its own here; inetd starts one for each datagram, and again until that is read")
	}
	user := e.user
	if user.s == "" {
		return
	}
	if i := strings.IndexByte(user.s, '/'); i >= 0 {
		e.only(knowClass, user)
		p.note(config.Lost, s.ID, user.part(i+1, len(user.s)), "there are no login classes here; write rlimits and umask for what it sets")
		user = user.part(0, i)
	}
	if strings.Contains(user.s, ".") {
		p.doubt(doubtGroup, user)
	}
	name, group := p.d.userGroup(user.s)
	if e.keyed {
		name, group = user.s, ""
	}
	s.User = p.str(user.part(0, len(name)))
	switch {
	case group != "":
		s.Group = p.str(user.part(len(name)+1, len(user.s)))
	case e.group.s != "":
		s.Group = p.str(e.group)
	}
}

// limits fills in how often, and how many at once. It reports whether all numbers
// are such.
func (p *parser) limits(s *config.Service, e *entry, isMux bool) bool {
	for _, w := range []word{e.perMinute, e.instances, e.ipPerMinute, e.ipInstances, e.acceptMax} {
		if _, err := strconv.ParseUint(w.s, 10, 31); w.s != "" && err != nil {
			p.refuse(w, "is no number of starts or instances; write one or take it out")
			return false
		}
	}
	l := &s.Limits
	set := func() { // the place of the whole
		if !l.Pos.IsSet() {
			l.Pos = p.at(e.wait)
		}
	}
	number := func(w word) config.Int {
		n, _ := strconv.ParseInt(w.s, 10, 64)
		set()
		return config.Int{V: n, Pos: p.at(w)}
	}
	perMinute := func(w word) config.String {
		n, _ := strconv.ParseInt(w.s, 10, 64)
		set()
		return config.String{V: fmt.Sprintf("%d/min", n), Pos: p.at(w)}
	}
	lost := func(w word, why string) { p.note(config.Lost, s.ID, w, "%s", why) }
	const (
		byPeer  = "a row with wait = true takes its peers itself, and nobody can count them by source"
		noForks = "the inetds count what they start, and this is built in: it means nothing there either"
	)
	waits, builtin, dgram := s.Wait.V, s.Builtin.IsSet(), e.typ.s == "dgram"
	switch {
	case e.perMinute.s != "" && builtin:
		lost(e.perMinute, noForks)
	case e.perMinute.s != "":
		l.Rate = perMinute(e.perMinute)
		if n, _ := strconv.Atoi(e.perMinute.s); p.most() > 0 && n > p.most() {
			p.note(config.Changed, s.ID, e.perMinute, "%s starts no more than %d a minute whatever is written; here it may be as many as are written", p.d.Name, p.most())
		}
	case !builtin && !isMux:
		w := e.wait
		if w.s == "" {
			w = e.name
		}
		rate := p.d.rate
		if p.flags.Rate.IsSet() {
			rate = p.flags.Rate.N
		} else {
			p.doubt(doubtRate, w)
		}
		if rate > 0 {
			l.Rate = perMinute(word{strconv.Itoa(rate), w.line, w.col})
		}
	}
	if !waits && !builtin && !isMux {
		p.flagLimits(e)
	}
	for _, w := range []word{e.instances, e.acceptMax} {
		switch {
		case w.s == "":
		case builtin && dgram:
			lost(w, "datagrams are answered one by one, there are no instances")
		case waits && w.s == "0":
			lost(w, "a row with wait = true has one program for each of its sockets")
		default:
			l.Instances = number(w)
			if !waits && !isMux && !dgram && w.s != "0" && s.Builtin.V != "tcpmux" {
				l.Overflow = config.String{V: "queue", Pos: p.at(w)}
			}
		}
	}
	switch {
	case e.ipPerMinute.s == "":
	case waits:
		lost(e.ipPerMinute, byPeer)
	default:
		l.RatePerSource = perMinute(e.ipPerMinute)
	}
	switch {
	case e.ipInstances.s == "":
	case waits:
		lost(e.ipInstances, byPeer)
	case builtin && dgram:
		lost(e.ipInstances, "datagrams are answered one by one, there are no instances")
	default:
		l.InstancesPerSource = number(e.ipInstances)
	}
	return true
}

// buffers fills in the sizes of buffers, and what is lost of accept filters.
func (p *parser) buffers(s *config.Service, e *entry, isMux bool) bool {
	if e.filter.s != "" {
		e.only(knowAccept, e.filter)
		p.note(config.Lost, s.ID, e.filter, "there are no accept filters here; write defer_accept = \"30s\" to wait for the first byte")
	}
	for _, b := range []struct {
		w   word
		dst *config.Int
	}{{e.sndbuf, &s.Sndbuf}, {e.rcvbuf, &s.Rcvbuf}} {
		if b.w.s == "" {
			continue
		}
		e.only(knowBuffers, b.w)
		if isMux {
			p.note(config.Lost, s.ID, b.w, "the sockets are the multiplexer's; write it at the line of tcpmux")
			continue
		}
		digits, unit := b.w.s, int64(1)
		switch {
		case strings.HasSuffix(digits, "k"):
			digits, unit = digits[:len(digits)-1], 1<<10
		case strings.HasSuffix(digits, "m"):
			digits, unit = digits[:len(digits)-1], 1<<20
		}
		n, err := strconv.ParseUint(digits, 10, 31)
		if err != nil {
			p.refuse(b.w, "is no size of a buffer; write bytes such as 65536 or 64k")
			return false
		}
		*b.dst = config.Int{V: int64(n) * unit, Pos: p.at(b.w)}
	}
	return true
}

// id is a key that no other row has: the name, and where that is taken the
// protocol and then a number behind it.
func (p *parser) id(base, proto string) string {
	id := strings.Map(func(r rune) rune {
		if r <= ' ' || r > '~' || strings.ContainsRune(`"'\/[]`, r) {
			return '-'
		}
		return r
	}, base)
	if id = id[:min(len(id), tcpmux.MaxName-32)]; id == "" {
		id = "-"
	}
	if p.ids[id] > 0 {
		id += "-" + proto
	}
	for try := id; ; try = fmt.Sprintf("%s-%d", id, p.ids[id]) {
		if p.ids[try] == 0 {
			p.ids[try] = 1
			return try
		}
		p.ids[id]++
	}
}
