//go:build amd64 || arm64

package spawn

// The window between clone and exec, held open by a step of the test's own.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func init() {
	// stop PID becomes nobody and stops a process.
	helpers["stop"] = func(args []string) (any, error) {
		pid, _ := strconv.Atoi(args[0])
		if err := becomeNobody(); err != nil {
			return nil, err
		}
		return fmt.Sprint(syscall.Kill(pid, syscall.SIGSTOP)), nil
	}
}

// becomeNobody makes a helper one of nobody's processes.
func becomeNobody() error {
	uid, gid := int(nobody.UID), int(nobody.GID)
	return errors.Join(syscall.Setgroups(nil), syscall.Setresgid(gid, gid, gid), syscall.Setresuid(uid, uid, uid))
}

// hold adds a step, "hold", before the given one: the child opens path, which for
// a fifo takes until somebody opens the other end.
func (p *Program) hold(before, path string) {
	n := &p.native
	at := slices.Index(n.steps, before)
	o := op{nr: unix.SYS_OPENAT, a: [6]uintptr{atFDCWD, n.string(path), unix.O_RDONLY}}
	n.ops = slices.Insert(n.ops, at, o)
	n.steps = slices.Insert(n.steps, at, "hold")
	n.exec++
	if n.reply >= at {
		n.reply++
	}
	for i := range n.envArgs {
		if n.envArgs[i].op >= at {
			n.envArgs[i].op++
		}
	}
}

func fifo(t *testing.T) string {
	path := publicDir(t) + "/fifo"
	if err := unix.Mkfifo(path, 0o666); err != nil {
		t.Fatal(err)
	}
	return path
}

// release lets a held child go on.
func release(t *testing.T, path string) {
	t.Helper()
	eventually(t, "a reader of the fifo", func() bool {
		fd, err := unix.Open(path, unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
		if err != nil {
			return false // ENXIO: the child is not there yet
		}
		unix.Close(fd)
		return true
	})
}

// eventually waits until f is true, for 10 s.
func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 10 s", what)
		}
	}
}

type started struct {
	pid int
	err error
}

// startHeld starts a child that is held before a step, and returns when it is
// there.
func startHeld(t *testing.T, s *Spawner, a *Attr, before string) (path string, done chan started, peer *os.File) {
	t.Helper()
	return startHeldProgram(t, s, compile(t, a), before)
}

// startHeldProgram changes p.
func startHeldProgram(t *testing.T, s *Spawner, p *Program, before string) (path string, done chan started, peer *os.File) {
	t.Helper()
	path = fifo(t)
	p.hold(before, path)
	conn, peer := pair(t)
	done = make(chan started, 1)
	over := make(chan struct{})
	go func() {
		defer close(over)
		pid, err := s.Start(p, conn, nil)
		syscall.Close(conn)
		done <- started{pid, err}
	}()
	t.Cleanup(func() {
		if pid := s.PID(); pid != 0 { // the test has failed
			syscall.Kill(pid, syscall.SIGKILL)
		}
		<-over
	})
	// None of the other steps sleeps.
	eventually(t, "the child held", func() bool { return s.PID() != 0 && stateOf(s.PID()) == 'S' })
	return path, done, peer
}

func outcome(t *testing.T, done chan started) started {
	t.Helper()
	select {
	case r := <-done:
		return r
	case <-time.After(10 * time.Second):
		t.Fatal("Start does not return")
		panic("")
	}
}

var held = Attr{Argv: []string{"exit"}, Umask: 0o22, Dir: "/proc", Cred: nobody, Go: true}

