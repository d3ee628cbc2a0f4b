package control

import (
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// peerOf is the user that has connected.
func peerOf(c *net.UnixConn) (uid uint32, err error) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	err = raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if err == nil {
		err = os.NewSyscallError("getsockopt SO_PEERCRED", credErr)
	}
	if err != nil {
		return 0, err
	}
	return cred.Uid, nil
}
