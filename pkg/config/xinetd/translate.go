// From entries to rows: which service becomes one, of what kind, under which key.
// The values of its attributes are in the files called by them.

package xinetd

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// The words of type and flags.
var (
	types      = []string{"RPC", "INTERNAL", "UNLISTED", "SPECIAL", "TCPMUX", "TCPMUXPLUS"}
	flags      = []string{"REUSE", "INTERCEPT", "NORETRY", "IDONLY", "NAMEINARGS", "NODELAY", "KEEPALIVE", "NOLIBWRAP", "SENSOR", "IPv4", "IPv6", "LABELED"}
	internals  = []string{"echo", "discard", "chargen", "daytime", "time", "tcpmux"}
	unservable = []string{"servers", "services", "xadmin"}
)

// maxKey is how long the key of a row may be, in bytes.
const maxKey = 256

// A translator has what is common to all services of a configuration.
type translator struct {
	*loader
	defaults  *scope
	pos       config.Pos      // of what nobody has written
	access    access          // of the defaults
	keys      map[string]int  // how many rows there are for a key
	ids       map[string]bool // of the services there are
	enabled   map[string]bool // nil: all
	disabled  map[string]bool
	muxed     []*svc // rows that are reached by name
	muxer     bool   // a multiplexer is enabled
	sensors   []*svc
	unlimited bool // some row is, because nobody has limited it
}

// A svc is one service on its way into a row.
type svc struct {
	*scope
	t     *translator
	name  config.String // of the service
	id    config.String
	types map[string]config.String
	flags map[string]config.String
	kind  kind
	named bool // it is reached by name
	dgram bool
	wait  bool
	off   bool // disabled
	out   *config.Service
}

// translate makes rows of everything that was read.
func (l *loader) translate() *config.File {
	t := &translator{loader: l, keys: make(map[string]int), ids: make(map[string]bool)}
	t.pos = config.Pos{File: l.f.Path, Line: 1, Col: 1}
	if l.defaults != nil {
		t.pos = l.defaults.word.Pos
	}
	t.defaults = l.newScope(l.defaults, "[defaults]")
	t.lists()
	if l.defaults != nil {
		for _, c := range l.defaults.comments {
			l.f.Comment(c)
		}
	}
	if len(l.services) > 0 {
		t.defaultRow()
		t.differs()
	}
	rows := make([]config.Service, len(l.services)) // at once
	for i, e := range l.services {
		t.service(e, &rows[i])
	}
	for _, c := range l.comments {
		l.f.Comment(c)
	}
	t.strangers()
	t.reachable()
	t.scanners()
	if t.unlimited {
		t.note(config.Changed, config.String{V: "instances", Pos: t.pos}, "and per_source are not set for every service: those run as many instances as there are peers, as under xinetd; limits.instances and limits.instances_per_source are 0 for them")
	}
	if len(t.defaults.problems) > 0 {
		l.f.SkipBad = false // as xinetd ends: what is wrong may have kept peers out
	}
	l.f.Problems = append(l.f.Problems, t.defaults.problems...)
	l.f.Notes = append(l.f.Notes, t.defaults.notes...)
	rank := make(map[string]int, len(l.f.Paths))
	for i, p := range l.f.Paths {
		rank[p] = i
	}
	slices.SortStableFunc(l.f.Notes, func(a, b config.Note) int {
		if a.Pos.File != b.Pos.File {
			return cmp.Compare(rank[a.Pos.File], rank[b.Pos.File])
		}
		return cmp.Or(cmp.Compare(a.Pos.Line, b.Pos.Line), cmp.Compare(a.Pos.Col, b.Pos.Col))
	})
	l.ids = t.ids
	return l.f
}

// lists reads enabled and disabled.
func (t *translator) lists() {
	for _, list := range []struct {
		name string
		ids  *map[string]bool
	}{{"enabled", &t.enabled}, {"disabled", &t.disabled}} {
		for _, a := range t.defaults.lines(list.name) {
			if *list.ids == nil {
				*list.ids = make(map[string]bool)
			}
			for _, v := range a.values {
				(*list.ids)[v.V] = true
			}
		}
	}
}

