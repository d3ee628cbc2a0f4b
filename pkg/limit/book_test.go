package limit

import (
	"encoding/binary"
	"math"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

// slowBook is a Book as its doc reads: lists of timestamps and of leases, for
// ever, and no bound on sources.
type slowBook struct {
	limits    Limits
	now       int64
	whole     slowBucket
	each      map[Source]*slowBucket
	leases    map[Source]int
	instances int
	reserved  int
}

func newSlowBook(l Limits) *slowBook {
	return &slowBook{
		limits: l, now: math.MinInt64, whole: newSlowBucket(l.Rate, l.Burst),
		each: make(map[Source]*slowBucket), leases: make(map[Source]int),
	}
}

func (s *slowBook) bucket(src Source) *slowBucket {
	if s.each[src] == nil {
		b := newSlowBucket(s.limits.RatePerSource, s.limits.BurstPerSource)
		s.each[src] = &b
	}
	return s.each[src]
}

func (s *slowBook) full() bool {
	return s.limits.Instances > 0 && s.instances+s.reserved >= s.limits.Instances
}

func (s *slowBook) admit(now int64, src Source, reserved bool) Reason {
	s.now = max(s.now, now)
	switch {
	case s.limits.InstancesPerSource > 0 && s.leases[src] >= s.limits.InstancesPerSource:
		return OverInstancesPerSource
	case !s.bucket(src).ready(s.now):
		return OverRatePerSource
	case !reserved && s.full():
		return OverInstances
	case !s.whole.ready(s.now):
		return OverRate
	}
	s.bucket(src).take(s.now)
	s.whole.take(s.now)
	s.leases[src]++
	s.instances++
	if reserved {
		s.reserved--
	}
	return OK
}

// setLimits knows only what can be said of a list of timestamps: rates that
// stay, and rates that come or go.
func (s *slowBook) setLimits(l Limits) {
	if l.Rate != s.limits.Rate || l.Burst != s.limits.Burst {
		s.whole = newSlowBucket(l.Rate, l.Burst)
	}
	if l.RatePerSource != s.limits.RatePerSource || l.BurstPerSource != s.limits.BurstPerSource {
		clear(s.each)
	}
	s.limits = l
}

type held struct {
	lease Lease
	src   Source
}

// playBook plays what data says to a Book and to a slowBook, and compares.
func playBook(t *testing.T, data []byte) {
	next := func() int {
		if len(data) == 0 {
			return 0
		}
		b := data[0]
		data = data[1:]
		return int(b)
	}
	pers := [...]time.Duration{0, 10, 1000, time.Second}
	l := Limits{
		Instances: next() % 8, InstancesPerSource: next() % 4,
		Rate: Rate{next() % 8, pers[next()%4]}, Burst: next() % 4,
		RatePerSource: Rate{next() % 4, pers[next()%4]}, BurstPerSource: next() % 4,
	}
	rates := l
	b, s := NewBook(l, 0), newSlowBook(l)
	var leases []held
	now := int64(next()) - 128

	for len(data) > 0 {
		op := next()
		switch op % 8 {
		case 0, 1, 2, 3: // admit
			src := src(op >> 3 % 4)
			got := OK
			var lease Lease
			reserved := op%8 == 3 && b.reserved > 0
			if reserved {
				lease, got = b.AdmitReserved(time.Duration(now), src)
			} else {
				lease, got = b.Admit(time.Duration(now), src)
			}
			if want := s.admit(now, src, reserved); got != want {
				t.Fatalf("%+v: admit of %v at %d: %v, want %v", b.limits, src, now, got, want)
			}
			if got == OK {
				leases = append(leases, held{lease, src})
			} else if lease != (Lease{}) {
				t.Fatalf("refusal %v came with a lease", got)
			}
		case 4: // release
			if len(leases) == 0 {
				continue
			}
			i := op >> 3 % len(leases)
			h := &leases[i]
			b.Release(&h.lease)
			b.Release(&h.lease) // twice does no harm
			s.leases[h.src]--
			s.instances--
			leases[i] = leases[len(leases)-1]
			leases = leases[:len(leases)-1]
		case 5: // reserve, or give up
			if op>>3%2 == 0 {
				if got, want := b.Reserve(), !s.full(); got != want {
					t.Fatalf("%+v: reserve: %v, want %v", b.limits, got, want)
				} else if got {
					s.reserved++
				}
			} else if s.reserved > 0 {
				b.Unreserve()
				s.reserved--
			}
		case 6: // time goes on; seldom it steps back
			step := int64(next()) * int64(pers[1+op>>3%3]) / 16
			if op>>5 == 7 {
				step = -step
			}
			now += step
		case 7: // reload
			l := rates
			l.Instances, l.InstancesPerSource = next()%8, next()%4
			if op>>3%4 == 1 {
				l.Rate = Rate{}
			}
			if op>>3%4 == 2 {
				l.RatePerSource = Rate{}
			}
			b.SetLimits(l)
			s.setLimits(l)
		}

		if b.Instances() != s.instances || b.reserved != s.reserved {
			t.Fatalf("%d instances and %d reserved, want %d and %d", b.Instances(), b.reserved, s.instances, s.reserved)
		}
		// Whoever still owes something has an account.
		for src, n := range s.leases {
			if i := b.sources.find(src); i == noSlot {
				if n > 0 || !s.bucket(src).isFull(s.now) {
					t.Fatalf("%v has %d leases and no account", src, n)
				}
			} else if int(b.sources.at(i).leases) != n {
				t.Fatalf("%v has %d leases, want %d", src, b.sources.at(i).leases, n)
			}
		}
	}
	for i := range leases {
		b.Release(&leases[i].lease)
	}
	for range b.reserved {
		b.Unreserve()
	}
	if b.Instances() != 0 || b.reserved != 0 {
		t.Fatalf("%d instances and %d reserved after the last", b.Instances(), b.reserved)
	}
	b.sources.check(t)
}

func TestBookAgainstListOfTimestamps(t *testing.T) {
	rng := rand.New(rand.NewPCG(13, 14))
	for range 1500 {
		data := make([]byte, 10+rng.IntN(300))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		playBook(t, data)
	}
}

func FuzzBook(f *testing.F) {
	f.Add([]byte{2, 1, 3, 3, 2, 2, 3, 1, 9, 0, 0, 8, 4, 0, 6, 200, 0, 5, 3, 13, 7, 1, 1, 0})
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 4, 4})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 1000 {
			return // the slow book is slow
		}
		playBook(t, data)
	})
}

