package supervisor

// Services that run in the daemon itself and not in a child: the stream
// built-ins and the rows that forward. Admission is the same as for a child; the
// bytes are package relay's. daytime and time, which are one short answer, are
// given by the worker itself.

import (
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/ident"
	"github.com/tcpmuxd/tcpmuxd/pkg/relay"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// relays are the instances that have no child. The loops are made when the
// first one starts.
type relays struct {
	mu      sync.Mutex
	running map[uint64]*instance
	newest  uint64
	loops   []*relay.Loop
	names   *relay.Names
	tasks   sync.WaitGroup
	over    bool          // none begins any more
	idle    chan struct{} // made by empty; closed when the last one has ended
}

// planOf is what a row's connections have in common; nil for a row that is not
// relayed.
func planOf(sv *service.Service) *relay.Plan {
	p := &relay.Plan{Idle: sv.Idle, Lifetime: sv.Lifetime}
	switch {
	case sv.Forward != nil:
		p.Flow, p.Forward = relay.Forward, sv.Forward
		if sv.Mux {
			p.Refusal = tcpmux.NotAvailable
		}
	case sv.Builtin == service.BuiltinEcho:
		p.Flow = relay.Echo
	case sv.Builtin == service.BuiltinDiscard:
		p.Flow = relay.Discard
	case sv.Builtin == service.BuiltinChargen:
		p.Flow, p.Pattern = relay.Chargen, builtin.Pattern()
	case sv.Builtin == service.BuiltinAuth:
		p.Flow, p.MaxLine, p.Lifetime, p.Refusal = relay.Ask, ident.MaxLine, sv.Ident.Timeout, ident.TimedOut
	default:
		return nil
	}
	if sv.Plus {
		p.Prefix = tcpmux.Go
	}
	return p
}

// answered is how a peer that still talks is waited for after a short answer.
var answered = &relay.Plan{Flow: relay.Discard, Lifetime: lingerTime}

// inside runs a service in the daemon itself: a built-in or a relay. The lease is
// in.lease; the descriptor of c is taken over.
func (w *worker) inside(u *unit, r *row, c connection, in *instance) {
	plan := r.plan
	if plan == nil {
		if w.answer(r, c.fd) {
			closeFd(c.fd)
			w.s.giveBack(u, &in.lease)
			w.s.log.answered(in, w.s.now())
			return
		}
		plan = answered
	}
	conn := relay.Conn{FD: c.fd, Plan: plan, Peer: c.peer}
	if plan.Flow == relay.Ask {
		conn.Ask = func(line []byte, reply func(string)) { w.s.asks(r, in, line, reply) }
	}
	if err := w.s.startRelay(in, conn); err != nil {
		if err != relay.ErrClosed { // the daemon does not stop
			w.s.log.problem("cannot serve a connection", err)
		}
		w.s.giveBack(u, &in.lease)
		w.dismiss(c, tcpmux.NotAvailable)
	}
}

// answer gives the answer of daytime or time, and reports false if the peer has
// sent something: to close the connection now would have the kernel send a
// reset, which destroys the answer.
func (w *worker) answer(r *row, fd int) bool {
	b := w.scratch.env[:0]
	if r.Plus {
		b = append(b, tcpmux.Go...)
	}
	if r.Builtin == service.BuiltinDaytime {
		b = builtin.AppendDaytime(b, time.Now())
	} else {
		b = builtin.AppendTime(b, time.Now())
	}
	w.scratch.env = b
	// It finds room in the empty buffer of any socket.
	if n, err := send(fd, b); err != nil || n < len(b) {
		return true
	}
	var sink [1]byte
	if n, _ := peek(fd, sink[:]); n <= 0 {
		return true
	}
	return shutdownWrite(fd) != nil
}

// startRelay hands a connection to a loop. On an error the descriptor is still
// the caller's; it is relay.ErrClosed when the daemon stops.
func (s *Supervisor) startRelay(in *instance, c relay.Conn) error {
	loop, id, err := s.relays.begin(s, in)
	if err != nil {
		return err
	}
	// Logged before the loop has it, so that no end comes before its start.
	s.log.begun(in)
	c.ID = id
	if err := loop.Add(c); err != nil {
		s.log.relayed(in, &relay.End{Reason: relay.Cut}, s.now())
		s.relays.forget(id)
		return err
	}
	if in.start < time.Duration(in.unit.ended.Load()) {
		loop.Cut(id) // a reload has ended the row's instances meanwhile
	}
	return nil
}

// begin makes the record of an instance, and says which loop is to serve it.
func (r *relays) begin(s *Supervisor, in *instance) (*relay.Loop, uint64, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.over {
		return nil, 0, relay.ErrClosed
	}
	if r.loops == nil {
		if err := r.openLocked(s, len(s.loops)); err != nil {
			return nil, 0, err
		}
	}
	r.newest++
	r.running[r.newest] = in
	return r.loops[r.newest%uint64(len(r.loops))], r.newest, nil
}

// forget ends a begin.
func (r *relays) forget(id uint64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, id)
	r.checkIdleLocked()
}

