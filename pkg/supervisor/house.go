package supervisor

// The limits of all rows together: one more book, besides those of the rows. Who
// is admitted has a place in both; nobody else takes anything of either.
//
// Its lock is the innermost of all. Without [server.limits] nobody takes it.

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

type house struct {
	on atomic.Bool // there are such limits

	mu     sync.Mutex
	limits limit.Limits
	book   *limit.Book        // nil until they were there for the first time
	paused map[*unit]struct{} // rows that do not accept because all instances are taken
}

// A reservation is a place that was taken before an accept, in the book of the
// row and in that of the house.
type reservation struct{ row, house bool }

// set puts the limits of a new table in place, and reports whether there were none
// before. The book is kept, also without limits: what it says of the last ones is
// worth something if they come back.
func (h *house) set(l limit.Limits) (fresh bool) {
	on := l != limit.Limits{}
	h.mu.Lock()
	defer h.mu.Unlock()
	if on && h.limits != l {
		h.limits = l
		if h.book == nil {
			h.book = limit.NewBook(l, limit.DefaultMaxSources)
		} else {
			h.book.SetLimits(l)
		}
	}
	return !h.on.Swap(on) && on
}

// admit is the one transaction on the books of a row and of the house. If c has
// places that are reserved, they are the leases' now. The caller holds the unit's
// mu.
func (s *Supervisor) admitLocked(u *unit, r *row, c *connection) (limit.Leases, limit.Reason) {
	if u.dead {
		return limit.Leases{}, limit.OverInstances
	}
	now := s.now()
	row := limit.Ask{Book: u.book, Source: service.SourceOf(&r.Limits, c.peer), Reserved: c.reserved.row}
	var l limit.Leases
	var why limit.Reason
	switch h := &s.house; {
	case h.on.Load():
		h.mu.Lock()
		l, why = limit.AdmitBoth(now, row, limit.Ask{Book: h.book, Source: service.SourceOf(&h.limits, c.peer), Reserved: c.reserved.house})
		h.mu.Unlock()
	case row.Reserved:
		l.Row, why = u.book.AdmitReserved(now, row.Source)
		if why == limit.OK && c.reserved.house { // a reload has ended its limits since
			h.unreserve()
		}
	default:
		l.Row, why = u.book.Admit(now, row.Source)
	}
	if why == limit.OK {
		c.reserved = reservation{}
	}
	return l, why
}

func (s *Supervisor) admit(u *unit, r *row, c *connection) (limit.Leases, limit.Reason) {
	u.mu.Lock()
	defer u.mu.Unlock()
	return s.admitLocked(u, r, c)
}

// admitServer admits a server of a wait row, which has no peer.
func (s *Supervisor) admitServer(u *unit, now time.Duration) (l limit.Leases, why limit.Reason) {
	u.mu.Lock()
	defer u.mu.Unlock()
	h := &s.house
	if u.dead {
		return l, limit.OverInstances
	}
	if !h.on.Load() {
		l.Row, why = u.book.Admit(now, limit.Source{})
		return l, why
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	return limit.AdmitBoth(now, limit.Ask{Book: u.book}, limit.Ask{Book: h.book, Source: limit.Nobody})
}

// passLocked admits what is over at once, an answer to a datagram: it costs tokens
// and holds no place. A peer without an address is nobody's in particular in either
// book. The caller holds the mu of both.
func (h *house) passLocked(now time.Duration, u *unit, a *asked) limit.Reason {
	all := limit.Source{}
	if a.source != all {
		all = h.limits.Source(a.message.Peer.Addr())
	}
	l, why := limit.AdmitBoth(now, limit.Ask{Book: u.book, Source: a.source}, limit.Ask{Book: h.book, Source: all})
	u.book.Release(&l.Row)
	h.book.Release(&l.Server)
	return why
}

// passHelp admits an answer to HELP, which has no row but the multiplexer's: that
// has asked at the gate.
func (s *Supervisor) passHelp(peer *service.Peer) limit.Reason {
	h := &s.house
	if !h.on.Load() {
		return limit.OK
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	l, why := h.book.Admit(s.now(), service.SourceOf(&h.limits, *peer))
	h.book.Release(&l)
	return why.OfServer()
}

// reserve takes a place for a row that is about to accept. Without one the row is
// noted, and resumed when an instance of any row has ended. The caller holds the
// unit's mu and pauses it before he gives that up.
func (h *house) reserve(u *unit) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.book.Reserve() {
		return true
	}
	if h.paused == nil {
		h.paused = map[*unit]struct{}{}
	}
	h.paused[u] = struct{}{}
	return false
}

func (h *house) unreserve() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.book.Unreserve()
}

// leave gives a lease of the house back, or with nil a reservation, and lets in
// whoever waits for that. No unit's mu is held.
func (s *Supervisor) leave(l *limit.Lease) {
	h := &s.house
	h.mu.Lock()
	if l != nil {
		h.book.Release(l)
	} else {
		h.book.Unreserve()
	}
	paused := h.paused
	h.paused = nil
	h.mu.Unlock()
	for u := range paused {
		s.resumeUnit(u, pauseInstances)
	}
	s.placeFree()
}

// enterRunning counts the instances that run already when the house gets limits.
// One that is just being made may be missed; it is not counted then.
func (s *Supervisor) enterRunning() {
	s.reaper.all(s.enterHouse)
	s.relays.mu.Lock()
	defer s.relays.mu.Unlock()
	for _, in := range s.relays.running {
		s.enterHouse(in)
	}
}

func (s *Supervisor) enterHouse(in *instance) {
	u, h := in.unit, &s.house
	u.mu.Lock()
	defer u.mu.Unlock()
	if in.lease.Row == (limit.Lease{}) || in.lease.Server != (limit.Lease{}) {
		return // it has just ended, or it is in
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	src := limit.Nobody
	if in.turn == nil {
		src = service.SourceOf(&h.limits, in.peer)
	}
	in.lease.Server = h.book.Enter(s.now(), src)
}