// admit fails the test unless the answer is want.
func admit(t *testing.T, b *Book, now time.Duration, src Source, want Reason) Lease {
	t.Helper()
	l, got := b.Admit(now, src)
	if got != want {
		t.Fatalf("at %v: %v, want %v", now, got, want)
	}
	return l
}

func TestZeroLimitsLimitNothing(t *testing.T) {
	b := NewBook(Limits{}, 0)
	for range 1000 {
		admit(t, b, 0, src(1), OK)
	}
	if !b.Reserve() {
		t.Error("no place to reserve")
	}
	if b.Instances() != 1000 || b.Sources() != 1 {
		t.Errorf("%d instances of %d sources", b.Instances(), b.Sources())
	}
}

// The limits of the source are blamed before those of the service.
func TestReasons(t *testing.T) {
	b := NewBook(Limits{
		Instances: 4, InstancesPerSource: 2,
		Rate: Rate{5, time.Minute}, RatePerSource: Rate{3, time.Minute},
	}, 0)
	a1 := admit(t, b, 0, src(1), OK)
	a2 := admit(t, b, 0, src(1), OK)
	admit(t, b, 0, src(1), OverInstancesPerSource)
	b.Release(&a1)
	a1 = admit(t, b, 0, src(1), OK)
	b.Release(&a1)
	admit(t, b, 0, src(1), OverRatePerSource)
	c1 := admit(t, b, 0, src(2), OK)
	admit(t, b, 0, src(3), OK)
	b.Release(&a2)
	admit(t, b, 0, src(4), OverRate)
	b.Release(&c1)
	for i := range 4 {
		if got, want := b.Reserve(), i < 3; got != want {
			t.Fatalf("reservation %d beside one instance of four: %v, want %v", i+1, got, want)
		}
	}
	admit(t, b, 0, src(4), OverInstances)
	// A reservation does not help against a rate, and survives the refusal.
	if _, r := b.AdmitReserved(0, src(4)); r != OverRate {
		t.Fatalf("reserved: %v", r)
	}
	l, r := b.AdmitReserved(12*time.Second, src(4))
	if r != OK || b.Instances() != 2 || b.reserved != 2 {
		t.Fatalf("reserved: %v, %d instances, %d reserved", r, b.Instances(), b.reserved)
	}
	b.Release(&l)
}

