package supervisor

// Out of descriptors, out of processes: everything goes on by itself as soon as
// there are some again. Each test has a process of its own to starve.

import (
	"errors"
	"io"
	"os"
	"strconv"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// exhaust opens descriptors until there are none, and leaves so many free. The
// returned function gives all of them back, and so does the end of the test.
func exhaust(t *testing.T, free int) (release func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 400
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
		t.Fatal(err)
	}
	var taken []int
	for {
		fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err == unix.EMFILE {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		taken = append(taken, fd)
	}
	for range free {
		unix.Close(taken[len(taken)-1])
		taken = taken[:len(taken)-1]
	}
	release = sync.OnceFunc(func() {
		for _, fd := range taken {
			unix.Close(fd)
		}
		unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	})
	t.Cleanup(release)
	return release
}

// sockets makes clients that are not connected yet, while there are descriptors.
func sockets(t *testing.T, n int) (list []int) {
	t.Helper()
	for range n {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		tv := unix.NsecToTimeval(int64(bound))
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv)
		list = append(list, fd)
	}
	return list
}

func connectTo(t *testing.T, fd, port int, line string) {
	t.Helper()
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(fd, []byte(line)); err != nil {
		t.Fatal(err)
	}
}

// readAll reads to the end.
func readAll(fd int) (string, error) {
	var all []byte
	b := make([]byte, 1024)
	for {
		n, err := unix.Read(fd, b)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n == 0 {
			return string(all), err
		}
		all = append(all, b[:n]...)
	}
}

// TestOutOfDescriptors: peers wait in the queue, the log and the processor have
// their peace, and nobody has to come and help.
func TestOutOfDescriptors(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("cat", port, cat()))
	peers := sockets(t, 20)
	release := exhaust(t, 0)
	begin := time.Now()
	for _, fd := range peers {
		connectTo(t, fd, port, "x")
		unix.Shutdown(fd, unix.SHUT_WR)
	}
	s.logs.wait(t, "out of descriptors", "service=cat")
	if share := idleCPU(t, 2500*time.Millisecond); share > 0.05 {
		t.Errorf("%.1f %% of a processor", 100*share)
	}
	took := time.Since(begin)
	if n, most := s.logs.count("out of descriptors"), int(took/time.Second)+1; n > most {
		t.Errorf("%d lines in %v, want at most one a second", n, took)
	}
	if n := s.logs.count("start"); n != 0 {
		t.Errorf("%d children were started", n)
	}
	// A new table can be applied all the same.
	s.reload(direct("cat", port, program("/bin/cat", "-u")))
	release()
	for i, fd := range peers {
		if got, err := readAll(fd); got != "x" || err != nil {
			t.Errorf("peer %d: %q, %v", i, got, err)
		}
	}
	s.instances(0)
}

// The sockets that sessions of a row need are made at its first datagram, which
// waits for them.
func TestSessionsWithoutDescriptors(t *testing.T) {
	for free := range 3 {
		t.Run(strconv.Itoa(free), func(t *testing.T) {
			if !alone(t, nil) {
				return
			}
			testkit.Check(t)
			port := testkit.FreePort(t)
			s := serve(t, sessionRow("talk", "127.0.0.1", port, receiver(bound, 1)))
			a := askUDP(t, port)
			release := exhaust(t, free)
			a.send("hello")
			s.logs.wait(t, "out of descriptors", "service=talk")
			if share := idleCPU(t, 2500*time.Millisecond); share > 0.05 {
				t.Errorf("%.1f %% of a processor", 100*share)
			}
			release()
			a.answer("hello")
			s.instances(0)
		})
	}
}

// A new row's sockets come from what is kept back.
func TestReloadWithoutDescriptors(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	port, second := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, direct("cat", port, cat()))
	peers := sockets(t, 3)
	if n := len(s.reserve.files); n != 0 {
		t.Errorf("%d descriptors are kept back while few are open", n)
	}
	// Where many are open the next connection has some kept back.
	for {
		fd, err := unix.FcntlInt(1, unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		if fd >= manyOpen {
			break
		}
	}
	connectTo(t, peers[2], port, "x")
	within(t, "some are kept back", func() bool {
		s.reserve.mu.Lock()
		defer s.reserve.mu.Unlock()
		return len(s.reserve.files) == reserved
	})
	release := exhaust(t, 0)
	connectTo(t, peers[0], port, "x")
	s.logs.wait(t, "out of descriptors", "service=cat")
	s.reload(direct("cat", port, cat()), at("second", cat(), on("127.0.0.1", second)))
	release()
	connectTo(t, peers[1], second, "x")
	for _, fd := range peers {
		unix.Shutdown(fd, unix.SHUT_WR)
		if got, err := readAll(fd); got != "x" || err != nil {
			t.Errorf("%q, %v", got, err)
		}
	}
	s.instances(0)
}

// Who only waits makes room for who comes.
func TestPendingMakeRoomForDescriptors(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	peers := sockets(t, 40)
	release := exhaust(t, 10)
	// A loop that looks for peers takes a descriptor for a moment, so the exact
	// number that fits is not known.
	oldest, n := peers[0], 1
	connectTo(t, oldest, port, "ca")
	s.waiting(1) // before another loop takes the next
	within(t, "the first has to make room", func() bool {
		if n < 20 {
			connectTo(t, peers[n], port, "ca")
			n++
		}
		return s.logs.count("refuse", "service=tcpmux", "reason=crowded") > 0
	})
	for i, fd := range peers[n:] {
		connectTo(t, fd, port, "cat\nx")
		unix.Shutdown(fd, unix.SHUT_WR)
		if got, err := readAll(fd); got != tcpmux.Go+"x" || err != nil {
			t.Errorf("newcomer %d: %q, %v", i, got, err)
		}
	}
	if got, err := readAll(oldest); got != tcpmux.Crowded || err != nil {
		t.Errorf("the oldest: %q, %v", got, err)
	}
	release()
	s.instances(0)
}

