package listener

// The tests bind, connect and look with getsockopt(2): what the row says is
// compared with what the kernel has, on the listener and on what is accepted.
//
// Where a test needs addresses of its own it runs in a network namespace that
// nobody else is in, as a process of its own: see ownNetwork.

import (
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// bound is how long anything here may take.
const bound = 10 * time.Second

var (
	loopback4 = netip.MustParseAddr("127.0.0.1")
	loopback6 = netip.IPv6Loopback()
)

// plain is a row that names no option.
func plain() service.Socket {
	return service.Socket{TOS: -1, UID: -1, GID: -1, Mode: 0o666, DirectoryMode: 0o755}
}

func endpoint(a netip.Addr, port int) service.Endpoint {
	ep := service.Endpoint{Network: service.TCP4, Addr: netip.AddrPortFrom(a, uint16(port))}
	if a.Is6() {
		ep.Network = service.TCP6
	}
	return ep
}

// row is a row with these options.
func row(s service.Socket) *service.Service { return &service.Service{ID: "test", Socket: s} }

// open listens on a free port of an address until the test ends.
func open(t *testing.T, a netip.Addr, s service.Socket) *Listener {
	t.Helper()
	l, err := Open(endpoint(a, testkit.FreePort(t)), row(s))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// connect makes one connection and returns both of its ends: the client's and
// the descriptor that was accepted. Some bytes are sent, for TCP_DEFER_ACCEPT.
func connect(t *testing.T, l *Listener) (*net.TCPConn, int, netip.AddrPort) {
	t.Helper()
	to := l.Endpoint.Addr
	if to.Addr().IsUnspecified() {
		a := loopback4
		if to.Addr().Is6() {
			a = loopback6
		}
		to = netip.AddrPortFrom(a, to.Port())
	}
	c, err := net.DialTimeout("tcp", to.String(), bound)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	fd, peer := accept(t, l)
	return c.(*net.TCPConn), fd, peer.Addr
}

// accept waits for a connection.
func accept(t *testing.T, l *Listener) (int, service.Peer) {
	t.Helper()
	deadline := time.Now().Add(bound)
	for {
		fd, peer, err := l.Accept()
		if err == nil {
			t.Cleanup(func() { unix.Close(fd) })
			return fd, peer
		}
		if err != unix.EAGAIN || time.Now().After(deadline) {
			t.Fatalf("accepting: %v", err)
		}
		p := []unix.PollFd{{Fd: int32(l.Fd()), Events: unix.POLLIN}}
		unix.Poll(p, 100)
	}
}

func getInt(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatalf("getsockopt %d, %d: %v", level, name, err)
	}
	return n
}

// ownNetwork has the test run in a process of its own in a network namespace
// of its own, with only "lo" in it, which is up and has fe80::1 and 192.0.2.1
// besides the usual. It reports whether this is that process; in the other one
// the test is over.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	const mark = "TCPMUXD_TEST_OWN_NETWORK"
	if os.Getenv(mark) == t.Name() {
		raise(t)
		return true
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a network namespace: %v\n%s", err, out)
	}
	return false
}

// raise brings "lo" up and gives it addresses.
func raise(t *testing.T) {
	t.Helper()
	for _, args := range [][]string{
		{"link", "set", "lo", "up"},
		{"address", "add", "192.0.2.1/32", "dev", "lo"},
		{"address", "add", "fe80::1/64", "dev", "lo", "nodad"},
	} {
		cmd := exec.Command("ip", args...)
		if cmd.Err != nil { // an ordinary user's PATH
			cmd = exec.Command("/sbin/ip", args...)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %v: %v\n%s", args, err, out)
		}
	}
	// The kernel adds it, and its route, in its own time: until a datagram to it
	// comes back.
	for deadline := time.Now().Add(bound); ; {
		err := throughItself(netip.MustParseAddr("fe80::1%lo"))
		if err == nil {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal(err)
		}
	}
}

// throughItself sends a datagram from an address to itself.
func throughItself(a netip.Addr) error {
	c, err := net.ListenUDP("udp", net.UDPAddrFromAddrPort(netip.AddrPortFrom(a, 0)))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := c.WriteTo([]byte("x"), c.LocalAddr()); err != nil {
		return err
	}
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	_, err = c.Read(make([]byte, 1))
	return err
}
