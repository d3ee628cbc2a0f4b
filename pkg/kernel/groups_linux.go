package kernel

import (
	"encoding/binary"
	"reflect"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// PeerGroups are the supplementary groups of who has connected a unix socket,
// as they were at that time: SO_PEERGROUPS in unix(7), since Linux 4.13.
func PeerGroups(fd int) ([]uint32, error) {
	// Enough for nearly everybody; the kernel says how much it wants otherwise.
	for size := 64 * 4; ; {
		b := make([]byte, size)
		length := new(uint32)
		*length = uint32(size)
		var p runtime.Pinner
		p.Pin(length)
		_, _, errno := syscall.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
			uintptr(pin(&p, b)), reflect.ValueOf(length).Pointer(), 0)
		p.Unpin()
		switch {
		case errno == unix.ERANGE && int(*length) > size:
			size = int(*length)
			continue
		case errno != 0:
			return nil, errno
		}
		groups := make([]uint32, 0, *length/4)
		for b = b[:*length]; len(b) >= 4; b = b[4:] {
			groups = append(groups, binary.NativeEndian.Uint32(b))
		}
		return groups, nil
	}
}
