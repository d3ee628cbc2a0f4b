package supervisor

// Who gets nothing, and what that looks like: on the wire, in the log, and in
// what it costs.

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestCVE20120862: enabling the multiplexer exposed every service of xinetd
// on port 1, past its own rules.
func TestCVE20120862(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort),
		with(direct("ftp", port, sh("echo ftp itself")), func(sv *service.Service) { sv.Access = rules(t, "127.0.0.9/32", "") }),
		with(direct("other", testkit.FreePort(t), cat()), func(sv *service.Service) { sv.Name = "named" }))
	for _, name := range []string{"ftp", "FTP", "+ftp", "tcpmux/ftp", "other", "named", "tcpmux"} {
		if got := ask(t, muxPort, name+"\r\n"); got != tcpmux.NotAvailable {
			t.Errorf("%q: %q, want a refusal", name, got)
		}
	}
	if n := s.logs.count("start"); n != 0 {
		t.Errorf("%d services were started", n)
	}
	dial(t, port).gone()
}

// FreeBSD's inetd merges the two (8.2, 2).
func TestSameNameDirectAndMux(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	serve(t, mux(muxPort), direct("ftp", port, sh("echo direct")), minus("ftp", sh("echo mux")))
	if got := ask(t, muxPort, "ftp\r\n"); got != "mux\n" {
		t.Errorf("by name: %q", got)
	}
	dial(t, port).ends("direct\n")
}

// Without "+" the program answers, and nobody else says a word.
func TestMinusSaysNothing(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serve(t, mux(port), minus("own", sh("echo +own words")), minus("silent", sh("cat >/dev/null")))
	if got := ask(t, port, "own\r\n"); got != "+own words\n" {
		t.Errorf("%q", got)
	}
	if got := ask(t, port, "silent\r\nwords"); got != "" {
		t.Errorf("%q", got)
	}
}

