package supervisor

// Sources that try names. Package ban has the books; here is who asks it, what
// happens to a source that is held off, and what is said of it in the log. A
// refused name goes one way, whatever the reason, so that neither the answer nor
// its time says whether there is such a service.

import (
	"bytes"
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/ban"
	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// scanners is what the supervisor keeps of them. A connection costs it one atomic
// load as long as nobody is held off, and the same again where it is refused.
type scanners struct {
	on    atomic.Bool  // there is [server.scan]
	held  atomic.Int32 // how many sources are held off, or have been just now
	tarry atomic.Bool  // action = "tarpit"
	pit   tarpit

	mu     sync.Mutex
	book   *ban.Book // nil: there is no [server.scan]
	exempt *access.Rules
	// proxies are whoever may say for whom a connection is, see header.go; nil: nobody.
	proxies *access.Rules
	writer  banWriter

	// Under applyMu:
	kernel *filter.Bans // of sockets that the daemon does not read; nil: not made yet
	wanted bool         // such sockets go by it
}

// sourceLimits has the prefixes that make a source.
var sourceLimits limit.Limits

// sourceOf is whom a peer is held off as; false for those that nobody can be told
// from.
func sourceOf(p *service.Peer) (limit.Source, bool) {
	if p.Network == service.UnixDgram {
		return limit.Source{}, false
	}
	src := service.SourceOf(&sourceLimits, *p)
	return src, src != limit.Source{}
}

// configureScan puts the scan part of a table in place. The books are kept, unless
// there is no such part any more.
func (s *Supervisor) configureScan(t *service.Table) {
	x, c := &s.scanners, t.Server.Scan
	defer s.freePit()
	x.mu.Lock()
	defer x.mu.Unlock()
	x.writer.all = true
	x.writer.kernel = x.kernel
	if c == nil {
		x.on.Store(false)
		x.tarry.Store(false)
		x.book = nil
		x.writer.sets = [2]service.NftSet{}
		x.changedLocked()
		return
	}
	x.writer.sets = [2]service.NftSet{c.NftSet, c.NftSetV6}
	l := ban.Limits{Names: c.Names, Within: c.Within, Hold: c.Hold, Sources: c.Sources}
	if x.book == nil {
		x.book = ban.New(l)
	} else {
		x.book.SetLimits(l)
	}
	x.exempt, _ = access.New(c.Exempt, nil) // they have been checked
	x.proxies = proxiesOf(t)
	var freed []limit.Source
	x.book.Each(s.now(), func(b ban.Ban) {
		if x.exemptLocked(b.Source) {
			freed = append(freed, b.Source)
		}
	})
	for _, src := range freed {
		x.book.Lift(s.now(), src)
		x.noteLocked(src, 0)
		s.log.unban(src, "exempt")
	}
	x.pit.most.Store(int32(c.TarpitMost))
	x.tarry.Store(c.Action == service.ScanTarpit)
	x.on.Store(true)
	x.changedLocked()
}

// changedLocked is called when bans have come or gone.
func (x *scanners) changedLocked() {
	n := 0
	if x.book != nil {
		n = x.book.Held()
	}
	x.held.Store(int32(n))
	x.writer.ring()
}

func (x *scanners) exemptLocked(src limit.Source) bool {
	if x.exempt == nil {
		return false
	}
	p := src.Prefix()
	if !p.IsValid() {
		return false
	}
	v, _ := x.exempt.Check(p.Addr())
	return v == access.Allow
}

// proxiesOf are all load balancers of a table, each with all that is one source
// with it; nil: there are none.
func proxiesOf(t *service.Table) *access.Rules {
	all := map[netip.Prefix]bool{}
	var last *access.Rules
	for _, sv := range t.Services {
		if sv.ProxyFrom == last {
			continue // there are few lists, and many rows may have the same one
		}
		last = sv.ProxyFrom
		for p := range last.All() {
			if most := limit.DefaultPrefixV6; p.Addr().Is6() && p.Bits() > most {
				p = netip.PrefixFrom(p.Addr(), most).Masked()
			}
			all[p] = true
		}
	}
	if len(all) == 0 {
		return nil
	}
	rules, _ := access.New(slices.Collect(maps.Keys(all)), nil) // they have been checked
	return rules
}

// neverLocked reports whether a peer is never held off: he is exempt, or a load
// balancer that speaks for itself, or for a client whom it cannot name.
func (x *scanners) neverLocked(p *service.Peer, src limit.Source) bool {
	return x.exemptLocked(src) || p.Proxy == nil && x.proxies != nil && x.proxies.Lets(p.Addr.Addr())
}

// outsideLocked is the prefix of a source for what drops packets outside of the
// daemon, if it is one there: with its packets those of a load balancer must not
// be dropped.
func (x *scanners) outsideLocked(src limit.Source) (p netip.Prefix, ok bool) {
	p = src.Prefix()
	return p, p.IsValid() && (x.proxies == nil || !x.proxies.Lets(p.Addr()))
}

// bannedUntil says until when a peer is held off; 0: it is not.
func (s *Supervisor) bannedUntil(p *service.Peer) time.Duration {
	x := &s.scanners
	if x.held.Load() == 0 {
		return 0
	}
	src, ok := sourceOf(p)
	if !ok {
		return 0
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.book == nil {
		return 0
	}
	until, _ := x.book.Check(s.now(), src)
	return until
}

// holdOff ends a connection of a peer that is held off until a moment. Nothing is
// said to it.
func (w *worker) holdOff(c connection, u *unit, until time.Duration) {
	w.s.log.refused(u, c.peer, refusedBanned, c.local())
	w.s.returnPlace(c.listener.unit, c.reserved)
	if w.s.scanners.tarry.Load() && w.tarry(c, until) {
		return
	}
	w.s.closeApart(c)
}

// hide refuses a name to a peer that may not have it: because there is none, he is
// denied, or the row cannot run. The answer comes before the log, so that what it
// takes to say why cannot be seen in the time that it took.
func (w *worker) hide(c connection, u *unit, why refusal, name []byte, more ...slog.Attr) {
	until, tell := w.s.asked(c.mux, &c.peer, name)
	if until != 0 {
		w.holdOff(c, u, until)
		return
	}
	rest, done := finish(c.fd, []byte(tcpmux.NotAvailable), nil)
	tell()
	w.s.log.refused(u, c.peer, why, append(more, c.local())...)
	if done {
		closeFd(c.fd)
		return
	}
	w.s.put(w.loop, c, pendingLinger, rest)
}

// asked notes that a peer has asked for a name that it may not have, or for HELP. If
// others of its source have asked too much since it was looked at, it says until
// when the source is held off; else 0. Once the peer has its answer tell is called:
// a firewall that hears of a ban before that would drop it.
func (s *Supervisor) asked(u *unit, p *service.Peer, name []byte) (until time.Duration, tell func()) {
	x := &s.scanners
	if !x.on.Load() {
		return 0, nothing
	}
	src, ok := sourceOf(p)
	if !ok {
		return 0, nothing
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.book == nil || x.neverLocked(p, src) {
		return 0, nothing
	}
	now := s.now()
	if until, held := x.book.Check(now, src); held {
		return until, nothing
	}
	if b, names, banned := x.book.Ask(now, src, name); banned {
		x.held.Store(int32(x.book.Held()))
		s.log.ban(u, *p, b, b.Until-now, "names", names)
		return 0, func() {
			x.mu.Lock()
			defer x.mu.Unlock()
			if x.book != nil && x.book.Banned(s.now(), src) { // nobody has ended it meanwhile
				x.noteLocked(src, b.Until)
				x.changedLocked()
			}
		}
	}
	return 0, nothing
}

// nothing is what is to be told where nobody is held off.
func nothing() {}

// sensed refuses a peer that has come to a sensor, and has its source held off.
func (w *worker) sensed(c connection, u *unit) {
	x, s := &w.s.scanners, w.s
	catch := func() {
		src, ok := sourceOf(&c.peer)
		if !ok {
			return
		}
		x.mu.Lock()
		defer x.mu.Unlock()
		if x.book == nil || x.neverLocked(&c.peer, src) {
			return
		}
		now := s.now()
		if b, banned := x.book.Hold(now, src); banned {
			x.noteLocked(src, b.Until)
			x.changedLocked()
			s.log.ban(u, c.peer, b, b.Until-now, "sensor", nil)
		}
	}
	if c.mux != nil {
		w.hide(c, u, refusedSensor, w.scratch.name)
	} else {
		w.refuse(c, u, refusedSensor, "")
	}
	catch()
}

// expireLocked forgets the bans that are over, and says how long nothing more will
// be; negative: there are none.
func (x *scanners) expireLocked(now time.Duration) time.Duration {
	if x.book == nil {
		return -1
	}
	for {
		src, ok, next := x.book.Expire(now)
		switch {
		case ok:
			x.noteLocked(src, over)
			x.held.Store(int32(x.book.Held()))
		case next == 0:
			return -1
		default:
			return next - now
		}
	}
}

// A Ban is a source that is held off.
type Ban struct {
	Source  string // as Unban takes it
	Left    time.Duration
	Refused uint64 // connections and datagrams since
}

// Bans are those that stand, the first to end first.
func (s *Supervisor) Bans() (list []Ban) {
	x := &s.scanners
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.book == nil {
		return nil
	}
	now := s.now()
	x.book.Each(now, func(b ban.Ban) {
		list = append(list, Ban{b.Source.String(), b.Until - now, b.Refused})
	})
	slices.SortFunc(list, func(a, b Ban) int {
		return cmp.Or(cmp.Compare(a.Left, b.Left), cmp.Compare(a.Source, b.Source))
	})
	return list
}

// Unban ends the ban of a source: an address in it, its prefix, "uid:1000" or
// "vsock:3". The error says why there is nothing to end.
func (s *Supervisor) Unban(source string) error {
	src, err := limit.ParseSource(source)
	if err != nil {
		return err
	}
	x := &s.scanners
	defer s.freePit()
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.book == nil || !x.book.Lift(s.now(), src) {
		return fmt.Errorf("%s is not banned", src)
	}
	x.noteLocked(src, 0)
	x.changedLocked()
	s.log.unban(src, "unban")
	return nil
}

// ban: a source is held off from now on.
func (e *events) ban(u *unit, peer service.Peer, b ban.Ban, hold time.Duration, why string, names []string) {
	attrs := appendPeer([]slog.Attr{slog.String("service", u.id)}, &peer)
	attrs = append(attrs, slog.String("source", b.Source.String()), slog.String("reason", why))
	if names != nil {
		attrs = append(attrs, slog.Any("names", names))
	}
	e.warn("ban", append(attrs, untilAttr(hold), slog.Duration("for", hold))...)
}

// unban: somebody has ended the ban of a source.
func (e *events) unban(src limit.Source, why string) {
	e.info("unban", slog.String("source", src.String()), slog.String("reason", why))
}

// untilAttr is the moment when so much time will have passed.
func untilAttr(left time.Duration) slog.Attr {
	return slog.String("until", time.Now().Add(left).Format(time.RFC3339))
}

// helpName is what HELP counts as, however it is written.
var helpName = bytes.ToLower([]byte("HELP"))

// count says how many sources are watched and held off, and how many newcomers
// were not watched for want of records.
func (x *scanners) count() (watched, banned int, missed uint64, on bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.book == nil {
		return 0, 0, 0, false
	}
	return x.book.Len() - x.book.Held(), x.book.Held(), x.book.Missed(), true
}
