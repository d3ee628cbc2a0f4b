package limit

import (
	"encoding/binary"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"runtime"
	"testing"
	"time"
)

// heap is the memory in use.
func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}

// NetBSD inetd's list of sources grows without bound within a window, and
// FreeBSD's table of 256 is pushed over by a flood. Here 10^6 sources within
// one window take the memory of maxSources, and nobody is freed by them.
func TestFloodOfSources(t *testing.T) {
	const maxSources = 1 << 14
	limits := Limits{
		Instances: 256, InstancesPerSource: 8,
		RatePerSource: Rate{10, time.Minute},
	}
	before := heap()
	b := NewBook(limits, maxSources)
	now := time.Hour

	// These are over their limits before the flood: one rate each, and one
	// that holds all that it may.
	limited := make([]Source, 100)
	for i := range limited {
		limited[i] = limits.Source(netip.AddrFrom4([4]byte{192, 0, 2, byte(i)}))
		for range 10 {
			l := admit(t, b, now, limited[i], OK)
			b.Release(&l)
		}
		admit(t, b, now, limited[i], OverRatePerSource)
	}
	holder := limits.Source(netip.MustParseAddr("198.51.100.1"))
	var leases []Lease
	for range 8 {
		leases = append(leases, admit(t, b, now, holder, OK))
	}

	// A window of five seconds: a tenth of what the limited need for one
	// more is never reached. All sources are of one network of 32 bits.
	rng := rand.New(rand.NewPCG(15, 16))
	const flood = 1_000_000
	admitted, refused := 0, 0
	for i := range flood {
		now += 5 * time.Second / flood
		s := Source{kind: kindV6, bits: 64}
		binary.BigEndian.PutUint64(s.addr[:8], 0x20010db8<<32|uint64(rng.Uint32()))
		l, r := b.Admit(now, s)
		if r == OK {
			admitted++
			b.Release(&l)
		} else {
			refused++
		}
		if b.Sources() > maxSources {
			t.Fatalf("%d sources, more than %d", b.Sources(), maxSources)
		}
		if i%1000 == 0 {
			admit(t, b, now, limited[i/1000%100], OverRatePerSource)
			admit(t, b, now, holder, OverInstancesPerSource)
		}
	}
	if used := heap() - before; used > maxSources*48+256<<10 {
		t.Errorf("%d bytes after the flood for %d sources", used, maxSources)
	} else {
		t.Logf("10^6 sources in one window: %d admitted, %d refused, %d bytes in use", admitted, refused, used)
	}
	if most := maxSources + sharedAccounts*(10+1); admitted > most {
		t.Errorf("%d admitted, want at most %d", admitted, most)
	}
	if admitted < maxSources {
		t.Errorf("%d admitted, fewer than there are places", admitted)
	}

	// The holder's end is its own, and counted right after all that.
	for i := range leases {
		b.Release(&leases[i])
	}
	if b.Instances() != 0 {
		t.Errorf("%d instances after the last has ended", b.Instances())
	}

	// When the flood is over, one quiet client is enough to clean up.
	now += time.Minute
	quiet := limits.Source(netip.MustParseAddr("203.0.113.1"))
	for range 2 * maxSources {
		now += 10 * time.Second
		l := admit(t, b, now, quiet, OK)
		b.Release(&l)
	}
	if b.Sources() > 1 {
		t.Errorf("%d sources long after the flood", b.Sources())
	}
	b.sources.check(t)
	runtime.KeepAlive(b)
}