// TestGoIsTheLastWord: "+Go" promises a service. FreeBSD's inetd and xinetd send it
// before they know that there is one (8.2, 6).
func TestGoIsTheLastWord(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	dir := filepath.Dir(self)
	file := func(name, content string, mode os.FileMode) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), mode); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(p, mode); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { os.Remove(p) })
		return p
	}
	const nobody = 64999
	list := []struct {
		name string
		sv   *service.Service
		want string
	}{
		{"absent", plus("", program("/nonexistent/program")), tcpmux.NotAvailable},
		{"directory", plus("", program("/usr")), tcpmux.NotAvailable},
		{"data", plus("", program(file("data", "not a program", 0o644))), tcpmux.NotAvailable},
		{"root's", plus("", as(nobody, program(file("rootonly", "#!/bin/sh\n", 0o700)))), tcpmux.NotAvailable},
		{"cwd", plus("", func() *service.Exec { e := cat(); e.Dir = "/nonexistent"; return e }()), tcpmux.NotAvailable},
		{"own cwd", plus("", func() *service.Exec { e := as(nobody, cat()); e.Dir = "/root"; return e }()), tcpmux.NotAvailable},
		{"refused row", with(plus("", cat()), func(sv *service.Service) { sv.Refuse = "its user has vanished" }), tcpmux.NotAvailable},
		{"denied", with(plus("", cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.1/32") }), tcpmux.NotAvailable},
		{"not allowed", with(plus("", cat()), func(sv *service.Service) { sv.Access = rules(t, "127.0.0.2/32", "") }), tcpmux.NotAvailable},
		{"rate", with(plus("", cat()), func(sv *service.Service) { sv.Limits.Rate = limit.Rate{N: 1, Per: time.Hour} }), tcpmux.Busy},
		{"absent, no plus", minus("", program("/nonexistent/program")), tcpmux.NotAvailable},
		{"denied, no plus", with(minus("", cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.1/32") }), tcpmux.NotAvailable},
	}
	rows := []*service.Service{mux(port)}
	for i := range list {
		sv := list[i].sv
		sv.Name, sv.ID = list[i].name, sv.ID+list[i].name
		rows = append(rows, sv)
	}
	s := serve(t, rows...)
	if os.Geteuid() != 0 {
		t.Fatal("this test has to be run by root")
	}
	if got := ask(t, port, "rate\r\n"); got != tcpmux.Go {
		t.Errorf("the first of its rate: %q", got)
	}
	for _, c := range list {
		// Data behind the line must not destroy the reply.
		if got := ask(t, port, c.name+"\r\n"+strings.Repeat("data", 1000)); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
	s.instances(0)
	for id, u := range s.units {
		u.mu.Lock()
		if n := u.book.Instances(); n != 0 {
			t.Errorf("%s: %d places are not given back", id, n)
		}
		u.mu.Unlock()
	}
}

// A script whose interpreter is missing passes every check before the exec.
// Nothing but a reset can follow "+Go" then.
func TestMissingInterpreter(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	script := filepath.Join(t.TempDir(), "script")
	if err := os.WriteFile(script, []byte("#!/nonexistent/interpreter\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	s := serve(t, mux(port), plus("script", program(script)), minus("silent", program(script)))
	for range 20 {
		c := dial(t, port).send("script\r\n").expect(tcpmux.Go)
		if n, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
			t.Fatalf("after +Go: %d bytes, %v, want a reset", n, err)
		}
		c.Close()
	}
	if got := ask(t, port, "silent\r\n"); got != tcpmux.NotAvailable {
		t.Errorf("without plus: %q", got)
	}
	s.logs.wait(t, "cannot start", "service=tcpmux/+script", "reason=exec")
	s.instances(0)
}

// A peer that has gone before "+Go" is no failure of the service, and nothing
// is started for it.
func TestPeerLeavesBeforeGo(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := prepare(t, table(mux(port), plus("cat", cat()), minus("silent", cat())))
	const peers = 20
	for range peers {
		dial(t, port).send("cat\r\n").reset()
		dial(t, port).send("silent\r\n").reset()
	}
	s.run() // only now does it look at them
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=gone")
	if got := ask(t, port, "cat\r\n"); got != tcpmux.Go {
		t.Errorf("the next peer: %q", got)
	}
	s.instances(0)
	s.waiting(0)
	if n := s.logs.count("start", "service=tcpmux/+cat"); n != 1 {
		t.Errorf("%d children were started, want 1", n)
	}
	if n := s.logs.count("cannot start"); n != 0 {
		t.Errorf("a peer that left counts as %d failures", n)
	}
}

// TestRefusalOutlivesPipelinedData: closing a socket with unread data sends a
// reset, which takes the reply out of the peer's hands.
func TestRefusalOutlivesPipelinedData(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port), with(plus("denied", cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.0/8") }))
	for _, request := range []string{"nobody\r\n", "denied\r\n", "\x00\r\n", strings.Repeat("n", 300) + "\r\n"} {
		c := dial(t, port).send(request + strings.Repeat("x", 30<<10))
		// More, when the reply is there already.
		c.expect("-")
		c.send(strings.Repeat("y", 10<<10))
		line := c.rest()
		if !strings.HasSuffix(line, "\r\n") || strings.Count(line, "\n") != 1 {
			t.Errorf("%.10q: the reply is %q", request, "-"+line)
		}
		c.Close()
	}
	s.waiting(0)
}

// TestLingeringIsBounded in bytes and in time, and counts among the pending.
func TestLingeringIsBounded(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(mux(port), func(sv *service.Service) { sv.Limits.InstancesPerSource = 2 }), plus("cat", cat()))

	// Bytes: whoever goes on sending is cut off soon.
	c := dial(t, port).send("nobody\r\n")
	n, err := io.Copy(c, bytes.NewReader(make([]byte, 64<<20)))
	if err == nil {
		t.Errorf("all of %d bytes were taken after a refusal", n)
	}
	s.waiting(0)

	// Time: whoever does nothing is let go.
	idle := dial(t, port).send("nobody\r\n")
	idle.ends(tcpmux.NotAvailable)
	s.waiting(1)
	// It holds one of the two places of its source; two more are one too many.
	first := dial(t, port).send("c")
	s.waiting(2)
	second := dial(t, port).send("c")
	within(t, "the oldest one is closed", func() bool {
		_, err := unix.Write(descriptor(t, idle), []byte("x"))
		return errors.Is(err, syscall.EPIPE) || errors.Is(err, syscall.ECONNRESET)
	})
	s.waiting(2)
	for _, c := range []*client{first, second} {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
	idle = dial(t, port).send("nobody\r\n")
	idle.ends(tcpmux.NotAvailable)
	begin := time.Now()
	s.waiting(1)
	s.waiting(0)
	if took := time.Since(begin); took > lingerTime+2*time.Second {
		t.Errorf("a peer that does not close was waited for for %v", took)
	}
}

func descriptor(t testing.TB, c *client) (fd int) {
	t.Helper()
	raw, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(f uintptr) { fd = int(f) })
	return fd
}

// TestRefusalsOnDirectPorts: the connection is closed, without a word.
func TestRefusalsOnDirectPorts(t *testing.T) {
	testkit.Check(t)
	ports := []int{testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)}
	s := serve(t,
		with(direct("denied", ports[0], cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.0/8 ::1/128") }),
		with(direct("closed", ports[1], cat()), func(sv *service.Service) { sv.Refuse = "its program is missing" }),
		direct("absent", ports[2], program("/nonexistent/program")))
	for _, port := range ports {
		for _, source := range []string{"127.0.0.1", "::1"} {
			c := dialFrom(t, source, port)
			c.Write([]byte("something")) // may be too late
			c.gone()
		}
	}
	s.logs.wait(t, "refuse", "service=denied", "reason=access")
	s.logs.wait(t, "refuse", "service=closed", "reason=row")
	s.logs.wait(t, "cannot start", "service=absent", "reason=exec")
	s.instances(0)
}

// A refusal names the service that was asked for, not the multiplexer.
func TestRefusalsInTheLog(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	m := with(mux(port), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.66/32") })
	s := serve(t, anywhere(m), with(plus("denied", cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.0/8") }))
	ask(t, port, "Denied\r\n")
	ask(t, port, "Who\"is this\r\n")
	ask(t, port, "\x01\r\n")
	dial(t, port).send("half").reset()
	dialFrom(t, "127.0.0.66", port).ends(tcpmux.NotAvailable)
	for _, want := range [][]string{
		{"service=tcpmux/+denied", "reason=access"},
		{"service=tcpmux", "reason=unknown", `name=who"is this`},
		{"service=tcpmux", "reason=name"},
		{"service=tcpmux", "reason=gone"},
		{"service=tcpmux", "reason=access"},
	} {
		l := s.logs.wait(t, "refuse", want...)
		if !strings.HasPrefix(l.attrs["peer"], "127.0.0.") {
			t.Errorf("%q has peer %q", want, l.attrs["peer"])
		}
	}
}
