//go:build amd64 || arm64

// Init on Linux.

package spawn

import (
	"fmt"
	"os"
	"runtime"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"
)

// Init makes the process fit to start children. It belongs first in main, before
// anything is opened and before signals are asked for; calling it again does
// nothing.
//
//   - If signals were blocked when the process was started, the program is
//     executed again with none blocked, once: Go gives the mask it was started
//     with to all of its threads, and they to children.
//   - Signals that were ignored (nohup, a shell's "&") get their default
//     disposition, since ignoring is inherited over execve. What the daemon wants
//     to survive it has to ask for with signal.Notify, and it must not use
//     signal.Ignore. signal.Ignored still tells about SIGHUP and SIGINT.
//   - The umask becomes 022.
//   - Ambient and inheritable capabilities, with which a daemon that is not root
//     may have been started to listen on port 1, are given up. Its own stay.
//   - Inherited descriptors above 2 become close-on-exec, and where the spawn
//     program is used they move up, out of the way of the reserved ones: see Inherited.
//
// An error says what could not be done; children would see it.
func Init() error { return initialise() }

var initialise = sync.OnceValue(func() error {
	if !maskIsEmpty() {
		// It fails where there is no /proc. The spawn program then empties the mask
		// of every child; the twin cannot.
		if err := execWithoutMask(); err != nil {
			if ok, _ := Native(); !ok {
				return fmt.Errorf("signals are blocked: executing the program again: %w", err)
			}
		}
	}
	if err := resetIgnored(); err != nil {
		return err
	}
	if err := keepCapabilities(); err != nil {
		return fmt.Errorf("keeping capabilities from children: %w", err)
	}
	syscall.Umask(daemonUmask)
	noteInherited()
	if ok, _ := Native(); ok {
		if err := reserveSlots(); err != nil {
			return fmt.Errorf("reserving descriptors: %w", err)
		}
	}
	closeInheritedOnExec()
	return nil
})

// execWithoutMask does not return unless it fails. It is the file that runs now
// that is executed again, also if another has been installed in its place; the
// name is only used when it leads there, for ps(1) to show.
func execWithoutMask() error {
	const self = "/proc/self/exe"
	path := self
	if name, err := os.Readlink(self); err == nil && sameFile(name, self) {
		path = name
	}
	// The mask of the thread that executes a program becomes the program's.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := emptyMask(); err != nil {
		return err
	}
	return syscall.Exec(path, os.Args, os.Environ())
}

func sameFile(a, b string) bool {
	x, errX := os.Stat(a)
	y, errY := os.Stat(b)
	return errX == nil && errY == nil && os.SameFile(x, y)
}

// closeInheritedOnExec is for the children that do not close everything
// themselves: those of the twin, and helpers (Output).
func closeInheritedOnExec() {
	if unix.CloseRange(3, ^uint(0)>>32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return
	}
	// Before Linux 5.11. Only what was inherited can be without it; what has been
	// moved since has it already.
	for fd := range inherited {
		syscall.CloseOnExec(fd)
	}
}
