package limit

import (
	"math/rand/v2"
	"slices"
	"testing"
)

// slowLine is a Line as its doc reads.
type slowLine struct {
	ring    []Source
	waiters map[Source][]int32
}

func (s *slowLine) remove(h int32) (src Source, left bool) {
	for src, list := range s.waiters {
		if i := slices.Index(list, h); i >= 0 {
			s.waiters[src] = slices.Delete(list, i, i+1)
			if len(s.waiters[src]) == 0 {
				delete(s.waiters, src)
				s.ring = slices.DeleteFunc(s.ring, func(x Source) bool { return x == src })
				return src, false
			}
			return src, true
		}
	}
	return Source{}, false
}

func TestLineAgainstNaive(t *testing.T) {
	for seed := range uint64(100) {
		rng := rand.New(rand.NewPCG(seed, 6))
		var l Line
		s := slowLine{waiters: map[Source][]int32{}}
		var free, used []int32
		for h := range int32(40) {
			free = append(free, h)
		}
		for range 1000 {
			switch op := rng.IntN(4); {
			case op < 2 && len(free) > 0:
				i := rng.IntN(len(free))
				h, from := free[i], src(rng.IntN(6))
				free = slices.Delete(free, i, i+1)
				used = append(used, h)
				l.Add(h, from)
				if s.waiters[from] == nil {
					s.ring = append(s.ring, from)
				}
				s.waiters[from] = append(s.waiters[from], h)
			case op == 2 && len(used) > 0: // somebody goes
				i := rng.IntN(len(used))
				h := used[i]
				used = slices.Delete(used, i, i+1)
				free = append(free, h)
				l.Remove(h)
				l.Remove(h)
				s.remove(h)
			case rng.IntN(4) == 0 && len(used) > 0: // somebody's source is passed over
				h, _ := l.First()
				l.Pass(h)
				s.ring = append(s.ring[1:], s.ring[0])
			case len(used) > 0: // somebody has his turn
				h, _ := l.First()
				for range rng.IntN(len(s.ring)) {
					h, _ = l.Next(h)
				}
				l.Serve(h)
				used = slices.DeleteFunc(used, func(x int32) bool { return x == h })
				free = append(free, h)
				if from, left := s.remove(h); left {
					i := slices.Index(s.ring, from)
					s.ring = append(slices.Delete(s.ring, i, i+1), from)
				}
			}
			var got, want []int32
			for h, ok := l.First(); ok; h, ok = l.Next(h) {
				got = append(got, h)
			}
			for _, from := range s.ring {
				want = append(want, s.waiters[from][0])
			}
			if !slices.Equal(got, want) || l.Len() != len(used) {
				t.Fatalf("seed %d: the turns are %v of %d, want %v of %d", seed, got, l.Len(), want, len(used))
			}
		}
		l.sources.check(t)
	}
}

// One who has a thousand waiting does not keep another waiting longer.
func TestLineIsFair(t *testing.T) {
	var l Line
	for h := range int32(1000) {
		l.Add(h, src(1))
	}
	l.Add(1000, src(2))
	l.Add(1001, src(2))
	var order []int32
	for h, ok := l.First(); ok && len(order) < 5; h, ok = l.First() {
		order = append(order, h)
		l.Serve(h)
	}
	if want := []int32{0, 1000, 1, 1001, 2}; !slices.Equal(order, want) {
		t.Errorf("served %v, want %v", order, want)
	}
}
