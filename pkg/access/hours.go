package access

// Hours: when a service is there for anybody at all, by the clock on the wall.

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// A Span is a part of every week, in minutes after Monday 00:00 of the local
// clock: From is in it, To is not. A Span may go on into the next week.
type Span struct {
	From int // 0 to Week-1
	To   int // more than From, at most From+Week
}

// Day and Week are what a Span counts in.
const (
	Day  = 24 * 60
	Week = 7 * Day
)

// Hours are the times of the week at which a service may be had. A nil *Hours is
// always. It is immutable and safe for concurrent use.
//
// What counts is what the clock shows: an hour that is skipped in spring is in no
// Span, and one that comes twice in autumn is in it twice.
type Hours struct {
	spans []Span // within the week, sorted, no two touch but over its end
	zone  *time.Location
	rules string
}

// NewHours makes Hours of spans, which may overlap and stand in any order; there
// is at least one. rules is compared by Equal: something that is another when the
// rules of the zone are others, which two values of *time.Location do not tell.
func NewHours(spans []Span, zone *time.Location, rules string) *Hours {
	var list []Span
	for _, s := range spans {
		if s.To > Week {
			list = append(list, Span{0, s.To - Week})
			s.To = Week
		}
		list = append(list, s)
	}
	slices.SortFunc(list, func(a, b Span) int { return a.From - b.From })
	h := &Hours{zone: zone, rules: rules}
	for _, s := range list {
		if n := len(h.spans); n > 0 && s.From <= h.spans[n-1].To {
			h.spans[n-1].To = max(h.spans[n-1].To, s.To)
		} else {
			h.spans = append(h.spans, s)
		}
	}
	return h
}

// Always reports whether there is no time at which the service is not to be had.
func (h *Hours) Always() bool { return h == nil || len(h.spans) == 1 && h.spans[0] == Span{0, Week} }

// Open reports whether the service may be had at t. It allocates nothing.
func (h *Hours) Open(t time.Time) bool {
	if h == nil {
		return true
	}
	_, open := h.at(secondOfWeek(t.In(h.zone)))
	return open
}

// Next is the first moment after t from which Open says something else; the zero
// Time if there is none. It is meant for timers: who waits for it should look
// again once in a while, because clocks are set.
func (h *Hours) Next(t time.Time) time.Time {
	if h.Always() {
		return time.Time{}
	}
	open := h.Open(t)
	// Within one offset from UTC the clock only goes on, so the edge is where the
	// spans say; at the end of it the clock jumps. Offsets last for weeks, so
	// that a few of them have an edge even if a jump leaves out the next one.
	for range 16 {
		local := t.In(h.zone)
		left, _ := h.at(secondOfWeek(local))
		edge := local.Add(time.Duration(left)*time.Second - time.Duration(local.Nanosecond()))
		_, jump := local.ZoneBounds()
		if jump.IsZero() || edge.Before(jump) {
			return edge
		}
		if h.Open(jump) != open {
			return jump
		}
		t = jump
	}
	return t
}

// at says whether a second of the week is in a span, and how many seconds it is to
// where that changes.
func (h *Hours) at(second int) (left int, open bool) {
	for i, s := range h.spans {
		from, to := 60*s.From, 60*s.To
		switch {
		case second < from:
			return from - second, false
		case second < to:
			if i == len(h.spans)-1 && s.To == Week && h.spans[0].From == 0 {
				to += 60 * h.spans[0].To
			}
			return to - second, true
		}
	}
	return 60*(Week+h.spans[0].From) - second, false
}

func secondOfWeek(t time.Time) int {
	hour, minute, second := t.Clock()
	day := (int(t.Weekday()) + 6) % 7 // Monday is the first
	return 60*(Day*day+60*hour+minute) + second
}

// Equal reports whether both are the same times under the same rules.
func (h *Hours) Equal(i *Hours) bool {
	if h == nil || i == nil {
		return h == i
	}
	return h.rules == i.rules && h.zone.String() == i.zone.String() && slices.Equal(h.spans, i.spans)
}

// String is for the log and for tests: "mon 08:00-mon 18:00, ... (Europe/Berlin)".
func (h *Hours) String() string {
	if h == nil {
		return "always"
	}
	days := [...]string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}
	clock := func(m int) string { return fmt.Sprintf("%s %02d:%02d", days[m/Day%7], m%Day/60, m%60) }
	var list []string
	for _, s := range h.spans {
		list = append(list, clock(s.From)+"-"+clock(s.To))
	}
	return fmt.Sprintf("%s (%s)", strings.Join(list, ", "), h.zone)
}

// MarshalText is String, for what encodes a row.
func (h *Hours) MarshalText() ([]byte, error) { return []byte(h.String()), nil }
