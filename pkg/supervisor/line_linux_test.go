package supervisor

// Peers that wait by name for an instance to end.

import (
	"fmt"
	"io"
	"runtime"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// queued is the row "tcpmux/+cat" with a line.
func queued(l limit.Limits) *service.Service {
	return with(plus("cat", cat()), func(sv *service.Service) {
		sv.Limits, sv.Overflow, sv.OverflowWait = l, service.OverflowQueue, time.Minute
	})
}

// asks is a peer that asks for cat, and waits as the nth.
func (s *server) asks(from string, port, n int) *client {
	s.t.Helper()
	c := dialFrom(s.t, from, port).send("cat\r\nx")
	s.waiting(n)
	s.inLine(n)
	return c
}

// inLine waits until so many are in all lines together.
func (s *server) inLine(n int) {
	s.t.Helper()
	within(s.t, "all of them are in line", func() bool { // and none is yet to say the name
		s.pending.mu.Lock()
		defer s.pending.mu.Unlock()
		inLine := 0
		for _, u := range s.lines.units {
			inLine += u.line.turns.Len()
		}
		return inLine == n
	})
}

const granted = tcpmux.Go + "x"

// Sources take turns, however many of each wait; and what they have sent behind
// the name is the service's.
func TestLineIsFair(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(mux(port)), queued(limit.Limits{Instances: 1}))
	held := dial(t, port).send("cat\r\nx").expect(granted)
	var greedy, others []*client
	for i := range 6 {
		greedy = append(greedy, s.asks("127.0.0.2", port, 1+i))
	}
	for i := range 2 {
		others = append(others, s.asks(fmt.Sprintf("127.0.0.%d", 3+i), port, 7+i))
	}
	waiting := 8
	for _, c := range []*client{greedy[0], others[0], others[1], greedy[1], greedy[2]} {
		held.half().ends("")
		c.expect(granted)
		waiting--
		s.waiting(waiting)
		held = c
	}
	for _, c := range greedy[3:] {
		held.half().ends("")
		held = c.expect(granted)
	}
	held.half().ends("")
	s.instances(0)
	if n := s.logs.count("refuse"); n != 0 {
		t.Errorf("%d were refused", n)
	}
}

// Who waits is a record: no process, no goroutine, no time of the processor.
func TestWaitingCostsNothing(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(mux(port)), queued(limit.Limits{Instances: 1}))
	held := dial(t, port).send("cat\r\nx").expect(granted)
	first := s.asks("127.0.0.2", port, 1)
	before := runtime.NumGoroutine()
	var all []*client
	for i := range 200 {
		all = append(all, s.asks(fmt.Sprintf("127.0.1.%d", 1+i), port, 2+i))
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, before %d", n, before)
	}
	s.instances(1)
	// What they say meanwhile wakes nobody again and again.
	for _, c := range all {
		c.send("yyyy")
	}
	if share := idleCPU(t, time.Second); share > 0.05 {
		t.Errorf("%.1f %% of a processor", 100*share)
	}
	for _, c := range all {
		c.reset()
	}
	s.waiting(1)
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=gone")
	held.half().ends("")
	first.expect(granted).half().ends("")
	s.instances(0)
}

func TestLineEndsInTime(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := queued(limit.Limits{Instances: 1})
	row.OverflowWait = 200 * time.Millisecond
	s := serve(t, anywhere(mux(port)), row)
	held := dial(t, port).send("cat\r\nx").expect(granted)
	began := time.Now()
	for range 3 {
		dial(t, port).send("cat\r\nx").half().ends(tcpmux.Busy)
	}
	if took := time.Since(began); took < 3*row.OverflowWait {
		t.Errorf("they have waited %v, want three times %v", took, row.OverflowWait)
	}
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=overflow_wait")
	held.half().ends("")
	dial(t, port).send("cat\r\nx").half().ends(granted)
}

// A rate is not waited for; but who is in line keeps his turn until there is a
// token again.
func TestLineAndRate(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(mux(port)), queued(limit.Limits{Instances: 1, Rate: limit.Rate{N: 2, Per: time.Second}}))
	held := dial(t, port).send("cat\r\nx").expect(granted)
	var line []*client
	for i := range 4 {
		line = append(line, s.asks(fmt.Sprintf("127.0.0.%d", 2+i), port, 1+i))
	}
	for _, c := range line {
		held.half().ends("")
		held = c.expect(granted)
	}
	held.half().ends("")
	s.instances(0)
	serve(t, anywhere(with(mux(testkit.FreePort(t)), func(sv *service.Service) { port = int(sv.Listen[0].Addr.Port()) })),
		queued(limit.Limits{Rate: limit.Rate{N: 1, Per: time.Hour}}))
	dial(t, port).send("cat\r\nx").half().ends(granted)
	dial(t, port).send("cat\r\nx").half().ends(tcpmux.Busy)
}

// One who is over his own limit is passed over, and not in the way of others.
func TestLinePassesOver(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(mux(port)), queued(limit.Limits{Instances: 3, InstancesPerSource: 1}))
	held := dialFrom(t, "127.0.0.2", port).send("cat\r\nx").expect(granted)
	again := s.asks("127.0.0.2", port, 1)
	for i := range 5 {
		dialFrom(t, fmt.Sprintf("127.0.0.%d", 3+i), port).send("cat\r\nx").half().ends(granted)
	}
	s.waiting(1)
	held.half().ends("")
	again.expect(granted).half().ends("")
	s.instances(0)
}

