package supervisor

// Apply makes a table the running one: all of it or nothing. Sockets that both
// tables have are never closed, and whatever a row has counted is kept.

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"syscall"
	"time"

	"github.com/hashicorp/go-multierror"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// ErrStopping is what Apply returns once Stop has been called.
var ErrStopping = errors.New("the daemon is stopping")

// A socketKey is what makes a socket the same in two tables.
type socketKey struct {
	service.Endpoint
	device string
	row    string // only with reuseport, where rows may share an address
}

func keyOf(sv *service.Service, ep service.Endpoint) socketKey {
	k := socketKey{Endpoint: ep, device: sv.Socket.BindToDevice}
	if sv.Socket.ReusePort {
		k.row = sv.ID
	}
	return k
}

// A change is a table that is being made the running one.
type change struct {
	s       *Supervisor
	table   *service.Table
	had     map[socketKey]*socket // of the running table
	want    map[socketKey]bool
	near    map[service.Endpoint][]socketKey // of had and not of want, by near
	rows    map[string]*row
	units   map[string]*unit     // of rows that the running table does not have
	sockets map[string][]*socket // by row, as they shall be
	fresh   []*socket            // those of them that are not polled yet
	down    map[string][]waiting // by row: to be opened later
	undo    []func()
}

// Apply makes t the running table. On an error nothing has changed; it then is
// a *multierror.Error of everything that stood in the way, each with its row.
func (s *Supervisor) Apply(t *service.Table) (err error) {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	if s.stopping.Load() {
		return ErrStopping
	}
	c := &change{
		s: s, table: t,
		had: map[socketKey]*socket{}, want: map[socketKey]bool{}, near: map[service.Endpoint][]socketKey{},
		rows: map[string]*row{}, units: map[string]*unit{}, sockets: map[string][]*socket{}, down: map[string][]waiting{},
	}
	s.Spare(func() {
		if err = c.prepare(); err != nil {
			for _, f := range slices.Backward(c.undo) {
				f()
			}
			s.awaitHolders()
		}
	})
	if err == nil {
		c.commit()
	}
	return err
}

// prepare does all that can fail, and says in undo how to take it back.
func (c *change) prepare() error {
	var errs *multierror.Error
	for _, u := range c.s.units {
		for _, l := range u.listeners {
			if l.gone {
				continue
			}
			c.had[keyOf(u.row.Load().Service, l.Endpoint)] = l
		}
	}
	for _, sv := range c.table.Services {
		for _, ep := range sv.Listen {
			c.want[keyOf(sv, ep)] = true
		}
	}
	for k := range c.had {
		if !c.want[k] {
			c.near[near(k.Endpoint)] = append(c.near[near(k.Endpoint)], k)
		}
	}
	var last []func()
	for _, sv := range c.table.Services {
		failAt := func(origin string, err error) {
			if err != nil {
				errs = multierror.Append(errs, fmt.Errorf("%s: row %q: %w", origin, sv.ID, err))
			}
		}
		fail := func(err error) { failAt(sv.Origin, err) }
		r, err := c.s.compile(sv)
		fail(err)
		c.rows[sv.ID] = r
		u := c.s.units[sv.ID]
		if u == nil {
			u = &unit{id: sv.ID}
			u.row.Store(r) // a socket may come to it before update does
			c.units[sv.ID] = u
		}
		for i, ep := range sv.Listen {
			fail := func(err error) {
				origin := sv.Origin
				if i < len(sv.ListenOrigin) {
					origin = sv.ListenOrigin[i]
				}
				failAt(origin, inUse(ep, err))
			}
			k := keyOf(sv, ep)
			if old := c.had[k]; old != nil {
				fail(c.keep(u, sv, old))
			} else if old := c.inTheWay(k); old != nil {
				last = append(last, func() {
					for _, l := range old {
						c.close(l)
					}
					fail(c.open(u, sv, ep))
				})
			} else {
				fail(c.open(u, sv, ep))
			}
		}
	}
	// What needs an address that a leaving socket of ours still has comes
	// when nothing else can fail any more.
	for _, f := range last {
		if errs == nil {
			f()
		}
	}
	return errs.ErrorOrNil()
}

// compile makes the runtime form of a row, or finds that it is running.
func (s *Supervisor) compile(sv *service.Service) (*row, error) {
	if u := s.units[sv.ID]; u != nil && !u.removed {
		if r := u.row.Load(); r.Equal(sv) {
			return r, nil
		}
	}
	r := &row{Service: sv, plan: planOf(sv)}
	var err error
	if sv.Exec != nil {
		r.program, err = compileProgram(sv)
	}
	return r, err
}

