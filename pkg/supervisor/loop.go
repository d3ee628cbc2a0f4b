package supervisor

// Loops and their workers. A loop is an epoll set with what it has reported; its
// worker is the goroutine that serves it, and never stands still: what may take
// its time, a child on its way to its program or a line that is not complete, is
// looked at again when something has happened.

import (
	"errors"
	"runtime"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// acceptBatch is how many connections of one listener a worker takes before it
// looks at others.
const acceptBatch = 16

// metJustNow is how long after a connection another one of the same listener is
// taken to come upon it: about as long as it takes to look at everything else.
const metJustNow = 30 * time.Microsecond

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
	tokenPit  = 1 << 62 // a connection in the tarpit, without tokenPeer
	// tokenPulse is above every listener.
	tokenPulse = 1 << 32
)

type worker struct {
	s       *Supervisor
	loop    *loop
	starts  starts
	scratch scratch

	yielded time.Duration // when it last did
	// met is the listener that it has accepted from last, and when.
	met   *socket
	metAt time.Duration
}

// scratch is memory that a worker uses for one connection after the other.
type scratch struct {
	line [tcpmux.MaxLine]byte
	name []byte
	env  []byte

	header [proxy.MaxHeader]byte
	proxy  proxy.Reader

	answers  *answers      // nil until the first one
	sessions *kernel.Batch // nil until the first one
}

func (s *Supervisor) newWorker(l *loop) *worker {
	w := &worker{s: s, loop: l}
	w.starts.most = min(max(1, spawn.Slots()/len(s.loops)), startsMost)
	w.scratch.name = make([]byte, 0, tcpmux.MaxLine)
	w.scratch.env = make([]byte, 0, 512)
	return w
}

// serve handles events until the supervisor stops and no start is under way.
func (w *worker) serve() {
	defer w.starts.close()
	for {
		for {
			ev, ok := w.loop.events.pop()
			if !ok {
				break
			}
			switch {
			case ev.token&tokenPeer != 0:
				w.peerEvent(ev)
			case ev.token&tokenPit != 0:
				w.s.pitEvent(ev)
			case ev.token == tokenPulse:
				w.loop.pulse.pass()
			case ev.token != tokenWake:
				w.accept(w.s.tokens.get(uint32(ev.token)))
			}
			w.land()
			w.serveLines()
		}
		w.serveLines()
		if w.s.stopped.Load() {
			w.landAll()
			return
		}
		wait := sooner(w.s.expirePending(), w.landWait())
		if w.s.lines.due.Load() && w.s.lines.due.Swap(false) {
			w.s.lines.free.Store(true)
			wait = 0
		}
		if err := w.loop.poll.wait(&w.loop.events, wait); err != nil {
			w.s.log.problem("cannot wait for connections", err)
			time.Sleep(backoffMax) // never spin on an error that should not be
		}
	}
}

// sooner is the shorter of two waits, of which a negative one is for ever.
func sooner(a, b time.Duration) time.Duration {
	if a < 0 || b >= 0 && b < a {
		return b
	}
	return a
}

// accept takes a batch of connections from a listener.
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
	// To look whether there is another connection costs a file and a socket if
	// there is none, so that is only done where they come one upon the other.
	eager := l == w.met && w.s.now()-w.metAt < metJustNow
	for n := range acceptBatch {
		if w.s.stopping.Load() || n > 0 && !eager {
			return
		}
		if until := w.s.sparing.Load(); until != 0 && int64(w.s.now()) < until {
			w.s.pauseFor(u, pauseShortage, shortagePause)
			return
		}
		var place reservation
		if w.s.queues(u.row.Load()) {
			var ok bool
			if place, ok = w.s.reservePlace(u); !ok {
				return
			}
		}
		fd, peer, err := l.Accept()
		if err != nil {
			w.s.returnPlace(u, place)
			if again(err) || errors.Is(err, listener.ErrClosed) {
				w.met = nil
				return
			}
			if !w.acceptFailed(l, err) {
				return
			}
			continue
		}
		w.s.reserve.note(fd)
		w.connection(l, fd, peer, place)
		w.land()
		now := w.yield()
		w.met, w.metAt = l, now
		w.s.reapPassing(now)
	}
}

// yieldEvery is short of the ten milliseconds after which the Go runtime takes a
// goroutine for one that does not let others run: it would signal its thread,
// and look at all threads every twenty microseconds for a while.
const yieldEvery = 8 * time.Millisecond

// yield has the scheduler see that the worker is no hog, and says what time it is.
func (w *worker) yield() time.Duration {
	now := w.s.now()
	if now-w.yielded > yieldEvery {
		w.yielded = now
		runtime.Gosched()
	}
	return now
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
		if ownShortage(err) && (w.s.evictPit() || w.s.evictAny()) {
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
