package systemd

import (
	"os"

	"golang.org/x/sys/unix"
)

// pidfsMagic is PIDFS_MAGIC of linux/magic.h.
const pidfsMagic = 0x50494446

// pidfdID is what LISTEN_PIDFDID has for this process: the inode of its pidfd.
// It is not known before Linux 6.9, where pidfds have no file system of their own
// and all have the same inode.
func pidfdID() (id uint64, known bool) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var fs unix.Statfs_t
	var st unix.Stat_t
	if unix.Fstatfs(fd, &fs) != nil || fs.Type != pidfsMagic || unix.Fstat(fd, &st) != nil {
		return 0, false
	}
	return st.Ino, true
}

// monotonic is CLOCK_MONOTONIC in microseconds, as MONOTONIC_USEC has it.
func monotonic() uint64 {
	var ts unix.Timespec
	unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return uint64(ts.Nano()) / 1000
}
