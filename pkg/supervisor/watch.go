package supervisor

// The watcher. Between its setuid and its exec a child belongs to the user of
// its row, who can stop it; a hung file system can hold it as well. The thread
// that made it stands still meanwhile, so another thread has to look.

import (
	"slices"
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
	watchEvery = 5 * time.Millisecond
	// watchIdle is how many rounds without a start the watcher stays awake.
	watchIdle = 200

	stuckMin = time.Second
	stuckMax = time.Minute

	// heldPerRow is how many children of one row may be held before their
	// program: from there on it does not accept until one of them is through.
	heldPerRow = 4
	// maxRetired bounds the threads that stand still, of all rows.
	maxRetired = 64
)

type watcher struct {
	mu      sync.Mutex
	workers []*worker
	retired int     // workers that have lost their loop and still stand still
	orphans []*loop // loops without a worker: no spawner was free

	asleep atomic.Bool
	bell   chan struct{}
}

func (w *watcher) init() { w.bell = make(chan struct{}, 1) }

func (w *watcher) remove(k *worker) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.workers = slices.DeleteFunc(w.workers, func(x *worker) bool { return x == k })
	if k.state.Load() == retired {
		w.retired--
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

// watchSpawns looks after starts until the supervisor has stopped.
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
		time.Sleep(watchEvery)
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

// look goes through all workers once, and reports whether there is anything to
// come back for.
func (s *Supervisor) look() bool {
	s.watcher.mu.Lock()
	workers := slices.Clone(s.watcher.workers)
	s.watcher.mu.Unlock()
	busy := s.adopt()
	for _, w := range workers {
		since, u := w.since.Load(), w.unit.Load()
		if since == 0 || w.since.Load() != since {
			continue
		}
		busy = true
		age := s.now() - time.Duration(since)
		if age >= takeOver && s.retire(w, u) {
			if state := beforeProgram(w.spawner.PID()); state != 0 && state != 'R' {
				s.log.held(u, age)
			}
		}
		if u.held.Load() >= heldPerRow {
			s.pauseFor(u, pauseBackoff, takeOver)
		}
		if age >= reachProgram {
			s.overdueStart(w, u, since, age)
		}
	}
	return busy
}

// overdueStart deals with a child that should have reached its program.
func (s *Supervisor) overdueStart(w *worker, u *unit, since int64, age time.Duration) {
	pid := w.spawner.PID()
	if w.since.Load() != since {
		return
	}
	var state byte
	if pid != 0 {
		if state = beforeProgram(pid); state == 0 || state == 'R' {
			return // the machine is busy; nobody holds the child
		}
	}
	stopped := state == 'T' || state == 't'
	if !stopped && age < reachDisk {
		return
	}
	// While it hangs its row starts no others: each would cost a thread.
	if now := s.now(); !u.stuck.active(now) {
		d := u.stuck.failed(now, stuckMin, stuckMax)
		s.pauseFor(u, pauseBackoff, d)
		s.log.backOff(u, d)
	}
	// The portable way does not tell who the child is.
	if pid != 0 && !w.killed.Load() {
		s.reaper.killStarting(w, since)
	}
}

// retire takes the loop of a worker that stands still away from it. Its child
// holds nothing of the daemon's but the thread.
func (s *Supervisor) retire(w *worker, u *unit) bool {
	s.watcher.mu.Lock()
	if s.watcher.retired >= maxRetired || !w.state.CompareAndSwap(starting, retired) {
		s.watcher.mu.Unlock()
		return false
	}
	s.watcher.retired++
	s.watcher.orphans = append(s.watcher.orphans, w.loop)
	s.watcher.mu.Unlock()
	u.held.Add(1)
	w.spawner.Release()
	s.adopt()
	return true
}

// adopt gives loops without a worker a new one, and reports whether some have
// to wait until a spawner is free.
func (s *Supervisor) adopt() bool {
	s.watcher.mu.Lock()
	defer s.watcher.mu.Unlock()
	for len(s.watcher.orphans) > 0 && !s.stopped.Load() {
		w, err := s.newWorker(s.watcher.orphans[0])
		if err != nil {
			return true
		}
		s.watcher.orphans = s.watcher.orphans[1:]
		s.runLocked(w)
	}
	return false
}
