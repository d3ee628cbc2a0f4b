//go:build amd64 || arm64

package spawn

// What a child sees, compared as a whole, on every way to start one.

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// ways are the ways to start a child.
var ways = []struct {
	name string
	use  func(t testing.TB)
}{
	{"native", func(t testing.TB) { needNative(t) }},
	{"native with a large table", func(t testing.TB) { needNative(t); largeTable(t) }},
	{"native without AT_EXECVE_CHECK", func(t testing.TB) {
		needNative(t)
		old := hasExecveCheck
		hasExecveCheck = func() bool { return false }
		t.Cleanup(func() { hasExecveCheck = old })
	}},
	{"native with a copy of the memory", func(t testing.TB) {
		needNative(t)
		old := needsCopy
		needsCopy = func() string { return "a test wants it" }
		t.Cleanup(func() { needsCopy = old })
	}},
	{"twin", func(t testing.TB) {
		Use(true)
		t.Cleanup(func() { Use(false) })
	}},
}

// largeTable has children share the descriptor table first, however small it is.
func largeTable(t testing.TB) {
	crowd.look.Store(math.MaxInt64)
	crowd.large.Store(true)
	t.Cleanup(func() { crowd.look.Store(0) })
}

func needNative(t testing.TB) {
	t.Helper()
	if ok, why := Native(); !ok {
		t.Fatalf("the spawn program does not work here: %s", why)
	}
}

// eachWay runs f once for every way.
func eachWay(t *testing.T, f func(t *testing.T, twin bool)) {
	for _, w := range ways {
		t.Run(w.name, func(t *testing.T) {
			testkit.Check(t)
			w.use(t)
			native, _ := Native()
			f(t, !native)
		})
	}
}

func compile(t testing.TB, a *Attr) *Program {
	t.Helper()
	p, err := a.Compile()
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func newSpawner(t testing.TB) *Spawner {
	t.Helper()
	s, err := NewSpawner()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// publicDir is a temporary directory that every user may enter.
func publicDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var nobody = &Cred{UID: 65534, GID: 65533, Groups: []uint32{7, 8, 4294967294}}

func TestChildSees(t *testing.T) {
	dir := publicDir(t)
	for _, c := range []struct {
		name  string
		attr  Attr
		extra []string
	}{
		{"as the daemon", Attr{Argv: []string{"wait"}, Umask: 0o22}, nil},
		{"another user", Attr{Argv: []string{"wait", "a b", ""}, Umask: 0o22, Dir: "/", Cred: nobody}, nil},
		{"another user, no groups", Attr{Argv: []string{"-wait"}, Umask: 0o22, Dir: dir, Cred: &Cred{UID: 1, GID: 1}}, nil},
		{"root by name", Attr{Argv: []string{"wait"}, Umask: 0o22, Dir: dir, Cred: &Cred{}}, nil},
		{"reply", Attr{Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}, nil},
		{"environment", Attr{Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Go: true, Env: []string{"A=1", "B=two words", "C="}}, nil},
		{"environment of the connection", Attr{Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Go: true, Env: []string{"A=1"}}, []string{"TCPREMOTEIP=::1", "TCPREMOTEPORT=4"}},
		{"umask", Attr{Argv: []string{"wait"}, Umask: 0o077, Dir: "/", Cred: nobody}, nil},
		{"no umask", Attr{Argv: []string{"wait"}, Umask: 0, Dir: "/"}, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, twin bool) {
				a := c.attr
				a.Path = progWait
				childSees(t, twin, &a, noLog, c.extra...)
			})
		})
	}
}

// childSees starts children of a, whose program is "wait", and compares. What the
// twin cannot do it must have said.
func childSees(t *testing.T, twin bool, a *Attr, log int, env ...string) {
	t.Helper()
	p, err := a.Compile()
	if word := twinCannot(a); twin && word != "" {
		if err == nil || !strings.HasPrefix(err.Error(), word) || !strings.HasSuffix(err.Error(), "here: the spawn program is turned off") {
			t.Errorf("Compile: %v, want an error about %s", err, word)
		}
		return
	}
	if err != nil {
		t.Fatal(err)
	}
	if log != noLog {
		p.SetLog(log)
	}
	s := newSpawner(t)
	// Twice: what the first child did must not show in the second.
	for range 2 {
		conn, peer := pair(t)
		want, err := expectedLog(a, conn, log, env...)
		if err != nil {
			t.Fatal(err)
		}
		var extra []byte
		for _, e := range env {
			extra = append(append(extra, e...), 0)
		}
		pid, err := s.Start(p, conn, extra)
		if err != nil {
			t.Fatal(err)
		}
		got, err := look(pid)
		syscall.Close(conn)
		unix.Shutdown(int(peer.Fd()), unix.SHUT_WR)
		if s := status(reap(t, pid)); s != "exit 0" {
			t.Errorf("the child ended with %s", s)
		}
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the child sees (-want +got):\n%s", diff)
		}
		wire := ""
		if a.Go {
			wire = "+Go\r\n"
		}
		if r := received(t, peer); r != wire {
			t.Errorf("the peer got %q, want %q", r, wire)
		}
	}
	if s.PID() != 0 {
		t.Errorf("PID is %d after the start", s.PID())
	}
}

