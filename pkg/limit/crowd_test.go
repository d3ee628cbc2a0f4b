package limit

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

// slowCrowd is a Crowd that looks at everything to answer anything.
type slowCrowd struct {
	places []slowPlace // oldest first
	tick   int
	since  [3]map[Source]int // when a group came to hold what it holds
}

type slowPlace struct {
	h      int32
	groups []Source // by level
}

func newSlowCrowd() *slowCrowd {
	s := &slowCrowd{}
	for i := range s.since {
		s.since[i] = make(map[Source]int)
	}
	return s
}

func groupsOf(src Source) []Source {
	groups := []Source{src, src}
	p := src.Prefix()
	narrow := func(bits int) Source {
		if !p.IsValid() || p.Bits() <= bits {
			return src
		}
		l := Limits{PrefixV4: bits, PrefixV6: bits}
		return l.Source(p.Addr())
	}
	switch {
	case src.kind == kindV4:
		groups[1] = narrow(24)
	case src.kind == kindV6:
		groups[1] = narrow(56)
		groups = append(groups, narrow(48))
	}
	return groups
}

func (s *slowCrowd) touch(groups []Source) {
	s.tick++
	for i, g := range groups {
		s.since[i][g] = s.tick
	}
}

func (s *slowCrowd) add(h int32, src Source) {
	s.remove(h)
	p := slowPlace{h, groupsOf(src)}
	s.places = append(s.places, p)
	s.touch(p.groups)
}

func (s *slowCrowd) remove(h int32) {
	for i, p := range s.places {
		if p.h == h {
			s.places = slices.Delete(s.places, i, i+1)
			s.touch(p.groups)
			return
		}
	}
}

func (s *slowCrowd) of(level int, g Source) []int32 {
	var hs []int32
	for _, p := range s.places {
		if level < len(p.groups) && p.groups[level] == g {
			hs = append(hs, p.h)
		}
	}
	return hs
}

func (s *slowCrowd) victim() (int32, bool) {
	var best Source
	level, most, since := -1, 0, 0
	for i, weight := range []int{64, 4, 1} {
		for _, p := range s.places {
			if i >= len(p.groups) {
				continue
			}
			g := p.groups[i]
			w := len(s.of(i, g)) * weight
			if w > most || w == most && level == i && s.since[i][g] < since {
				level, best, most, since = i, g, w, s.since[i][g]
			}
		}
	}
	if level < 0 {
		return 0, false
	}
	return s.of(level, best)[0], true
}

// crowdSource is one of few users and machines, or what l makes of one of few
// addresses in few networks.
func crowdSource(l Limits, n int) Source {
	switch n {
	case 250, 251:
		return User(uint32(n))
	case 252, 253:
		return Machine(uint32(n))
	}
	return l.Source(crowdAddr(n))
}

func crowdAddr(n int) netip.Addr {
	switch n % 8 {
	case 0, 1, 2:
		return netip.AddrFrom4([4]byte{10, byte(n >> 3 & 1), byte(n >> 4 & 1), byte(n >> 5 & 7)})
	case 3:
		return netip.AddrFrom16(netip.AddrFrom4([4]byte{10, 0, 0, byte(n >> 3 & 7)}).As16())
	case 4:
		return netip.Addr{}
	}
	return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, byte(n >> 3 & 1), byte(n >> 4 & 1), byte(n >> 5 & 1), byte(n >> 6), 9: byte(n)})
}

