package supervisor

// A unit is the runtime shape of a row: the value, and everything that lives
// longer than one table: listeners, books, pauses.

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/relay"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// A row is a service's value and its compiled program; a reload replaces both
// at once.
type row struct {
	*service.Service
	program *spawn.Program           // nil for a row that runs in the daemon
	plan    *relay.Plan              // of a row whose connections are relayed
	logs    atomic.Bool              // the program has its log
	indexes atomic.Pointer[[]uint32] // what Interfaces stands for; nil without
}

type unit struct {
	id  string
	row atomic.Pointer[row]

	mu        sync.Mutex // guards the next four
	book      *limit.Book
	listeners []*socket
	paused    pause                   // why the listeners are out of the poll sets; 0: they are in
	until     map[pause]time.Duration // when the reasons of pauseFor are over

	// Under Supervisor.applyMu:
	dead    bool      // under mu: removed, without instances, and nothing may start any more
	removed bool      // no row of the running table; kept for its instances
	waiting []waiting // endpoints whose address is not up
	closed  bool      // as the log says: it is outside of access.hours

	ended atomic.Int64 // a reload has ended the instances that began before, on the supervisor's clock
	stuck backoff      // after children that did not reach their program
	held  atomic.Int32 // children that are held before their program, as the watcher last saw
	crowd pendingCrowd // guarded by pendingTable.mu
	line  line         // peers that wait for an instance to end; guarded by pendingTable.mu
	sheds atomic.Bool  // the machine is too busy for it

	suspended suspension // its rate was exceeded

	output *output // what its children have as a log; under outputs.mu
}

// A socket is a listener that the loops know by its token.
type socket struct {
	*listener.Listener
	token uint32
	unit  *unit
	from  string // the row that had it before, for the log
	turn  *turn  // who else has it, of a wait row
	gone  bool   // under unit.mu: closed
}

// A pause is a set of reasons not to accept. The peers stay in the kernel's
// queue; nothing is closed.
type pause uint8

const (
	pauseInstances pause = 1 << iota // overflow = "queue": all instances taken
	pauseShortage                    // out of descriptors
	pauseBackoff                     // its children do not reach their program, or cannot be made
)

// pauseLocked takes the listeners out of every poll set.
func (s *Supervisor) pauseLocked(u *unit, why pause) {
	if u.paused == 0 {
		for _, l := range u.listeners {
			s.unpoll(l)
		}
	}
	if why&^u.paused&pauseInstances != 0 {
		s.queued.Add(1)
	}
	u.paused |= why
}

// resumeUnit takes one reason away, and polls again when it was the last.
func (s *Supervisor) resumeUnit(u *unit, why pause) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.resumeLocked(u, why)
}

func (s *Supervisor) resumeLocked(u *unit, why pause) {
	if u.paused&why == 0 {
		return
	}
	if why&pauseInstances != 0 {
		s.queued.Add(-1)
	}
	u.paused &^= why
	if u.paused == 0 {
		for _, l := range u.listeners {
			s.poll(l)
		}
	}
}

// pauseFor pauses and has the unit resumed after d.
func (s *Supervisor) pauseFor(u *unit, why pause, d time.Duration) {
	u.mu.Lock()
	defer u.mu.Unlock()
	s.pauseLocked(u, why)
	until := s.now() + d
	if until <= u.until[why] {
		return
	}
	if u.until == nil {
		u.until = map[pause]time.Duration{}
	}
	u.until[why] = until
	time.AfterFunc(d, func() {
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.until[why] == until {
			s.resumeLocked(u, why)
		}
	})
}

// poll puts a listener into every loop's set, or, if datagrams that come to it
// are answered by a worker itself, into one loop's. The caller holds its unit's
// mu, here and in unpoll: the number of a socket that is gone is another's.
func (s *Supervisor) poll(l *socket) {
	if l.gone || l.taken(l.unit.row.Load()) {
		return
	}
	loops := s.loops
	if l.Endpoint.Network.Dgram() && l.unit.row.Load().Builtin != service.BuiltinNone {
		i := int(l.token) % len(loops)
		loops = loops[i : i+1]
	}
	l.each(func(fd int) {
		for _, loop := range loops {
			if err := loop.poll.addListener(fd, uint64(l.token)); err != nil {
				s.log.problem("cannot poll a listener", err)
			}
		}
	})
}

