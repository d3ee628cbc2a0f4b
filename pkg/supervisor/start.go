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
	if why, more := w.s.mayEnter(u, r, c.peer, c.way()); why != "" {
		w.notAdmitted(c, u, r, why, more)
		return
	}
	if r.Builtin == service.BuiltinSensor {
		w.sensed(c, u)
		return
	}
	if u.line.length.Load() > 0 && r.OverflowWait > 0 {
		w.wait(u, c) // others were there before
		return
	}
	lease, why := w.s.admit(u, r, &c)
	if why.Passes() {
		// A client that has seen the end of one instance may ask for the next
		// before that end was met here, or just when it is.
		w.s.reap()
		lease, why = w.s.admit(u, r, &c)
	}
	switch {
	case why == limit.OK:
		w.begin(u, r, c, lease)
	case why.Passes() && r.OverflowWait > 0:
		w.wait(u, c)
	default:
		w.s.exceeded(u, why)
		w.excess(c, u, r, refusal(why.String()), tcpmux.Busy)
	}
}

// mayEnter is what is asked of a peer before the books are. A denied peer uses up
// nobody's rate.
func (s *Supervisor) mayEnter(u *unit, r *row, peer service.Peer, how way) (refusal, []slog.Attr) {
	switch ok, rule := r.may(peer, how); {
	case r.Refuse != "":
		return refusedRow, nil
	case !ok:
		return refusedAccess, []slog.Attr{slog.String("rule", rule)}
	case r.Exec != nil && s.backsOff(u, s.now()):
		return refusedBackoff, nil
	case s.suspendedFor(u) > 0:
		return refusedSuspended, nil
	case u.sheds.Load():
		return refusedShed, nil
	}
	return "", nil
}

// notAdmitted refuses a peer for what mayEnter has said. A name that he may not
// have is refused as one that there is not.
func (w *worker) notAdmitted(c connection, u *unit, r *row, why refusal, more []slog.Attr) {
	switch {
	case why == refusedShed || why == refusedSuspended:
		w.excess(c, u, r, why, tcpmux.Busy)
	case c.mux != nil && (why == refusedRow || why == refusedAccess):
		w.hide(c, u, why, []byte(r.Name), more...)
	default:
		w.refuse(c, u, why, tcpmux.NotAvailable, more...)
	}
}

// begin starts a service for a peer that is admitted.
func (w *worker) begin(u *unit, r *row, c connection, lease limit.Leases) {
	now := w.s.now()
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
	w.start(start{in: in, row: r, conn: c, fd: c.fd}, w.environ(r, in, c))
}

// startFailed ends a connection whose child did not come to its program.
func (w *worker) startFailed(st *start, err error) {
	u, c := st.in.unit, st.conn
	var e *spawn.Error
	if !errors.As(err, &e) {
		e = &spawn.Error{Step: "start"}
	}
	// No processes, or no memory: nobody gets a child for a while.
	if d := w.cannotFork(err); d > 0 && c.mux == nil {
		w.s.pauseFor(u, pauseBackoff, d)
	}
	local := slog.String("local", st.in.local.String())
	if e.Step == "reply" && e.Errno != 0 {
		w.s.log.refused(u, c.peer, refusedGone, local)
		st.closeConn()
		return
	}
	w.s.log.startFailed(u, &c.peer, err, local, slog.String("program", st.row.Exec.Path))
	switch {
	case c.fd < 0 || st.pid != 0 && e.Errno != 0:
		// A child that has failed has told the peer itself.
		st.closeConn()
	case e.Replied:
		// The peer has read "+Go", or may have: only a reset tells it that
		// this was not the service.
		abortFd(c.fd)
	default:
		w.dismiss(c, tcpmux.NotAvailable)
	}
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
		local := in.local.Addr
		if p.Proxy != nil {
			local = p.Proxy.Local
		}
		b = appendAddr(b, names.localIP, local.Addr())
		b = appendPort(b, names.localPort, local.Port())
		if in.turn == nil {
			b = appendAddr(b, names.remoteIP, p.Addr.Addr())
			b = appendPort(b, names.remotePort, p.Addr.Port())
			b = appendAddr(b, "REMOTE_ADDR=", p.Addr.Addr())
			b = appendPort(b, "REMOTE_PORT=", p.Addr.Port())
			b = appendAddr(b, "REMOTE_HOST=", p.Addr.Addr())
		}
		if p.Proxy != nil {
			b = appendAddr(b, "PROXY_ADDR=", p.Proxy.Addr.Addr())
			b = appendPort(b, "PROXY_PORT=", p.Proxy.Addr.Port())
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
