// The descriptors above 2 that the process was started with: a service manager
// passes sockets in them.

package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

// inherited has where each of them is now. Init fills it in, and nobody changes
// it afterwards.
var inherited = map[int]int{}

// Inherited returns where a descriptor above 2 that the process was started with
// is now. Init moves those that are in the way of its own. ok is false if the
// process was not started with it, and before Init. The descriptor has
// close-on-exec set by then and otherwise is as it was passed; it is the
// caller's, if he knows what it is for.
//
// Any goroutine may call it once Init has returned.
func Inherited(fd int) (now int, ok bool) {
	now, ok = inherited[fd]
	return now, ok
}

// isInherited reports whether fd is open and was so before this process: execve
// would have closed it if it had close-on-exec, and all that Go opens has it.
func isInherited(fd int) bool {
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0)
	return err == nil && flags&unix.FD_CLOEXEC == 0
}

// maxProbed bounds how many descriptors are looked at one by one. A limit on
// descriptors may well be a milliard.
const maxProbed = 1 << 16

// noteProbed notes what is inherited by looking at every number, for systems
// that have no list. Numbers from maxProbed on are not found.
func noteProbed() {
	n := maxProbed
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) == nil && uint64(lim.Cur) < maxProbed {
		n = int(lim.Cur)
	}
	for fd := 3; fd < n; fd++ {
		if isInherited(fd) {
			inherited[fd] = fd
		}
	}
}
