package supervisor

// The second half of a reload: what apply.go has prepared is put in place. Nothing
// here can fail: whatever could has been tried before.

import (
	"cmp"
	"maps"
	"slices"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// commit puts the change in place. Nothing in it can fail.
func (c *change) commit() {
	s := c.s
	ended := map[*unit]service.OnReload{}
	moved := map[*listener.Listener]*socket{}
	for _, l := range c.fresh {
		moved[l.Listener] = l
	}
	for id, u := range s.units {
		if c.calm[u] {
			continue
		}
		switch old := u.row.Load(); {
		case c.rows[id] == nil:
			if !u.removed {
				ended[u] = old.OnReload
			}
			u.removed = true
			u.waiting = nil
			s.unsuspend(u)
		case c.rows[id] != old && old.Builtin != service.BuiltinTCPMUX && !old.Equal(c.rows[id].Service) &&
			!(c.refresh && old.EqualButAccess(c.rows[id].Service)):
			ended[u] = old.OnReload
		}
		s.closeListeners(u, c.sockets[id], moved)
	}
	maps.Copy(s.units, c.units)
	for id, r := range c.rows {
		if u := s.units[id]; !c.calm[u] {
			c.update(u, r)
		}
	}
	s.configureScan(c.table)
	s.ports.Store(portsOf(c.table))
	if s.house.set(c.table.Server.Limits) {
		s.enterRunning()
	}
	s.live.Store(newLive(c.table, s.units))
	if len(c.calm) < len(s.units) {
		s.tokens.replace(s.units)
	}
	sideBySide(c.fresh, len(s.loops), func(l **socket) {
		u := (*l).unit
		u.mu.Lock()
		defer u.mu.Unlock()
		if u.paused == 0 {
			s.poll(*l)
		}
	})
	for _, l := range c.fresh {
		s.log.listening(l.unit, l.Endpoint, l.from)
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
	s.judge()
	for u, how := range ended {
		if how == service.ReloadEnd {
			s.endInstances(u)
		}
	}
	s.awaitHolders()
	s.shedder.set(s.units)
	s.placeFree() // the limits may be others now
	s.register(!c.refresh)
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
	if old := u.row.Load(); old != nil && (old.Suspend != r.Suspend || old.Limits.Rate != r.Limits.Rate || old.Limits.Burst != r.Limits.Burst) {
		c.s.unsuspendLocked(u)
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
	if network := l.Endpoint.Network; network.UDP() && (r.Builtin != service.BuiltinNone || r.Interfaces != nil && !r.Wait) {
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
	most := 0
	for _, sv := range t.Services {
		if !sv.Mux {
			continue
		}
		l.mux[sv.Name] = units[sv.ID]
		if n := kindsOfRules(sv); n > most {
			l.decoy, most = units[sv.ID], n
		}
		if !sv.Hidden {
			l.help = append(l.help, units[sv.ID])
		}
	}
	slices.SortFunc(l.help, func(a, b *unit) int { return cmp.Compare(a.row.Load().Name, b.row.Load().Name) })
	return l
}

// kindsOfRules says how many things a row's access goes by.
func kindsOfRules(sv *service.Service) (n int) {
	for _, has := range []bool{sv.Access != nil, sv.Users != nil, sv.Hours != nil, sv.Interfaces != nil, sv.Locals != nil, sv.Hosts != nil} {
		if has {
			n++
		}
	}
	return n
}
