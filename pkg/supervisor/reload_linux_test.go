package supervisor

// What a reload means for instances that run, for the books, and for who
// connects meanwhile.

import (
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

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