// While a flood from one network fills the table, newcomers from other
// networks are served, all but a few whom the hash throws together with it.
func TestNewcomersInAFlood(t *testing.T) {
	limits := Limits{RatePerSource: Rate{2, time.Hour}}
	b := NewBook(limits, 1000)
	sources := 0
	attack := func() Reason { // always from 2001:db8:bad::/48
		s := Source{kind: kindV6, bits: 64}
		binary.BigEndian.PutUint64(s.addr[:8], 0x20010db80bad<<16|uint64(sources))
		sources++
		l, r := b.Admit(0, s)
		b.Release(&l)
		return r
	}
	for attack() == OK {
	}
	if b.Sources() != 1000 {
		t.Fatalf("%d sources of the flood, want 1000", b.Sources())
	}
	served := 0
	for i := range 100 {
		for range 10 {
			if r := attack(); r != OverRatePerSource {
				t.Fatalf("the flood: %v", r)
			}
		}
		l, r := b.Admit(0, limits.Source(netip.AddrFrom4([4]byte{10, byte(i), 0, 1})))
		if r == OK {
			served++
		}
		b.Release(&l)
	}
	// Each has one chance in 256 to meet the flood, and about 100 in 2*256
	// to meet two others, who have used up the two starts.
	if served < 70 {
		t.Errorf("%d newcomers of 100 served", served)
	}
	// In a year they have all paid.
	for i := range 100 {
		admit(t, b, 365*24*time.Hour, src(i), OK)
	}
}

// With a tiny table everything is shared most of the time; no lease and no
// place is ever lost by that.
func TestSharedAccountsBalance(t *testing.T) {
	rng := rand.New(rand.NewPCG(17, 18))
	b := NewBook(Limits{Instances: 50, InstancesPerSource: 3, RatePerSource: Rate{5, time.Second}}, 4)
	var now time.Duration
	var leases []Lease
	shared := 0
	for range 50_000 {
		now += time.Duration(rng.IntN(int(time.Millisecond)))
		if rng.IntN(2) == 0 {
			if l, r := b.Admit(now, randomSource(rng)); r == OK {
				leases = append(leases, l)
				if l.account < 0 {
					shared++
				}
			}
		} else if len(leases) > 0 {
			i := rng.IntN(len(leases))
			b.Release(&leases[i])
			leases[i] = leases[len(leases)-1]
			leases = leases[:len(leases)-1]
		}
		if b.Sources() > 4 || b.Instances() != len(leases) || len(leases) > 50 {
			t.Fatalf("%d sources, %d instances, %d leases", b.Sources(), b.Instances(), len(leases))
		}
		if rng.IntN(1000) == 0 {
			l := b.limits
			l.RatePerSource.N = 1 + rng.IntN(10)
			b.SetLimits(l)
		}
	}
	if shared == 0 {
		t.Error("no account was shared")
	}
	for i := range leases {
		b.Release(&leases[i])
	}
	for i, a := range b.shared {
		if a.leases != 0 {
			t.Errorf("shared account %d: %d leases after the last", i, a.leases)
		}
	}
}

// A table full of sources that are limited, each by its rate or by what it holds,
// stays as it is under ten million new ones, who get what the shared accounts
// have and no more memory.
func TestFullTableOutlivesTenMillion(t *testing.T) {
	const maxSources = 1 << 12
	limits := Limits{InstancesPerSource: 2, RatePerSource: Rate{2, 24 * time.Hour}}
	b := NewBook(limits, maxSources)
	limited := func(i int) Source {
		return limits.Source(netip.AddrFrom4([4]byte{192, 168, byte(i >> 8), byte(i)}))
	}
	leases := make([]Lease, maxSources)
	for i := range maxSources {
		leases[i] = admit(t, b, 0, limited(i), OK)
		l := admit(t, b, 0, limited(i), OK)
		if i%2 == 0 {
			b.Release(&l)
		}
	}
	still := func(now time.Duration) {
		t.Helper()
		for i := range maxSources {
			want := OverInstancesPerSource
			if i%2 == 0 {
				want = OverRatePerSource
			}
			admit(t, b, now, limited(i), want)
		}
	}
	still(0)
	b.Admit(0, Source{kind: kindV6}) // makes the shared accounts
	before := heap()
	flood := 10_000_000
	if raced {
		flood /= 20 // the detector finds nothing in one goroutine, and takes its time
	}
	rng := rand.New(rand.NewPCG(25, 26))
	admitted := 0
	var now time.Duration
	for i := range flood {
		now += time.Microsecond
		s := Source{kind: kindV6, bits: 64}
		binary.BigEndian.PutUint64(s.addr[:8], rng.Uint64())
		if l, why := b.Admit(now, s); why == OK {
			admitted++
			b.Release(&l)
		}
		if i%(flood/5) == 0 {
			still(now)
		}
	}
	still(now)
	if grown := heap() - before; grown > 64<<10 {
		t.Errorf("the flood has cost %d bytes", grown)
	}
	if b.Sources() != maxSources || admitted > 2*sharedAccounts {
		t.Errorf("%d sources, and %d newcomers admitted; want %d, and at most %d", b.Sources(), admitted, maxSources, 2*sharedAccounts)
	}
	runtime.KeepAlive(leases)
}

