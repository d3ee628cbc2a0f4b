package supervisor

// Reload: all of a table or nothing, and nobody notices.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hashicorp/go-multierror"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
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
		with(direct("x", taken(t), cat()), func(sv *service.Service) { sv.Origin = "x.toml:7" }),
		with(direct("y", taken(t), cat()), func(sv *service.Service) { sv.Origin = "y.toml:8" }),
		with(direct("z", testkit.FreePort(t), program("not/absolute")), func(sv *service.Service) { sv.Origin = "z.toml:9" }),
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

func TestOnReload(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := direct("a", port, cat())
	end := func(sv *service.Service) { sv.OnReload = service.ReloadEnd }
	change := func(sv *service.Service) { sv.Exec = program("/bin/cat", "-u") }
	s := serve(t, row)

	// finish: changed, removed, and back again, the instance runs on.
	c := dial(t, port).send("1").expect("1")
	s.reload(with(row, change))
	s.reload()
	c.send("2").expect("2")
	if _, err := tryFrom("127.0.0.1", port); err == nil {
		t.Error("a removed row is listened for")
	}
	s.reload(row)
	c.send("3").expect("3").half().ends("")
	s.instances(0)
	// The next reload forgets what was kept for it.
	within(t, "a removed row without instances is forgotten", func() bool {
		s.reload()
		return s.unit("a") == nil
	})

	// end: a row that stays the same is not touched; a changed one is ended by
	// SIGTERM, a removed one too.
	row = with(row, end)
	for _, next := range [][]*service.Service{{with(row, change)}, {}} {
		s.reload(row)
		c = dial(t, port).send("1").expect("1")
		s.reload(row, direct("beside", testkit.FreePort(t), cat()))
		c.send("2").expect("2")
		n := s.logs.count("end", "signal=SIGTERM")
		s.reload(next...)
		c.gone()
		s.instances(0)
		within(t, "the end by SIGTERM", func() bool { return s.logs.count("end", "signal=SIGTERM") == n+1 })
	}
}

// A server that does not mind SIGTERM is killed after the grace.
func TestOnReloadEndKills(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(direct("a", port, sh("trap '' TERM; echo ready; while :; do read x || sleep 0.05; done")), func(sv *service.Service) {
		sv.OnReload = service.ReloadEnd
	})
	tab := table(row)
	tab.Server.Grace = 300 * time.Millisecond
	s := serveTable(t, tab)
	c := dial(t, port).expect("ready\n")
	tab = table(with(row, func(sv *service.Service) { sv.Limits.Instances = 9 }))
	tab.Server.Grace = 300 * time.Millisecond
	begin := time.Now()
	if err := s.Apply(tab); err != nil {
		t.Fatal(err)
	}
	// Its successor is not meant.
	next := dial(t, port).expect("ready\n")
	c.gone()
	if took := time.Since(begin); took < 300*time.Millisecond {
		t.Errorf("it was killed after %v", took)
	}
	s.logs.wait(t, "end", "signal=SIGKILL")
	s.instances(1)
	next.send("x\n")
	if n := s.logs.count("end"); n != 1 {
		t.Errorf("%d instances have ended, want 1", n)
	}
}

// TestNegativeCount: FreeBSD's inetd sets the count of a service to zero at a
// reload and goes on counting its children down (8.2, 1).
func TestNegativeCount(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	limited := func(n int) *service.Service {
		return with(direct("a", port, cat()), func(sv *service.Service) { sv.Limits.Instances = n })
	}
	s := serve(t, limited(3))
	var all []*client
	for range 3 {
		all = append(all, dial(t, port).send("x").expect("x"))
	}
	full := func(n int) {
		t.Helper()
		dial(t, port).gone()
		u := s.unit("a")
		u.mu.Lock()
		defer u.mu.Unlock()
		if got := u.book.Instances(); got != n {
			t.Errorf("%d instances are counted, want %d", got, n)
		}
	}
	full(3)
	s.reload(limited(1)) // fewer than run
	full(3)
	s.reload()           // not there at all
	s.reload(limited(2)) // and back, while they run
	full(3)
	all[0].half().ends("")
	s.instances(2)
	full(2)
	for _, c := range all[1:] {
		c.half().ends("")
	}
	s.instances(0)
	for range 2 {
		dial(t, port).send("x").expect("x")
	}
	full(2)
}

