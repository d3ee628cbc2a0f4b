package listener

// Sockets that the daemon was passed: all its descriptors of one are one open
// file description, with everything that was ever set on it.

import (
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/filter"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// inherited remembers the guard of every passed socket by SO_COOKIE, which the
// kernel gives only once: rows come and go, the socket and what is on it stay.
// There are no more than were passed.
var inherited = struct {
	sync.Mutex
	guards map[uint64]*guard
}{guards: make(map[uint64]*guard)}

// cookieOf is a number that the kernel gives to this socket and to no other.
func cookieOf(fd int) (uint64, error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	return cookie, os.NewSyscallError("getsockopt SO_COOKIE", err)
}

func guardOf(fd int) (*guard, error) {
	cookie, err := cookieOf(fd)
	if err != nil {
		return nil, err
	}
	inherited.Lock()
	defer inherited.Unlock()
	g := inherited.guards[cookie]
	if g == nil {
		g = &guard{options: unset}
		if locked, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER); err == nil && locked != 0 {
			if g.filter, err = filter.Find(fd); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrLocked, err)
			}
		}
		inherited.guards[cookie] = g
	}
	return g, nil
}

func adopt(fd int, ep service.Endpoint, sv *service.Service) (l *Listener, err error) {
	g, err := guardOf(fd)
	if err != nil {
		return nil, err
	}
	l = newListener(ep, sv, g)
	l.adopted = true
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, os.NewSyscallError("fcntl", err)
	}
	defer func() {
		if err != nil {
			unix.Close(own)
		}
	}()
	l.fd = own
	if z := ep.Addr.Addr().Zone(); z != "" {
		if l.zone, err = interfaceIndex(z); err != nil {
			return nil, err
		}
	}
	g.mu.Lock()
	old := g.options
	g.mu.Unlock()
	if err := l.change(&service.Service{Socket: old}, sv); err != nil {
		return nil, err
	}
	return l, setBlocking(l.fd, sv.Wait)
}