// A child that was stopped by its user is known, can be killed, and Start says
// that it was.
func TestStoppedInWindow(t *testing.T) {
	for _, c := range []struct {
		before  string
		replied bool
	}{{"chdir", false}, {"check", false}, {"reply", false}, {"exec", true}} {
		t.Run(c.before, func(t *testing.T) {
			testkit.Check(t)
			needNative(t)
			s := newSpawner(t)
			a := held
			a.Path = progExit
			_, done, peer := startHeld(t, s, &a, c.before)
			pid := s.PID()
			// As the user of the row: from setresuid on nothing keeps it from that.
			var said string
			if runHelper(t, &said, "stop", fmt.Sprint(pid)); said != "<nil>" {
				t.Fatalf("stopping the child: %s", said)
			}
			eventually(t, "the child stopped", func() bool { return stateOf(pid) == 'T' })

			// While one child is stopped, others start.
			other := newSpawner(t)
			p := compile(t, &a)
			for range 20 {
				conn, _ := pair(t)
				pid, err := other.Start(p, conn, nil)
				syscall.Close(conn)
				if err != nil {
					t.Fatal(err)
				}
				reap(t, pid)
			}
			select {
			case r := <-done:
				t.Fatalf("Start has returned %+v while the child is stopped", r)
			default:
			}
			if got := s.PID(); got != pid {
				t.Fatalf("PID is %d, want %d", got, pid)
			}
			if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
				t.Fatal(err)
			}
			r := outcome(t, done)
			var e *Error
			if !errors.As(r.err, &e) || e.Errno != 0 || e.Step != "hold" || e.Replied != c.replied || r.pid != pid {
				t.Errorf("Start returned %d, %v, want %d, hold: killed, replied %v", r.pid, r.err, pid, c.replied)
			}
			if s := status(reap(t, pid)); s != "signal killed" {
				t.Errorf("the child ended with %s", s)
			}
			if s.PID() != 0 {
				t.Error("PID is kept")
			}
			wire := ""
			if c.replied {
				wire = "+Go\r\n"
			}
			if got := received(t, peer); got != wire {
				t.Errorf("the peer got %q, want %q", got, wire)
			}
		})
	}
}

// Continued, it becomes its program after all.
func TestContinuedInWindow(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	s := newSpawner(t)
	a := held
	a.Path = progExit
	path, done, peer := startHeld(t, s, &a, "reply")
	pid := s.PID()
	syscall.Kill(pid, syscall.SIGSTOP)
	eventually(t, "the child stopped", func() bool { return stateOf(pid) == 'T' })
	syscall.Kill(pid, syscall.SIGCONT)
	release(t, path)
	if r := outcome(t, done); r.err != nil || r.pid != pid {
		t.Fatalf("Start returned %+v", r)
	}
	if s := status(reap(t, pid)); s != "exit 0" {
		t.Errorf("the child ended with %s", s)
	}
	if got := received(t, peer); got != "+Go\r\n" {
		t.Errorf("the peer got %q", got)
	}
}

// A spawner whose child is held gives its slot back as soon as the child does not
// need it, and only then; the child goes on with its own connection.
func TestReleaseInWindow(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	largeTable(t)
	a := held
	a.Path = progExit
	begin := func(s *Spawner) (path string, pid int, peer *os.File) {
		t.Helper()
		path = fifo(t)
		p := compile(t, &a)
		p.hold("setsid", path)
		conn, peer := pair(t)
		pid, err := s.Begin(p, conn, nil)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		return path, pid, peer
	}
	end := func(s *Spawner, path string, pid int, peer *os.File) {
		t.Helper()
		release(t, path)
		if !s.Await(10 * time.Second) {
			t.Fatal("the child is not done")
		}
		if err := s.Finish(); err != nil {
			t.Fatal(err)
		}
		if s := status(reap(t, pid)); s != "exit 0" {
			t.Errorf("the child ended with %s", s)
		}
		if got := received(t, peer); got != "+Go\r\n" {
			t.Errorf("the peer got %q", got)
		}
	}
	s := newSpawner(t)
	if s.Release() {
		t.Error("a spawner that has started nothing gives its slot back")
	}
	for range 2 { // what the first child did must not count for the second
		path, pid, peer := begin(s)
		end(s, path, pid, peer)
		if s.Release() {
			t.Error("a slot was released by the step of a child that is gone")
		}
	}
	own := s.native.slot
	path, pid, peer := begin(s)
	eventually(t, "a slot that is given back", s.Release)
	if s.native.slot != noSlot {
		t.Error("the slot is kept")
	}
	// Somebody else has it now, with another connection.
	other := newSpawner(t)
	otherPath, otherPID, otherPeer := begin(other)
	if other.native.slot.low != own.low {
		t.Fatalf("slot %v was given back, %v was taken", own, other.native.slot)
	}
	end(s, path, pid, peer)
	end(other, otherPath, otherPID, otherPeer)
}