// strangers notes what enabled and disabled have that is no service's id.
func (t *translator) strangers() {
	for _, name := range []string{"enabled", "disabled"} {
		for _, a := range t.defaults.lines(name) {
			for _, v := range a.values {
				if !t.ids[v.V] {
					t.note(config.Lost, v, "is the id of no service; %s = %s says nothing", name, clip(v.V))
				}
			}
		}
	}
}

// differs notes what is different for every service, once.
func (t *translator) differs() {
	t.note(config.Changed, config.String{V: "passenv", Pos: t.pos}, "and env are all that a program gets of the environment of tcpmuxd, with PATH, USER, LOGNAME, HOME and SHELL of its user; where passenv is not set xinetd hands its own environment on")
	t.libwrap()
	if !t.defaults.isSet("cps") {
		t.note(config.Guessed, config.String{V: "cps", Pos: t.pos}, "is not set, and is 50 10 then, as for xinetd: limits.rate is \"50/s\", and what comes faster is refused; no socket is closed")
	}
}

// service makes a row of an entry, if it can be one.
func (t *translator) service(e *entry, out *config.Service) {
	s := &svc{scope: t.newScope(e, e.name.V), t: t, name: e.name, id: e.name, out: out}
	if _, v, ok := s.one("id"); ok {
		s.id = v
	}
	t.ids[s.id.V] = true
	for _, c := range e.comments {
		t.f.Comment(c)
	}
	s.types, s.flags = s.has("type", types...), s.has("flags", flags...)
	s.identify()
	s.sockets()
	s.disable()
	s.silent = s.off // xinetd does not look at it
	if s.servable() {
		s.key()
		s.unused()
		s.program()
		s.listen()
		s.rpc()
		s.access()
		s.limits()
		s.log()
		s.rest()
	}
	s.finish()
}

// is reports whether the service has a type or a flag.
func (s *svc) is(word string) bool {
	_, t := s.types[word]
	_, f := s.flags[word]
	return t || f
}

// identify finds out what kind of service it is.
func (s *svc) identify() {
	s.named = s.is("TCPMUX") || s.is("TCPMUXPLUS")
	s.kind = program
	switch {
	case s.is("SENSOR"):
		s.kind = sensor
	case s.is("INTERNAL") && s.name.V == "tcpmux":
		s.kind = mux
	case s.is("INTERNAL"):
		s.kind = builtin
	case s.isSet("redirect"):
		s.kind = relay
	}
	if s.named && (s.kind == mux || s.kind == sensor) {
		s.wrong(cmp.Or(s.types["TCPMUX"], s.types["TCPMUXPLUS"]), "is for services that are reached by name, and this one cannot be; take it out")
		s.named = false
	}
	if s.is("TCPMUX") && s.is("TCPMUXPLUS") {
		s.wrong(s.types["TCPMUX"], "and TCPMUXPLUS cannot be both: the program answers \"+\" itself, or is spared that; take one of them out")
	}
	if s.named && !s.is("UNLISTED") {
		s.wrong(cmp.Or(s.types["TCPMUX"], s.types["TCPMUXPLUS"]), "has to come with UNLISTED; write type = TCPMUX UNLISTED or TCPMUXPLUS UNLISTED")
	}
}

// disable finds out whether the service is disabled. What xinetd.conf(5) says
// holds: disable wins over enabled.
func (s *svc) disable() {
	s.off = s.yes("disable")
	if s.t.enabled != nil && !s.t.enabled[s.id.V] || s.t.disabled[s.id.V] {
		s.off = true
	} else if s.off && s.t.enabled != nil {
		_, v, _ := s.one("disable")
		s.changed(v, "wins over enabled, as xinetd.conf(5) says: the service is disabled")
	}
}

// key finds the key of the row. Services of one id may be on several ports, rows
// have keys of their own.
func (s *svc) key() {
	key := clean(s.id.V)
	if s.named {
		if s.id.V != s.name.V {
			s.changed(s.id, "is not the key of a row that is reached by name: the log calls it by that")
		}
		key = "tcpmux/" + s.name.V
		if s.is("TCPMUXPLUS") {
			key = "tcpmux/+" + s.name.V
		}
	} else if key != s.id.V {
		s.changed(s.id, "cannot be the key of a row: the log calls it %q", key)
	}
	if s.t.keys[key] > 0 && !s.named {
		base := key
		for s.t.keys[key] > 0 {
			s.t.keys[base]++
			key = fmt.Sprintf("%s-%d", base, s.t.keys[base])
		}
		if !s.off {
			s.changed(s.id, "is the id of several services: the log calls this one %q", key)
		}
	}
	s.t.keys[key]++
	s.out.ID, s.out.Pos, s.row = key, s.entry.name.Pos, key
	if !s.named && key != s.name.V {
		s.out.Name = s.name
	}
}

