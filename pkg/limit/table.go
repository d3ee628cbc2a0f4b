package limit

// This file is the hash table under Book and Crowd. It knows nothing of what
// is kept in it.

import (
	"hash/maphash"
	"math/bits"
)

// A table keeps a T for each of a set of sources. A slot keeps its number
// until it is removed, and whoever holds the number finds it without a search.
//
// Unlike a map it never moves what it holds, never does more than a bounded
// amount of work at a time, and allocates only when it holds more than ever
// before, chunkLen slots at a time. It is a linear hash table: with every slot
// that is made, one bucket is made too, which takes over a part of an older
// bucket's slots. The head of bucket i lives in slot i. The hash is seeded, so
// that a peer cannot choose addresses that fall into one bucket.
//
// The zero table is empty and ready for use.
type table[T any] struct {
	chunks []*[chunkLen]slot[T]
	made   int32 // slots, and buckets
	used   int   // slots that hold a source
	free   int32 // 1 + the first free slot, others follow by next; 0: none
}

const chunkLen = 64

type slot[T any] struct {
	val  T
	key  Source
	used bool
	next int32  // 1 + the next slot of the bucket, or the next free one; 0: none
	head int32  // 1 + the first slot of the bucket with this slot's number; 0: none
	hash uint32 // of key
}

// noSlot is what find returns for a source that is not there.
const noSlot = int32(-1)

var seed = maphash.MakeSeed()

func hashOf(key Source) uint32 { return uint32(maphash.Comparable(seed, key)) }

func (t *table[T]) slot(i int32) *slot[T] { return &t.chunks[i/chunkLen][i%chunkLen] }

func (t *table[T]) at(i int32) *T { return &t.slot(i).val }

// bucket is the number of the bucket of a hash. There are made buckets; while
// that lies between two powers of two, those above it are not yet split off.
func (t *table[T]) bucket(hash uint32) int32 {
	top := uint32(1) << (bits.Len32(uint32(t.made)) - 1) // top <= made < 2*top
	b := hash & (2*top - 1)
	if b >= uint32(t.made) {
		b &= top - 1
	}
	return int32(b)
}

// find returns the slot of a source, or noSlot.
func (t *table[T]) find(key Source) int32 {
	if t.used == 0 {
		return noSlot
	}
	hash := hashOf(key)
	for i := t.slot(t.bucket(hash)).head; i != 0; {
		s := t.slot(i - 1)
		if s.hash == hash && s.key == key {
			return i - 1
		}
		i = s.next
	}
	return noSlot
}

// insert makes a slot for a source that is not in the table, with a zero T.
func (t *table[T]) insert(key Source) int32 {
	if t.free == 0 {
		t.grow()
	}
	i := t.free - 1
	s := t.slot(i)
	t.free = s.next
	hash := hashOf(key)
	head := &t.slot(t.bucket(hash)).head
	var zero T
	s.val, s.key, s.used, s.hash, s.next = zero, key, true, hash, *head
	*head = i + 1
	t.used++
	return i
}

// remove empties a slot.
func (t *table[T]) remove(i int32) {
	s := t.slot(i)
	link := &t.slot(t.bucket(s.hash)).head
	for *link != i+1 {
		link = &t.slot(*link - 1).next
	}
	*link = s.next
	s.used, s.next = false, t.free
	t.free = i + 1
	t.used--
	if t.used == 0 && len(t.chunks) > 1 {
		// A flood is over: give its memory back.
		t.chunks = append([]*[chunkLen]slot[T](nil), t.chunks[0])
		t.made, t.free = 0, 0
	}
}

// grow makes one slot, which is free, and one bucket.
func (t *table[T]) grow() {
	i := t.made
	if int(i/chunkLen) == len(t.chunks) {
		t.chunks = append(t.chunks, new([chunkLen]slot[T]))
	}
	t.made++
	s := t.slot(i)
	s.used, s.head, s.next = false, 0, t.free
	t.free = i + 1
	if i == 0 {
		return
	}
	// Slots of the new bucket have been in the one without its top bit.
	link := &t.slot(i &^ (1 << (bits.Len32(uint32(i)) - 1))).head
	for *link != 0 {
		m := t.slot(*link - 1)
		if t.bucket(m.hash) != i {
			link = &m.next
			continue
		}
		n := *link
		*link = m.next
		m.next, s.head = s.head, n
	}
}
