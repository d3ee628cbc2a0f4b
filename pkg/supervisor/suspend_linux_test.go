package supervisor

import (
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// suspends has a row suspended by what is more than twice.
func suspends(sv *service.Service) *service.Service {
	return with(sv, func(sv *service.Service) {
		sv.Limits.Rate = limit.Rate{N: 2, Per: 100 * time.Hour}
		sv.Suspend = time.Hour
	})
}

// The first excess of a row's own rate suspends it, once, for as long as it says;
// a reload ends that only if it changes what led to it.
func TestSuspension(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		s, err := New(slog.New(&got))
		if err != nil {
			t.Fatal(err)
		}
		defer s.close()
		row := suspends(plus("x", cat()))
		apply := func(rows ...*service.Service) {
			t.Helper()
			if err := s.Apply(table(rows...)); err != nil {
				t.Fatal(err)
			}
		}
		suspended := func(want time.Duration) {
			t.Helper()
			if got := s.suspendedFor(s.units[row.ID]); got != want {
				t.Errorf("suspended for %v, want %v", got, want)
			}
		}
		lines := func(want ...string) {
			t.Helper()
			synctest.Wait()
			list := got.take()
			for i, l := range list {
				list[i], _, _ = strings.Cut(l, " until=")
			}
			if strings.Join(list, "\n") != strings.Join(want, "\n") {
				t.Errorf("the log says %q, want %q", list, want)
			}
		}
		const (
			begins = "row is suspended service=tcpmux/+x rate=2/100h0m0s for=1h0m0s"
			ends   = "row is suspended no more service=tcpmux/+x"
		)
		apply(row, suspends(plus("other", cat())))
		u := s.units[row.ID]
		for _, why := range []limit.Reason{limit.OK, limit.OverInstances, limit.OverRatePerSource, limit.ServerRate, limit.OverInstancesPerSource} {
			s.exceeded(u, why)
		}
		suspended(0)
		s.exceeded(u, limit.OverRate)
		suspended(time.Hour)
		time.Sleep(time.Minute)
		s.exceeded(u, limit.OverRate) // by one who was on his way
		suspended(59 * time.Minute)
		lines(begins)
		if left := s.suspendedFor(s.units["tcpmux/+other"]); left != 0 {
			t.Errorf("another row is suspended for %v", left)
		}
		// Nothing that has to do with it has changed.
		apply(with(row, func(sv *service.Service) { sv.Exec = sh("exit 1"); sv.Limits.Instances = 3 }))
		time.Sleep(time.Minute)
		suspended(58 * time.Minute)
		time.Sleep(58 * time.Minute)
		lines(ends)
		suspended(0)

		for what, change := range map[string]func(sv *service.Service){
			"rate":    func(sv *service.Service) { sv.Limits.Rate.N++ },
			"burst":   func(sv *service.Service) { sv.Limits.Burst++ },
			"suspend": func(sv *service.Service) { sv.Suspend++ },
			"gone":    func(sv *service.Service) { sv.Suspend = 0 },
			"no rate": func(sv *service.Service) { sv.Limits.Rate = limit.Rate{}; sv.Suspend = 0 },
		} {
			apply(row)
			s.exceeded(u, limit.OverRate)
			suspended(time.Hour)
			apply(with(row, change))
			suspended(0)
			lines(begins, ends)
			time.Sleep(2 * time.Hour)
			synctest.Wait()
			if list := got.take(); len(list) != 0 {
				t.Errorf("%s: later the log says %q", what, list)
			}
		}
		// The row itself is gone.
		apply(row)
		s.exceeded(u, limit.OverRate)
		apply(suspends(plus("other", cat())))
		lines(begins, ends)
		apply(row)
		suspended(0)
	})
}

// By its own port and by name, a row that is suspended serves nobody, and others
// are served.
func TestSuspendedRows(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{})
	for i := range list {
		list[i].sv = suspends(list[i].sv)
		rows[1+i] = list[i].sv
	}
	s := serve(t, append(rows, plus("free", cat()))...)
	for _, d := range list {
		for _, source := range []string{"127.0.0.1", "127.0.0.2"} {
			d.in(t, source).half().ends("")
		}
		for _, source := range []string{"127.0.0.1", "127.0.0.2", "127.0.0.3", "127.0.0.4"} {
			d.out(t, source)
		}
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=rate")
		s.logs.wait(t, "refuse", "service="+d.sv.ID, "reason=suspended")
		l := s.logs.wait(t, "row is suspended", "service="+d.sv.ID, "for=1h0m0s")
		if until, err := time.Parse(time.RFC3339, l.attrs["until"]); err != nil || time.Until(until) < 50*time.Minute || time.Until(until) > time.Hour {
			t.Errorf("the line is %s, %v", l.text, err)
		}
		if n := s.logs.count("row is suspended", "service="+d.sv.ID); n != 1 {
			t.Errorf("%s: %d lines", d.name, n)
		}
	}
	if n := s.log.counts[refusedSuspended].Load(); n != 3*3 {
		t.Errorf("%d refusals are counted", n)
	}
	if got := ask(t, list[0].port, "free\r\nx"); got != tcpmux.Go+"x" {
		t.Errorf("another row: %q", got)
	}
	s.Dump(s.log.info)
	s.logs.wait(t, "instances", "service=direct", "suspended=1h0m0s")
	// With more to give, they serve again.
	for i := range list {
		list[i].sv = with(list[i].sv, func(sv *service.Service) { sv.Limits.Rate.N = 100 })
		rows[1+i] = list[i].sv
	}
	s.reload(rows...)
	for _, d := range list {
		d.in(t, "127.0.0.1").half().ends("")
	}
}

