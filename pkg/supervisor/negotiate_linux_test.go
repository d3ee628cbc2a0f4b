package supervisor

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// urgent sends a byte out of band.
func (c *client) urgent(b byte) *client {
	c.t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		c.t.Fatal(err)
	}
	raw.Write(func(fd uintptr) bool {
		err = unix.Send(int(fd), []byte{b}, unix.MSG_OOB)
		return true
	})
	if err != nil {
		c.t.Fatalf("sending urgent data: %v", err)
	}
	return c
}

const data = "DATA\r\n\x00\xff\nmore"

// TestEverySplit: the service reads exactly what follows the line, wherever
// the segments end. The four peers that inetd has lose it or leak the line's
// end into it (peers' 8.2, 4).
func TestEverySplit(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	for _, end := range []string{"\r\n", "\n"} {
		line := "CaT" + end
		whole := line + data
		for i := range len(whole) + 1 {
			c := dial(t, port).send(whole[:i])
			if i < len(line) {
				s.waiting(1) // it has been looked at
			} else {
				c.expect(tcpmux.Go) // the child has the connection
			}
			c.send(whole[i:]).half()
			want := tcpmux.Go + data
			if i >= len(line) {
				want = data
			}
			c.ends(want)
		}
	}
	s.instances(0)
	s.waiting(0)
}

func TestOneByteAtATime(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serve(t, mux(port), plus("cat", cat()))
	for _, source := range []string{"127.0.0.1", "::1"} {
		c := dialFrom(t, source, port)
		for _, b := range []byte("cAT\r\n" + data) {
			c.send(string([]byte{b}))
		}
		c.half().ends(tcpmux.Go + data)
	}
}

func TestPipelinedData(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serve(t, mux(port), plus("cat", cat()))
	big := strings.Repeat("0123456789abcdef", 1<<14)
	for _, end := range []string{"\r\n", "\n"} {
		c := dial(t, port)
		go func() {
			io.WriteString(c, "cat"+end+big)
			c.CloseWrite()
		}()
		if got := c.rest(); got != tcpmux.Go+big {
			t.Errorf("%d bytes came back of %d", len(got), len(big)+len(tcpmux.Go))
		}
	}
}

// The LF of a CRLF that comes in two segments is the line's, not the service's.
func TestCRThenLF(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	c := dial(t, port).send("cat\r")
	s.waiting(1)
	c.send("\n").expect(tcpmux.Go).send("x").half().ends("x")
	c = dial(t, port).send("cat\r")
	s.waiting(1)
	c.send("x\r\n").ends(tcpmux.BadName)
	if got := ask(t, port, "cat\r\r\n"); got != tcpmux.BadName {
		t.Errorf("CR CR LF: %q", got)
	}
}

// TestEOFNeverDispatches: the end of the stream is not the end of a line. BSD's
// inetds run what has come by then; two Go and C peers end by a panic (8.2, 11).
func TestEOFNeverDispatches(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	const line = "cat\r\n"
	for i := range len(line) {
		dial(t, port).send(line[:i]).half().gone()
		dial(t, port).send(line[:i]).Close()
		dial(t, port).send(line[:i]).reset()
		// And where the end comes after a look at what was there.
		for _, end := range []func(*client){
			func(c *client) { c.half().gone() },
			func(c *client) { c.Close() },
			(*client).reset,
		} {
			c := dial(t, port).send(line[:i])
			s.waiting(1)
			end(c)
			s.waiting(0)
		}
	}
	if n := s.logs.count("start"); n != 0 {
		t.Errorf("%d services were started", n)
	}
	// A whole line with an end behind it is a request like any other.
	for range 5 {
		if got := ask(t, port, line); got != tcpmux.Go {
			t.Errorf("a line and the end: %q", got)
		}
	}
	s.instances(0)
}