// clean is s without what cannot stand in a key.
func clean(s string) string {
	s = strings.Map(func(c rune) rune {
		if c <= ' ' || c > '~' || strings.ContainsRune("\"'\\/[]", c) {
			return '-'
		}
		return c
	}, s)
	return s[:min(len(s), maxKey)]
}

// servable reports whether the service has a counterpart; where it has none that is
// noted.
func (s *svc) servable() bool {
	none := func(w config.String, format string, args ...any) bool {
		s.lost(w, "%s: service %q is not served", fmt.Sprintf(format, args...), s.name.V)
		s.unserved = true
		return false
	}
	_, socket, _ := s.one("socket_type")
	_, protocol, _ := s.one("protocol")
	switch {
	case s.kind == builtin && slices.Contains(unservable, s.name.V):
		return none(s.name, "is a list of xinetd's own services and connections, which tcpmuxctl(8) shows")
	case s.is("SPECIAL"):
		return none(s.types["SPECIAL"], "is for xinetd's own pieces")
	case socket.V == "raw" || socket.V == "seqpacket":
		return none(socket, "sockets of the internet are streams or datagrams here")
	case protocol.V != "" && protocol.V != "tcp" && protocol.V != "udp" && !slices.Contains(families, protocol.V):
		return none(protocol, "is not spoken here, tcp and udp are")
	case s.kind == sensor && s.dgram:
		return none(s.flags["SENSOR"], "would let anybody have others held off, because the sender of a datagram can be forged")
	case s.kind == builtin && !slices.Contains(internals, s.name.V):
		s.wrong(s.name, "is no internal service of xinetd; those are %s", either(s.name.V, slices.Concat(internals, unservable)))
	}
	return true
}

// unused notes the attributes that mean nothing for a service of its kind.
func (s *svc) unused() {
	var words []string
	var pos config.Pos
	for _, a := range s.set {
		if a.uses&s.kind == 0 {
			if words == nil {
				pos = a.lines[0].name.Pos
			}
			words = append(words, a.name)
		}
	}
	if words == nil {
		return
	}
	why := "the service runs in tcpmuxd itself and starts no program"
	if s.kind == sensor {
		why = "the service is there to catch whoever comes, and lets nobody in"
	}
	s.lost(config.String{V: strings.Join(words, ", "), Pos: pos}, "is not used: %s", why)
}

// finish adds the row, what is wrong with it, and what there is to say of it.
func (s *svc) finish() {
	if s.off {
		s.out.Enabled, s.out.Unchecked = config.Bool{V: false, Pos: s.enabledPos()}, true
		if !s.unserved {
			s.l.f.Services = append(s.l.f.Services, s.out)
		}
		return
	}
	for _, n := range s.notes {
		n.Row = s.row
	}
	s.l.f.Notes = append(s.l.f.Notes, s.notes...)
	switch {
	case s.unserved:
		return
	case len(s.problems) > 0:
		for _, p := range s.problems {
			p.Row = s.row
		}
		s.l.f.Problems = append(s.l.f.Problems, s.problems...)
		return
	case s.named:
		s.t.muxed = append(s.t.muxed, s)
	case s.kind == mux:
		s.t.muxer = true
	case s.kind == sensor:
		s.t.sensors = append(s.t.sensors, s)
	}
	s.l.f.Services = append(s.l.f.Services, s.out)
}

// enabledPos is where it is said that the service is disabled.
func (s *svc) enabledPos() config.Pos {
	if _, v, ok := s.one("disable"); ok {
		return v.Pos
	}
	return s.entry.name.Pos
}

// reachable disables the rows that are reached by name if nothing makes them so:
// no multiplexer is implied that xinetd would not have.
func (t *translator) reachable() {
	if t.muxer {
		return
	}
	for _, s := range t.muxed {
		t.note(config.Lost, s.name, "cannot be reached, because no internal service tcpmux is enabled: the row is disabled")
		s.out.Enabled, s.out.Unchecked = config.Bool{V: false, Pos: s.name.Pos}, true
	}
}
