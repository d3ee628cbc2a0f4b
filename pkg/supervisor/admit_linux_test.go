package supervisor

// Admission: the limits of a service are the same by name and on its own port.

import (
	"fmt"
	"io"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A door is a way to a service whose program is cat.
type door struct {
	name string
	sv   *service.Service
	port int
	line string // what asks for it
	yes  string // what says that it is there, after "x" was sent
	no   string // what a peer over a limit gets
}

// doors are the ways to one service with these limits, each of its own.
func doors(t *testing.T, l limit.Limits) (list []door, rows []*service.Service) {
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	list = []door{
		{"plus", plus("plus", cat()), muxPort, "plus\r\n", tcpmux.Go + "x", tcpmux.Busy},
		{"minus", minus("minus", cat()), muxPort, "minus\r\n", "x", tcpmux.Busy},
		{"direct", anywhere(direct("direct", port, cat())), port, "", "x", ""},
	}
	rows = []*service.Service{anywhere(mux(muxPort))}
	for i := range list {
		list[i].sv.Limits = l
		rows = append(rows, list[i].sv)
	}
	return list, rows
}

// in is admitted.
func (d door) in(t *testing.T, source string) *client {
	t.Helper()
	return dialFrom(t, source, d.port).send(d.line + "x").expect(d.yes)
}

// out is refused.
func (d door) out(t *testing.T, source string) {
	t.Helper()
	c := dialFrom(t, source, d.port)
	if d.line != "" {
		c.send(d.line)
		c.ends(d.no)
	} else {
		c.gone()
	}
	c.Close()
}

func TestInstances(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Instances: 2})
	s := serve(t, rows...)
	for _, d := range list {
		a, b := d.in(t, "127.0.0.1"), d.in(t, "127.0.0.2")
		for i := range 3 {
			d.out(t, fmt.Sprintf("127.0.0.%d", 1+i))
		}
		for range 5 {
			a.half().ends("")
			s.instances(1)
			a = d.in(t, "127.0.0.3")
			d.out(t, "127.0.0.4")
		}
		a.reset()
		b.reset()
		s.instances(0)
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=instances")
	}
}

func TestInstancesPerSource(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{InstancesPerSource: 1})
	s := serve(t, rows...)
	for _, d := range list {
		var all []*client
		for i := range 5 {
			all = append(all, d.in(t, fmt.Sprintf("127.0.0.%d", 1+i)))
			d.out(t, fmt.Sprintf("127.0.0.%d", 1+i))
		}
		all[0].half().ends("")
		s.instances(4)
		all[0] = d.in(t, "127.0.0.1")
		for _, c := range all {
			c.half().ends("")
		}
		s.instances(0)
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=instances_per_source")
	}
}

func TestRate(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Rate: limit.Rate{N: 1, Per: time.Hour}, Burst: 3})
	s := serve(t, rows...)
	for _, d := range list {
		for i := range 3 {
			d.in(t, fmt.Sprintf("127.0.0.%d", 1+i)).half().ends("")
		}
		// Nothing is given back by the end of an instance.
		s.instances(0)
		for i := range 3 {
			d.out(t, fmt.Sprintf("127.0.0.%d", 3+i))
		}
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=rate")
	}
}

// TestOnlyTheOffenderSuffers: where a limit closes the service for everybody,
// 256 cheap connections are an outage of ten minutes (8.2, 12).
func TestOnlyTheOffenderSuffers(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{RatePerSource: limit.Rate{N: 1, Per: time.Hour}, BurstPerSource: 2})
	s := serve(t, rows...)
	for _, d := range list {
		for range 2 {
			d.in(t, "127.0.0.1").half().ends("")
		}
		for range 20 {
			d.out(t, "127.0.0.1")
		}
		begin := time.Now()
		for range 2 {
			d.in(t, "127.0.0.2").half().ends("")
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: another source waited for %v", d.name, took)
		}
		d.out(t, "127.0.0.2")
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=rate_per_source")
	}
	s.instances(0)
}

