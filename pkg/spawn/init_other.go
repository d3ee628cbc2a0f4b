//go:build !linux || !(amd64 || arm64)

// Init elsewhere: what package syscall offers on every system.

package spawn

import (
	"os"
	"strconv"
	"syscall"
)

// Init makes the process fit to start children. It belongs first in main, before
// anything is opened; calling it again does nothing. The umask becomes 022, and
// inherited descriptors above 2 become close-on-exec. Signals that were ignored
// or blocked when the process was started are so for children, too, on this
// system.
func Init() error {
	syscall.Umask(daemonUmask)
	names, err := os.ReadDir("/dev/fd")
	if err != nil {
		return err
	}
	for _, name := range names {
		if fd, err := strconv.Atoi(name.Name()); err == nil && fd > 2 {
			syscall.CloseOnExec(fd)
		}
	}
	return nil
}
