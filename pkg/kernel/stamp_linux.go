package kernel

import (
	"encoding/binary"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Stamp tells when the datagram came that was last read from a socket, by
// whoever shares it: seconds and microseconds of the wall clock, for comparing
// with an earlier answer. ENOENT means that none was read yet. The first call
// makes the kernel note these times, SIOCGSTAMP in socket(7).
func Stamp(fd int) (seconds, microseconds int64, err error) {
	var p runtime.Pinner
	defer p.Unpin()
	t := make([]byte, 16) // struct __kernel_sock_timeval, linux/time_types.h
	_, _, errno := syscall.Syscall(unix.SYS_IOCTL, uintptr(fd), unix.SIOCGSTAMP_NEW, uintptr(pin(&p, t)))
	if errno != 0 {
		return 0, 0, errno
	}
	return int64(binary.NativeEndian.Uint64(t)), int64(binary.NativeEndian.Uint64(t[8:])), nil
}
