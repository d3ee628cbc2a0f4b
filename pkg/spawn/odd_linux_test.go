//go:build amd64 || arm64

package spawn

// A daemon that was started in odd circumstances, and what its children see then.
// A helper makes the circumstances and executes a second one, which is the daemon.

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// odd is how a daemon is started.
type odd struct {
	Ignored, Blocked []int     // signals
	Inherited        []int     // descriptors
	InheritedTo      int       // and all from 3 to below this
	Named            bool      // each of the inherited descriptors is another file
	Closed           []int     // descriptors
	Nofile           [2]uint64 // soft and hard limit, if not 0
	Umask            int
	Ambient          bool                     // a capability is ambient
	Poller           bool                     // Go's epoll is there before Init
	Denied           map[uint32]syscall.Errno // system calls, and what they say
}

// report is what the daemon says.
type report struct {
	Error   string            // of Init
	Child   map[string]string // for each way, what is wrong with what the child sees
	Files   map[string]string // for each way, "Max open files" of the child
	Nofile  [2]uint64         // OriginalNofile
	Kept    int               // inherited descriptors that are still open
	Lost    []string          // what Inherited says that is wrong
	Leaky   []string          // descriptors above 2 that a child of another making would inherit
	Ignored string            // SigIgn
	Blocked string            // SigBlk
	Umask   string
	CapInh  string
	CapAmb  string
	Comm    string
	Low     int // all slots are below
	Slots   int
	Poller  bool // it still works
	Native  bool
	Why     string // Native does not work
}

func init() {
	helpers["odd"] = oddMain
	helpers["daemon"] = daemonMain
}

// oddMain CIRCUMSTANCES RESULT EXECUTABLE
func oddMain(args []string) (any, error) {
	runtime.LockOSThread()
	var o odd
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return nil, err
	}
	argv := append(helperArgv("daemon"), args...)
	marker, err := unix.Open(args[1], unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	if o.Nofile[1] != 0 {
		// By package syscall, so that its Exec leaves the limit alone.
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: o.Nofile[0], Max: o.Nofile[1]}); err != nil {
			return nil, err
		}
	}
	// No descriptor of our own is needed from here on.
	for fd := 3; fd < o.InheritedTo; fd++ {
		o.Inherited = append(o.Inherited, fd)
	}
	for i, fd := range o.Inherited {
		if o.Named {
			if err := openNamed(fd); err != nil {
				return nil, err
			}
			continue
		}
		if fd == marker {
			o.Inherited[i] = -1
			if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
				return nil, err
			}
			continue
		}
		if errno := dup3(marker, fd); errno != 0 {
			return nil, fmt.Errorf("descriptor %d: %w", fd, errno)
		}
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return nil, err
		}
	}
	for _, sig := range o.Ignored {
		if _, errno := disposition(sig, &sigaction{handler: sigIgnore}); errno != 0 {
			return nil, fmt.Errorf("ignoring signal %d: %w", sig, errno)
		}
	}
	var mask uint64
	for _, sig := range o.Blocked {
		mask |= 1 << (sig - 1)
	}
	if _, _, errno := syscall.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&mask)), 0, sigsetLen, 0, 0); errno != 0 {
		return nil, errno
	}
	if err := deny(o.Denied); err != nil {
		return nil, err
	}
	if o.Ambient {
		if err := raiseAmbient(); err != nil {
			return nil, err
		}
	}
	syscall.Umask(o.Umask)
	for _, fd := range o.Closed {
		unix.Close(fd)
	}
	return nil, syscall.Exec(args[2], argv, os.Environ())
}

// raiseAmbient makes a capability go to all that this thread executes.
func raiseAmbient() error {
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&hdr, &data[0]); err != nil {
		return err
	}
	data[0].Inheritable |= 1 << unix.CAP_NET_BIND_SERVICE
	if err := unix.Capset(&hdr, &data[0]); err != nil {
		return err
	}
	return unix.Prctl(unix.PR_CAP_AMBIENT, unix.PR_CAP_AMBIENT_RAISE, unix.CAP_NET_BIND_SERVICE, 0, 0)
}

