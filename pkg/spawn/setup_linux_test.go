//go:build amd64 || arm64

package spawn

// Limits, priorities, processors and root directories, on every way to start a
// child, and what is said where they are not to be had.

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

const noLimit = ^uint64(0)

// allLimits are low enough for everybody to set, and still let "wait" run.
func allLimits() []Rlimit {
	all := make([]Rlimit, rlimits)
	for i := range all {
		all[i] = Rlimit{i, 0, 0}
	}
	for i, v := range map[int]uint64{
		unix.RLIMIT_CPU: 100, unix.RLIMIT_DATA: 1 << 26, unix.RLIMIT_STACK: 1 << 20, unix.RLIMIT_RSS: 1 << 20,
		unix.RLIMIT_NPROC: 1000, unix.RLIMIT_AS: 1 << 30, unix.RLIMIT_LOCKS: 5, 11: 10, 15: 1e6,
	} {
		all[i] = Rlimit{i, v, 2 * v}
	}
	return all
}

// noLimits are some of those that we have not: without a soft limit, or with it
// alone.
func noLimits(t *testing.T) (list []Rlimit) {
	for i := range rlimits {
		var lim unix.Rlimit
		if err := unix.Getrlimit(i, &lim); err == nil && lim.Max == noLimit {
			list = append(list, Rlimit{i, []uint64{noLimit, 1 << 28}[len(list)%2], noLimit})
		}
	}
	if len(list) < 2 {
		t.Fatalf("there are limits on everything: %v", list)
	}
	return list
}

// someCPU is a processor that we may run on.
func someCPU() int {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	for i := range 1024 {
		if set.IsSet(i) {
			return i
		}
	}
	return 0
}