func TestNames(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	longest := strings.Repeat("n", tcpmux.MaxName)
	s := serve(t, mux(port), plus("cat", cat()), plus(longest, cat()), plus("two words", cat()))
	type request struct{ name, line, want string }
	list := []request{
		{"256 bytes", longest + "\r\n", tcpmux.Go},
		{"256 bytes and LF", longest + "\n", tcpmux.Go},
		{"256 bytes in upper case", strings.ToUpper(longest) + "\r\n", tcpmux.Go},
		{"256 other bytes", strings.Repeat("m", tcpmux.MaxName) + "\r\n", tcpmux.NotAvailable},
		{"257 bytes", longest + "n\r\n", tcpmux.NameTooLong},
		{"257 bytes, no end", longest + "n", tcpmux.NameTooLong},
		{"64 KiB", strings.Repeat("n", 1<<16) + "\r\n", tcpmux.NameTooLong},
		{"empty", "\r\n", tcpmux.NotAvailable},
		{"empty, LF", "\n", tcpmux.NotAvailable},
		{"blank", " \r\n", tcpmux.NotAvailable},
		{"blank behind", "cat \r\n", tcpmux.NotAvailable},
		{"blank before", " cat\r\n", tcpmux.NotAvailable},
		{"blank inside", "Two Words\r\n", tcpmux.Go},
		{"plus", "+cat\r\n", tcpmux.NotAvailable},
		{"case", "CaT\r\n", tcpmux.Go},
		{"the row's key", "tcpmux/+cat\r\n", tcpmux.NotAvailable},
		{"the multiplexer", "tcpmux\r\n", tcpmux.NotAvailable},
		{"an HTTP request", "GET / HTTP/1.1\r\nHost: x\r\n\r\n", tcpmux.NotAvailable},
		{"a TLS hello", "\x16\x03\x01\x02\x00\x01\x00", tcpmux.BadName},
	}
	for b := range 256 {
		if b >= 0x20 && b <= 0x7e || b == '\r' || b == '\n' {
			continue
		}
		list = append(list, request{fmt.Sprintf("byte %#02x", b), "ca" + string([]byte{byte(b)}) + "t\r\n", tcpmux.BadName})
	}
	for _, r := range list {
		c := dial(t, port).send(r.line)
		if r.want == tcpmux.Go {
			c.half()
		}
		if got := c.rest(); got != r.want {
			t.Errorf("%s: %q, want %q", r.name, got, r.want)
		}
		c.Close()
	}
	s.instances(0)
	s.waiting(0)
}

// TestUrgentData: a peek ends at the mark, and a byte out of band is in nobody's
// line.
func TestUrgentData(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	const line = "cat\r\n"
	whole := line + "DATA"
	for at := range len(whole) + 1 {
		// In one go, before anybody looks; and after a look at the first part.
		for _, looked := range []bool{false, true} {
			c := dial(t, port).send(whole[:at])
			if looked && at < len(line) {
				s.waiting(1)
			}
			c.urgent('!').send(whole[at:]).half()
			if got := c.rest(); got != tcpmux.Go+"DATA" {
				t.Errorf("urgent data at %d, looked %v: %q", at, looked, got)
			}
		}
	}
	// The mark first, alone; then a line byte by byte behind it.
	c := dial(t, port).urgent('!')
	s.waiting(1)
	for _, b := range []byte(whole) {
		c.send(string(b))
	}
	c.half().ends(tcpmux.Go + "DATA")
	// A line that is never complete, with marks in it, ends like any other.
	for _, end := range []func(*client){(*client).reset, func(c *client) { c.half().gone() }} {
		c := dial(t, port).send("ca").urgent('!')
		s.waiting(1)
		end(c)
		s.waiting(0)
	}
	// Every byte urgent: all but the last come into the stream when the next
	// one moves the mark. Whatever that is, it is answered.
	c = dial(t, port)
	for _, b := range []byte("cat\r\n") {
		c.urgent(b)
	}
	io.ReadAll(c.half())
	// A name that is too long, in parts that are taken one by one.
	c = dial(t, port)
	for range tcpmux.MaxName + 8 {
		c.send("n").urgent('!')
	}
	c.send("\r\n")
	if got := c.rest(); got != tcpmux.NameTooLong && got != tcpmux.BadName {
		t.Errorf("a long name with marks: %q", got)
	}
	c.Close()
	s.waiting(0)
	s.instances(0)
}

