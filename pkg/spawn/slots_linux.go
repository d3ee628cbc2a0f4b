//go:build amd64 || arm64

// The low descriptors of the spawners.
//
// A child copies the descriptors below a mark, low, and gives up all others
// with one system call. So what it needs has to be below: each spawner owns two
// low descriptors, its slots. In one it puts the connection for the time of a
// start; between starts that is open on /dev/null, because a free number is what
// the next accept4 gets. The other has the log of the row that was started last,
// so that another start of that row costs nothing more. How many there are, and
// so low, is fixed by Init; neither rows nor connections change it.

package spawn

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The number of pairs of slots: four for each processor, one to work with and
// three for when a child is held before its program, within these bounds, and at
// most an eighth of the descriptors the process may have. All of them are copied
// for every child, so more would cost each a little; and as many as these, with
// what Go may have among them, still fit into the 64 descriptors that the kernel
// copies without having to allocate a table.
const (
	minSlots = 2
	fewSlots = 8
	maxSlots = 24
)

func slotsWanted(nofile uint64) int {
	n := min(max(4*runtime.NumCPU(), fewSlots), maxSlots)
	return max(min(n, int(min(nofile/8/2, maxSlots))), minSlots)
}

// A slotPair is the slots of one spawner.
type slotPair struct{ conn, log int }

// noSlots is what a spawner has that has given its own back.
var noSlots = slotPair{-1, -1}

var slots struct {
	mu   sync.Mutex
	low  int        // all slots are below
	null int        // a descriptor below low that stays on /dev/null
	n    int        // how many pairs there are
	free []slotPair // those that nobody has, all on /dev/null, the lowest last
}

func takeSlots() (own slotPair, low int, err error) {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if slots.low == 0 {
		return noSlots, 0, errors.New("spawn.Init was not called")
	}
	if len(slots.free) == 0 {
		return noSlots, 0, errors.New("all spawners are taken")
	}
	own = slots.free[len(slots.free)-1]
	slots.free = slots.free[:len(slots.free)-1]
	return own, slots.low, nil
}

// Slots is how many Spawners there can be at a time on the native path, 0 before
// Init.
func Slots() int {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	return slots.n
}

// giveSlots takes back what is on /dev/null again.
func giveSlots(own slotPair) {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	slots.free = append(slots.free, own)
}

// occupy puts conn onto its slot, in one step: the number is never free. If p
// has a log that is not in the other slot, it is put there. The steps that make
// descriptors 1 and 2 are told where to find what they are. It also forgets how
// far the last child came, so that release does not take this one to be there
// already.
func (s *spawner) occupy(p *Program, conn int) (step string, errno syscall.Errno) {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if s.slots == noSlots {
		return "slot", syscall.EBADF
	}
	atomic.StoreUintptr(&s.result.step, 0)
	s.result.errno = 0
	if p.logs() && (p.logID == 0 || p.logID != s.logID) {
		if errno := dup3(p.log, s.slots.log); errno != 0 {
			return "log", errno
		}
		s.logID = p.logID
	}
	s.ops[headStdout].a[0], s.ops[headStderr].a[0] = s.from(p.attr.Stdout), s.from(p.attr.Stderr)
	return "slot", dup3(conn, s.slots.conn)
}

// vacate gives up the connection and keeps the number, if release has not given
// up all. It cannot fail: both descriptors are open, and nobody else's.
func (s *spawner) vacate() {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if s.slots != noSlots {
		dup3(slots.null, s.slots.conn)
	}
}

// give returns the slots as they were taken. slotMu is held.
func (s *spawner) give() {
	dup3(slots.null, s.slots.conn)
	if s.logID != 0 {
		dup3(slots.null, s.slots.log)
	}
	giveSlots(s.slots)
	s.slots, s.logID = noSlots, 0
}

// close gives up all that open took. release may come at the same time.
func (s *spawner) close() {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	page := unsafe.Slice((*byte)(unsafe.Pointer(s.result)), unsafe.Sizeof(result{}))
	s.result = nil
	unix.Munmap(page)
	if s.slots != noSlots {
		s.give()
	}
}

// release has the contract of Spawner.Release. From the step after headClose on
// the child has descriptors of its own, so that nothing it does needs the slots.
func (s *spawner) release() bool {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	// Without a child the step is that of the last one.
	if s.slots == noSlots || s.child() == 0 || atomic.LoadUintptr(&s.result.step) <= headClose {
		return false
	}
	s.give()
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
// What was moved is noted for Inherited. Three kinds of descriptors can be there. A free one is taken. An inherited one
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
	want := 1 + 2*slotsWanted(lim.Cur)

	low, displaced := 3, []int(nil)
	for found := 0; found < want; low++ {
		flags, err := unix.FcntlInt(uintptr(low), unix.F_GETFD, 0)
		switch {
		case err == unix.EBADF:
			found++
		case err != nil:
			return fmt.Errorf("looking at descriptor %d: %w", low, err)
		case flags&unix.FD_CLOEXEC == 0:
			displaced = append(displaced, low)
			found++
		}
	}
	var moved []int
	for _, fd := range displaced {
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
		for i, old := range displaced {
			if errno := dup3(fd, old); errno != 0 {
				return fmt.Errorf("moving inherited descriptor %d: %w", old, errno)
			}
			inherited[old] = moved[i]
			taken = append(taken, old)
		}
		unix.Close(fd)
		break
	}
	if len(taken) < 3 {
		return errors.New("no low descriptors are free")
	}
	slots.low, slots.null = low, taken[0]
	// If somebody else was faster one may be left over; it stays on /dev/null.
	for i := 1; i+1 < len(taken); i += 2 {
		slots.free = append(slots.free, slotPair{taken[i], taken[i+1]})
	}
	slices.Reverse(slots.free)
	slots.n = len(slots.free)
	return nil
}
