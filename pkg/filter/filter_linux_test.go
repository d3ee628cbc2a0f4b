package filter

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// sources are near each other, so that random prefixes part them.
func randomSource(rnd *rand.Rand) netip.Addr {
	if rnd.IntN(2) == 0 {
		return netip.AddrFrom4([4]byte{[]byte{10, 127}[rnd.IntN(2)], byte(rnd.IntN(3)), byte(rnd.IntN(2) * 128), byte(1 + rnd.IntN(4))})
	}
	a := [16]byte{0: 0xfd, 1: byte(rnd.IntN(3)), 7: byte(rnd.IntN(2)), 15: byte(1 + rnd.IntN(4))}
	return netip.AddrFrom16(a)
}

func randomRules(t *testing.T, rnd *rand.Rand) *access.Rules {
	var lists [2][]netip.Prefix
	seen := map[netip.Prefix]bool{}
	for range rnd.IntN(8) {
		a := randomSource(rnd)
		bits := a.BitLen() - rnd.IntN(4)
		if rnd.IntN(2) == 0 {
			bits = rnd.IntN(a.BitLen() + 1)
		}
		p := netip.PrefixFrom(a, bits).Masked()
		if seen[p] {
			continue
		}
		seen[p] = true
		i := rnd.IntN(2)
		lists[i] = append(lists[i], p)
	}
	return rulesOf(t, lists[0], lists[1])
}

// The kernel's verdict is that of access.Rules, on every family of sockets and
// after every update.
func TestSameVerdicts(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	rnd := rand.New(rand.NewPCG(1, uint64(time.Now().UnixNano())))
	f := newFilter(t, nil)
	v4, v6, dual := listenUDP(t, false, false), listenUDP(t, true, false), listenUDP(t, true, true)
	for _, r := range []*receiver{v4, v6, dual} {
		if err := f.Attach(r.fd); err != nil {
			t.Fatal(err)
		}
	}
	for range 60 {
		rules := randomRules(t, rnd)
		if err := f.Update(Judgment{Sources: rules}); err != nil {
			t.Fatal(err)
		}
		want := map[*receiver][]string{}
		for range 30 {
			from := randomSource(rnd)
			receivers := []*receiver{v4, dual}
			if from.Is6() {
				receivers[0] = v6
			}
			for _, r := range receivers {
				r.send(t, from, from.String())
				if v, _ := rules.Check(from); v == access.Allow {
					want[r] = append(want[r], from.String())
				}
			}
		}
		for name, r := range map[string]*receiver{"v4": v4, "v6": v6, "dual": dual} {
			if got := r.take(t); !slices.Equal(got, want[r]) {
				t.Fatalf("%s socket: received %v\nwant %v\nrules: %v", name, got, want[r], show(rules))
			}
		}
	}
}

func show(r *access.Rules) (s []string) {
	for p, v := range r.All() {
		s = append(s, fmt.Sprint(v, " ", p))
	}
	return s
}

