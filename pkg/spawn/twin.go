// The twin: a child by syscall.ForkExec, for kernels without clone3 or
// close_range (before 5.9, or a container that forbids them), for other
// processors and for other systems. It is also what tests compare the spawn
// program with.
//
// What it cannot do: "+Go" has to be sent before the fork, so that the program
// is only checked by what the parent sees, and a failure after it is told by
// Error.Replied; the umask, the limits, the priorities and the processors are
// the daemon's; the child is not known before it has become its program (see
// Spawner.PID); and it costs a tenth of a microsecond per open descriptor. ForkExec shares memory with the child as well, so where
// fs.suid_dumpable is 1 the child's user may trace it for a moment; only the
// spawn program can avoid that (needsCopy). That the child gets the original
// descriptor limit, and that no other descriptor stays open, is seen to by
// package syscall and by close-on-exec, which Init sets where it was not.

package spawn

import (
	"errors"
	"fmt"
	"syscall"
)

// checkTwin finds what only the spawn program can do.
func (a *Attr) checkTwin() error {
	if a.Umask != daemonUmask {
		return fmt.Errorf("umask %#o: only %#o is possible here: %s", a.Umask, daemonUmask, whyTwin())
	}
	for _, c := range []struct {
		what string
		set  bool
	}{
		{"rlimits", len(a.Rlimits) > 0},
		{"nice", a.Nice != nil},
		{"ioprio", a.IOPrio != nil},
		{"oom_score_adj", a.OOMScoreAdj != nil},
		{"cpus", len(a.CPUs) > 0},
	} {
		if c.set {
			return fmt.Errorf("%s: not possible here: %s", c.what, whyTwin())
		}
	}
	return nil
}

func startTwin(p *Program, conn int, extraEnv []byte) (pid int, err error) {
	if conn < 0 { // ForkExec would take it for a descriptor to be closed
		return 0, &Error{Step: "start", Errno: syscall.EBADF}
	}
	a := &p.attr
	if p.logs() && p.log < 0 {
		return 0, &Error{Step: "log", Errno: syscall.EBADF}
	}
	null := -1
	if a.Stdout == Null || a.Stderr == Null {
		if null, err = syscall.Open("/dev/null", syscall.O_RDWR|syscall.O_CLOEXEC, 0); err != nil {
			return 0, twinError(err, false)
		}
		defer syscall.Close(null)
	}
	from := [...]int{Socket: conn, Log: p.log, Null: null}
	replied := false
	if a.Go {
		if errno := checkFile(a.Chroot, a.Path); errno != 0 {
			return 0, &Error{Step: "check", Errno: errno}
		}
		if errno := writeGo(conn); errno != 0 {
			return 0, &Error{Step: "reply", Errno: errno}
		}
		replied = true
	}
	attr := syscall.ProcAttr{
		Dir:   a.Dir,
		Env:   mergeEnv(a.Env, extraEnv),
		Files: []uintptr{uintptr(conn), uintptr(from[a.Stdout]), uintptr(from[a.Stderr])},
		Sys:   &syscall.SysProcAttr{Setsid: true, Chroot: a.Chroot},
	}
	if a.Chroot != "" && a.Dir == "" {
		attr.Dir = "/" // not the daemon's directory, which is outside
	}
	if a.Cred != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: a.Cred.UID, Gid: a.Cred.GID, Groups: a.Cred.Groups}
	}
	pid, err = syscall.ForkExec(a.Path, a.Argv, &attr)
	if err != nil {
		return 0, twinError(err, replied)
	}
	return pid, nil
}

func twinError(err error, replied bool) *Error {
	e := &Error{Step: "start", Errno: syscall.EIO, Replied: replied}
	errors.As(err, &e.Errno)
	return e
}

// writeGo writes the reply. A plain write serves every system: for descriptors
// other than 1 and 2 the Go runtime turns SIGPIPE into EPIPE.
func writeGo(conn int) syscall.Errno {
	for {
		n, err := syscall.Write(conn, []byte(goReply))
		if err == nil && n == len(goReply) {
			return 0
		}
		if err == syscall.EINTR {
			continue
		}
		errno := syscall.EIO // a part of five bytes: not on any socket that was just opened
		errors.As(err, &errno)
		return errno
	}
}
