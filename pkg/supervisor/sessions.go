package supervisor

// Sessions: rows of datagram sockets that do not wait. Each peer has a socket
// and a child of its own, which is an instance like any other. The daemon reads
// only what peers send that have none yet, and puts it back into the socket of
// their session as soon as they have one.

import (
	"cmp"
	"log/slog"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// refusedUnread: a server has ended and has read nothing of what has come.
const refusedUnread refusal = "unread"

// refusedStray: a server has parted its socket from its peer.
const refusedStray refusal = "stray"

// A hub is the sessions of one socket. Like its turn it outlives the socket
// struct when a row gets another name.
type hub struct {
	s    *Supervisor
	turn *turn
	d    *listener.Datagrams

	mu       sync.Mutex
	peers    map[sessionKey]*session // no more than instances, and one a worker
	watching bool                    // a look at idle sessions is to come
	sweeping bool
}

type sessionKey struct{ local, peer netip.AddrPort }

// A session is the part of an instance that a connection has in its descriptor.
type session struct {
	hub *hub
	key sessionKey
	due atomic.Int32 // the signal that is to end it

	idled atomic.Bool // it was ended for its idleness

	// Under hub.mu:
	socket  *listener.Session   // nil until it has its server
	waiting []listener.Datagram // what has come before it has its server, in order
	in      *instance           // with socket
	read    int64               // the socket's Read when last looked at
	active  time.Duration       // when that was another
	asked   time.Duration       // when it was sent SIGTERM; 0: not yet
}

const (
	sessionBatch  = 16
	sessionRounds = 4
	datagramMost  = 64 << 10
	// waitingMost is how many datagrams of a peer wait for its child to be made.
	waitingMost = 64
	idleKill    = 5 * time.Second
	// strayTime is for datagrams that were under way when their session began.
	strayTime  = 500 * time.Millisecond
	watchLeast = 20 * time.Millisecond
	watchMost  = 15 * time.Second
)

// spareBatches are for datagrams that are moved on at once.
var spareBatches = sync.Pool{New: func() any { return kernel.NewBatch(4, datagramMost) }}

// hub is the sessions of a socket, made at its first datagram. It is nil if the
// socket has none, because a reload has just changed that.
func (s *Supervisor) hub(l *socket) (*hub, error) {
	l.unit.mu.Lock()
	defer l.unit.mu.Unlock()
	if l.gone || l.turn.owner.Load() != l {
		return nil, nil
	}
	if h := l.turn.hub.Load(); h != nil {
		return h, nil
	}
	if r := l.unit.row.Load(); r.Wait || r.Exec == nil {
		return nil, nil // since a moment; nobody would receive from the guards
	}
	h := &hub{s: s, turn: l.turn, peers: map[sessionKey]*session{}}
	d, err := l.Datagrams(func(fd int) {
		token := uint64(h.turn.owner.Load().token)
		for _, loop := range s.loops {
			if err := loop.poll.addListener(fd, token); err != nil {
				s.log.problem("cannot poll a guard", err)
			}
		}
	})
	if err != nil {
		return nil, err
	}
	h.d = d
	l.turn.hub.Store(h)
	return h, nil
}

// closeHub ends the receiving for sessions; those that there are go on.
func (l *socket) closeHub() {
	if h := l.turn.hub.Swap(nil); h != nil {
		h.d.Close()
	}
}

// each calls f for every descriptor that is polled for a socket.
func (l *socket) each(f func(fd int)) {
	if h := l.turn.hub.Load(); h != nil {
		h.d.Each(f)
		return
	}
	f(l.Fd())
}

// datagrams takes a batch of datagrams of peers without a session.
func (w *worker) datagrams(l *socket, r *row) {
	h, err := w.s.hub(l)
	if shortage(err) {
		w.s.log.shortage(l.unit, err)
		w.s.short.Store(int64(w.s.now()))
		w.s.pauseFor(l.unit, pauseShortage, shortagePause)
		return
	}
	if err != nil {
		w.s.log.acceptFailed(l.unit, err)
		w.s.pauseFor(l.unit, pauseShortage, backoffMax)
		return
	}
	if h == nil {
		return
	}
	if w.scratch.sessions == nil {
		w.scratch.sessions = kernel.NewBatch(sessionBatch, datagramMost)
	}
	b := w.scratch.sessions
	for range sessionRounds {
		if w.s.stopping.Load() {
			return
		}
		if until := w.s.sparing.Load(); until != 0 && int64(w.s.now()) < until {
			w.s.pauseFor(l.unit, pauseShortage, shortagePause)
			return
		}
		n, err := h.d.Receive(b)
		if err != nil {
			return // none, or none any more
		}
		for i := range n {
			w.datagram(h, l, r, h.d.DatagramOf(b, i))
		}
		w.land()
		w.yield()
	}
}

// datagram brings one datagram to its session, which is opened if there is none.
func (w *worker) datagram(h *hub, l *socket, r *row, g listener.Datagram) {
	if !g.Local.IsValid() {
		return // sent to a multicast address: there is nothing to answer from
	}
	key := sessionKey{g.Local, g.Peer}
	h.mu.Lock()
	x := h.peers[key]
	if x != nil && x.socket == nil {
		// Its server is being started.
		if len(x.waiting) < waitingMost {
			g.Data = slices.Clone(g.Data)
			x.waiting = append(x.waiting, g)
		}
		h.mu.Unlock()
		return
	}
	if x != nil {
		since := w.s.now() - x.in.start
		h.mu.Unlock()
		if since < strayTime {
			h.putBack(g) // it was under way when its session was opened
			return
		}
		// It would come again and again.
		w.s.log.refused(l.unit, x.in.peer, refusedStray, slog.String("local", x.in.local.String()))
		return
	}
	g.Data = slices.Clone(g.Data)
	x = &session{hub: h, key: key, waiting: []listener.Datagram{g}}
	h.peers[key] = x
	h.mu.Unlock()
	w.openSession(l, r, x, g)
}

// drop ends a session that has come to nothing. Again says that its datagrams are
// to be received once more: something is missing that may be there soon.
func (x *session) drop(again bool) {
	h := x.hub
	h.mu.Lock()
	delete(h.peers, x.key)
	waiting := x.waiting
	x.waiting = nil
	h.mu.Unlock()
	if again {
		for _, g := range waiting {
			h.putBack(g)
		}
	}
}

// putBack sends a datagram on, to its session or to be received once more. What
// cannot go is lost, as the network loses datagrams.
func (h *hub) putBack(g listener.Datagram) {
	if err := h.d.PutBack(g); err != nil && err != listener.ErrClosed {
		h.s.log.problem("cannot put a datagram back", err)
	}
}

// openSession admits a peer, whose first datagram is g, and starts its server, as
// enter does it for a connection. The session is dropped if that fails.
func (w *worker) openSession(l *socket, r *row, x *session, g listener.Datagram) {
	u, h, now := l.unit, x.hub, w.s.now()
	peer := service.Peer{Network: l.Endpoint.Network, Addr: g.Peer}
	local := l.Endpoint
	local.Addr = g.Local
	at := slog.String("local", local.String())
	refuse := func(why refusal, more ...slog.Attr) {
		w.s.log.refused(u, peer, why, append(more, at)...)
		x.drop(false)
	}
	if w.s.bannedUntil(&peer) != 0 {
		refuse(refusedBanned)
		return
	}
	if why, more := w.s.mayEnter(u, r, peer, way{listener: l, fd: -1, local: g.Local.Addr(), by: g.Interface}); why != "" {
		refuse(why, more...)
		return
	}
	c := connection{fd: -1, peer: peer, listener: l}
	lease, why := w.s.admit(u, r, &c)
	if why.Passes() {
		w.s.reap()
		lease, why = w.s.admit(u, r, &c)
	}
	if why != limit.OK {
		w.s.exceeded(u, why)
		refuse(refusal(why.String()))
		return
	}
	spare := spareBatches.Get().(*kernel.Batch)
	defer spareBatches.Put(spare)
	socket, err := h.d.Open(g, r.Socket, spare)
	h.sweepSoon()
	if err != nil {
		w.s.giveBack(u, &lease)
		if shortage(err) {
			w.s.log.shortage(u, err)
			w.s.short.Store(int64(w.s.now()))
			w.s.pauseFor(u, pauseShortage, shortagePause)
			x.drop(true)
			return
		}
		w.s.log.startFailed(u, &peer, err, at)
		x.drop(false)
		return
	}
	w.s.reserve.note(socket.Fd())
	in := &instance{unit: u, lease: lease, peer: peer, local: local, session: x, start: now}
	if !w.s.reaper.begin(in) { // the daemon stops
		w.s.giveBack(u, &lease)
		h.end(socket, true, spare)
		x.drop(false)
		return
	}
	w.start(start{in: in, row: r, conn: c, fd: socket.Fd(), socket: socket}, w.environ(r, in, c))
}

// fill brings what has waited to the session's socket, whose server is on its way
// and reads in a moment. Now is the last time to take out what is not its peer's.
// Should such come even later, it stands behind the peer's own: most servers end
// before they would read it, and then it is put back.
func (x *session) fill(socket *listener.Session) {
	spare := spareBatches.Get().(*kernel.Batch)
	own := x.hub.d.Part(socket, spare)
	spareBatches.Put(spare)
	x.hub.mu.Lock()
	defer x.hub.mu.Unlock()
	x.waiting = append(x.waiting, own...)
	x.flushLocked()
}

// flushLocked brings what has waited to the session's socket.
func (x *session) flushLocked() {
	h := x.hub
	for len(x.waiting) > 0 {
		list := x.waiting
		x.waiting = nil
		h.mu.Unlock()
		for _, g := range list {
			h.putBack(g)
		}
		h.mu.Lock()
	}
}

// sessionStarted: the server of a session has its program.
func (w *worker) sessionStarted(st *start) {
	x := st.in.session
	h := x.hub
	h.mu.Lock()
	defer h.mu.Unlock()
	x.flushLocked() // received before the socket was opened, and handled after that
	x.socket, x.in, x.active = st.socket, st.in, w.s.now()
	h.watchLocked()
}

// sessionFailed: it has not come to it.
func (w *worker) sessionFailed(st *start, err error) {
	in, x := st.in, st.in.session
	w.s.log.startFailed(in.unit, &in.peer, err, slog.String("local", in.local.String()), slog.String("program", st.row.Exec.Path))
	d := w.cannotFork(err)
	if d > 0 {
		w.s.pauseFor(in.unit, pauseBackoff, d)
	}
	spare := spareBatches.Get().(*kernel.Batch)
	defer spareBatches.Put(spare)
	x.hub.end(st.socket, d > 0, spare)
	x.drop(d > 0)
}

// end gives up a session's socket, and says how many datagrams were lost by it.
func (h *hub) end(socket *listener.Session, again bool, spare *kernel.Batch) (dropped int) {
	dropped = h.d.End(socket, again, spare, h.putBack)
	h.sweepSoon()
	return dropped
}

// sweepSoon has the sockets looked after that something may come late to.
func (h *hub) sweepSoon() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.sweeping {
		h.sweeping = true
		time.AfterFunc(listener.LateTime, h.sweep)
	}
}