func TestVerdicts(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	for _, test := range []struct {
		allow, deny []netip.Prefix
		from        string
		want        bool
	}{
		{nil, nil, "127.0.0.1", true},
		{nil, nil, "fd00::1", true},
		{prefixes("127.0.0.1/32"), nil, "127.0.0.1", true},
		{prefixes("127.0.0.1/32"), nil, "127.0.0.2", false},
		{prefixes("127.0.0.1/32"), nil, "fd00::1", false},
		{prefixes("::/0"), nil, "127.0.0.1", false}, // ::/0 says nothing of v4
		{prefixes("::/0"), nil, "fd00::1", true},
		{prefixes("0.0.0.0/0"), nil, "fd00::1", false},
		{nil, prefixes("0.0.0.0/0"), "fd00::1", true},
		{nil, prefixes("0.0.0.0/0"), "127.0.0.1", false},
		{nil, prefixes("::/0"), "127.0.0.1", true},
		{prefixes("::ffff:127.0.0.0/104"), nil, "127.9.9.9", true}, // a v4 prefix
		{prefixes("10.0.0.0/8"), prefixes("10.1.0.0/16"), "10.1.2.3", false},
		{prefixes("10.1.2.0/24"), prefixes("10.1.0.0/16"), "10.1.2.3", true},
		{prefixes("10.1.2.0/24"), prefixes("10.1.2.3/32"), "10.1.2.3", false},
		{prefixes("fd01::/16"), prefixes("fd01:2::/32"), "fd01:2::9", false},
		// The bytes of a v4 address are no prefix of a v6 one, nor the reverse.
		{prefixes("a00::/8"), nil, "10.1.2.3", false},
		{nil, prefixes("253.0.0.0/8"), "fd00::1", true},
	} {
		f := newFilter(t, rulesOf(t, test.allow, test.deny))
		from := netip.MustParseAddr(test.from)
		for _, r := range []*receiver{listenUDP(t, from.Is6(), false), listenUDP(t, true, true)} {
			if err := f.Attach(r.fd); err != nil {
				t.Fatal(err)
			}
			r.send(t, from, "x")
			got := r.take(t)
			if (len(got) == 1) != test.want {
				t.Errorf("allow %v, deny %v: from %s came %d datagrams", test.allow, test.deny, from, len(got))
			}
		}
	}
}

// A denied source wakes nobody.
func TestDeniedNeverReadable(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	f := newFilter(t, rulesOf(t, nil, prefixes("127.6.0.0/16")))
	r := listenUDP(t, false, false)
	if err := f.Attach(r.fd); err != nil {
		t.Fatal(err)
	}
	var woken atomic.Bool
	stop := make(chan struct{})
	go func() {
		defer close(stop)
		n, _ := unix.Poll([]unix.PollFd{{Fd: int32(r.fd), Events: unix.POLLIN}}, int(bound/time.Millisecond))
		woken.Store(n > 0)
	}()
	for i := range 2000 {
		r.send(t, netip.AddrFrom4([4]byte{127, 6, byte(i >> 8), byte(i)}), "x")
	}
	for deadline := time.Now().Add(bound); r.drops(t) < 2000; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%d of 2000 dropped", r.drops(t))
		}
	}
	select {
	case <-stop:
		t.Fatal("the server was woken")
	default:
	}
	if readable(r.fd) {
		t.Error("the socket is readable")
	}
	r.send(t, netip.MustParseAddr("127.0.0.1"), "x")
	<-stop
	if !woken.Load() {
		t.Error("an allowed datagram has not woken the server")
	}
}

