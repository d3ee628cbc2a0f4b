package supervisor

// The limits of all rows together: over every kind of row, in one transaction
// with the row's own, kept by reloads.

import (
	"fmt"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// housed is a table with limits of all rows together.
func housed(l limit.Limits, rows ...*service.Service) *service.Table {
	tab := table(rows...)
	tab.Server.Limits = l
	return tab
}

// apply is reload with a table.
func (s *server) apply(tab *service.Table) {
	s.t.Helper()
	if err := s.Apply(tab); err != nil {
		s.t.Fatalf("reload: %v", err)
	}
}

// leases waits until so many are out in the house.
func (s *server) leases(n int) {
	s.t.Helper()
	within(s.t, fmt.Sprintf("%d leases of the house", n), func() bool {
		s.house.mu.Lock()
		defer s.house.mu.Unlock()
		return s.house.book.Instances() == n
	})
}

// mayReserve reports whether there is a place, which it takes and gives back.
func (s *server) mayReserve() bool {
	s.house.mu.Lock()
	defer s.house.mu.Unlock()
	if !s.house.book.Reserve() {
		return false
	}
	s.house.book.Unreserve()
	return true
}

func TestServerInstances(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{})
	echo := testkit.FreePort(t)
	s := serveTable(t, housed(limit.Limits{Instances: 4}, append(rows, internal(service.BuiltinEcho, echo))...))
	var in []*client
	for _, d := range list {
		in = append(in, d.in(t, "127.0.0.1"))
	}
	in = append(in, dial(t, echo).send("x").expect("x"))
	s.leases(4)
	for _, d := range list {
		d.out(t, "127.0.0.2")
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=server_instances")
	}
	dial(t, echo).gone()
	// A place is anybody's.
	for i := range in {
		in[i].half().ends("")
		s.leases(3)
		in[i] = list[(i+1)%len(list)].in(t, "127.0.0.3")
		list[0].out(t, "127.0.0.4")
	}
	for _, c := range in {
		c.reset()
	}
	s.instances(0)
	s.leases(0)
}

func TestServerPerSource(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{})
	s := serveTable(t, housed(limit.Limits{InstancesPerSource: 2, RatePerSource: limit.Rate{N: 5, Per: time.Hour}, PrefixV4: 30}, rows...))
	a, b := list[0].in(t, "127.0.0.4"), list[1].in(t, "127.0.0.5")
	list[2].out(t, "127.0.0.6")
	s.logs.wait(t, "refuse", "service=direct", "reason=server_instances_per_source")
	list[2].in(t, "127.0.0.8").half().ends("")
	a.half().ends("")
	b.half().ends("")
	s.leases(0)
	for _, d := range list {
		d.in(t, "127.0.0.7").half().ends("")
		s.leases(0)
	}
	list[0].out(t, "127.0.0.4")
	s.logs.wait(t, "refuse", "service=tcpmux/+plus", "reason=server_rate_per_source")
	list[1].in(t, "127.0.0.9").half().ends("")
}

// What one book refuses is taken from neither.
func TestServerRefusalsUseNothingUp(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	hour := limit.Rate{N: 1, Per: time.Hour}
	row := with(direct("row", port, cat()), func(sv *service.Service) { sv.Limits = limit.Limits{Rate: hour, Burst: 2} })
	s := serveTable(t, housed(limit.Limits{Instances: 1, Rate: hour, Burst: 4}, row, direct("other", other, cat())))
	held := dial(t, other).send("x").expect("x") // 1 of 4
	for range 10 {
		dial(t, port).gone() // no place
	}
	s.logs.wait(t, "refuse", "service=row", "reason=server_instances")
	held.half().ends("")
	s.leases(0)
	for range 2 { // 3 of 4, and both of the row's
		dial(t, port).send("x").half().ends("x")
		s.leases(0)
	}
	for range 10 {
		dial(t, port).gone()
	}
	s.logs.wait(t, "refuse", "service=row", "reason=rate")
	dial(t, other).send("x").half().ends("x") // the last one
	s.leases(0)
	dial(t, other).gone()
	s.logs.wait(t, "refuse", "service=other", "reason=server_rate")
}