// TestTotalDeadline: one deadline for the whole line. Where each read has its
// own, a byte now and then holds a process for 43 minutes (8.2, 5).
func TestTotalDeadline(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	const timeout = 300 * time.Millisecond
	s := serve(t, with(mux(port), func(sv *service.Service) { sv.Timeout = timeout }), plus("cat", cat()))
	begin := time.Now()
	c, silent := dial(t, port), dial(t, port)
	drip := time.NewTicker(20 * time.Millisecond)
	defer drip.Stop()
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 200 {
			<-drip.C
			if _, err := c.Write([]byte("c")); err != nil {
				return
			}
		}
	}()
	b := make([]byte, len(tcpmux.TimedOut))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != tcpmux.TimedOut {
		t.Fatalf("read %q, %v", b, err)
	}
	if took := time.Since(begin); took < timeout || took > timeout+5*time.Second {
		t.Errorf("the reply came after %v, want %v", took, timeout)
	}
	silent.ends(tcpmux.TimedOut)
	c.Close()
	<-done
	silent.Close()
	s.waiting(0)
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=timeout")
}

// TestMuxLeavesNoTrace: what waiting for the line needs is gone when the child
// gets the connection.
func TestMuxLeavesNoTrace(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), minus("options", helper("options")), direct("options", port, helper("options")))
	want := dial(t, port).rest()
	if !strings.Contains(want, "nodelay=0 keepalive=0 oobinline=0 lowat=1 linger=0 nonblock=false protocol=6") {
		t.Errorf("a direct child sees %s", want)
	}
	if got := ask(t, muxPort, "options\r\n"); got != want {
		t.Errorf("a child sees %s\nafter the whole line at once; a direct one %s", got, want)
	}
	c := dial(t, muxPort).send("opt")
	s.waiting(1)
	c.urgent('!').send("ions\r\n").ends(want)
	c.Close()
}

// TestHandOverLeavesTheEpollSet: a descriptor that goes to a child while it is
// in an epoll set would report for ever and could not be taken out.
func TestHandOverLeavesTheEpollSet(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), plus("cat", cat()))
	before := s.epollSets()
	var all []*client
	for i := range 10 {
		c := dial(t, port).send("ca")
		s.waiting(1)
		c.send("t\r\n").expect(tcpmux.Go)
		all = append(all, c)
		s.waiting(0)
		if got := s.epollSets(); fmt.Sprint(got) != fmt.Sprint(before) {
			t.Fatalf("after hand-over %d the loops poll %v, before %v", i, got, before)
		}
	}
	for _, c := range all {
		c.send("still here").half().ends("still here")
	}
}

func TestHelp(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	loopbackOnly := rules(t, "127.0.0.1/32", "")
	rows := []*service.Service{
		plus("zebra", cat()), minus("Apple", cat()), plus("mango", cat()),
		with(plus("secret", cat()), func(sv *service.Service) { sv.Hidden = true }),
		with(plus("limited", cat()), func(sv *service.Service) { sv.Access = loopbackOnly }),
		with(plus("broken", cat()), func(sv *service.Service) { sv.Refuse = "its program is missing" }),
		direct("plain", testkit.FreePort(t), cat()),
	}
	rows[1].Name = "apple" // a name of the table is in lower case
	m := anywhere(mux(port))
	s := serve(t, append(rows, m)...)
	lines := func(names ...string) string { return strings.Join(names, "\r\n") + "\r\n" }
	for _, c := range []struct {
		mode   service.Help
		source string
		want   string
	}{
		{service.HelpAllowed, "127.0.0.1", lines("apple", "limited", "mango", "zebra")},
		{service.HelpAllowed, "127.0.0.2", lines("apple", "mango", "zebra")},
		{service.HelpAll, "127.0.0.1", lines("apple", "broken", "limited", "mango", "zebra")},
		{service.HelpAll, "127.0.0.2", lines("apple", "broken", "limited", "mango", "zebra")},
		{service.HelpOff, "127.0.0.1", tcpmux.NotAvailable},
	} {
		s.reload(append(rows, with(m, func(sv *service.Service) { sv.Help = c.mode }))...)
		for _, request := range []string{"help\r\n", "HELP\n", "hElP\r\nmore"} {
			cl := dialFrom(t, c.source, port).send(request)
			cl.ends(c.want)
			cl.Close()
		}
	}
	// What is hidden or not listed can be asked for all the same.
	s.reload(append(rows, m)...)
	if got := ask(t, port, "secret\r\n"); got != tcpmux.Go {
		t.Errorf("a hidden service: %q", got)
	}
	if got := ask(t, port, "broken\r\n"); got != tcpmux.NotAvailable {
		t.Errorf("a service that cannot run: %q", got)
	}
	// A multiplexer without services lists nothing.
	s.reload(m)
	if got := ask(t, port, "help\r\n"); got != "" {
		t.Errorf("an empty list: %q", got)
	}
}

