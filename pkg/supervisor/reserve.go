package supervisor

// Descriptors that are kept back, so that a daemon whose peers have taken all
// others can still read and apply a new table.

import (
	"os"
	"sync"
)

// reserved is how many: a reload opens a few files at a time, and getent(1) needs
// a pipe, its program and the files of its own start.
const reserved = 12

type reserve struct {
	mu    sync.Mutex
	files []*os.File
}

func (r *reserve) fill() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for len(r.files) < reserved {
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