// sessionEnded ends the session of an instance.
func (s *Supervisor) sessionEnded(in *instance) {
	x := in.session
	socket := x.take()
	if socket == nil {
		return // dropped
	}
	spare := spareBatches.Get().(*kernel.Batch)
	defer spareBatches.Put(spare)
	if n := x.hub.end(socket, false, spare); n > 0 {
		s.log.refused(in.unit, in.peer, refusedUnread, slog.String("local", in.local.String()), slog.Int("datagrams", n))
	}
}

// take ends a session in the books.
func (x *session) take() *listener.Session {
	x.hub.mu.Lock()
	defer x.hub.mu.Unlock()
	socket := x.socket
	if x.socket = nil; socket != nil {
		delete(x.hub.peers, x.key)
	}
	return socket
}

// dropSessions gives up the sockets of instances that outlive the daemon, which
// have them themselves.
func (s *Supervisor) dropSessions() {
	s.reaper.each(func(_ int, in *instance) {
		if in.session == nil {
			return
		}
		if socket := in.session.take(); socket != nil {
			closeFd(socket.Fd())
		}
	})
}

// sweep closes the sockets of ended sessions.
func (h *hub) sweep() {
	spare := spareBatches.Get().(*kernel.Batch)
	defer spareBatches.Put(spare)
	h.mu.Lock()
	defer h.mu.Unlock()
	// What is ended after Sweep has looked has it called again.
	if h.sweeping = h.d.Sweep(spare, h.putBack); h.sweeping {
		time.AfterFunc(listener.LateTime, h.sweep)
	}
}

