//go:build amd64 || arm64

package spawn

// In the window the child already is its user's, and shares the memory of the
// daemon. That user must not get at it.

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// traced is what a user could do to a process.
type traced struct{ Attach, Read, Write string }

func init() {
	// trace PID ADDRESS becomes nobody and tries to trace a process, and to read
	// and change a byte of its memory.
	helpers["trace"] = func(args []string) (any, error) {
		pid, _ := strconv.Atoi(args[0])
		addr, _ := strconv.ParseUint(args[1], 0, 64)
		if err := becomeNobody(); err != nil {
			return nil, err
		}
		b := []byte{0xff}
		local := []unix.Iovec{{Base: &b[0], Len: 1}}
		remote := []unix.RemoteIovec{{Base: uintptr(addr), Len: 1}}
		_, read := unix.ProcessVMReadv(pid, local, remote, 0)
		b[0]++
		_, write := unix.ProcessVMWritev(pid, local, remote, 0)
		runtime.LockOSThread()
		attach := syscall.PtraceAttach(pid)
		if attach == nil {
			// The kernel would keep it stopped for us.
			syscall.Wait4(pid, nil, syscall.WALL, nil)
			syscall.PtraceDetach(pid)
		}
		return traced{fmt.Sprint(attach), fmt.Sprint(read), fmt.Sprint(write)}, nil
	}
}

// allowTracing does what makes tracing possible at all, where that is ours to
// decide, and reports whether it is possible.
func allowTracing(t *testing.T) bool {
	const yama = "/proc/sys/kernel/yama/ptrace_scope"
	if inMachine() {
		os.WriteFile(yama, []byte("0"), 0)
	}
	scope, err := os.ReadFile(yama)
	return err != nil || strings.TrimSpace(string(scope)) == "0"
}

var denied = traced{"operation not permitted", "operation not permitted", "operation not permitted"}

// tracee is a byte of the daemon's memory.
var tracee = new(byte)

func traceHeld(t *testing.T) traced {
	t.Helper()
	s := newSpawner(t)
	a := held
	a.Path = progExit
	path, done, _ := startHeld(t, s, &a, "exec")
	var got traced
	runHelper(t, &got, "trace", fmt.Sprint(s.PID()), fmt.Sprint(uintptr(unsafe.Pointer(tracee))))
	release(t, path)
	r := outcome(t, done)
	if r.err != nil {
		t.Fatal(r.err)
	}
	if s := status(reap(t, r.pid)); s != "exit 0" {
		t.Errorf("the child ended with %s", s)
	}
	return got
}

func TestUserMayNotTraceChild(t *testing.T) {
	for _, w := range ways[:3] {
		t.Run(w.name, func(t *testing.T) {
			testkit.Check(t)
			w.use(t)
			if got := traceHeld(t); got != denied {
				t.Errorf("the child's user may: %+v", got)
			}
		})
	}
	// The helper can do it to a process that is nobody's and has its own program,
	// so the above says something.
	t.Run("control", func(t *testing.T) {
		testkit.Check(t)
		needNative(t)
		a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: &Cred{UID: nobody.UID, GID: nobody.GID}}
		conn, _ := pair(t)
		pid, err := newSpawner(t).Start(compile(t, a), conn, nil)
		syscall.Close(conn)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := look(pid); err != nil {
			t.Fatal(err)
		}
		var got traced
		runHelper(t, &got, "trace", fmt.Sprint(pid), "0x400000")
		syscall.Kill(pid, syscall.SIGKILL)
		reap(t, pid)
		want := traced{"<nil>", "<nil>", "bad address"} // its code is not writable
		if !allowTracing(t) {
			want.Attach = denied.Attach
		}
		if got != want {
			t.Errorf("the control could: %+v, want %+v", got, want)
		}
	})
}

// With fs.suid_dumpable = 1 the child can be traced, so it must not have our
// memory.
func TestSuidDumpable(t *testing.T) {
	testkit.Check(t)
	needNative(t)
	if inMachine() {
		const setting = "/proc/sys/fs/suid_dumpable"
		allowTracing(t)
		if err := os.WriteFile(setting, []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
		defer os.WriteFile(setting, []byte("0"), 0)
	} else {
		old := needsCopy
		needsCopy = func() string { return copyReason("1", "6.18.0") }
		defer func() { needsCopy = old }()
	}
	a := held
	a.Path = progExit
	if compile(t, &a).native.flags&unix.CLONE_VM != 0 {
		t.Error("a child with another identity shares the memory")
	}
	if a.Cred = nil; compile(t, &a).native.flags&unix.CLONE_VM == 0 {
		t.Error("a child with the daemon's identity does not share the memory")
	}
	*tracee = 42
	got := traceHeld(t)
	if *tracee != 42 {
		t.Fatalf("the child's user has changed the daemon's memory: %+v", got)
	}
	if inMachine() && got != (traced{"<nil>", "<nil>", "<nil>"}) {
		t.Errorf("the child's user could not change its own copy: %+v; then this shows nothing", got)
	}
}
