// How many may come and how often, what the defaults are for rows, and what is
// said to whom: instances, per_source, cps, max_load and the banners.

package xinetd

import (
	"strconv"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// What xinetd has where nobody has written cps.
const defaultRate = "50/s"

// exactV6 is how many bits of an IPv6 address per_source looks at.
const exactV6 = 128

// defaultRow fills in what all rows take from the defaults. Access is taken from
// there, too, by rows whose lists are the same.
func (t *translator) defaultRow() {
	s, out := t.defaults, &t.f.Defaults
	out.Pos = t.pos
	t.access = s.lists(nil)
	out.Access = config.Access{Pos: t.access.allow.Pos, Allow: t.access.allow, Deny: t.access.deny}
	if !out.Access.Pos.IsSet() {
		out.Access.Pos = out.Access.Deny.Pos
	}
	out.Access.HostsAccess = config.Bool{V: true, Pos: t.pos}
	if !out.Access.Pos.IsSet() {
		out.Access.Pos = t.pos
	}
	out.EnvPass = fold(config.List{}, s.lines("passenv"), true)
	out.Umask = s.umask()
	out.Stderr = config.String{V: "socket", Pos: t.pos}
	s.limits(&out.Limits)
	if !s.isSet("cps") {
		out.Limits.Rate = config.String{V: defaultRate, Pos: t.pos}
		out.Limits.Pos = t.pos
	}
	s.shed(&out.Limits)
	s.logs()
	s.banners()
}

// limits reads what the service and the defaults can both have.
func (s *scope) limits(l *config.Limits) {
	at := func(pos config.Pos) {
		if !l.Pos.IsSet() {
			l.Pos = pos
		}
	}
	if n, ok := s.number("instances"); ok {
		l.Instances = n
		at(n.Pos)
	}
	if n, ok := s.number("per_source"); ok {
		l.InstancesPerSource = n
		l.SourcePrefixV6 = config.Int{V: exactV6, Pos: n.Pos}
		at(n.Pos)
	}
	for _, a := range s.lines("cps") {
		rate, pause := a.values[0], a.values[1]
		switch {
		case !isNumber(rate.V):
			s.bad(a, rate, "is no number of connections; write such as cps = 50 10")
			continue
		case !isNumber(pause.V):
			s.bad(a, pause, "is no number of seconds; write such as cps = 50 10")
			continue
		case zero(rate.V):
			l.Rate = config.String{V: "0", Pos: rate.Pos}
		default:
			l.Rate = config.String{V: rate.V + "/s", Pos: rate.Pos}
			if !zero(pause.V) {
				s.changed(pause, "is how long xinetd closes the socket for everybody; here what comes faster than %s a second is refused, and nothing is closed; write limits.exceeded = \"suspend\" and limits.suspend = \"%ss\" for nobody at all to be served then", rate.V, pause.V)
			}
		}
		at(rate.Pos)
	}
}

// number reads a number that may be UNLIMITED.
func (s *scope) number(name string) (config.Int, bool) {
	a, v, ok := s.one(name)
	switch {
	case !ok:
	case v.V == "UNLIMITED":
		return config.Int{V: 0, Pos: v.Pos}, true
	case !isNumber(v.V):
		s.bad(a, v, "is no number; write one, or UNLIMITED")
	case zero(v.V):
		s.bad(a, v, "lets nobody in; write disable = yes if that is meant, else UNLIMITED")
	default:
		n, _ := strconv.ParseInt(v.V, 10, 64)
		return config.Int{V: n, Pos: v.Pos}, true
	}
	return config.Int{}, false
}

func zero(s string) bool {
	n, err := strconv.ParseUint(s, 10, 64)
	return err == nil && n == 0
}

// limits fills in the limits of the row.
func (s *svc) limits() {
	if s.kind == sensor {
		return
	}
	l := &s.out.Limits
	s.scope.limits(l)
	counted := true // there are instances of one peer each
	switch {
	case s.kind == program && s.wait:
		counted = false
		s.uncounted("the program takes its peers itself, and there is one of it")
	case s.kind == builtin && s.dgram:
		counted = false
		s.uncounted("datagrams are answered one by one, there are no instances")
		s.changed(s.name, "answers 20 datagrams a second of one source, and none of ports that could answer back; xinetd answers all")
	}
	switch free := (s.kind == program && !s.dgram || s.kind == relay) && counted; {
	case !counted:
		l.Instances, l.InstancesPerSource, l.SourcePrefixV6 = config.Int{}, config.Int{}, config.Int{}
		if !l.Rate.IsSet() {
			l.Pos = config.Pos{}
		}
	case free:
		for _, n := range []struct {
			name string
			out  *config.Int
		}{{"instances", &l.Instances}, {"per_source", &l.InstancesPerSource}} {
			if !s.isSet(n.name) && !s.t.defaults.isSet(n.name) {
				*n.out = config.Int{V: 0, Pos: s.name.Pos}
				s.t.unlimited = s.t.unlimited || !s.off
				if !l.Pos.IsSet() {
					l.Pos = s.name.Pos
				}
			}
		}
	}
	s.shed(l)
	s.refusal(l)
}

// shed reads max_load.
func (s *scope) shed(l *config.Limits) {
	a, v, ok := s.one("max_load")
	if !ok {
		return
	}
	load, err := strconv.ParseFloat(v.V, 64)
	if err != nil || load <= 0 {
		s.bad(a, v, "is no load; write a number above 0 such as 2.5")
		return
	}
	l.Shed = config.Shed{Pos: v.Pos, Load: config.Number{V: load, Pos: v.Pos}}
	if !l.Pos.IsSet() {
		l.Pos = v.Pos
	}
}

// refusal reads banner_fail, of the service or of the defaults: a text that cannot be
// read is no reason to serve nobody.
func (s *svc) refusal(l *config.Limits) {
	from := s.scope
	if !from.isSet("banner_fail") {
		from = s.t.defaults
	}
	_, v, ok := from.one("banner_fail")
	if !ok {
		return
	}
	if s.named || s.kind == mux || s.dgram || s.wait {
		if from == s.scope {
			s.lost(v, "is lost: who is refused here is told nothing, or a line that says why")
		}
		return
	}
	if s.l.disk != nil {
		if text, err := s.l.disk.Text(v.V); err != nil || text == "" || len(text) > maxBanner {
			s.lost(v, "is lost: it is no file of 1 to %d bytes; who is refused is told nothing", maxBanner)
			return
		}
	}
	l.RefusalFile = v
	if !l.Pos.IsSet() {
		l.Pos = v.Pos
	}
	s.changed(v, "is told to whoever is over a limit; who may not come at all is told nothing")
}

// maxBanner is how long a text for whoever is refused may be, in bytes.
const maxBanner = 4096

// uncounted notes limits that mean nothing for the service.
func (s *svc) uncounted(why string) {
	for _, name := range []string{"instances", "per_source"} {
		if a, _, ok := s.one(name); ok {
			s.lost(a.name, "is not used: %s", why)
		}
	}
}

// banners notes the texts that are lost.
func (s *scope) banners() {
	if _, v, ok := s.one("banner"); ok {
		s.lost(v, "is lost: nothing is sent to a peer before it is judged")
	}
	if _, v, ok := s.one("banner_success"); ok {
		s.lost(v, "is lost: nothing is sent before what the program says; have the program say it")
	}
}
