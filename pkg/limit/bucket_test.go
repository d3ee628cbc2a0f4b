package limit

import (
	"math"
	"math/big"
	"math/rand/v2"
	"testing"
	"time"
)

// slowBucket is a token bucket as one would explain it: the list of all
// admissions. One more is allowed if, counted from any of them on, there were
// never more than the burst and what has dripped in since.
type slowBucket struct {
	n, burst int64 // n 0: unlimited
	per      time.Duration
	admitted []int64
}

func newSlowBucket(r Rate, burst int) slowBucket {
	if r.N <= 0 || r.Per <= 0 {
		return slowBucket{}
	}
	if burst <= 0 {
		burst = r.N
	}
	return slowBucket{n: int64(r.N), burst: int64(burst), per: r.Per}
}

func (s *slowBucket) ready(now int64) bool {
	if s.n == 0 {
		return true
	}
	for i, t := range s.admitted {
		// (those since i, and this one) <= burst + (now-t) * n / per
		count := int64(len(s.admitted)-i) + 1
		left := new(big.Int).Mul(big.NewInt(count-s.burst), big.NewInt(int64(s.per)))
		right := new(big.Int).Mul(big.NewInt(now-t), big.NewInt(s.n))
		if left.Cmp(right) > 0 {
			return false
		}
	}
	return true
}

func (s *slowBucket) take(now int64) { s.admitted = append(s.admitted, now) }

// isFull reports whether a full burst could be had at now.
func (s *slowBucket) isFull(now int64) bool {
	if s.n == 0 {
		return true
	}
	for i, t := range s.admitted {
		count := int64(len(s.admitted) - i)
		left := new(big.Int).Mul(big.NewInt(count), big.NewInt(int64(s.per)))
		right := new(big.Int).Mul(big.NewInt(now-t), big.NewInt(s.n))
		if left.Cmp(right) > 0 {
			return false
		}
	}
	return true
}

func TestBucketAgainstListOfTimestamps(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	pers := []time.Duration{1, 7, 1000, time.Second, time.Minute, time.Hour, 24 * time.Hour}
	for range 400 {
		r := Rate{N: 1 + rng.IntN(20), Per: pers[rng.IntN(len(pers))]}
		burst := rng.IntN(8)
		fast, slow := newMeter(r, burst), newSlowBucket(r, burst)
		at, now := full, rng.Int64N(1000)
		for range 120 {
			// Most steps are about one token; some hit a token's moment
			// exactly, some are nothing.
			switch rng.IntN(4) {
			case 0:
			case 1:
				now += rng.Int64N(int64(r.Per)/int64(r.N)*3 + 3)
			case 2:
				now += int64(r.Per) / int64(r.N)
			case 3:
				if at.ns > now && at.ns-fast.slack.ns > now {
					now = at.ns - fast.slack.ns + rng.Int64N(3) - 1
				}
			}
			if got, want := at.over(now), slow.isFull(now); got != want {
				t.Fatalf("%v burst %d at %d: full %v, want %v; admitted %v", r, burst, now, got, want, slow.admitted)
			}
			got, want := fast.ready(now, at), slow.ready(now)
			if got != want {
				t.Fatalf("%v burst %d at %d: ready %v, want %v; admitted %v", r, burst, now, got, want, slow.admitted)
			}
			if got {
				at = fast.take(now, at)
				slow.take(now)
			}
		}
	}
}

// Seven in a second do not divide a second, and over a long time no token is
// lost or won by that.
func TestBucketIsExact(t *testing.T) {
	m := newMeter(Rate{7, time.Second}, 1)
	at := full
	admitted := 0
	for now := int64(0); now < int64(time.Hour); {
		if m.ready(now, at) {
			at = m.take(now, at)
			admitted++
		}
		now = at.ns // the whole nanosecond before, or at, the next token
		if at.frac > 0 {
			if m.ready(now, at) {
				t.Fatalf("token %d came early", admitted+1)
			}
			now++
		}
	}
	// One at the start and then 7 in each second, less what waiting for
	// whole nanoseconds takes: below one part in 10^8.
	if want := 7 * 3600; admitted != want && admitted != want+1 {
		t.Errorf("%d in an hour, want %d", admitted, want)
	}
}