// programRoot is a root directory with nothing but the programs in /bin. "link"
// leads to "wait" only for those who are in it.
func programRoot(t testing.TB) string {
	t.Helper()
	root := publicDir(t)
	if err := os.MkdirAll(root+"/bin", 0o755); err != nil {
		t.Fatal(err)
	}
	for name, code := range map[string][]byte{"/bin/wait": codeWait, "/bin/exit": codeExit} {
		if err := writeProgram(root+name, elf(code)); err != nil {
			t.Fatal(err)
		}
	}
	for _, l := range [][2]string{{"/bin/wait", "link"}, {"../../../bin/wait", "bin/up"}, {"loop", "loop"}} {
		if err := os.Symlink(l[0], root+"/"+l[1]); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestChildIsSetUp(t *testing.T) {
	root := programRoot(t)
	plain := func(change func(*Attr)) Attr {
		a := Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
		change(&a)
		return a
	}
	for name, a := range map[string]Attr{
		"all limits": plain(func(a *Attr) { a.Rlimits = allLimits() }),
		"no limits": plain(func(a *Attr) {
			a.Rlimits = noLimits(t)
		}),
		"descriptors":   plain(func(a *Attr) { a.Rlimits = []Rlimit{{unix.RLIMIT_NOFILE, 100, 200}} }),
		"nice":          plain(func(a *Attr) { a.Nice = new(7) }),
		"not nice":      plain(func(a *Attr) { a.Nice = new(-20) }),
		"best-effort":   plain(func(a *Attr) { a.IOPrio = &IOPrio{2, 7} }),
		"idle":          plain(func(a *Attr) { a.IOPrio = &IOPrio{Class: 3} }),
		"realtime":      plain(func(a *Attr) { a.IOPrio = &IOPrio{1, 3} }),
		"oom":           plain(func(a *Attr) { a.OOMScoreAdj = new(1000) }),
		"one processor": plain(func(a *Attr) { a.CPUs = []int{someCPU()} }),
		"null":          plain(func(a *Attr) { a.Stdout, a.Stderr = Null, Null }),
		"null output":   plain(func(a *Attr) { a.Stdout = Null }),
		"log":           plain(func(a *Attr) { a.Stdout, a.Stderr = Log, Log }),
		"log errors":    plain(func(a *Attr) { a.Stderr = Log }),
		"chroot":        plain(func(a *Attr) { a.Chroot, a.Path = root, "/bin/wait" }),
		"chroot as the daemon": plain(func(a *Attr) {
			a.Chroot, a.Path, a.Cred, a.Go = root, "/bin/wait", nil, false
		}),
		"chroot without a directory": plain(func(a *Attr) { a.Chroot, a.Path, a.Dir = root, "/bin/wait", "" }),
		"chroot with a directory":    plain(func(a *Attr) { a.Chroot, a.Path, a.Dir = root, "/bin/wait", "/bin" }),
		// The score is written where there still is a /proc, and with a descriptor
		// that the limit does not allow for.
		"everything": plain(func(a *Attr) {
			a.Chroot, a.Path, a.Dir, a.Umask = root, "/bin/wait", "/bin", 0o77
			a.Rlimits, a.Nice, a.IOPrio, a.OOMScoreAdj, a.CPUs = allLimits(), new(19), &IOPrio{2, 0}, new(500), []int{someCPU()}
			a.Stdout, a.Stderr = Null, Log
		}),
	} {
		t.Run(name, func(t *testing.T) {
			eachWay(t, func(t *testing.T, twin bool) {
				end, _ := logPair(t)
				childSees(t, twin, &a, end)
			})
		})
	}
}

// The longest list there can be fits, with a step of the test's own.
func TestLongestList(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	old := maskIsEmpty
	maskIsEmpty = func() bool { return false }
	defer func() { maskIsEmpty = old }()
	// 15 limits and the original one of descriptors are as many as all 16.
	a := Attr{
		Path: "/bin/exit", Argv: []string{"exit"}, Dir: "/", Cred: nobody, Go: true, Chroot: programRoot(t), Stderr: Log,
		Rlimits: allLimits(), Nice: new(1), IOPrio: &IOPrio{2, 1}, OOMScoreAdj: new(1), CPUs: []int{someCPU(), 8191},
	}
	p := compile(t, &a)
	if n := headLen + len(p.native.ops); n > maxOps-4 {
		t.Errorf("the longest list has %d steps, and there is room for %d", n, maxOps)
	}
	end, _ := logPair(t)
	p.SetLog(end)
	conn, peer := pair(t)
	pid, err := newSpawner(t).Start(p, conn, nil)
	syscall.Close(conn)
	if err != nil {
		t.Fatal(err)
	}
	if s := status(reap(t, pid)); s != "exit 0" {
		t.Errorf("the child ended with %s", s)
	}
	if got := received(t, peer); got != "+Go\r\n" {
		t.Errorf("the peer got %q", got)
	}
}

// The program is looked for where the child will find it.
func TestChrootFindsProgram(t *testing.T) {
	root := programRoot(t)
	eachWay(t, func(t *testing.T, twin bool) {
		s := newSpawner(t)
		for path, want := range map[string]*Error{
			"/bin/wait": nil, "/link": nil, "/bin/up": nil, "/../bin/./../link": nil,
			progWait:    {Step: "check", Errno: syscall.ENOENT}, // it is outside
			"/bin":      {Step: "check", Errno: syscall.EACCES},
			"/loop":     {Step: "check", Errno: syscall.ELOOP},
			"/link/x":   {Step: "check", Errno: syscall.ENOTDIR},
			"/bin/none": {Step: "check", Errno: syscall.ENOENT},
		} {
			a := &Attr{Path: path, Argv: []string{"x"}, Umask: 0o22, Cred: nobody, Go: true, Chroot: root}
			conn, peer := pair(t)
			pid, err := s.Start(compile(t, a), conn, nil)
			syscall.Close(conn)
			wire := ""
			if want != nil {
				checkFailure(t, twin, pid, err, want)
			} else if wire = "+Go\r\n"; err != nil {
				t.Errorf("%s: %v", path, err)
			} else {
				unix.Shutdown(int(peer.Fd()), unix.SHUT_WR)
				reap(t, pid)
			}
			if got := received(t, peer); got != wire {
				t.Errorf("%s: the peer got %q, want %q", path, got, wire)
			}
		}
	})
}

// The parent finds the same file as the kernel does with another root.
func TestBelow(t *testing.T) {
	root := publicDir(t)
	for _, d := range []string{"/a/b/c", "/d"} {
		if err := os.MkdirAll(root+d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, f := range []string{"/a/f", "/a/b/f", "/d/f", "/f"} {
		if err := os.WriteFile(root+f, nil, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{
		"/a/abs": "/d", "/a/rel": "../d", "/a/out": "../../../../d/f", "/d/back": "/a/abs/../a/b", "/root": "/",
		"/d/dots": "..", "/a/b/f2": "f", "/d/loop1": "loop2", "/d/loop2": "/d/loop1", "/dangling": "/none", "/d/slash": "/a//b/./",
	} {
		if err := os.Symlink(target, root+name); err != nil {
			t.Fatal(err)
		}
	}
	fd, err := unix.Open(root, unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	names := []string{"a", "b", "f", "d", "..", ".", "abs", "rel", "out", "back", "root", "dots", "f2", "loop1", "dangling", "slash", "none", ""}
	paths := []string{""}
	compared := 0
	for range 3 {
		var longer []string
		for _, p := range paths {
			for _, n := range names {
				longer = append(longer, p+"/"+n)
			}
		}
		for _, p := range longer {
			got, gotErr := below(root, p)
			// What is below a file is only found out when the path is used.
			var st unix.Stat_t
			if gotErr == nil {
				gotErr = unix.Stat(got, &st)
			}
			want := ""
			wantFD, wantErr := unix.Openat2(fd, p, &unix.OpenHow{Flags: unix.O_PATH | unix.O_CLOEXEC, Resolve: unix.RESOLVE_IN_ROOT})
			if wantErr == nil {
				want, _ = os.Readlink(fmt.Sprintf("/proc/self/fd/%d", wantFD))
				unix.Close(wantFD)
			}
			compared++
			switch {
			case strings.Contains(p, "/f/") || strings.Contains(p, "/f2/") || strings.Contains(p, "/out/"):
				// The kernel says ENOTDIR whatever follows; "." and ".." we skip.
			case wantErr != nil && !errors.Is(gotErr, wantErr), wantErr == nil && got != want:
				t.Errorf("%s: %s, %v, want %s, %v", p, got, gotErr, want, wantErr)
			}
		}
		paths = longer
	}
	if compared < 5000 {
		t.Errorf("%d paths only", compared)
	}
}

// What the kernel does not let even root do.
func TestSetUpFailures(t *testing.T) {
	dir := publicDir(t)
	if err := os.WriteFile(dir+"/file", nil, 0o755); err != nil {
		t.Fatal(err)
	}
	root := programRoot(t)
	eachWay(t, func(t *testing.T, twin bool) {
		s := newSpawner(t)
		for _, c := range []struct {
			change func(*Attr)
			want   *Error
		}{
			{func(a *Attr) { a.Rlimits = []Rlimit{{unix.RLIMIT_NOFILE, 100, noLimit}} }, &Error{Step: "rlimit", Errno: syscall.EPERM}},
			{func(a *Attr) { a.CPUs = []int{8191} }, &Error{Step: "affinity", Errno: syscall.EINVAL}},
			{func(a *Attr) { a.Chroot = dir + "/none" }, &Error{Step: "chroot", Errno: syscall.ENOENT}},
			{func(a *Attr) { a.Chroot = dir + "/file" }, &Error{Step: "chroot", Errno: syscall.ENOTDIR}},
			{func(a *Attr) { a.Chroot, a.Dir = root, root }, &Error{Step: "chdir", Errno: syscall.ENOENT}},
			{func(a *Attr) { a.Chroot = root }, &Error{Step: "exec", Errno: syscall.ENOENT}},
		} {
			a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody}
			c.change(a)
			if twin && twinCannot(a) != "" {
				continue
			}
			conn, peer := pair(t)
			pid, err := s.Start(compile(t, a), conn, nil)
			syscall.Close(conn)
			checkFailure(t, twin, pid, err, c.want)
			if got := received(t, peer); got != "" {
				t.Errorf("%s: the peer got %q", c.want.Step, got)
			}
		}
	})
}

func init() {
	// weak ROOT starts children with no rights and, if ROOT is given, where there
	// is no /proc. It says how they fail.
	helpers["weak"] = func(args []string) (any, error) {
		if err := Init(); err != nil {
			return nil, err
		}
		program := progExit
		if len(args) > 0 {
			if err := syscall.Chroot(args[0]); err != nil {
				return nil, err
			}
			program = "/bin/exit"
		} else if err := becomeNobody(); err != nil {
			return nil, err
		}
		s, err := NewSpawner()
		if err != nil {
			return nil, err
		}
		fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return nil, err
		}
		said := map[string]string{}
		for name, a := range weakAttrs {
			a.Path, a.Argv, a.Umask = program, []string{"exit"}, 0o22
			p, err := a.Compile()
			if err != nil {
				return nil, err
			}
			pid, err := s.Start(p, fds[0], nil)
			if pid != 0 {
				syscall.Wait4(pid, nil, 0, nil)
			}
			said[name] = fmt.Sprint(err)
		}
		return said, nil
	}
}

var weakAttrs = map[string]Attr{
	"rlimit": {Rlimits: []Rlimit{{unix.RLIMIT_NICE, 0, noLimit}}},
	"nice":   {Nice: new(-1)},
	"ioprio": {IOPrio: &IOPrio{1, 0}},
	"oom":    {OOMScoreAdj: new(-1000)},
	"chroot": {Chroot: "/"},
	"groups": {Cred: &Cred{UID: 1, GID: 1}},
	"may":    {Nice: new(19), IOPrio: &IOPrio{3, 0}, CPUs: []int{someCPU()}, Rlimits: []Rlimit{{unix.RLIMIT_CORE, 0, 0}}},
}

// A daemon without rights says which it would need.
func TestSetUpWithoutRights(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	var got map[string]string
	runHelper(t, &got, "weak")
	want := map[string]string{
		"rlimit": "rlimit: operation not permitted", "nice": "nice: permission denied", "ioprio": "ioprio: operation not permitted",
		"oom": "oom: permission denied", "chroot": "chroot: operation not permitted", "groups": "setgroups: operation not permitted",
		"may": "<nil>",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// Without /proc there is no score to write, and nothing else is missing.
func TestSetUpWithoutProc(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	var got map[string]string
	runHelper(t, &got, "weak", programRoot(t))
	if got["oom"] != "oom: no such file or directory" || got["chroot"] != "<nil>" || got["may"] != "<nil>" {
		t.Errorf("%v", got)
	}
}

// The score is the child's own, though it shares the memory of the daemon while
// it is written.
func TestOOMScoreIsNotTheDaemons(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	const own = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(own)
	if err != nil {
		t.Fatal(err)
	}
	a := held
	a.Path, a.OOMScoreAdj = progExit, new(777)
	path, done, _ := startHeld(t, newSpawner(t), &a, "setgroups")
	if after, err := os.ReadFile(own); err != nil || string(after) != string(before) {
		t.Errorf("the daemon's score was %s and is %s, %v", before, after, err)
	}
	release(t, path)
	r := outcome(t, done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	reap(t, r.pid)
}

// What was compiled does not change with what it was compiled from.
func TestCompileCopiesSetUp(t *testing.T) {
	a := Attr{
		Path: "/x", Argv: []string{"x"}, Umask: 0o22, Rlimits: []Rlimit{{1, 2, 3}}, Nice: new(1), IOPrio: &IOPrio{2, 1},
		OOMScoreAdj: new(1), CPUs: []int{0}, Chroot: "/", Stdout: Log, Stderr: Null,
	}
	text := func(a Attr) string { b, _ := json.Marshal(a); return string(b) }
	want := text(a)
	c := a.clone()
	a.Rlimits[0].Soft, *a.Nice, a.IOPrio.Level, *a.OOMScoreAdj, a.CPUs[0] = 0, 0, 0, 0, 1
	if got := text(c); got != want {
		t.Errorf("the copy is %s, was %s", got, want)
	}
}
