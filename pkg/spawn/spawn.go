// Package spawn starts the program of a service on a socket: a connection, or
// the listening or datagram socket of a wait row.
//
// What a child has to do before it becomes the program is data: Attr.Compile
// turns a row into a list of raw system calls, once. Start fills in the
// socket, and a few dozen instructions of assembly make a child with clone3
// and let it run the list. See native.go for why that is safe beside a running
// Go program, and for the order of the steps. Where the kernel or the platform
// has not what this needs, syscall.ForkExec does the same as far as it can: the
// twin (twin.go).
//
// A child has the socket as descriptor 0; as 1 and 2 it has that, a log or
// /dev/null; and no other. It has default signal dispositions and an empty mask,
// a session of its own, exactly the environment it is given, and the soft
// descriptor limit that the daemon was started with, unless the row says
// otherwise. Init prepares the daemon for that, and Inherited says where it has
// put what the daemon was started with.
//
// The package does not wait for children: whoever calls Start reaps them, and
// looks after a child that does not reach its program (see Spawner.PID). It
// does not decide whether a child may be started, and it does not log.
package spawn

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"

	"github.com/tcpmuxd/tcpmuxd/pkg/spawn/origin"
)

// goReply is what the "+" form of a TCPMUX service is announced with (RFC 1078):
// the server accepts the connection on behalf of the program.
const goReply = "+Go\r\n"

// daemonUmask is the umask of the daemon itself; Init sets it. A child inherits
// it, so that only another one costs a system call.
const daemonUmask = 0o22

// An Attr says what a child becomes. It is not changed by Compile and may be
// used again afterwards.
type Attr struct {
	Path string   // of the program; absolute, seen from Chroot
	Argv []string // argv[0] included, as the program sees it; not empty
	Env  []string // "NAME=value", used in this order; empty is an empty environment

	// Dir is the working directory: absolute and seen from Chroot, or empty to
	// keep the daemon's (with Chroot, to be in "/"), as is "/" if that is the daemon's.
	// It is entered as the child's user, after all identities are set: a home
	// directory on NFS is closed to root there, and a directory that the user
	// may not enter is not given to a program by accident. Login and sshd do
	// the same.
	Dir string

	// Cred is who the child is. Nil keeps the daemon's identity, groups
	// included.
	Cred *Cred

	Umask uint32 // 0 to 0777; zero means no bit is masked, not the default

	// Go sends "+Go\r\n" on the connection as the last step before the
	// program, after it was checked that the program can be executed. It is for
	// connections only.
	Go bool

	// Refusal is what a child that fails, in a step that it has come to with its
	// connection, sends on it before it ends; if "+Go" was sent the connection is
	// reset instead. Empty: nothing. The twin sends nothing.
	Refusal string

	// Chroot is the root directory: absolute, or empty to keep the daemon's.
	Chroot string

	// What descriptors 1 and 2 are; 0 always is what Start is given.
	Stdout, Stderr Stdio

	// The twin can do nothing of the following; there it is an error of Compile.

	// Rlimits are set in this order, no Resource twice. RLIMIT_NOFILE, if it is
	// among them, takes the place of the original soft limit.
	Rlimits []Rlimit

	Nice        *int    // -20 to 19; nil: the daemon's
	IOPrio      *IOPrio // nil: the daemon's
	OOMScoreAdj *int    // -1000 to 1000, written by way of /proc; nil: the daemon's

	// CPUs are the processors that it may run on, 0 to 8191; empty: the daemon's.
	// Those that the machine has not are ignored by the kernel, if it has one.
	CPUs []int
}

// Cred is an identity: real, effective and saved ids are all set to it.
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, all of them; empty: none
}

// A Program is a compiled Attr. It is immutable, but for SetLog before its first
// use, and may be used by any number of Spawners at the same time.
type Program struct {
	attr   Attr // a copy of its own; with native only what is needed beside it
	twin   bool
	native program

	log int // the caller's descriptor, or noLog
}

// Compile checks a and translates it. The errors say what of a cannot be used
// here; whether the program exists, or the user may run it, is only known when
// it is started.
func (a *Attr) Compile() (*Program, error) { return NewCompiler().Compile(a) }

// A Compiler compiles any number of Attrs as Attr.Compile does, for less: it has
// looked at this process and the machine once, when it was made, and what many
// Programs have in common is there once. It is for one goroutine, and to be
// dropped when all is compiled.
type Compiler struct{ native compiler }

// NewCompiler looks at what programs depend on.
func NewCompiler() *Compiler {
	c := new(Compiler)
	if native, _ := Native(); native {
		c.native.look()
	}
	return c
}

