// What becomes of those who are over a limit, and when a row takes nobody.

package config

import (
	"fmt"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of overflow_wait, suspend and refusal. A text finds room in the empty buffer of
// any socket, and its line in what a client reads for one.
const (
	defaultOverflowWait = 5 * time.Second
	maxOverflowWait     = time.Hour
	defaultSuspend      = 10 * time.Minute // of the inetds
	maxSuspend          = 24 * time.Hour
	maxRefusal          = 4096
	maxRefusalLine      = 500
)

// overflow reads overflow and overflow_wait.
func (r *row) overflow() {
	l := &r.text.Limits
	how := choose(r, "limits.overflow", l.Overflow, []choice[service.Overflow]{
		{"refuse", service.OverflowRefuse}, {"queue", service.OverflowQueue}, {"reset", service.OverflowReset}})
	wait := r.duration("limits.overflow_wait", l.OverflowWait, defaultOverflowWait, 100*time.Millisecond, maxOverflowWait, 0)
	if r.isDefaults() {
		return
	}
	why := ""
	switch {
	case how == service.OverflowRefuse:
	case r.wait:
		why = "peers wait in the kernel's queue until the program takes them, whatever the limits are"
	case r.style == dgram && how == service.OverflowReset:
		why = "a datagram has no connection that could be reset"
	case r.style == dgram:
		why = "a datagram that waits would hold up those of all others"
	case r.kind == multiplexer && how == service.OverflowQueue:
		why = fmt.Sprintf("%s never lets a peer wait in the kernel's queue", r.kind)
	}
	if why != "" {
		how = service.OverflowRefuse
		if !r.inherited["limits.overflow"] {
			r.errorf("limits.overflow", l.Overflow.Pos, "%s; write overflow = \"refuse\" instead", why)
		}
	}
	r.svc.Overflow = how
	switch {
	case how == service.OverflowQueue && r.kind&byName != 0:
		r.svc.OverflowWait = wait
	case !l.OverflowWait.IsSet() || r.inherited["limits.overflow_wait"] || r.bad("limits.overflow"):
	case how == service.OverflowQueue:
		r.errorf("limits.overflow_wait", l.OverflowWait.Pos, "peers of this row wait in the kernel's queue, for as long as they like; take it out")
	default:
		r.errorf("limits.overflow_wait", l.OverflowWait.Pos, "nobody waits; write overflow = \"queue\" beside it")
	}
}

// refusal reads refusal and refusal_file.
func (r *row) refusal() {
	l := &r.text.Limits
	why := ""
	switch {
	case r.isDefaults():
	case r.wait:
		why = "the program takes its peers itself, and none is refused"
	case r.style == dgram:
		why = "a datagram over a limit is dropped, because its sender may be forged"
	case r.svc.Overflow == service.OverflowReset:
		why = "a connection that is reset carries no text"
	}
	if why != "" {
		r.without(why, "refusal", "refusal_file")
		return
	}
	// What the row says itself is worth more than what it takes from [defaults].
	text, file := l.Refusal, l.RefusalFile
	switch {
	case !text.IsSet() || !file.IsSet():
	case r.inherited["limits.refusal"] == r.inherited["limits.refusal_file"]:
		if !r.inherited["limits.refusal"] {
			r.errorf("limits.refusal_file", file.Pos, "there is limits.refusal already; write only one of them")
		}
		file = String{}
	case r.inherited["limits.refusal"]:
		text = String{}
	default:
		file = String{}
	}
	key, pos := "limits.refusal", text.Pos
	switch {
	case text.IsSet():
		if !r.plain(key, text, maxRefusal-2, "a text") {
			return
		}
		text.V += "\r\n"
	case file.IsSet():
		key, pos = "limits.refusal_file", file.Pos
		if !r.absolute(key, file, "/etc/tcpmuxd/busy") || r.isDefaults() {
			return
		}
		b, err := r.c.asked.file(r.c.o, file.V)
		switch {
		case err != nil:
			r.errorf(key, pos, "reading %s: %v; write the path of a file with a text", file.V, reason(err))
			return
		case len(b) == 0 || len(b) > maxRefusal:
			r.errorf(key, pos, "%s has %d bytes; write the path of a file of 1 to %d bytes", file.V, len(b), maxRefusal)
			return
		}
		text.V = b
	default:
		return
	}
	if r.isDefaults() {
		return
	}
	if r.kind&byName != 0 || r.kind == multiplexer {
		line := strings.TrimSuffix(strings.TrimSuffix(text.V, "\n"), "\r")
		if !isLine(line) {
			r.errorf(key, pos, "a multiplexer says it in one line; write a text of 1 to %d bytes without line ends and control bytes", maxRefusalLine)
			return
		}
		text.V = "-" + line + "\r\n"
	}
	r.svc.Refusal = text.V
}

func isLine(s string) bool {
	return s != "" && len(s) <= maxRefusalLine && utf8.ValidString(s) && strings.IndexFunc(s, unicode.IsControl) < 0
}

// suspend reads exceeded and suspend.
func (r *row) suspend() {
	l := &r.text.Limits
	suspends := choose(r, "limits.exceeded", l.Exceeded, []choice[bool]{{"refuse", false}, {"suspend", true}})
	long := r.duration("limits.suspend", l.Suspend, defaultSuspend, time.Second, maxSuspend, 0)
	switch {
	case r.isDefaults():
	case suspends && r.svc.Limits.Rate.N == 0:
		n, _, _ := strings.Cut(l.Rate.V, "/")
		unlimited := strings.Trim(n, "0") == "" // else it is wrong, and that was said
		if unlimited && !r.inherited["limits.exceeded"] && !r.bad("limits.rate") {
			r.errorf("limits.exceeded", l.Exceeded.Pos, "only limits.rate suspends a row, and it has none; write rate = \"256/min\" beside it, or take this out")
		}
	case suspends:
		r.svc.Suspend = long
	case l.Suspend.IsSet() && !r.inherited["limits.suspend"] && !r.bad("limits.exceeded"):
		r.errorf("limits.suspend", l.Suspend.Pos, "the row is never suspended; write exceeded = \"suspend\" beside it")
	}
}

// shed reads shed.
func (r *row) shed() {
	s, o := &r.text.Limits.Shed, r.c.o
	if !s.Pos.IsSet() {
		return
	}
	out := service.Shed{
		Load:       r.positive("limits.shed.load", s.Load, 100_000),
		MemorySome: r.positive("limits.shed.memory_some", s.MemorySome, 100),
		MemoryFull: r.positive("limits.shed.memory_full", s.MemoryFull, 100),
	}
	switch {
	case !s.Load.IsSet() && !s.MemorySome.IsSet() && !s.MemoryFull.IsSet() && !r.bad("limits.shed"):
		r.errorf("limits.shed", s.Pos, "it says nothing; write one such as shed = { load = 8.0 }")
	case s.Load.IsSet() && !o.LoadAverage:
		r.errorf("limits.shed.load", s.Load.Pos, "this system has no /proc/loadavg that could be read; take it out")
	}
	for _, k := range []struct {
		key   string
		value Number
	}{{"memory_some", s.MemorySome}, {"memory_full", s.MemoryFull}} {
		if k.value.IsSet() && !o.Pressure {
			r.errorf("limits.shed."+k.key, k.value.Pos, "this kernel has no /proc/pressure/memory that could be read (CONFIG_PSI, and psi=1 at its start); take it out")
		}
	}
	if !r.isDefaults() {
		r.svc.Shed = out
	}
}

// positive returns n, or 0 if it was not written or is out of bounds.
func (r *row) positive(key string, n Number, most float64) float64 {
	if !n.IsSet() {
		return 0
	}
	if !(n.V > 0 && n.V <= most) { // nan is neither
		r.errorf(key, n.Pos, "%v is out of bounds; write a number above 0 and up to %v instead", n.V, most)
		return 0
	}
	return n.V
}