// xinetd: a denied or refused peer uses up the rate. NetBSD inetd: a slot is
// leaked when the rate limiter rejects. Here a refusal uses up nothing.
func TestRefusalUsesUpNothing(t *testing.T) {
	b := NewBook(Limits{
		Instances: 2, InstancesPerSource: 1,
		Rate: Rate{4, time.Second}, RatePerSource: Rate{2, time.Second},
	}, 0)
	one := admit(t, b, 0, src(1), OK)
	for range 100 {
		admit(t, b, 0, src(1), OverInstancesPerSource)
	}
	two := admit(t, b, 0, src(2), OK)
	for i := range 100 {
		admit(t, b, 0, src(100+i), OverInstances)
	}
	if b.Sources() != 2 || b.Instances() != 2 {
		t.Errorf("%d sources and %d instances after refusals, want 2 and 2", b.Sources(), b.Instances())
	}
	b.Release(&one)
	b.Release(&two)
	// Two of the service's four tokens are left, and one of each source's.
	one = admit(t, b, 0, src(1), OK)
	two = admit(t, b, 0, src(2), OK)
	b.Release(&one)
	b.Release(&two)
	for range 100 {
		admit(t, b, 0, src(1), OverRatePerSource)
		admit(t, b, 0, src(3), OverRate)
	}
	admit(t, b, 500*time.Millisecond, src(1), OK)
	if b.Instances() != 1 {
		t.Errorf("%d instances, want 1", b.Instances())
	}
}

// FreeBSD inetd: a reload forgets the count but not the children, and their
// ends drive it negative, so that the limit is never met again.
func TestReloadKeepsCount(t *testing.T) {
	b := NewBook(Limits{Instances: 3}, 0)
	var leases []Lease
	for range 3 {
		leases = append(leases, admit(t, b, 0, src(1), OK))
	}
	b.SetLimits(Limits{Instances: 2, InstancesPerSource: 1, PrefixV6: 48})
	admit(t, b, 0, src(2), OverInstances)
	for i := range leases {
		b.Release(&leases[i])
		b.Release(&leases[i])
	}
	if b.Instances() != 0 {
		t.Fatalf("%d instances after the last has ended", b.Instances())
	}
	admit(t, b, 0, src(1), OK)
	admit(t, b, 0, src(2), OK)
	admit(t, b, 0, src(3), OverInstances)
}

// A limit per source that a reload brings counts what has been running.
func TestReloadBringsLimitPerSource(t *testing.T) {
	b := NewBook(Limits{}, 0)
	l := admit(t, b, 0, src(1), OK)
	b.SetLimits(Limits{InstancesPerSource: 1})
	admit(t, b, 0, src(1), OverInstancesPerSource)
	b.Release(&l)
	admit(t, b, 0, src(1), OK)
}