// A limit that was hit lets go by itself. Some have closed the port for good
// (BZ#809271) or until an operator came (8.2, 13).
func TestRateRecovers(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Rate: limit.Rate{N: 5, Per: time.Second}, Burst: 1})
	s := serve(t, rows...)
	for _, d := range list {
		d.in(t, "127.0.0.1").half().ends("")
		d.out(t, "127.0.0.1")
		within(t, d.name+" is admitted again", func() bool {
			c := dial(t, d.port).send(d.line)
			c.Write([]byte("x"))
			c.CloseWrite()
			b, _ := io.ReadAll(c)
			c.Close()
			return string(b) == d.yes
		})
	}
	s.instances(0)
}

// TestDeniedPeersUseNothingUp: xinetd counts them (8.2, 10).
func TestDeniedPeersUseNothingUp(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{
		Rate: limit.Rate{N: 1, Per: time.Hour}, Burst: 2, Instances: 2,
		RatePerSource: limit.Rate{N: 1, Per: time.Hour}, BurstPerSource: 2,
	})
	for _, d := range list {
		d.sv.Access = rules(t, "", "127.0.0.66/32")
	}
	s := serve(t, rows...)
	for _, d := range list {
		d.no = map[bool]string{true: tcpmux.NotAvailable}[d.line != ""]
		for range 10 {
			d.out(t, "127.0.0.66")
		}
		d.in(t, "127.0.0.1")
		d.in(t, "127.0.0.2")
	}
	s.instances(2 * len(list))
}

// A peer that was refused by its source's limit has used up nothing of the
// service's. NetBSD's inetd loses a slot each time (8.2, 9).
func TestRefusalsUseNothingUp(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{
		Instances: 3, Rate: limit.Rate{N: 1, Per: time.Hour}, Burst: 3, InstancesPerSource: 1,
	})
	s := serve(t, rows...)
	for _, d := range list {
		d.in(t, "127.0.0.1")
		for range 10 {
			d.out(t, "127.0.0.1")
		}
		d.in(t, "127.0.0.2")
		d.in(t, "127.0.0.3")
	}
	s.instances(3 * len(list))
}

// A start that fails gives its place back, before its peer sees the end.
func TestFailedStartsGiveTheirPlaceBack(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Instances: 1, InstancesPerSource: 1})
	for _, d := range list {
		d.sv.Exec = program("/nonexistent/program")
	}
	s := serve(t, rows...)
	for _, d := range list {
		for range 20 {
			c := dial(t, d.port)
			c.Write([]byte(d.line))
			io.ReadAll(c)
			c.Close()
		}
	}
	s.instances(0)
	for _, d := range list {
		s.logs.wait(t, "cannot start", "service="+d.sv.ID)
	}
	if s.logs.count("refuse") > 0 {
		t.Errorf("somebody has found the place taken by who came before\n%s", s.logs)
	}
}

// The multiplexer's own rate is for negotiations, HELP included.
func TestRateOfTheMultiplexer(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Limits.RatePerSource, sv.Limits.BurstPerSource = limit.Rate{N: 1, Per: time.Hour}, 3
	})), plus("cat", cat()))
	for _, request := range []string{"help\r\n", "nobody\r\n", "help\r\n"} {
		if got := ask(t, port, request); got == "" {
			t.Errorf("%q was not answered", request)
		}
	}
	for range 3 {
		if got := ask(t, port, "help\r\n"); got != tcpmux.NotAvailable {
			t.Errorf("over the rate: %q", got)
		}
	}
	if got := dialFrom(t, "127.0.0.2", port).send("cat\r\n").half().rest(); got != tcpmux.Go {
		t.Errorf("another source: %q", got)
	}
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=rate_per_source")
	s.instances(0)
}

// TestOverflowQueue: peers beyond the limit wait in the kernel's queue. Nobody
// is refused, and nothing spins meanwhile.
func TestOverflowQueue(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 2
	}))
	u := s.unit("cat")
	var all []*client
	for range 8 {
		all = append(all, dial(t, port).send("x"))
	}
	all[0].expect("x")
	all[1].expect("x")
	s.instances(2)
	paused := func() bool {
		u.mu.Lock()
		defer u.mu.Unlock()
		return u.paused&pauseInstances != 0
	}
	within(t, "the row pauses", paused)
	if share := idleCPU(t, time.Second); share > 0.02 {
		t.Errorf("%.1f %% of a processor while peers wait", 100*share)
	}
	for i, c := range all[:6] {
		c.half().ends("")
		// The place is free: the next in the queue gets it.
		all[i+2].expect("x")
	}
	// So does one in the queue of the other family's socket. Which queue comes
	// first when both have somebody is nobody's business.
	six := dialFrom(t, "::1", port).send("x")
	all[6].half().ends("")
	six.expect("x").half().ends("")
	all[7].half().ends("")
	s.instances(0)
	if n := s.logs.count("refuse"); n != 0 {
		t.Errorf("%d peers were refused", n)
	}
	within(t, "the row accepts again", func() bool { return !paused() })
	dial(t, port).send("x").expect("x")
}