// deny makes system calls fail, as containers do.
func deny(calls map[uint32]syscall.Errno) error {
	if len(calls) == 0 {
		return nil
	}
	filter := []unix.SockFilter{{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS}} // the number of the call
	for nr, errno := range calls {
		filter = append(filter,
			unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Jf: 1, K: nr},
			unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ERRNO | uint32(errno)})
	}
	filter = append(filter, unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: unix.SECCOMP_RET_ALLOW})
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	if _, _, errno := syscall.RawSyscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, uintptr(unsafe.Pointer(&prog))); errno != 0 {
		return fmt.Errorf("seccomp: %w", errno)
	}
	return nil
}

// daemonMain has the arguments of oddMain.
func daemonMain(args []string) (any, error) {
	var o odd
	if err := json.Unmarshal([]byte(args[0]), &o); err != nil {
		return nil, err
	}
	executable = args[2]
	r := report{Child: map[string]string{}, Files: map[string]string{}}
	if o.Poller {
		openPoller()
	}
	if o.Ambient {
		// With cgo, as under the race detector, Init changes this thread only.
		runtime.LockOSThread()
	}
	if err := Init(); err != nil {
		r.Error = err.Error()
	} else {
		r.examine(args[1])
		r.lookForInherited(&o, args[1])
	}
	if o.Poller {
		r.Poller = openPoller()
	}
	b, err := json.Marshal(r)
	if err != nil {
		return nil, err
	}
	// Not by package os: its poller needs more descriptors than there may be.
	fd, err := unix.Open(args[1], unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	_, err = unix.Write(fd, b)
	return nil, err
}

// openPoller makes the Go runtime wait for a pipe, and reports whether it can.
func openPoller() bool {
	r, w, err := os.Pipe()
	if err != nil {
		return false
	}
	defer r.Close()
	defer w.Close()
	time.AfterFunc(5*time.Millisecond, func() { w.Write([]byte("x")) })
	r.SetReadDeadline(time.Now().Add(10 * time.Second))
	n, err := r.Read(make([]byte, 1))
	return n == 1 && err == nil
}

func (r *report) examine(marker string) {
	r.Nofile[0], r.Nofile[1] = OriginalNofile()
	r.Ignored, r.Blocked = statusOf(os.Getpid(), "SigIgn"), statusOf(os.Getpid(), "SigBlk")
	r.CapInh, r.CapAmb = statusOf(unix.Gettid(), "CapInh"), statusOf(unix.Gettid(), "CapAmb")
	r.Umask, r.Comm = statusOf(os.Getpid(), "Umask"), statusOf(os.Getpid(), "Name")
	r.Low, r.Slots = slots.low, len(slots.free)
	names, _ := filepath.Glob("/proc/self/fd/*")
	for _, name := range names {
		fd, _ := strconv.Atoi(filepath.Base(name))
		if link, err := os.Readlink(name); err == nil && (link == marker || strings.HasPrefix(link, "/memfd:inherited ")) {
			r.Kept++
		}
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err == nil && flags&unix.FD_CLOEXEC == 0 && fd > 2 {
			r.Leaky = append(r.Leaky, filepath.Base(name))
		}
	}
	r.Native, r.Why = Native()
	for _, way := range []string{"native", "twin"} {
		Use(way == "twin")
		r.Child[way], r.Files[way] = oneChild()
	}
}

// oneChild says what is wrong with what a child sees.
func oneChild() (wrong, files string) {
	a := &Attr{Path: progWait, Argv: []string{"wait"}, Umask: 0o22, Dir: "/", Cred: nobody, Go: true}
	p, err := a.Compile()
	if err != nil {
		return err.Error(), ""
	}
	s, err := NewSpawner()
	if err != nil {
		return err.Error(), ""
	}
	defer s.Close()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err.Error(), ""
	}
	defer unix.Close(fds[1])
	want, err := expected(a, fds[0])
	if err != nil {
		return err.Error(), ""
	}
	pid, err := s.Start(p, fds[0], nil)
	unix.Close(fds[0])
	if err != nil {
		return err.Error(), ""
	}
	got, err := look(pid)
	syscall.Kill(pid, syscall.SIGKILL)
	syscall.Wait4(pid, nil, 0, nil)
	if err != nil {
		return err.Error(), ""
	}
	return cmp.Diff(want, got), got.Limits["Max open files"]
}

