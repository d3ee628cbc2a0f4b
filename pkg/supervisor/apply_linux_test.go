package supervisor

// Reload: all of a table or nothing, and nobody notices.

import (
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// taken is a port that somebody else listens on.
func taken(t *testing.T) int {
	t.Helper()
	port := testkit.FreePort(t)
	l, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.1:%d", port))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return port
}

// at is a direct row on some addresses.
func at(id string, e *service.Exec, where ...service.Endpoint) *service.Service {
	sv := direct(id, 1, e)
	sv.Listen = where
	return sv
}

func TestApplyIsAllOrNothing(t *testing.T) {
	testkit.Check(t)
	muxPort, a, b := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	old := []*service.Service{
		mux(muxPort), plus("old", cat()), direct("a", a, sh("echo old a")),
		at("b", sh("echo old b"), on("0.0.0.0", b)),
	}
	s := serve(t, old...)
	cookies := func() string { return fmt.Sprint(s.cookies("tcpmux"), s.cookies("a"), s.cookies("b")) }
	before := cookies()
	err := s.Apply(table(
		with(mux(muxPort), func(sv *service.Service) { sv.Timeout, sv.Socket.Nodelay = time.Second, true }),
		plus("new", cat()),
		direct("a", a, sh("echo new a")),
		at("b", sh("echo new b"), on("0.0.0.0", b)),
		direct("c", testkit.FreePort(t), cat()),
		with(direct("x", taken(t), cat()), func(sv *service.Service) { sv.Origin = service.Place{File: "x.toml", Line: 7} }),
		with(direct("y", taken(t), cat()), func(sv *service.Service) { sv.Origin = service.Place{File: "y.toml", Line: 8} }),
		with(direct("z", testkit.FreePort(t), program("not/absolute")), func(sv *service.Service) { sv.Origin = service.Place{File: "z.toml", Line: 9} }),
	))
	var all *multierror.Error
	if !errors.As(err, &all) || len(all.Errors) != 3 {
		t.Fatalf("Apply: %v, want three errors", err)
	}
	for _, want := range []string{`x.toml:7: row "x"`, `y.toml:8: row "y"`, `z.toml:9: row "z"`} {
		if !strings.Contains(err.Error(), want) {
			t.Errorf("%q does not tell of %q", err, want)
		}
	}
	if got := cookies(); got != before {
		t.Errorf("the sockets are %s, before %s", got, before)
	}
	if n, err := unix.GetsockoptInt(s.unit("tcpmux").listeners[0].Fd(), unix.IPPROTO_TCP, unix.TCP_NODELAY); err != nil || n != 0 {
		t.Errorf("TCP_NODELAY is %d, %v, as in the table that failed", n, err)
	}
	if got := ask(t, muxPort, "help\r\n"); got != "old\r\n" {
		t.Errorf("HELP: %q", got)
	}
	dial(t, a).ends("old a\n")
	dial(t, b).ends("old b\n")
	for _, id := range []string{"c", "x", "y", "z"} {
		if s.unit(id) != nil {
			t.Errorf("row %q of the failed table is there", id)
		}
	}
	s.instances(0)
}

func TestApplyAfterStop(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("a", port, cat()))
	s.stop()
	if err := s.Apply(table(direct("a", port, cat()))); !errors.Is(err, ErrStopping) {
		t.Errorf("Apply after Stop: %v", err)
	}
}

// A socket that both tables have is never closed, so the peers in its queue
// stay there, NetBSD's inetd drops them (8.2, 9).
func TestReloadKeepsTheBacklog(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(direct("a", port, sh("echo old; read x")), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	})
	s := serve(t, row)
	cookies := s.cookies("a")
	first := dial(t, port).expect("old\n")
	second := dial(t, port)
	s.reload(with(row, func(sv *service.Service) { sv.Exec = sh("echo new") }))
	if got := s.cookies("a"); !slices.Equal(got, cookies) {
		t.Errorf("the sockets are %v, before %v", got, cookies)
	}
	first.send("end\n").ends("") // it runs on as it was started
	second.ends("new\n")
	s.instances(0)
}

