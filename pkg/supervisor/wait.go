package supervisor

// Wait rows: the server gets the listening socket and accepts, or receives, on
// it by itself. The daemon only polls the socket, and not even that while its
// servers run. It never takes anything out of the queue: what waits there when
// a server ends is the next server's.

import (
	"errors"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// A turn is what is known of the servers that have one socket. It outlives the
// socket struct when a row gets another name.
type turn struct {
	owner atomic.Pointer[socket]
	hub   atomic.Pointer[hub] // sessions of its peers, if the row has such

	// Under owner's unit.mu:
	running int // servers that have the socket
	failed  int // servers in a row that have ended at once
	resting int // not polled for a while: which rest it is, 0 for none
	rests   int // how many there have been
}

const (
	// atOnce is the life of a server that is taken for a failure if it ends
	// badly, or with its socket as readable as before.
	atOnce = time.Second
	// unreadFree is how many servers may do their work within atOnce, one after
	// the other, and leave the next request to the next one.
	unreadFree  = 10
	failRestMin = 50 * time.Millisecond
	failRestMax = time.Minute
	// Of several servers the next is started when the one before has taken what
	// it was started for, or after shareMost. That is looked for ever more seldom:
	// a small server has taken it in less than shareFirst.
	shareFirst = 250 * time.Microsecond
	shareLook  = 2 * time.Millisecond
	shareMost  = 100 * time.Millisecond
	// streamRestMax is as long as a stream socket rests after servers that end
	// well: its queue does not tell for sure that they have done nothing.
	streamRestMax = time.Second
)

// taken reports whether nobody is to look at the socket now. The caller holds
// the unit's mu.
func (l *socket) taken(r *row) bool {
	if !r.Wait {
		return l.turn.running > 0 // the row had wait; its server still has the socket
	}
	return l.turn.resting != 0 || l.turn.running >= max(1, r.Limits.Instances)
}

// takeTurn starts a server for a socket that has something to read.
func (w *worker) takeTurn(l *socket) {
	u := l.unit
	u.mu.Lock()
	r := u.row.Load()
	if !r.Wait || l.gone || l.turn.owner.Load() != l || l.taken(r) {
		u.mu.Unlock()
		return // another worker, or a reload, was faster
	}
	l.turn.running++
	w.s.unpoll(l)
	u.mu.Unlock()
	if !l.Waiting() { // the server that has just ended took it
		w.s.endTurn(l.turn, 0, false)
		return
	}
	w.startServer(l, u, r)
}

// startServer starts a server on a listening socket. If it cannot, the socket
// rests before the next try.
func (w *worker) startServer(l *socket, u *unit, r *row) {
	now := w.s.now()
	refuse := func(why refusal, rest time.Duration) {
		w.s.log.deferred(u, l.Endpoint, why)
		w.s.endTurn(l.turn, rest, false)
	}
	switch {
	case r.Refuse != "":
		refuse(refusedRow, failRestMax)
		return
	case w.s.backsOff(u, now):
		refuse(refusedBackoff, backoffMax)
		return
	case u.sheds.Load():
		refuse(refusedShed, backoffMax)
		return
	}
	if left := w.s.suspendedFor(u); left > 0 { // a reload has ended the rest of its socket
		refuse(refusedSuspended, left)
		return
	}
	lease, why := w.s.admitServer(u, now)
	if why != limit.OK {
		w.s.exceeded(u, why)
		refuse(refusal(why.String()), max(backoffMax, w.s.suspendedFor(u)))
		return
	}
	in := &instance{unit: u, lease: lease, local: l.Endpoint, turn: l.turn, start: now}
	in.peer.Network = l.Endpoint.Network
	in.head = l.Head()
	if !w.s.reaper.begin(in) { // the daemon stops
		w.s.giveBack(u, &lease)
		w.s.endTurn(l.turn, failRestMax, false)
		return
	}
	c := connection{fd: -1, listener: l}
	w.start(start{in: in, row: r, conn: c, fd: l.Fd()}, w.environ(r, in, c))
}

// serverStarted: the server has its program.
func (w *worker) serverStarted(st *start) {
	w.s.served.Store(int64(w.s.now()))
	if st.row.Limits.Instances > 1 {
		w.s.shareTurn(st.in.turn, st.in.head)
	}
}

// serverFailed: it has not come to it.
func (w *worker) serverFailed(st *start, err error) {
	in := st.in
	rest := in.turn.fail(failRestMax)
	if d := w.cannotFork(err); d > 0 {
		rest = d
	}
	w.s.log.startFailed(in.unit, nil, err, slog.String("local", in.local.String()), slog.String("program", st.row.Exec.Path), slog.Duration("for", rest))
	w.s.endTurn(in.turn, rest, false)
}

// fail counts a failure, and says for how long the socket is to rest.
func (t *turn) fail(most time.Duration) time.Duration { return t.failAfter(0, most) }

// failAfter is fail for what is none before it has come so many times in a row.
func (t *turn) failAfter(free int, most time.Duration) time.Duration {
	u, _ := t.lock()
	defer u.mu.Unlock()
	if t.failed++; t.failed <= free {
		return 0
	}
	return min(failRestMin<<min(t.failed-free-1, 20), most)
}

// serverEnded looks at how a server has ended: one that does nothing must
// neither spin nor lose what waits.
func (s *Supervisor) serverEnded(pid int, in *instance, e exit) {
	t := in.turn
	l := t.owner.Load()
	quick := e.at-in.start < atOnce
	bad := quick && e.status.ExitStatus() != 0 // -1 if a signal has ended it
	unread := quick && l.Waiting() && l.untouched(in.head)
	var rest time.Duration
	switch {
	case bad:
		rest = t.fail(failRestMax)
		s.log.serverFailed(in, pid, rest, "its server ends at once")
	case unread:
		most := streamRestMax
		if l.Endpoint.Network.Dgram() {
			most = failRestMax
		}
		if rest = t.failAfter(unreadFree, most); rest > 0 {
			s.log.serverFailed(in, pid, rest, "its server ends at once and leaves what has come unread")
		}
	}
	s.endTurn(t, rest, !bad && !unread)
}

// untouched reports whether the queue is as it was when a server was started, as
// far as can be told.
func (l *socket) untouched(before uint64) bool {
	now := l.Head()
	if l.Endpoint.Network.Dgram() {
		return now == before
	}
	return now >= before // of those that were there none was accepted
}

// endTurn takes the socket back from a server, and polls it again after a rest.
func (s *Supervisor) endTurn(t *turn, rest time.Duration, well bool) {
	u, l := t.lock()
	t.running--
	if well {
		t.failed = 0
	}
	switch r := u.row.Load(); {
	case l.gone:
	case !r.Wait:
		s.handOver(l, r) // a reload has changed the row meanwhile
	case t.running == 0:
		if err := l.Restore(r.Socket); err != nil {
			s.log.problem("cannot make a socket what it was before its server", err)
		}
	}
	if rest == 0 {
		t.resting = 0
		if u.paused == 0 {
			s.poll(l)
		}
	}
	u.mu.Unlock()
	if rest > 0 {
		s.restTurn(t, rest)
	}
}

// restTurn does not poll a socket for a while.
func (s *Supervisor) restTurn(t *turn, rest time.Duration) {
	u, _ := t.lock()
	t.rests++
	t.resting = t.rests
	this := t.rests
	u.mu.Unlock()
	time.AfterFunc(rest, func() {
		u, l := t.lock()
		defer u.mu.Unlock()
		if t.resting != this {
			return
		}
		t.resting = 0
		if u.paused == 0 {
			s.poll(l)
		}
	})
}

// shareTurn lets the server that was just started take what has come before
// another is started for it. head is the queue before.
func (s *Supervisor) shareTurn(t *turn, head uint64) {
	u, _ := t.lock()
	t.rests++
	t.resting = t.rests
	this := t.rests
	u.mu.Unlock()
	until, wait := s.now()+shareMost, shareFirst
	var look func()
	look = func() {
		u, l := t.lock()
		defer u.mu.Unlock()
		switch {
		case t.resting != this:
			return
		case !l.gone && s.now() < until && l.Waiting() && l.Head() == head:
			wait = min(2*wait, shareLook)
			time.AfterFunc(wait, look)
			return
		}
		t.resting = 0
		if u.paused == 0 {
			s.poll(l)
		}
	}
	time.AfterFunc(wait, look)
}

// lock finds the unit that has the socket now, and locks its mu.
func (t *turn) lock() (*unit, *socket) {
	for {
		l := t.owner.Load()
		l.unit.mu.Lock()
		if t.owner.Load() == l {
			return l.unit, l
		}
		l.unit.mu.Unlock()
	}
}

// cannotFork has everybody wait where no child can be made, and says how long;
// 0 if that was not the reason of a failed start.
func (w *worker) cannotFork(err error) time.Duration {
	var e *spawn.Error
	if errors.As(err, &e) && (e.Step == "clone" || e.Step == "start") && scarce(e.Errno) {
		return w.s.forking.failed(w.s.now(), backoffMin, backoffMax)
	}
	return 0
}
