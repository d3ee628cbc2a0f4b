package listener

import (
	"os"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// Restore makes the socket of a wait row again what a server expects, whatever
// the servers before have done to what they have in common: O_NONBLOCK is
// cleared; a UDP socket that was connected to one peer hears everybody again; a
// TCP socket that shutdown(2) has ended listens again. A socket of UDP or unix(7)
// that was shut down stays so: nothing can undo that.
func (l *Listener) Restore(s service.Socket) error {
	if !l.hold() {
		return ErrClosed
	}
	defer l.release()
	if err := setBlocking(l.fd, l.blocking.Load()); err != nil {
		return err
	}
	switch network := l.Endpoint.Network; {
	case network.UDP():
		if _, err := unix.Getpeername(l.fd); err == nil {
			return os.NewSyscallError("connect", kernel.Disconnect(l.fd))
		}
	case network.TCP():
		if on, err := unix.GetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 0 {
			return os.NewSyscallError("listen", unix.Listen(l.fd, backlog(s)))
		}
	}
	return nil
}
