package limit

import (
	"math/bits"
	"math/rand/v2"
	"testing"
)

func src(i int) Source {
	s := Source{kind: kindV6, bits: 64}
	for k := range 8 {
		s.addr[k] = byte(i >> (8 * k))
	}
	return s
}

// check looks at the whole table: every used slot is in its own bucket's list
// and nowhere else, and every other one is free.
func (t *table[T]) check(tb testing.TB) (longest int) {
	tb.Helper()
	seen := make(map[int32]bool)
	for b := range t.made {
		n := 0
		for i := t.slot(b).head; i != 0; i = t.slot(i - 1).next {
			s := t.slot(i - 1)
			if seen[i-1] || !s.used || s.hash != hashOf(s.key) || t.bucket(s.hash) != b {
				tb.Fatalf("slot %d in bucket %d: %+v", i-1, b, s)
			}
			seen[i-1] = true
			n++
		}
		longest = max(longest, n)
	}
	if len(seen) != t.used {
		tb.Fatalf("%d slots in buckets, %d used", len(seen), t.used)
	}
	for i := t.free; i != 0; i = t.slot(i - 1).next {
		if seen[i-1] || t.slot(i-1).used {
			tb.Fatalf("slot %d is free and used", i-1)
		}
		seen[i-1] = true
	}
	if len(seen) != int(t.made) {
		tb.Fatalf("%d slots used or free, %d made", len(seen), t.made)
	}
	return longest
}

func TestTableAgainstMap(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	var tab table[int]
	model := make(map[Source]int32)
	for step := range 60_000 {
		// The number of sources swings between none and a few thousand.
		grow := step/10_000%2 == 0
		key := src(rng.IntN(8000))
		slot, ok := model[key]
		if got := tab.find(key); ok && got != slot || !ok && got != noSlot {
			t.Fatalf("step %d: find = %d, want %d, %v", step, got, slot, ok)
		}
		switch {
		case !ok && (grow || rng.IntN(4) == 0):
			i := tab.insert(key)
			if *tab.at(i) != 0 {
				t.Fatalf("step %d: a new slot holds %d", step, *tab.at(i))
			}
			*tab.at(i) = int(i) + 1
			model[key] = i
		case ok && !grow:
			if *tab.at(slot) != int(slot)+1 {
				t.Fatalf("step %d: slot %d holds %d", step, slot, *tab.at(slot))
			}
			tab.remove(slot)
			delete(model, key)
		}
		if tab.used != len(model) {
			t.Fatalf("step %d: %d used, want %d", step, tab.used, len(model))
		}
		if step%2000 == 0 {
			tab.check(t)
		}
	}
	for key, i := range model {
		tab.remove(i)
		delete(model, key)
	}
	tab.check(t)
	if len(tab.chunks) != 1 {
		t.Errorf("an empty table keeps %d chunks", len(tab.chunks))
	}
}

// A search looks at a handful of slots, however many there are and however
// much alike their keys.
func TestTableBucketsStayShort(t *testing.T) {
	const most = 1 << 18
	var tab table[account]
	for i := range most {
		tab.insert(src(i))
		if n := i + 1; bits.OnesCount(uint(n)) == 1 || n%50_000 == 0 {
			// For a load of one the longest of 2^18 buckets is 8 or 9 long;
			// just before a doubling the load of some is two.
			if longest := tab.check(t); longest > 24 {
				t.Errorf("%d sources: a bucket of %d", n, longest)
			}
		}
	}
	// Among so many, some have the same hash of 32 bits, and are kept apart.
	for i := range most {
		if got := tab.find(src(i)); got != int32(i) {
			t.Fatalf("source %d is in slot %d", i, got)
		}
	}
}
