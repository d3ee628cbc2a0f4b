package supervisor

// Where endpoints come from: a socket that was passed, one that is opened, and
// one that cannot be had for now and comes later, without a new table.

import (
	"errors"
	"fmt"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A waiting is an endpoint that cannot be opened for now; see later.
type waiting struct {
	service.Endpoint
	err error
}

// listen opens the socket of an endpoint, or takes the one that was passed.
func (s *Supervisor) listen(ep service.Endpoint, sv *service.Service) (*listener.Listener, error) {
	l, err := s.listenOn(ep, sv)
	if err != nil {
		return nil, err
	}
	if err := l.SetBans(s.bansFor(sv)); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

func (s *Supervisor) listenOn(ep service.Endpoint, sv *service.Service) (*listener.Listener, error) {
	for _, p := range s.passed {
		if p.Endpoint == ep {
			return listener.Adopt(p.FD, ep, sv)
		}
	}
	l, err := listener.Open(ep, sv)
	if !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	if pid := s.holder(ep); pid != 0 {
		return nil, fmt.Errorf("%w: process %d", errHeld, pid)
	}
	return listener.Open(ep, sv) // it may have ended just now
}

// errHeld: an address is taken by an instance that was started for it, by a row
// that has left it since.
var errHeld = errors.New("a server that was started earlier still has the address")

// later reports whether an endpoint that cannot be opened now may be later,
// without a new table.
func later(err error) bool {
	return errors.Is(err, listener.ErrNotUp) || errors.Is(err, listener.ErrLocked) || errors.Is(err, errHeld)
}

// isTaken reports whether somebody else has an address. That is waited for where the
// table is lenient.
func isTaken(err error) bool { return errors.Is(err, syscall.EADDRINUSE) && !errors.Is(err, errHeld) }

// holder finds an instance that has the socket of an endpoint, or of a peer that
// has come to it.
func (s *Supervisor) holder(ep service.Endpoint) (holder int) {
	s.reaper.each(func(pid int, in *instance) {
		if in.turn == nil && in.session == nil || in.local.Network != ep.Network {
			return
		}
		if in.local == ep || ep.Network.IP() && in.local.Addr.Port() == ep.Addr.Port() {
			holder = pid
		}
	})
	return holder
}

// awaitHolders tries again for as long as an address is held or taken.
func (s *Supervisor) awaitHolders() {
	again := func(awaiting *bool, every time.Duration) {
		if *awaiting {
			return
		}
		*awaiting = true
		time.AfterFunc(every, func() {
			s.applyMu.Lock()
			*awaiting = false
			s.applyMu.Unlock()
			s.addressesChanged()
		})
	}
	for _, u := range s.units {
		for _, w := range u.waiting {
			switch {
			case errors.Is(w.err, errHeld):
				again(&s.awaiting, heldEvery)
			case isTaken(w.err):
				again(&s.awaitingOthers, takenEvery)
			}
		}
	}
}

// How often it is looked whether an address is still held, or taken.
const (
	heldEvery  = 200 * time.Millisecond
	takenEvery = 2 * time.Second
)

// addressesChanged tries the endpoints whose addresses were not up.
func (s *Supervisor) addressesChanged() {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	if s.stopping.Load() {
		return
	}
	var fresh []*socket
	for _, u := range s.units {
		var still []waiting
		for _, w := range u.waiting {
			l, err := s.listen(w.Endpoint, u.row.Load().Service)
			if (errors.Is(w.err, errHeld) || isTaken(w.err)) && isTaken(err) {
				err = w.err // what is left of it goes in a moment; others have been named
			}
			if err != nil {
				if !later(err) && !isTaken(w.err) {
					s.log.notUp(u, w.Endpoint, err)
				}
				still = append(still, waiting{w.Endpoint, err})
				continue
			}
			so := s.newSocket(l, u)
			u.mu.Lock()
			s.handOver(so, u.row.Load())
			u.listeners = append(u.listeners, so)
			u.mu.Unlock()
			fresh = append(fresh, so)
			s.log.listening(u, so.Endpoint, "")
		}
		u.waiting = still
	}
	s.judge() // interfaces may have come or gone
	s.tokens.replace(s.units)
	for _, so := range fresh {
		so.unit.mu.Lock()
		if so.unit.paused == 0 {
			s.poll(so)
		}
		so.unit.mu.Unlock()
	}
	s.awaitHolders()
	s.register(false)
}

// inUse says how to find out who has an address.
func inUse(ep service.Endpoint, err error) error {
	if !errors.Is(err, syscall.EADDRINUSE) {
		return err
	}
	option := "-ltnp"
	switch n := ep.Network; {
	case n.UDP():
		option = "-lunp"
	case n.Unix():
		option = "-lxp"
	case n.Vsock():
		option = "-lp --vsock"
	}
	return fmt.Errorf("%w; `ss %s` shows who listens there", err, option)
}
