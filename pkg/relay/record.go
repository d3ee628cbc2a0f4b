package relay

import "time"

// lingerTime and lingerBytes bound what is waited for and read after a
// refusal: closing while bytes of the peer are unread would have the kernel
// send a reset, which destroys the refusal.
const (
	lingerTime  = 2 * time.Second
	lingerBytes = 64 << 10
)

// A record is one connection. Only its loop touches it.
type record struct {
	id   uint64
	plan *Plan
	dial *dial // while a target is sought
	err  error

	in, out     uint64
	born, moved time.Duration // when it came, and when a byte last moved
	due         time.Duration // see clock
	place       int32         // in the clock, from 1; 0: not in it
	index       int32         // in Loop.records
	gen         uint32
	at          int32  // Chargen: the next byte of the pattern
	drained     int32  // of lingerBytes
	target      int32  // the one that has accepted, from 1
	tcp         bool   // the peer's socket is
	lingering   bool   // it has had its last words; waits for the peer to close
	asked       bool   // Ask: the question is whole, the answer is awaited
	gone        bool   // ended, its descriptors are others' now
	why         Reason // of the end, while lingering
	ask         func(question []byte, reply func(answer string))
	line        []byte // Ask: as much of the question as has come
	sides       [2]side
	halves      [2]half
}

// A side is a socket: 0 the peer's, 1 the target's.
type side struct {
	fd      int32
	watched bool   // in the epoll set
	events  uint32 // with these
}

// A half is one direction: of Forward, from the side of its number to the
// other; of Echo, halves[0] from the peer to the peer. The others have no need
// of one but to note that the peer has ended.
type half struct {
	pipe    pipe  // held while there is something in it
	held    int32 // bytes that are in it
	blocked bool  // the receiver takes no more for now
	ended   bool  // the sender has said all
	done    bool  // and the receiver has it all
	copies  bool  // without a pipe: none can be had, or none can be used here
}

// A pipe is the two ends of pipe(2). Both 0 is none: descriptor 0 is never one.
type pipe struct{ r, w int32 }

// ends says which sides half i goes between.
func (r *record) ends(i int) (from, to int) {
	if r.plan.Flow == Echo {
		return 0, 0
	}
	return i, 1 - i
}

// read and written count a byte at a side.
func (r *record) read(s, n int) {
	if s == 0 {
		r.in += uint64(n)
	}
}

func (r *record) written(s, n int) {
	if s == 0 {
		r.out += uint64(n)
	}
}

// deadline is when something becomes of a record by itself, and what; ok is
// false if nothing does.
func (r *record) deadline() (at time.Duration, why Reason, ok bool) {
	sooner := func(t time.Duration, reason Reason) {
		if !ok || t < at {
			at, why, ok = t, reason, true
		}
	}
	switch {
	case r.lingering:
		return r.moved + lingerTime, r.why, true
	case r.dial != nil:
		sooner(r.dial.until(), Connect)
	case r.plan.Idle > 0:
		sooner(r.moved+r.plan.Idle, Idle)
	}
	if r.plan.Lifetime > 0 {
		sooner(r.born+r.plan.Lifetime, Lifetime)
	}
	return at, why, ok
}
