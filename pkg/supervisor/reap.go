package supervisor

// The end of an instance. Nothing else in the daemon waits for children: a
// second waiter could take an exit that is not its own.

import (
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// An instance is one run of a service: all that a living child costs.
type instance struct {
	unit    *unit
	lease   limit.Lease
	peer    service.Peer     // of a server of a wait row: nobody
	local   service.Endpoint // that the peer has come to, or the socket that the server has
	turn    *turn            // wait rows
	head    uint64           // wait rows: the queue at the start, see listener.Head
	session *session         // datagram rows without wait
	start   time.Duration
	begun   uint64 // exits that had been seen when its start began
}

// earlyKept is how long the exit of an unknown child is remembered while a
// start is under way. The start's own thread needs it within microseconds; on
// a machine that is swapping, within seconds.
const earlyKept = time.Minute

const (
	thick      = 4 * time.Millisecond
	gatherEnds = 2 * time.Millisecond
)

type reaper struct {
	mu       sync.Mutex
	running  map[int]*instance
	starting int           // starts under way
	none     chan struct{} // made by last: no start begins; closed when none is under way
	early    map[int]exit  // exits that came before their record
	exits    uint64        // how many have come into early, ever
	swept    time.Duration // when early was last gone through
	idle     chan struct{} // closed when the last instance ends; made by empty

	asleep atomic.Bool // for want of children, until bell rings
	bell   chan struct{}
}

type exit struct {
	status syscall.WaitStatus
	usage  syscall.Rusage
	at     time.Duration
	number uint64 // in early
}

func (r *reaper) init() {
	r.bell = make(chan struct{}, 1)
	r.running, r.early = map[int]*instance{}, map[int]exit{}
}

// begin says that a child is about to be made for in: from here on an unknown
// exit may be its. It reports false when no child may be made any more.
func (r *reaper) begin(in *instance) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.none != nil {
		return false
	}
	r.starting++
	in.begun = r.exits
	return true
}

// last lets no start begin from here on, and returns a channel that is closed
// when those under way have become instances or nothing. It is called once.
func (r *reaper) last() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.none = make(chan struct{})
	if r.starting == 0 {
		close(r.none)
	}
	return r.none
}

// abort ends a begin that made no instance. The child, if there was one, has
// failed before its program; its exit concerns nobody.
func (r *reaper) abort() {
	r.mu.Lock()
	r.startedLocked()
	r.mu.Unlock()
}

func (r *reaper) startedLocked() {
	if r.starting--; r.starting > 0 {
		return
	}
	clear(r.early)
	if r.none != nil {
		close(r.none)
	}
}

// store ends a begin with an instance. If its child was reaped already, the
// exit is returned.
func (r *reaper) store(pid int, in *instance) (exit, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, gone := r.earlyLocked(pid, in.begun)
	if gone {
		delete(r.early, pid)
	} else {
		r.running[pid] = in
		if in.start < time.Duration(in.unit.ended.Load()) {
			// A reload has ended the row's instances while this one started.
			syscall.Kill(-pid, syscall.SIGTERM)
		}
	}
	r.startedLocked()
	return e, gone
}

// earlyLocked finds the exit of a child whose start began when so many exits had
// been seen. An older one is of another child that had the number before.
func (r *reaper) earlyLocked(pid int, begun uint64) (exit, bool) {
	e, ok := r.early[pid]
	return e, ok && e.number > begun
}

// killStarting ends the child of a start that has lasted since the given
// moment. A start whose record is not stored yet has a child that is either
// not reaped or in early: under the lock its pid cannot become another's.
func (r *reaper) killStarting(w *worker, since int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	pid := w.spawner.PID()
	if pid == 0 || w.since.Load() != since {
		return
	}
	if _, gone := r.earlyLocked(pid, w.begun.Load()); !gone {
		w.killed.Store(true)
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// each calls f for every running instance. No pid can be reaped meanwhile.
func (r *reaper) each(f func(pid int, in *instance)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid, in := range r.running {
		f(pid, in)
	}
}

// knows reports whether a running instance has that pid, and whether one may
// come to have it at any moment.
func (r *reaper) knows(pid int) (known, starting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[pid] != nil, r.starting > 0
}

func (r *reaper) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running)
}

