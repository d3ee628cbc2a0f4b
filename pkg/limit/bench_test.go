package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"testing"
	"time"
)

var benchLimits = Limits{
	Instances: 256, InstancesPerSource: 64,
	Rate: Rate{1_000_000, time.Second}, RatePerSource: Rate{60, time.Minute},
}

func BenchmarkSource(b *testing.B) {
	l := Limits{}
	a := netip.MustParseAddr("2001:db8:1:2:3:4:5:6")
	b.ReportAllocs()
	for b.Loop() {
		l.Source(a)
	}
}

// BenchmarkAdmitRelease is a connection's share of the books, for peers that
// come again and again; it must not depend on how many there are.
func BenchmarkAdmitRelease(b *testing.B) {
	for _, n := range []int{1, 1000, 60_000} {
		b.Run(fmt.Sprintf("sources=%d", n), func(b *testing.B) {
			book := NewBook(benchLimits, 0)
			rng := rand.New(rand.NewPCG(1, 2))
			peers := make([]Source, n)
			for i := range peers {
				peers[i] = randomSource(rng)
			}
			var now time.Duration
			i := 0
			step := 2 * time.Second / time.Duration(n) // each has a token left
			b.ReportAllocs()
			for b.Loop() {
				now += step
				l, _ := book.Admit(now, peers[i])
				book.Release(&l)
				if i++; i == n {
					i = 0
				}
			}
		})
	}
}

// BenchmarkRefuse is what a refusal costs, for a source that hammers.
func BenchmarkRefuse(b *testing.B) {
	book := NewBook(benchLimits, 0)
	s := src(1)
	for {
		l, r := book.Admit(0, s)
		if r != OK {
			break
		}
		book.Release(&l)
	}
	b.ReportAllocs()
	for b.Loop() {
		book.Admit(0, s)
	}
}

// BenchmarkFlood is a connection from a source that was never seen before,
// while the table is full of sources that are being limited.
func BenchmarkFlood(b *testing.B) {
	for _, n := range []int{1000, DefaultMaxSources, 1 << 20} {
		b.Run(fmt.Sprintf("max=%d", n), func(b *testing.B) {
			book := NewBook(benchLimits, n)
			rng := rand.New(rand.NewPCG(1, 2))
			for range 2 * n {
				l, _ := book.Admit(0, randomSource(rng))
				book.Release(&l)
			}
			now := time.Duration(0)
			b.ReportAllocs()
			for b.Loop() {
				now += time.Microsecond
				l, _ := book.Admit(now, randomSource(rng))
				book.Release(&l)
			}
			b.ReportMetric(float64(book.sources.made)*48/float64(book.Sources()), "B/source")
		})
	}
}

// BenchmarkCrowd is a newcomer in a full house: find who makes room, let him
// go, and enter.
func BenchmarkCrowd(b *testing.B) {
	for _, n := range []int32{256, 4096, 65_536} {
		for _, kind := range []string{"one source", "all different"} {
			b.Run(fmt.Sprintf("full=%d/%s", n, kind), func(b *testing.B) {
				rng := rand.New(rand.NewPCG(1, 2))
				sources := make([]Source, 1<<16)
				for i := range sources {
					sources[i] = randomSource(rng)
					if kind == "one source" {
						sources[i] = sources[0]
					}
				}
				var c Crowd
				for h := range n {
					c.Add(h, sources[h])
				}
				i := 0
				b.ReportAllocs()
				for b.Loop() {
					h, _ := c.Victim()
					c.Remove(h)
					c.Add(h, sources[i%len(sources)])
					i++
				}
			})
		}
	}
}