func TestRenamedRowKeepsItsSocket(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(direct("a", port, sh("echo a; read x")), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	})
	s := serve(t, row)
	cookies := s.cookies("a")
	first := dial(t, port).expect("a\n")
	second := dial(t, port)
	s.reload(with(row, func(sv *service.Service) { sv.ID, sv.Exec = "b", sh("echo b") }))
	if got := s.cookies("b"); !slices.Equal(got, cookies) {
		t.Errorf("the sockets are %v, before %v", got, cookies)
	}
	second.ends("b\n")
	first.send("end\n").ends("")
	s.instances(0)
	// And two rows that swap their names.
	other := testkit.FreePort(t)
	s.reload(at("p", sh("echo one"), on("127.0.0.1", port)), at("q", sh("echo two"), on("127.0.0.1", other)))
	p, q := s.cookies("p"), s.cookies("q")
	s.reload(at("q", sh("echo one"), on("127.0.0.1", port)), at("p", sh("echo two"), on("127.0.0.1", other)))
	if !slices.Equal(s.cookies("p"), q) || !slices.Equal(s.cookies("q"), p) {
		t.Error("rows that swapped their names have other sockets")
	}
	dial(t, port).ends("one\n")
	dial(t, other).ends("two\n")
	s.instances(0)
}

func TestReloadRetunes(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := direct("a", port, helper("options"))
	s := serve(t, row)
	cookies := s.cookies("a")
	for range 2 {
		s.reload(with(row, func(sv *service.Service) { sv.Socket.Nodelay, sv.Socket.Keepalive.On = true, true }))
		if got := dial(t, port).rest(); !strings.Contains(got, "nodelay=1 keepalive=1") {
			t.Errorf("a child sees %s", got)
		}
		s.reload(row)
		if got := dial(t, port).rest(); !strings.Contains(got, "nodelay=0 keepalive=0") {
			t.Errorf("a child sees %s", got)
		}
	}
	if got := s.cookies("a"); !slices.Equal(got, cookies) {
		t.Errorf("the sockets are %v, before %v", got, cookies)
	}
	s.instances(0)
}

// The kernel does not let a wildcard and an address beside each other, so the
// one has to go before the other can come.
func TestSwapWildcardAndAddresses(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	every := at("a", sh("echo every"), on("0.0.0.0", port))
	one := at("a", sh("echo one"), on("127.0.0.1", port))
	two := at("a", sh("echo two"), on("127.0.0.1", port), on("127.0.0.2", port))
	three := at("b", sh("echo three"), on("127.0.0.1", port), on("127.0.0.2", port), on("127.0.0.3", port))
	apart := []*service.Service{at("a", sh("echo A"), on("127.0.0.1", port)), at("c", sh("echo C"), on("127.0.0.2", port))}
	s := serve(t, every)
	for _, step := range []struct {
		rows []*service.Service
		want map[string]string
	}{
		{[]*service.Service{one}, map[string]string{"127.0.0.1": "one\n"}},
		{[]*service.Service{every}, map[string]string{"127.0.0.1": "every\n", "127.0.0.2": "every\n"}},
		{[]*service.Service{two}, map[string]string{"127.0.0.1": "two\n", "127.0.0.2": "two\n"}},
		{[]*service.Service{every}, map[string]string{"127.0.0.1": "every\n", "127.0.0.2": "every\n"}},
		{[]*service.Service{three}, map[string]string{"127.0.0.1": "three\n", "127.0.0.2": "three\n", "127.0.0.3": "three\n"}},
		{[]*service.Service{every}, map[string]string{"127.0.0.1": "every\n", "127.0.0.3": "every\n"}},
		{apart, map[string]string{"127.0.0.1": "A\n", "127.0.0.2": "C\n"}},
		{[]*service.Service{every}, map[string]string{"127.0.0.1": "every\n", "127.0.0.2": "every\n"}},
	} {
		s.reload(step.rows...)
		for addr, want := range step.want {
			c := dialTo(t, addr, port)
			c.ends(want)
			c.Close()
		}
	}
	s.instances(0)
}

func dialTo(t *testing.T, addr string, port int) *client {
	t.Helper()
	c, err := net.DialTimeout("tcp", fmt.Sprintf("%s:%d", addr, port), bound)
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(bound))
	t.Cleanup(func() { c.Close() })
	return &client{c.(*net.TCPConn), t}
}

