package limit

import (
	"math/rand/v2"
	"testing"
	"time"
)

// TestBothAgainstLists plays to two Books and to two lists of timestamps: what
// one of them refuses is taken in neither.
func TestBothAgainstLists(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 5))
		rate := func() Rate { return Rate{rng.IntN(6), time.Duration(10 + rng.IntN(1000))} }
		limits := func() Limits {
			return Limits{
				Instances: rng.IntN(8), InstancesPerSource: rng.IntN(4), Rate: rate(), Burst: rng.IntN(5),
				RatePerSource: rate(), BurstPerSource: rng.IntN(4),
			}
		}
		l, m := limits(), limits()
		row, server := NewBook(l, 0), NewBook(m, 0)
		slowRow, slowServer := newSlowBook(l), newSlowBook(m)
		type leased struct {
			Leases
			row, server Source
		}
		var out []leased
		now := int64(0)
		for range 400 {
			now += int64(rng.IntN(200))
			if len(out) > 0 && rng.IntN(3) == 0 {
				i := rng.IntN(len(out))
				row.Release(&out[i].Row)
				server.Release(&out[i].Server)
				for _, x := range []struct {
					s   *slowBook
					src Source
				}{{slowRow, out[i].row}, {slowServer, out[i].server}} {
					x.s.instances--
					if x.src != Nobody {
						x.s.leases[x.src]--
					}
				}
				out[i] = out[len(out)-1]
				out = out[:len(out)-1]
				continue
			}
			// The daemon's sources are wider, and some have no peer.
			a := src(rng.IntN(6))
			b := src(100 + rng.IntN(2))
			if rng.IntN(8) == 0 {
				b = Nobody
			}
			want := slowRow.wouldAdmit(now, a)
			if want == OK {
				if want = slowServer.wouldAdmit(now, b); want != OK {
					want = want.OfServer()
				}
			}
			got, why := AdmitBoth(time.Duration(now), Ask{row, a, false}, Ask{server, b, false})
			if why != want {
				t.Fatalf("seed %d: %v, want %v", seed, why, want)
			}
			if (why == OK) != (got != Leases{}) {
				t.Fatalf("seed %d: %v came with %v", seed, why, got)
			}
			if why == OK {
				slowRow.admit(now, a, false)
				slowServer.admitAs(now, b)
				out = append(out, leased{got, a, b})
			}
			if row.Instances() != slowRow.instances || server.Instances() != slowServer.instances {
				t.Fatalf("seed %d: %d and %d instances, want %d and %d", seed, row.Instances(), server.Instances(), slowRow.instances, slowServer.instances)
			}
		}
		row.sources.check(t)
		server.sources.check(t)
	}
}

// wouldAdmit is the answer of admit, which it does not carry out.
func (s *slowBook) wouldAdmit(now int64, src Source) Reason {
	s.now = max(s.now, now)
	switch {
	case src != Nobody && s.limits.InstancesPerSource > 0 && s.leases[src] >= s.limits.InstancesPerSource:
		return OverInstancesPerSource
	case src != Nobody && !s.bucket(src).ready(s.now):
		return OverRatePerSource
	case s.full():
		return OverInstances
	case !s.whole.ready(s.now):
		return OverRate
	}
	return OK
}

// admitAs is admit for one who may be nobody.
func (s *slowBook) admitAs(now int64, src Source) {
	if src != Nobody {
		s.admit(now, src, false)
		return
	}
	s.whole.take(s.now)
	s.instances++
}

// A place that was reserved in both books, or in one, stays so if the other says
// no.
func TestBothReserved(t *testing.T) {
	row, server := NewBook(Limits{Instances: 1}, 0), NewBook(Limits{Instances: 2, InstancesPerSource: 1}, 0)
	other, _ := server.Admit(0, src(1))
	if !row.Reserve() || !server.Reserve() {
		t.Fatal("there are places")
	}
	ask := func(s Source) (Leases, Reason) {
		return AdmitBoth(0, Ask{row, s, true}, Ask{server, s, true})
	}
	if _, why := ask(src(1)); why != ServerInstancesPerSource || row.reserved != 1 || server.reserved != 1 {
		t.Fatalf("%v, %d and %d reserved", why, row.reserved, server.reserved)
	}
	l, why := ask(src(2))
	if why != OK || row.reserved != 0 || server.reserved != 0 || row.Instances() != 1 || server.Instances() != 2 {
		t.Fatalf("%v, %d and %d reserved", why, row.reserved, server.reserved)
	}
	row.Release(&l.Row)
	server.Release(&l.Server)
	server.Release(&other)
	if row.Instances() != 0 || server.Instances() != 0 {
		t.Error("leases are left")
	}
}

// What runs already is counted, also above the limit, and pays nothing.
func TestEnter(t *testing.T) {
	b := NewBook(Limits{Instances: 2, InstancesPerSource: 2, Rate: Rate{2, time.Hour}}, 0)
	var leases []Lease
	for range 3 {
		leases = append(leases, b.Enter(0, src(1)))
	}
	leases = append(leases, b.Enter(0, Nobody))
	if b.Instances() != 4 {
		t.Fatalf("%d instances", b.Instances())
	}
	admit(t, b, 0, src(1), OverInstancesPerSource)
	admit(t, b, 0, src(2), OverInstances)
	admit(t, b, 0, Nobody, OverInstances)
	for i := range leases {
		b.Release(&leases[i])
	}
	if b.Instances() != 0 || b.Sources() != 0 {
		t.Fatalf("%d instances of %d sources are left", b.Instances(), b.Sources())
	}
	l := admit(t, b, 0, src(1), OK)
	b.Release(&l)
	admit(t, b, 0, Nobody, OK)
	admit(t, b, 0, Nobody, OverRate)
}