// Nobody has to reload it.
func TestSuspensionEnds(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Limits.Rate, sv.Limits.Burst = limit.Rate{N: 10, Per: time.Second}, 1
		sv.Suspend = 300 * time.Millisecond
	}))
	within(t, "an excess", func() bool {
		dial(t, port).Close()
		return s.logs.count("row is suspended") > 0
	})
	s.logs.wait(t, "row is suspended no more", "service=cat")
	within(t, "a service", func() bool {
		c, err := tryFrom("127.0.0.1", port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("x"))
		n, _ := c.Read(make([]byte, 1))
		return n == 1
	})
}

// The multiplexer's own rate is of its negotiations.
func TestSuspendedMultiplexer(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, suspends(mux(port)), plus("cat", cat()))
	for range 2 {
		if got := ask(t, port, "cat\r\nx"); got != tcpmux.Go+"x" {
			t.Fatalf("%q", got)
		}
	}
	for range 3 {
		if got := ask(t, port, "cat\r\nx"); got != tcpmux.NotAvailable {
			t.Errorf("%q", got)
		}
	}
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=suspended")
}

// What has come to a wait row stays in its socket.
func TestSuspendedWaitRow(t *testing.T) {
	testkit.Check(t)
	stream, dgram := testkit.FreePort(t), testkit.FreePort(t)
	rows := []*service.Service{suspends(waitStream("stream", stream, acceptor(bound, 1))), suspends(waitUDP("dgram", dgram, receiver(bound, 1)))}
	s := serve(t, rows...)
	a := askUDP(t, dgram)
	for range 2 {
		dial(t, stream).send("x\n").rest()
		a.send("x").answer("x")
	}
	c := dial(t, stream).send("late\n")
	a.send("late")
	for _, id := range []string{"stream", "dgram"} {
		s.logs.wait(t, "row is suspended", "service="+id)
		s.logs.wait(t, "defer", "service="+id, "reason=rate")
	}
	// A reload that has nothing to do with it looks at the sockets again.
	s.reload(with(rows[0], func(sv *service.Service) { sv.OnStop = service.StopKill }), with(rows[1], func(sv *service.Service) { sv.OnStop = service.StopKill }))
	for _, id := range []string{"stream", "dgram"} {
		s.logs.wait(t, "defer", "service="+id, "reason=suspended")
	}
	s.instances(0)
	for i := range rows {
		rows[i] = with(rows[i], func(sv *service.Service) { sv.Limits.Rate.N = 100 })
	}
	s.reload(rows...)
	if got := c.rest(); !strings.HasSuffix(got, "late\n") {
		t.Errorf("read %q", got)
	}
	a.answer("late")
}

// Sessions and answers to datagrams.
func TestSuspendedDatagramRows(t *testing.T) {
	testkit.Check(t)
	echo, talk := testkit.FreePort(t), testkit.FreePort(t)
	rows := []*service.Service{suspends(onUDP(internal(service.BuiltinEcho, 0), "127.0.0.1", echo)), suspends(sessionRow("talk", "127.0.0.1", talk, receiver(bound, 2)))}
	s := serve(t, rows...)
	var talkers []*asker
	for range 2 {
		call(t, "127.0.0.1:0", "127.0.0.1", echo).ask("x")
		a := askUDP(t, talk)
		a.send("x").answer("x")
		talkers = append(talkers, a)
	}
	late := func() {
		call(t, "127.0.0.1:0", "127.0.0.1", echo).Write([]byte("late"))
		askUDP(t, talk).send("late")
	}
	late()
	for _, id := range []string{"echo-udp", "talk"} {
		s.logs.wait(t, "row is suspended", "service="+id)
	}
	late()
	for _, id := range []string{"echo-udp", "talk"} {
		s.logs.wait(t, "refuse", "service="+id, "reason=suspended")
	}
	for _, a := range talkers { // those that there are go on
		a.send("y").answer("y")
	}
	rows[0] = with(rows[0], func(sv *service.Service) { sv.Suspend = 0; sv.Limits.Rate = limit.Rate{} })
	s.reload(rows...)
	if got := call(t, "127.0.0.1:0", "127.0.0.1", echo).ask("again"); got != "again" {
		t.Errorf("%q", got)
	}
}
