package supervisor

// Descriptors that are kept back, so that a daemon whose peers have taken all
// others can still read and apply a new table. As long as few are open none is kept
// back, because each costs every child a little.

import (
	"os"
	"sync"
	"sync/atomic"
)

// reserved is how many: a reload opens a few files at a time, and getent(1) needs
// a pipe, its program and the files of its own start.
const reserved = 12

type reserve struct {
	from   int // the number of a descriptor from which on some are kept back
	wanted atomic.Bool

	mu    sync.Mutex
	files []*os.File
}

// init is for a limit on descriptors. A connection of a quarter of it may be about
// to take all of it, with its pipes and the like; and where there are manyOpen
// they cost children nothing any more.
func (r *reserve) init(limit uint64) {
	if r.from = int(min(limit/4, manyOpen)); r.from < manyOpen {
		r.note(r.from) // few are many
	}
}

// manyOpen is where package spawn takes the table of descriptors for a large one.
const manyOpen = 128

// note looks at the number of a descriptor that was just made for a peer.
func (r *reserve) note(fd int) {
	if fd >= r.from && !r.wanted.Load() {
		r.wanted.Store(true)
		r.fill()
	}
}

// fill takes what is to be kept back.
func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for r.wanted.Load() && len(r.files) < reserved {
		f, err := os.Open(os.DevNull)
		if err != nil {
			return
		}
		r.files = append(r.files, f)
	}
}

func (r *reserve) release() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, f := range r.files {
		f.Close()
	}
	r.files = nil
}