func (r *relays) openLocked(s *Supervisor, n int) error {
	names := relay.NewNames(nil)
	var loops []*relay.Loop
	for range n {
		l, err := relay.NewLoop(names)
		if err != nil {
			for _, l := range loops {
				l.Close()
				l.Serve()
			}
			names.Close()
			return fmt.Errorf("making a loop for relays: %w", err)
		}
		loops = append(loops, l)
	}
	r.running, r.loops, r.names = map[uint64]*instance{}, loops, names
	for _, l := range loops {
		r.tasks.Go(func() { s.relay(l) })
	}
	return nil
}

// relay serves a loop until it is closed, and ends its instances.
func (s *Supervisor) relay(l *relay.Loop) {
	for {
		ended, ok := l.Serve()
		now := s.now()
		for i := range ended {
			s.relayEnded(&ended[i], now)
		}
		if !ok {
			return
		}
	}
}

func (s *Supervisor) relayEnded(e *relay.End, now time.Duration) {
	r := &s.relays
	r.mu.Lock()
	in := r.running[e.ID]
	r.mu.Unlock()
	s.giveBack(in.unit, &in.lease)
	s.log.relayed(in, e, now)
	r.forget(e.ID)
}

// cut ends the instances of a unit that began before a moment.
func (r *relays) cut(u *unit, since time.Duration) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.loops) == 0 {
		return
	}
	ids := make([][]uint64, len(r.loops))
	for id, in := range r.running {
		if in.unit == u && in.start < since {
			i := id % uint64(len(r.loops))
			ids[i] = append(ids[i], id)
		}
	}
	for i, l := range r.loops {
		l.Cut(ids[i]...)
	}
}

// last lets no instance begin from here on.
func (r *relays) last() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.over = true
}

func (r *relays) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.running)
}

// empty returns a channel that is closed as soon as no instance runs.
func (r *relays) empty() <-chan struct{} {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.idle = make(chan struct{})
	r.checkIdleLocked()
	return r.idle
}

func (r *relays) checkIdleLocked() {
	if r.idle != nil && len(r.running) == 0 {
		close(r.idle)
		r.idle = nil
	}
}

// close cuts what still runs, and waits until that is logged.
func (r *relays) close() {
	r.mu.Lock()
	r.over = true
	loops, names := r.loops, r.names
	r.loops = nil
	r.mu.Unlock()
	for _, l := range loops {
		l.Close()
	}
	r.tasks.Wait()
	if names != nil {
		names.Close()
	}
}

// begun: an instance without a child has begun.
func (e *events) begun(in *instance) {
	var room [attrsMost]slog.Attr
	e.info("start", in.attrs(room[:0])...)
}

// answered: a short answer was given, which is an instance's beginning and end.
func (e *events) answered(in *instance, now time.Duration) {
	var room [attrsMost]slog.Attr
	e.info("end", append(in.attrs(room[:0]), slog.String("reason", string(relay.Closed)),
		slog.Duration("duration", (now-in.start).Round(time.Microsecond)))...)
}

// relayed: an instance without a child has ended.
func (e *events) relayed(in *instance, x *relay.End, now time.Duration) {
	var room [attrsMost]slog.Attr
	attrs := append(in.attrs(room[:0]), slog.String("reason", string(x.Reason)),
		slog.Duration("duration", (now-in.start).Round(time.Microsecond)),
		slog.Uint64("in", x.In), slog.Uint64("out", x.Out))
	if x.Target != "" {
		attrs = append(attrs, slog.String("target", x.Target))
	}
	if x.Err != nil {
		attrs = append(attrs, slog.String("error", x.Err.Error()))
		e.warn("end", attrs...)
		return
	}
	e.info("end", attrs...)
}