// twinCannot is the first word of what the twin says to a, if it refuses it.
func twinCannot(a *Attr) string {
	switch {
	case a.Umask != daemonUmask:
		return "umask"
	case len(a.Rlimits) > 0:
		return "rlimits"
	case a.Nice != nil:
		return "nice"
	case a.IOPrio != nil:
		return "ioprio"
	case a.OOMScoreAdj != nil:
		return "oom_score_adj"
	case len(a.CPUs) > 0:
		return "cpus"
	}
	return ""
}

// CVE-2013-4342: xinetd ran TCPMUX services as root whatever their user was.
func TestCVE_2013_4342(t *testing.T) {
	eachWay(t, func(t *testing.T, _ bool) {
		a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
		conn, _ := pair(t)
		pid, err := newSpawner(t).Start(compile(t, a), conn, nil)
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
		for k, want := range map[string]string{
			"Uid": "65534 65534 65534 65534", "Gid": "65533 65533 65533 65533", "Groups": "7 8 4294967294",
			"CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
		} {
			if got.Status[k] != want {
				t.Errorf("%s: %s, want %s", k, got.Status[k], want)
			}
		}
	})
}

// The directory is entered as the user of the row: neither is one refused that
// only the user may enter (which root is not, on NFS), nor one given away that
// only root may.
func TestDirectoryAsUser(t *testing.T) {
	dir := publicDir(t)
	home, closed := dir+"/home", dir+"/closed"
	for _, d := range []string{home, closed} {
		if err := os.Mkdir(d, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(home, int(nobody.UID), int(nobody.GID)); err != nil {
		t.Fatal(err)
	}
	eachWay(t, func(t *testing.T, twin bool) {
		s := newSpawner(t)
		start := func(dir string) (int, error) {
			conn, _ := pair(t)
			defer syscall.Close(conn)
			return s.Start(compile(t, &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Dir: dir, Cred: nobody}), conn, nil)
		}
		pid, err := start(home)
		if err != nil {
			t.Fatal(err)
		}
		if s := status(reap(t, pid)); s != "exit 0" {
			t.Errorf("in the home directory: %s", s)
		}
		for _, d := range []string{closed, dir + "/none"} {
			pid, err := start(d)
			want := &Error{Step: "chdir", Errno: syscall.EACCES}
			if d != closed {
				want.Errno = syscall.ENOENT
			}
			checkFailure(t, twin, pid, err, want)
		}
	})
}

// checkFailure compares a failure with the native one that is wanted, and reaps.
func checkFailure(t testing.TB, twin bool, pid int, err error, want *Error) {
	t.Helper()
	var got *Error
	if !errors.As(err, &got) {
		t.Fatalf("pid %d, error %v, want %v", pid, err, want)
	}
	w := *want
	if twin {
		if w.Step != "check" && w.Step != "reply" && w.Step != "log" {
			w.Step = "start"
		}
		if pid != 0 {
			t.Errorf("the twin left child %d", pid)
		}
	} else if pid != 0 {
		if s := status(reap(t, pid)); s != "exit 127" {
			t.Errorf("the child ended with %s, want exit 127", s)
		}
	}
	if *got != w {
		t.Errorf("error %+v, want %+v", *got, w)
	}
	if !errors.Is(err, want.Errno) {
		t.Errorf("%v is not %v", err, want.Errno)
	}
}

func TestCompileRefuses(t *testing.T) {
	good := Attr{Path: "/x", Argv: []string{"x"}, Umask: 0o22}
	changes := map[string]func(*Attr){
		"relative path":      func(a *Attr) { a.Path = "x" },
		"no path":            func(a *Attr) { a.Path = "" },
		"relative directory": func(a *Attr) { a.Dir = "tmp" },
		"no arguments":       func(a *Attr) { a.Argv = nil },
		"umask":              func(a *Attr) { a.Umask = 0o1000 },
		"groups":             func(a *Attr) { a.Cred = &Cred{Groups: make([]uint32, 65537)} },
		"NUL in path":        func(a *Attr) { a.Path = "/x\x00" },
		"NUL in directory":   func(a *Attr) { a.Dir = "/\x00" },
		"NUL in argument":    func(a *Attr) { a.Argv = []string{"x", "\x00"} },
		"NUL in environment": func(a *Attr) { a.Env = []string{"A=\x00"} },
		"no name":            func(a *Attr) { a.Env = []string{"=x"} },
		"no value":           func(a *Attr) { a.Env = []string{"A"} },
		"relative root":      func(a *Attr) { a.Chroot = "srv" },
		"NUL in root":        func(a *Attr) { a.Chroot = "/\x00" },
		"stdout":             func(a *Attr) { a.Stdout = Null + 1 },
		"stderr":             func(a *Attr) { a.Stderr = Null + 1 },
		"rlimit below":       func(a *Attr) { a.Rlimits = []Rlimit{{Resource: -1}} },
		"rlimit above":       func(a *Attr) { a.Rlimits = []Rlimit{{Resource: 16}} },
		"rlimit twice":       func(a *Attr) { a.Rlimits = []Rlimit{{0, 1, 1}, {0, 1, 1}} },
		"rlimit crossed":     func(a *Attr) { a.Rlimits = []Rlimit{{0, 2, 1}} },
		"nice below":         func(a *Attr) { a.Nice = new(-21) },
		"nice above":         func(a *Attr) { a.Nice = new(20) },
		"ioprio none":        func(a *Attr) { a.IOPrio = &IOPrio{0, 0} },
		"ioprio class":       func(a *Attr) { a.IOPrio = &IOPrio{4, 0} },
		"ioprio level":       func(a *Attr) { a.IOPrio = &IOPrio{2, 8} },
		"ioprio idle":        func(a *Attr) { a.IOPrio = &IOPrio{3, 1} },
		"oom below":          func(a *Attr) { a.OOMScoreAdj = new(-1001) },
		"oom above":          func(a *Attr) { a.OOMScoreAdj = new(1001) },
		"cpu below":          func(a *Attr) { a.CPUs = []int{0, -1} },
		"cpu above":          func(a *Attr) { a.CPUs = []int{8192} },
	}
	eachWay(t, func(t *testing.T, _ bool) {
		for name, change := range changes {
			a := good
			if _, err := a.Compile(); err != nil {
				t.Fatal(err)
			}
			change(&a)
			if _, err := a.Compile(); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
	})
}

// A Program does not change with the Attr it was made of.
func TestCompileCopies(t *testing.T) {
	eachWay(t, func(t *testing.T, _ bool) {
		cred := &Cred{UID: 1, GID: 2, Groups: []uint32{3}}
		a := &Attr{Path: progWait, Argv: []string{"wait"}, Env: []string{"A=1"}, Umask: 0o22, Dir: "/", Cred: cred}
		p := compile(t, a)
		conn, _ := pair(t)
		want, err := expected(a, conn)
		if err != nil {
			t.Fatal(err)
		}
		want.Cmdline, want.Environ = []string{"wait"}, []string{"A=1"}
		a.Argv[0], a.Env[0], cred.Groups[0], cred.UID = "x", "B=1", 9, 9
		pid, err := newSpawner(t).Start(p, conn, nil)
		if err != nil {
			t.Fatal(err)
		}
		got, err := look(pid)
		syscall.Kill(pid, syscall.SIGKILL)
		reap(t, pid)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("the child sees (-want +got):\n%s", diff)
		}
	})
}

func TestErrorText(t *testing.T) {
	e := &Error{Step: "chdir", Errno: syscall.EACCES}
	if got, want := e.Error(), "chdir: permission denied"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	e = &Error{Step: "chdir"}
	if got, want := e.Error(), "chdir: the child was killed"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if errors.Is(e, syscall.Errno(0)) {
		t.Error("errno 0 is found in an error without one")
	}
}

// Slots are bounded and come back; with none left children are started all the
// same.
func TestSlotsAreBounded(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	largeTable(t)
	n := len(slots.free)
	if n < minSlots || n > maxSlots {
		t.Fatalf("there are %d slots", n)
	}
	p := compile(t, &Attr{Path: progExit, Argv: []string{"exit"}, Umask: 0o22, Go: true})
	var all []*Spawner
	seen := map[int]bool{}
	for range n + 2 {
		s, err := NewSpawner()
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, s)
		conn, peer := pair(t)
		pid, err := s.Start(p, conn, nil)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		reap(t, pid)
		if got := received(t, peer); got != "+Go\r\n" {
			t.Errorf("the peer got %q", got)
		}
		if own := s.native.slot; own != noSlot {
			if own.low < 3 || own.low >= slots.low || seen[own.low] || own.low == slots.null {
				t.Errorf("slot %d: not below %d, used twice, or kept", own.low, slots.low)
			}
			seen[own.low] = true
		}
	}
	if len(seen) != n || len(slots.free) != 0 {
		t.Errorf("%d of %d slots were used, %d are left", len(seen), n, len(slots.free))
	}
	for _, s := range all {
		s.Close()
	}
	if len(slots.free) != n {
		t.Errorf("%d of %d slots have come back", len(slots.free), n)
	}
}