// Answers to datagrams and to HELP cost the source what a start does, over all rows.
func TestServerRateOfAnswers(t *testing.T) {
	testkit.Check(t)
	m, a, b := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	l := limit.Limits{RatePerSource: limit.Rate{N: 4, Per: time.Hour}}
	one := onUDP(internal(service.BuiltinEcho, a), "127.0.0.1", a)
	two := onUDP(internal(service.BuiltinEcho, b), "127.0.0.1", b)
	two.ID = "second"
	s := serveTable(t, housed(l, anywhere(mux(m)), one, two, plus("cat", cat())))
	ping := func(from string, port int) bool {
		c := call(t, from+":0", "127.0.0.1", port)
		before := s.logs.count("refuse", "reason=server_rate_per_source")
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		var got bool
		within(t, "an answer or a refusal", func() bool {
			c.SetReadDeadline(time.Now().Add(5 * time.Millisecond))
			n, _ := c.Read(make([]byte, 10))
			got = n == 1
			return got || s.logs.count("refuse", "reason=server_rate_per_source") > before
		})
		return got
	}
	for i, port := range []int{a, b} {
		if !ping("127.0.0.2", port) {
			t.Errorf("answer %d is refused", i)
		}
	}
	help := func(from string) string { return dialFrom(t, from, m).send("help\r\n").half().rest() }
	if got := help("127.0.0.2"); got != "cat\r\n" {
		t.Errorf("HELP is answered %q", got)
	}
	dialFrom(t, "127.0.0.2", m).send("cat\r\nx").half().ends(tcpmux.Go + "x")
	if ping("127.0.0.2", b) {
		t.Error("the fifth is answered")
	}
	if got := help("127.0.0.2"); got != tcpmux.Busy {
		t.Errorf("HELP is answered %q, over the rate", got)
	}
	if got := help("127.0.0.3"); got != "cat\r\n" {
		t.Errorf("another one's HELP is answered %q", got)
	}
	if !ping("127.0.0.3", a) {
		t.Error("another one is refused")
	}
	s.leases(0)
}

// Reloads keep the book, also those that take the limits away and bring them back;
// who runs already is counted.
func TestServerLimitsAreReloaded(t *testing.T) {
	testkit.Check(t)
	port, echo := testkit.FreePort(t), testkit.FreePort(t)
	rows := []*service.Service{direct("cat", port, cat()), internal(service.BuiltinEcho, echo)}
	s := serve(t, rows...)
	a, b := dial(t, port).send("x").expect("x"), dial(t, echo).send("x").expect("x")
	s.instances(1)
	two := housed(limit.Limits{Instances: 2, Rate: limit.Rate{N: 3, Per: time.Hour}}, rows...)
	s.apply(two)
	s.leases(2)
	dial(t, port).gone()
	s.logs.wait(t, "refuse", "service=cat", "reason=server_instances")
	a.half().ends("")
	s.leases(1)
	a = dial(t, echo).send("x").expect("x") // the first that costs a token
	s.apply(housed(limit.Limits{}, rows...))
	c := dial(t, port).send("x").expect("x")
	s.instances(1) // its start is over: one that is being made may be missed
	s.leases(2)
	s.apply(two)
	s.leases(3)
	for _, c := range []*client{a, b, c} {
		c.half().ends("")
	}
	s.leases(0)
	for range 2 {
		dial(t, port).send("x").half().ends("x")
		s.leases(0)
	}
	dial(t, port).gone()
	s.logs.wait(t, "refuse", "service=cat", "reason=server_rate")
	s.instances(0)
}

// A row with a queue leaves its peers there as well when it is the house that is
// full, and whoever makes room lets them in.
func TestServerInstancesAndQueues(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	row := with(direct("row", port, cat()), func(sv *service.Service) { sv.Overflow = service.OverflowQueue })
	s := serveTable(t, housed(limit.Limits{Instances: 1}, row, direct("other", other, cat())))
	held := dial(t, other).send("x").expect("x")
	a, b := dial(t, port).send("x"), dial(t, port).send("x")
	u := s.unit("row")
	within(t, "the row pauses", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.paused&pauseInstances != 0
	})
	held.half().ends("")
	a.expect("x").half().ends("")
	b.expect("x").half().ends("")
	s.leases(0)
	if n := s.logs.count("refuse"); n != 0 {
		t.Errorf("%d were refused", n)
	}
	// A reload that takes the limits away lets them in, too.
	held = dial(t, other).send("x").expect("x")
	a = dial(t, port).send("x")
	within(t, "the row pauses", func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.paused&pauseInstances != 0
	})
	s.reload(row, direct("other", other, cat()))
	a.expect("x").half().ends("")
	held.half().ends("")
	s.leases(0)
	within(t, "no place is reserved", s.mayReserve)
}

// A server of a wait row has a place, and no source: many of them are not one.
func TestServerLimitsAndWaitRows(t *testing.T) {
	testkit.Check(t)
	a, b, port := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	l := limit.Limits{Instances: 2, InstancesPerSource: 1}
	s := serveTable(t, housed(l, waitStream("a", a, acceptor(time.Minute, 2)), waitStream("b", b, acceptor(time.Minute, 2)), direct("cat", port, cat())))
	for _, p := range []int{a, b} {
		told(t, dial(t, p).send("x").half().rest(), "x")
	}
	s.leases(2)
	s.instances(2)
	dial(t, port).gone()
	s.logs.wait(t, "refuse", "service=cat", "reason=server_instances")
	s.reaper.each(func(pid int, _ *instance) { unix.Kill(pid, unix.SIGKILL) })
	s.leases(0)
}
