package supervisor

// Starts that are under way. A worker begins one and goes on; here it comes back
// to it when the child has its program or has failed.
//
// Between its setuid and its exec a child belongs to the user of its row, who can
// stop it; a hung file system can hold it as well. That costs nobody but its row
// anything: such a child keeps its record and its connection, and no thread. A
// row with too many of them starts no others for a while, and children that are
// held for too long are killed.

import (
	"errors"
	"slices"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

const (
	// awaitMost is how long a worker waits for a child to reach its program, where
	// somebody does; normally it takes a tenth of a millisecond.
	awaitMost = time.Millisecond
	// landEvery is when a worker to whom nobody comes looks whether its starts are
	// over, which is told by the log only.
	landEvery = 2 * time.Millisecond
	// heldAfter is when somebody looks why a child is not at its program.
	heldAfter = 20 * time.Millisecond
	// reachProgram is the time a child has to reach its program. One that is
	// stopped then is killed: nothing else than a signal of its user stops it.
	reachProgram = 200 * time.Millisecond
	// getProcessor is the time for a child that could run, but does not. It is not
	// excused for longer, because its user may have given it an idle class, and
	// bound it to a processor that he keeps busy.
	getProcessor = time.Second
	// reachDisk is the time for one that waits for something else, such as a
	// disk that spins up or a file server.
	reachDisk = 5 * time.Second
	lookEvery = 5 * time.Millisecond

	stuckMin = time.Second
	stuckMax = time.Minute

	// heldPerRow is how many children of one row may be held before their
	// program: from there on it does not accept until one of them is through.
	heldPerRow = 4
)

// A start is a child on its way to its program.
type start struct {
	in   *instance
	row  *row
	conn connection // fd is -1 once the child has it, and if it is none
	fd   int        // what the child gets
	// socket is a session's, whose end of it is the daemon's as well.
	socket *listener.Session

	spawner *spawn.Spawner
	apart   *apart // another goroutine has the spawner
	pid     int
	began   time.Duration
	looked  time.Duration
	held    bool // and counted in its unit
	killed  bool
}

// An apart is a start for which somebody has to stand still (spawn.Program.Waits),
// so that its worker does not.
type apart struct {
	done chan struct{}
	pid  int // with done
	err  error
}

// startsMost is how many starts of a worker may be under way that nobody holds:
// enough for it to go on, and few enough for the slots that there are.
const startsMost = 4

// starts are those of one worker.
type starts struct {
	under []start          // under way, oldest first
	idle  []*spawn.Spawner // for the next ones
	most  int              // how many may be under way that nobody holds
}

// close gives the spawners back.
func (s *starts) close() {
	for _, sp := range s.idle {
		sp.Close()
	}
	s.idle = nil
}

// free counts the starts that nobody holds, and finds the oldest.
func (s *starts) free() (n int, oldest *start) {
	for i := range s.under {
		if st := &s.under[i]; !st.held {
			if n++; oldest == nil {
				oldest = st
			}
		}
	}
	return n, oldest
}

func (st *start) done() bool {
	if st.apart == nil {
		return st.spawner.Done()
	}
	select {
	case <-st.apart.done:
		return true
	default:
		return false
	}
}

func (st *start) await(most time.Duration) {
	if st.apart == nil {
		st.spawner.Await(most)
		return
	}
	select {
	case <-st.apart.done:
	case <-time.After(most):
	}
}

// backsOff reports whether a row starts nothing for now.
func (s *Supervisor) backsOff(u *unit, now time.Duration) bool {
	return u.held.Load() >= heldPerRow || u.stuck.active(now) || s.forking.active(now)
}

// start makes a child. What becomes of it is seen by land; env is not kept.
func (w *worker) start(st start, env []byte) {
	st.began = w.s.now()
	if err := w.s.readyOutput(st.in.unit, st.row); err != nil {
		e := &spawn.Error{Step: "log", Errno: syscall.EIO}
		errors.As(err, &e.Errno)
		w.finish(&st, e)
		return
	}
	w.makeRoom()
	sp, err := w.takeSpawner()
	switch {
	case err != nil:
	case st.row.program.Waits():
		if st.socket != nil {
			st.in.session.fill(st.socket)
		}
		if err = w.startApart(&st, sp, env); err != nil {
			w.starts.idle = append(w.starts.idle, sp)
		}
	default:
		st.spawner = sp
		st.in.spawner.Store(sp) // before there is a child that can fail
		if st.pid, err = sp.Begin(st.row.program, st.fd, env); err != nil {
			w.starts.idle = append(w.starts.idle, sp)
			break
		}
		w.s.reaper.made(st.pid, st.in)
		st.closeConn() // the child has it
		if st.socket != nil {
			st.in.session.fill(st.socket)
		}
	}
	if err != nil {
		w.finish(&st, err)
		return
	}
	w.starts.under = append(w.starts.under, st)
}

// makeRoom waits while as many starts are under way as may be.
func (w *worker) makeRoom() {
	for {
		n, oldest := w.starts.free()
		if n < w.starts.most {
			return
		}
		oldest.await(awaitMost)
		w.land()
	}
}

func (w *worker) takeSpawner() (*spawn.Spawner, error) {
	if n := len(w.starts.idle); n > 0 {
		sp := w.starts.idle[n-1]
		w.starts.idle = w.starts.idle[:n-1]
		return sp, nil
	}
	sp, err := spawn.NewSpawner()
	if err != nil {
		return nil, &spawn.Error{Step: "clone", Errno: syscall.ENOMEM} // there was none for a page
	}
	return sp, nil
}

// startApart has another goroutine make the child; env is the worker's.
func (w *worker) startApart(st *start, sp *spawn.Spawner, env []byte) error {
	if int(w.s.aparts.Add(1)) > w.s.heldThreads() {
		w.s.aparts.Add(-1)
		return &spawn.Error{Step: "clone", Errno: syscall.EAGAIN}
	}
	a := &apart{done: make(chan struct{})}
	st.spawner, st.apart = sp, a
	s, in, p, fd, loop := w.s, st.in, st.row.program, st.fd, w.loop
	env = slices.Clone(env)
	in.spawner.Store(sp)
	go func() {
		defer s.aparts.Add(-1)
		a.pid, a.err = sp.Start(p, fd, env)
		if a.pid != 0 {
			s.reaper.made(a.pid, in)
		}
		close(a.done)
		loop.pulse.ring()
	}()
	return nil
}

// land finishes the starts that are over, and looks after those that are held.
func (w *worker) land() {
	if len(w.starts.under) == 0 {
		return
	}
	var now time.Duration
	kept := w.starts.under[:0]
	for i := range w.starts.under {
		st := &w.starts.under[i]
		if !st.done() {
			if now == 0 {
				now = w.s.now()
			}
			if now-st.began >= heldAfter && now-st.looked >= lookEvery {
				st.looked = now
				w.look(st, now)
			}
			kept = append(kept, *st)
			continue
		}
		var err error
		if st.apart != nil {
			st.pid, err = st.apart.pid, st.apart.err
		} else {
			err = st.spawner.Finish()
		}
		w.finish(st, err) // from here on nobody asks the spawner
		if st.held || st.spawner.Failed() {
			// Its descriptors are another's now, or the next child would be taken
			// for one that has failed.
			st.spawner.Close()
		} else {
			w.starts.idle = append(w.starts.idle, st.spawner)
		}
	}
	clear(w.starts.under[len(kept):])
	w.starts.under = kept
}

// landWait says how long the loop may sleep until it has to look at the starts
// again: negative for ever. The first datagrams of a peer wait for the server of
// its session, so that is waited for, a moment.
func (w *worker) landWait() time.Duration {
	w.land()
	if len(w.starts.under) == 0 {
		return -1
	}
	now, oldest := w.s.now(), &w.starts.under[0]
	for i := range w.starts.under {
		if st := &w.starts.under[i]; st.in.session != nil && now-st.began < awaitMost {
			st.await(awaitMost)
			w.land()
			return 0
		}
	}
	if now-oldest.began < heldAfter {
		return landEvery
	}
	return lookEvery
}

// landAll waits for all starts.
func (w *worker) landAll() {
	for len(w.starts.under) > 0 {
		w.starts.under[0].await(awaitMost)
		w.land()
	}
}

// finish is what becomes of a start, whatever it was for.
func (w *worker) finish(st *start, err error) {
	in := st.in
	u := in.unit
	if st.held {
		u.held.Add(-1)
	}
	if err != nil {
		w.s.giveBack(u, &in.lease)
		w.s.reaper.abort(st.pid, in)
		w.s.reaper.ring()
		switch {
		case in.turn != nil:
			w.serverFailed(st, err)
		case in.session != nil:
			w.sessionFailed(st, err)
		default:
			w.startFailed(st, err)
		}
		return
	}
	u.stuck.worked()
	w.s.forking.worked()
	if in.session != nil {
		w.sessionStarted(st)
	}
	// Logged before the record stands, so that no end comes before its start.
	w.s.log.started(st.pid, in)
	st.closeConn()
	// The child may have ended already.
	if e := w.s.reaper.store(st.pid, in); e != nil {
		w.s.end(st.pid, in, *e)
	}
	w.s.reaper.ring()
	if in.turn != nil {
		w.serverStarted(st)
	}
}

// closeConn gives up the connection, of which the daemon wants nothing any more.
func (st *start) closeConn() {
	if st.conn.fd >= 0 {
		closeFd(st.conn.fd)
		st.conn.fd = -1
	}
}

// look finds out why a child has not reached its program. If somebody holds it
// another start may have its descriptors; if that lasts it is killed, and its row
// starts no others for a while.
func (w *worker) look(st *start, now time.Duration) {
	u, age, pid := st.in.unit, now-st.began, st.spawner.PID()
	var state byte
	if pid != 0 {
		if state = beforeProgram(pid); state == 0 {
			return // it is there, or has ended
		}
	}
	if state == 'R' && age < getProcessor {
		return // the machine is busy
	}
	if !st.held {
		if st.apart == nil && !st.spawner.Release() {
			return // it needs them yet: the machine is busy
		}
		st.held = true
		u.held.Add(1)
		w.s.log.held(u, age)
	}
	if u.held.Load() >= heldPerRow {
		w.s.pauseFor(u, pauseBackoff, heldAfter)
	}
	stopped := state == 'T' || state == 't'
	if age < reachDisk && !(stopped && age >= reachProgram) {
		return
	}
	if !u.stuck.active(now) {
		d := u.stuck.failed(now, stuckMin, stuckMax)
		w.s.pauseFor(u, pauseBackoff, d)
		w.s.log.backOff(u, d)
	}
	if !st.killed && pid != 0 {
		st.killed = true
		w.s.reaper.killStarting(pid, st.in, func() {
			if st.apart == nil && st.in.turn == nil && st.in.session == nil {
				st.conn.fd = connOf(pid)
			}
		})
	}
}