// Compile is Attr.Compile.
func (c *Compiler) Compile(a *Attr) (*Program, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	if native, _ := Native(); !native {
		if err := a.checkTwin(); err != nil {
			return nil, err
		}
		return &Program{attr: a.clone(), twin: true, log: noLog}, nil
	}
	// The program has its own copy of everything else.
	p := &Program{attr: Attr{Path: a.Path, Chroot: a.Chroot, Go: a.Go, Stdout: a.Stdout, Stderr: a.Stderr}, log: noLog}
	if err := p.native.compile(&c.native, a); err != nil {
		return nil, err
	}
	return p, nil
}

// Waits reports whether Begin stands still for p until the child has become its
// program or has failed. The twin does; the spawn program only where p has
// OOMScoreAdj, or the child cannot share memory with this process (see Native).
func (p *Program) Waits() bool { return p.twin || p.native.waits() }

func (a *Attr) check() error {
	if !strings.HasPrefix(a.Path, "/") {
		return fmt.Errorf("program %q: the path is not absolute", a.Path)
	}
	if a.Dir != "" && !strings.HasPrefix(a.Dir, "/") {
		return fmt.Errorf("directory %q: the path is not absolute", a.Dir)
	}
	if a.Chroot != "" && !strings.HasPrefix(a.Chroot, "/") {
		return fmt.Errorf("root directory %q: the path is not absolute", a.Chroot)
	}
	if len(a.Argv) == 0 {
		return errors.New("no arguments: the first is the program's name")
	}
	if a.Umask > 0o777 {
		return fmt.Errorf("umask %#o: more than 0777", a.Umask)
	}
	if a.Cred != nil && len(a.Cred.Groups) > 65536 { // NGROUPS_MAX, setgroups(2)
		return fmt.Errorf("%d groups: more than 65536", len(a.Cred.Groups))
	}
	for _, list := range [][]string{{a.Path, a.Dir, a.Chroot}, a.Argv, a.Env} {
		for _, s := range list {
			if strings.IndexByte(s, 0) >= 0 {
				return fmt.Errorf("%q: contains a NUL byte", s)
			}
		}
	}
	for _, e := range a.Env {
		if strings.IndexByte(e, '=') < 1 {
			return fmt.Errorf("environment %q: not NAME=value", e)
		}
	}
	return a.checkSetup()
}

func (a *Attr) clone() Attr {
	c := *a
	c.Argv = slices.Clone(a.Argv)
	c.Env = slices.Clone(a.Env)
	if a.Cred != nil {
		cred := *a.Cred
		cred.Groups = slices.Clone(cred.Groups)
		c.Cred = &cred
	}
	c.Rlimits, c.CPUs = slices.Clone(a.Rlimits), slices.Clone(a.CPUs)
	c.Nice, c.OOMScoreAdj = cloned(a.Nice), cloned(a.OOMScoreAdj)
	c.IOPrio = cloned(a.IOPrio)
	return c
}

func cloned[T any](p *T) *T {
	if p == nil {
		return nil
	}
	v := *p
	return &v
}

// An Error is why a child did not become its program.
type Error struct {
	// Step is a word for the log. "log" and "clone": there was no child. Then, in
	// their order, the child's own: "unshare", "receive", "stdio", "close",
	// "setsid", "sigmask", "oom", "rlimit", "nofile", "nice", "ioprio",
	// "affinity", "umask", "chroot", "setgroups", "setresgid", "setresuid",
	// "chdir", "check", "reply", "exec". The twin knows only "log", "check",
	// "reply" and "start".
	Step string

	// Errno is 0 if the child was killed in that step.
	Errno syscall.Errno

	// Replied reports whether "+Go" was sent, or may have been: then no other
	// reply may follow, and the peer has to learn from a reset. A child of the spawn
	// program that fails sees to both itself, but not one that was killed.
	Replied bool
}

func (e *Error) Error() string {
	if e.Errno == 0 {
		return e.Step + ": the child was killed"
	}
	return e.Step + ": " + e.Errno.Error()
}

// Unwrap makes errors.Is(err, syscall.ENOENT) and the like work.
func (e *Error) Unwrap() error {
	if e.Errno == 0 {
		return nil
	}
	return e.Errno
}

// OriginalNofile returns the soft and hard RLIMIT_NOFILE that the process was
// started with. On systems other than linux/amd64 and linux/arm64 it is the
// limit as Go left it.
func OriginalNofile() (soft, hard uint64) {
	if soft, hard, ok := origin.Nofile(); ok {
		return soft, hard
	}
	var lim syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &lim) != nil {
		return 0, 0
	}
	return uint64(lim.Cur), uint64(lim.Max)
}
