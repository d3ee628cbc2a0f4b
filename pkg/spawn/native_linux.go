//go:build amd64 || arm64

// The native path: a child that runs a list of system calls.
//
// The child is made with clone3(CLONE_VM|CLONE_VFORK): it shares the memory of
// this process, and the thread that made it sleeps in the kernel until the child
// executes its program or ends. Nothing is copied, so it costs the same however
// large the daemon is. What makes it safe beside a running Go program:
//
//   - The child runs no Go code and touches no stack. rawSpawn has all it needs
//     in registers before clone3, and in the child only loads from the call and
//     stores to its result. The frame that the parent returns to stays as it was.
//   - No signal handler runs in the child: CLONE_CLEAR_SIGHAND sets those that
//     the Go runtime has installed to the default, in the child only, so signals
//     need not be blocked around the clone. The child of a thread has no timers
//     of its own, and is in another thread group: the runtime's own signals go to
//     threads by number and never reach it.
//   - The other threads run on. Between entersyscall and exitsyscall this thread
//     has no P and counts as being in a system call, which it is: garbage
//     collection and stop-the-world do not wait for it, its stack is neither
//     moved nor shrunk. A signal for this thread is handled when clone3 returns;
//     one that arrives just before the clone makes the kernel start it again.
//   - All that the child or the kernel reads lives in the heap, whose objects Go
//     does not move; the pointers to it are numbers here, so the Program and the
//     Spawner hold the objects besides, and are kept alive over the call. Nothing
//     is on the goroutine's stack, which can move until entersyscall.
//   - What the child writes is two words in memory that is mapped for that
//     (result), outside the heap, after which the kernel's wake-up of the parent
//     orders it before the parent's reads.
//   - CLONE_FILES: the descriptor table is shared as well, because copying it
//     would cost a tenth of a microsecond per descriptor. So the first call of
//     the child, before it changes any descriptor, is close_range(low, ~0,
//     CLOSE_RANGE_UNSHARE): it takes a copy of the few descriptors below low, and
//     only those (slots.go). If that call fails the child ends, as after any
//     failure, without having touched the daemon's table.
//   - Identities are a thread's own, and so are, without CLONE_FS and
//     CLONE_SIGHAND, working directory, umask, mask and dispositions.
//   - Changing identities makes the shared memory non-dumpable (prctl(2),
//     PR_SET_DUMPABLE), which keeps the child's user from tracing a process that
//     has the daemon's memory. It must never be set back. Where the system is
//     configured otherwise the memory is not shared; see needsCopy.

package spawn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxOps is the length of the longest list, with room for a few steps more than
// are used.
const maxOps = 48

// An op is one system call of the child. If it fails, the child ends.
type op struct {
	nr uintptr
	// Room for a step whose failure is ignored, that takes the result of an earlier
	// one, or that stores a number in decimal.
	_ uintptr
	a [6]uintptr
}

// A result is what the child leaves behind: the number of the step it was last
// in, and why it failed there, 0 if it did not.
type result struct {
	step  uintptr
	errno uintptr
}

// cloneArgs is struct clone_args, clone(2). What has no name is 0.
type cloneArgs struct {
	flags      uint64
	_, _       uint64 // pidfd, child_tid
	parentTID  uint64 // where the kernel stores the pid before the child runs
	exitSignal uint64
	_, _, _    uint64 // stack, stack_size, tls: the child has those of this thread
	_, _, _    uint64 // set_tid, set_tid_size, cgroup
}

// A call is the argument of rawSpawn.
type call struct {
	clone  cloneArgs
	result *result
	n      uintptr // ops in use
	ops    [maxOps]op
}

// rawSpawn makes a child that runs c.ops, and returns in the parent, when the
// child has executed a program or ended, with its pid or a negative errno. The
// caller has to keep alive what c points to.
func rawSpawn(c *call) uintptr

// The two ends of a system call, for the scheduler. The runtime keeps them
// reachable for packages that make their own (go.dev/issue/67401).

//go:linkname entersyscall runtime.entersyscall
func entersyscall()

//go:linkname exitsyscall runtime.exitsyscall
func exitsyscall()

// enter is rawSpawn as a system call that may take time. Between the two ends
// there must be nothing that needs a P or a larger stack, which is why neither
// the race detector nor a stack check may add code here.
//
//go:norace
//go:nosplit
func enter(c *call) uintptr {
	entersyscall()
	r := rawSpawn(c)
	exitsyscall()
	return r
}

// cloneFlags are those of every child; needsCopy says when CLONE_VM is left out.
const cloneFlags = unix.CLONE_VM | unix.CLONE_VFORK | unix.CLONE_FILES |
	unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PARENT_SETTID

// The first steps are the same for every program and belong to the spawner: they
// name its slots.
const (
	headUnshare = iota
	headStdin
	headStdout
	headStderr
	headClose
	headLen
)

var headSteps = [headLen]string{"unshare", "stdio", "stdio", "stdio", "close"}

type spawner struct {
	call
	pid int32 // the child now; written by the kernel, read by any goroutine

	slotMu sync.Mutex // release is another thread's
	slots  slotPair
	logID  uint64 // of the Program whose log is in slots.log, 0: /dev/null is

	stat  unix.Statx_t
	extra []byte    // a copy of extraEnv; envp points into it
	envp  []uintptr // of the child, when it is not just the program's
}

