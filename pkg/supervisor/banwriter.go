package supervisor

// What is held off is also written to places outside the daemon: the filters of
// sockets whose packets it does not read, and nftables sets. One goroutine does
// that, in the order in which bans come and go; nobody waits for it.

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/ban"
	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/nft"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// maxKernelBans is as many sources as a table can ask for. Memory is taken as
// they come.
const maxKernelBans = 1 << 20

// A banWriter is what there is to write, under scanners.mu.
type banWriter struct {
	bell   chan struct{}
	todo   []banChange
	all    bool // everything anew
	kernel *filter.Bans
	sets   [2]service.NftSet // for IPv4 and IPv6
}

// A banChange is that a prefix is held off until a moment; 0: no longer; over: its
// time is over.
type banChange struct {
	prefix netip.Prefix
	until  time.Duration
}

const over = time.Duration(-1)

// writeAgain is how soon everything is written anew after a failure, such as while
// a firewall is loaded.
const writeAgain = time.Minute

// todoMost is how many changes wait. Beyond them everything is written anew.
const todoMost = 1 << 14

func (b *banWriter) init() { b.bell = make(chan struct{}, 1) }

// ring has the writer look.
func (b *banWriter) ring() {
	select {
	case b.bell <- struct{}{}:
	default:
	}
}

// noteLocked notes a change. What is not an address is nobody's business outside.
func (x *scanners) noteLocked(src limit.Source, until time.Duration) {
	b := &x.writer
	p, ok := x.outsideLocked(src)
	if !ok || b.kernel == nil && b.sets == [2]service.NftSet{} {
		return
	}
	if len(b.todo) == todoMost {
		b.todo, b.all = nil, true
	}
	if !b.all {
		b.todo = append(b.todo, banChange{p, until})
	}
}

// writeBans writes until the supervisor ends.
func (s *Supervisor) writeBans() {
	x := &s.scanners
	timer := time.NewTimer(0)
	w := &writing{s: s, inKernel: map[netip.Prefix]bool{}}
	for i := range w.inSets {
		w.inSets[i] = map[netip.Prefix]time.Duration{}
	}
	defer w.close()
	for {
		timer.Stop()
		x.mu.Lock()
		now := s.now()
		wait := x.expireLocked(now)
		todo, all := x.writer.todo, x.writer.all || w.again != 0 && w.again <= now
		x.writer.todo, x.writer.all = nil, false
		kernel, sets := x.writer.kernel, x.writer.sets
		if all {
			todo = nil
			if x.book != nil {
				x.book.Each(s.now(), func(b ban.Ban) {
					if p, ok := x.outsideLocked(b.Source); ok {
						todo = append(todo, banChange{p, b.Until})
					}
				})
			}
		}
		x.mu.Unlock()
		w.use(kernel, sets)
		w.write(todo, all)
		if w.again != 0 {
			wait = sooner(wait, max(w.again-s.now(), 0))
		}
		if wait >= 0 {
			timer.Reset(wait)
		}
		select {
		case <-x.writer.bell:
		case <-timer.C:
		case <-s.quit:
			return
		}
	}
}

// writing is the writer's own.
type writing struct {
	s        *Supervisor
	kernel   *filter.Bans
	inKernel map[netip.Prefix]bool

	conn   *nft.Conn // nil: not opened yet
	sets   [2]service.NftSet
	kinds  [2]*nft.Kind                      // nil: not looked at yet
	inSets [2]map[netip.Prefix]time.Duration // what was written there, and until when
	again  time.Duration                     // something is not in its set: when all is written anew; 0: it is
}

// close leaves sockets that live on without bans that nobody would end. Those in
// nftables end by themselves.
func (w *writing) close() {
	if w.kernel != nil {
		w.writeKernel(nil, true)
	}
	if w.conn != nil {
		w.conn.Close()
	}
}

// use says where to write from now on. A set that is no longer written to has no
// bans of this daemon any more: nobody would lift them there.
func (w *writing) use(kernel *filter.Bans, sets [2]service.NftSet) {
	w.kernel = kernel
	for i, set := range sets {
		if set == w.sets[i] {
			continue
		}
		if len(w.inSets[i]) > 0 {
			w.trySet(i, nil, true)
			clear(w.inSets[i])
		}
		w.sets[i], w.kinds[i] = set, nil
	}
}

