package supervisor

// Apply makes a table the running one: all of it or nothing. Sockets that both
// tables have are never closed, and whatever a row has counted is kept.

import (
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"syscall"

	"github.com/hashicorp/go-multierror"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// ErrStopping is what Apply returns once Stop has been called.
var ErrStopping = errors.New("the daemon is stopping")

// A socketKey is what makes a socket the same in two tables.
type socketKey struct {
	service.Endpoint
	device string
	row    string // only with reuseport, where rows may share an address, and for port 0
}

func keyOf(sv *service.Service, ep service.Endpoint) socketKey {
	k := socketKey{Endpoint: ep, device: sv.Socket.BindToDevice}
	if sv.Socket.ReusePort || anyPort(ep) {
		k.row = sv.ID
	}
	return k
}

// anyPort reports whether the kernel chooses the port.
func anyPort(ep service.Endpoint) bool { return ep.Network.IP() && ep.Addr.Port() == 0 }

// A change is a table that is being made the running one.
type change struct {
	s       *Supervisor
	table   *service.Table
	refresh bool                  // see Refresh
	had     map[socketKey]*socket // of the running table
	want    map[socketKey]bool
	near    map[service.Endpoint][]socketKey // of had and not of want, by near
	rows    map[string]*row
	calm    map[*unit]bool       // of rows that are the same, and lack nothing
	units   map[string]*unit     // of rows that the running table does not have
	sockets map[string][]*socket // by row, as they shall be
	fresh   []*socket            // those of them that are not polled yet
	down    map[string][]waiting // by row: to be opened later
	taken   *multierror.Error    // for what of it somebody else has the address
	undo    []func()

	compiler *spawn.Compiler // nil: no program has changed so far
}

// Apply makes t the running table. On an error nothing has changed; it then is
// a *multierror.Error of everything that stood in the way, each with its row.
func (s *Supervisor) Apply(t *service.Table) error { return s.apply(t, false) }

// Refresh is Apply for a table that was made again of the same text. Where only
// access is another, because a set is, on_reload does not apply: what runs goes on.
func (s *Supervisor) Refresh(t *service.Table) error { return s.apply(t, true) }

func (s *Supervisor) apply(t *service.Table, refresh bool) (err error) {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	if s.stopping.Load() {
		return ErrStopping
	}
	c := &change{
		s: s, table: t, refresh: refresh,
		had: map[socketKey]*socket{}, want: map[socketKey]bool{}, near: map[service.Endpoint][]socketKey{},
		rows: make(map[string]*row, len(t.Services)), calm: make(map[*unit]bool, len(s.units)),
		units: map[string]*unit{}, sockets: map[string][]*socket{}, down: map[string][]waiting{},
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
	if err := c.s.wantBans(c); err != nil {
		return multierror.Append(errs, err)
	}
	failed := c.compileAll()
	c.look()
	var last []func()
	opened := c.openMany()
	for _, sv := range c.table.Services {
		failAt := func(origin service.Place, err error) {
			if err != nil {
				errs = multierror.Append(errs, fmt.Errorf("%s: row %q: %w", origin, sv.ID, err))
			}
		}
		u := c.s.units[sv.ID]
		if c.calm[u] {
			continue
		}
		failAt(sv.Origin, failed[sv.ID])
		if u == nil {
			u = &unit{id: sv.ID}
			u.row.Store(c.rows[sv.ID]) // a socket may come to it before update does
			c.units[sv.ID] = u
		}
		for i, ep := range sv.Listen {
			fail := func(err error) {
				origin := sv.Origin
				if i < len(sv.ListenOrigin) {
					origin = sv.ListenOrigin[i]
				}
				err = inUse(ep, err)
				if errors.Is(err, syscall.EADDRINUSE) && c.table.Lenient {
					c.down[u.id] = append(c.down[u.id], waiting{ep, err})
					c.taken = multierror.Append(c.taken, fmt.Errorf("%s: row %q: %w", origin, sv.ID, err))
					return
				}
				failAt(origin, err)
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
			} else if len(opened) > 0 && opened[0].key == k {
				fail(c.opened(u, ep, opened[0].l, opened[0].err))
				opened = opened[1:]
			} else {
				fail(c.open(u, sv, ep))
			}
		}
	}
	if errs == nil {
		if err := c.ban(); err != nil {
			errs = multierror.Append(errs, err)
		}
	}
	// What needs an address that a leaving socket of ours still has comes
	// when nothing else can fail any more.
	for _, f := range last {
		if errs == nil {
			f()
		}
	}
	if errs == nil && len(c.sockets) == 0 && len(c.calm) == 0 {
		return c.taken.ErrorOrNil() // whoever has all of it serves already
	}
	return errs.ErrorOrNil()
}

// compileAll fills in rows and calm, and returns what is wrong by row. Most rows
// of most reloads are the same as before: nothing is to be done for them, and
// little is done.
func (c *change) compileAll() map[string]error {
	failed := map[string]error{}
	for _, sv := range c.table.Services {
		r, err := c.compile(sv)
		if err != nil {
			failed[sv.ID] = err
		}
		c.rows[sv.ID] = r
		if u := c.s.units[sv.ID]; u != nil && !u.removed && u.row.Load() == r && u.complete(sv) {
			c.calm[u] = true
		}
	}
	return failed
}

// complete reports whether a unit has all sockets of its row, in their order, and
// no others.
func (u *unit) complete(sv *service.Service) bool {
	return len(u.waiting) == 0 && slices.EqualFunc(u.listeners, sv.Listen, func(l *socket, ep service.Endpoint) bool {
		return !l.gone && l.Asked == ep
	})
}

// look finds out which sockets there are and which there shall be, of rows that
// are not calm.
func (c *change) look() {
	for _, u := range c.s.units {
		if c.calm[u] {
			continue
		}
		for _, l := range u.listeners {
			if l.gone {
				continue
			}
			c.had[keyOf(u.row.Load().Service, l.Asked)] = l
		}
	}
	for _, sv := range c.table.Services {
		if c.calm[c.s.units[sv.ID]] {
			continue
		}
		for _, ep := range sv.Listen {
			c.want[keyOf(sv, ep)] = true
		}
	}
	for k := range c.had {
		if !c.want[k] {
			c.near[near(k.Endpoint)] = append(c.near[near(k.Endpoint)], k)
		}
	}
}

// compile makes the runtime form of a row, or finds that it is running.
func (c *change) compile(sv *service.Service) (*row, error) {
	if u := c.s.units[sv.ID]; u != nil && !u.removed {
		if r := u.row.Load(); r.Equal(sv) {
			return r, nil
		}
	}
	r := &row{Service: sv, plan: planOf(sv)}
	r.findInterfaces()
	var err error
	if sv.Exec != nil {
		if c.compiler == nil {
			c.compiler = spawn.NewCompiler()
		}
		r.program, err = compileProgram(c.compiler, sv)
	}
	return r, err
}

// inTheWay finds the running sockets that will be gone, and without whose end a
// new one cannot be bound.
func (c *change) inTheWay(k socketKey) (list []*socket) {
	if anyPort(k.Endpoint) {
		return nil
	}
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
	if r := l.unit.row.Load(); r != c.rows[u.id] { // else it is the same, see compile
		old := r.Service
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
	return c.opened(u, ep, l, err)
}

// opened takes a new socket, or why there is none.
func (c *change) opened(u *unit, ep service.Endpoint, l *listener.Listener, err error) error {
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