// playCrowd plays what data says to a Crowd and to a slowCrowd, and compares.
func playCrowd(t *testing.T, data []byte) {
	var l Limits
	if len(data) > 0 && data[0]%4 == 0 {
		l = Limits{PrefixV4: 24, PrefixV6: 48}
	}
	c, s := new(Crowd), newSlowCrowd()
	for len(data) >= 3 {
		op, h, n := data[0], int32(data[1]%64), int(data[2])
		data = data[3:]
		a := crowdSource(l, n)
		switch op % 8 {
		case 0, 1, 2, 3:
			c.Add(h, a)
			s.add(h, a)
		case 4:
			c.Remove(h)
			s.remove(h)
		case 5, 6:
			if v, ok := c.Victim(); ok {
				c.Remove(v)
				s.remove(v)
			}
		case 7:
			if op>>3 == 0 {
				l = Limits{PrefixV4: n % 33, PrefixV6: n % 129}
			}
		}

		mine := s.of(0, a)
		if got := c.CountSource(a); got != len(mine) {
			t.Fatalf("CountSource(%v) = %d, want %d", a, got, len(mine))
		}
		v, ok := c.VictimOf(a)
		if ok != (len(mine) > 0) || ok && v != mine[0] {
			t.Fatalf("VictimOf(%v) = %d, %v, want the first of %v", a, v, ok, mine)
		}
		v, ok = c.Victim()
		if wv, wok := s.victim(); v != wv || ok != wok {
			t.Fatalf("Victim = %d, %v, want %d, %v", v, ok, wv, wok)
		}
		if c.Len() != len(s.places) {
			t.Fatalf("Len = %d, want %d", c.Len(), len(s.places))
		}
	}
	for h := range int32(64) {
		c.Remove(h)
	}
	for i := range c.levels {
		if n := c.levels[i].groups.used; n != 0 || c.levels[i].top != 0 {
			t.Fatalf("level %d: %d groups, top %d when all have gone", i, n, c.levels[i].top)
		}
		c.levels[i].groups.check(t)
	}
	if h, ok := c.Victim(); ok || c.Len() != 0 {
		t.Fatalf("an empty crowd of %d names %d", c.Len(), h)
	}
}

func TestCrowdAgainstNaive(t *testing.T) {
	rng := rand.New(rand.NewPCG(23, 24))
	for range 150 {
		data := make([]byte, rng.IntN(600))
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		playCrowd(t, data)
	}
}

func FuzzCrowd(f *testing.F) {
	f.Add([]byte{0, 1, 2, 0, 2, 10, 5, 0, 0, 4, 1, 0})
	f.Add([]byte{1, 1, 5, 1, 2, 13, 1, 3, 21, 7, 0, 24, 1, 4, 5})
	f.Fuzz(func(t *testing.T, data []byte) {
		if len(data) > 600 {
			return // the slow crowd is slow
		}
		playCrowd(t, data)
	})
}

// victims lets n places be taken away and says from whom, in order.
func victims(c *Crowd, peers map[int32]netip.Addr, n int) []netip.Addr {
	var got []netip.Addr
	for range n {
		h, ok := c.Victim()
		if !ok {
			break
		}
		got = append(got, peers[h])
		c.Remove(h)
	}
	return got
}

func TestVictim(t *testing.T) {
	v4 := func(a, b byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, a, b}) }
	v6 := func(a, b, c byte) netip.Addr {
		return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, a, b, c, 15: 1})
	}
	tests := []struct {
		desc string
		fill func(add func(netip.Addr))
		want func(netip.Addr) bool // the victim
	}{
		{"one greedy source among many", func(add func(netip.Addr)) {
			for i := range 200 {
				add(v4(byte(i), 1))
			}
			for range 5 {
				add(v4(250, 250))
			}
		}, func(a netip.Addr) bool { return a == v4(250, 250) }},
		{"one spread over a /24, against one with more than a few", func(add func(netip.Addr)) {
			for range 8 {
				add(v4(1, 1))
			}
			for i := range 250 {
				add(v4(2, byte(i)))
			}
		}, func(a netip.Addr) bool { return a.As4()[2] == 2 }},
		{"a /24 that is not crowded, against a greedy source", func(add func(netip.Addr)) {
			for i := range 30 {
				add(v4(2, byte(i)))
			}
			for range 8 {
				add(v4(1, 1))
			}
		}, func(a netip.Addr) bool { return a == v4(1, 1) }},
		{"one spread over a /56", func(add func(netip.Addr)) {
			for range 8 {
				add(v6(1, 1, 1))
			}
			for i := range 250 {
				add(v6(2, 2, byte(i)))
			}
		}, func(a netip.Addr) bool { return a.As16()[5] == 2 }},
		{"one spread over a /48", func(add func(netip.Addr)) {
			for range 8 {
				add(v6(1, 1, 1))
			}
			for i := range 1000 {
				add(v6(2, byte(i), byte(i>>8)))
			}
		}, func(a netip.Addr) bool { return a.As16()[5] == 2 }},
		{"a sixteenth that equals a source's two", func(add func(netip.Addr)) {
			for i := range 32 {
				add(v4(2, byte(i)))
			}
			add(v4(1, 1))
			add(v4(1, 1))
		}, func(a netip.Addr) bool { return a == v4(1, 1) }},
		{"a sixteenth that is more", func(add func(netip.Addr)) {
			add(v4(1, 1))
			add(v4(1, 1))
			for i := range 33 {
				add(v4(2, byte(i)))
			}
		}, func(a netip.Addr) bool { return a == v4(2, 0) }},
		{"a sixty-fourth that equals a source's two", func(add func(netip.Addr)) {
			for i := range 128 {
				add(v6(2, byte(i), 0))
			}
			add(v6(1, 1, 1))
			add(v6(1, 1, 1))
		}, func(a netip.Addr) bool { return a == v6(1, 1, 1) }},
		{"a sixty-fourth that is more", func(add func(netip.Addr)) {
			add(v6(1, 1, 1))
			add(v6(1, 1, 1))
			for i := range 129 {
				add(v6(2, byte(i), 0))
			}
		}, func(a netip.Addr) bool { return a == v6(2, 0, 0) }},
		{"equals: who has held so many for longest", func(add func(netip.Addr)) {
			for i := range 10 {
				add(v4(byte(i), 1))
			}
		}, func(a netip.Addr) bool { return a == v4(0, 1) }},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			var c Crowd
			var l Limits
			peers := make(map[int32]netip.Addr)
			tt.fill(func(a netip.Addr) {
				h := int32(len(peers))
				peers[h] = a
				c.Add(h, l.Source(a))
			})
			if got := victims(&c, peers, 1); !tt.want(got[0]) {
				t.Errorf("the victim is %v", got[0])
			}
		})
	}
}

