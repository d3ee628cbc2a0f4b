package supervisor

// The watcher. Between its setuid and its exec a child belongs to the user of
// its row, who can stop it; a hung file system can hold it as well. The thread
// that made it stands still meanwhile, so another thread has to look.

import (
	"sync"
	"sync/atomic"
	"time"
)

const (
	// takeOver is when another worker gets the loop of one that stands still.
	takeOver = 20 * time.Millisecond
	// reachProgram is the time a child has to reach its program. One that is
	// stopped then is killed: nothing else than a signal of its user stops it.
	reachProgram = 200 * time.Millisecond
	// reachDisk is the time for one that waits for something else, such as a
	// disk that spins up or a file server.
	reachDisk  = 5 * time.Second
	watchEvery = 10 * time.Millisecond
	// watchIdle is how many rounds without a start the watcher stays awake.
	watchIdle = 100

	stuckMin = time.Second
	stuckMax = time.Minute
)

type watcher struct {
	mu      sync.Mutex
	workers []*worker

	asleep atomic.Bool
	bell   chan struct{}
}

func (w *watcher) init() { w.bell = make(chan struct{}, 1) }

func (w *watcher) add(k *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.workers = append(w.workers, k)
}

func (w *watcher) remove(k *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for i, x := range w.workers {
		if x == k {
			w.workers = append(w.workers[:i], w.workers[i+1:]...)
			return
		}
	}
}

// attend wakes the watcher if it sleeps. A start costs it one load.
func (w *watcher) attend() {
	if w.asleep.Load() && w.asleep.CompareAndSwap(true, false) {
		select {
		case w.bell <- struct{}{}:
		default:
		}
	}
}

// watchSpawns looks after starts until the supervisor has stopped. It naps in
// its thread: a ticker would wake the scheduler a hundred times a second.
func (s *Supervisor) watchSpawns() {
	for quiet := 0; ; quiet++ {
		select {
		case <-s.quit:
			return
		default:
		}
		if quiet > watchIdle {
			s.watcher.asleep.Store(true)
			// A start that began just before saw the watcher awake.
			if !s.anyStarting() {
				select {
				case <-s.watcher.bell:
				case <-s.quit:
					return
				}
			}
			s.watcher.asleep.Store(false)
			quiet = 0
		}
		nap(watchEvery)
		if s.look() {
			quiet = 0
		}
	}
}

func (s *Supervisor) anyStarting() bool {
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	for _, w := range s.watcher.workers {
		if w.since.Load() != 0 {
			return true
		}
	}
	return false
}

// look goes through all workers once, and reports whether any start is under way.
func (s *Supervisor) look() bool {
	s.watcher.mu.Lock()
	workers := append([]*worker(nil), s.watcher.workers...)
	s.watcher.mu.Unlock()
	busy := false
	for _, w := range workers {
		since := w.since.Load()
		if since == 0 {
			continue
		}
		busy = true
		age := s.now() - time.Duration(since)
		if age >= takeOver && w.state.Load() == starting && s.replace(w) {
			s.log.held(w.unit.Load(), age)
		}
		if age >= reachProgram && !w.killed.Load() {
			s.overdueStart(w, since, age)
		}
	}
	return busy
}

// overdueStart deals with a child that should have reached its program.
func (s *Supervisor) overdueStart(w *worker, since int64, age time.Duration) {
	pid := w.spawner.PID()
	if pid == 0 || w.since.Load() != since {
		return
	}
	switch state := beforeProgram(pid); state {
	case 0, 'R':
		// The machine is busy; nobody holds the child.
		return
	default:
		// While it hangs its row starts no others: each would cost a thread.
		if u := w.unit.Load(); !u.stuck.active(s.now()) {
			s.backOff(u, u.stuck.failed(s.now(), stuckMin, stuckMax))
		}
		if state == 'T' || state == 't' || age >= reachDisk {
			s.reaper.killStarting(w, since)
		}
	}
}

// replace gives the loop of a worker that stands still to a new one. It does
// nothing when all spawners are taken: then the loop waits, and this is tried
// again.
func (s *Supervisor) replace(w *worker) bool {
	next, err := s.newWorker(w.loop)
	if err != nil {
		return false
	}
	if !w.state.CompareAndSwap(starting, retired) {
		next.spawner.Close()
		return false
	}
	s.run(next)
	return true
}

// backOff keeps a row from starting children for a while.
func (s *Supervisor) backOff(u *unit, d time.Duration) {
	s.pauseFor(u, pauseBackoff, d)
	s.log.backOff(u, d)
}