// hugeTable is a multiplexer whose list is larger than any socket buffer.
func hugeTable(port int) (rows []*service.Service, list *bytes.Buffer) {
	rows = []*service.Service{with(mux(port), func(sv *service.Service) { sv.Socket.Sndbuf = 32 << 10 })}
	list = new(bytes.Buffer)
	for i := range 5000 {
		name := fmt.Sprintf("%05d-%s", i, strings.Repeat("x", 244))
		rows = append(rows, plus(name, cat()))
		list.WriteString(name + "\r\n")
	}
	return rows, list
}

// TestHelpIsNotReadForEver: a peer that reads on, but only just, loses its place
// when its time is over.
func TestHelpIsNotReadForEver(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	rows, _ := hugeTable(port)
	s := serve(t, rows...)
	c := dial(t, port)
	c.SetReadBuffer(64 << 10)
	c.send("help\r\n")
	within(t, "the list is being sent", func() bool {
		s.pending.mu.Lock()
		defer s.pending.mu.Unlock()
		if len(s.pending.slots) < 2 || s.pending.slots[1].state != pendingLinger {
			return false // the line may have been waited for first
		}
		s.pending.slots[1].born -= lingerMost
		return true
	})
	var err error
	b := make([]byte, 250)
	if !poll(bound, func() bool { _, err = c.Read(b); return err != nil }) {
		t.Fatal("it keeps its place")
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the list ends with %v, want a reset", err)
	}
	s.waiting(0)
}

// TestHugeHelp: a list larger than any socket buffer, to a peer that reads
// slowly and to one that does not read at all. Nobody else waits for them.
func TestHugeHelp(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	rows, want := hugeTable(port)
	s := serve(t, append(rows, plus("cat", cat()))...)
	want.WriteString("cat\r\n")

	stalled := dial(t, port)
	stalled.SetReadBuffer(2 << 10)
	stalled.send("help\r\n")
	s.waiting(1)

	slow := dial(t, port)
	slow.SetReadBuffer(64 << 10)
	slow.send("help\r\n")
	var got bytes.Buffer
	b := make([]byte, 3000)
	for {
		n, err := slow.Read(b)
		got.Write(b[:n])
		if err == io.EOF {
			break
		}
		if err != nil {
			t.Fatalf("after %d bytes: %v", got.Len(), err)
		}
	}
	if got.String() != want.String() {
		t.Errorf("the slow reader has %d bytes of %d", got.Len(), want.Len())
	}
	slow.Close()
	begin := time.Now()
	if got := ask(t, port, "cat\r\n"); got != tcpmux.Go {
		t.Errorf("beside a stalled reader: %q", got)
	}
	if took := time.Since(begin); took > lingerTime {
		t.Errorf("beside a stalled reader a service took %v", took)
	}
	// The stalled one is not waited for for ever, and cannot take what it has
	// got for the whole list.
	s.waiting(0)
	if b, err := io.ReadAll(stalled); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("the stalled reader has %d bytes and %v, want a reset", len(b), err)
	}
	if took := time.Since(begin); took > lingerTime+5*time.Second {
		t.Errorf("a stalled reader was waited for for %v", took)
	}
}
