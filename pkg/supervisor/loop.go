package supervisor

// Loops and workers. A loop is an epoll set with what it has reported; a worker
// is a goroutine with a spawner that serves a loop. They are two things because
// a worker stands still from the clone of a child to its exec, and somebody may
// hold that child there: then the watcher gives the loop to another worker.

import (
	"errors"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// acceptBatch is how many connections of one listener a worker takes before it
// looks at others.
const acceptBatch = 16

type loop struct {
	poll   poller
	events eventBuffer
	pulse  pulse
}

func newLoop(wakeFd int) (*loop, error) {
	p, err := newPoller()
	if err != nil {
		return nil, err
	}
	if err := p.addWake(wakeFd, tokenWake); err != nil {
		p.close()
		return nil, err
	}
	l := &loop{poll: p}
	if err := l.pulse.open(p); err != nil {
		p.close()
		return nil, err
	}
	return l, nil
}

// Tokens tell what an event is about: a listener has a number below 1<<32, a
// pending connection has tokenPeer set.
const (
	tokenWake = 0
	tokenPeer = 1 << 63
	// tokenPulse is above every listener.
	tokenPulse = 1 << 32
)

// The states of a worker. Only the worker goes from serving to starting and
// back; only the watcher goes from starting to retired, and then the loop is
// no longer the worker's.
const (
	serving int32 = iota
	starting
	retired
)

type worker struct {
	s       *Supervisor
	loop    *loop
	spawner *spawn.Spawner
	scratch scratch

	yielded time.Duration // when it last did

	state atomic.Int32
	since atomic.Int64 // when the start under way began, on the supervisor's clock; 0: none
	unit  atomic.Pointer[unit]
	begun atomic.Uint64 // of its instance
	// killed says that the watcher has ended the child of the start under way.
	killed atomic.Bool
}

// scratch is memory that a worker uses for one connection after the other.
type scratch struct {
	line [tcpmux.MaxLine]byte
	name []byte
	env  []byte

	datagrams *builtin.Datagrams // nil until the first one
	sessions  *kernel.Batch      // nil until the first one
}

func (s *Supervisor) newWorker(l *loop) (*worker, error) {
	sp, err := spawn.NewSpawner()
	if err != nil {
		return nil, err
	}
	w := &worker{s: s, loop: l, spawner: sp}
	w.scratch.name = make([]byte, 0, tcpmux.MaxLine)
	w.scratch.env = make([]byte, 0, 512)
	return w, nil
}

// runLocked has a worker serve its loop. The caller holds watcher.mu, so that
// none begins once halt has been there.
func (s *Supervisor) runLocked(w *worker) {
	s.watcher.workers = append(s.watcher.workers, w)
	s.workers.Go(func() {
		defer w.spawner.Close()
		defer s.watcher.remove(w)
		w.serve()
	})
}

// serve handles events until the supervisor stops or the loop is taken away.
func (w *worker) serve() {
	for {
		for {
			ev, ok := w.loop.events.pop()
			if !ok {
				break
			}
			switch {
			case ev.token&tokenPeer != 0:
				w.peerEvent(ev)
			case ev.token == tokenPulse:
				w.loop.pulse.pass()
			case ev.token != tokenWake:
				w.accept(w.s.tokens.get(uint32(ev.token)))
			}
			if w.state.Load() == retired {
				// What it has left in the loop's set the loop's new worker
				// may sleep over.
				time.AfterFunc(lingerTime, func() { w.s.expirePending() })
				return
			}
		}
		if w.s.stopped.Load() {
			return
		}
		wait := w.s.expirePending()
		if err := w.loop.poll.wait(&w.loop.events, wait); err != nil {
			w.s.log.problem("cannot wait for connections", err)
			time.Sleep(backoffMax) // never spin on an error that should not be
		}
	}
}

// accept takes a batch of connections from a listener. The worker may have
// lost its loop afterwards.
func (w *worker) accept(l *socket) {
	if l == nil {
		return // closed since
	}
	u := l.unit
	switch r := u.row.Load(); {
	case r.Wait:
		w.takeTurn(l)
		return
	case l.Endpoint.Network.Dgram() && r.Builtin != service.BuiltinNone:
		w.answerAll(l, r)
		return
	case l.Endpoint.Network.Dgram():
		w.datagrams(l, r)
		return
	}
	for range acceptBatch {
		if w.s.stopping.Load() {
			return
		}
		if until := w.s.sparing.Load(); until != 0 && int64(w.s.now()) < until {
			w.s.pauseFor(u, pauseShortage, shortagePause)
			return
		}
		queue := u.row.Load().queues()
		if queue && !w.s.reservePlace(u) {
			return
		}
		fd, peer, err := l.Accept()
		if err != nil {
			if queue {
				w.s.returnPlace(u)
			}
			if again(err) || errors.Is(err, listener.ErrClosed) {
				return
			}
			if !w.acceptFailed(l, err) {
				return
			}
			continue
		}
		w.connection(l, fd, peer, queue)
		if w.state.Load() == retired {
			return
		}
		w.yield()
	}
}

// yieldEvery is short of the ten milliseconds after which the Go runtime takes a
// goroutine for one that does not let others run: it would signal its thread,
// and look at all threads every twenty microseconds for a while.
const yieldEvery = 5 * time.Millisecond

// yield has the scheduler see that the worker is no hog.
func (w *worker) yield() {
	if now := w.s.now(); now-w.yielded > yieldEvery {
		w.yielded = now
		runtime.Gosched()
	}
}

// acceptFailed says whether to go on accepting.
func (w *worker) acceptFailed(l *socket, err error) bool {
	u := l.unit
	switch {
	case passing(err):
		return true
	case shortage(err) && !l.Waiting():
		// Nothing is missing yet.
	case shortage(err):
		w.s.log.shortage(u, err)
		w.s.short.Store(int64(w.s.now()))
		// A pending negotiation is worth less than a newcomer, if its
		// descriptor is what he needs.
		if ownShortage(err) && w.s.evictAny() {
			return true
		}
		w.s.pauseFor(u, pauseShortage, shortagePause)
	default:
		w.s.log.acceptFailed(u, err)
		w.s.pauseFor(u, pauseShortage, backoffMax)
	}
	return false
}

// shortagePause is how long a row does not accept after the process or the
// system was out of descriptors: long enough not to spin, short enough not to be noticed.
const shortagePause = 100 * time.Millisecond

// start runs the spawner, and lets the watcher see for how long.
func (w *worker) start(u *unit, r *row, fd int, env []byte) (int, error) {
	if err := w.s.readyOutput(u, r); err != nil {
		e := &spawn.Error{Step: "log", Errno: syscall.EIO}
		errors.As(err, &e.Errno)
		return 0, e
	}
	w.unit.Store(u)
	w.killed.Store(false)
	w.state.Store(starting)
	w.since.Store(max(1, int64(w.s.now())))
	w.s.watcher.attend()
	pid, err := w.spawner.Start(r.program, fd, env)
	w.since.Store(0)
	// When the watcher was faster, the loop has another worker by now; this one
	// finishes the connection in hand and ends.
	w.state.CompareAndSwap(starting, serving)
	return pid, err
}
