package kernel

import (
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Disconnect dissolves the association of a datagram socket, which keeps the
// address and port it was bound to: connect(2) with AF_UNSPEC.
func Disconnect(fd int) error {
	var p runtime.Pinner
	defer p.Unpin()
	unspecified := make([]byte, unix.SizeofSockaddrInet4) // AF_UNSPEC is 0
	_, _, errno := syscall.Syscall(unix.SYS_CONNECT, uintptr(fd), uintptr(pin(&p, unspecified)), uintptr(len(unspecified)))
	if errno != 0 {
		return errno
	}
	return nil
}
