package relay

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

// The clock against a list that is searched.
func TestClock(t *testing.T) {
	var c clock
	var in []*record
	for range 20_000 {
		switch n := rand.IntN(10); {
		case n < 5 || len(in) == 0:
			r := new(record)
			c.set(r, time.Duration(rand.IntN(1000)))
			in = append(in, r)
		case n < 7:
			c.set(in[rand.IntN(len(in))], time.Duration(rand.IntN(1000)))
		case n < 9:
			i := rand.IntN(len(in))
			c.drop(in[i])
			c.drop(in[i]) // is not in any more
			in = slices.Delete(in, i, i+1)
		default:
			first := slices.MinFunc(in, func(a, b *record) int { return int(a.due - b.due) })
			if c[0].due != first.due {
				t.Fatalf("the first is due at %d, want %d", c[0].due, first.due)
			}
		}
		if len(c) != len(in) {
			t.Fatalf("the clock has %d records, want %d", len(c), len(in))
		}
	}
	for i, r := range c {
		if int(r.place) != i+1 {
			t.Fatalf("place %d thinks it is %d", i+1, r.place)
		}
	}
}

func TestDeadline(t *testing.T) {
	r := &record{plan: &Plan{}, born: 10, moved: 100}
	if _, _, ok := r.deadline(); ok {
		t.Error("a record without limits of time has a deadline")
	}
	for _, test := range []struct {
		idle, lifetime, want time.Duration
		why                  Reason
	}{
		{idle: 5, want: 105, why: Idle},
		{lifetime: 5, want: 15, why: Lifetime},
		{idle: 5, lifetime: 200, want: 105, why: Idle},
		{idle: 500, lifetime: 200, want: 210, why: Lifetime},
	} {
		r.plan = &Plan{Idle: test.idle, Lifetime: test.lifetime}
		if at, why, ok := r.deadline(); !ok || at != test.want || why != test.why {
			t.Errorf("%+v: %v, %v, %v", test, at, why, ok)
		}
	}
	r.plan = &Plan{Idle: 5, Lifetime: 200}
	r.dial = &dial{limit: 300, again: 150}
	if at, why, _ := r.deadline(); at != 150 || why != Connect {
		t.Errorf("while it connects: %v, %v", at, why)
	}
}