// inTheWay finds the running sockets that will be gone, and without whose end a
// new one cannot be bound.
func (c *change) inTheWay(k socketKey) (list []*socket) {
	for _, had := range c.near[near(k.Endpoint)] {
		if had.Addr == k.Addr || had.Addr.Addr().IsUnspecified() || k.Addr.Addr().IsUnspecified() {
			list = append(list, c.had[had])
		}
	}
	return list
}

// near is what two endpoints have in common that may be in each other's way: the
// port, or all.
func near(ep service.Endpoint) service.Endpoint {
	if ep.Network.IP() {
		return service.Endpoint{Network: ep.Network, Addr: netip.AddrPortFrom(netip.Addr{}, ep.Addr.Port())}
	}
	return ep
}

// keep takes a running socket over into the new table.
func (c *change) keep(u *unit, sv *service.Service, l *socket) error {
	if old := l.unit.row.Load().Service; !old.Equal(sv) {
		if err := l.Retune(old, sv); err != nil {
			return err
		}
		c.undo = append(c.undo, func() {
			if err := l.Retune(sv, old); err != nil {
				c.s.log.problem("cannot set the options of a socket back", err)
			}
		})
	}
	if l.unit == u {
		c.sockets[u.id] = append(c.sockets[u.id], l)
	} else {
		// The row has another name now; the socket stays.
		c.add(u, l.Listener, l)
	}
	return nil
}

// newSocket is a listener of a unit.
func (s *Supervisor) newSocket(l *listener.Listener, u *unit) *socket {
	so := &socket{Listener: l, token: s.tokens.make(), unit: u, turn: new(turn)}
	so.turn.owner.Store(so)
	return so
}

func (c *change) open(u *unit, sv *service.Service, ep service.Endpoint) error {
	l, err := c.s.listen(ep, sv)
	if later(err) {
		c.down[u.id] = append(c.down[u.id], waiting{ep, err})
		return nil
	}
	if err != nil {
		return err
	}
	c.undo = append(c.undo, l.Close)
	c.add(u, l, nil)
	return nil
}

// add makes the runtime form of a listener; from is the one it has now.
func (c *change) add(u *unit, l *listener.Listener, from *socket) {
	so := c.s.newSocket(l, u)
	if from != nil {
		// The turn is handed over when the other unit gives the socket up.
		so.turn, so.from = from.turn, from.unit.id
	}
	c.sockets[u.id] = append(c.sockets[u.id], so)
	c.fresh = append(c.fresh, so)
}

// close ends a leaving socket early, and opens it again if the table does not
// come to be.
func (c *change) close(l *socket) {
	u, sv := l.unit, l.unit.row.Load().Service
	u.mu.Lock()
	defer u.mu.Unlock()
	if l.gone {
		return // for another address of the new table
	}
	c.s.unpoll(l)
	l.giveUp()
	c.undo = append(c.undo, func() {
		again, err := c.s.listen(l.Endpoint, sv)
		if err != nil {
			c.s.log.problem("cannot listen again as before", err)
			u.waiting = append(u.waiting, waiting{l.Endpoint, err})
			return
		}
		u.mu.Lock()
		defer u.mu.Unlock()
		so := c.s.newSocket(again, u)
		c.s.handOver(so, u.row.Load())
		u.listeners[slices.Index(u.listeners, l)] = so
		c.s.tokens.replace(c.s.units)
		if u.paused == 0 {
			c.s.poll(so)
		}
	})
}

// commit puts the change in place. Nothing in it can fail.
func (c *change) commit() {
	s := c.s
	ended := map[*unit]service.OnReload{}
	moved := map[*listener.Listener]*socket{}
	for _, l := range c.fresh {
		moved[l.Listener] = l
	}
	for id, u := range s.units {
		switch old := u.row.Load(); {
		case c.rows[id] == nil:
			if !u.removed {
				ended[u] = old.OnReload
			}
			u.removed = true
			u.waiting = nil
		case c.rows[id] != old && old.Builtin != service.BuiltinTCPMUX && !old.Equal(c.rows[id].Service):
			ended[u] = old.OnReload
		}
		s.closeListeners(u, c.sockets[id], moved)
	}
	maps.Copy(s.units, c.units)
	for id, r := range c.rows {
		c.update(s.units[id], r)
	}
	s.ports.Store(portsOf(c.table))
	s.live.Store(newLive(c.table, s.units))
	s.tokens.replace(s.units)
	for _, l := range c.fresh {
		u := l.unit
		u.mu.Lock()
		if u.paused == 0 {
			s.poll(l)
		}
		u.mu.Unlock()
		s.log.listening(u, l.Endpoint, l.from)
	}
	for _, r := range c.rows {
		u := s.units[r.ID]
		s.resumeUnit(u, pauseInstances) // the limits may be others now
		if r.Wait {
			s.tryAgain(u)
		}
		for _, w := range u.waiting {
			s.log.notUp(u, w.Endpoint, w.err)
		}
	}
	for u, how := range ended {
		if how == service.ReloadEnd {
			s.endInstances(u)
		}
	}
	s.awaitHolders()
	for id, u := range s.units {
		if u.removed {
			s.dropPending(u)
		}
		if u.removed && u.die() {
			s.dropOutput(u)
			delete(s.units, id)
		}
	}
}