// What a child has not taken out of its slot the next one does not find there.
func TestSlotIsEmptied(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	largeTable(t)
	s := newSpawner(t)
	a := held
	a.Path, a.Cred = progExit, nil
	p := compile(t, &a)
	lost, lostPeer := pair(t)
	if !s.native.pass([3]int{lost, lost, lost}) {
		t.Fatal("nothing could be sent")
	}
	syscall.Close(lost)
	// As after a child that was killed before it could receive.
	s.native.program, s.native.from, s.native.result.step = p, headUnshare, headUnshare
	s.native.leave()
	if got := received(t, lostPeer); got != "" {
		t.Errorf("the first peer got %q", got)
	}
	conn, peer := pair(t)
	pid, err := s.Start(p, conn, nil)
	syscall.Close(conn)
	if err != nil {
		t.Fatal(err)
	}
	reap(t, pid)
	if got := received(t, peer); got != "+Go\r\n" {
		t.Errorf("the second peer got %q", got)
	}
}

// Begin does not wait for a child that is held, and nobody else needs to.
func TestBeginDoesNotWait(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	a := held
	a.Path = progExit
	const n = 20
	type one struct {
		s    *Spawner
		path string
		pid  int
		peer *os.File
	}
	var all []one
	for range n {
		path := fifo(t)
		p := compile(t, &a)
		if p.Waits() {
			t.Fatal("a plain program is waited for")
		}
		p.hold("check", path)
		conn, peer := pair(t)
		s := newSpawner(t)
		pid, err := s.Begin(p, conn, nil)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, one{s, path, pid, peer})
	}
	runtime.GC()
	for _, o := range all {
		if o.s.Await(time.Millisecond) || o.s.Done() || o.s.PID() != o.pid {
			t.Fatalf("child %d is held, and done", o.pid)
		}
	}
	for i, o := range all {
		if i%2 == 0 {
			release(t, o.path)
		} else {
			syscall.Kill(o.pid, syscall.SIGKILL)
		}
		if !o.s.Await(10 * time.Second) {
			t.Fatalf("child %d is not done", o.pid)
		}
		err := o.s.Finish()
		var e *Error
		if want := i%2 == 1; errors.As(err, &e) != want || want && (e.Step != "hold" || e.Errno != 0 || e.Replied) {
			t.Errorf("child %d: %v", i, err)
		}
		if o.s.PID() != 0 {
			t.Errorf("PID is kept")
		}
		reap(t, o.pid)
		want := ""
		if i%2 == 0 {
			want = "+Go\r\n"
		}
		if got := received(t, o.peer); got != want {
			t.Errorf("peer %d got %q, want %q", i, got, want)
		}
	}
}

// Only where the memory cannot be shared, or what the child does would befall the
// daemon, Begin waits.
func TestWaits(t *testing.T) {
	a := &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Cred: nobody, OOMScoreAdj: new(7)}
	eachWay(t, func(t *testing.T, twin bool) {
		b := *a
		if twin {
			b.OOMScoreAdj = nil
		}
		if !compile(t, &b).Waits() {
			t.Error("it does not wait")
		}
		b.OOMScoreAdj = nil
		if got := compile(t, &b).Waits(); got != (twin || needsCopy() != "") {
			t.Errorf("without a score Waits is %v", got)
		}
	})
}

