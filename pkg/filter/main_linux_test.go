package filter

// The tests send real packets and count what the kernel has queued and what it
// has dropped: /proc/net/udp has a number of drops for each socket, so that a
// test knows when a datagram has been judged and need not wait whether one more
// comes.
//
// Where a test needs addresses it runs in a network namespace of its own, as a
// process of its own: see ownNetwork.

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

const bound = 10 * time.Second

// ownNetwork has the test run in a process of its own in a network namespace in
// which all of 10/8, 127/8 and fd00::/8 is local. It reports whether this is
// that process; in the other one the test is over.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	const mark = "TCPMUXD_TEST_OWN_NETWORK"
	if os.Getenv(mark) == t.Name() {
		for _, args := range []string{
			"link set lo up", "route add local 10.0.0.0/8 dev lo", "-6 route add local fd00::/8 dev lo",
		} {
			cmd := exec.Command("ip", strings.Fields(args)...)
			if cmd.Err != nil { // an ordinary user's PATH
				cmd = exec.Command("/sbin/ip", strings.Fields(args)...)
			}
			if out, err := cmd.CombinedOutput(); err != nil {
				t.Fatalf("ip %s: %v\n%s", args, err, out)
			}
		}
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a network namespace: %v\n%s", err, out)
	}
	return false
}

func prefixes(list ...string) []netip.Prefix {
	var p []netip.Prefix
	for _, s := range list {
		p = append(p, netip.MustParsePrefix(s))
	}
	return p
}

func rulesOf(t testing.TB, allow, deny []netip.Prefix) *access.Rules {
	t.Helper()
	r, err := access.New(allow, deny)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func newFilter(t testing.TB, r *access.Rules) *Filter {
	t.Helper()
	f, err := New(Judgment{Sources: r}, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(f.Close)
	return f
}

// A receiver is a UDP socket with a filter.
type receiver struct {
	fd   int
	port int
	v6   bool
	sent int // datagrams sent to it
}

func sockaddr(a netip.Addr, port int, v6 bool) unix.Sockaddr {
	if v6 {
		return &unix.SockaddrInet6{Port: port, Addr: a.As16()}
	}
	return &unix.SockaddrInet4{Port: port, Addr: a.As4()}
}

// listenUDP binds to any address; dual is for a v6 socket that takes v4, too.
func listenUDP(t testing.TB, v6, dual bool) *receiver {
	t.Helper()
	domain, any := unix.AF_INET, netip.IPv4Unspecified()
	if v6 {
		domain, any = unix.AF_INET6, netip.IPv6Unspecified()
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if v6 {
		only := 1
		if dual {
			only = 0
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sockaddr(any, 0, v6)); err != nil {
		t.Fatal(err)
	}
	r := &receiver{fd: fd, v6: v6}
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		r.port = sa.Port
	case *unix.SockaddrInet6:
		r.port = sa.Port
	}
	return r
}

// send sends a datagram from an address that need not be an interface's own.
func (r *receiver) send(t testing.TB, from netip.Addr, payload string) {
	t.Helper()
	domain, to := unix.AF_INET, netip.MustParseAddr("127.0.0.1")
	if from.Is6() {
		domain, to = unix.AF_INET6, netip.IPv6Loopback()
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if from.Is6() {
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1)
	}
	if err := unix.Bind(fd, sockaddr(from, 0, from.Is6())); err != nil {
		t.Fatalf("bind to %v: %v", from, err)
	}
	if err := unix.Sendto(fd, []byte(payload), 0, sockaddr(to, r.port, from.Is6())); err != nil {
		t.Fatalf("send from %v: %v", from, err)
	}
	r.sent++
}

// take reads everything after all datagrams sent have been judged.
func (r *receiver) take(t testing.TB) []string {
	t.Helper()
	var got []string
	b := make([]byte, 1<<16)
	for deadline := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
		for {
			n, _, err := unix.Recvfrom(r.fd, b, 0)
			if err != nil {
				break
			}
			got = append(got, string(b[:n]))
		}
		if r.sent -= len(got); r.sent == r.drops(t) {
			return got
		}
		r.sent += len(got)
		if time.Now().After(deadline) {
			t.Fatalf("%d of %d datagrams came and %d were dropped", len(got), r.sent, r.drops(t))
		}
	}
}

// drops is how many datagrams the kernel has not given the socket.
func (r *receiver) drops(t testing.TB) int {
	t.Helper()
	file := "/proc/net/udp"
	if r.v6 {
		file = "/proc/net/udp6"
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	port := fmt.Sprintf(":%04X", r.port)
	for line := range bytes.Lines(text) {
		fields := strings.Fields(string(line))
		if len(fields) > 12 && strings.HasSuffix(fields[1], port) {
			n, err := strconv.Atoi(fields[12])
			if err != nil {
				t.Fatal(err)
			}
			return n
		}
	}
	t.Fatalf("%s has no port %d", file, r.port)
	return 0
}

// readable reports whether poll(2) would wake a server now.
func readable(fd int) bool {
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
	return n > 0
}
