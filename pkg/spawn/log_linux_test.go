//go:build amd64 || arm64

package spawn

// Children whose output goes to the log of their row: one datagram socket for
// all of them, that a spawner keeps at hand.

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// logPair returns the end of a log that children write to, which does not block,
// and the one that is read.
func logPair(t testing.TB) (end, reader int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fds[0]); unix.Close(fds[1]) })
	return fds[0], fds[1]
}

func slotFile(t testing.TB, fd int) string {
	t.Helper()
	link, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
	if err != nil {
		t.Fatal(err)
	}
	return link
}

// A Program without the log it needs does not start, and says so.
func TestNoLog(t *testing.T) {
	eachWay(t, func(t *testing.T, twin bool) {
		s := newSpawner(t)
		for _, a := range []Attr{{Stdout: Log}, {Stderr: Log}, {Stdout: Null, Stderr: Log}} {
			a.Path, a.Argv, a.Umask = progExit, []string{"exit"}, 0o22
			for _, set := range []func(*Program){func(*Program) {}, func(p *Program) { p.SetLog(-1) }, func(p *Program) { p.SetLog(1 << 20) }} {
				p := compile(t, &a)
				set(p)
				conn, peer := pair(t)
				pid, err := s.Start(p, conn, nil)
				syscall.Close(conn)
				want := &Error{Step: "log", Errno: syscall.EBADF}
				switch {
				case p.log < 0 && pid != 0:
					t.Errorf("there is child %d", pid)
				case p.log > 0 && twin:
					want.Step = "start"
				case p.log > 0:
					want.Step = "stdio"
				}
				checkFailure(t, twin, pid, err, want)
				if got := received(t, peer); got != "" {
					t.Errorf("the peer got %q", got)
				}
			}
		}
		// It was of no consequence for the spawner.
		end, _ := logPair(t)
		p := compile(t, &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Stderr: Log})
		p.SetLog(end)
		conn, _ := pair(t)
		defer syscall.Close(conn)
		pid, err := s.Start(p, conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		reap(t, pid)
	})
}

// Many children of rows that come and go, from all spawners: each has the log of
// its own row, whatever number that has.
func TestLogsOfManyRows(t *testing.T) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			testkit.Check(t)
			w.use(t)
			workers, each := 8, scaled(100)
			if native, _ := Native(); !native || needsCopy() != "" {
				each = scaled(20)
			}
			var shared [3]*Program // and of each worker one that changes
			var sharedLog [3]string
			for i := range shared {
				end, _ := logPair(t)
				shared[i] = compile(t, &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Stdout: Stdio(i), Stderr: Log, Cred: nobody})
				shared[i].SetLog(end)
				sharedLog[i] = slotFile(t, end)
			}
			stop := unrest(t)
			var wg sync.WaitGroup
			for w := range workers {
				s := newSpawner(t)
				wg.Go(func() {
					for i := range each {
						if err := oneLogged(s, shared[(w+i)%3], sharedLog[(w+i)%3], i); err != nil {
							t.Error(err)
							return
						}
					}
				})
			}
			wg.Wait()
			stop()
		})
	}
}

// oneLogged starts a child of p, or now and then of a row that is made for it,
// and looks at its descriptors.
func oneLogged(s *Spawner, p *Program, log string, i int) error {
	if i%3 == 0 {
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return err
		}
		defer unix.Close(fds[0])
		defer unix.Close(fds[1])
		if p, err = (&Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Stdout: Null, Stderr: Log}).Compile(); err != nil {
			return err
		}
		p.SetLog(fds[0])
		if log, err = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fds[0])); err != nil {
			return err
		}
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fds[1])
	conn, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fds[0]))
	if err != nil {
		return err
	}
	pid, err := s.Start(p, fds[0], nil)
	unix.Close(fds[0])
	if err != nil {
		return err
	}
	want := []string{conn, map[Stdio]string{Socket: conn, Log: log, Null: os.DevNull}[p.attr.Stdout], log}
	for i, want := range want {
		if got, err := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, i)); got != want {
			return fmt.Errorf("child %d has %s as %d, want %s, %v", pid, got, i, want, err)
		}
	}
	unix.Shutdown(fds[1], unix.SHUT_WR)
	var ws syscall.WaitStatus
	for {
		if _, err := syscall.Wait4(pid, &ws, 0, nil); err != syscall.EINTR {
			break
		}
	}
	if ws.ExitStatus() != 0 {
		return fmt.Errorf("child %d ended with %s", pid, status(ws))
	}
	return nil
}

