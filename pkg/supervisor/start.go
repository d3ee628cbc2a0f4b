package supervisor

// Admission and the hand-over to a child: access first, then limits in one
// transaction, then the spawn, whose last act before the program is "+Go".

import (
	"errors"
	"log/slog"
	"net/netip"
	"strconv"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// enter decides whether a peer may have a service and starts it. It ends the
// connection in every case. u is the row that was asked for, on a direct port
// the listener's own.
func (w *worker) enter(u *unit, r *row, c connection) {
	now := w.s.now()
	switch ok, rule := r.Check(c.peer); {
	case r.Refuse != "":
		w.refuse(c, u, refusedRow, tcpmux.NotAvailable)
		return
	case !ok:
		// A denied peer uses up nobody's rate.
		w.refuse(c, u, refusedAccess, tcpmux.NotAvailable, slog.String("rule", rule))
		return
	case r.Exec != nil && (u.held.Load() >= heldPerRow || u.stuck.active(now) || w.s.forking.active(now)):
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
	if r.Exec == nil {
		w.inside(u, r, c, in)
		return
	}
	if !w.s.reaper.begin(in) { // the daemon stops
		w.s.giveBack(u, &lease)
		w.dismiss(c, tcpmux.NotAvailable)
		return
	}
	w.begun.Store(in.begun)
	pid, err := w.start(u, r, c.fd, w.environ(r, in, c))
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
	if u.dead {
		return limit.Lease{}, limit.OverInstances
	}
	source := service.SourceOf(&r.Limits, c.peer)
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
	// No processes, or no memory: nobody gets a child for a while.
	if d := w.cannotFork(err); d > 0 && c.mux == nil {
		w.s.pauseFor(u, pauseBackoff, d)
	}
	if e.Step == "reply" && e.Errno != 0 {
		w.s.log.refused(u, c.peer, refusedGone, c.local())
		closeFd(c.fd)
		return
	}
	w.s.log.startFailed(u, &c.peer, err, c.local(), slog.String("program", r.Exec.Path))
	if e.Replied {
		// The peer has read "+Go", or may have: only a reset tells it that
		// this was not the service.
		abortFd(c.fd)
		return
	}
	w.dismiss(c, tcpmux.NotAvailable)
}

// environ is what a child is told of its connection: the names of UCSPI, of
// systemd.exec(5) and of xinetd(8), on unix sockets those of s6-ipcserver. A
// server of a wait row is told of no peer.
func (w *worker) environ(r *row, in *instance, c connection) []byte {
	b := w.scratch.env[:0]
	network := in.local.Network
	switch p := &in.peer; {
	case network.IP():
		names := &tcpNames
		if network.UDP() {
			names = &udpNames
		}
		b = append(b, names.proto...)
		b = appendAddr(b, names.localIP, in.local.Addr.Addr())
		b = appendPort(b, names.localPort, in.local.Addr.Port())
		if in.turn == nil {
			b = appendAddr(b, names.remoteIP, p.Addr.Addr())
			b = appendPort(b, names.remotePort, p.Addr.Port())
			b = appendAddr(b, "REMOTE_ADDR=", p.Addr.Addr())
			b = appendPort(b, "REMOTE_PORT=", p.Addr.Port())
			b = appendAddr(b, "REMOTE_HOST=", p.Addr.Addr())
		}
	case network.Unix():
		b = append(b, "PROTO=IPC\x00"...)
		if in.turn == nil {
			b = appendNumber(b, "IPCREMOTEEUID=", uint64(p.UID))
			b = appendNumber(b, "IPCREMOTEEGID=", uint64(p.GID))
			b = appendNumber(b, "IPCREMOTEPID=", uint64(p.PID))
		}
		b = append(append(append(b, "IPCLOCALPATH="...), in.local.Path...), 0)
	case network.Vsock():
		b = append(b, "PROTO=VSOCK\x00"...)
		if in.turn == nil {
			b = append(append(append(b, "REMOTE_ADDR="...), p.String()...), 0)
		}
	}
	if c.mux != nil {
		b = append(b, "TCPMUX_SERVICE="...)
		b = append(b, r.Name...)
		b = append(b, 0)
	}
	w.scratch.env = b
	return b
}

// ucspi are the names that say the protocol.
type ucspi struct{ proto, remoteIP, remotePort, localIP, localPort string }

var (
	tcpNames = ucspi{"PROTO=TCP\x00", "TCPREMOTEIP=", "TCPREMOTEPORT=", "TCPLOCALIP=", "TCPLOCALPORT="}
	udpNames = ucspi{"PROTO=UDP\x00", "UDPREMOTEIP=", "UDPREMOTEPORT=", "UDPLOCALIP=", "UDPLOCALPORT="}
)

func appendAddr(b []byte, name string, a netip.Addr) []byte {
	return append(a.AppendTo(append(b, name...)), 0)
}

func appendPort(b []byte, name string, port uint16) []byte {
	return appendNumber(b, name, uint64(port))
}

func appendNumber(b []byte, name string, n uint64) []byte {
	return append(strconv.AppendUint(append(b, name...), n, 10), 0)
}
