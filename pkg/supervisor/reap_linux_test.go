package supervisor

// The end of instances. Children are reaped here by hand where the order of
// things matters.

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// child starts /bin/true, which nobody but the caller waits for.
func child(t *testing.T) int {
	t.Helper()
	pid, err := syscall.ForkExec("/bin/true", []string{"true"}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

// reapOne waits with r until a child was reaped.
func reapOne(t *testing.T, r *reaper) (pid int, in *instance, e exit) {
	t.Helper()
	within(t, "a child is reaped", func() bool {
		pid, in, _, e = r.wait(time.Second)
		return pid != 0
	})
	return pid, in, e
}

// A child may be reaped before it is known whose it is, before its worker has come
// back to it, or after. Its end is told once in every case.
func TestExitAndItsRecord(t *testing.T) {
	testkit.Check(t)
	for when, name := range []string{"before it is known", "before its program is known to run", "after"} {
		var r reaper
		r.init()
		in := &instance{unit: new(unit)}
		r.begin(in)
		pid := child(t)
		var known [3]*instance
		look := func(now int) {
			if now == when {
				got, whose, _ := reapOne(t, &r)
				if known[when] = whose; got != pid {
					t.Fatalf("%s: reaped %d, want %d", name, got, pid)
				}
			}
		}
		look(0)
		r.made(pid, in)
		look(1)
		e := r.store(pid, in)
		look(2)
		if (e != nil) != (when < 2) || e != nil && !e.status.Exited() {
			t.Errorf("%s: store says %v", name, e)
		}
		if want := [3]*instance{nil, in, in}; known[when] != want[when] {
			t.Errorf("%s: reaped with record %v", name, known[when])
		}
		if len(r.running) != 0 || len(r.early) != 0 || len(r.starting) != 0 {
			t.Errorf("%s: %d running, %d early, %d starting are left", name, len(r.running), len(r.early), len(r.starting))
		}
	}
}

// The number of a child that is gone is given to another before long. The exit
// of the first is not the second's.
func TestExitOfAnotherChildWithTheSameNumber(t *testing.T) {
	testkit.Check(t)
	var r reaper
	r.init()
	other, in := &instance{unit: new(unit)}, &instance{unit: new(unit)}
	r.begin(other) // a start that lasts
	stranger := child(t)
	reapOne(t, &r)
	r.begin(in)
	r.made(stranger, in)
	if e := r.store(stranger, in); e != nil {
		t.Error("a new child is taken for a dead one with its number")
	}
	if r.running[stranger] != in {
		t.Error("the new child has no record")
	}
	r.abort(0, other)
	if len(r.early) != 0 {
		t.Errorf("%d exits are kept without a start", len(r.early))
	}
}

// A child that fails before its program leaves nothing, whether it is reaped
// before that is known or after, and however long other starts last.
func TestExitOfAFailedStart(t *testing.T) {
	testkit.Check(t)
	var r reaper
	r.init()
	r.begin(&instance{unit: new(unit)}) // a start that lasts
	for when, name := range []string{"before it is known", "before it is known to have failed", "after"} {
		in := &instance{unit: new(unit)}
		r.begin(in)
		pid := child(t)
		look := func(now int) {
			if now == when {
				if got, known, _ := reapOne(t, &r); got != pid || known != nil && when != 1 {
					t.Errorf("%s: reaped %d with record %v", name, got, known)
				}
			}
		}
		look(0)
		r.made(pid, in)
		look(1)
		r.abort(pid, in)
		look(2)
		if len(r.early) != 0 || len(r.failed) != 0 || len(r.running) != 0 {
			t.Errorf("%s: %d early, %d failed, %d running are left", name, len(r.early), len(r.failed), len(r.running))
		}
	}
}

// Exits that nobody asks for are not kept for ever, and do not make each other
// expensive.
func TestStrangersAreForgotten(t *testing.T) {
	var r reaper
	r.init()
	in := &instance{unit: new(unit)}
	r.begin(in)
	const many = 100_000
	begin := time.Now()
	for i := range many {
		r.keepLocked(1000+i, exit{at: time.Duration(i)}, time.Duration(i))
	}
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("%d exits took %v", many, took)
	}
	r.keepLocked(1, exit{at: 2 * earlyKept}, 2*earlyKept)
	if len(r.early) != 1 {
		t.Errorf("%d exits are kept after twice their time", len(r.early))
	}
}

// TestThousandsThatExitAtOnce: a child that ends before its start has returned
// is an instance with an end like any other.
func TestThousandsThatExitAtOnce(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), plus("true", program("/bin/true")), direct("true", port, program("/bin/true")))
	const peers, each = 6, 400
	var all sync.WaitGroup
	for g := range peers {
		all.Go(func() {
			for range each {
				to, line, want := port, "", ""
				if g%2 == 0 {
					to, line, want = muxPort, "true\n", tcpmux.Go
				}
				c, err := tryFrom("127.0.0.1", to)
				if err != nil {
					t.Error(err)
					return
				}
				if line != "" {
					c.Write([]byte(line))
				}
				got := (&client{c, t}).rest()
				c.Close()
				if got != want {
					t.Errorf("read %q, want %q", got, want)
					return
				}
			}
		})
	}
	all.Wait()
	within(t, "all ends are logged", func() bool { return s.logs.count("end") == peers*each })
	if n := s.logs.count("start"); n != peers*each {
		t.Errorf("%d starts are logged", n)
	}
	if n := s.logs.count("end", "status=0"); n != peers*each {
		t.Errorf("%d of %d ends have status 0", n, peers*each)
	}
	for _, id := range []string{"tcpmux/+true", "true"} {
		u := s.unit(id)
		u.mu.Lock()
		if n := u.book.Instances(); n != 0 {
			t.Errorf("%s: %d instances are counted", id, n)
		}
		u.mu.Unlock()
	}
	s.reaper.mu.Lock()
	defer s.reaper.mu.Unlock()
	if len(s.reaper.running) != 0 || len(s.reaper.early) != 0 || len(s.reaper.starting) != 0 {
		t.Errorf("%d running, %d early, %d starting are left", len(s.reaper.running), len(s.reaper.early), len(s.reaper.starting))
	}
}

