package supervisor

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// outputPair makes the two ends of a row's log. The children's end blocks, for
// patience at most; the other one tells who has sent a message (SO_PASSCRED,
// unix(7)).
func outputPair(patience time.Duration) (send, receive int, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, -1, os.NewSyscallError("socketpair", err)
	}
	tv := unix.NsecToTimeval(int64(patience))
	if err = unix.SetsockoptTimeval(fds[0], unix.SOL_SOCKET, unix.SO_SNDTIMEO, &tv); err == nil {
		err = unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
	}
	if err == nil {
		err = unix.Shutdown(fds[0], unix.SHUT_RD) // nothing ever comes the other way
	}
	// Nobody can pass a descriptor, the last close of which may take as long as
	// its SO_LINGER says. Before Linux 6.16 that cannot be kept off.
	unix.SetsockoptInt(fds[1], unix.SOL_SOCKET, unix.SO_PASSRIGHTS, 0)
	if err != nil {
		unix.Close(fds[0])
		unix.Close(fds[1])
		return -1, -1, os.NewSyscallError("setsockopt", err)
	}
	return fds[0], fds[1], nil
}

// receiveOutput takes one message. cut says that it was longer than b.
func receiveOutput(fd int, b []byte) (n, pid int, cut bool, err error) {
	var oob [64]byte
	for {
		n, oobn, flags, _, err := unix.Recvmsg(fd, b, oob[:], unix.MSG_DONTWAIT|unix.MSG_CMSG_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return 0, 0, false, err
		}
		messages, err := unix.ParseSocketControlMessage(oob[:oobn])
		if err != nil {
			return n, 0, flags&unix.MSG_TRUNC != 0, nil
		}
		for i := range messages {
			if cred, err := unix.ParseUnixCredentials(&messages[i]); err == nil {
				pid = int(cred.Pid)
			} else if fds, err := unix.ParseUnixRights(&messages[i]); err == nil {
				for _, fd := range fds { // nobody has asked for those
					unix.Close(fd)
				}
			}
		}
		return n, pid, flags&unix.MSG_TRUNC != 0, nil
	}
}
