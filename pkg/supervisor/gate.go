package supervisor

// The gate: what is asked of a peer before a byte of it is read.

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
	reserved bool  // a place for an instance was taken before the accept
	answered bool  // the reply is sent or being sent
	cut      bool  // and not all of it is sent
}

// queues reports whether the row leaves an excess in the kernel's queue.
func (r *row) queues() bool {
	return r.Overflow == service.OverflowQueue && r.Limits.Instances > 0
}

// connection takes an accepted connection as far as it goes without waiting.
func (w *worker) connection(l *socket, fd int, peer service.Peer, reserved bool) {
	u := l.unit
	r := u.row.Load()
	c := connection{fd: fd, peer: peer, listener: l, reserved: reserved}
	if r.Builtin != service.BuiltinTCPMUX {
		w.enter(u, r, c)
		return
	}
	c.mux = u
	if why, more := w.gate(u, r, peer); why != "" {
		w.refuse(c, u, why, tcpmux.NotAvailable, more...)
		return
	}
	w.negotiate(c)
}

// gate asks the multiplexer's own row. Its limits on instances are those of
// pending negotiations and are kept by the pending table.
func (w *worker) gate(u *unit, r *row, peer service.Peer) (refusal, []slog.Attr) {
	if r.Refuse != "" {
		return refusedRow, nil
	}
	if ok, rule := r.Check(peer); !ok {
		return refusedAccess, []slog.Attr{slog.String("rule", rule)}
	}
	if r.Limits.Rate.N == 0 && r.Limits.RatePerSource.N == 0 {
		return "", nil
	}
	u.mu.Lock()
	defer u.mu.Unlock()
	lease, why := u.book.Admit(w.s.now(), service.SourceOf(&r.Limits, peer))
	if why != limit.OK {
		return refusal(why.String()), nil
	}
	u.book.Release(&lease)
	return "", nil
}

// local is the address the peer has connected to, for the log.
func (c connection) local() slog.Attr { return slog.Any("local", localOf{c}) }