// A swap that fails half-way leaves what was.
func TestSwapThatFails(t *testing.T) {
	testkit.Check(t)
	for _, reuse := range []bool{false, true} {
		port, other := testkit.FreePort(t), testkit.FreePort(t)
		set := func(sv *service.Service) { sv.Socket.ReusePort = reuse }
		every := with(at("a", sh("echo every"), on("0.0.0.0", port)), set)
		// Somebody else's address keeps row b from the wildcard, which is found
		// only when the sockets in the way have gone.
		blocker, err := net.Listen("tcp4", fmt.Sprintf("127.0.0.3:%d", other))
		if err != nil {
			t.Fatal(err)
		}
		s := serve(t, every, at("b", sh("echo beside"), on("127.0.0.1", other)))
		for range 3 {
			err := s.Apply(table(
				with(at("a", sh("echo new"), on("127.0.0.1", port), on("127.0.0.2", port)), set),
				at("b", sh("echo new"), on("0.0.0.0", other)),
			))
			if err == nil || !strings.Contains(err.Error(), `row "b"`) {
				t.Fatalf("Apply: %v, want an error of row b", err)
			}
			for _, addr := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.9"} {
				dialTo(t, addr, port).ends("every\n")
			}
			dialTo(t, "127.0.0.1", other).ends("beside\n")
		}
		blocker.Close()
		s.reload(
			with(at("a", sh("echo new"), on("127.0.0.1", port), on("127.0.0.2", port)), set),
			at("b", sh("echo new"), on("0.0.0.0", other)),
		)
		dialTo(t, "127.0.0.2", port).ends("new\n")
		dialTo(t, "127.0.0.9", other).ends("new\n")
		if n := s.logs.count("cannot listen again as before"); n != 0 {
			t.Errorf("reuseport %v: %d sockets were not opened again", reuse, n)
		}
		s.instances(0)
		s.stop()
	}
}

// While a swap is being prepared, its row may be resumed: the closed socket's
// number must not come into an epoll set again.
func TestResumeDuringASwap(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, at("a", cat(), on("0.0.0.0", port)))
	u := s.unit("a")
	s.pauseFor(u, pauseShortage, time.Hour)
	s.applyMu.Lock()
	c := &change{s: s.Supervisor, table: s.live.Load().table}
	l := u.listeners[0]
	c.close(l)
	// The next socket gets its number, and another row.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	if fd != l.Fd() {
		if err := unix.Dup3(fd, l.Fd(), unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
	s.resumeUnit(u, pauseShortage)
	for _, set := range s.epollSets() {
		if slices.Contains(set, l.Fd()) {
			t.Errorf("descriptor %d is polled for a socket that is closed", l.Fd())
		}
	}
	unix.Close(l.Fd())
	for _, f := range c.undo {
		f()
	}
	s.applyMu.Unlock()
	dial(t, port).send("x").expect("x").half().ends("")
	s.instances(0)
}

func TestReusePortToggled(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	off := direct("a", port, sh("echo a"))
	set := with(off, func(sv *service.Service) { sv.Socket.ReusePort = true })
	s := serve(t, off)
	for range 3 {
		for _, row := range []*service.Service{set, off} {
			s.reload(row)
			want := map[bool]int{true: 1}[row.Socket.ReusePort]
			for _, l := range s.unit("a").listeners {
				if n, err := unix.GetsockoptInt(l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || n != want {
					t.Errorf("SO_REUSEPORT is %d, %v, want %d", n, err, want)
				}
			}
			dial(t, port).ends("a\n")
		}
	}
	// With it, two rows share an address.
	s.reload(set, with(set, func(sv *service.Service) { sv.ID = "b" }))
	for range 5 {
		dial(t, port).ends("a\n")
	}
	s.instances(0)
}

// Device, freebind and the like stand before bind(2): such a socket is another.
func TestBoundOptionsChange(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := direct("a", port, sh("echo a"))
	s := serve(t, row)
	for _, dev := range []string{"lo", "", "lo"} {
		s.reload(with(row, func(sv *service.Service) { sv.Socket.BindToDevice = dev }))
		for _, l := range s.unit("a").listeners {
			got, err := unix.GetsockoptString(l.Fd(), unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
			if err != nil || strings.TrimRight(got, "\x00") != dev {
				t.Errorf("bound to device %q, %v, want %q", got, err, dev)
			}
		}
		dial(t, port).ends("a\n")
	}
	s.instances(0)
}
