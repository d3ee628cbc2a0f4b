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
	// getProcessor is the time for a child that could run, but does not: on a
	// busy machine another worker would wait as well. It is not excused for
	// longer, because its user may have given it an idle class, and bound it to
	// a processor that he keeps busy.
	getProcessor = time.Second
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
	maxRetired = heldThreads
)

type watcher struct {
	mu      sync.Mutex
	workers []*worker
	retired int     // workers that have lost their loop and still stand still
	orphans []*loop // loops without a worker: no spawner was free

	held map[*unit]int32 // at the last look; the watcher's own

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
	held := map[*unit]int32{}
	for _, w := range workers {
		since, u := w.since.Load(), w.unit.Load()
		if since == 0 || w.since.Load() != since {
			continue
		}
		busy = true
		age := s.now() - time.Duration(since)
		if age < takeOver {
			continue
		}
		var state byte
		pid := w.spawner.PID()
		if pid != 0 {
			state = beforeProgram(pid)
		}
		runnable := state == 'R'
		if w.since.Load() != since || pid != 0 && state == 0 || runnable && age < reachProgram {
			continue // it was late, or the machine is busy: nobody holds the child
		}
		if !runnable || age >= getProcessor {
			held[u]++
		}
		if s.retire(w) {
			s.log.held(u, age)
		}
		stopped := state == 'T' || state == 't'
		if age >= reachDisk || stopped && age >= reachProgram {
			s.giveUp(w, u, since)
		}
	}
	s.setHeld(held)
	return busy
}

// setHeld says how many children of each row are held. A row with too many
// does not accept.
func (s *Supervisor) setHeld(held map[*unit]int32) {
	for u := range s.watcher.held {
		if held[u] == 0 {
			u.held.Store(0)
		}
	}
	for u, n := range held {
		u.held.Store(n)
		if n >= heldPerRow {
			s.pauseFor(u, pauseBackoff, takeOver)
		}
	}
	s.watcher.held = held
}

// giveUp ends a child that has not reached its program in time, and has its row
// start no others for a while: each would cost a thread.
func (s *Supervisor) giveUp(w *worker, u *unit, since int64) {
	if now := s.now(); !u.stuck.active(now) {
		d := u.stuck.failed(now, stuckMin, stuckMax)
		s.pauseFor(u, pauseBackoff, d)
		s.log.backOff(u, d)
	}
	if !w.killed.Load() {
		s.reaper.killStarting(w, since)
	}
}

// retire takes the loop of a worker that stands still away from it. Its child
// holds nothing of the daemon's but the thread.
func (s *Supervisor) retire(w *worker) bool {
	s.watcher.mu.Lock()
	if s.watcher.retired >= maxRetired || !w.state.CompareAndSwap(starting, retired) {
		s.watcher.mu.Unlock()
		return false
	}
	s.watcher.retired++
	s.watcher.orphans = append(s.watcher.orphans, w.loop)
	s.watcher.mu.Unlock()
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
