// The twin: a child by syscall.ForkExec, for kernels without clone3 or
// close_range (before 5.9, or a container that forbids them), for other
// processors and for other systems. It is also what tests compare the spawn
// program with.
//
// What it cannot do: "+Go" has to be sent before the fork, so that the program
// is only checked by what the parent sees, and a failure after it is told by
// Error.Replied; the umask is the daemon's; the child is not known before it has
// become its program (see Spawner.PID); and it costs a tenth of a microsecond
// per open descriptor. ForkExec shares memory with the child as well, so where
// fs.suid_dumpable is 1 the child's user may trace it for a moment; only the
// spawn program can avoid that (needsCopy). That the child gets the original descriptor limit, and
// that no other descriptor stays open, is seen to by package syscall and by
// close-on-exec, which Init sets where it was not.

package spawn

import (
	"errors"
	"syscall"
)

func startTwin(p *Program, conn int, extraEnv []byte) (pid int, err error) {
	if conn < 0 { // ForkExec would take it for a descriptor to be closed
		return 0, &Error{Step: "start", Errno: syscall.EBADF}
	}
	a := &p.attr
	replied := false
	if a.Go {
		if errno := checkFile(a.Path); errno != 0 {
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
		Files: []uintptr{uintptr(conn), uintptr(conn), uintptr(conn)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	}
	if a.Cred != nil {
		attr.Sys.Credential = &syscall.Credential{Uid: a.Cred.UID, Gid: a.Cred.GID, Groups: a.Cred.Groups}
	}
	pid, err = syscall.ForkExec(a.Path, a.Argv, &attr)
	if err != nil {
		e := &Error{Step: "start", Errno: syscall.EIO, Replied: replied}
		errors.As(err, &e.Errno)
		return 0, e
	}
	return pid, nil
}

// checkFile says what the parent can know: whether path is a file that somebody
// may execute. Whether the user of the row may is only seen by the child.
func checkFile(path string) syscall.Errno {
	var st syscall.Stat_t
	for {
		err := syscall.Stat(path, &st)
		if err == syscall.EINTR {
			continue
		}
		var errno syscall.Errno
		if errors.As(err, &errno) {
			return errno
		}
		break
	}
	if st.Mode&syscall.S_IFMT != syscall.S_IFREG || st.Mode&0o111 == 0 {
		return syscall.EACCES // as execve(2) says in both cases
	}
	return 0
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