// tryAgain ends the rests of a wait row's sockets: a reload may have mended its
// server, or lets it have more of them.
func (s *Supervisor) tryAgain(u *unit) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.listeners {
		l.turn.resting, l.turn.failed = 0, 0
		if u.paused == 0 {
			s.poll(l)
		}
	}
}

// update gives a unit its new row.
func (c *change) update(u *unit, r *row) {
	u.mu.Lock()
	defer u.mu.Unlock()
	limits := r.Limits
	switch {
	case r.Builtin == service.BuiltinTCPMUX:
		// Its instances are pending negotiations, which the pending table counts.
		limits.Instances, limits.InstancesPerSource = 0, 0
	case r.Wait:
		limits.Instances = 0 // of each socket: its turn counts them
	}
	known := u.book != nil
	if !known {
		u.book = limit.NewBook(limits, limit.DefaultMaxSources)
	} else {
		u.book.SetLimits(limits)
	}
	c.s.pending.welcome(u)
	switch old := u.row.Load(); {
	case r.Refuse != "" && (!known || old.Refuse != r.Refuse):
		c.s.log.refusing(u, r.Refuse)
	case r.Refuse == "" && old.Refuse != "":
		c.s.log.servesAgain(u)
	}
	u.row.Store(r)
	u.removed = false
	u.listeners = c.sockets[u.id]
	u.waiting = c.down[u.id]
	for _, l := range u.listeners {
		c.s.handOver(l, r)
	}
}

// handOver makes a listener what the row needs that has it now: blocking for its
// servers, or not for the daemon. The caller holds the unit's mu.
func (s *Supervisor) handOver(l *socket, r *row) {
	if !r.Wait && l.turn.running > 0 {
		return // as soon as its server has ended
	}
	if r.Wait || r.Exec == nil {
		l.closeHub()
	}
	if err := l.SetBlocking(r.Wait); err != nil {
		s.log.problem("cannot change whether a listener blocks", err)
	}
	if network := l.Endpoint.Network; network.UDP() && r.Builtin != service.BuiltinNone {
		if err := tellDestination(l.Fd(), network.V6(), l.Endpoint.Dual); err != nil {
			s.log.problem("cannot learn where datagrams were sent to", err)
		}
	}
}

// closeListeners ends all sockets of a unit but those to keep, and those that
// another row has taken over.
func (s *Supervisor) closeListeners(u *unit, keep []*socket, moved map[*listener.Listener]*socket) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.listeners {
		if slices.Contains(keep, l) {
			continue
		}
		s.unpoll(l)
		if to := moved[l.Listener]; to != nil {
			l.turn.owner.Store(to)
			continue
		}
		if !l.gone {
			l.giveUp()
		}
		s.log.closed(u, l.Endpoint)
	}
	u.listeners = keep
}

// giveUp closes a socket for the daemon, and for nobody else who has it. The caller
// holds the unit's mu.
func (l *socket) giveUp() {
	if l.turn.running > 0 {
		l.Abandon() // a server still has it
	} else {
		l.Close()
	}
	l.closeHub()
	l.gone = true
}

// endInstances ends what runs of a row that a reload has changed or removed.
func (s *Supervisor) endInstances(u *unit) {
	since := s.now()
	u.ended.Store(int64(since)) // for one that is just being started
	s.relays.cut(u, since)
	s.signalInstances(u, since, syscall.SIGTERM)
	grace := cmp.Or(s.live.Load().table.Server.Grace, 5*time.Second)
	time.AfterFunc(grace, func() { s.signalInstances(u, since, syscall.SIGKILL) })
}

// signalInstances signals the instances of a unit that began before a moment.
func (s *Supervisor) signalInstances(u *unit, since time.Duration, sig syscall.Signal) {
	s.reaper.each(func(pid int, in *instance) {
		if in.unit == u && in.start < since {
			syscall.Kill(-pid, sig)
		}
	})
}

func newLive(t *service.Table, units map[string]*unit) *live {
	l := &live{table: t, mux: map[string]*unit{}}
	for _, sv := range t.Services {
		if !sv.Mux {
			continue
		}
		l.mux[sv.Name] = units[sv.ID]
		if !sv.Hidden {
			l.help = append(l.help, units[sv.ID])
		}
	}
	slices.SortFunc(l.help, func(a, b *unit) int { return cmp.Compare(a.row.Load().Name, b.row.Load().Name) })
	return l
}
