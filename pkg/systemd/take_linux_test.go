package systemd

import (
	"os"
	"testing"

	"golang.org/x/sys/unix"
)

// The number is the one that systemd gives: the inode of any pidfd of the
// process, and of no other's.
func TestPidfdID(t *testing.T) {
	id, known := pidfdID()
	if !known {
		t.Log("before Linux 6.9")
		return
	}
	inode := func(pid int) uint64 {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		var st unix.Stat_t
		if err := unix.Fstat(fd, &st); err != nil {
			t.Fatal(err)
		}
		return st.Ino
	}
	if own := inode(os.Getpid()); own != id {
		t.Errorf("%d, want %d", id, own)
	}
	if inode(os.Getppid()) == id {
		t.Error("the parent has the same")
	}
}
