//go:build amd64 || arm64

// The native path: a child that runs a list of system calls.
//
// The child is made with clone3(CLONE_VM): it shares the memory of this process,
// so nothing is copied, and it costs the same however large the daemon is. The
// thread that made it does not sleep until the child executes its program, as after
// vfork(2): it goes on at once, which saves two switches between threads, and a
// child that somebody holds before its program holds no thread. The kernel
// clears a word (CLONE_CHILD_CLEARTID) when the child leaves the memory, by
// execve or by its end. What makes it safe beside a running Go program:
//
//   - The child runs no Go code and touches no stack. rawSpawn has all it needs
//     in registers before clone3, and in the child only loads from the call and
//     stores to its result. So the parent may use its stack at once, and move it.
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
//     Spawner hold the objects besides. The Spawner holds the Program, and whoever
//     has the Spawner holds that until the child has left. Nothing
//     is on the goroutine's stack, which can move until entersyscall.
//   - What the child writes is two words in memory that is mapped for that
//     (result), outside the heap. The parent reads them after it has seen the third
//     one cleared, which the kernel does long after, with locks taken in between.
//   - Without CLONE_FILES the child has a copy of the descriptor table, and gives up
//     all of it but 0, 1 and 2. Copying costs a tenth of a microsecond per
//     descriptor, so a large table is shared (CLONE_FILES): then the first call of
//     the child, before it changes any descriptor, is close_range(low, ~0,
//     CLOSE_RANGE_UNSHARE), which takes a copy of the few descriptors below low, and
//     only those, and the second receives the connection (slots_linux.go). If the
//     first one fails the child ends, without having touched the daemon's table.
//   - Identities are a thread's own, and so are, without CLONE_FS and
//     CLONE_SIGHAND, working directory, umask, mask and dispositions.
//   - Changing identities makes the shared memory non-dumpable (prctl(2),
//     PR_SET_DUMPABLE), which keeps the child's user from tracing a process that
//     has the daemon's memory. It must never be set back. Where the system is
//     configured otherwise the memory is not shared; see needsCopy.
//   - Two kinds of children the thread does wait for (CLONE_VFORK). With a copy of
//     the memory there is no word to clear. And what a child that shares memory
//     writes to its oom_score_adj becomes the daemon's as well, unless it is one of
//     vfork.

package spawn

