//go:build !linux || !(amd64 || arm64)

// Init elsewhere: what package syscall offers on every system.

package spawn

import (
	"sync"
	"syscall"
)

// Init makes the process fit to start children. It belongs first in main, before
// anything is opened; calling it again does nothing. The umask becomes 022, and
// inherited descriptors from 3 to 65535 become close-on-exec. Signals that were
// ignored or blocked when the process was started are so for children, too, on
// this system.
func Init() error {
	initialise()
	return nil
}

var initialise = sync.OnceFunc(func() {
	syscall.Umask(daemonUmask)
	// There need not be a /dev/fd that has them all.
	noteProbed()
	for fd := range inherited {
		syscall.CloseOnExec(fd)
	}
})