// It is the house that is full, and another row that makes room.
func TestLineOfTheHouse(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	second := queued(limit.Limits{})
	second.ID, second.Name = "tcpmux/+second", "second"
	s := serveTable(t, housed(limit.Limits{Instances: 1}, anywhere(mux(port)), queued(limit.Limits{}), second, internal(service.BuiltinEcho, other)))
	held := dial(t, other).send("x").expect("x")
	a := s.asks("127.0.0.2", port, 1)
	b := dialFrom(t, "127.0.0.2", port).send("second\r\nx")
	s.waiting(2)
	held.half().ends("")
	within(t, "one is let in", func() bool { return s.logs.count("start") == 2 })
	for _, c := range []*client{a, b} {
		c.half()
	}
	a.ends(granted)
	b.ends(granted)
	s.instances(0)
	s.leases(0)
}

// What a reload makes of the row, those who wait meet.
func TestLineIsReloaded(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := queued(limit.Limits{Instances: 1})
	s := serve(t, anywhere(mux(port)), row)
	held := dial(t, port).send("cat\r\nx").expect(granted)
	a, b := s.asks("127.0.0.2", port, 1), s.asks("127.0.0.3", port, 2)
	s.reload(anywhere(mux(port)), with(row, func(sv *service.Service) { sv.Limits.Instances = 2 }))
	a.expect(granted)
	s.reload(anywhere(mux(port)), with(row, func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.3/32") }))
	a.half().ends("")
	held.half().ends("")
	b.ends(tcpmux.NotAvailable)
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=access")
	s.instances(0)

	for what, rows := range map[string][]*service.Service{
		tcpmux.Busy:         {anywhere(mux(port)), with(plus("cat", cat()), func(sv *service.Service) { sv.Limits.Instances = 1 })},
		tcpmux.NotAvailable: {anywhere(mux(port)), plus("other", cat())},
	} {
		s.reload(anywhere(mux(port)), row)
		held = dial(t, port).send("cat\r\nx").expect(granted)
		a = s.asks("127.0.0.2", port, 1)
		s.reload(rows...)
		a.ends(what)
		held.half().ends("")
		s.instances(0)
	}
	// The multiplexer goes, or all of it.
	s.waiting(0) // nobody lingers
	s.reload(anywhere(mux(port)), row)
	held = dial(t, port).send("cat\r\nx").expect(granted)
	a = s.asks("127.0.0.2", port, 1)
	other := anywhere(mux(testkit.FreePort(t)))
	other.ID = "another"
	s.reload(other, row)
	a.ends(tcpmux.NotAvailable)
	held.half().ends("")
	s.reload(anywhere(mux(port)), row)
	dial(t, port).send("cat\r\nx").expect(granted)
	a = s.asks("127.0.0.2", port, 1)
	s.stop()
	a.ends(tcpmux.NotAvailable)
}

// The line has the places of the multiplexer, and no more: who holds most of them
// makes room.
func TestLineIsBounded(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) { sv.Limits.Instances = 4 })), queued(limit.Limits{Instances: 1}))
	held := dial(t, port).send("cat\r\nx").expect(granted)
	var greedy []*client
	for i := range 4 {
		greedy = append(greedy, s.asks("127.0.0.2", port, 1+i))
	}
	other := dialFrom(t, "127.0.0.3", port).send("cat\r\nx")
	greedy[0].ends(tcpmux.Crowded)
	s.logs.wait(t, "refuse", "service=tcpmux/+cat", "reason=crowded")
	s.waiting(4)
	s.inLine(4)
	held.half().ends("")
	greedy[1].expect(granted).half().ends("")
	other.expect(granted).half().ends("")
	greedy[2].expect(granted).half().ends("")
	greedy[3].expect(granted).half().ends("")
	s.instances(0)
}

// Under load everybody has his turn, and no place is lost on the way.
func TestLineUnderLoad(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serveTable(t, housed(limit.Limits{Instances: 3}, anywhere(mux(port)), queued(limit.Limits{Instances: 4})))
	const peers, each = 20, 15
	done := make(chan error)
	for i := range peers {
		go func() {
			for range each {
				c, err := tryFrom(fmt.Sprintf("127.0.0.%d", 2+i%5), port)
				if err != nil {
					done <- err
					return
				}
				c.Write([]byte("cat\r\nx"))
				c.CloseWrite()
				b, err := io.ReadAll(c)
				c.Close()
				if err != nil || string(b) != granted {
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
	s.leases(0)
	s.waiting(0)
	if starts := s.logs.count("start"); starts != peers*each {
		t.Errorf("%d children were started, want %d", starts, peers*each)
	}
	if n := s.queued.Load(); n != 0 {
		t.Errorf("%d rows are said to have a line", n)
	}
}

// However many sources are over their own limit, nobody stands behind them while
// there are places.
func TestLineBehindMany(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(mux(port)), with(plus("echo", nil), func(sv *service.Service) {
		sv.Exec, sv.Builtin = nil, service.BuiltinEcho
		sv.Overflow, sv.OverflowWait = service.OverflowQueue, time.Hour
		sv.Limits.InstancesPerSource = 1
	}))
	const many = passedOver + 10
	for i := range many {
		source := fmt.Sprintf("127.3.%d.%d", i/250, 1+i%250)
		from(t, source, port, "echo\r\n").expect("+Go\r\n")
		from(t, source, port, "echo\r\n")
	}
	s.waiting(many)
	from(t, "127.4.0.1", port, "echo\r\nx").half().ends("+Go\r\nx")
	s.refusePending(nil)
}
