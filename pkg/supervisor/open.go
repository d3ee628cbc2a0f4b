package supervisor

// The sockets of a large table are opened and polled by several threads: that is
// the kernel's work, and half of the time that it takes to serve such a table.

import (
	"slices"
	"sync"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// manySockets is from how many on it is worth other threads.
const manySockets = 256

// An opening is a socket that is opened before its turn.
type opening struct {
	key socketKey
	sv  *service.Service
	l   *listener.Listener
	err error
}

// openMany opens the new sockets if there are many that do not stand in each
// other's way: those with ports, because paths have directories in common. They
// are in the order of the table.
func (c *change) openMany() (list []opening) {
	for _, sv := range c.table.Services {
		if c.calm[c.s.units[sv.ID]] {
			continue
		}
		for _, ep := range sv.Listen {
			if k := keyOf(sv, ep); ep.Network.IP() && c.had[k] == nil && c.inTheWay(k) == nil {
				list = append(list, opening{key: k, sv: sv})
			}
		}
	}
	if len(list) < manySockets {
		return nil
	}
	growTable(c.s.wakeFd, len(list))
	sideBySide(list, len(c.s.loops), func(o *opening) { o.l, o.err = c.s.listen(o.key.Endpoint, o.sv) })
	return list
}

// sideBySide does f to every element, by so many threads if there are many.
func sideBySide[T any](list []T, threads int, f func(*T)) {
	var all sync.WaitGroup
	for part := range slices.Chunk(list, max(manySockets, len(list)/threads+1)) {
		all.Go(func() {
			for i := range part {
				f(&part[i])
			}
		})
	}
	all.Wait()
}
