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
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// An instance is one run of a service: all that a living child costs.
type instance struct {
	unit    *unit
	lease   limit.Leases     // under the unit's mu once it runs
	peer    service.Peer     // of a server of a wait row: nobody
	local   service.Endpoint // that the peer has come to, or the socket that the server has
	turn    *turn            // wait rows
	head    uint64           // wait rows: the queue at the start, see listener.Head
	session *session         // datagram rows without wait
	start   time.Duration
	begun   uint64 // exits that had been seen when its start began
	// spawner has its child until the start is over; nil: there is none, and is none
	// being made.
	spawner atomic.Pointer[spawn.Spawner]

	// Under reaper.mu:
	under bool  // its start is under way
	gone  *exit // and its child has ended already
}

// earlyKept is how long the exit of an unknown child is remembered while a
// start is under way. The start's own thread needs it within microseconds; on
// a machine that is swapping, within seconds.
const earlyKept = time.Minute

const (
	thick      = 20 * time.Millisecond
	gatherEnds = 10 * time.Millisecond
	// brief is for how long after the start of a server of a wait row all ends are
	// met at once: its successor may have to start.
	brief = time.Second
	// passingEvery is how often the workers reap while they accept.
	passingEvery = 2 * time.Millisecond
)

type reaper struct {
	mu       sync.Mutex
	running  map[int]*instance      // also those that are under way
	failed   map[int]bool           // children that never were instances, and are not reaped yet
	starting map[*instance]struct{} // whose starts are under way
	none     chan struct{}          // made by last: no start begins; closed when none is under way
	early    map[int]exit           // exits that came before their child was known
	exits    uint64                 // how many have come into early, ever
	swept    time.Duration          // when early was last gone through
	idle     chan struct{}          // closed when the last instance ends; made by empty

	passed atomic.Int64 // when a worker has reaped last
	asleep atomic.Bool  // for want of children, until bell rings
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
	r.running, r.failed, r.early = map[int]*instance{}, map[int]bool{}, map[int]exit{}
	r.starting = map[*instance]struct{}{}
}

// begin says that a child is about to be made for in: from here on an unknown
// exit may be its. It reports false when no child may be made any more.
func (r *reaper) begin(in *instance) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.none != nil {
		return false
	}
	r.starting[in] = struct{}{}
	in.begun = r.exits
	return true
}

// last lets no start begin from here on, and returns a channel that is closed
// when those under way have become instances or nothing. It is called once.
func (r *reaper) last() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.none = make(chan struct{})
	if len(r.starting) == 0 {
		close(r.none)
	}
	return r.none
}

// abort ends a begin that made no instance. The child, if there was one, has
// failed before its program; its exit concerns nobody.
func (r *reaper) abort(pid int, in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if in.under && in.gone == nil {
		delete(r.running, pid)
		r.failed[pid] = true
		r.checkIdleLocked()
	}
	r.startedLocked(in)
}

func (r *reaper) startedLocked(in *instance) {
	in.spawner.Store(nil)
	if delete(r.starting, in); len(r.starting) > 0 {
		return
	}
	clear(r.early)
	if r.none != nil {
		close(r.none)
	}
}

// made says that in has a child, which is on its way to its program.
func (r *reaper) made(pid int, in *instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	in.under = true
	if e, gone := r.earlyLocked(pid, in.begun); gone {
		delete(r.early, pid)
		in.gone = &e
		return
	}
	r.running[pid] = in
}

// store ends a begin with an instance. If its child was reaped already, the
// exit is returned.
func (r *reaper) store(pid int, in *instance) (e *exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e, in.under, in.gone = in.gone, false, nil
	if e == nil && in.start < time.Duration(in.unit.ended.Load()) {
		// A reload has ended the row's instances while this one started.
		syscall.Kill(-pid, syscall.SIGTERM)
	}
	r.startedLocked(in)
	return e
}

// earlyLocked finds the exit of a child whose start began when so many exits had
// been seen. An older one is of another child that had the number before.
func (r *reaper) earlyLocked(pid int, begun uint64) (exit, bool) {
	e, ok := r.early[pid]
	return e, ok && e.number > begun
}

// killStarting ends a child that has not reached its program, if it is not
// reaped: under the lock its pid cannot become another's. f comes first.
func (r *reaper) killStarting(pid int, in *instance, f func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if _, gone := r.earlyLocked(pid, in.begun); !gone && in.gone == nil {
		f()
		syscall.Kill(pid, syscall.SIGKILL)
	}
}

// each calls f for every running instance. No pid can be reaped meanwhile.
func (r *reaper) each(f func(pid int, in *instance)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for pid, in := range r.running {
		if !in.under {
			f(pid, in)
		}
	}
}

// all calls f for every running instance, and for those whose start is under way.
func (r *reaper) all(f func(in *instance)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, in := range r.running {
		f(in)
	}
	for in := range r.starting {
		f(in)
	}
}

// knows reports whether a running instance has that pid, and whether one may
// come to have it at any moment.
func (r *reaper) knows(pid int) (known, starting bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.running[pid] != nil, len(r.starting) > 0
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
// instance, or nil for a child that has none, and pid 0 if there was no child. The
// end of an instance that is under is for who has begun it to tell.
func (r *reaper) wait(now time.Duration) (pid int, in *instance, under bool, e exit) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		e.at = now
		pid, err := syscall.Wait4(-1, &e.status, syscall.WNOHANG, &e.usage)
		if err == syscall.EINTR {
			continue
		}
		if err != nil || pid <= 0 {
			return 0, nil, false, e
		}
		in := r.running[pid]
		if in != nil {
			delete(r.running, pid)
			if in.under {
				in.gone = &exit{status: e.status, usage: e.usage, at: e.at}
				return pid, in, true, e
			}
			r.checkIdleLocked()
		} else if r.failed[pid] {
			delete(r.failed, pid)
		} else if len(r.starting) > 0 {
			r.keepLocked(pid, e, now)
		}
		return pid, in, false, e
	}
}

// lost are the instances whose child has failed before its program, and whose
// worker has not come back to that yet.
func (r *reaper) lost() (list []*instance) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for in := range r.starting {
		if sp := in.spawner.Load(); sp != nil && sp.Failed() {
			list = append(list, in)
		}
	}
	return list
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
		// Where ends come thick and fast, the workers meet them when they pass by,
		// and this thread is not woken for each. Whoever needs a place looks for
		// himself, see reap, unless he waits in a listener's queue.
		now := s.now()
		awaited := s.queued.Load() > 0 || now-time.Duration(s.served.Load()) < brief
		if now-max(last, time.Duration(s.reaper.passed.Load())) < thick && !awaited {
			time.Sleep(gatherEnds)
			s.reap()
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

// reapPassing is what a worker does from time to time while it accepts.
func (s *Supervisor) reapPassing(now time.Duration) {
	if passed := s.reaper.passed.Load(); now-time.Duration(passed) >= passingEvery && s.reaper.passed.CompareAndSwap(passed, int64(now)) {
		s.reap()
	}
}

// reap ends the instances of all children that have ended. A child that fails
// before its program tells its peer so before it ends; its place is free from then
// on.
func (s *Supervisor) reap() {
	for _, in := range s.reaper.lost() {
		s.giveBack(in.unit, &in.lease)
	}
	for {
		pid, in, under, e := s.reaper.wait(s.now())
		switch {
		case pid == 0:
			return
		case under:
			s.giveBack(in.unit, &in.lease)
		case in != nil:
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