func init() {
	// tell writes what it reads to its standard error and says on its standard
	// output how that went. SIGPIPE ends it, as it does a program without Go.
	helpers["tell"] = func([]string) (any, error) {
		buf := make([]byte, 100)
		for {
			n, err := syscall.Read(0, buf)
			if err == syscall.EINTR {
				continue
			}
			if n <= 0 {
				return nil, err
			}
			_, err = syscall.Write(2, buf[:n])
			if err == syscall.EPIPE {
				syscall.Kill(os.Getpid(), syscall.SIGKILL)
			}
			if _, err = syscall.Write(1, fmt.Append(nil, err)); err != nil {
				return nil, err
			}
		}
	}
}

// A child whose log nobody reads any more, because the daemon is gone, lives on:
// a stream or a pipe would end it with SIGPIPE. One whose log nobody reads just
// now is not blocked.
func TestChildOutlivesLog(t *testing.T) {
	eachWay(t, func(t *testing.T, _ bool) {
		end, reader := logPair(t)
		p := compile(t, &Attr{Path: executable, Argv: helperArgv("tell"), Umask: 0o22, Stderr: Log, Env: []string{"GORACE=atexit_sleep_ms=0"}})
		p.SetLog(end)
		conn, peer := pair(t)
		pid, err := newSpawner(t).Start(p, conn, nil)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		peer.SetDeadline(time.Now().Add(20 * time.Second))
		ask := func(line string) string {
			if _, err := peer.WriteString(line); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			n, err := peer.Read(buf)
			if err != nil {
				t.Fatal(err)
			}
			return string(buf[:n])
		}
		if got := ask("hello\n"); got != "<nil>" {
			t.Errorf("the first line: %s", got)
		}
		buf := make([]byte, 100)
		if n, err := unix.Read(reader, buf); err != nil || string(buf[:n]) != "hello\n" {
			t.Errorf("the log has %q, %v", buf[:max(n, 0)], err)
		}
		// More than the socket holds (net.unix.max_dgram_qlen).
		full := ""
		for i := 0; full == "" && i < 10000; i++ {
			if got := ask("again\n"); got != "<nil>" {
				full = got
			}
		}
		if full != syscall.EAGAIN.Error() {
			t.Errorf("a log that nobody reads: %q", full)
		}
		unix.Dup3(end, reader, unix.O_CLOEXEC) // it is closed, and the number not free
		if got := ask("anybody?\n"); got != syscall.ECONNREFUSED.Error() {
			t.Errorf("a log without a reader: %s", got)
		}
		if got := ask("anybody?\n"); got == "<nil>" || !strings.Contains(got, "connect") {
			t.Errorf("a log without a reader, again: %s", got)
		}
		unix.Shutdown(int(peer.Fd()), unix.SHUT_WR)
		if s := status(reap(t, pid)); s != "exit 0" {
			t.Errorf("the child ended with %s", s)
		}
	})
}

