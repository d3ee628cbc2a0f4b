package supervisor

// Whether the accept path is alive: a question that goes the way of a
// connection, through each loop's epoll set and past whoever serves it. Nothing
// is asked, and nothing counted, unless somebody wants to know.

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"
)

// A pulse is a loop's part in it: an eventfd in its epoll set, which is only
// ever written to, because the set reports every write (EPOLLET).
type pulse struct {
	mu     sync.Mutex
	fd     int // 0: closed
	asked  atomic.Uint64
	passed atomic.Uint64
}

// open adds the pulse to a loop's set.
func (p *pulse) open(set poller) error {
	fd, err := newWake()
	if err != nil {
		return err
	}
	if err := set.addPeer(fd, tokenPulse, false); err != nil {
		closeFd(fd)
		return err
	}
	p.fd = fd
	return nil
}

func (p *pulse) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	closeFd(p.fd)
	p.fd = 0
}

func (p *pulse) ask() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != 0 {
		p.asked.Add(1)
		wake(p.fd)
	}
}

// ring has the worker come by, for whatever reason.
func (p *pulse) ring() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.fd != 0 {
		wake(p.fd)
	}
}

// pass is the worker coming by.
func (p *pulse) pass() { p.passed.Store(p.asked.Load()) }

func (p *pulse) waits() bool { return p.passed.Load() != p.asked.Load() }

// Alive returns nil as soon as every loop has handled an event that came after
// the call, in the way it handles connections, and after most an error that says
// which do not, and why as far as is known. Before Run that is all of them; from
// the end of Stop on nothing is asked.
func (s *Supervisor) Alive(most time.Duration) error {
	for _, l := range s.loops {
		l.pulse.ask()
	}
	deadline := s.now() + most
	for wait := 100 * time.Microsecond; ; wait = min(2*wait, 20*time.Millisecond) {
		late := 0
		for _, l := range s.loops {
			if l.pulse.waits() {
				late++
			}
		}
		if late == 0 || s.stopped.Load() {
			return nil
		}
		if s.now() > deadline {
			return s.stuck(most)
		}
		time.Sleep(wait)
	}
}

// stuck describes the loops that have not come round.
func (s *Supervisor) stuck(most time.Duration) error {
	var list []error
	for i, l := range s.loops {
		if l.pulse.waits() {
			list = append(list, fmt.Errorf("loop %d of %d has handled no event for %v", i+1, len(s.loops), most))
		}
	}
	return errors.Join(list...)
}

// Instances is how many instances run, in children and in the daemon.
func (s *Supervisor) Instances() int { return s.reaper.count() + s.relays.count() }
