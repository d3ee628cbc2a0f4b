//go:build amd64 || arm64

// Masks and dispositions as Linux has them. Package syscall has no call for
// either, and os/signal does not see what Go leaves alone.

package spawn

import (
	"fmt"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

const (
	lastSignal = 64
	sigsetLen  = 8 // of the kernel's sigset_t
)

// maskIsEmpty reports whether the threads of this process block no signal. All
// threads of a Go program have the mask it was started with, but for a few
// signals that Go never blocks, so any of them will do to ask.
var maskIsEmpty = sync.OnceValue(func() bool {
	var mask uint64
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, 0, uintptr(unsafe.Pointer(&mask)), sigsetLen, 0, 0)
	return errno != 0 || mask == 0
})

// emptyMask empties the mask of this thread.
func emptyMask() error {
	var mask uint64
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, sigsetLen, 0, 0); errno != 0 {
		return errno
	}
	return nil
}

// sigaction is the kernel's struct sigaction, which is not the same on every
// processor.
type sigaction struct {
	handler, flags, restorer, mask uint64
}

const (
	sigDefault = 0 // SIG_DFL
	sigIgnore  = 1 // SIG_IGN
)

// disposition returns what sig does now, and sets it to act if that is not nil.
func disposition(sig int, act *sigaction) (sigaction, syscall.Errno) {
	var old sigaction
	_, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(act)), uintptr(unsafe.Pointer(&old)), sigsetLen, 0, 0)
	return old, errno
}

// resetIgnored gives every ignored signal its default. It goes behind the back
// of the Go runtime, which does not mind: it looks at the disposition again when
// a signal is asked for.
func resetIgnored() error {
	for sig := 1; sig <= lastSignal; sig++ {
		old, errno := disposition(sig, nil)
		if errno != 0 || old.handler != sigIgnore {
			continue
		}
		if _, errno := disposition(sig, &sigaction{handler: sigDefault}); errno != 0 {
			return fmt.Errorf("resetting ignored signal %d: %w", sig, errno)
		}
	}
	return nil
}