func init() {
	// server is one for a wait row: it serves its standard input once.
	helpers["server"] = func([]string) (any, error) {
		poll := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
		for {
			if _, err := unix.Poll(poll, 10_000); err != unix.EINTR {
				break
			}
		}
		flags, err := unix.FcntlInt(0, unix.F_GETFL, 0)
		if err != nil {
			return nil, err
		}
		listening, err := unix.GetsockoptInt(0, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err != nil {
			return nil, err
		}
		said := fmt.Appendf(nil, "listening %d, nonblocking %v", listening, flags&unix.O_NONBLOCK != 0)
		if listening == 0 {
			_, from, err := unix.Recvfrom(0, make([]byte, 10), 0)
			if err != nil {
				return nil, err
			}
			return nil, unix.Sendto(0, said, 0, from)
		}
		fd, _, err := unix.Accept(0)
		if err != nil {
			return nil, err
		}
		_, err = unix.Write(fd, said)
		return nil, errors.Join(err, unix.Close(fd))
	}
}

// The servers of wait rows get the very socket that the daemon has, blocking or
// not as it is.
func TestWaitServers(t *testing.T) {
	if inMachine() {
		loopbackUp(t)
	}
	dir := publicDir(t)
	loopback := func() unix.Sockaddr { return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}} }
	n := 0
	path := func() unix.Sockaddr { n++; return &unix.SockaddrUnix{Name: fmt.Sprintf("%s/%d", dir, n)} }
	for _, c := range []struct {
		name         string
		family, kind int
		addr         func() unix.Sockaddr
	}{
		{"tcp", unix.AF_INET, unix.SOCK_STREAM, loopback},
		{"udp", unix.AF_INET, unix.SOCK_DGRAM, loopback},
		{"unix stream", unix.AF_UNIX, unix.SOCK_STREAM, path},
		{"unix seqpacket", unix.AF_UNIX, unix.SOCK_SEQPACKET, path},
		{"unix dgram", unix.AF_UNIX, unix.SOCK_DGRAM, path},
	} {
		for _, nonblock := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, nonblock %v", c.name, nonblock), func(t *testing.T) {
				eachWay(t, func(t *testing.T, _ bool) {
					check := func(err error) {
						t.Helper()
						if err != nil {
							t.Fatal(err)
						}
					}
					fd, err := unix.Socket(c.family, c.kind|unix.SOCK_CLOEXEC, 0)
					check(err)
					defer unix.Close(fd)
					check(unix.Bind(fd, c.addr()))
					check(unix.SetNonblock(fd, nonblock))
					if c.kind != unix.SOCK_DGRAM {
						check(unix.Listen(fd, 5))
					}
					at, err := unix.Getsockname(fd)
					check(err)
					peer, err := unix.Socket(c.family, c.kind|unix.SOCK_CLOEXEC, 0)
					check(err)
					defer unix.Close(peer)
					check(unix.SetsockoptTimeval(peer, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20}))

					a := &Attr{Path: executable, Argv: helperArgv("server"), Umask: 0o22, Stdout: Null, Env: []string{"GORACE=atexit_sleep_ms=0"}}
					pid, err := newSpawner(t).Start(compile(t, a), fd, nil)
					check(err)
					for i, want := range []string{slotFile(t, fd), os.DevNull, slotFile(t, fd)} {
						if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, i)); got != want {
							t.Errorf("the server has %s as %d, want %s", got, i, want)
						}
					}
					if c.family == unix.AF_UNIX && c.kind == unix.SOCK_DGRAM {
						check(unix.Bind(peer, c.addr()))
					}
					check(unix.Connect(peer, at))
					want := fmt.Sprintf("listening 1, nonblocking %v", nonblock)
					if c.kind == unix.SOCK_DGRAM {
						want = fmt.Sprintf("listening 0, nonblocking %v", nonblock)
						_, err := unix.Write(peer, []byte("x"))
						check(err)
					}
					buf := make([]byte, 100)
					k, err := unix.Read(peer, buf)
					for err == unix.EINTR { // signals of Go's own
						k, err = unix.Read(peer, buf)
					}
					if err != nil || string(buf[:k]) != want {
						t.Errorf("the server says %q, %v, want %q", buf[:max(k, 0)], err, want)
					}
					if s := status(reap(t, pid)); s != "exit 0" {
						t.Errorf("the server ended with %s", s)
					}
					// The daemon's socket is as it was.
					if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0); err != nil || (flags&unix.O_NONBLOCK != 0) != nonblock {
						t.Errorf("the daemon's socket has flags %#x, %v", flags, err)
					}
				})
			})
		}
	}
}