// write writes changes, or all bans that there are.
func (w *writing) write(todo []banChange, all bool) {
	if all {
		w.kinds = [2]*nft.Kind{}
	}
	if w.kernel != nil {
		w.writeKernel(todo, all)
	}
	if all {
		w.again = 0
	}
	for i, set := range w.sets {
		if set != (service.NftSet{}) && (all || len(todo) > 0) && !w.trySet(i, todo, all) && w.again == 0 {
			w.again = w.s.now() + writeAgain
		}
	}
}

func (w *writing) trySet(i int, todo []banChange, all bool) bool {
	set := w.sets[i]
	if err := w.writeSet(i, nft.Set{Family: set.Family, Table: set.Table, Name: set.Set}, todo, all); err != nil {
		w.kinds[i] = nil
		w.s.log.problem("cannot write bans to nftables", err)
		return false
	}
	return true
}

func (w *writing) writeKernel(todo []banChange, all bool) {
	remove := map[netip.Prefix]bool{}
	if all {
		remove = maps.Clone(w.inKernel)
	}
	var errs []error
	for _, c := range todo {
		if c.until <= 0 {
			remove[c.prefix] = true
			continue
		}
		delete(remove, c.prefix)
		if !w.inKernel[c.prefix] {
			errs = append(errs, w.kernel.Add(c.prefix))
			w.inKernel[c.prefix] = true
		}
	}
	for p := range remove {
		errs = append(errs, w.kernel.Remove(p))
		delete(w.inKernel, p)
	}
	if err := errors.Join(errs...); err != nil {
		w.s.log.problem("cannot write bans to filters", err)
	}
}

// writeSet writes to the set for IPv4, 0, or IPv6, 1. Those whose time is over go
// by themselves.
func (w *writing) writeSet(i int, set nft.Set, todo []banChange, all bool) (err error) {
	if w.conn == nil {
		if w.conn, err = nft.Open(); err != nil {
			return err
		}
	}
	if w.kinds[i] == nil {
		k, err := w.conn.Look(set, i == 1)
		if err != nil {
			return err
		}
		w.kinds[i] = &k
	}
	now, in := w.s.now(), w.inSets[i]
	last := map[netip.Prefix]time.Duration{}
	if all {
		for p, until := range in {
			last[p] = over
			if until > now {
				last[p] = 0 // unless it is below
			}
		}
	}
	for _, c := range todo {
		if c.prefix.Addr().Is6() == (i == 1) {
			last[c.prefix] = c.until
		}
	}
	var list []nft.Element
	for p, until := range last {
		switch {
		case until > now:
			list = append(list, nft.Element{Prefix: p, Left: until - now})
			in[p] = until
			continue
		case until == 0:
			if err := w.conn.Remove(set, *w.kinds[i], p); err != nil {
				return err
			}
		}
		delete(in, p)
	}
	return w.conn.Add(set, *w.kinds[i], list)
}

// wantBans says whether sockets of rows with wait are to go by the bans in the
// kernel, and makes those. The caller holds applyMu.
func (s *Supervisor) wantBans(c *change) error {
	x := &s.scanners
	had := x.wanted
	c.undo = append(c.undo, func() { x.wanted = had })
	x.wanted = false
	if c.table.Server.Scan == nil {
		return nil
	}
	for _, sv := range c.table.Services {
		if !sv.Wait || len(sv.Listen) == 0 || !sv.Listen[0].Network.IP() {
			continue
		}
		x.wanted = true
		if x.kernel != nil {
			return nil
		}
		var err error
		if x.kernel, err = filter.NewBans(maxKernelBans); err != nil {
			return fmt.Errorf("%s: row %q: its program takes its peers itself, and with [server.scan] the kernel is to keep some away from it: %w", sv.Origin, sv.ID, err)
		}
		return nil
	}
	return nil
}

// bansFor are those that the sockets of a row go by.
func (s *Supervisor) bansFor(sv *service.Service) *filter.Bans {
	if sv.Wait && s.scanners.wanted {
		return s.scanners.kernel
	}
	return nil
}

// ban has the sockets that stay go by the bans that the table asks for.
func (c *change) ban() error {
	for _, sv := range c.table.Services {
		sockets := c.sockets[sv.ID]
		if u := c.s.units[sv.ID]; c.calm[u] {
			sockets = u.listeners
		}
		for _, l := range sockets {
			had, want := l.Bans(), c.s.bansFor(sv)
			if err := l.SetBans(want); err != nil {
				return fmt.Errorf("%s: row %q: %w", sv.Origin, sv.ID, err)
			}
			if had != want {
				c.undo = append(c.undo, func() {
					if err := l.SetBans(had); err != nil {
						c.s.log.problem("cannot set the options of a socket back", err)
					}
				})
			}
		}
	}
	return nil
}