// A reload that changes nothing frees nobody, and one that changes a rate
// keeps what was missing.
func TestReloadKeepsBuckets(t *testing.T) {
	limits := Limits{RatePerSource: Rate{6, time.Minute}}
	b := NewBook(limits, 0)
	for range 6 {
		admit(t, b, 0, src(1), OK)
	}
	for range 10 {
		b.SetLimits(limits)
		admit(t, b, 9*time.Second, src(1), OverRatePerSource)
	}
	// Half of a token is missing to have one: at 60 a minute that is 0.1 s
	// away, since 9 of 10 s have dripped in.
	limits.RatePerSource = Rate{60, time.Minute}
	limits.BurstPerSource = 6
	b.SetLimits(limits)
	admit(t, b, 9*time.Second+99*time.Millisecond, src(1), OverRatePerSource)
	admit(t, b, 9*time.Second+100*time.Millisecond, src(1), OK)
	// A larger burst is there at once.
	limits.BurstPerSource = 8
	b.SetLimits(limits)
	admit(t, b, 9*time.Second+100*time.Millisecond, src(1), OK)
	admit(t, b, 9*time.Second+100*time.Millisecond, src(1), OK)
	admit(t, b, 9*time.Second+100*time.Millisecond, src(1), OverRatePerSource)
}

// xinetd measures its rate with the wall clock, and a clock that is set back
// stops the service. A time before the latest one is the latest one.
func TestClockNeverStepsBack(t *testing.T) {
	for _, origin := range []time.Duration{0, -time.Hour, 1 << 60} {
		b := NewBook(Limits{Rate: Rate{2, time.Second}}, 0)
		admit(t, b, origin+time.Hour, src(1), OK)
		admit(t, b, origin, src(1), OK)
		admit(t, b, origin, src(1), OverRate)
		admit(t, b, origin+time.Hour-1, src(1), OverRate)
		admit(t, b, origin+time.Hour+499*time.Millisecond, src(1), OverRate)
		admit(t, b, origin+time.Hour+500*time.Millisecond, src(1), OK)
		admit(t, b, origin+1, src(1), OverRate)
	}
	b := NewBook(Limits{Rate: Rate{1, time.Hour}}, 0)
	admit(t, b, math.MinInt64, src(1), OK)
	admit(t, b, math.MaxInt64, src(1), OK)
	admit(t, b, math.MaxInt64, src(1), OverRate)
}

// CVE-2012-0862's erratum, BZ#809271: after the limit the service never came
// back; GNU inetd and systemd's trigger limit are the same. Whatever was the
// limit in the way, time alone, or an end, is enough.
func TestServiceComesBackByItself(t *testing.T) {
	b := NewBook(Limits{
		Instances: 10, InstancesPerSource: 5,
		Rate: Rate{40, time.Minute}, RatePerSource: Rate{10, time.Minute},
	}, 0)
	var now time.Duration
	for round := range 50 {
		var leases []Lease
		refused := make(map[Reason]int)
		for i := range 2000 {
			l, r := b.Admit(now, src(i%7))
			if r == OK {
				leases = append(leases, l)
			} else {
				refused[r]++
			}
			if i%3 == 0 && len(leases) > 0 && round%2 == 0 {
				b.Release(&leases[0])
				leases = leases[1:]
			}
		}
		if len(refused) == 0 {
			t.Fatal("nobody was refused")
		}
		for i := range leases {
			b.Release(&leases[i])
		}
		now += time.Minute
		for i := range 7 {
			l := admit(t, b, now, src(i), OK)
			b.Release(&l)
		}
		now += time.Minute
	}
}

