package relay

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

const (
	// nameFresh is how long an answer is used before the name is looked up
	// again, in the background, while the answer goes on being used.
	nameFresh = 30 * time.Second
	// nameRetry is how long a failure lasts.
	nameRetry = 5 * time.Second
	// nameKept is how long a name is remembered that nobody asks for.
	nameKept = 10 * time.Minute
	// lookups is how many names are looked up at the same time.
	lookups = 8
	// lookupTime bounds one of them.
	lookupTime = 10 * time.Second
)

// A Lookup finds the addresses of a host, best first.
type Lookup func(ctx context.Context, host string) ([]netip.Addr, error)

// Names knows the addresses of hosts. Nobody waits for a look-up: it runs in a
// goroutine of its own, and whoever has asked is woken. It is safe for
// concurrent use.
//
// An answer is good for 30 s. After that it is still given, and renewed in the
// background, so that only the first connection to a host waits. If the
// resolver fails, the last answer stays; that a host does not exist is an answer
// and replaces it. Either is asked again after 5 s.
type Names struct {
	lookup Lookup
	ctx    context.Context
	cancel context.CancelFunc
	slots  chan struct{}
	tasks  sync.WaitGroup

	mu    sync.Mutex
	hosts map[string]*host
}

type host struct {
	addrs   []netip.Addr
	err     error     // why there are none, if there are none
	known   bool      // there has been an answer, or a failure
	expires time.Time // when to ask again
	asked   time.Time // for, the last time
	busy    bool      // being looked up
	waiting []ringer
}

// A ringer is woken when a name that it has asked for is known.
type ringer interface{ ring() }

// NewNames makes a Names that asks lookup, or Go's own resolver (the files and
// servers of resolv.conf(5), hosts(5) first) if that is nil.
func NewNames(lookup Lookup) *Names {
	if lookup == nil {
		resolver := &net.Resolver{PreferGo: true}
		lookup = func(ctx context.Context, host string) ([]netip.Addr, error) {
			return resolver.LookupNetIP(ctx, "ip", host)
		}
	}
	n := &Names{lookup: lookup, slots: make(chan struct{}, lookups), hosts: map[string]*host{}}
	n.ctx, n.cancel = context.WithCancel(context.Background())
	return n
}

// Close ends all look-ups and waits for them.
func (n *Names) Close() {
	n.cancel()
	n.tasks.Wait()
}

// get returns what is known of a host. If ok is false nothing is known yet, and
// w will be woken. The addresses are not to be changed.
func (n *Names) get(name string, w ringer) (addrs []netip.Addr, ok bool, err error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := time.Now()
	h := n.hosts[name]
	if h == nil {
		n.forget(now)
		h = new(host)
		n.hosts[name] = h
	}
	h.asked = now
	if !h.busy && (!h.known || !now.Before(h.expires)) {
		h.busy = true
		n.tasks.Go(func() { n.resolve(name, h) })
	}
	if !h.known {
		if !slices.Contains(h.waiting, w) {
			h.waiting = append(h.waiting, w)
		}
		return nil, false, nil
	}
	return h.addrs, true, h.err
}

// forget drops the names of rows that are gone.
func (n *Names) forget(now time.Time) {
	for name, h := range n.hosts {
		if !h.busy && now.Sub(h.asked) > nameKept {
			delete(n.hosts, name)
		}
	}
}

func (n *Names) resolve(name string, h *host) {
	addrs, err := n.ask(name)
	n.mu.Lock()
	defer n.mu.Unlock()
	var missing *net.DNSError
	gone := errors.As(err, &missing) && missing.IsNotFound
	switch now := time.Now(); {
	case err == nil:
		h.addrs, h.err, h.expires = addrs, nil, now.Add(nameFresh)
	case len(h.addrs) > 0 && !gone:
		h.expires = now.Add(nameRetry)
	default:
		h.addrs, h.err, h.expires = nil, err, now.Add(nameRetry)
	}
	h.known, h.busy = true, false
	for _, w := range h.waiting {
		w.ring()
	}
	h.waiting = nil
}

func (n *Names) ask(name string) ([]netip.Addr, error) {
	select {
	case n.slots <- struct{}{}:
		defer func() { <-n.slots }()
	case <-n.ctx.Done():
		return nil, n.ctx.Err()
	}
	ctx, cancel := context.WithTimeout(n.ctx, lookupTime)
	defer cancel()
	found, err := n.lookup(ctx, name)
	if err != nil {
		return nil, err
	}
	addrs := make([]netip.Addr, 0, len(found))
	for _, a := range found {
		addrs = append(addrs, a.Unmap())
	}
	if len(addrs) == 0 {
		return nil, fmt.Errorf("%s has no address", name)
	}
	return addrs, nil
}
