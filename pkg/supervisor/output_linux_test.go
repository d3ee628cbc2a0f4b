package supervisor

import (
	"log/slog"
	"net"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func logged(e *service.Exec) *service.Exec {
	e.Stderr = service.StdioLog
	return e
}

// What instances write to their log has their pid; what their children write is
// marked.
func TestOutput(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("chatty", port, logged(sh(`echo one >&2; printf 'two\nthree\n\n' >&2; echo $$; (exec sh -c 'echo $$; echo four >&2')`))))
	pids := strings.Fields(dial(t, port).half().rest())
	s.instances(0)
	for _, line := range []string{"one", "two", "three"} {
		if l := s.logs.wait(t, "output", "line="+line); l.attrs["pid"] != pids[0] || l.attrs["service"] != "chatty" || l.attrs["descendant"] != "" {
			t.Errorf("%s, want pid %s", l.text, pids[0])
		}
	}
	if l := s.logs.wait(t, "output", "line=four"); l.attrs["pid"] != pids[1] || l.attrs["descendant"] != "true" {
		t.Errorf("%s, want descendant %s", l.text, pids[1])
	}
	if n := s.logs.count("output"); n != 4 {
		t.Errorf("%d lines, want 4", n)
	}
}

// A burst is as long as it is: nothing of it is lost, though the kernel's queue
// holds ten messages.
func TestOutputBurst(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("chatty", port, logged(sh(`i=0; while [ $i -lt 2000 ]; do echo line $i >&2; i=$((i+1)); done`))))
	dial(t, port).half().rest()
	within(t, "all lines", func() bool { return s.logs.count("output") == 2000 })
	for i, l := range s.logs.find("output") {
		if l.attrs["line"] != "line "+strconv.Itoa(i) {
			t.Fatalf("line %d: %s", i, l.text)
		}
	}
}

// A line that is longer than what is read is cut, and says so.
func TestOutputIsCut(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("long", port, logged(sh(`head -c 20000 /dev/zero | tr '\0' x | dd bs=20000 iflag=fullblock status=none >&2; echo >&2 short`))))
	dial(t, port).half().rest()
	if l := s.logs.wait(t, "output", "cut=true"); len(l.attrs["line"]) != outputMax {
		t.Errorf("%d bytes, want %d", len(l.attrs["line"]), outputMax)
	}
	s.logs.wait(t, "output", "line=short")
}

// A child that outlives the daemon survives its next write to the log.
func TestOutputOutlivesTheDaemon(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("long", port, logged(sh(`read a; echo $a >&2; read b; echo $b >&2 2>/dev/null; echo alive`))))
	c := dial(t, port).send("first\n")
	s.logs.wait(t, "output", "line=first")
	s.Stop(nil)
	if err := <-s.done; err != nil {
		t.Fatal(err)
	}
	s.over = true
	c.send("second\n")
	c.ends("alive\n")
}

// Rows whose children nobody has started yet have no sockets for their output,
// and a row that is gone has none any more.
func TestOutputSockets(t *testing.T) {
	testkit.Check(t)
	ports := []int{testkit.FreePort(t), testkit.FreePort(t)}
	a, b := direct("a", ports[0], logged(sh("echo a >&2"))), direct("b", ports[1], logged(sh("echo b >&2")))
	s := serve(t, a, b)
	count := func() int {
		s.outputs.mu.Lock()
		defer s.outputs.mu.Unlock()
		return len(s.outputs.open)
	}
	if n := count(); n != 0 {
		t.Errorf("%d sockets before the first child", n)
	}
	for range 3 {
		dial(t, ports[0]).half().rest()
	}
	s.instances(0)
	if n := count(); n != 1 {
		t.Errorf("%d sockets, want 1", n)
	}
	s.logs.wait(t, "output", "service=a")
	s.reload(b)
	within(t, "the end of a row's socket", func() bool { s.reload(b); return count() == 0 })
}

// A row whose children never stop complaining does not fill the log.
func TestOutputFlood(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		e := newEvents(slog.New(&got))
		u := &unit{id: "loud"}
		for range 2 * outputFirst {
			e.output(u, 1, true, []byte("help"), false)
		}
		if n := len(got.take()); n != outputFirst {
			t.Errorf("%d lines, want %d", n, outputFirst)
		}
		time.Sleep(sampleTime)
		synctest.Wait()
		if lines := got.take(); len(lines) != 1 || !strings.Contains(lines[0], "more=10000") {
			t.Errorf("then %q", lines)
		}
	})
}

// A child that passes a descriptor which is slow to close holds nobody up, where
// the kernel lets itself be told (Linux 6.16).
func TestOutputWithDescriptor(t *testing.T) {
	testkit.Check(t)
	send, receive, err := outputPair(outputPatience)
	if err != nil {
		t.Fatal(err)
	}
	defer closeFd(send)
	defer closeFd(receive)
	if _, err := unix.GetsockoptInt(receive, unix.SOL_SOCKET, unix.SO_PASSRIGHTS); err != nil {
		return
	}
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: l.Addr().(*net.TCPAddr).Port}
	if err := unix.Connect(c, to); err != nil {
		t.Fatal(err)
	}
	unix.SetsockoptLinger(c, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1, Linger: 3})
	for b := make([]byte, 1<<16); err == nil; { // which nobody reads
		_, err = unix.SendmsgN(c, b, nil, nil, unix.MSG_DONTWAIT)
	}
	unix.Sendmsg(send, []byte("take this"), unix.UnixRights(c), nil, 0)
	unix.Sendmsg(send, []byte("a line"), nil, nil, 0)
	unix.Close(c)
	b := make([]byte, 100)
	if n, _, _, err := receiveOutput(receive, b); err != nil || string(b[:n]) != "a line" {
		t.Errorf("received %q, %v", b[:n], err)
	}
}

// The log of a row can end while it is being read, which may take long.
func TestOutputEndsWhileRead(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("a", port, logged(sh("echo a >&2"))))
	dial(t, port).half().rest()
	s.instances(0)
	s.logs.wait(t, "output", "line=a")
	u := s.unit("a")
	s.outputs.mu.Lock()
	x := u.output
	s.outputs.mu.Unlock()
	if !s.outputs.begin(x) {
		t.Fatal("it is closed")
	}
	s.dropOutput(u)
	if _, err := unix.FcntlInt(uintptr(x.receive), unix.F_GETFD, 0); err != nil {
		t.Error("it was closed under the reader")
	}
	s.outputs.end(x)
	if s.outputs.begin(x) {
		t.Error("it is still open")
	}
}

// Many programs write a line with several calls. A beginning that stays one is
// logged as it is.
func TestOutputInPieces(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("pieces", port, logged(sh(`cat /nowhere/at/all; printf a >&2; printf 'b\nc' >&2; printf d >&2; read x; echo e >&2`))))
	c := dial(t, port)
	if l := s.logs.wait(t, "output"); l.attrs["line"] != "cat: /nowhere/at/all: No such file or directory" {
		t.Errorf("the first line: %s", l.text)
	}
	s.logs.wait(t, "output", "line=ab")
	s.logs.wait(t, "output", "line=cd")
	c.send("x\n").rest()
	s.logs.wait(t, "output", "line=e")
}
