package supervisor

// Rows of Sun RPC: rpcbind(8) is told at which port each program is. One goroutine
// asks it, which holds no lock meanwhile and is waited for by nobody; it is handed a
// list of what shall be registered, and knows what is.
//
// A row that cannot be registered listens on, and is tried again, ever more seldom,
// and at every reload.

import (
	"context"
	"errors"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/rpcbind"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const (
	rpcbindTime = 5 * time.Second // for all that is to be said at once
	rpcbindLast = 2 * time.Second // at the end, which waits for it
	rpcbindMin  = time.Second     // until it is tried again
	rpcbindMax  = time.Minute
)

// A binding is a socket of a row, as rpcbind is told of it.
type binding struct {
	service.RPC
	netid string
	addr  netip.AddrPort
}

// mappings are what it is to rpcbind: one for each version.
func (b binding) mappings() (list []rpcbind.Mapping) {
	for v := uint64(b.Low); v <= uint64(b.High); v++ {
		list = append(list, rpcbind.Mapping{Program: b.Program, Version: uint32(v), Netid: b.netid, Addr: b.addr})
	}
	return list
}

// A registrar has what shall be registered, and wakes up who sees to that.
type registrar struct {
	server  rpcbind.Server
	most    time.Duration // for all that is to be said at once
	changed chan struct{}

	mu     sync.Mutex
	wanted map[binding]*unit
	anew   bool // also what is registered: rpcbind may have been started again

	sure atomic.Int64 // how many are registered
}

func (r *registrar) init() {
	r.server, r.most = rpcbind.Local, rpcbindTime
	r.changed = make(chan struct{}, 1)
}

