// The attributes that have nothing to do with others: sensors, tcp_wrappers, and
// what is lost.

package xinetd

import (
	"strconv"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// rest reads what is left of a service.
func (s *svc) rest() {
	s.banners()
	s.wrappers()
	if w, ok := s.flags["IDONLY"]; ok {
		s.lost(w, "is lost: no peer is asked who its user is (RFC 1413), and those that would not say come in, too")
	}
	if _, v, ok := s.one("mdns"); ok && s.yes("mdns") {
		s.lost(v, "is lost: services are not announced")
	}
	s.deny()
}

// deny reads deny_time.
func (s *svc) deny() {
	a, v, ok := s.one("deny_time")
	switch {
	case ok && v.V != "FOREVER" && v.V != "NEVER" && !isNumber(v.V):
		s.bad(a, v, "is no time; write a number of minutes, FOREVER or NEVER")
	case ok && s.kind != sensor:
		s.lost(v, "means nothing without flags = SENSOR, and is passed over")
	}
}

// The bounds of how long anybody is held off; that above is [server.scan]'s.
const maxHold = 720 * 60 // minutes

// scanners makes the table [server.scan] for the sensors there are: all of them hold
// off for as long as the one that wants the longest. A sensor that wants nobody held
// off refuses whoever comes, which is logged.
func (t *translator) scanners() {
	hold := config.String{}
	longest := int64(0)
	for _, s := range t.sensors {
		w := s.flags["SENSOR"]
		_, v, ok := s.one("deny_time")
		n, _ := strconv.ParseInt(v.V, 10, 64)
		switch {
		case !ok || v.V == "NEVER" || zero(v.V):
			s.out.Builtin = config.String{V: "discard", Pos: s.name.Pos}
			s.out.Access = config.Access{Pos: s.name.Pos, Allow: nobody(s.name.Pos), Deny: config.List{Pos: s.name.Pos}}
			continue
		case v.V == "FOREVER" || n > maxHold:
			n = maxHold
			t.note(config.Changed, v, "is 30 days here: nobody is held off for longer")
		}
		s.out.Builtin = config.String{V: "sensor", Pos: w.Pos}
		if longest != 0 && n != longest {
			t.note(config.Changed, v, "is not the deny_time of every sensor: the longest holds for all")
		}
		if n > longest {
			longest, hold = n, config.String{V: strconv.FormatInt(n, 10) + "m", Pos: v.Pos}
		}
	}
	if longest == 0 {
		return
	}
	pos := hold.Pos
	t.f.Server.Scan = config.Scan{Pos: pos, Hold: hold, Names: config.Int{V: maxNames, Pos: pos}}
	t.note(config.Changed, config.String{V: "deny_time", Pos: pos}, "holds for those, too, who try %d names that are not there within a minute, over tcpmux", maxNames)
}

// maxNames is how many names somebody may try at most before being held off: xinetd
// does not count them.
const maxNames = 256

// libwrap says once what is different of hosts.allow and hosts.deny.
func (t *translator) libwrap() {
	t.note(config.Changed, config.String{V: "libwrap", Pos: t.pos}, "is access.hosts_access: /etc/hosts.allow and /etc/hosts.deny are read, but host names are not looked up and no command is run: what they would decide never allows, and denies")
}

// wrappers reads libwrap and NOLIBWRAP. Who a sensor catches is not asked for before.
func (s *svc) wrappers() {
	a := &s.out.Access
	w, never := s.flags["NOLIBWRAP"]
	switch _, name, named := s.one("libwrap"); {
	case never || s.kind == sensor:
		if !never {
			w = s.name
		}
		a.HostsAccess = config.Bool{Pos: w.Pos}
		if named {
			s.lost(name, "means nothing for a service that hosts.allow and hosts.deny are not asked about, and is passed over")
		}
	case named:
		w, a.HostsDaemon = name, name
	default:
		return
	}
	if !a.Pos.IsSet() {
		a.Pos = w.Pos
	}
}