// startOdd runs a daemon.
func startOdd(t *testing.T, o odd) report {
	t.Helper()
	result := filepath.Join(t.TempDir(), "result")
	if err := os.WriteFile(result, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	arg, err := json.Marshal(o)
	if err != nil {
		t.Fatal(err)
	}
	helpersUsed.Store("daemon", true)
	var errs strings.Builder
	cmd := exec.Command(executable)
	cmd.Args = helperArgv("odd", string(arg), result, executable)
	cmd.Stderr = &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() }).Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	b, err := os.ReadFile(result)
	if err != nil {
		t.Fatal(err)
	}
	var r report
	if err := json.Unmarshal(b, &r); err != nil {
		t.Fatalf("%v: %q\n%s", err, b, errs.String())
	}
	return r
}

// right checks what must be so in all circumstances. inherited is how many
// descriptors were.
func (r report) right(t *testing.T, inherited int) {
	t.Helper()
	if r.Error != "" {
		t.Fatalf("Init: %s", r.Error)
	}
	for _, way := range []string{"native", "twin"} {
		if r.Child[way] != "" {
			t.Errorf("%s child (-want +got):\n%s", way, r.Child[way])
		}
		if want := fmt.Sprintf("%d %d files", r.Nofile[0], r.Nofile[1]); r.Files[way] != want {
			t.Errorf("%s child: limit %s, want %s", way, r.Files[way], want)
		}
	}
	const none = "0000000000000000"
	if r.CapInh != none || r.CapAmb != none {
		t.Errorf("the daemon: inheritable capabilities %s, ambient %s", r.CapInh, r.CapAmb)
	}
	if r.Lost != nil {
		t.Errorf("inherited descriptors: %s", strings.Join(r.Lost[:min(5, len(r.Lost))], "; "))
	}
	if r.Ignored != none || r.Blocked != none || r.Umask != "0022" || r.Leaky != nil || r.Kept != inherited {
		t.Errorf("the daemon: ignored %s, blocked %s, umask %s, leaky %v, %d inherited kept of %d",
			r.Ignored, r.Blocked, r.Umask, r.Leaky, r.Kept, inherited)
	}
	// The kernel keeps 15 bytes of it.
	if name := filepath.Base(executable); r.Comm != name[:min(15, len(name))] {
		t.Errorf("the daemon is called %s", r.Comm)
	}
	if r.Native && r.Why != "" {
		t.Errorf("the spawn program works, but: %s", r.Why)
	}
	if !r.Native {
		return
	}
	if r.Low > 3+1+maxSlots+4 || r.Slots < minSlots || r.Slots > maxSlots {
		t.Errorf("the daemon: %d slots below %d", r.Slots, r.Low)
	}
}

// The signals whose disposition Go leaves as it was inherited, some that it does
// not, and real-time signals.
var signals = []int{1, 2, 3, 10, 13, 14, 15, 17, 18, 20, 21, 22, 23, 28, 32, 33, 34, 35, 40, 63, 64}

func TestStartedPlainly(t *testing.T) {
	testkit.Check(t)
	r := startOdd(t, odd{Umask: 0o22})
	r.right(t, 0)
	if soft, hard := OriginalNofile(); r.Nofile != [2]uint64{soft, hard} {
		t.Errorf("limit %d, want %d %d", r.Nofile, soft, hard)
	}
}

func TestStartedUnderNohup(t *testing.T) {
	testkit.Check(t)
	startOdd(t, odd{Umask: 0o22, Ignored: []int{1}}).right(t, 0)
}

func TestStartedWithIgnoredSignals(t *testing.T) {
	testkit.Check(t)
	startOdd(t, odd{Umask: 0o22, Ignored: signals}).right(t, 0)
}

