package supervisor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// helperReceiver answers datagrams on descriptor 0 with its pid, whether its
// socket blocks, and what it has got, until none has come for the given time or
// it has answered so many.
func helperReceiver(args []string) {
	idle, _ := time.ParseDuration(args[0])
	most, _ := strconv.Atoi(args[1])
	b := make([]byte, 64<<10)
	for range most {
		if !comes(idle) {
			return
		}
		n, from, err := unix.Recvfrom(0, b, 0)
		if err != nil {
			os.Exit(1)
		}
		unix.Sendto(0, fmt.Appendf(nil, "%d %v %s", os.Getpid(), blocks(0), b[:n]), 0, from)
	}
}

// comes waits for somebody at descriptor 0. A signal of the runtime's own does not
// end the wait: what follows would have no end.
func comes(idle time.Duration) bool {
	p := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	for {
		if n, err := unix.Poll(p, int(idle.Milliseconds())); err != unix.EINTR {
			return n > 0
		}
	}
}

// helperAcceptor does the same for the lines of connections, one connection at a
// time.
func helperAcceptor(args []string) {
	idle, _ := time.ParseDuration(args[0])
	most, _ := strconv.Atoi(args[1])
	for range most {
		if !comes(idle) {
			return
		}
		fd, _, err := unix.Accept(0)
		if err != nil {
			os.Exit(1)
		}
		b := make([]byte, 1000)
		n, _ := unix.Read(fd, b)
		unix.Write(fd, fmt.Appendf(nil, "%d %v %s", os.Getpid(), blocks(0), b[:n]))
		unix.Close(fd)
	}
}

func blocks(fd int) bool {
	flags, _ := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	return flags&unix.O_NONBLOCK == 0
}

// waiting rows.

func waitStream(id string, port int, e *service.Exec) *service.Service {
	sv := direct(id, port, e)
	sv.Listen = sv.Listen[:1]
	sv.Wait = true
	return sv
}

func waitUDP(id string, port int, e *service.Exec) *service.Service {
	sv := waitStream(id, port, e)
	sv.Listen = []service.Endpoint{{Network: service.UDP4, Addr: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(port))}}
	return sv
}

func receiver(idle time.Duration, most int) *service.Exec {
	return helper("receiver", idle.String(), strconv.Itoa(most))
}

func acceptor(idle time.Duration, most int) *service.Exec {
	return helper("acceptor", idle.String(), strconv.Itoa(most))
}

// An asker sends datagrams.
type asker struct {
	*net.UDPConn
	t testing.TB
}

func askUDP(t testing.TB, port int) *asker {
	t.Helper()
	c, err := net.DialUDP("udp4", nil, &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	return &asker{c, t}
}

func (a *asker) send(s string) *asker {
	a.t.Helper()
	if _, err := a.Write([]byte(s)); err != nil {
		a.t.Fatal(err)
	}
	return a
}

// answer reads what a receiver has to say to a datagram: who it is.
func (a *asker) answer(to string) (pid int) {
	a.t.Helper()
	b := make([]byte, 1000)
	n, err := a.Read(b)
	if err != nil {
		a.t.Fatalf("no answer to %q: %v", to, err)
	}
	return told(a.t, string(b[:n]), to)
}

func told(t testing.TB, got, want string) (pid int) {
	t.Helper()
	f := strings.SplitN(got, " ", 3)
	if len(f) != 3 || f[2] != want {
		t.Fatalf("the answer is %q, want one to %q", got, want)
	}
	if f[1] != "true" {
		t.Errorf("the server's socket does not block: %q", got)
	}
	pid, _ = strconv.Atoi(f[0])
	return pid
}

// One server at a time has the socket, as long as it likes; after its end the
// next datagram starts another one.
func TestWaitDatagrams(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, waitUDP("talk", port, receiver(100*time.Millisecond, 100)))
	a := askUDP(t, port)
	first := a.send("one").answer("one")
	if again := a.send("two").answer("two"); again != first {
		t.Errorf("a second server, %d after %d", again, first)
	}
	s.instances(0)
	if next := a.send("three").answer("three"); next == first {
		t.Error("the server that had ended answers")
	}
	s.instances(0)
	s.logs.wait(t, "end", "service=talk", "pid="+strconv.Itoa(first), "status=0")
	if n := len(s.logs.find("start")); n != 2 {
		t.Errorf("%d starts, want 2", n)
	}
	if l := s.logs.find("start")[0]; l.attrs["peer"] != "" {
		t.Errorf("a peer is logged that the daemon has never seen: %s", l.text)
	}
}