// Whether the table is large is seen from the number of a descriptor, and looked
// for again.
func TestTableIsLarge(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	crowd.large.Store(false)
	if crowded(crowdedFrom-1) || tableIsLarge() {
		t.Error("the table is large from the start")
	}
	var high []int
	more := func(n, from int) {
		for range n {
			fd, err := unix.FcntlInt(uintptr(slots.null), unix.F_DUPFD_CLOEXEC, from)
			if err != nil {
				t.Fatal(err)
			}
			high = append(high, fd)
		}
	}
	none := func() {
		for _, fd := range high {
			unix.Close(fd)
		}
		high = nil
	}
	more(1, 5000)
	if !tableIsLarge() {
		t.Error("with a very high descriptor it is small")
	}
	none()
	more(3, crowdedFrom)
	if tableIsLarge() {
		t.Error("with a few higher descriptors it is large")
	}
	more(30, crowdedFrom)
	if !crowded(high[0]) || !tableIsLarge() {
		t.Error("with many it is small")
	}
	crowd.look.Store(0)
	if !crowded(3) {
		t.Error("it is small for a low descriptor")
	}
	none()
	if !crowded(3) {
		t.Error("it was looked for at once")
	}
	crowd.look.Store(0)
	if crowded(3) {
		t.Error("it stays large for ever")
	}
}

