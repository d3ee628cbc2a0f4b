//go:build amd64 || arm64

// The low descriptors of the spawners.
//
// A child copies the descriptors below a mark, low, and gives up all others
// with one system call. So what it needs has to be below: each spawner owns one
// low descriptor, its slot, and puts the connection there for the time of a
// start. Between starts a slot is open on /dev/null, because a free number is
// what the next accept4 gets. How many there are, and so low, is fixed by Init;
// neither rows nor connections change it.

package spawn

import (
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The number of slots: four for each processor, one to work with and three for
// when a child is held before its program, within these bounds, and at most an
// eighth of the descriptors the process may have. All of them are copied for
// every child, so more would cost each a little.
const (
	minSlots = 2
	fewSlots = 8
	maxSlots = 24
)

func slotsWanted(nofile uint64) int {
	n := min(max(4*runtime.NumCPU(), fewSlots), maxSlots)
	return max(min(n, int(min(nofile/8, maxSlots))), minSlots)
}

var slots struct {
	mu   sync.Mutex
	low  int   // all slots are below
	null int   // a descriptor below low that stays on /dev/null
	n    int   // how many there are
	free []int // those that nobody has, the lowest last
}

func takeSlot() (slot, low int, err error) {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if slots.low == 0 {
		return 0, 0, errors.New("spawn.Init was not called")
	}
	if len(slots.free) == 0 {
		return 0, 0, errors.New("all spawners are taken")
	}
	slot = slots.free[len(slots.free)-1]
	slots.free = slots.free[:len(slots.free)-1]
	return slot, slots.low, nil
}

// Slots is how many Spawners there can be at a time on the native path, 0 before
// Init.
func Slots() int {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	return slots.n
}

func giveSlot(slot int) {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	slots.free = append(slots.free, slot)
}

// occupy puts conn onto the slot, in one step: the number is never free. It also
// forgets how far the last child came, so that release does not take this one to
// be there already.
func (s *spawner) occupy(conn int) syscall.Errno {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	atomic.StoreUintptr(&s.result.step, 0)
	s.result.errno = 0
	return dup3(conn, s.slot)
}

// vacate gives up the connection and keeps the number, if release has not given
// up both. It cannot fail: both descriptors are open, and nobody else's.
func (s *spawner) vacate() {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if s.slot != noSlot {
		dup3(slots.null, s.slot)
	}
}

// noSlot is the slot of a spawner that has given it back.
const noSlot = -1

// close gives up all that open took. release may come at the same time.
func (s *spawner) close() {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	page := unsafe.Slice((*byte)(unsafe.Pointer(s.result)), unsafe.Sizeof(result{}))
	s.result = nil
	unix.Munmap(page)
	if s.slot != noSlot {
		giveSlot(s.slot)
		s.slot = noSlot
	}
}

// release has the contract of Spawner.Release. From the step after headClose on
// the child has descriptors of its own, so that nothing it does needs the slot.
func (s *spawner) release() bool {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	// Without a child the step is that of the last one.
	if s.slot == noSlot || s.child() == 0 || atomic.LoadUintptr(&s.result.step) <= headClose {
		return false
	}
	dup3(slots.null, s.slot)
	giveSlot(s.slot)
	s.slot = noSlot
	return true
}

// dup3 does not block: what it closes is still open elsewhere.
func dup3(from, to int) syscall.Errno {
	for {
		_, _, errno := syscall.RawSyscall(unix.SYS_DUP3, uintptr(from), uintptr(to), unix.O_CLOEXEC)
		if errno != unix.EINTR {
			return errno
		}
	}
}

// reserveSlots takes the lowest descriptors above 2.
//
// Three kinds of descriptors can be there. A free one is taken. An inherited one
// is moved above low: it may be a lock that whoever started the daemon relies on,
// so it is not closed. One that this process has opened since it was started
// stays: the Go runtime has an epoll and an eventfd that cannot be moved. The
// last two are told apart by close-on-exec: an inherited descriptor cannot have
// it, execve would have closed it, and all that Go opens does.
func reserveSlots() error {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if slots.low != 0 {
		return nil
	}
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	want := 1 + slotsWanted(lim.Cur)

	low, inherited := 3, []int(nil)
	for found := 0; found < want; low++ {
		flags, err := unix.FcntlInt(uintptr(low), unix.F_GETFD, 0)
		switch {
		case err == unix.EBADF:
			found++
		case err != nil:
			return fmt.Errorf("looking at descriptor %d: %w", low, err)
		case flags&unix.FD_CLOEXEC == 0:
			inherited = append(inherited, low)
			found++
		}
	}
	var moved []int
	for _, fd := range inherited {
		to, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, low)
		if err != nil {
			for _, fd := range moved {
				unix.Close(fd)
			}
			return fmt.Errorf("moving inherited descriptor %d: %w", fd, err)
		}
		moved = append(moved, to)
	}

	// What is opened gets the lowest free number, so that no number is taken from
	// anybody who opens something at the same time.
	var taken []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("opening /dev/null: %w", err)
		}
		if fd < low {
			taken = append(taken, fd)
			continue
		}
		for _, old := range inherited {
			if errno := dup3(fd, old); errno != 0 {
				return fmt.Errorf("moving inherited descriptor %d: %w", old, errno)
			}
			taken = append(taken, old)
		}
		unix.Close(fd)
		break
	}
	if len(taken) < 2 {
		return errors.New("no low descriptors are free")
	}
	slots.low, slots.null = low, taken[0]
	for i := len(taken) - 1; i > 0; i-- {
		slots.free = append(slots.free, taken[i])
	}
	slots.n = len(slots.free)
	return nil
}