// TestOutOfProcesses: fork fails with EAGAIN. The limit does not bind root, so
// the daemon is somebody else.
func TestOutOfProcesses(t *testing.T) {
	uid := uint32(1<<30 + 1<<25 + os.Getpid())
	if !alone(t, &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}}) {
		return
	}
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), plus("cat", cat()), direct("cat", port, cat()))
	// All threads that this process needs are there before none can be made.
	for range 20 {
		if got := ask(t, muxPort, "cat\r\n"); got != tcpmux.Go {
			t.Fatalf("before: %q", got)
		}
		dial(t, port).send("x").half().ends("x")
	}
	s.instances(0)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NPROC, &limit); err != nil {
		t.Fatal(err)
	}
	low := limit
	low.Cur = 1
	if err := unix.Setrlimit(unix.RLIMIT_NPROC, &low); err != nil {
		t.Fatal(err)
	}
	restored := false
	restore := func() {
		if !restored {
			unix.Setrlimit(unix.RLIMIT_NPROC, &limit)
			restored = true
		}
	}
	defer restore()
	for range 30 {
		if got := ask(t, muxPort, "cat\r\n"); got != tcpmux.NotAvailable {
			t.Errorf("without processes: %q", got)
		}
	}
	l := s.logs.wait(t, "cannot start", "service=tcpmux/+cat", "reason=clone")
	if want := syscall.EAGAIN.Error(); l.attrs["error"] != want {
		t.Errorf("the error is %q, want %q", l.attrs["error"], want)
	}
	// Not each of them tried: the rest was refused in the wait after a failure.
	if tried := s.logs.count("cannot start"); tried > 20 {
		t.Errorf("%d of 30 peers had a child made for them", tried)
	}
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=backoff")
	waits := dial(t, port)
	waits.Write([]byte("x"))
	restore()
	within(t, "recovery by name", func() bool { return ask(t, muxPort, "cat\r\n") == tcpmux.Go })
	within(t, "recovery on the port", func() bool {
		c, err := tryFrom("127.0.0.1", port)
		if err != nil {
			return false
		}
		defer c.Close()
		io.WriteString(c, "x")
		c.CloseWrite()
		b, err := io.ReadAll(c)
		return err == nil && string(b) == "x"
	})
	waits.Close()
	s.instances(0)
}

// TestOutOfProcessesInACgroup: the same for root, who has only the limits of
// his cgroup; and here a thread cannot be made either.
func TestOutOfProcessesInACgroup(t *testing.T) {
	dir := os.Getenv("TCPMUXD_TEST_CGROUP")
	if dir == "" {
		d, remove, err := pidsCgroup()
		if err != nil {
			t.Logf("no pids cgroup can be made here (%v): TestOutOfProcesses has to do", err)
			return
		}
		defer remove()
		t.Setenv("TCPMUXD_TEST_CGROUP", d)
	}
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	muxPort := testkit.FreePort(t)
	s := serve(t, mux(muxPort), plus("cat", cat()))
	if got := ask(t, muxPort, "cat\r\n"); got != tcpmux.Go {
		t.Fatalf("before: %q", got)
	}
	s.instances(0)
	write := func(name, value string) {
		t.Helper()
		if err := os.WriteFile(dir+"/"+name, []byte(value), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("pids.max", "max")
	write("cgroup.procs", strconv.Itoa(os.Getpid()))
	write("pids.max", "1")
	// From many sides at once, so that Go would like to have more threads.
	var peers sync.WaitGroup
	for range 16 {
		peers.Go(func() {
			for range 20 {
				c, err := tryFrom("127.0.0.1", muxPort)
				if err != nil {
					t.Error(err)
					return
				}
				io.WriteString(c, "cat\r\n")
				c.CloseWrite()
				if b, err := io.ReadAll(c); err != nil || string(b) != tcpmux.NotAvailable {
					t.Errorf("without processes: %q, %v", b, err)
				}
				c.Close()
			}
		})
	}
	peers.Wait()
	s.logs.wait(t, "cannot start", "service=tcpmux/+cat", "reason=clone")
	write("pids.max", "max")
	within(t, "recovery", func() bool { return ask(t, muxPort, "cat\r\n") == tcpmux.Go })
	s.instances(0)
}

// pidsCgroup makes a cgroup that can limit processes, of either version.
func pidsCgroup() (dir string, remove func(), err error) {
	for _, root := range []string{"/sys/fs/cgroup/pids", "/sys/fs/cgroup"} {
		d := root + "/tcpmuxd-test-" + strconv.Itoa(os.Getpid())
		if e := os.Mkdir(d, 0o755); e != nil {
			err = errors.Join(err, e)
			continue
		}
		if _, e := os.Stat(d + "/pids.max"); e != nil {
			os.Remove(d)
			err = errors.Join(err, e)
			continue
		}
		return d, func() {
			// The processes in it have ended, but are not gone at once.
			poll(bound, func() bool { return os.Remove(d) == nil })
		}, nil
	}
	return "", nil, err
}
