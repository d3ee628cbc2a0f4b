//go:build amd64 || arm64

// What is known about the kernel, and numbers that assembly needs.

package spawn

import (
	"bytes"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// For the assembly, which sees them as const_….
//
//lint:ignore U1000 they are used there
const (
	sysClone3    = unix.SYS_CLONE3
	sysExitGroup = unix.SYS_EXIT_GROUP
	cloneSize    = unix.CLONE_ARGS_SIZE_VER2 // of cloneArgs
	exitFailed   = 127                       // what a child ends with that does not become its program, as in a shell
)

var _ [cloneSize]byte = [unsafe.Sizeof(cloneArgs{})]byte{}

// needsCopy says why a child with another identity must not share our memory,
// and is empty if it may. Such a child then has a copy (clone3 without CLONE_VM),
// as with fork. Only what is written before the child executes its program is
// really copied, but the page tables are, which makes a start about twice as
// expensive.
var needsCopy = func() string {
	var uts unix.Utsname
	unix.Uname(&uts)
	return copyReason(suidDumpable(), unix.ByteSliceToString(uts.Release[:]))
}

// suidDumpable reads the setting. Not by package os, which would make the
// runtime open its poller: Init comes here, and wants the low descriptors.
func suidDumpable() string {
	fd, err := unix.Open("/proc/sys/fs/suid_dumpable", unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return ""
	}
	defer unix.Close(fd)
	var b [16]byte
	n, _ := unix.Read(fd, b[:])
	return string(bytes.TrimSpace(b[:max(n, 0)]))
}

// copyReason decides by fs.suid_dumpable, proc_sys_fs(5): what becomes of the
// memory of a process that changes its identity.
//
//	0  It cannot be traced or dumped by the new user.
//	1  The new user may trace the child, and so would own the daemon.
//	2  It can be dumped, by root only. Any signal that dumps core will do, and
//	   before Linux 5.16 a dump kills everything that shares the memory: the new
//	   user could end the daemon.
func copyReason(suidDumpable, release string) string {
	switch suidDumpable {
	case "0":
		return ""
	case "1":
		return "fs.suid_dumpable is 1, so memory is copied for every child"
	case "2":
		if atLeast(release, 5, 16) {
			return ""
		}
		return "fs.suid_dumpable is 2 on a kernel before 5.16, so memory is copied for every child"
	}
	return "fs.suid_dumpable is not known, so memory is copied for every child"
}

// atLeast compares a kernel release like "6.1.0-28-cloud-arm64".
func atLeast(release string, major, minor int) bool {
	number := func() int {
		n := 0
		for n < len(release) && '0' <= release[n] && release[n] <= '9' {
			n++
		}
		v, _ := strconv.Atoi(release[:n])
		release = release[n:]
		if release != "" {
			release = release[1:] // the dot
		}
		return v
	}
	if m := number(); m != major {
		return m > major
	}
	return number() >= minor
}
