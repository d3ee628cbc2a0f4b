//go:build amd64 || arm64

// Compiling a row to the steps of its child.

package spawn

import (
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

	// fileFirst: the parent looks whether the program is a regular file, because
	// the check of this kernel does not.
	fileFirst bool

	env  []string
	envp []uintptr // of env, and 0; points into pins

	pins []any // what the numbers in ops and envp point to
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

// compile fills n from a, which belongs to the Program.
func (n *program) compile(a *Attr) error {
	n.flags = cloneFlags
	n.reply = -1
	n.env = a.Env

	n.add("setsid", unix.SYS_SETSID)
	if !maskIsEmpty() {
		n.add("sigmask", unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, n.bytes(make([]byte, sigsetLen)), 0, sigsetLen)
	}
	n.addOOM(a.OOMScoreAdj)
	if err := n.addRlimits(a.Rlimits); err != nil {
		return err
	}
	n.addPriorities(a)
	if a.Umask != daemonUmask {
		n.add("umask", unix.SYS_UMASK, uintptr(a.Umask))
	}
	n.addChroot(a.Chroot)
	if a.Cred != nil && !a.Cred.own() {
		n.addCred(a.Cred)
	}
	if a.Dir != "" {
		n.add("chdir", unix.SYS_CHDIR, n.string(a.Dir))
	}
	n.addProgram(a)
	return nil
}

// own reports whether this process is who c says already, so that there is
// nothing to change.
func (c *Cred) own() bool {
	ru, eu, su := unix.Getresuid()
	rg, eg, sg := unix.Getresgid()
	uid, gid := int(c.UID), int(c.GID)
	if ru != uid || eu != uid || su != uid || rg != gid || eg != gid || sg != gid {
		return false
	}
	groups, err := unix.Getgroups()
	if err != nil || len(groups) != len(c.Groups) {
		return false
	}
	for i, g := range groups {
		if int(c.Groups[i]) != g {
			return false
		}
	}
	return true
}

func (n *program) addCred(c *Cred) {
	var groups uintptr
	if len(c.Groups) > 0 {
		groups = uintptr(unsafe.Pointer(&c.Groups[0]))
		n.pins = append(n.pins, c.Groups)
	}
	n.add("setgroups", unix.SYS_SETGROUPS, uintptr(len(c.Groups)), groups)
	gid, uid := uintptr(c.GID), uintptr(c.UID)
	n.add("setresgid", unix.SYS_SETRESGID, gid, gid, gid)
	n.add("setresuid", unix.SYS_SETRESUID, uid, uid, uid)
	if needsCopy() != "" {
		n.flags &^= unix.CLONE_VM
	}
}

// addProgram adds the check and the reply, if they are wanted, and the end.
func (n *program) addProgram(a *Attr) {
	path := n.string(a.Path)
	argv, envp := n.strings(a.Argv), n.strings(a.Env)
	n.envp = envp
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
	n.exec = len(n.ops)
	n.add("exec", unix.SYS_EXECVE, path, pointer(argv), pointer(envp))
	n.envArgs = append(n.envArgs, opArg{n.exec, 2})
}

// bytes keeps b and returns where it is.
func (n *program) bytes(b []byte) uintptr {
	n.pins = append(n.pins, b)
	return uintptr(unsafe.Pointer(&b[0]))
}

// string returns where a copy of s is that ends in NUL.
func (n *program) string(s string) uintptr { return n.bytes(append([]byte(s), 0)) }

// strings returns the addresses of copies of list, and 0.
func (n *program) strings(list []string) []uintptr {
	at := make([]uintptr, 0, len(list)+1)
	for _, s := range list {
		at = append(at, n.string(s))
	}
	at = append(at, 0)
	n.pins = append(n.pins, at)
	return at
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