// empty returns a channel that is closed as soon as no instance runs.
func (r *reaper) empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.idle == nil {
		r.idle = make(chan struct{})
	}
	r.checkIdleLocked()
	return r.idle
}

func (r *reaper) checkIdleLocked() {
	if r.idle != nil && len(r.running) == 0 {
		select {
		case <-r.idle:
		default:
			close(r.idle)
		}
	}
}

// wait reaps one child that has ended, if there is one. It returns its
// instance, or nil for a child that has none, and pid 0 if there was no child.
func (r *reaper) wait(now time.Duration) (pid int, in *instance, e exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		e.at = now
		pid, err := syscall.Wait4(-1, &e.status, syscall.WNOHANG, &e.usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return 0, nil, e
		}
		in := r.running[pid]
		if in != nil {
			delete(r.running, pid)
			r.checkIdleLocked()
		} else if r.starting > 0 {
			r.keepLocked(pid, e, now)
		}
		return pid, in, e
	}
}

// keepLocked remembers an exit. Those that nobody has asked for go from time to
// time.
func (r *reaper) keepLocked(pid int, e exit, now time.Duration) {
	if now-r.swept > earlyKept {
		for p, x := range r.early {
			if now-x.at > earlyKept {
				delete(r.early, p)
			}
		}
		r.swept = now
	}
	r.exits++
	e.number = r.exits
	r.early[pid] = e
}

// reapLoop ends instances until Run is over.
//
// It waits for any child in waitid(2) with WNOWAIT, which leaves the child
// unreaped, and reaps under the lock. Without children there is nothing to wait
// in, so it sleeps until the next start rings. Strangers, which only the first
// process of a container has, may come without one: strangers is SIGCHLD there,
// and nil otherwise.
func (s *Supervisor) reapLoop(strangers <-chan os.Signal) {
	var last time.Duration
	for {
		s.reap()
		if s.ended.Load() {
			return
		}
		// Where ends come thick and fast, several are better met with one
		// wake-up of this thread. Whoever needs a place looks for himself, see
		// reap, unless he waits in a listener's queue.
		now := s.now()
		if now-last < thick && s.queued.Load() == 0 {
			time.Sleep(gatherEnds)
		}
		last = now
		if awaitChild() {
			continue
		}
		s.reaper.asleep.Store(true)
		if awaitable() {
			// The start that rings may have looked just before.
			s.reaper.asleep.Store(false)
			continue
		}
		select {
		case <-s.reaper.bell:
		case <-strangers:
		case <-s.quit:
			return
		}
		s.reaper.asleep.Store(false)
	}
}

// reap ends the instances of all children that have ended, and reports whether
// there were any.
func (s *Supervisor) reap() bool {
	for found := false; ; found = true {
		pid, in, e := s.reaper.wait(s.now())
		if pid == 0 {
			return found
		}
		if in != nil {
			s.end(pid, in, e)
		}
	}
}

// ring wakes the reaper if it sleeps for want of children.
func (r *reaper) ring() {
	if r.asleep.Load() && r.asleep.CompareAndSwap(true, false) {
		select {
		case r.bell <- struct{}{}:
		default:
		}
	}
}

// end is the one place where an instance ends, whatever it ran.
func (s *Supervisor) end(pid int, in *instance, e exit) {
	s.giveBack(in.unit, &in.lease)
	s.outputs.ended.add(pid)
	s.log.ended(pid, in, e)
	switch {
	case in.turn != nil:
		s.serverEnded(pid, in, e)
	case in.session != nil:
		s.sessionEnded(in)
	}
}
