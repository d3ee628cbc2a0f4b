package supervisor

// Peers of the multiplexer that wait for an instance of their service to end. They
// stay in the pending table, as a descriptor and a record each, in one of the
// places that the multiplexer has for negotiations; the line of the service says
// whose turn it is.
//
// Whoever gives a place back rings, and the next worker that comes by serves the
// lines. Nobody overtakes: as long as somebody waits, a newcomer joins the line.

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// A line is who waits for one service. Its parts but length are under
// pendingTable.mu.
type line struct {
	turns  limit.Line
	age    queue        // the same, oldest first
	length atomic.Int32 // of turns
	rated  bool         // somebody waits for a rate, or was not looked at
}

type lines struct {
	units []*unit     // that have a line; under pendingTable.mu
	first int         // of units, in the next round; likewise
	free  atomic.Bool // a place may be free: whoever sees it serves them
	rung  atomic.Uint32

	lookAt time.Duration // when those that wait for a rate are looked at next; under pendingTable.mu
	due    atomic.Bool   // it is time for that
}

const (
	// passedOver is how many sources that are over a limit of their own are passed
	// over in one look at a line. If there are more of them they go to its end, so
	// that nobody stands behind them for ever.
	passedOver = 256
	// rateLook is how often a line is looked at that waits for a rate, or that was
	// not looked at as a whole.
	rateLook = 50 * time.Millisecond
)

// placeFree has a worker look at the lines, if there are any.
func (s *Supervisor) placeFree() {
	if s.queued.Load() == 0 || s.lines.free.Swap(true) {
		return
	}
	s.loops[int(s.lines.rung.Add(1))%len(s.loops)].pulse.ring()
}

// wait has a peer wait for a place of u.
func (w *worker) wait(u *unit, c connection) {
	c.waits = u
	w.s.put(w.loop, c, pendingWait, nil)
	// A place may have become free before anybody was seen to wait.
	for w.serveLine(u) {
	}
}

// serveLines starts services for those who wait, as long as there are places. The
// rows take turns.
func (w *worker) serveLines() {
	s := w.s
	if !s.lines.free.Load() {
		return
	}
	for s.lines.free.Swap(false) {
		for again := true; again; {
			again = false
			for _, u := range s.linesNow() {
				if w.serveLine(u) {
					again = true
					w.land()
				}
			}
		}
	}
}

// linesNow are the units with a line, beginning with another one each time.
func (s *Supervisor) linesNow() []*unit {
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	l := &s.lines
	if len(l.units) == 0 {
		return nil
	}
	l.first = (l.first + 1) % len(l.units)
	return append(slices.Clone(l.units[l.first:]), l.units[:l.first]...)
}

// serveLine lets in the one whose turn it is, and reports false if nobody can be.
func (w *worker) serveLine(u *unit) bool {
	if u.line.length.Load() == 0 {
		return false
	}
	r, c, lease, why, ok := w.s.nextInLine(u)
	switch {
	case !ok:
		return false
	case why != "":
		w.notAdmitted(c, u, r, why, nil)
	default:
		w.begin(u, r, c, lease)
	}
	return true
}

// nextInLine is one transaction: a place is found for somebody, and he is taken
// out of the line. Or he is not to be served any more, for what why says.
func (s *Supervisor) nextInLine(u *unit) (r *row, c connection, lease limit.Leases, why refusal, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	t := &s.pending
	t.mu.Lock()
	defer t.mu.Unlock()
	r = u.row.Load()
	l := &u.line
	l.rated = false
	i, ok := l.turns.First()
	for n := 0; ok; n++ {
		if n == passedOver {
			for range n {
				first, _ := l.turns.First()
				l.turns.Pass(first)
			}
			l.rated = true
			break
		}
		p := &t.slots[i]
		peer := connection{peer: p.peer}
		if s.bannedUntil(&p.peer) != 0 {
			return r, t.takeOut(i), lease, refusedBanned, true
		}
		if why, _ = s.mayEnter(u, r, p.peer, way{listener: p.listener, fd: int(p.fd)}); why != "" {
			return r, t.takeOut(i), lease, why, true
		}
		var over limit.Reason
		if lease, over = s.admitLocked(u, r, &peer); over == limit.OK {
			l.turns.Serve(i)
			return r, t.takeOut(i), lease, "", true
		}
		l.rated = l.rated || !over.Passes()
		if !over.OfSource() {
			break
		}
		i, ok = l.turns.Next(i)
	}
	return r, c, lease, "", false
}

// joinLocked and partLocked enter a record into the line it waits in, and strike
// it out.
func (s *Supervisor) joinLocked(i int32, u *unit, p service.Peer) {
	l := &u.line
	if l.turns.Len() == 0 {
		s.lines.units = append(s.lines.units, u)
		s.queued.Add(1)
	}
	l.turns.Add(i, service.SourceOf(&u.row.Load().Limits, p))
	l.length.Store(int32(l.turns.Len()))
}

func (s *Supervisor) partLocked(i int32, u *unit) {
	l := &u.line
	l.turns.Remove(i)
	l.length.Store(int32(l.turns.Len()))
	if l.turns.Len() == 0 {
		s.lines.units = slices.DeleteFunc(s.lines.units, func(x *unit) bool { return x == u })
		s.queued.Add(-1)
	}
}

// lateInLine takes those out who have waited for too long, and says when to look
// again; see overdue. The caller holds pending.mu.
func (s *Supervisor) lateInLine(late []connection, now, wait time.Duration) (n int, soon time.Duration) {
	for _, u := range slices.Clone(s.lines.units) {
		most := u.row.Load().OverflowWait
		if u.line.rated {
			if s.lines.lookAt <= now {
				s.lines.lookAt = now + rateLook
				s.lines.due.Store(true)
			}
			wait = sooner(wait, s.lines.lookAt-now)
		}
		for u.line.age.head != 0 && n < len(late) {
			left := s.pending.slots[u.line.age.head].since + most - now
			if left > 0 {
				wait = sooner(wait, left)
				break
			}
			late[n] = s.pending.takeOut(u.line.age.head)
			n++
		}
	}
	return n, wait
}

// waitedInVain ends a connection that had no turn in time, or whose row has nobody
// wait any more.
func (s *Supervisor) waitedInVain(c connection) {
	s.log.refused(c.waits, c.peer, refusedWaited, c.local())
	s.turnAway(s.loops[0], c, c.waits.row.Load(), tcpmux.Busy)
}