// rlinetd loses its state over a reload and starts a second server where one is
// allowed (8.2, 14); a rate starts with a full bucket there.
func TestBooksAreKept(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := func(burst int) *service.Service {
		return with(direct("a", port, cat()), func(sv *service.Service) {
			sv.Limits = limit.Limits{Rate: limit.Rate{N: 1, Per: time.Hour}, Burst: burst}
		})
	}
	s := serve(t, row(2))
	a := dial(t, port).send("x").expect("x")
	for i := range 5 {
		s.reload(row(2 + i%2))
	}
	b := dial(t, port).send("x").expect("x")
	s.reload(row(2))
	dial(t, port).gone()
	s.reload() // removed, and back while instances run
	s.reload(row(2))
	dial(t, port).gone()
	a.half().ends("")
	b.half().ends("")
	s.instances(0)
}

// A multiplexer that is removed refuses whoever waits; one that stays does not
// notice, and its services are those of the new table.
func TestReloadDuringNegotiation(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	second := with(mux(other), func(sv *service.Service) { sv.ID = "second" })
	s := serve(t, mux(port), second, plus("cat", cat()))
	a, b := dial(t, port).send("ne"), dial(t, other).send("ne")
	s.waiting(2)
	s.reload(mux(port), plus("new", sh("echo new")))
	b.ends(tcpmux.NotAvailable)
	a.send("w\r\n").ends(tcpmux.Go + "new\n")
	s.waiting(0)
	s.instances(0)
	s.pending.mu.Lock()
	if n := len(s.pending.crowds); n != 1 {
		t.Errorf("%d multiplexers are kept, want 1", n)
	}
	s.pending.mu.Unlock()
}

// TestDebian1050208: 1000 reloads under load. Whoever connects all through them
// sees no failure, and nothing is left of them.
func TestDebian1050208(t *testing.T) {
	testkit.Check(t)
	muxPort, port, moving := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	fixed := []*service.Service{mux(muxPort), plus("cat", cat()), direct("cat", port, cat())}
	tables := [][]*service.Service{
		append([]*service.Service{direct("a", moving, cat()), plus("a", cat())}, fixed...),
		append([]*service.Service{at("b", cat(), on("0.0.0.0", moving))}, fixed...),
		{
			with(fixed[0], func(sv *service.Service) { sv.Limits.Instances, sv.Help = 100, service.HelpAll }),
			with(fixed[1], func(sv *service.Service) { sv.Hidden = true }),
			with(fixed[2], func(sv *service.Service) { sv.Limits.Instances, sv.Socket.Nodelay = 100, true }),
			with(direct("a", moving, cat()), func(sv *service.Service) { sv.Socket.ReusePort = true }),
		},
		append([]*service.Service{at("c", cat(), on("127.0.0.1", moving), on("127.0.0.2", moving)), plus("c", cat())}, fixed...),
	}
	s := serve(t, tables[0]...)
	kept := fmt.Sprint(s.cookies("tcpmux"), s.cookies("cat"))
	files := len(s.epollSets()[0])

	var stop atomic.Bool
	var served atomic.Int64
	var load sync.WaitGroup
	for g := range 3 {
		load.Go(func() {
			for !stop.Load() {
				to, line, want := port, "", "x"
				if g == 1 {
					to, line, want = muxPort, "cat\r\n", tcpmux.Go+"x"
				}
				if g == 2 {
					to, want = moving, "" // comes and goes
				}
				c, err := tryFrom("127.0.0.1", to)
				if err != nil {
					if g != 2 {
						t.Errorf("connecting: %v", err)
						return
					}
					continue
				}
				c.Write([]byte(line + "x"))
				c.CloseWrite()
				b, err := io.ReadAll(c)
				c.Close()
				if g != 2 && (err != nil || string(b) != want) {
					t.Errorf("read %q, %v, want %q", b, err, want)
					return
				}
				served.Add(1)
			}
		})
	}
	began := time.Now()
	for i := range 1000 {
		if err := s.Apply(table(tables[i%len(tables)]...)); err != nil {
			t.Errorf("reload %d: %v", i, err)
			break
		}
	}
	t.Logf("1000 reloads in %v, %d connections meanwhile", time.Since(began), served.Load())
	stop.Store(true)
	load.Wait()
	s.reload(tables[0]...)
	if got := fmt.Sprint(s.cookies("tcpmux"), s.cookies("cat")); got != kept {
		t.Errorf("the kept sockets are %s, before %s", got, kept)
	}
	s.instances(0)
	s.reload(tables[0]...)
	if n := len(s.epollSets()[0]); n != files {
		t.Errorf("a loop polls %d descriptors, before %d", n, files)
	}
	if n := len(s.units); n != len(tables[0]) {
		t.Errorf("%d units are kept, want %d", n, len(tables[0]))
	}
	if n := s.logs.count("cannot poll a listener"); n != 0 {
		t.Errorf("%d listeners could not be polled", n)
	}
}