// watchLocked has idle sessions looked for as long as there are sessions.
func (h *hub) watchLocked() {
	idle := h.turn.owner.Load().unit.row.Load().Idle
	if h.watching || len(h.peers) == 0 {
		return
	}
	h.watching = true
	// Without a time for it, there may be one after a reload.
	every := min(max(cmp.Or(idle, time.Hour)/8, watchLeast), watchMost)
	time.AfterFunc(every, h.watch)
}

// watch ends sessions whose server has read nothing for as long as the row says:
// by SIGTERM, and if that does not help by SIGKILL.
func (h *hub) watch() {
	now, due := h.s.now(), false
	h.mu.Lock()
	h.watching = false
	for _, x := range h.peers {
		if x.socket == nil {
			continue
		}
		if read := x.socket.Read(); read != x.read {
			x.read, x.active = read, now
		}
		idle := x.in.unit.row.Load().Idle
		switch {
		case x.asked != 0 && now-x.asked >= idleKill:
			x.due.Store(int32(syscall.SIGKILL))
			due = true
		case x.asked == 0 && idle > 0 && now-x.active >= idle:
			x.asked = now
			x.idled.Store(true)
			x.due.Store(int32(syscall.SIGTERM))
			due = true
		}
	}
	h.watchLocked()
	h.mu.Unlock()
	if !due {
		return
	}
	h.s.reaper.each(func(pid int, in *instance) {
		if in.session == nil || in.session.hub != h {
			return
		}
		if sig := in.session.due.Swap(0); sig != 0 {
			syscall.Kill(-pid, syscall.Signal(sig))
		}
	})
}
