package supervisor

// Children that are held before they reach their program.

import (
	"io"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestStoppedBeforeItsProgram: between its setuid and its exec a child is its
// user's, who can stop it. Rows of other users must not notice, and the row itself recovers when nobody stops it any
// more.
func TestStoppedBeforeItsProgram(t *testing.T) {
	testkit.Check(t)
	if os.Geteuid() != 0 {
		t.Fatal("this test has to be run by root")
	}
	// Users of nobody else, so that the program stops nothing else on this
	// machine.
	attacked := uint32(1<<30 + os.Getpid())
	other := attacked + 1<<24
	muxPort, ports := testkit.FreePort(t), []int{testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)}
	kill := func(sv *service.Service) { sv.OnStop = service.StopKill }
	s := serve(t, mux(muxPort),
		with(plus("attacked", as(attacked, cat())), kill),
		plus("fine", as(other, cat())),
		with(direct("attacked", ports[0], as(attacked, cat())), kill),
		direct("fine", ports[1], as(other, cat())),
		direct("stopper", ports[2], as(attacked, helper("stopper"))))

	served := func(port int, line, want string) bool {
		c, err := tryFrom("127.0.0.1", port)
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(time.Second))
		io.WriteString(c, line+"x")
		c.CloseWrite()
		b, err := io.ReadAll(c)
		return err == nil && string(b) == want
	}
	if !served(muxPort, "attacked\n", tcpmux.Go+"x") {
		t.Fatal("the row does not work without an attack")
	}

	stopper := dial(t, ports[2]).expect("stopping\n")
	stop := make(chan struct{})
	var victims sync.WaitGroup
	for g := range 2 {
		victims.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if g == 0 {
					served(muxPort, "attacked\n", "")
				} else {
					served(ports[0], "", "")
				}
			}
		})
	}
	// For as long as it takes until children were held, and 100 times at least.
	var longest time.Duration
	deadline := time.Now().Add(bound)
	for i := 0; i < 100 || s.logs.count("back off") == 0; i++ {
		if time.Now().After(deadline) {
			t.Fatalf("no child was ever held in %d tries", i)
		}
		begin := time.Now()
		for _, c := range []struct {
			port       int
			line, want string
		}{{muxPort, "fine\n", tcpmux.Go + "x"}, {ports[1], "", "x"}} {
			if got := dial(t, c.port).send(c.line + "x").half().rest(); got != c.want {
				t.Errorf("a row of another user: %q, want %q", got, c.want)
			}
		}
		longest = max(longest, time.Since(begin))
	}
	t.Logf("rows of another user waited for %v at most; %d starts were held", longest, s.logs.count("child is held before its program"))
	if longest > 3*time.Second {
		t.Errorf("a row of another user waited for %v", longest)
	}
	stopper.reset()
	close(stop)
	victims.Wait()
	within(t, "the row recovers", func() bool { return served(muxPort, "attacked\n", tcpmux.Go+"x") })
	within(t, "the direct row recovers", func() bool { return served(ports[0], "", "x") })
}

// A row that is held costs others nothing even when all their peers come at
// once.
func TestHeldStartHoldsNobodyElse(t *testing.T) {
	testkit.Check(t)
	attacked := uint32(1<<30 + os.Getpid())
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), with(plus("attacked", as(attacked, cat())), func(sv *service.Service) { sv.OnStop = service.StopKill }),
		plus("cat", cat()), direct("stopper", port, as(attacked, helper("stopper"))))
	stopper := dial(t, port).expect("stopping\n")
	within(t, "a start is held", func() bool {
		c := dial(t, muxPort).send("attacked\n")
		c.SetReadDeadline(time.Now().Add(time.Second))
		io.ReadFull(c, make([]byte, 1))
		c.Close()
		return s.logs.count("child is held before its program") > 0
	})
	for range 20 {
		if got := ask(t, muxPort, "cat\n"); got != tcpmux.Go {
			t.Errorf("beside it: %q", got)
		}
	}
	stopper.reset()
	// Those that were held have their program now, or were killed.
	within(t, "no start is under way", func() bool {
		s.reaper.mu.Lock()
		defer s.reaper.mu.Unlock()
		return len(s.reaper.starting) == 0
	})
}

// Stop under load: whoever was being started has its service, and Run returns.
func TestTheDaemonEndsWhileAStartIsUnderWay(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("cat", port, cat()))
	const peers = 8
	var all sync.WaitGroup
	for range peers {
		all.Go(func() {
			for range 50 {
				c, err := tryFrom("127.0.0.1", port)
				if err != nil {
					return
				}
				c.Write([]byte("x"))
				c.CloseWrite()
				io.ReadAll(c)
				c.Close()
			}
		})
	}
	within(t, "children run", func() bool { return s.logs.count("end") > 20 })
	s.stop()
	all.Wait()
	if n := len(s.reaper.starting); n != 0 {
		t.Errorf("%d starts are under way", n)
	}
}

// A child that runs its program is not before it, whatever its name is and
// whatever it does; nor is one that has ended.
func TestBeforeProgram(t *testing.T) {
	testkit.Check(t)
	name := t.TempDir() + "/a) T 1 1 1 1 1 64 (b"
	b, err := os.ReadFile("/bin/sleep")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, b, 0o755); err != nil {
		t.Fatal(err)
	}
	pid, err := syscall.ForkExec(name, []string{"sleep", "100"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for _, sig := range []syscall.Signal{syscall.SIGSTOP, syscall.SIGCONT, syscall.SIGKILL} {
		if state := beforeProgram(pid); state != 0 {
			t.Errorf("a child that runs its program has state %q", state)
		}
		syscall.Kill(pid, sig)
	}
	within(t, "it ends", func() bool {
		return unix.Waitid(unix.P_PID, pid, nil, unix.WEXITED|unix.WNOWAIT|unix.WNOHANG, nil) == nil && beforeProgram(pid) == 0
	})
	syscall.Wait4(pid, nil, 0, nil)
	for _, pid := range []int{pid, os.Getpid(), -1} {
		if state := beforeProgram(pid); state != 0 {
			t.Errorf("process %d has state %q", pid, state)
		}
	}
}