// A connection is refused at its first packet, and accepted sockets are
// filtered like the listener.
func TestTCP(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	f := newFilter(t, rulesOf(t, nil, prefixes("127.6.0.0/16", "fd06::/16")))
	for _, host := range []string{"127.0.0.1:0", "[::]:0"} {
		var config net.ListenConfig
		config.SetMultipathTCP(false) // which takes no filter
		l, err := config.Listen(t.Context(), "tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		raw, _ := l.(*net.TCPListener).SyscallConn()
		raw.Control(func(fd uintptr) { err = f.Attach(int(fd)) })
		if err != nil {
			t.Fatal(err)
		}
		to := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), uint16(l.Addr().(*net.TCPAddr).Port)).String()
		dial := func(from string, timeout time.Duration) (net.Conn, error) {
			d := net.Dialer{Timeout: timeout, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
			return d.Dial("tcp4", to)
		}
		// A dropped packet cannot be seen, only that nothing comes back.
		if c, err := dial("127.6.0.1", 300*time.Millisecond); err == nil {
			c.Close()
			t.Errorf("%s: a denied source has a connection", host)
		}
		c, err := dial("127.5.0.1", bound)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		s, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if a := s.RemoteAddr().(*net.TCPAddr).AddrPort().Addr().Unmap(); a != netip.MustParseAddr("127.5.0.1") {
			t.Fatalf("%s: accepted %v", host, a)
		}
		// The accepted socket has the filter, locked, and the rules as they
		// are now.
		raw, _ = s.(*net.TCPConn).SyscallConn()
		raw.Control(func(fd uintptr) {
			if err := unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != unix.EPERM {
				t.Errorf("%s: detaching from an accepted socket: %v, want EPERM", host, err)
			}
		})
		b := make([]byte, 10)
		c.Write([]byte("one"))
		s.SetReadDeadline(time.Now().Add(bound))
		if n, err := s.Read(b); string(b[:n]) != "one" {
			t.Fatalf("%s: %q, %v", host, b[:n], err)
		}
		if err := f.Update(Judgment{Sources: rulesOf(t, nil, prefixes("127.5.0.0/16", "127.6.0.0/16"))}); err != nil {
			t.Fatal(err)
		}
		c.Write([]byte("two"))
		s.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
		if n, err := s.Read(b); n != 0 || !os.IsTimeout(err) {
			t.Errorf("%s: a source denied since: %q, %v", host, b[:n], err)
		}
		if err := f.Update(Judgment{Sources: rulesOf(t, nil, prefixes("127.6.0.0/16"))}); err != nil {
			t.Fatal(err)
		}
		s.SetReadDeadline(time.Now().Add(bound))
		if n, err := s.Read(b); string(b[:n]) != "two" { // TCP has sent it again
			t.Errorf("%s: allowed again: %q, %v", host, b[:n], err)
		}
	}
}

// A child with all privileges cannot take the filter off its socket, nor does
// the filter go when the daemon has ended.
func TestLocked(t *testing.T) {
	const mark = "TCPMUXD_TEST_LOCKED"
	if os.Getenv(mark) != "" {
		fd := 3
		all := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: ^uint32(0)}}
		f, err := New(Judgment{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		for name, err := range map[string]error{
			"SO_DETACH_FILTER": unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0),
			"SO_ATTACH_FILTER": unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER,
				&unix.SockFprog{Len: 1, Filter: &all[0]}),
			"SO_LOCK_FILTER": unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 0),
			"SO_ATTACH_BPF":  unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, f.program),
			"SO_ATTACH_REUSEPORT_CBPF": unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
				&unix.SockFprog{Len: 1, Filter: &all[0]}),
		} {
			if err != unix.EPERM {
				t.Errorf("%s: %v, want EPERM", name, err)
			}
		}
		return
	}
	r := listenUDP(t, false, false)
	f, err := New(Judgment{Sources: rulesOf(t, prefixes("127.0.0.1/32"), nil)}, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Attach(r.fd); err != nil {
		t.Fatal(err)
	}
	if err := f.Attach(r.fd); err == nil {
		t.Error("attached twice")
	}
	dup, err := unix.Dup(r.fd)
	if err != nil {
		t.Fatal(err)
	}
	file := os.NewFile(uintptr(dup), "socket")
	defer file.Close()
	cmd := exec.Command(os.Args[0], "-test.run=^TestLocked$")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.ExtraFiles = []*os.File{file}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	f.Close()
	for range 2 {
		r.send(t, netip.MustParseAddr("127.0.0.2"), "denied")
		r.send(t, netip.MustParseAddr("127.0.0.1"), "allowed")
		if got := r.take(t); !slices.Equal(got, []string{"allowed"}) {
			t.Errorf("after all that: received %v", got)
		}
	}
}