// want says what shall be registered from now on. It does not wait.
func (r *registrar) want(list map[binding]*unit, anew bool) {
	r.mu.Lock()
	r.wanted = list
	r.anew = r.anew || anew
	r.mu.Unlock()
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

func (r *registrar) take() (wanted map[binding]*unit, anew bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	anew, r.anew = r.anew, false
	return r.wanted, anew
}

// register has the sockets of the running table registered that there are; with anew
// also those that are registered. The caller holds applyMu.
func (s *Supervisor) register(anew bool) {
	var list map[binding]*unit
	for _, u := range s.units {
		sv := u.row.Load()
		if u.removed || sv.RPC == nil {
			continue
		}
		for _, l := range u.listeners {
			for _, b := range bindingsOf(sv.RPC, l.Endpoint) {
				if list == nil {
					list = map[binding]*unit{}
				}
				list[b] = u
			}
		}
	}
	s.rpc.want(list, anew)
}

// bindingsOf are those of one socket: two if it is for both families.
func bindingsOf(p *service.RPC, ep service.Endpoint) []binding {
	switch {
	case !ep.Network.IP():
		return nil
	case ep.Dual:
		four := service.TCP4
		if ep.Network.UDP() {
			four = service.UDP4
		}
		return []binding{{*p, ep.Network.Netid(), ep.Addr}, {*p, four.Netid(), netip.AddrPortFrom(netip.IPv4Unspecified(), ep.Addr.Port())}}
	}
	return []binding{{*p, ep.Network.Netid(), ep.Addr}}
}

// A known is what rpcbind may know.
type known struct {
	unit *unit
	sure bool // it does
	said bool // the log says so
}

// A teller is what rpcbind has been told.
type teller struct {
	s      *Supervisor
	have   map[binding]*known
	failed map[binding]string // what the log says last of those that it does not know
}

// tellRpcbind is the goroutine that does it, until the end, when it takes out what it
// has registered.
func (s *Supervisor) tellRpcbind() {
	t := teller{s: s, have: map[binding]*known{}, failed: map[binding]string{}}
	retry := time.NewTimer(time.Hour)
	defer retry.Stop()
	wait := rpcbindMin
	for last := false; !last; {
		select {
		case <-s.rpc.changed:
			wait = rpcbindMin
		case <-retry.C:
			wait = min(2*wait, rpcbindMax)
		case <-s.quit:
			last = true
		}
		retry.Stop()
		if wanted, anew := s.rpc.take(); !t.tell(wanted, anew) {
			retry.Reset(wait)
		}
	}
}

// tell registers and unregisters, and reports whether all of it was done.
func (t *teller) tell(wanted map[binding]*unit, anew bool) bool {
	if anew {
		clear(t.failed) // and is said again
		for _, k := range t.have {
			k.sure = false
		}
	}
	var gone, come []binding
	for b := range t.have {
		if wanted[b] == nil {
			gone = append(gone, b)
		}
	}
	for b, u := range wanted {
		k := t.have[b]
		if k == nil || !k.sure {
			come = append(come, b)
		}
		if k != nil {
			k.unit = u // the row may be called otherwise now
		}
	}
	for b := range t.failed {
		if wanted[b] == nil && t.have[b] == nil {
			delete(t.failed, b)
		}
	}
	if len(gone)+len(come) == 0 {
		return true
	}
	err := t.talk(gone, come, wanted)
	if err != nil {
		for _, b := range gone {
			if k := t.have[b]; k != nil && k.said && t.news(b, err) {
				t.s.log.cannotUnregister(k.unit, b, err)
			}
		}
	}
	sure := 0
	for b, u := range wanted {
		switch k := t.have[b]; {
		case k != nil && k.sure:
			sure++
		case err != nil && t.news(b, err):
			t.s.log.cannotRegister(u, b, err)
		}
	}
	t.s.rpc.sure.Store(int64(sure))
	return err == nil && sure == len(wanted)
}

// news reports whether the log does not say so already.
func (t *teller) news(b binding, err error) bool {
	was := t.failed[b]
	t.failed[b] = err.Error()
	return was != t.failed[b]
}

// talk is one conversation. What is registered as it shall be stays so all the time;
// what is registered otherwise, such as by a daemon that was killed, is taken out
// first. The error is one that ends the conversation.
func (t *teller) talk(gone, come []binding, wanted map[binding]*unit) error {
	most := t.s.rpc.most
	if t.s.stopping.Load() {
		most = min(most, rpcbindLast) // and somebody waits for the end
	}
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	c, err := t.s.rpc.server.Dial(ctx)
	if err != nil {
		return err
	}
	defer c.Close()
	for _, b := range gone {
		if err := unset(c, b.mappings()); err != nil {
			return err
		}
		if k := t.have[b]; k.said {
			t.s.log.unregistered(k.unit, b)
		}
		delete(t.have, b)
	}
	all := slices.Collect(maps.Keys(wanted))
	if len(gone) > 0 && c.Portmapper() {
		come = all // it may have taken out more than was meant
	}
	taken, err := t.set(c, come, wanted)
	if err != nil || len(taken) == 0 {
		return err
	}
	for b := range taken {
		if err := unset(c, b.mappings()); err != nil {
			return err
		}
	}
	come = slices.Collect(maps.Keys(taken))
	if c.Portmapper() {
		come = all
	}
	taken, err = t.set(c, come, wanted)
	for b, why := range taken {
		delete(t.have, b)
		if t.news(b, why) {
			t.s.log.cannotRegister(wanted[b], b, why)
		}
	}
	return err
}

// set registers a list, and returns those that are refused, of which nothing is left
// registered.
func (t *teller) set(c *rpcbind.Conn, list []binding, wanted map[binding]*unit) (map[binding]error, error) {
	refused := map[binding]error{}
	for _, b := range list {
		k := t.have[b]
		if k == nil {
			k = &known{unit: wanted[b]}
			t.have[b] = k
		}
		k.sure = false
		var err error
		ms := b.mappings()
		for i, m := range ms {
			if err = c.Set(m); err != nil {
				ms = ms[:i]
				break
			}
		}
		switch {
		case errors.Is(err, rpcbind.ErrRefused):
			refused[b] = err
			if err := unset(c, ms); err != nil {
				return refused, err
			}
			if !k.said { // nothing of it is ours, whatever happens next
				delete(t.have, b)
			}
		case err != nil:
			return refused, err
		default:
			k.sure = true
			delete(t.failed, b)
			if !k.said {
				k.said = true
				t.s.log.registered(k.unit, b)
			}
		}
	}
	return refused, nil
}

// unset takes out what there is of a list.
func unset(c *rpcbind.Conn, list []rpcbind.Mapping) error {
	for _, m := range list {
		if err := c.Unset(m); err != nil && !errors.Is(err, rpcbind.ErrRefused) {
			return err
		}
	}
	return nil
}