func (s *Supervisor) unpoll(l *socket) {
	if l.gone {
		return
	}
	l.each(func(fd int) {
		for _, loop := range s.loops {
			loop.poll.remove(fd)
		}
	})
}

// reservePlace takes a place for an instance before its connection is
// accepted, for rows that leave the excess in the kernel's queue. Without a
// place the row stops accepting until an instance ends.
func (s *Supervisor) reservePlace(u *unit) (reservation, bool) {
	if r, ok := s.reserveFor(u, false); ok {
		return r, true
	}
	s.reap()
	return s.reserveFor(u, true)
}

// reserveFor is one try; with pause the row does not accept if it fails.
func (s *Supervisor) reserveFor(u *unit, pause bool) (r reservation, ok bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.book.Reserve() {
		if !s.house.on.Load() {
			return reservation{row: true}, true
		}
		if s.house.reserve(u) {
			return reservation{true, true}, true
		}
		u.book.Unreserve()
	}
	if pause {
		s.pauseLocked(u, pauseInstances)
	}
	return r, false
}

func (s *Supervisor) returnPlace(u *unit, r reservation) {
	if r.row {
		u.mu.Lock()
		u.book.Unreserve()
		s.resumeLocked(u, pauseInstances)
		u.mu.Unlock()
	}
	if r.house {
		s.leave(nil)
	}
}

// giveBack ends an instance's leases, which may let a waiting peer in.
func (s *Supervisor) giveBack(u *unit, l *limit.Leases) {
	u.mu.Lock()
	u.book.Release(&l.Row)
	house := l.Server
	l.Server = limit.Lease{}
	s.resumeLocked(u, pauseInstances)
	u.mu.Unlock()
	if house != (limit.Lease{}) {
		s.leave(&house)
	} else if u.line.length.Load() > 0 {
		s.placeFree()
	}
}

// die reports whether nothing of a removed unit is left to keep. A worker may
// still have a connection for it in hand, which it does not admit then.
func (u *unit) die() bool {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.dead = u.book.Instances() == 0
	return u.dead
}

// A tokenMap finds listeners by their epoll token. A token is never used
// again, so an event that was on its way when its listener was closed finds
// nothing.
type tokenMap struct {
	next uint32 // under applyMu
	m    atomic.Pointer[map[uint32]*socket]
}

func (t *tokenMap) get(token uint32) *socket {
	if m := t.m.Load(); m != nil {
		return (*m)[token]
	}
	return nil
}

// make returns a token that never was.
func (t *tokenMap) make() uint32 {
	t.next++
	return t.next
}

// replace makes the map that a reload leaves.
func (t *tokenMap) replace(units map[string]*unit) {
	m := map[uint32]*socket{}
	for _, u := range units {
		for _, l := range u.listeners {
			m[l.token] = l
		}
	}
	t.m.Store(&m)
}

// A backoff grows with every failure and is over after one success. On the
// path of a connection it is two atomic loads.
type backoff struct {
	delay, until atomic.Int64 // nanoseconds; until on the supervisor's clock
}

const (
	backoffMin = 50 * time.Millisecond
	backoffMax = time.Second
)

// failed notes a failure and says how long to wait now. Failures while a wait
// runs do not make it longer.
func (b *backoff) failed(now, least, most time.Duration) time.Duration {
	until := b.until.Load()
	if int64(now) < until {
		return time.Duration(until) - now
	}
	d := min(max(2*time.Duration(b.delay.Load()), least), most)
	if b.until.CompareAndSwap(until, int64(now+d)) {
		b.delay.Store(int64(d))
	}
	return d
}

func (b *backoff) active(now time.Duration) bool { return int64(now) < b.until.Load() }

func (b *backoff) worked() {
	if b.delay.Load() != 0 {
		b.delay.Store(0)
	}
}