// TestEndInTheLog: how an instance ended.
func TestEndInTheLog(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, mux(port),
		minus("seven", sh("exit 7")),
		minus("killed", sh("kill -KILL $$")),
		minus("busy", sh("i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done")))
	for _, name := range []string{"seven", "killed", "busy"} {
		ask(t, port, name+"\n")
	}
	s.logs.wait(t, "end", "service=tcpmux/seven", "status=7")
	s.logs.wait(t, "end", "service=tcpmux/killed", "signal=SIGKILL")
	l := s.logs.wait(t, "end", "service=tcpmux/busy", "status=0")
	for _, key := range []string{"peer", "local", "pid", "duration", "cpu", "maxrss_kb"} {
		if l.attrs[key] == "" {
			t.Errorf("the end has no %s", key)
		}
	}
	cpu, err := time.ParseDuration(l.attrs["cpu"])
	if err != nil || cpu <= 0 {
		t.Errorf("cpu is %q", l.attrs["cpu"])
	}
	start := s.logs.wait(t, "start", "service=tcpmux/busy")
	for _, key := range []string{"peer", "local", "pid"} {
		if start.attrs[key] != l.attrs[key] {
			t.Errorf("%s is %q at the start and %q at the end", key, start.attrs[key], l.attrs[key])
		}
	}
	if !strings.HasSuffix(l.attrs["local"], fmt.Sprintf(":%d", port)) {
		t.Errorf("local is %q", l.attrs["local"])
	}
}

// A stopped or continued child has not ended.
func TestStoppedChildRunsOn(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, direct("cat", port, cat()))
	c := dial(t, port).send("x").expect("x")
	s.instances(1)
	s.reaper.each(func(pid int, _ *instance) {
		syscall.Kill(pid, syscall.SIGSTOP)
		syscall.Kill(pid, syscall.SIGCONT)
	})
	c.send("y").expect("y")
	s.instances(1)
	c.half().ends("")
	s.instances(0)
}

// TestStrangersAreReaped: orphans come to the first process of a container, or
// to one that asks for them, and must not stay as zombies.
func TestStrangersAreReaped(t *testing.T) {
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	port := testkit.FreePort(t)
	s := serve(t, direct("parent", port, sh("for i in 1 2 3 4 5; do (sleep 0.0$i) </dev/null >/dev/null 2>&1 & done; echo left")))
	for range 10 {
		dial(t, port).ends("left\n")
	}
	s.instances(0)
	alone := func() bool {
		b, err := os.ReadFile("/proc/self/task/" + fmt.Sprint(os.Getpid()) + "/children")
		if err != nil {
			t.Fatal(err)
		}
		return len(strings.Fields(string(b))) == 0
	}
	within(t, "no child is left", alone)
	if n := s.logs.count("end"); n != 10 {
		t.Errorf("%d ends are logged, want 10: strangers have none", n)
	}
	// And while others start all the time.
	for range 20 {
		dial(t, port).ends("left\n")
	}
	s.instances(0)
	within(t, "no child is left", alone)
	within(t, "no exit is kept", func() bool {
		s.reaper.mu.Lock()
		defer s.reaper.mu.Unlock()
		return len(s.reaper.early) == 0
	})
}

// A start that is under way while a reload ends its row's instances is one of
// them.
func TestReloadEndsAnInstanceThatStarts(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(direct("cat", port, cat()), func(sv *service.Service) { sv.OnReload = service.ReloadEnd })
	s := serve(t, row)
	u := s.unit("cat")
	in := &instance{unit: u, start: s.now()}
	s.reaper.begin(in)
	pid, err := syscall.ForkExec("/bin/sleep", []string{"sleep", "100"}, &syscall.ProcAttr{Sys: &syscall.SysProcAttr{Setsid: true}})
	if err != nil {
		t.Fatal(err)
	}
	s.reaper.made(pid, in)
	s.reload() // it is not known yet to run its program
	s.reaper.store(pid, in)
	s.reaper.ring()
	s.logs.wait(t, "end", "service=cat", "signal=SIGTERM", fmt.Sprintf("pid=%d", pid))
}