// A full house: whatever an attacker with one address, one /24, or one /48
// does, an honest client's place outlives more than a thousand newcomers.
func TestHonestClientOutlivesAttack(t *testing.T) {
	const full = 4096
	rng := rand.New(rand.NewPCG(25, 26))
	attackers := map[string]func() netip.Addr{
		"address": func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, 1}) },
		"v4 /24":  func() netip.Addr { return netip.AddrFrom4([4]byte{198, 51, 100, byte(rng.Uint32())}) },
		"v6 /56": func() netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, 2, byte(rng.Uint32()), 15: 1})
		},
		"v6 /48": func() netip.Addr {
			return netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, 0, 1, byte(rng.Uint32()), byte(rng.Uint32()), 15: 1})
		},
	}
	for name, attacker := range attackers {
		t.Run(name, func(t *testing.T) {
			var c Crowd
			var l Limits
			honest := make(map[int32]bool)
			for h := range int32(full) {
				if h < 40 { // the oldest, four from each of ten places
					honest[h] = true
					c.Add(h, l.Source(netip.AddrFrom4([4]byte{10, 0, byte(h / 4), 1})))
				} else {
					c.Add(h, l.Source(attacker()))
				}
			}
			for range 1000 {
				h, ok := c.Victim()
				if !ok || honest[h] {
					t.Fatalf("the victim is %d, %v", h, ok)
				}
				c.Add(h, l.Source(attacker()))
			}
			if c.Len() != full {
				t.Errorf("%d places held", c.Len())
			}
		})
	}
}

func TestCrowdTakesOver(t *testing.T) {
	var c Crowd
	var l Limits
	a, b := l.Source(netip.MustParseAddr("10.0.0.1")), User(1)
	c.Add(3, a)
	c.Add(3, b)
	if c.Len() != 1 || c.CountSource(a) != 0 || c.CountSource(b) != 1 {
		t.Errorf("%d places, %d and %d", c.Len(), c.CountSource(a), c.CountSource(b))
	}
	c.Remove(99)
	c.Remove(-1)
	c.Remove(2)
	c.Remove(3)
	c.Remove(3)
	if c.Len() != 0 {
		t.Errorf("%d places held", c.Len())
	}
}

func ExampleCrowd() {
	var c Crowd
	var l Limits
	c.Add(0, l.Source(netip.MustParseAddr("192.0.2.1")))
	for h := range int32(4) {
		c.Add(1+h, l.Source(netip.MustParseAddr("198.51.100.7")))
	}
	h, _ := c.Victim()
	fmt.Println(c.Len(), h)
	// Output: 5 1
}
