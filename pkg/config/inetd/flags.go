// What the command line of an inetd says of the rows of its files, where they do
// not say it themselves. How such a command line is written is not known here.

package inetd

import (
	"strconv"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// Flags are of all rows. The zero Flags say nothing.
type Flags struct {
	Host               string // the address of rows that have none
	Rate               Count  // starts of a program a minute, in place of the dialect's; 0: no limit
	Instances          Count  // of a program with nowait, at once; 0: no limit
	RatePerSource      Count  // of a program with nowait, a minute; 0: no limit
	InstancesPerSource Count  // of a program with nowait, at once; 0: no limit

	// Who asks tcp_wrappers: all programs, what is built in, and, by -l, what the
	// dialect says.
	WrapPrograms, WrapBuiltins, L bool
}

// A Count is a number that may not be there.
type Count struct {
	N   int // from 0
	set bool
}

// CountOf is a number that is there.
func CountOf(n int) Count { return Count{n, true} }

// IsSet reports whether the number is there.
func (c Count) IsSet() bool { return c.set }

// flagLimits gives an entry, a program with nowait, the limits that it has not
// written.
func (p *parser) flagLimits(e *entry) {
	w := e.wait
	if w.s == "" {
		w = e.name
	}
	for _, l := range []struct {
		of   Count
		into *word
	}{
		{p.flags.Instances, &e.instances},
		{p.flags.RatePerSource, &e.ipPerMinute},
		{p.flags.InstancesPerSource, &e.ipInstances},
	} {
		if l.of.IsSet() && l.into.s == "" {
			*l.into = word{strconv.Itoa(l.of.N), w.line, w.col}
		}
	}
}

// A wrapping is which programs of nowait streams have tcp_wrappers asked.
type wrapping uint8

const (
	wrapsNone wrapping = iota
	wrapsByL           // with the option -l
	wrapsAll
)

// wrap has tcp_wrappers asked where the dialect or the command line says so.
func (p *parser) wrap(s *config.Service, e *entry) {
	exec := s.Exec.IsSet()
	usual := exec && !s.Wait.V && e.typ.s == "stream"
	if exec && p.flags.WrapPrograms || !exec && p.flags.WrapBuiltins ||
		usual && (p.d.wraps == wrapsAll || p.d.wraps == wrapsByL && p.flags.L) {
		s.Access.Pos = p.at(e.name)
		s.Access.HostsAccess = config.Bool{V: true, Pos: s.Access.Pos}
	}
}

// most is how many starts a minute a row may ask for; 0: any number.
func (p *parser) most() int {
	if p.d.most > 0 && p.flags.Rate.IsSet() {
		return p.flags.Rate.N
	}
	return p.d.most
}
