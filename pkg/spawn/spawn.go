// Package spawn starts the program of a service on a connection.
//
// What a child has to do before it becomes the program is data: Attr.Compile
// turns a row into a list of raw system calls, once. Start fills in the
// connection, and a few dozen instructions of assembly make a child with clone3
// and let it run the list. See native.go for why that is safe beside a running
// Go program, and for the order of the steps. Where the kernel or the platform
// has not what this needs, syscall.ForkExec does the same as far as it can: the
// twin (twin.go).
//
// A child has the connection as descriptors 0, 1 and 2 and no other, default
// signal dispositions and an empty mask, a session of its own, exactly the
// environment it is given, and the soft descriptor limit that the daemon was
// started with. Init prepares the daemon for that.
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
	Path string   // of the program; absolute
	Argv []string // argv[0] included, as the program sees it; not empty
	Env  []string // "NAME=value", used in this order; empty is an empty environment

	// Dir is the working directory: absolute, or empty to keep the daemon's.
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
	// program, after it was checked that the program can be executed.
	Go bool
}

// Cred is an identity: real, effective and saved ids are all set to it.
type Cred struct {
	UID, GID uint32
	Groups   []uint32 // supplementary groups, all of them; empty: none
}

// A Program is a compiled Attr. It is immutable and may be used by any number
// of Spawners at the same time.
type Program struct {
	attr   Attr // a copy of its own
	native program
}

// Compile checks a and translates it. The errors say what of a cannot be used
// here; whether the program exists, or the user may run it, is only known when
// it is started.
func (a *Attr) Compile() (*Program, error) {
	if err := a.check(); err != nil {
		return nil, err
	}
	p := &Program{attr: a.clone()}
	native, _ := Native()
	if !native {
		if a.Umask != daemonUmask {
			return nil, fmt.Errorf("umask %#o: only %#o is possible here: %s", a.Umask, daemonUmask, whyTwin())
		}
		return p, nil
	}
	if err := p.native.compile(&p.attr); err != nil {
		return nil, err
	}
	return p, nil
}

func (a *Attr) check() error {
	if !strings.HasPrefix(a.Path, "/") {
		return fmt.Errorf("program %q: the path is not absolute", a.Path)
	}
	if a.Dir != "" && !strings.HasPrefix(a.Dir, "/") {
		return fmt.Errorf("directory %q: the path is not absolute", a.Dir)
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
	for _, list := range [][]string{{a.Path, a.Dir}, a.Argv, a.Env} {
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
	return nil
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
	return c
}

// An Error is why a child did not become its program.
type Error struct {
	// Step is a word for the log. "slot" and "clone": there was no child.
	// Then, in their order, the child's own: "unshare", "stdio", "close",
	// "setsid", "sigmask", "nofile", "umask", "setgroups", "setresgid",
	// "setresuid", "chdir", "check", "reply", "exec". The twin knows only
	// "check", "reply" and "start".
	Step string

	// Errno is 0 if the child was killed in that step.
	Errno syscall.Errno

	// Replied reports whether "+Go" was sent, or may have been: then no other
	// reply may follow, and the peer has to learn from a reset.
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
