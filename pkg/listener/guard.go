package listener

// The filter of sockets whose packets the server reads by itself.

import (
	"slices"
	"sync"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A guard is what was put on a socket: the access filter, which is there for
// good once it is there, and, for an adopted socket, the options of the row
// that had it last.
type guard struct {
	mu      sync.Mutex
	filter  *filter.Filter   // nil: none yet
	judges  *filter.Judgment // what it judges by; nil: not known
	options service.Socket   // adopted sockets only

	bans      *filter.Bans // that the filter goes by, if bansKnown
	bansKnown bool         // else it may have those of an earlier daemon
}

// judge has the kernel judge by the access of sv, as it is now, what comes to a
// socket of network, or let everybody in where that is not the kernel's business.
func (g *guard) judge(fd int, network service.Network, sv *service.Service) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	var j filter.Judgment
	if sv.Wait && network.IP() {
		j = filter.Judgment{
			Closed:  sv.Hours != nil && !sv.Hours.Open(time.Now()),
			Sources: sv.Access, Locals: sv.Locals, Interfaces: Interfaces(sv.Interfaces),
		}
	}
	switch {
	case g.judges != nil && g.judges.Equal(j):
		return nil
	case g.filter != nil:
		err := g.filter.Update(j)
		if err == nil {
			g.judges = &j
		}
		return err
	case j.Equal(filter.Judgment{}) && (sv.Hours == nil || !sv.Wait || !network.IP()):
		return nil // with hours, even if they run: whether the kernel can is found out now
	}
	return g.attach(fd, j)
}

// attach puts a filter on a socket that has none. The caller holds mu.
func (g *guard) attach(fd int, j filter.Judgment) error {
	cookie, err := cookieOf(fd)
	if err != nil {
		return err
	}
	f, err := filter.New(j, cookie)
	if err != nil {
		return err
	}
	if err := f.Attach(fd); err != nil {
		f.Close()
		return err
	}
	g.filter, g.judges = f, &j
	return nil
}

// Judge has the kernel judge by the access of sv once more: its hours may have
// begun or ended, its interfaces may have come or gone. It does nothing where the
// kernel does not judge, or judges so already.
func (l *Listener) Judge(sv *service.Service) error {
	if !l.hold() {
		return ErrClosed
	}
	defer l.release()
	return l.guard.judge(l.fd, l.Endpoint.Network, sv)
}

// Interfaces are the indexes of those interfaces of these names that there are
// now, sorted; nil for nil names.
func Interfaces(names []string) []uint32 {
	if names == nil {
		return nil
	}
	list := make([]uint32, 0, len(names))
	for _, name := range names {
		if index, err := interfaceIndex(name); err == nil {
			list = append(list, index)
		}
	}
	slices.Sort(list)
	return slices.Compact(list)
}

// CameBy is the index of the interface by which the peer of conn, a TCP socket
// accepted here, has come.
func (l *Listener) CameBy(conn int) (uint32, error) {
	return kernel.CameBy(conn, l.Endpoint.Network.V6())
}

// close gives up the way to change the filter.
func (g *guard) close() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.filter != nil {
		g.filter.Close()
		g.filter, g.judges = nil, nil
	}
}