// A start costs no memory once its buffers are there.
func TestStartDoesNotAllocate(t *testing.T) {
	eachWay(t, testNoAllocation)
}

func testNoAllocation(t *testing.T, twin bool) {
	if twin {
		return // ForkExec does
	}
	a := &Attr{
		Path: progExit, Argv: []string{"exit"}, Env: []string{"A=1", "B=2"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true,
		Rlimits: allLimits(), Nice: new(1), OOMScoreAdj: new(1), Stdout: Null, Stderr: Log,
	}
	// The log of each is put into the slot anew.
	var programs [2]*Program
	for i := range programs {
		end, _ := logPair(t)
		programs[i] = compile(t, a)
		programs[i].SetLog(end)
	}
	s, i := newSpawner(t), 0
	extra := []byte("TCPREMOTEIP=192.0.2.1\x00TCPREMOTEPORT=12345\x00")
	conn, _ := pair(t)
	defer syscall.Close(conn)
	for _, e := range [][]byte{nil, extra} {
		n := testing.AllocsPerRun(scaled(100), func() {
			i++
			pid, err := s.Start(programs[i%2], conn, e)
			if err != nil {
				t.Fatal(err)
			}
			syscall.Wait4(pid, nil, 0, nil)
		})
		if n != 0 {
			t.Errorf("%v allocations with an environment of %d bytes", n, len(e))
		}
	}
}

func BenchmarkStart(b *testing.B) {
	for _, w := range ways {
		b.Run(strings.ReplaceAll(w.name, " ", "_"), func(b *testing.B) {
			w.use(b)
			a := &Attr{Path: progExit, Argv: []string{"exit"}, Env: []string{"A=1"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
			p, s := compile(b, a), newSpawner(b)
			conn, peer := pair(b)
			defer syscall.Close(conn)
			extra := []byte("TCPREMOTEIP=192.0.2.1\x00TCPREMOTEPORT=12345\x00")
			buf := make([]byte, 64)
			b.ReportAllocs()
			for b.Loop() {
				pid, err := s.Start(p, conn, extra)
				if err != nil {
					b.Fatal(err)
				}
				syscall.Wait4(pid, nil, 0, nil)
				peer.Read(buf)
			}
		})
	}
}

func ExampleError() {
	fmt.Println(&Error{Step: "exec", Errno: syscall.ENOENT})
	// Output: exec: no such file or directory
}