// Signals that this process handles do what they do by default in the child: no
// handler of the Go runtime may run there.
func TestSignalsInWindow(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	s := newSpawner(t)
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGPROF, syscall.SIGPIPE, 35, 64} {
		a := held
		a.Path = progExit
		_, done, _ := startHeld(t, s, &a, "check")
		// These it does not notice.
		pid := s.PID()
		for _, sig := range []syscall.Signal{syscall.SIGURG, syscall.SIGCHLD, syscall.SIGWINCH, syscall.SIGCONT} {
			syscall.Kill(pid, sig)
		}
		syscall.Kill(pid, sig)
		r := outcome(t, done)
		var e *Error
		if !errors.As(r.err, &e) || e.Errno != 0 || e.Step != "hold" || r.pid != pid {
			t.Errorf("%v: Start returned %d, %v", sig, r.pid, r.err)
		}
		if ws := reap(t, pid); !ws.Signaled() || ws.Signal() != sig {
			t.Errorf("%v: the child ended with %s", sig, status(ws))
		}
	}
}

// Where Init could not execute the program again, each child empties its mask.
func TestMaskIsEmptied(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	old := maskIsEmpty
	maskIsEmpty = func() bool { return false }
	defer func() { maskIsEmpty = old }()
	a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody}
	p, s := compile(t, a), newSpawner(t)
	conn, _ := pair(t)
	want, err := expected(a, conn)
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	var before unix.Sigset_t
	unix.PthreadSigmask(unix.SIG_BLOCK, &unix.Sigset_t{Val: [16]uint64{1<<(syscall.SIGUSR2-1) | 1<<63}}, &before)
	pid, err := s.Start(p, conn, nil)
	unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)
	runtime.UnlockOSThread()
	syscall.Close(conn)
	if err != nil {
		t.Fatal(err)
	}
	got, err := look(pid)
	syscall.Kill(pid, syscall.SIGKILL)
	reap(t, pid)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the child sees (-want +got):\n%s", diff)
	}
}

// The world can be stopped, memory collected and stacks moved while a child
// stands in the window, with every P busy otherwise.
func TestCollectInWindow(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	const n = 4
	type one struct {
		path string
		done chan started
	}
	var all []one
	for range n {
		a := held
		a.Path = progExit
		path, done, _ := startHeld(t, newSpawner(t), &a, "exec")
		all = append(all, one{path, done})
	}
	finished := make(chan bool)
	go func() {
		for range 20 {
			runtime.GC()
			debug.FreeOSMemory()
			var m runtime.MemStats
			runtime.ReadMemStats(&m) // stops the world
		}
		close(finished)
	}()
	select {
	case <-finished:
	case <-time.After(20 * time.Second):
		t.Error("the collector waits for a child")
	}
	for _, o := range all {
		release(t, o.path)
		r := outcome(t, o.done)
		if r.err != nil {
			t.Fatal(r.err)
		}
		if s := status(reap(t, r.pid)); s != "exit 0" {
			t.Errorf("the child ended with %s", s)
		}
	}
}

// CVE-2002-0871 and its kind, seen while it could matter: in the window the
// child has given up every descriptor but 0, 1 and 2, also those of children
// that are started at the same time.
func TestNoDescriptorInWindow(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	a := held
	a.Path = progExit
	first, second := newSpawner(t), newSpawner(t)
	path1, done1, _ := startHeld(t, first, &a, "setsid")
	path2, done2, _ := startHeld(t, second, &a, "setsid")
	for _, pid := range []int{first.PID(), second.PID()} {
		eventually(t, "only 0, 1 and 2", func() bool {
			fds, err := os.ReadDir(procFD(pid))
			return err == nil && len(fds) == 3 && fds[2].Name() == "2"
		})
	}
	for _, x := range []struct {
		path string
		done chan started
	}{{path1, done1}, {path2, done2}} {
		release(t, x.path)
		r := outcome(t, x.done)
		if r.err != nil {
			t.Fatal(r.err)
		}
		reap(t, r.pid)
	}
}
