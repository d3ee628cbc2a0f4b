//go:build amd64 || arm64

// The low descriptors, for children that share the daemon's descriptor table.
//
// Such a child copies the descriptors below a mark, low, and gives up all others
// with one system call, so that its cost does not depend on how many there are.
// What it is to have comes to it through a socket pair whose receiving end is
// below the mark: a slot. The parent sends the connection there and is done with
// it; it need not wait until the child has taken it. How many slots there are,
// and so low, is fixed by Init; neither rows nor connections change it. Every
// number below low is in use all the time, because a free one is what the next
// accept4 gets: one that nobody has is open on /dev/null.

package spawn

import (
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The number of slots: four for each processor within these bounds, and an eighth
// of the descriptors the process may have. All of them are copied for every child,
// so more would cost each a little; and as many as these, with what Go may have
// among them, fit into the 64 descriptors that the kernel copies without having to
// allocate a table.
const (
	minSlots     = 2
	slotsPerProc = 4
	maxSlots     = 32
)

func slotsWanted(nofile uint64) int {
	n := min(slotsPerProc*runtime.NumCPU(), maxSlots)
	return min(n, max(int(min(nofile/8, maxSlots)), minSlots))
}

// Slots is how many children can be on their way at a time without costing more
// where the descriptor table is large. It is 0 before Init.
func Slots() int {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	return slots.n
}

// A slot is a socket pair: the receiving end, below low, and the other one.
type slot struct{ low, send int }

// noSlot is what a spawner has that has none.
var noSlot = slot{-1, -1}

var slots struct {
	mu   sync.Mutex
	low  int   // all slots are below
	null int   // a descriptor below low that stays on /dev/null
	n    int   // how many there are
	free []int // the numbers that nobody has, all on /dev/null, the lowest last
}

// takeSlot returns noSlot if all are taken, or another cannot be made.
func takeSlot() slot {
	slots.mu.Lock()
	defer slots.mu.Unlock()
	if len(slots.free) == 0 {
		return noSlot
	}
	last := len(slots.free) - 1
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return noSlot
	}
	own := slot{slots.free[last], pair[1]}
	errno := dup3(pair[0], own.low) // in one step: the number is never free
	unix.Close(pair[0])
	if errno != 0 {
		unix.Close(pair[1])
		return noSlot
	}
	slots.free = slots.free[:last]
	return own
}

func giveSlot(own slot) {
	if own == noSlot {
		return
	}
	unix.Close(own.send)
	slots.mu.Lock()
	defer slots.mu.Unlock()
	dup3(slots.null, own.low)
	slots.free = append(slots.free, own.low)
}

// A parcel is the message with a child's descriptors: what sendmsg(2) and, in
// the child, recvmsg(2) need.
type parcel struct {
	byte    [1]byte // a datagram without any would be no event
	rights  [64]byte
	iov     unix.Iovec
	header  unix.Msghdr // the child's
	control [64]byte
}

func (p *parcel) init() {
	p.iov = unix.Iovec{Base: &p.byte[0]}
	p.iov.SetLen(1)
	p.header = unix.Msghdr{Iov: &p.iov, Control: &p.control[0]}
	p.header.SetIovlen(1)
	h := (*unix.Cmsghdr)(unsafe.Pointer(&p.rights[0]))
	h.Level, h.Type = unix.SOL_SOCKET, unix.SCM_RIGHTS
}

// pass sends what the child's descriptors 0, 1 and 2 are to be into the slot, and
// makes the child's first steps. It reports false if that cannot be done now.
func (s *spawner) pass(files [3]int) bool {
	if s.slot == noSlot {
		if s.slot = takeSlot(); s.slot == noSlot {
			return false
		}
	}
	// Each is sent once, and comes to be where the first free number is: low.
	var sent [3]int32
	n := 0
	for i, fd := range files {
		at := slices.Index(sent[:n], int32(fd))
		if at < 0 {
			at = n
			sent[n] = int32(fd)
			n++
		}
		s.ops[headStdin+i].a[0] = uintptr(slots.low + at)
	}
	p := &s.parcel
	h := (*unix.Cmsghdr)(unsafe.Pointer(&p.rights[0]))
	h.SetLen(unix.CmsgLen(4 * n))
	*(*[3]int32)(unsafe.Pointer(&p.rights[unix.CmsgLen(0)])) = sent
	if _, err := unix.SendmsgN(s.slot.send, p.byte[:], p.rights[:unix.CmsgSpace(4*n)], nil, unix.MSG_DONTWAIT); err != nil {
		return false
	}
	p.header.SetControllen(len(p.control))
	s.ops[headUnshare] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{uintptr(slots.low), lastFD, unix.CLOSE_RANGE_UNSHARE}}
	s.ops[headReceive] = op{nr: unix.SYS_RECVMSG, a: [6]uintptr{uintptr(s.slot.low), uintptr(unsafe.Pointer(&p.header)), unix.MSG_DONTWAIT}}
	return true
}

// takeBack empties the slot of a child that may not have come to that.
func (s *spawner) takeBack() {
	if s.slot != noSlot {
		var b [1]byte
		unix.Recvfrom(s.slot.low, b[:], unix.MSG_DONTWAIT)
	}
}

// release has the contract of Spawner.Release. From the step after headReceive on
// the child has descriptors of its own, so that nothing it does needs the slot.
func (s *spawner) release() bool {
	// Without a child the step is that of the last one.
	if s.child() == 0 || atomic.LoadUintptr(&s.result.step) <= headReceive {
		return false
	}
	giveSlot(s.slot)
	s.slot = noSlot
	return true
}

// crowdedFrom is the number of descriptors from which on it is cheaper to share
// the table than to copy it.
const crowdedFrom = 128

// crowd is what is known of the table's size.
var crowd struct {
	large atomic.Bool
	look  atomic.Int64 // when that is to be looked for, in Unix seconds
}

// crowded reports whether the table is large. New descriptors have the lowest free
// number, so a high one says that it is. Whether it has become small again is
// looked for once a second.
func crowded(fd int) bool {
	if fd >= crowdedFrom {
		crowd.large.Store(true)
		return true
	}
	if !crowd.large.Load() {
		return false
	}
	if now := time.Now().Unix(); now >= crowd.look.Load() {
		crowd.look.Store(now + 1)
		crowd.large.Store(tableIsLarge())
	}
	return crowd.large.Load()
}

// tableIsLarge reports whether more than a few descriptors of crowdedFrom or more
// are open, or one that by itself makes the table large.
func tableIsLarge() bool {
	fd, err := unix.Open("/proc/self/fd", unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return true
	}
	defer unix.Close(fd)
	const few, far = 16, 4096
	return opened(fd, crowdedFrom) > few || opened(fd, far) > 0
}

// opened is how many descriptors from the given one on are open, as far as it
// counts. In the directory /proc/self/fd descriptor n is at offset n+2.
func opened(dir, from int) int {
	const entry = 24 // of linux_dirent64 for a number of up to five digits
	var b [64 * entry]byte
	if _, err := unix.Seek(dir, int64(from+2), 0); err != nil {
		return len(b)
	}
	n, err := unix.Getdents(dir, b[:])
	if err != nil {
		return len(b)
	}
	return n / entry
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
	want := 1 + slotsWanted(lim.Cur)

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
	if len(taken) < 2 {
		return errors.New("no low descriptors are free")
	}
	slots.low, slots.null = low, taken[0]
	slots.free = taken[1:]
	slices.Reverse(slots.free)
	slots.n = len(slots.free)
	return nil
}
