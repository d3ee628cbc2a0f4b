package listener

// The filter of sockets whose packets the server reads by itself.

import (
	"sync"

	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A guard is what was put on a socket: the access filter, which is there for
// good once it is there, and, for an adopted socket, the options of the row
// that had it last.
type guard struct {
	mu      sync.Mutex
	filter  *filter.Filter // nil: none yet
	options service.Socket // adopted sockets only
}

// judge has the kernel judge by the rules of sv what comes to a socket of
// network, or let everybody in where that is not the kernel's business.
func (g *guard) judge(fd int, network service.Network, sv *service.Service) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	rules := sv.Access
	if !sv.Wait || !network.IP() {
		rules = nil
	}
	switch {
	case g.filter != nil:
		return g.filter.Update(rules)
	case rules == nil:
		return nil
	}
	cookie, err := cookieOf(fd)
	if err != nil {
		return err
	}
	f, err := filter.New(rules, cookie)
	if err != nil {
		return err
	}
	if err := f.Attach(fd); err != nil {
		f.Close()
		return err
	}
	g.filter = f
	return nil
}

// close gives up the way to change the filter.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.filter != nil {
		g.filter.Close()
		g.filter = nil
	}
}
