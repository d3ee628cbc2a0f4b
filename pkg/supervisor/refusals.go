package supervisor

// Why a peer got nothing, in all: each reason is one word, in the log, in the
// counters and in tcpmuxd(8).

import (
	"cmp"
	"log/slog"
	"slices"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// refusals are all reasons there are, sorted. Tests hold them against the sources
// and the manual.
var refusals = sorted(
	refusedAccess, refusedUnknown, refusedName, refusedTimeout, refusedGone, refusedCrowded,
	refusedRow, refusedBackoff, refusedBanned, refusedSensor, refusedUnread, refusedStray,
	refusedProxy, refusedShed, refusedWaited, refusedSuspended,
	refusal(builtin.RefusedLoop), refusal(builtin.RefusedSource), refusal(builtin.RefusedBroadcast),
	refusal(limit.OverInstances.String()), refusal(limit.OverInstancesPerSource.String()),
	refusal(limit.OverRate.String()), refusal(limit.OverRatePerSource.String()),
	refusal(limit.ServerInstances.String()), refusal(limit.ServerInstancesPerSource.String()),
	refusal(limit.ServerRate.String()), refusal(limit.ServerRatePerSource.String()),
)

func sorted(list ...refusal) []refusal {
	slices.Sort(list)
	return list
}

// Refusals calls f for every reason that there is for a refusal, sorted, with how
// often it was one since the daemon began.
func (s *Supervisor) Refusals(f func(why string, n uint64)) {
	for _, why := range refusals {
		f(string(why), s.log.counts[why].Load())
	}
}

// Dump says how things are: who is held off, how many refusals there were, and
// what runs of each row. It calls say for each, in this order.
func (s *Supervisor) Dump(say func(msg string, attrs ...slog.Attr)) {
	for _, b := range s.Bans() {
		say("banned", slog.String("source", b.Source), untilAttr(b.Left), slog.Duration("for", b.Left.Round(time.Second)),
			slog.Uint64("refused", b.Refused))
	}
	if watched, banned, missed, on := s.scanners.count(); on {
		say("scanners", slog.Int("watched", watched), slog.Int("banned", banned), slog.Uint64("missed", missed))
	}
	var attrs []slog.Attr
	s.Refusals(func(why string, n uint64) { attrs = append(attrs, slog.Uint64(why, n)) })
	say("refusals", attrs...)
	if sure, failed := s.rpc.sure.Load(), s.log.unregisterable.Load(); sure+int64(failed) > 0 {
		say("rpcbind", slog.Int64("registered", sure), slog.Uint64("failed", failed))
	}
	s.applyMu.Lock()
	units := make([]*unit, 0, len(s.units))
	for _, u := range s.units {
		units = append(units, u)
	}
	s.applyMu.Unlock()
	slices.SortFunc(units, func(a, b *unit) int { return cmp.Compare(a.id, b.id) })
	for _, u := range units {
		u.mu.Lock()
		n := u.book.Instances()
		u.mu.Unlock()
		attrs := []slog.Attr{slog.String("service", u.id), slog.Int("instances", n+s.pending.held(u))}
		if n := u.line.length.Load(); n > 0 {
			attrs = append(attrs, slog.Int("waiting", int(n)))
		}
		if left := s.suspendedFor(u); left > 0 {
			attrs = append(attrs, slog.Duration("suspended", left.Round(time.Second)))
		}
		say("instances", attrs...)
	}
}

// held is how many connections wait at a multiplexer.
func (t *pendingTable) held(u *unit) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	if u.crowd.crowd == nil {
		return 0
	}
	return u.crowd.crowd.Len()
}