import (
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"
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
// in, and why it failed there, 0 if it did not. away is 1 until the child has left
// the memory, when the kernel makes it 0 and wakes who waits there in futex(2).
type result struct {
	step  uintptr
	errno uintptr
	away  uint32
}

// cloneArgs is struct clone_args, clone(2). What has no name is 0.
type cloneArgs struct {
	flags      uint64
	_          uint64 // pidfd
	childTID   uint64 // what the kernel clears when the child leaves the memory
	parentTID  uint64 // where the kernel stores the pid before the child runs
	exitSignal uint64
	_, _, _    uint64 // stack, stack_size, tls: the child has those of this thread
	_, _, _    uint64 // set_tid, set_tid_size, cgroup
}

// A call is the argument of rawSpawn.
type call struct {
	clone  cloneArgs
	result *result
	first  *op     // where the child begins,
	from   uintptr // the number of that op,
	n      uintptr // and that after the last one
	// What a child does that fails, up to an op of number end, results ignored:
	// reset from the op of number told on, before that refuse, and nothing as long
	// as it has not its own descriptors.
	told          uintptr
	refuse, reset *op
	ops           [maxOps]op
}

// end is the number of an op that ends a list.
const end = ^uintptr(0)

// rawSpawn makes a child that runs c.ops, and returns in the parent with its pid
// or a negative errno: at once, or with CLONE_VFORK when the child has executed a
// program or ended. The caller has to keep c, and what it points to, as it is until
// then.
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

// cloneFlags are those of every child but for CLONE_VM, see needsCopy. With them
// go either of CLONE_CHILD_CLEARTID and CLONE_VFORK, and CLONE_FILES where the
// table is large.
const cloneFlags = unix.CLONE_VM | unix.CLONE_CLEAR_SIGHAND | unix.CLONE_PARENT_SETTID

// The first steps are the same for every program and belong to the spawner. With
// a table of its own the child begins at headStdin.
const (
	headUnshare = iota
	headReceive
	headStdin
	headStdout
	headStderr
	headClose
	headLen
)

var headSteps = [headLen]string{"unshare", "receive", "stdio", "stdio", "stdio", "close"}

type spawner struct {
	call
	pid     int32    // the child now; written by the kernel, read by any goroutine
	program *Program // its

	slot   slot // noSlot: none
	parcel parcel

	stat  unix.Statx_t
	extra []byte    // a copy of extraEnv; envp points into it
	envp  []uintptr // of the child, when it is not just the program's
}

// open prepares what does not change from child to child.
func (s *spawner) open() error {
	// Shared, not private: the child may have a copy of our memory (needsCopy).
	page, err := unix.Mmap(-1, 0, int(unsafe.Sizeof(result{})), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	s.slot = noSlot
	s.parcel.init()
	s.result = (*result)(unsafe.Pointer(&page[0]))
	s.clone = cloneArgs{
		exitSignal: uint64(syscall.SIGCHLD),
		childTID:   uint64(uintptr(unsafe.Pointer(&s.result.away))),
		parentTID:  uint64(uintptr(unsafe.Pointer(&s.pid))),
	}
	for i := range 3 {
		s.ops[headStdin+i] = op{nr: unix.SYS_DUP3, a: [6]uintptr{0, uintptr(i)}}
	}
	// What else there is belongs to others. It is given up at once, while nobody but
	// root can stop the child.
	s.ops[headClose] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{3, lastFD}}
	return nil
}

// close gives up all that open and begin took.
func (s *spawner) close() {
	page := unsafe.Slice((*byte)(unsafe.Pointer(s.result)), unsafe.Sizeof(result{}))
	s.result = nil
	unix.Munmap(page)
	giveSlot(s.slot)
	s.slot = noSlot
}

// lastFD is the end of a close_range(2) that has none.
const lastFD = ^uintptr(0) >> 32

func (s *spawner) child() int { return int(atomic.LoadInt32(&s.pid)) }

// begin has the contract of Spawner.Begin.
func (s *spawner) begin(p *Program, conn int, extraEnv []byte) (int, error) {
	n := &p.native
	if n.fileFirst && !s.maybeFile(p) {
		return 0, &Error{Step: "check", Errno: syscall.EACCES}
	}
	if p.logs() && p.log < 0 {
		return 0, &Error{Step: "log", Errno: syscall.EBADF}
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
	s.told, s.refuse, s.reset = n.told(), &n.refuse[0], &reset[0]
	s.clone.flags = n.flags
	files := [3]int{conn, p.file(p.attr.Stdout, conn), p.file(p.attr.Stderr, conn)}
	if crowded(conn) && s.pass(files) {
		s.clone.flags |= unix.CLONE_FILES
		s.from = headUnshare
	} else {
		for i, fd := range files {
			s.ops[headStdin+i].a[0] = uintptr(fd)
		}
		s.from = headStdin
	}
	s.first = &s.ops[s.from]
	s.program = p
	atomic.StoreUintptr(&s.result.step, 0)
	s.result.errno = 0
	atomic.StoreUint32(&s.result.away, 1)
	r := enter(&s.call)
	if errno := -r; errno < 4096 {
		s.leave()
		return 0, &Error{Step: "clone", Errno: syscall.Errno(errno)}
	}
	if n.waits() {
		atomic.StoreUint32(&s.result.away, 0)
	}
	return int(r), nil
}

// file is the descriptor that has what a child is to have.
func (p *Program) file(what Stdio, conn int) int {
	switch what {
	case Log:
		return p.log
	case Null:
		return slots.null
	}
	return conn
}

// waits reports whether rawSpawn returns when the child has left the memory, or
// never had it.
func (n *program) waits() bool { return n.flags&unix.CLONE_VFORK != 0 }

// done has the contract of Spawner.Done.
func (s *spawner) done() bool { return atomic.LoadUint32(&s.result.away) == 0 }

// failed has the contract of Spawner.Failed. The child tells its peer after it has
// stored why.
func (s *spawner) failed() bool { return atomic.LoadUintptr(&s.result.errno) != 0 }

// await has the contract of Spawner.Await.
func (s *spawner) await(most time.Duration) bool {
	for until := time.Now().Add(most); !s.done(); {
		left := time.Until(until)
		if left <= 0 {
			return false
		}
		wait := unix.NsecToTimespec(int64(left))
		// Not FUTEX_PRIVATE: the kernel wakes those who wait for a shared one.
		syscall.Syscall6(unix.SYS_FUTEX, uintptr(unsafe.Pointer(&s.result.away)), futexWait, 1, uintptr(unsafe.Pointer(&wait)), 0, 0)
	}
	return true
}

// futexWait is FUTEX_WAIT, futex(2), which package unix does not have.
const futexWait = 0

// finish has the contract of Spawner.Finish.
func (s *spawner) finish() error {
	n := &s.program.native
	s.leave()
	// The last step is execve, which does not return if it succeeds. A child that
	// was killed in it may as well have been killed in its program.
	if step := int(s.result.step); s.result.errno != 0 || step != headLen+n.exec {
		return &Error{Step: n.step(step), Errno: syscall.Errno(s.result.errno), Replied: n.replied(step, s.result.errno)}
	}
	return nil
}

// leave forgets the child.
func (s *spawner) leave() {
	atomic.StoreInt32(&s.pid, 0)
	if s.from == headUnshare && s.result.step <= headReceive {
		s.takeBack()
	}
	s.program = nil
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
		flags:     cloneFlags | unix.CLONE_FILES | unix.CLONE_VFORK | unix.CLONE_CHILD_CLEARTID,
		childTID:  uint64(uintptr(unsafe.Pointer(&s.result.away))),
		parentTID: uint64(uintptr(unsafe.Pointer(&s.pid))),
		// No exitSignal: a wait for any child does not see this one.
	}
	s.ops[0] = op{nr: unix.SYS_CLOSE_RANGE, a: [6]uintptr{3, lastFD, unix.CLOSE_RANGE_UNSHARE}}
	s.ops[1] = op{nr: unix.SYS_EXIT_GROUP}
	s.first = &s.ops[0]
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
