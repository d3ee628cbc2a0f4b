//go:build amd64 || arm64

// Compiling a row to the steps of its child.

package spawn

import (
	"slices"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A program is the list of a child after the spawner's own first steps.
//
// The order: what needs the daemon's rights comes first, the identity last but
// for what has to be seen with the eyes of the child's user: its directory and
// the program, both below its root directory. From setresuid on that user can stop the child, so nothing that
// could be done before is done after it.
type program struct {
	ops   []op
	steps []string // what each op is called in an Error
	flags uint64   // for clone3

	exec    int     // which op is execve, always the last
	reply   int     // which op sends "+Go", -1 if none
	envArgs []opArg // the arguments that are envp

	refuse []op // what a child does that fails, see call

	// fileFirst: the parent looks whether the program is a regular file, because
	// the check of this kernel does not.
	fileFirst bool

	env  []string
	envp []uintptr // of env, and 0; points into envText

	// What the numbers in ops, argv and envp point to. The lists and texts may be
	// those of other programs, too; none of them ever changes.
	argv          []uintptr
	text, envText []byte
	pins          []any // whatever else there is
}

// An opArg is an argument of an op.
type opArg struct{ op, arg int }

func (n *program) add(step string, nr uintptr, a ...uintptr) {
	o := op{nr: nr}
	copy(o.a[:], a)
	n.ops = append(n.ops, o)
	n.steps = append(n.steps, step)
}

// step names step i of the whole list.
func (n *program) step(i int) string {
	if i < headLen {
		return headSteps[i]
	}
	return n.steps[i-headLen]
}

// replied reports whether a child that got to step i, and there to errno, may
// have sent its reply.
func (n *program) replied(i int, errno uintptr) bool {
	if n.reply < 0 {
		return false
	}
	at := headLen + n.reply
	return i > at || i == at && errno == 0
}

// compile fills n from a, of which it keeps nothing that can change.
func (n *program) compile(c *compiler, a *Attr) error {
	if c.err != nil {
		return c.err
	}
	n.flags = cloneFlags | unix.CLONE_CHILD_CLEARTID
	n.reply = -1
	n.ops, n.steps = c.ops[:0], c.steps[:0]
	n.text = make([]byte, 0, a.room())

	n.add("setsid", unix.SYS_SETSID)
	if !maskIsEmpty() {
		n.add("sigmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, n.bytes(make([]byte, sigsetLen)), 0, sigsetLen)
	}
	n.addOOM(a.OOMScoreAdj)
	n.addRlimits(c, a.Rlimits)
	n.addPriorities(a)
	if a.Umask != daemonUmask {
		n.add("umask", unix.SYS_UMASK, uintptr(a.Umask))
	}
	n.addChroot(a.Chroot)
	if a.Cred != nil && !c.own(a.Cred) {
		n.addCred(c, a.Cred)
	}
	if a.Dir != "" && !(a.Dir == "/" && (a.Chroot != "" || c.inRoot)) {
		n.add("chdir", unix.SYS_CHDIR, n.string(a.Dir))
	}
	n.addProgram(c, a)
	// The lists grow in the compiler's; n keeps what it needs of them.
	c.ops, c.steps = n.ops, n.steps
	n.ops, n.steps = slices.Clone(n.ops), c.knownSteps.get(n.steps)
	return nil
}

// wait has the parent wait for the child.
func (n *program) wait() { n.flags = n.flags&^unix.CLONE_CHILD_CLEARTID | unix.CLONE_VFORK }

// room is how many bytes of text a program of a has, but for what few have.
func (a *Attr) room() int {
	n := len(a.Path) + 1 + len(a.Dir) + 1
	for _, s := range a.Argv {
		n += len(s) + 1
	}
	if a.Go {
		n += len(goReply) + 1
	}
	if a.Refusal != "" {
		n += len(a.Refusal) + 1
	}
	return n
}

// A compiler has what programs depend on, and what they share.
type compiler struct {
	err        error
	original   *unix.Rlimit // what RLIMIT_NOFILE has to be set back to; nil: it is so
	ids        [6]int       // real, effective and saved, of user and group
	groups     []int
	copies     bool // see needsCopy
	inRoot     bool // the working directory, which children inherit, is "/"
	ops        []op // of the program before, to be written over
	steps      []string
	envs       []environment
	lists      known[uint32] // of groups
	knownSteps known[string]
}

// An environment is one that programs share.
type environment struct {
	env  []string
	envp []uintptr
	text []byte // what envp points to
}

func (c *compiler) look() {
	c.ids[0], c.ids[1], c.ids[2] = unix.Getresuid()
	c.ids[3], c.ids[4], c.ids[5] = unix.Getresgid()
	var err error
	if c.groups, err = unix.Getgroups(); err != nil {
		c.groups = []int{-1} // nobody's: they are set
	}
	c.copies = needsCopy() != ""
	dir, err := unix.Getwd()
	c.inRoot = err == nil && dir == "/"
	var now unix.Rlimit
	if c.err = unix.Getrlimit(unix.RLIMIT_NOFILE, &now); c.err != nil {
		return
	}
	soft, _ := OriginalNofile()
	if soft = min(soft, now.Max); soft != now.Cur {
		c.original = &unix.Rlimit{Cur: soft, Max: now.Max}
	}
}

// A known is the lists that were asked for last. A table has few of them: rows
// are much the same but for their names and arguments.
type known[T comparable] [][]T

const knownMost = 16

// get returns a list equal to list that belongs to nobody, and is not changed.
func (k *known[T]) get(list []T) []T {
	for _, l := range *k {
		if slices.Equal(l, list) {
			return l
		}
	}
	l := slices.Clone(list)
	if len(*k) >= knownMost {
		*k = (*k)[1:]
	}
	*k = append(*k, l)
	return l
}

// environ returns an environment that is as long as list.
func (c *compiler) environ(list []string) environment {
	for _, e := range c.envs {
		if slices.Equal(e.env, list) {
			return e
		}
	}
	e := environment{env: slices.Clone(list), envp: make([]uintptr, 0, len(list)+1)}
	size := 0
	for _, s := range list {
		size += len(s) + 1
	}
	e.text = make([]byte, 0, size)
	for _, s := range list {
		e.envp = append(e.envp, 0)
		e.text, e.envp[len(e.envp)-1] = terminated(e.text, s)
	}
	e.envp = append(e.envp, 0)
	if len(c.envs) >= knownMost {
		c.envs = c.envs[1:]
	}
	c.envs = append(c.envs, e)
	return e
}

// terminated appends s and a NUL to a text that has room for them, and says where
// s is.
func terminated(text []byte, s string) ([]byte, uintptr) {
	at := len(text)
	text = append(append(text, s...), 0)
	return text, uintptr(unsafe.Pointer(&text[at]))
}

// own reports whether this process is who cred says already, so that there is
// nothing to change. Whether the group is among the supplementary ones as well
// makes no difference to what the child may do.
func (c *compiler) own(cred *Cred) bool {
	uid, gid := int(cred.UID), int(cred.GID)
	if c.ids != [6]int{uid, uid, uid, gid, gid, gid} {
		return false
	}
	for _, g := range c.groups {
		if g != gid && !slices.Contains(cred.Groups, uint32(g)) {
			return false
		}
	}
	for _, g := range cred.Groups {
		if int(g) != gid && !slices.Contains(c.groups, int(g)) {
			return false
		}
	}
	return true
}

func (n *program) addCred(c *compiler, cred *Cred) {
	var groups uintptr
	if len(cred.Groups) > 0 {
		list := c.lists.get(cred.Groups)
		groups = uintptr(unsafe.Pointer(&list[0]))
		n.pins = append(n.pins, list)
	}
	n.add("setgroups", unix.SYS_SETGROUPS, uintptr(len(cred.Groups)), groups)
	gid, uid := uintptr(cred.GID), uintptr(cred.UID)
	n.add("setresgid", unix.SYS_SETRESGID, gid, gid, gid)
	n.add("setresuid", unix.SYS_SETRESUID, uid, uid, uid)
	if c.copies {
		n.flags &^= unix.CLONE_VM
		n.wait()
	}
}

// addProgram adds the check and the reply, if they are wanted, and the end.
func (n *program) addProgram(c *compiler, a *Attr) {
	path := n.string(a.Path)
	argv := n.strings(a.Argv)
	e := c.environ(a.Env)
	envp := e.envp
	n.env, n.envp, n.envText = e.env, envp, e.text
	if a.Go {
		if hasExecveCheck() {
			// As execve up to the point where the file would be read: rights, mount
			// options, security modules, and the size of arguments and environment.
			n.add("check", unix.SYS_EXECVEAT, atFDCWD, path, pointer(argv), pointer(envp), atExecveCheck)
			n.envArgs = append(n.envArgs, opArg{len(n.ops) - 1, 3})
		} else {
			n.fileFirst = true
			n.add("check", unix.SYS_FACCESSAT2, atFDCWD, path, unix.X_OK, unix.AT_EACCESS)
		}
		n.reply = len(n.ops)
		// MSG_NOSIGNAL: a peer that has gone is an error here, not a SIGPIPE,
		// which would look like a killed service.
		n.add("reply", unix.SYS_SENDTO, 0, n.string(goReply), uintptr(len(goReply)), unix.MSG_NOSIGNAL, 0, 0)
	}
	n.tell(a.Refusal)
	n.exec = len(n.ops)
	n.add("exec", unix.SYS_EXECVE, path, pointer(argv), pointer(envp))
	n.envArgs = append(n.envArgs, opArg{n.exec, 2})
}

// tell makes what the peer of a child that fails is told. What it may have sent
// is read, as far as it has come: to close with bytes unread would have the kernel
// send a reset, which destroys the reply. On other sockets than TCP that does
// nothing. The peer sees the end when the child has ended, and its place is free.
func (n *program) tell(refusal string) {
	n.refuse = silence
	if refusal != "" {
		const much = 1 << 20
		n.refuse = []op{
			{nr: unix.SYS_SENDTO, a: [6]uintptr{0, n.string(refusal), uintptr(len(refusal)), unix.MSG_NOSIGNAL | unix.MSG_DONTWAIT}},
			{nr: unix.SYS_RECVFROM, a: [6]uintptr{0, 0, much, unix.MSG_TRUNC | unix.MSG_DONTWAIT}},
			{nr: end},
		}
	}
}

// What a child that fails may have to do besides, for all programs.
var (
	silence  = []op{{nr: end}}
	lingerOn = &unix.Linger{Onoff: 1} // for 0 s: a close is a reset
	reset    = []op{
		{nr: unix.SYS_SETSOCKOPT, a: [6]uintptr{0, unix.SOL_SOCKET, unix.SO_LINGER, uintptr(unsafe.Pointer(lingerOn)), unsafe.Sizeof(*lingerOn)}},
		{nr: end},
	}
)

// told is the step from which on the peer may have been told that it has its
// service; where that is not done, beyond all steps.
func (n *program) told() uintptr {
	if n.reply < 0 {
		return maxOps
	}
	return uintptr(headLen + n.reply + 1)
}

// bytes keeps b and returns where it is.
func (n *program) bytes(b []byte) uintptr {
	n.pins = append(n.pins, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// string returns where a copy of s is that ends in NUL: in the text, as long as
// there is room, because what points into it must stay where it is.
func (n *program) string(s string) (at uintptr) {
	if len(n.text)+len(s)+1 > cap(n.text) {
		return n.bytes(append([]byte(s), 0))
	}
	n.text, at = terminated(n.text, s)
	return at
}

// strings returns the addresses of copies of list, and 0, for argv.
func (n *program) strings(list []string) []uintptr {
	at := make([]uintptr, 0, len(list)+1)
	for _, s := range list {
		at = append(at, n.string(s))
	}
	n.argv = append(at, 0)
	return n.argv
}

func pointer(list []uintptr) uintptr { return uintptr(unsafe.Pointer(&list[0])) }

// Numbers that package unix does not have.
const (
	atExecveCheck = 0x10000          // AT_EXECVE_CHECK, Linux 6.14
	atFDCWD       = ^uintptr(0) - 99 // AT_FDCWD
)

// hasExecveCheck asks the kernel with a directory, which no kernel executes: one
// that does not know the flag says so before it looks.
var hasExecveCheck = sync.OnceValue(func() bool {
	path, empty := append([]byte("/"), 0), []uintptr{0}
	_, _, errno := syscall.Syscall6(unix.SYS_EXECVEAT, atFDCWD, uintptr(unsafe.Pointer(&path[0])),
		uintptr(unsafe.Pointer(&empty[0])), uintptr(unsafe.Pointer(&empty[0])), atExecveCheck, 0)
	return errno == unix.EACCES
})
