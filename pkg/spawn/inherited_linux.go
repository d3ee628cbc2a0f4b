//go:build amd64 || arm64

// The list of descriptors that /proc has.

package spawn

import (
	"strconv"

	"golang.org/x/sys/unix"
)

// noteInherited looks once at every open descriptor, however many there are. Not
// by package os, which would make the runtime open its poller.
func noteInherited() {
	dir, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		noteProbed()
		return
	}
	defer unix.Close(dir)
	buf := make([]byte, 8192)
	for {
		n, err := unix.ReadDirent(dir, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			noteProbed()
			return
		case n <= 0:
			return
		}
		_, _, names := unix.ParseDirent(buf[:n], -1, nil)
		for _, name := range names {
			if fd, err := strconv.Atoi(name); err == nil && fd > 2 && isInherited(fd) {
				inherited[fd] = fd
			}
		}
	}
}
