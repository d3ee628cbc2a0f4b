package filter

import (
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func cookieOf(t *testing.T, fd int) uint64 {
	t.Helper()
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		t.Fatal(err)
	}
	return cookie
}

// leave puts a filter on a socket as a daemon does that has ended since.
func leave(t *testing.T, fd int, cookie uint64, deny string) {
	t.Helper()
	f, err := New(Judgment{Sources: rulesOf(t, nil, prefixes(deny))}, cookie)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Attach(fd); err != nil {
		t.Fatal(err)
	}
}

// Of several sockets each has its own rules, which change from daemon to daemon.
func TestFind(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testkit.Check(t)
	every := []*receiver{listenUDP(t, false, false), listenUDP(t, false, false), listenUDP(t, false, false)}
	for _, r := range every {
		leave(t, r.fd, cookieOf(t, r.fd), "127.0.0.2/32")
	}
	for daemon := range 3 {
		f, err := Find(every[1].fd)
		if err != nil {
			t.Fatalf("daemon %d: %v", daemon, err)
		}
		if err := f.Update(Judgment{Sources: rulesOf(t, nil, prefixes("127.0.0.3/32"))}); err != nil {
			t.Fatalf("daemon %d: %v", daemon, err)
		}
		f.Close()
		for i, r := range every {
			want := []string{"127.0.0.3", "127.0.0.1"}
			if i == 1 {
				want[0] = "127.0.0.2"
			}
			for _, from := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.1"} {
				r.send(t, netip.MustParseAddr(from), from)
			}
			if got := r.take(t); !slices.Equal(got, want) {
				t.Errorf("daemon %d: socket %d has received %v, want %v", daemon, i, got, want)
			}
		}
	}
}

// lockedBPF has any program in eBPF that is not ours.
func lockedBPF(t *testing.T, fd int) {
	t.Helper()
	p, err := kernel.ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, []kernel.Instruction{set(r0, keep), exit}, "", "access")
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Filter{program: p}).attach(fd); err != nil {
		t.Fatal(err)
	}
	unix.Close(p)
}

// made makes a map, for as long as the test runs.
func made(t *testing.T, cookie uint64) int {
	t.Helper()
	inner, err := newRules(Judgment{})
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(inner)
	m := outer(cookie)
	m.Inner = inner
	fd, err := kernel.MapCreate(m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// What is not ours is not found, whatever its name.
func TestFindNotOurs(t *testing.T) {
	for name, prepare := range map[string]func(t *testing.T, fd int){
		"no filter": func(*testing.T, int) {},
		"a lock without a filter": func(t *testing.T, fd int) {
			if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
				t.Fatal(err)
			}
		},
		"a classic filter beside our map": func(t *testing.T, fd int) {
			all := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: keep}
			if err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &all}); err != nil {
				t.Fatal(err)
			}
			f, err := New(Judgment{}, cookieOf(t, fd))
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(f.Close)
		},
		"another program":                lockedBPF,
		"another program beside our map": func(t *testing.T, fd int) { lockedBPF(t, fd); made(t, cookieOf(t, fd)) },
		"our program, of another socket": func(t *testing.T, fd int) { leave(t, fd, cookieOf(t, fd)+1<<40, "127.0.0.2/32") },
		"a second map of the same name":  func(t *testing.T, fd int) { leave(t, fd, cookieOf(t, fd), "127.0.0.2/32"); made(t, cookieOf(t, fd)) },
		"the name, on a map of other size": func(t *testing.T, fd int) {
			lockedBPF(t, fd)
			m := outer(cookieOf(t, fd))
			m.Type, m.ValueSize = unix.BPF_MAP_TYPE_ARRAY, 8
			other, err := kernel.MapCreate(m)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { unix.Close(other) })
		},
	} {
		t.Run(name, func(t *testing.T) {
			r := listenUDP(t, false, false)
			prepare(t, r.fd)
			if f, err := Find(r.fd); !errors.Is(err, ErrNotFound) {
				if err == nil {
					f.Close()
				}
				t.Errorf("Find: %v, want ErrNotFound", err)
			}
		})
	}
	if _, err := Find(-1); !errors.Is(err, unix.EBADF) {
		t.Errorf("of no socket: %v", err)
	}
}

// Whoever may not look is told so.
func TestFindRefused(t *testing.T) {
	const mark = "TCPMUXD_TEST_FIND_REFUSED"
	if os.Getenv(mark) != "" {
		r := listenUDP(t, false, false)
		leave(t, r.fd, cookieOf(t, r.fd), "127.0.0.2/32")
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := Find(r.fd); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "only to root, or CAP_SYS_ADMIN") {
			t.Errorf("Find without capabilities: %v", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFindRefused$")
	cmd.Env = append(os.Environ(), mark+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func TestNames(t *testing.T) {
	if got := nameOf(^uint64(0)); got != "tm3w5e11264sgsf" {
		t.Errorf("the longest is %q", got)
	}
	if nameOf(1<<40) == nameOf(1<<40+1) {
		t.Error("two cookies have the same name")
	}
}