// Peers that wait are told by their rate limits only when it is their turn, and
// a place that was kept for them is given back.
func TestOverflowQueueWithOtherLimits(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Overflow = service.OverflowQueue
		sv.Limits = limit.Limits{Instances: 1, RatePerSource: limit.Rate{N: 1, Per: time.Hour}, BurstPerSource: 1}
		sv.Access = rules(t, "", "127.0.0.66/32")
	})))
	first := dialFrom(t, "127.0.0.1", port).send("x").expect("x")
	again := dialFrom(t, "127.0.0.1", port)
	denied := dialFrom(t, "127.0.0.66", port)
	other := dialFrom(t, "127.0.0.2", port)
	left := dialFrom(t, "127.0.0.3", port)
	left.reset()
	last := dialFrom(t, "127.0.0.4", port)
	first.half().ends("")
	again.gone()
	denied.gone()
	other.send("x").expect("x").half().ends("")
	last.send("x").expect("x").half().ends("")
	s.instances(0)
	u := s.unit("cat")
	u.mu.Lock()
	defer u.mu.Unlock()
	if !u.book.Reserve() {
		t.Error("the only place is taken by nobody")
	}
}

// Under load the row changes between accepting and not all the time.
func TestOverflowQueueUnderLoad(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 3
	}))
	const peers, each = 10, 15
	done := make(chan error)
	for range peers {
		go func() {
			for range each {
				c, err := tryFrom("127.0.0.1", port)
				if err != nil {
					done <- err
					return
				}
				c.Write([]byte("x"))
				c.CloseWrite()
				b, err := io.ReadAll(c)
				c.Close()
				if err != nil || string(b) != "x" {
					done <- fmt.Errorf("read %q, %w", b, err)
					return
				}
			}
			done <- nil
		}()
	}
	for range peers {
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
	s.instances(0)
	starts := s.logs.find("start")
	if len(starts) != peers*each {
		t.Errorf("%d children were started, want %d", len(starts), peers*each)
	}
}

// The places of a row with a queue are asked for before the accept; more of
// them by a reload are used at once.
func TestOverflowQueueGrows(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	})
	s := serve(t, row)
	a := dial(t, port).send("x").expect("x")
	b, c := dial(t, port).send("x"), dial(t, port).send("x")
	s.reload(with(row, func(sv *service.Service) { sv.Limits.Instances = 2 }))
	b.expect("x")
	s.reload(with(row, func(sv *service.Service) { sv.Limits.Instances = 0 }))
	c.expect("x")
	for _, c := range []*client{a, b, c} {
		c.half().ends("")
	}
	s.instances(0)
}

// A row that does not accept is in no epoll set; a level-triggered one would
// wake the loop again and again.
func TestPausedRowIsNotPolled(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	}))
	u := s.unit("cat")
	polled := func() (n int) {
		for _, set := range s.epollSets() {
			for _, l := range u.listeners {
				if slices.Contains(set, l.Fd()) {
					n++
				}
			}
		}
		return n
	}
	all := len(s.loops) * 2
	if n := polled(); n != all {
		t.Fatalf("listeners are in %d sets, want %d", n, all)
	}
	a := dial(t, port).send("x").expect("x")
	b := dial(t, port).send("x")
	within(t, "the listeners leave the sets", func() bool { return polled() == 0 })
	a.half().ends("")
	b.expect("x").half().ends("")
	within(t, "the listeners are back", func() bool { return polled() == all })
	var info unix.Stat_t
	for _, l := range u.listeners {
		if err := unix.Fstat(l.Fd(), &info); err != nil {
			t.Error(err)
		}
	}
}