func TestWaitStream(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, waitStream("web", port, acceptor(100*time.Millisecond, 100)))
	exchange := func(line string) int {
		return told(t, dial(t, port).send(line).half().rest(), line)
	}
	first := exchange("one")
	if again := exchange("two"); again != first {
		t.Errorf("a second server, %d after %d", again, first)
	}
	s.instances(0)
	if next := exchange("three"); next == first {
		t.Error("the server that had ended answers")
	}
}

// A server that leaves what has come unread is started again more and more
// seldom, and what it has left is the next one's.
func TestWaitServerThatReadsNothing(t *testing.T) {
	testkit.Check(t)
	for name, how := range map[string]*service.Exec{
		"well":        program("/bin/true"),
		"badly":       program("/bin/false"),
		"by a signal": sh("kill -9 $$"),
	} {
		t.Run(name, func(t *testing.T) {
			port := testkit.FreePort(t)
			s := serve(t, waitUDP("deaf", port, how))
			a := askUDP(t, port).send("keep me")
			s.logs.wait(t, "back off", "service=deaf")
			time.Sleep(500 * time.Millisecond)
			if n := len(s.logs.find("start")); n > unreadFree+8 {
				t.Errorf("%d servers were started for one datagram in half a second", n)
			}
			s.reload(waitUDP("deaf", port, receiver(50*time.Millisecond, 100)))
			a.answer("keep me")
			s.instances(0)
		})
	}
}

// A reload does not wait for the rest of a row that it may have mended.
func TestWaitRestEndsWithReload(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	refused := waitUDP("vanished", port, program("/bin/true"))
	refused.Refuse = "its user has vanished"
	s := serve(t, refused)
	a := askUDP(t, port).send("keep me")
	s.logs.wait(t, "defer", "service=vanished", "reason=row")
	s.reload(waitUDP("vanished", port, receiver(50*time.Millisecond, 100)))
	a.answer("keep me")
	s.instances(0)
}

// A server that is killed before it has read anything costs nothing.
func TestWaitServerKilledBeforeItReads(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, waitUDP("slow", port, sh("exec sleep 60")))
	a := askUDP(t, port).send("keep me")
	s.instances(1)
	s.reload(waitUDP("slow", port, receiver(50*time.Millisecond, 100)))
	s.reaper.each(func(pid int, _ *instance) { syscall.Kill(pid, syscall.SIGKILL) })
	a.answer("keep me")
	s.instances(0)
	s.logs.wait(t, "end", "signal=SIGKILL")
}

// With instances = N so many servers share a socket, and no more.
func TestWaitSharedSocket(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := waitStream("web", port, helper("acceptor", "30s", "1"))
	row.Limits.Instances = 3
	s := serve(t, row)
	var held []*client
	for range 5 {
		held = append(held, dial(t, port)) // each keeps a server busy until it says something
	}
	s.instances(3)
	time.Sleep(2 * shareMost)
	s.instances(3)
	for _, c := range held {
		told(t, c.send("x").half().rest(), "x")
	}
}

// A reload never takes the socket from a running server, whatever becomes of its
// row, and nobody else has it before the server has ended.
func TestWaitReloads(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	long, short := receiver(bound, 3), receiver(50*time.Millisecond, 100)
	s := serve(t, waitUDP("one", port, long))
	a := askUDP(t, port)
	first := a.send("1").answer("1")
	cookies := s.cookies("one")

	s.reload(waitUDP("two", port, short)) // another name and program
	if got := s.cookies("two"); len(got) != 1 || got[0] != cookies[0] {
		t.Errorf("the socket is another one")
	}
	if pid := a.send("2").answer("2"); pid != first {
		t.Errorf("a second server is there")
	}
	if pid := a.send("3").answer("3"); pid != first { // its last one
		t.Errorf("a second server is there")
	}
	s.instances(0)
	if pid := a.send("4").answer("4"); pid == first {
		t.Errorf("the old server lives on")
	}
	s.instances(0)
}

