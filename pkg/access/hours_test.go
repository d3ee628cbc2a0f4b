package access

import (
	"math/rand/v2"
	"testing"
	"time"
	_ "time/tzdata"
)

func zone(t testing.TB, name string) *time.Location {
	t.Helper()
	l, err := time.LoadLocation(name)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

// slowOpen is Open as its doc reads: it looks at the clock and at every span.
func slowOpen(spans []Span, t time.Time) bool {
	day := map[time.Weekday]int{time.Monday: 0, time.Tuesday: 1, time.Wednesday: 2, time.Thursday: 3, time.Friday: 4, time.Saturday: 5, time.Sunday: 6}[t.Weekday()]
	now := day*24*60 + t.Hour()*60 + t.Minute()
	for _, s := range spans {
		if s.From <= now && now < s.To || s.From <= now+7*24*60 && now+7*24*60 < s.To {
			return true
		}
	}
	return false
}

// TestHoursAgainstAWalk goes through weeks with changes of the clock minute by
// minute. Lord Howe Island shifts by half an hour, Nepal is at an odd offset,
// Morocco changes around Ramadan, Samoa has left out a Friday, and Santiago
// changes at midnight, so that a day begins at one.
func TestHoursAgainstAWalk(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	starts := []struct {
		zone string
		from time.Time // UTC
	}{
		{"Europe/Berlin", time.Date(2026, 3, 23, 0, 0, 0, 0, time.UTC)},
		{"Europe/Berlin", time.Date(2026, 10, 19, 0, 0, 0, 0, time.UTC)},
		{"Europe/Berlin", time.Date(2060, 3, 22, 0, 0, 0, 0, time.UTC)}, // by the rule, beyond the table
		{"America/New_York", time.Date(2026, 3, 2, 0, 0, 0, 0, time.UTC)},
		{"America/New_York", time.Date(2026, 10, 26, 0, 0, 0, 0, time.UTC)},
		{"Australia/Lord_Howe", time.Date(2026, 3, 30, 0, 0, 0, 0, time.UTC)},
		{"Australia/Lord_Howe", time.Date(2026, 9, 28, 0, 0, 0, 0, time.UTC)},
		{"America/Santiago", time.Date(2026, 8, 31, 0, 0, 0, 0, time.UTC)},
		{"Africa/Casablanca", time.Date(2026, 2, 9, 0, 0, 0, 0, time.UTC)},
		{"Pacific/Apia", time.Date(2011, 12, 26, 0, 0, 0, 0, time.UTC)},
		{"Asia/Kathmandu", time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)},
		{"UTC", time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)},
	}
	for round := range 24 {
		start := starts[round%len(starts)]
		var spans []Span
		for range 1 + rng.IntN(5) {
			// Edges at whole and half hours meet the jumps.
			from := 30 * rng.IntN(Week/30)
			to := from + 30*(1+rng.IntN(2*Day/30))
			if rng.IntN(3) == 0 {
				from, to = min(from+rng.IntN(30), Week-1), to+rng.IntN(30)
			}
			spans = append(spans, Span{from, max(to, from+1)})
		}
		loc := zone(t, start.zone)
		h := NewHours(spans, loc, "")
		const minutes = 15 * Day
		open := make([]bool, minutes)
		for i := range minutes {
			at := start.from.Add(time.Duration(i) * time.Minute)
			open[i] = slowOpen(spans, at.In(loc))
			if h.Open(at) != open[i] || h.Open(at.Add(59*time.Second)) != open[i] {
				t.Fatalf("%s: Open(%v) = %v, the walk says %v; spans %v", start.zone, at.In(loc), h.Open(at), open[i], spans)
			}
		}
		// From the end, so that the next edge is known.
		edge := -1
		for i := minutes - 2; i >= 0; i-- {
			if open[i] != open[i+1] {
				edge = i + 1
			}
			if edge < 0 || rng.IntN(37) > 0 && open[max(i-1, 0)] == open[i] {
				continue
			}
			at := start.from.Add(time.Duration(i)*time.Minute + time.Duration(rng.IntN(60_000))*time.Millisecond)
			if want, got := start.from.Add(time.Duration(edge)*time.Minute), h.Next(at); !got.Equal(want) {
				t.Fatalf("%s: Next(%v) = %v, the walk says %v; spans %v", start.zone, at.In(loc), got, want.In(loc), spans)
			}
		}
	}
}

func TestHoursOnAChangingClock(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	sunday := NewHours([]Span{{6*Day + 2*60, 6*Day + 3*60}}, berlin, "") // sun 02:00-03:00
	for at, want := range map[string]bool{
		"2026-03-29T00:59:59Z": false, "2026-03-29T01:00:00Z": false, // 01:59:59, then 03:00:00
		"2026-10-25T00:00:00Z": true, "2026-10-25T01:30:00Z": true, "2026-10-25T02:00:00Z": false, // twice
		"2026-06-07T00:30:00Z": true,
	} {
		when, err := time.Parse(time.RFC3339, at)
		if err != nil {
			t.Fatal(err)
		}
		if sunday.Open(when) != want {
			t.Errorf("%s: open %v", at, !want)
		}
	}
	// The window that is skipped is not the next one.
	got := sunday.Next(time.Date(2026, 3, 28, 12, 0, 0, 0, time.UTC))
	if want := time.Date(2026, 4, 5, 0, 0, 0, 0, time.UTC); !got.Equal(want) {
		t.Errorf("the next window begins at %v, want %v", got, want)
	}
}

func TestHoursAlways(t *testing.T) {
	now := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
	for _, h := range []*Hours{nil, NewHours([]Span{{0, Week}}, time.UTC, ""), NewHours([]Span{{60, 4 * Day}, {4 * Day, Week + 60}}, time.UTC, ""), NewHours([]Span{{77, 77 + Week}}, time.UTC, "")} {
		if !h.Always() || !h.Open(now) || !h.Next(now).IsZero() {
			t.Errorf("%v: always %v, open %v, next %v", h, h.Always(), h.Open(now), h.Next(now))
		}
	}
	if NewHours([]Span{{0, Week - 1}}, time.UTC, "").Always() {
		t.Error("a minute less is always")
	}
}

func TestHoursEqual(t *testing.T) {
	berlin := zone(t, "Europe/Berlin")
	a := NewHours([]Span{{0, 60}, {60, 120}}, berlin, "a")
	for _, same := range []*Hours{a, NewHours([]Span{{30, 120}, {0, 40}}, zone(t, "Europe/Berlin"), "a")} {
		if !a.Equal(same) {
			t.Errorf("%v is not %v", a, same)
		}
	}
	for _, other := range []*Hours{nil, NewHours([]Span{{0, 121}}, berlin, "a"), NewHours([]Span{{0, 120}}, time.UTC, "a"), NewHours([]Span{{0, 120}}, berlin, "b")} {
		if a.Equal(other) || other.Equal(a) {
			t.Errorf("%v is %v", a, other)
		}
	}
	if !(*Hours)(nil).Equal(nil) {
		t.Error("always is not always")
	}
	if got, want := a.String(), "mon 00:00-mon 02:00 (Europe/Berlin)"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
}

func TestHoursAllocateNothing(t *testing.T) {
	h := NewHours([]Span{{0, 60}, {5 * Day, 6 * Day}}, zone(t, "Europe/Berlin"), "")
	now := time.Now()
	if n := testing.AllocsPerRun(100, func() { h.Open(now) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
