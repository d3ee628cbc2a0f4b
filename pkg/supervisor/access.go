package supervisor

// Access: the one place that says whether a peer may have a row, of whatever kind
// both are, before anything is started for it. What a daemon never sees, the
// packets to a wait row, the kernel judges by the same; it is told here when hours
// begin and end and interfaces come and go.

import (
	"errors"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A way is how a peer has come to the daemon: by a connection, fd, or by a
// datagram, of which the rest is known.
type way struct {
	listener *socket
	fd       int        // -1: a datagram
	local    netip.Addr // that the datagram was sent to
	by       uint32     // the interface it came by
}

// may says whether a row's access lets a peer in that has come so; if not, rule
// says in the words of the log why. The system is asked only where the row asks.
func (r *row) may(peer service.Peer, how way) (ok bool, rule string) {
	if ok, rule = r.Check(peer); !ok || r.Hours == nil && r.Interfaces == nil && r.Locals == nil && r.Hosts == nil {
		return ok, rule
	}
	switch {
	case !r.Hours.Open(time.Now()):
		return false, "not within access.hours"
	case r.Interfaces != nil && !slices.Contains(*r.indexes.Load(), how.cameBy()):
		return false, "none of access.interfaces"
	case r.Locals != nil && !how.cameTo(r):
		return false, "none of access.local"
	case r.Hosts == nil:
		return true, ""
	}
	var local netip.Addr
	if r.Hosts.NeedsLocal() {
		local = how.to()
	}
	return r.Hosts.Check(peer.Addr.Addr(), local)
}

// cameBy is the index of an interface, 0 where nobody can tell.
func (how way) cameBy() uint32 {
	switch {
	case how.fd < 0:
		return how.by
	case !how.listener.Endpoint.Network.TCP():
		return 0
	}
	index, err := how.listener.CameBy(how.fd)
	if err != nil {
		return 0 // it has been reset already
	}
	return index
}

func (how way) cameTo(r *row) bool { return r.Locals.Lets(how.to()) }

// to is the address that the peer has come to, not valid where there is none.
func (how way) to() netip.Addr {
	if how.fd >= 0 && how.listener.Endpoint.Network.IP() {
		return how.listener.Local(how.fd).Addr.Addr()
	}
	return how.local
}

// findInterfaces looks up what the names of access.interfaces stand for now.
func (r *row) findInterfaces() {
	if r.Interfaces != nil {
		list := listener.Interfaces(r.Interfaces)
		r.indexes.Store(&list)
	}
}

const (
	// hoursLook is how often the clock is looked at while there are hours,
	// because it may be set, or the machine may sleep.
	hoursLook = 30 * time.Second
	// judgeAgain is how soon it is tried again what the kernel has refused.
	judgeAgain = time.Second
)

// judge brings up to date what goes by the clock and by the interfaces there are,
// and comes again when the next hours begin or end. The caller holds applyMu.
func (s *Supervisor) judge() {
	now, wait := time.Now().Round(0), time.Duration(-1) // without the monotonic clock
	for _, u := range s.units {
		if u.removed {
			continue
		}
		r := u.row.Load()
		r.findInterfaces()
		if r.Wait && (r.Hours != nil || r.Interfaces != nil) && !s.judgeSockets(u, r) {
			wait = sooner(wait, judgeAgain)
		}
		next := r.Hours.Next(now)
		if open := r.Hours.Open(now); open == u.closed {
			u.closed = !open
			s.log.hours(u, open, next)
		}
		if !next.IsZero() {
			wait = sooner(wait, min(max(next.Sub(now), time.Millisecond), hoursLook))
		}
	}
	if s.judging != nil {
		s.judging.Stop()
	}
	if wait >= 0 {
		s.judging = time.AfterFunc(wait, func() {
			s.applyMu.Lock()
			defer s.applyMu.Unlock()
			if !s.stopping.Load() {
				s.judge()
			}
		})
	}
}

// judgeSockets has the kernel judge all sockets of a wait row anew, and reports
// whether it does.
func (s *Supervisor) judgeSockets(u *unit, r *row) bool {
	u.mu.Lock()
	list := slices.Clone(u.listeners)
	u.mu.Unlock()
	ok := true
	for _, l := range list {
		if err := l.Judge(r.Service); err != nil && !errors.Is(err, listener.ErrClosed) {
			s.log.problem("cannot change an access filter", err)
			ok = false
		}
	}
	return ok
}