// From wait to nowait and back, the queue is kept and the socket blocks for those
// whom it has to.
func TestWaitComesAndGoes(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	wait := waitStream("web", port, acceptor(bound, 2))
	nowait := with(wait, func(sv *service.Service) { sv.Wait, sv.Exec = false, cat() })
	s := serve(t, wait)
	first := told(t, dial(t, port).send("a").half().rest(), "a")
	s.reload(nowait)
	// The server has the socket still.
	if pid := told(t, dial(t, port).send("b").half().rest(), "b"); pid != first {
		t.Errorf("a second server is there")
	}
	dial(t, port).send("c").half().ends("c") // its second was the last
	dial(t, port).send("d").half().ends("d")
	s.reload(wait)
	told(t, dial(t, port).send("e").half().rest(), "e")
	told(t, dial(t, port).send("f").half().rest(), "f")
	s.instances(0)
}

// A server that outlives the daemon goes on with its socket.
func TestWaitServerOutlivesTheDaemon(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, waitStream("web", port, acceptor(bound, 100)))
	first := told(t, dial(t, port).send("a").half().rest(), "a")
	s.Stop(nil)
	if pid := told(t, dial(t, port).send("b").half().rest(), "b"); pid != first {
		t.Errorf("%d answers, want %d", pid, first)
	}
}

// A row that comes back while a server of its former life has the address waits
// for that one, and stands in nobody's way.
func TestWaitRowComesBack(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	row := waitUDP("talk", port, receiver(200*time.Millisecond, 100))
	s := serve(t, row)
	a := askUDP(t, port)
	first := a.send("1").answer("1")
	s.reload(direct("other", other, cat()))
	a.send("2").answer("2")
	s.reload(row, direct("another", other, cat()))
	s.logs.wait(t, "address is not free", "service=talk")
	s.logs.wait(t, "end", "pid="+strconv.Itoa(first))
	within(t, "the row listens again", func() bool { return s.logs.count("listen", "service=talk") == 2 })
	if pid := a.send("3").answer("3"); pid == first {
		t.Error("the former server answers")
	}
	s.instances(0)
}

// helperVandal does to its socket what is also done to that of the servers after
// it, and ends.
func helperVandal(args []string) {
	unix.SetNonblock(0, true)
	switch args[0] {
	case "tcp":
		fd, _, _ := unix.Accept(0)
		unix.Write(fd, []byte("done"))
		unix.Shutdown(0, unix.SHUT_RDWR)
	case "udp":
		b := make([]byte, 100)
		_, from, _ := unix.Recvfrom(0, b, 0)
		unix.Connect(0, from)
		unix.Write(0, []byte("done"))
	}
}

// What a server leaves the socket like is not what the next one gets.
func TestWaitSocketIsRestored(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, waitUDP("udp", port, helper("vandal", "udp")), waitStream("tcp", port, helper("vandal", "tcp")))
	for range 3 {
		a := askUDP(t, port).send("hello")
		b := make([]byte, 100)
		if n, err := a.Read(b); err != nil || string(b[:n]) != "done" {
			t.Fatalf("datagrams: %q, %v", b[:n], err)
		}
		dial(t, port).ends("done")
		s.instances(0)
		within(t, "the sockets' return", func() bool { return blocks(s.unit("udp").listeners[0].Fd()) && blocks(s.unit("tcp").listeners[0].Fd()) })
	}
}

// A row that moves to another address of its port does not take the socket from
// the server that has it.
func TestWaitRowMoves(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	narrow := waitUDP("talk", port, receiver(200*time.Millisecond, 100))
	wide := with(narrow, func(sv *service.Service) {
		sv.Listen = []service.Endpoint{{Network: service.UDP4, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), uint16(port))}}
	})
	s := serve(t, wide)
	a := askUDP(t, port)
	first := a.send("1").answer("1")
	s.reload(narrow)
	s.logs.wait(t, "address is not free", "service=talk")
	if pid := a.send("2").answer("2"); pid != first {
		t.Error("another server answers")
	}
	within(t, "the row listens again", func() bool { return s.logs.count("listen", "service=talk") == 2 })
	if pid := a.send("3").answer("3"); pid == first {
		t.Error("the former server answers")
	}
	s.instances(0)
}
