package listener

import (
	"fmt"

	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
)

// SetBans has the kernel drop what comes from banned sources, whatever the access
// of the row; nil: nothing any more. It is for sockets with ports whose packets
// the server reads by itself, and costs others nothing if b is nil. The Bans stay
// the caller's.
func (l *Listener) SetBans(b *filter.Bans) error {
	if l.guard == nil || !l.Endpoint.Network.IP() {
		return nil
	}
	if !l.hold() {
		return ErrClosed
	}
	defer l.release()
	if err := l.guard.setBans(l.fd, b); err != nil {
		return fmt.Errorf("banning sources on %s %s: %w", l.Endpoint.Network, l.Endpoint, err)
	}
	return nil
}

// Bans are those of the last SetBans.
func (l *Listener) Bans() *filter.Bans {
	if l.guard == nil {
		return nil
	}
	l.guard.mu.Lock()
	defer l.guard.mu.Unlock()
	return l.guard.bans
}

func (g *guard) setBans(fd int, b *filter.Bans) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.bans == b && (g.bansKnown || g.filter == nil) {
		return nil
	}
	if g.filter == nil {
		if err := g.attach(fd, filter.Judgment{}); err != nil {
			return err
		}
	}
	if err := g.filter.Ban(b); err != nil {
		return err
	}
	g.bans, g.bansKnown = b, true
	return nil
}