// The sizes that the docs state.
func TestSizes(t *testing.T) {
	for _, tt := range []struct {
		what string
		size uintptr
		want uintptr
	}{
		{"account of a source in a Book", reflect.TypeFor[slot[account]]().Size(), 48},
		{"place in a Crowd", reflect.TypeFor[place]().Size(), 36},
		{"waiter in a Line", reflect.TypeFor[placeLink]().Size(), 12},
		{"source in a Line", reflect.TypeFor[slot[liner]]().Size(), 48},
		{"group in a Crowd", reflect.TypeFor[slot[group]]().Size(), 52},
		{"Source", reflect.TypeFor[Source]().Size(), 18},
		{"Lease", reflect.TypeFor[Lease]().Size(), 4},
	} {
		if tt.size != tt.want {
			t.Errorf("%s: %d bytes, want %d", tt.what, tt.size, tt.want)
		}
	}
}

// What it comes to on the heap, spare room of the slices included.
func TestMemory(t *testing.T) {
	rng := rand.New(rand.NewPCG(19, 20))

	before := heap()
	b := NewBook(Limits{RatePerSource: Rate{1, time.Hour}}, 0)
	for range 2 * DefaultMaxSources {
		b.Admit(0, randomSource(rng))
	}
	perSource := float64(heap()-before) / float64(b.Sources())
	runtime.KeepAlive(b)

	before = heap()
	var c Crowd
	const pending = 10_000
	for h := range int32(pending) {
		c.Add(h, randomSource(rng))
	}
	perPlace := float64(heap()-before) / pending
	runtime.KeepAlive(&c)

	t.Logf("%.1f bytes per source, %.1f bytes per pending entry (each of its own network)", perSource, perPlace)
	if perSource > 52 {
		t.Errorf("%.1f bytes per source", perSource)
	}
	if perPlace > 256 {
		t.Errorf("%.1f bytes per pending entry", perPlace)
	}
}

func TestNoAllocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(21, 22))
	l := Limits{Instances: 256, InstancesPerSource: 4, Rate: Rate{1000, time.Second}, RatePerSource: Rate{10, time.Second}}
	b := NewBook(l, 1000)
	var c Crowd
	addrs := make([]netip.Addr, 1024)
	for i := range addrs {
		addrs[i] = netip.AddrFrom16(randomSource(rng).addr)
	}
	var now time.Duration
	i := 0
	book := func() {
		now += time.Millisecond
		i++
		lease, _ := b.Admit(now, l.Source(addrs[i%len(addrs)]))
		b.Release(&lease)
		if b.Reserve() {
			if lease, r := b.AdmitReserved(now, l.Source(addrs[i%7])); r == OK {
				b.Release(&lease)
			} else {
				b.Unreserve()
			}
		}
	}
	crowd := func() {
		i++
		c.Add(int32(i%500), l.Source(addrs[i%len(addrs)]))
		c.CountSource(l.Source(addrs[i%3]))
		c.VictimOf(l.Source(addrs[i%3]))
		if h, ok := c.Victim(); ok && i%3 == 0 {
			c.Remove(h)
		}
	}
	for range 20_000 { // until everything has its room
		book()
		crowd()
	}
	if n := testing.AllocsPerRun(5000, book); n != 0 {
		t.Errorf("Admit and Release: %v allocations", n)
	}
	if n := testing.AllocsPerRun(5000, crowd); n != 0 {
		t.Errorf("Add, Victim and Remove: %v allocations", n)
	}
}