func TestBucketBounds(t *testing.T) {
	const big = math.MaxInt
	for _, m := range []meter{
		newMeter(Rate{big, big}, big), newMeter(Rate{1, big}, big), newMeter(Rate{big, 1}, big), newMeter(Rate{1, big}, 1),
	} {
		at := full
		now := nanos(big)
		for range 3 {
			if !m.ready(now, at) && m.burst > 1 {
				t.Errorf("%+v: not ready", m)
			}
			at = m.take(now, at)
		}
		if at.ns < now || at.ns < 0 {
			t.Errorf("%+v: overflow to %+v", m, at)
		}
	}
	for _, r := range []Rate{{}, {0, time.Second}, {-1, time.Second}, {1, 0}, {1, -1}} {
		m := newMeter(r, 1)
		at := full
		for range 3 {
			if !m.ready(0, at) {
				t.Errorf("%+v limits", r)
			}
			at = m.take(0, at)
		}
	}
}

// missing is how many tokens are missing from a bucket, as a fraction.
func missing(m *meter, now int64, at moment) *big.Rat {
	if m.n == 0 || at.over(now) {
		return new(big.Rat)
	}
	parts := new(big.Int).Mul(big.NewInt(at.ns-now), big.NewInt(int64(m.n)))
	parts.Add(parts, big.NewInt(int64(at.frac)))
	return new(big.Rat).SetFrac(parts, big.NewInt(m.per))
}

func TestConvertKeepsWhatIsMissing(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	random := func() meter {
		pers := []time.Duration{1, 999, time.Second, time.Minute, time.Hour, 24 * time.Hour, MaxPer}
		r := Rate{N: 1 + rng.IntN(1<<rng.IntN(30)), Per: pers[rng.IntN(len(pers))]}
		return newMeter(r, 1+rng.IntN(1<<rng.IntN(30)))
	}
	for range 20_000 {
		from, to := random(), random()
		now := rng.Int64N(1 << 60)
		at := full
		if rng.IntN(4) > 0 {
			at = from.later(moment{ns: now}, from.span(1+uint64(rng.Int64N(int64(from.burst)))))
			now += rng.Int64N(from.step.ns + 1)
		}
		got := to.convert(now, at, &from)
		if got.frac >= to.n {
			t.Fatalf("convert %+v from %+v to %+v: frac %d", at, from, to, got.frac)
		}
		want := missing(&from, now, at)
		if most := new(big.Rat).SetInt64(int64(to.burst)); want.Cmp(most) > 0 {
			want = most
		}
		if to.span(uint64(to.burst)).ns == 1<<61 || from.span(uint64(from.burst)).ns == 1<<61 {
			continue // capped at 73 years
		}
		diff := new(big.Rat).Sub(missing(&to, now, got), want)
		// One part of a nanosecond is 1/per of a token.
		if diff.Sign() < 0 || diff.Cmp(big.NewRat(1, to.per)) > 0 {
			t.Fatalf("convert %+v at %d from %+v to %+v: %v missing, want %v", at, now, from, to, missing(&to, now, got), want)
		}
	}
	none, some := newMeter(Rate{}, 0), newMeter(Rate{1, time.Hour}, 1)
	taken := some.take(5, full)
	if got := none.convert(5, taken, &some); got != full {
		t.Errorf("to unlimited: %+v", got)
	}
	if got := some.convert(5, full, &none); got != full {
		t.Errorf("from unlimited: %+v", got)
	}
	if got := some.convert(5, taken, &some); got != taken {
		t.Errorf("to itself: %+v", got)
	}
}
