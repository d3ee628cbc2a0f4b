package supervisor

// The gate: what is asked of a peer before a byte of it is read. A PROXY header is
// none of its bytes: see header.go. Whoever is held off comes no further, whatever
// the row.

import (
	"log/slog"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// A connection is one peer on its way through a worker. Whoever has the value
// owns the descriptor.
type connection struct {
	fd       int
	peer     service.Peer
	listener *socket
	mux      *unit // the multiplexer that negotiates for it; nil on a direct port
	waits    *unit // the service of which it waits for a place
	reserved reservation
	headless bool // its PROXY header has not come
	answered bool // the reply is sent or being sent
	cut      bool // and not all of it is sent
}

func (c *connection) way() way { return way{listener: c.listener, fd: c.fd} }

// queues reports whether a row leaves an excess in the kernel's queue.
func (s *Supervisor) queues(r *row) bool {
	return r.Overflow == service.OverflowQueue && (r.Limits.Instances > 0 || s.house.on.Load())
}

// connection takes an accepted connection as far as it goes without waiting.
func (w *worker) connection(l *socket, fd int, peer service.Peer, reserved reservation) {
	u := l.unit
	r := u.row.Load()
	c := connection{fd: fd, peer: peer, listener: l, reserved: reserved}
	if r.ProxyFrom != nil && proxied(r, &peer) {
		w.awaitHeader(r, c)
		return
	}
	w.proceed(u, r, c)
}

// proceed goes on with a connection whose peer is known.
func (w *worker) proceed(u *unit, r *row, c connection) {
	if until := w.s.bannedUntil(&c.peer); until != 0 {
		w.holdOff(c, u, until)
		return
	}
	if r.Builtin != service.BuiltinTCPMUX {
		c.mux = nil
		w.enter(u, r, c)
		return
	}
	c.mux = u
	w.s.returnPlace(u, c.reserved) // the row was none when the header was awaited
	c.reserved = reservation{}
	if why, more := w.gate(u, r, c); why != "" {
		if why == refusedAccess || why == refusedRow {
			w.refuse(c, u, why, tcpmux.NotAvailable, more...)
		} else {
			w.excess(c, u, r, why, tcpmux.NotAvailable)
		}
		return
	}
	w.negotiate(c)
}

// gate asks the multiplexer's own row. Its limits on instances are those of
// pending negotiations and are kept by the pending table.
func (w *worker) gate(u *unit, r *row, c connection) (refusal, []slog.Attr) {
	if r.Refuse != "" {
		return refusedRow, nil
	}
	if ok, rule := r.may(c.peer, c.way()); !ok {
		return refusedAccess, []slog.Attr{slog.String("rule", rule)}
	}
	if w.s.suspendedFor(u) > 0 {
		return refusedSuspended, nil
	}
	if u.sheds.Load() {
		return refusedShed, nil
	}
	if r.Limits.Rate.N == 0 && r.Limits.RatePerSource.N == 0 {
		return "", nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	lease, why := u.book.Admit(w.s.now(), service.SourceOf(&r.Limits, c.peer))
	if why != limit.OK {
		w.s.exceededLocked(u, why)
		return refusal(why.String()), nil
	}
	u.book.Release(&lease)
	return "", nil
}

// local is the address the peer has connected to, for the log.
func (c connection) local() slog.Attr { return slog.Any("local", localOf{c.listener, c.fd}) }