// The inetds turn 256 cheap connects into ten minutes without the service.
// Here a source at ten times its limit costs another one nothing.
func TestOnlyTheOffenderSuffers(t *testing.T) {
	b := NewBook(Limits{
		Instances: 40, InstancesPerSource: 10,
		Rate: Rate{256, time.Minute}, RatePerSource: Rate{60, time.Minute},
	}, 0)
	attacker, honest := src(1), src(2)
	var leases []Lease
	got := 0
	for now := time.Duration(0); now < 10*time.Minute; now += 100 * time.Millisecond {
		if l, r := b.Admit(now, attacker); r == OK {
			leases = append(leases, l)
			got++
		}
		if len(leases) > 10 {
			t.Fatalf("the attacker holds %d", len(leases))
		}
		if now%time.Second == 0 {
			l := admit(t, b, now, honest, OK)
			b.Release(&l)
			for i := range leases {
				b.Release(&leases[i])
			}
			leases = leases[:0]
		}
	}
	if most := 60 + 10*60; got > most || got < most-1 {
		t.Errorf("the attacker got %d, want %d", got, most)
	}
}

// One v4 peer is one source over a v4 and over a v6 socket.
func TestMappedPeersAreOneSource(t *testing.T) {
	l := Limits{InstancesPerSource: 1}
	b := NewBook(l, 0)
	admit(t, b, 0, l.Source(netip.MustParseAddr("192.0.2.1")), OK)
	admit(t, b, 0, l.Source(netip.MustParseAddr("::ffff:192.0.2.1")), OverInstancesPerSource)
	admit(t, b, 0, l.Source(netip.MustParseAddr("192.0.2.2")), OK)
	admit(t, b, 0, l.Source(netip.MustParseAddr("2001:db8::1")), OK)
	admit(t, b, 0, l.Source(netip.MustParseAddr("2001:db8::ffff:1")), OverInstancesPerSource)
}

// A source that owes nothing has no account, and one that still does keeps it.
func TestAccountsAreClosed(t *testing.T) {
	b := NewBook(Limits{InstancesPerSource: 2}, 0)
	one := admit(t, b, 0, src(1), OK)
	two := admit(t, b, 0, src(1), OK)
	b.Release(&one)
	if b.Sources() != 1 {
		t.Errorf("%d sources with an instance, want 1", b.Sources())
	}
	b.Release(&two)
	if b.Sources() != 0 {
		t.Errorf("%d sources without one, want 0", b.Sources())
	}
	b.SetLimits(Limits{RatePerSource: Rate{1, time.Second}})
	one = admit(t, b, 0, src(1), OK)
	b.Release(&one)
	if b.Sources() != 1 {
		t.Errorf("%d sources that owe a token, want 1", b.Sources())
	}
}

// When the table is full, a newcomer gets the place of the one source that is
// idle, wherever that is.
func TestNewcomerFindsIdlePlace(t *testing.T) {
	const places = sweepFull
	for idle := range places {
		for hand := range int32(places) {
			b := NewBook(Limits{RatePerSource: Rate{1, time.Minute}}, places)
			for i := range places {
				l := admit(t, b, 0, src(i), OK)
				if i != idle {
					continue // runs on
				}
				b.Release(&l)
			}
			b.hand = hand
			l := admit(t, b, time.Minute, src(places), OK)
			if b.sources.find(src(places)) == noSlot || b.sources.find(src(idle)) != noSlot || l.account < 0 {
				t.Fatalf("idle %d, hand %d: the newcomer has no place of its own", idle, hand)
			}
		}
	}
}

func TestMisuse(t *testing.T) {
	var none Lease
	b := NewBook(Limits{Instances: 1}, 0)
	b.Release(&none)
	if b.Instances() != 0 {
		t.Errorf("the zero lease counts: %d instances", b.Instances())
	}
	for name, f := range map[string]func(){
		"Unreserve":     b.Unreserve,
		"AdmitReserved": func() { b.AdmitReserved(0, src(1)) },
	} {
		func() {
			defer func() {
				if recover() == nil {
					t.Errorf("%s without a reservation does not panic", name)
				}
			}()
			f()
		}()
	}
}

// randomSource is a v6 /64, one of very many.
func randomSource(rng *rand.Rand) Source {
	s := Source{kind: kindV6, bits: 64}
	binary.BigEndian.PutUint64(s.addr[:8], rng.Uint64())
	return s
}
