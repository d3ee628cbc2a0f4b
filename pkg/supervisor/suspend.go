package supervisor

// Rows that serve nobody for a while once their rate is exceeded, as the inetds
// do with a service that is "looping": limits.exceeded = "suspend". Nothing is
// closed, and what comes is refused at once, so that no queue of dead peers
// exceeds the rate again as soon as the time is over.

import (
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// A suspension is that of one row. On the path of a connection it is one load.
type suspension struct {
	until atomic.Int64 // on the supervisor's clock, set under unit.mu; 0: there is none
	timer *time.Timer  // under unit.mu: ends it
}

// exceeded is told why the books have refused somebody. The first excess of the
// row's own rate suspends it, where it says so.
func (s *Supervisor) exceeded(u *unit, why limit.Reason) {
	if why == limit.OverRate && u.row.Load().Suspend > 0 {
		u.mu.Lock()
		defer u.mu.Unlock()
		s.exceededLocked(u, why)
	}
}

// exceededLocked is exceeded for who holds the unit's mu.
func (s *Supervisor) exceededLocked(u *unit, why limit.Reason) {
	r := u.row.Load()
	if why != limit.OverRate || r.Suspend == 0 || u.suspended.until.Load() != 0 {
		return
	}
	until := int64(s.now() + r.Suspend)
	u.suspended.until.Store(until)
	s.log.suspended(u, r)
	u.suspended.timer = time.AfterFunc(r.Suspend, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.suspended.until.Load() == until {
			s.unsuspendLocked(u)
		}
	})
}

// unsuspend is unsuspendLocked for who does not hold the unit's mu.
func (s *Supervisor) unsuspend(u *unit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.unsuspendLocked(u)
}

// unsuspendLocked ends a suspension, if there is one.
func (s *Supervisor) unsuspendLocked(u *unit) {
	if u.suspended.until.Load() == 0 {
		return
	}
	u.suspended.timer.Stop()
	u.suspended.until.Store(0)
	s.log.unsuspended(u)
}

// suspendedFor is how long a row serves nobody from now on, 0 if it does serve.
func (s *Supervisor) suspendedFor(u *unit) time.Duration {
	until := time.Duration(u.suspended.until.Load())
	if until == 0 {
		return 0
	}
	return max(until-s.now(), time.Millisecond) // over is what the timer ends
}

// suspended: a row serves nobody for a while.
func (e *events) suspended(u *unit, r *row) {
	e.warn("row is suspended", slog.String("service", u.id), slog.String("rate", r.Limits.Rate.String()),
		slog.Duration("for", r.Suspend), untilAttr(r.Suspend))
}

// unsuspended: it does again.
func (e *events) unsuspended(u *unit) {
	e.info("row is suspended no more", slog.String("service", u.id))
}