func TestStartedWithBlockedSignals(t *testing.T) {
	testkit.Check(t)
	startOdd(t, odd{Umask: 0o22, Blocked: signals}).right(t, 0)
	startOdd(t, odd{Umask: 0o22, Blocked: []int{64}}).right(t, 0)
	// Go never blocks these itself, but the mask that it was started with has them.
	startOdd(t, odd{Umask: 0o22, Blocked: []int{4, 5, 7, 8, 11, 17, 27, 31}}).right(t, 0)
}

// What lets a daemon that is not root listen on port 1 is not for its services.
func TestStartedWithAmbientCapabilities(t *testing.T) {
	testkit.Check(t)
	startOdd(t, odd{Umask: 0o22, Ambient: true}).right(t, 0)
}

// Go's epoll and eventfd may be anywhere below.
func TestPollerBeforeInit(t *testing.T) {
	testkit.Check(t)
	r := startOdd(t, odd{Umask: 0o22, Poller: true})
	r.right(t, 0)
	if !r.Poller {
		t.Error("the Go runtime has lost its poller")
	}
}

func TestStartedWithSmallLimits(t *testing.T) {
	testkit.Check(t)
	for _, limit := range [][2]uint64{{64, 64}, {64, 256}, {16, 20}, {1024, 1024}, {20, 4096}} {
		r := startOdd(t, odd{Umask: 0o22, Nofile: limit})
		r.right(t, 0)
		if r.Nofile != limit {
			t.Errorf("OriginalNofile is %d, want %d", r.Nofile, limit)
		}
	}
	// Executed again for another reason, the limit still is the original.
	r := startOdd(t, odd{Umask: 0o22, Nofile: [2]uint64{64, 256}, Blocked: []int{10}})
	r.right(t, 0)
	if r.Nofile != [2]uint64{64, 256} {
		t.Errorf("OriginalNofile is %d after the second start", r.Nofile)
	}
	// No room at all is said, not survived.
	r = startOdd(t, odd{Umask: 0o22, Nofile: [2]uint64{64, 64}, InheritedTo: 60})
	if !strings.Contains(r.Error, "descriptor") {
		t.Errorf("Init without room: %q", r.Error)
	}
}

func TestStartedWithClosedDescriptors(t *testing.T) {
	testkit.Check(t)
	for _, closed := range [][]int{{0}, {1}, {2}, {0, 1, 2}} {
		startOdd(t, odd{Umask: 0o22, Closed: closed}).right(t, 0)
		startOdd(t, odd{Umask: 0o22, Closed: closed, Inherited: []int{3, 9}}).right(t, 2)
	}
}

func TestStartedWithUmask(t *testing.T) {
	testkit.Check(t)
	for _, umask := range []int{0, 0o077, 0o777} {
		startOdd(t, odd{Umask: umask}).right(t, 0)
	}
}

// Kernels and containers without what the spawn program needs.
func TestStartedWithoutSystemCalls(t *testing.T) {
	testkit.Check(t)
	for _, c := range []struct {
		denied map[uint32]syscall.Errno
		native bool
		why    string
	}{
		{map[uint32]syscall.Errno{unix.SYS_CLONE3: unix.ENOSYS}, false, "clone3: function not implemented"},
		{map[uint32]syscall.Errno{unix.SYS_CLOSE_RANGE: unix.ENOSYS}, false, "close_range: function not implemented"},
		{map[uint32]syscall.Errno{unix.SYS_CLOSE_RANGE: unix.EPERM}, false, "close_range: operation not permitted"},
		{map[uint32]syscall.Errno{unix.SYS_EXECVEAT: unix.ENOSYS}, true, ""},
		{map[uint32]syscall.Errno{unix.SYS_STATX: unix.ENOSYS}, true, ""},
	} {
		r := startOdd(t, odd{Umask: 0o22, InheritedTo: 12, Denied: c.denied})
		r.right(t, 9)
		if r.Native != c.native || r.Why != c.why {
			t.Errorf("Native is %v, %q, want %v, %q", r.Native, r.Why, c.native, c.why)
		}
	}
}