// open takes slots and prepares what does not change from child to child.
func (s *spawner) open() error {
	own, low, err := takeSlots()
	if err != nil {
		return err
	}
	// Shared, not private: the child may have a copy of our memory (needsCopy).
	page, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(result{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		giveSlots(own)
		return err
	}
	s.slots = own
	s.result = (*result)(unsafe.Pointer(&page[0]))
	s.clone = cloneArgs{
		exitSignal: uint64(syscall.SIGCHLD),
		parentTID:  uint64(uintptr(unsafe.Pointer(&s.pid))),
	}
	s.ops[headUnshare] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{uintptr(low), lastFD, unix.CLOSE_RANGE_UNSHARE}}
	for i := range 3 {
		s.ops[headStdin+i] = op{nr: unix.SYS_DUP3, a: [6]uintptr{uintptr(own.conn), uintptr(i)}}
	}
	// The slots of other spawners were copied with ours, their sockets in them. They are given up at once, while nobody but root can stop the child.
	s.ops[headClose] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{3, lastFD}}
	return nil
}

// lastFD is the end of a close_range(2) that has none.
const lastFD = ^uintptr(0) >> 32

// from is the low descriptor that has what a child is to have. slotMu is held.
func (s *spawner) from(what Stdio) uintptr {
	switch what {
	case Log:
		return uintptr(s.slots.log)
	case Null:
		return uintptr(slots.null)
	}
	return uintptr(s.slots.conn)
}

func (s *spawner) child() int { return int(atomic.LoadInt32(&s.pid)) }

// start has the contract of Spawner.Start.
func (s *spawner) start(p *Program, conn int, extraEnv []byte) (int, error) {
	n := &p.native
	if n.fileFirst && !s.maybeFile(p) {
		return 0, &Error{Step: "check", Errno: syscall.EACCES}
	}
	body := s.ops[headLen : headLen+len(n.ops)]
	copy(body, n.ops)
	if len(extraEnv) > 0 {
		envp := s.environ(n, extraEnv)
		for _, at := range n.envArgs {
			body[at.op].a[at.arg] = envp
		}
	}
	s.n = uintptr(headLen + len(n.ops))
	s.clone.flags = n.flags

	if step, errno := s.occupy(p, conn); errno != 0 {
		return 0, &Error{Step: step, Errno: errno}
	}
	r := enter(&s.call)
	atomic.StoreInt32(&s.pid, 0)
	s.vacate()
	runtime.KeepAlive(p)
	runtime.KeepAlive(s)

	if errno := -r; errno < 4096 {
		return 0, &Error{Step: "clone", Errno: syscall.Errno(errno)}
	}
	// The last step is execve, which does not return if it succeeds. A child that
	// was killed in it may as well have been killed in its program.
	if step := int(s.result.step); s.result.errno != 0 || step != headLen+n.exec {
		return int(r), &Error{Step: n.step(step), Errno: syscall.Errno(s.result.errno), Replied: n.replied(step, s.result.errno)}
	}
	return int(r), nil
}

// maybeFile reports whether the program is a regular file, or what it is cannot
// be seen from here: then the child will tell.
func (s *spawner) maybeFile(p *Program) bool {
	if root := p.attr.Chroot; root != "" {
		mode, err := fileMode(root, p.attr.Path)
		return err != nil || mode&unix.S_IFMT == unix.S_IFREG
	}
	path := p.native.ops[p.native.exec].a[0]
	_, _, errno := syscall.Syscall6(unix.SYS_STATX, atFDCWD, path, 0, unix.STATX_TYPE, uintptr(unsafe.Pointer(&s.stat)), 0)
	return errno != 0 || s.stat.Mode&unix.S_IFMT == unix.S_IFREG
}

// environ returns the child's envp: extraEnv, and what of the program's
// environment is not replaced by it.
func (s *spawner) environ(n *program, extraEnv []byte) uintptr {
	s.extra = append(append(s.extra[:0], extraEnv...), 0)
	s.envp = s.envp[:0]
	for i, e := range n.env {
		if !replaced(e, extraEnv) {
			s.envp = append(s.envp, n.envp[i])
		}
	}
	for rest := s.extra; len(rest) > 0; {
		var e []byte
		if e, rest = cutEnv(rest); len(e) > 0 {
			s.envp = append(s.envp, uintptr(unsafe.Pointer(&e[0])))
		}
	}
	s.envp = append(s.envp, 0)
	return uintptr(unsafe.Pointer(&s.envp[0]))
}

// nativeHere makes one child, to be sure: a container may forbid clone3, a
// sandbox may know it and not all of its flags.
var nativeHere = sync.OnceValues(func() (bool, string) {
	if step, errno := probe(); errno != 0 {
		return false, step + ": " + errno.Error()
	}
	if why := needsCopy(); why != "" {
		return true, why
	}
	return true, ""
})

// probe starts a child that only unshares the descriptor table and exits.
func probe() (step string, errno syscall.Errno) {
	s := &spawner{call: call{result: new(result), n: 2}}
	s.clone = cloneArgs{
		flags:     cloneFlags,
		parentTID: uint64(uintptr(unsafe.Pointer(&s.pid))),
		// No exitSignal: a wait for any child does not see this one.
	}
	s.ops[0] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{3, lastFD, unix.CLOSE_RANGE_UNSHARE}}
	s.ops[1] = op{nr: unix.SYS_EXIT_GROUP}
	r := enter(&s.call)
	runtime.KeepAlive(s)
	if errno := syscall.Errno(-r); errno < 4096 {
		switch errno {
		case unix.EAGAIN, unix.ENOMEM:
			return "", 0 // for now, or for this user: it says nothing about the kernel
		}
		return "clone3", errno
	}
	for {
		_, err := unix.Wait4(int(r), nil, unix.WCLONE, nil)
		if err != unix.EINTR {
			break
		}
	}
	return "close_range", syscall.Errno(s.result.errno)
}
