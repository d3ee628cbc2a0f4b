//go:build amd64 || arm64

// Capabilities that would go to children over execve.

package spawn

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// keepCapabilities empties the ambient and the inheritable set,
// capabilities(7), of all threads. What is permitted and effective stays.
func keepCapabilities() error {
	hdr := &unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	data := new([2]unix.CapUserData)
	if err := unix.Capget(hdr, &data[0]); err != nil {
		return err
	}
	// An ambient capability is always inheritable as well.
	if data[0].Inheritable == 0 && data[1].Inheritable == 0 {
		return nil
	}
	if err := allThreads(unix.SYS_PRCTL, unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_CLEAR_ALL, 0); err != nil {
		return err
	}
	data[0].Inheritable, data[1].Inheritable = 0, 0
	err := allThreads(unix.SYS_CAPSET, uintptr(unsafe.Pointer(hdr)), uintptr(unsafe.Pointer(&data[0])), 0)
	runtime.KeepAlive(hdr)
	runtime.KeepAlive(data)
	return err
}

// allThreads makes a system call on every thread. In a program with cgo, as
// tests with the race detector are, Go cannot; then this thread has to do, from
// which those that come later are made. What the numbers point to is kept where
// it is.
//
//go:uintptrescapes
func allThreads(nr, a, b, c uintptr) error {
	_, _, errno := syscall.AllThreadsSyscall(nr, a, b, c)
	if errno == syscall.ENOTSUP {
		_, _, errno = syscall.RawSyscall6(nr, a, b, c, 0, 0, 0)
	}
	if errno != 0 {
		return errno
	}
	return nil
}
