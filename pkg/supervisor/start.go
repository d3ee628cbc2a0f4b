package supervisor

// Admission and the hand-over to a child: access first, then limits in one
// transaction, then the spawn, whose last act before the program is "+Go".

import (
	"errors"
	"log/slog"
	"net/netip"
	"strconv"
	"syscall"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// enter decides whether a peer may have a service and starts it. It ends the
// connection in every case. u is the row that was asked for, on a direct port
// the listener's own.
func (w *worker) enter(u *unit, r *row, c connection) {
	now := w.s.now()
	switch v, rule := r.Access.Check(c.peer.Addr()); {
	case r.Refuse != "":
		w.refuse(c, u, refusedRow, tcpmux.NotAvailable)
		return
	case v != access.Allow:
		// A denied peer uses up nobody's rate.
		w.refuse(c, u, refusedAccess, tcpmux.NotAvailable, ruleAttr(v, rule))
		return
	case u.held.Load() >= heldPerRow || u.stuck.active(now) || w.s.forking.active(now):
		w.refuse(c, u, refusedBackoff, tcpmux.NotAvailable)
		return
	}
	lease, why := u.admit(w, r, c)
	if (why == limit.OverInstances || why == limit.OverInstancesPerSource) && w.s.reap() {
		// A client that has seen the end of one instance may ask for the next
		// before that end was met here.
		lease, why = u.admit(w, r, c)
	}
	if why != limit.OK {
		w.refuse(c, u, refusal(why.String()), tcpmux.Busy)
		return
	}
	c.reserved = false // the place is the lease's now
	in := &instance{unit: u, lease: lease, peer: c.peer, local: c.listener.Local(c.fd), start: now}
	if !w.s.reaper.begin(in) { // the daemon stops
		w.s.giveBack(u, &lease)
		w.dismiss(c, tcpmux.NotAvailable)
		return
	}
	w.begun.Store(in.begun)
	pid, err := w.start(u, r.program, c.fd, w.environ(r, in, c))
	if err != nil {
		w.s.reaper.abort()
		w.s.reaper.ring()
		w.s.giveBack(u, &lease)
		w.startFailed(u, r, c, err)
		return
	}
	closeFd(c.fd)
	w.started(u, pid, in)
}

// admit is the one transaction on the row's books.
func (u *unit) admit(w *worker, r *row, c connection) (limit.Lease, limit.Reason) {
	u.mu.Lock()
	defer u.mu.Unlock()
	source := r.Limits.Source(c.peer.Addr())
	if c.reserved {
		return u.book.AdmitReserved(w.s.now(), source)
	}
	return u.book.Admit(w.s.now(), source)
}

// started records an instance; its child may have ended already.
func (w *worker) started(u *unit, pid int, in *instance) {
	u.stuck.worked()
	w.s.forking.worked()
	// Logged before the record stands, so that no end comes before its start.
	w.s.log.started(pid, in)
	if e, gone := w.s.reaper.store(pid, in); gone {
		w.s.end(pid, in, e)
	}
	w.s.reaper.ring()
}

// startFailed ends a connection whose child did not come to its program.
func (w *worker) startFailed(u *unit, r *row, c connection, err error) {
	var e *spawn.Error
	if !errors.As(err, &e) {
		e = &spawn.Error{Step: "start"}
	}
	if (e.Step == "clone" || e.Step == "start") && (e.Errno == syscall.EAGAIN || e.Errno == syscall.ENOMEM) {
		// No processes, or no memory: nobody gets a child for a while.
		d := w.s.forking.failed(w.s.now(), backoffMin, backoffMax)
		if c.mux == nil {
			w.s.pauseFor(u, pauseBackoff, d)
		}
	}
	if e.Step == "reply" && e.Errno != 0 {
		w.s.log.refused(u, c.peer, refusedGone, c.local())
		closeFd(c.fd)
		return
	}
	w.s.log.startFailed(u, c.peer, err, c.local(), slog.String("program", r.Exec.Path))
	if e.Replied {
		// The peer has read "+Go", or may have: only a reset tells it that
		// this was not the service.
		abortFd(c.fd)
		return
	}
	w.dismiss(c, tcpmux.NotAvailable)
}

// environ is what a child is told of its connection: the names of UCSPI, of
// systemd.exec(5) and of xinetd(8).
func (w *worker) environ(r *row, in *instance, c connection) []byte {
	b := append(w.scratch.env[:0], "PROTO=TCP\x00"...)
	b = appendAddr(b, "TCPREMOTEIP=", in.peer.Addr())
	b = appendPort(b, "TCPREMOTEPORT=", in.peer.Port())
	b = appendAddr(b, "TCPLOCALIP=", in.local.Addr())
	b = appendPort(b, "TCPLOCALPORT=", in.local.Port())
	b = appendAddr(b, "REMOTE_ADDR=", in.peer.Addr())
	b = appendPort(b, "REMOTE_PORT=", in.peer.Port())
	b = appendAddr(b, "REMOTE_HOST=", in.peer.Addr())
	if c.mux != nil {
		b = append(b, "TCPMUX_SERVICE="...)
		b = append(b, r.Name...)
		b = append(b, 0)
	}
	w.scratch.env = b
	return b
}

func appendAddr(b []byte, name string, a netip.Addr) []byte {
	return append(a.AppendTo(append(b, name...)), 0)
}

func appendPort(b []byte, name string, port uint16) []byte {
	return append(strconv.AppendUint(append(b, name...), uint64(port), 10), 0)
}
