package kernel

import (
	"encoding/binary"
	"os"
	"reflect"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// CameBy is the index of the interface by which the peer of a connected TCP socket
// has come: the kernel notes it at the last packet of the handshake, and tells it
// as IP_PKTINFO in IP_PKTOPTIONS, ip(7), or IPV6_2292PKTOPTIONS. v6 says that the
// socket is of the family AF_INET6, whatever its peer's. The socket is left as it
// was but for the option to tell, which is off afterwards.
func CameBy(fd int, v6 bool) (uint32, error) {
	level, tell, options := unix.IPPROTO_IP, unix.IP_PKTINFO, unix.IP_PKTOPTIONS
	if v6 {
		level, tell, options = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, unix.IPV6_2292PKTOPTIONS
	}
	if err := unix.SetsockoptInt(fd, level, tell, 1); err != nil {
		return 0, os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	defer unix.SetsockoptInt(fd, level, tell, 0)
	b := make([]byte, controlSize)
	length := new(uint32)
	*length = uint32(len(b))
	var p runtime.Pinner
	p.Pin(length)
	_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), uintptr(level), uintptr(options),
		uintptr(pin(&p, b)), reflect.ValueOf(length).Pointer(), 0)
	p.Unpin()
	if errno != 0 {
		return 0, os.NewSyscallError("getsockopt IP_PKTOPTIONS", errno)
	}
	for b = b[:*length]; len(b) >= unix.SizeofCmsghdr; {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			break
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			return binary.NativeEndian.Uint32(data), nil
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			return binary.NativeEndian.Uint32(data[16:]), nil
		}
	}
	return 0, unix.ENODATA
}
