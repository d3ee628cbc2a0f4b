package supervisor

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// graceful is a table with a grace.
func graceful(d time.Duration, rows ...*service.Service) *service.Table {
	t := table(rows...)
	t.Server.Grace = d
	return t
}

// Who waits is told, and nobody is accepted any more.
func TestStopRefusesThePending(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serveTable(t, graceful(bound, mux(muxPort), plus("cat", cat()), direct("cat", port, cat())))
	running := dial(t, port).send("x").expect("x")
	a, b := dial(t, muxPort).send("ca"), dial(t, muxPort)
	s.waiting(2)
	stopped := make(chan struct{})
	go func() { s.Stop(nil); close(stopped) }()
	a.ends(tcpmux.NotAvailable)
	b.ends(tcpmux.NotAvailable)
	for _, p := range []int{muxPort, port} {
		if c, err := tryFrom("127.0.0.1", p); !errors.Is(err, syscall.ECONNREFUSED) {
			if err == nil {
				c.Close()
			}
			t.Errorf("after Stop: %v, want a refusal", err)
		}
	}
	select {
	case <-stopped:
		t.Fatal("the grace is cut short")
	default:
	}
	running.send("still").expect("still").half().ends("")
	select {
	case <-stopped: // as soon as the last one has ended
	case <-time.After(bound / 2):
		t.Fatal("Stop waits for nobody")
	}
}

func TestOnStop(t *testing.T) {
	testkit.Check(t)
	stubborn := func() *service.Exec { return sh("trap '' TERM; echo ready; cat") }
	for _, c := range []struct {
		name   string
		onStop service.OnStop
		exec   *service.Exec
		lives  bool
		log    string
		attr   string
	}{
		{"leave", service.StopLeave, sh("echo ready; exec cat"), true, "leave", ""},
		{"term", service.StopTerm, sh("echo ready; exec cat"), false, "end", "signal=SIGTERM"},
		{"term, and it does not mind", service.StopTerm, stubborn(), true, "", ""},
		{"kill", service.StopKill, stubborn(), false, "end", "signal=SIGKILL"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := testkit.FreePort(t)
			s := serveTable(t, graceful(100*time.Millisecond,
				with(direct("a", port, c.exec), func(sv *service.Service) { sv.OnStop = c.onStop })))
			var all []*client
			for range 5 {
				all = append(all, dial(t, port).expect("ready\n"))
			}
			s.instances(5)
			pids := map[int]bool{}
			s.reaper.each(func(pid int, _ *instance) { pids[pid] = true })
			begin := time.Now()
			s.Stop(nil)
			if took := time.Since(begin); took < 100*time.Millisecond || took > 5*time.Second {
				t.Errorf("Stop took %v with a grace of 100 ms", took)
			}
			for _, cl := range all {
				if c.lives {
					cl.send("x").expect("x")
				} else {
					cl.gone()
				}
			}
			if c.log != "" {
				attrs := []string{"service=a"}
				if c.attr != "" {
					attrs = append(attrs, c.attr)
				}
				within(t, "a line for each", func() bool { return s.logs.count(c.log, attrs...) == 5 })
			}
			s.stop2()
			// What lives on is the test's to end.
			for pid := range pids {
				syscall.Kill(-pid, syscall.SIGKILL)
				within(t, "the end of a child", func() bool {
					got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
					return got == pid || err == syscall.ECHILD
				})
			}
		})
	}
}

// stop2 waits for Run after Stop, and leaves the children alone.
func (s *server) stop2() {
	s.t.Helper()
	s.over = true
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("Run: %v", err)
		}
	case <-time.After(bound):
		s.t.Fatal("Run does not return after Stop")
	}
}

// The ends that the last signals have made are logged like all others.
func TestStopLogsTheEndsItMakes(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	const many = 30
	s := serve(t, with(direct("a", port, cat()), func(sv *service.Service) { sv.OnStop = service.StopKill }))
	for range many {
		dial(t, port).send("x").expect("x")
	}
	s.instances(many)
	s.stop()
	if n := s.logs.count("end", "signal=SIGKILL"); n != many {
		t.Errorf("%d of %d ends are logged", n, many)
	}
}

// A second signal ends the grace; a reload does not.
func TestHurry(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serveTable(t, graceful(time.Hour, with(direct("a", port, cat()), func(sv *service.Service) { sv.OnStop = service.StopKill })))
	c := dial(t, port).send("x").expect("x")
	hurry := make(chan os.Signal)
	stopped := make(chan struct{})
	go func() { s.Stop(hurry); close(stopped) }()
	s.logs.wait(t, "drain", "instances=1")
	hurry <- syscall.SIGHUP
	hurry <- syscall.SIGHUP
	c.send("y").expect("y")
	hurry <- syscall.SIGTERM
	c.gone()
	select {
	case <-stopped:
	case <-time.After(bound):
		t.Fatal("Stop does not return")
	}
}

func TestStopTwice(t *testing.T) {
	testkit.Check(t)
	s := serve(t, direct("a", testkit.FreePort(t), cat()))
	done := make(chan struct{})
	go func() { s.Stop(nil); done <- struct{}{} }()
	go func() { s.Stop(nil); done <- struct{}{} }()
	for range 2 {
		select {
		case <-done:
		case <-time.After(bound):
			t.Fatal("Stop does not return")
		}
	}
}

// Stop while peers come, negotiate, wait and are served: everybody has an end.
func TestStopUnderLoad(t *testing.T) {
	testkit.Check(t)
	for range 5 {
		muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
		s := serveTable(t, graceful(50*time.Millisecond, mux(muxPort), plus("cat", cat()), direct("cat", port, cat())))
		done := make(chan error)
		const peers = 8
		for g := range peers {
			go func() {
				for {
					to, line := port, ""
					if g%2 == 0 {
						to, line = muxPort, []string{"cat\n", "ca", "nobody\n", "help\n"}[g/2]
					}
					c, err := tryFrom("127.0.0.1", to)
					if err != nil {
						if errors.Is(err, syscall.ECONNREFUSED) || errors.Is(err, syscall.ECONNRESET) {
							err = nil
						}
						done <- err
						return
					}
					io.WriteString(c, line)
					c.CloseWrite()
					if _, err := io.ReadAll(c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
						c.Close()
						done <- fmt.Errorf("a peer reads %w", err)
						return
					}
					c.Close()
				}
			}()
		}
		within(t, "children run", func() bool { return s.logs.count("end") > 10 })
		s.stop()
		for range peers {
			if err := <-done; err != nil {
				t.Error(err)
			}
		}
	}
}