// Rules change from one packet to the next: under rules that all let a source
// in, none of its packets is lost however often they change, and under rules
// that all deny it none comes through.
func TestUpdateIsAtomic(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	a := rulesOf(t, prefixes("127.1.0.0/16"), prefixes("127.1.5.0/24"))
	b := rulesOf(t, prefixes("127.1.1.0/24", "127.0.0.0/8"), prefixes("127.1.0.0/16"))
	f := newFilter(t, a)
	r := listenUDP(t, false, false)
	if err := unix.SetsockoptInt(r.fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, 8<<20); err != nil {
		t.Fatal(err)
	}
	if err := f.Attach(r.fd); err != nil {
		t.Fatal(err)
	}
	var stop atomic.Bool
	done := make(chan error)
	updates := 0
	go func() {
		var err error
		for ; err == nil && !stop.Load(); updates++ {
			err = f.Update(Judgment{Sources: []*access.Rules{a, b}[updates%2]})
		}
		done <- err
	}()
	const n = 3000
	for range n {
		r.send(t, netip.MustParseAddr("127.1.1.1"), "allowed")
		r.send(t, netip.MustParseAddr("127.1.5.1"), "denied")
	}
	stop.Store(true)
	if err := <-done; err != nil {
		t.Fatal(err)
	}
	got := r.take(t)
	if len(got) != n || slices.Contains(got, "denied") {
		t.Errorf("%d datagrams of %d came through %d updates", len(got), n, updates)
	}
}

// Thousands of prefixes are one map, not thousands of anything.
func TestManyRules(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	var allow []netip.Prefix
	for i := range 20000 {
		allow = append(allow, netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), byte(i), 1}), 32))
	}
	f := newFilter(t, rulesOf(t, allow, nil))
	r := listenUDP(t, false, false)
	if err := f.Attach(r.fd); err != nil {
		t.Fatal(err)
	}
	r.send(t, netip.MustParseAddr("10.0.0.1"), "first")
	r.send(t, netip.MustParseAddr("10.78.31.1"), "last") // 19999 is 78*256+31
	r.send(t, netip.MustParseAddr("10.78.32.1"), "none")
	if got := r.take(t); !slices.Equal(got, []string{"first", "last"}) {
		t.Errorf("received %v", got)
	}
}

func TestNothingLeft(t *testing.T) {
	testkit.Check(t)
	for range 50 {
		f, err := New(Judgment{Sources: rulesOf(t, prefixes("10.0.0.0/8"), nil)}, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := f.Update(Judgment{}); err != nil {
			t.Fatal(err)
		}
		f.Close()
	}
}

// Out of descriptors at any moment: an error, and nothing is left.
func TestWithoutDescriptors(t *testing.T) {
	testkit.Check(t)
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	defer unix.Setrlimit(unix.RLIMIT_NOFILE, &limit)
	next, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(next)
	for free := range 3 {
		low := limit
		low.Cur = uint64(next + free)
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &low); err != nil {
			t.Fatal(err)
		}
		if f, err := New(Judgment{}, 0); err == nil {
			f.Close()
			t.Errorf("a filter of %d descriptors", free)
		} else if !errors.Is(err, unix.EMFILE) {
			t.Errorf("with %d descriptors: %v", free, err)
		}
	}
}

// Errors say what was tried, and what to do.
func TestErrors(t *testing.T) {
	const mark = "TCPMUXD_TEST_ERRORS"
	if os.Getenv(mark) != "" {
		f := newFilter(t, nil)
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Fatal(err)
		}
		_, err := New(Judgment{}, 0)
		if err == nil || !strings.Contains(err.Error(), "needs root, or CAP_BPF and CAP_NET_ADMIN") {
			t.Errorf("New without capabilities: %v", err)
		}
		if err := f.Update(Judgment{}); err == nil || !strings.Contains(err.Error(), "CAP_BPF") {
			t.Errorf("Update without capabilities: %v", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestErrors$")
	cmd.Env = append(os.Environ(), mark+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	f := newFilter(t, nil)
	if err := f.Attach(-1); err == nil || err.Error() != "attaching an access filter: setsockopt SO_ATTACH_BPF: bad file descriptor" {
		t.Errorf("of no socket: %v", err)
	}
}
