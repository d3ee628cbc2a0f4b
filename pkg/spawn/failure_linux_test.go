//go:build amd64 || arm64

package spawn

// A child that cannot become its program: what Start says, and what the peer
// got. The rule is that "+Go" is not sent where the check can know, and that
// Replied says so where it was.

import (
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestExecFailures(t *testing.T) {
	dir := publicDir(t)
	file := func(name, content string, mode os.FileMode) string {
		path := dir + "/" + name
		if err := os.WriteFile(path, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, mode); err != nil {
			t.Fatal(err)
		}
		return path
	}
	long := strings.Repeat("x", 256<<10) // more than MAX_ARG_STRLEN
	fifo := dir + "/fifo"
	if err := unix.Mkfifo(fifo, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir+"/closed", 0o700); err != nil {
		t.Fatal(err)
	}
	hidden := file("closed/hidden", "x", 0o755)

	const refusal = "-no\r\n"
	// What each way knows before it replies.
	const (
		never     = iota // nobody
		execCheck        // AT_EXECVE_CHECK only
		user             // whoever looks as the child's user, the native ways
		anybody          // the twin as well
	)
	for _, c := range []struct {
		name  string
		path  string
		argv  []string
		errno syscall.Errno
		known int
	}{
		{"no file", dir + "/none", nil, syscall.ENOENT, anybody},
		{"not in a directory", fifo + "/x", nil, syscall.ENOTDIR, anybody},
		{"a directory", dir, nil, syscall.EACCES, anybody},
		{"a fifo", fifo, nil, syscall.EACCES, anybody},
		{"not executable", file("data", "x", 0o644), nil, syscall.EACCES, anybody},
		{"name too long", "/" + strings.Repeat("x", 300), nil, syscall.ENAMETOOLONG, anybody},
		{"not for this user", file("root", "x", 0o700), nil, syscall.EACCES, user},
		{"where this user may not look", hidden, nil, syscall.EACCES, user},
		{"arguments too long", progExit, []string{"exit", long}, syscall.E2BIG, execCheck},
		{"an empty file", file("empty", "", 0o755), nil, syscall.ENOEXEC, never},
		{"no program", file("text", "hello, world\n", 0o755), nil, syscall.ENOEXEC, never},
		{"a script without its interpreter", file("script", "#!"+dir+"/none\n", 0o755), nil, syscall.ENOENT, never},
	} {
		if c.argv == nil {
			c.argv = []string{"x"}
		}
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, twin bool) {
				s := newSpawner(t)
				for _, reply := range []bool{false, true} {
					a := &Attr{Path: c.path, Argv: c.argv, Umask: 0o22, Dir: "/", Cred: nobody, Go: reply, Refusal: refusal}
					conn, peer := pair(t)
					pid, err := s.Start(compile(t, a), conn, []byte("A=1\x00"))
					syscall.Close(conn)
					want := &Error{Step: "exec", Errno: c.errno}
					knows := user
					switch {
					case twin:
						knows = anybody
					case hasExecveCheck():
						knows = execCheck
					}
					if reply && c.known >= knows {
						want.Step = "check"
					} else {
						want.Replied = reply
					}
					checkFailure(t, twin, pid, err, want)
					wire := refusal
					switch {
					case want.Replied:
						wire = "+Go\r\n"
					case pid == 0: // it is the caller's to tell
						wire = ""
					}
					if got := received(t, peer); got != wire {
						t.Errorf("the peer got %q, want %q", got, wire)
					}
				}
			})
		})
	}
}

// FreeBSD's inetd sends "+Go" and then finds that there is no program.
func TestNoReplyWithoutProgram(t *testing.T) {
	eachWay(t, func(t *testing.T, twin bool) {
		a := &Attr{Path: publicDir(t) + "/none", Argv: []string{"none"}, Umask: 0o22, Dir: "/", Go: true}
		conn, peer := pair(t)
		pid, err := newSpawner(t).Start(compile(t, a), conn, nil)
		syscall.Close(conn)
		checkFailure(t, twin, pid, err, &Error{Step: "check", Errno: syscall.ENOENT})
		if got := received(t, peer); got != "" {
			t.Errorf("the peer got %q", got)
		}
	})
}

// A peer that has gone is an error of the reply, not a death by SIGPIPE, neither
// of the child nor of the daemon.
func TestPeerGoneBeforeReply(t *testing.T) {
	eachWay(t, func(t *testing.T, twin bool) {
		a := &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
		conn, peer := pair(t)
		peer.Close()
		pid, err := newSpawner(t).Start(compile(t, a), conn, nil)
		syscall.Close(conn)
		checkFailure(t, twin, pid, err, &Error{Step: "reply", Errno: syscall.EPIPE})
	})
}

// The same over TCP, with a reset.
func TestPeerResetBeforeReply(t *testing.T) {
	if inMachine() {
		loopbackUp(t)
	}
	eachWay(t, func(t *testing.T, twin bool) {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		peer, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer server.Close()
		file, err := server.(*net.TCPConn).File()
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		peer.(*net.TCPConn).SetLinger(0)
		peer.Close()
		conn := int(file.Fd())
		poll := []unix.PollFd{{Fd: int32(conn), Events: unix.POLLRDHUP}}
		if _, err := unix.Poll(poll, 5000); err != nil || poll[0].Revents == 0 {
			t.Fatalf("the reset does not arrive: %v", err)
		}

		a := &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
		pid, err := newSpawner(t).Start(compile(t, a), conn, nil)
		// The reset itself, once, then EPIPE.
		checkFailure(t, twin, pid, err, &Error{Step: "reply", Errno: syscall.ECONNRESET})
	})
}

// loopbackUp sets the flag that ifup would.
func loopbackUp(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	req, err := unix.NewIfreq("lo")
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(fd, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatal(err)
	}
}

// A descriptor that is none.
func TestNoConnection(t *testing.T) {
	eachWay(t, func(t *testing.T, twin bool) {
		s := newSpawner(t)
		for _, conn := range []int{-1, 1 << 20} {
			pid, err := s.Start(compile(t, &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22}), conn, nil)
			if err == nil {
				t.Fatalf("descriptor %d: child %d", conn, pid)
			}
			checkFailure(t, twin, pid, err, &Error{Step: "stdio", Errno: syscall.EBADF})
		}
	})
}
