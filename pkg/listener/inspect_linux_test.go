package listener

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// made is a socket as whoever starts the daemon would make it: by hand.
func made(t *testing.T, domain, kind, protocol int) int {
	t.Helper()
	fd, err := unix.Socket(domain, kind|unix.SOCK_CLOEXEC, protocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// bindTo binds a socket by hand, and listens unless it is one of datagrams.
func bindTo(t *testing.T, fd int, sa unix.Sockaddr) int {
	t.Helper()
	if _, path := sa.(*unix.SockaddrUnix); !path && getInt(t, fd, unix.SOL_SOCKET, unix.SO_TYPE) == unix.SOCK_STREAM {
		// Connections of an earlier test may be in TIME_WAIT.
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	if getInt(t, fd, unix.SOL_SOCKET, unix.SO_TYPE) != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, 5); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

func TestInspectAddresses(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	addr := func(n service.Network, a string, dual bool) service.Endpoint {
		return service.Endpoint{Network: n, Addr: netip.AddrPortFrom(netip.MustParseAddr(a), uint16(port)), Dual: dual}
	}
	six := func(a string) unix.Sockaddr {
		return &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr(a).As16()}
	}
	for _, c := range []struct {
		domain, kind, protocol int
		v6only                 int
		sa                     unix.Sockaddr
		want                   service.Endpoint
	}{
		{unix.AF_INET, unix.SOCK_STREAM, 0, -1, &unix.SockaddrInet4{Port: port}, addr(service.TCP4, "0.0.0.0", false)},
		{unix.AF_INET, unix.SOCK_STREAM, ipprotoMPTCP, -1, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}, addr(service.TCP4, "127.0.0.1", false)},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 1, six("::"), addr(service.TCP6, "::", false)},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 0, six("::"), addr(service.TCP6, "::", true)},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 0, six("::1"), addr(service.TCP6, "::1", false)},
		{unix.AF_INET6, unix.SOCK_STREAM, 0, 0, six("::ffff:127.0.0.1"), addr(service.TCP4, "127.0.0.1", false)},
		{unix.AF_INET, unix.SOCK_DGRAM, 0, -1, &unix.SockaddrInet4{Port: port}, addr(service.UDP4, "0.0.0.0", false)},
		{unix.AF_INET6, unix.SOCK_DGRAM, 0, 1, six("::"), addr(service.UDP6, "::", false)},
		{unix.AF_INET6, unix.SOCK_DGRAM, 0, 0, six("::"), addr(service.UDP6, "::", true)},
		{unix.AF_INET6, unix.SOCK_DGRAM, 0, 0, six("::ffff:127.0.0.1"), addr(service.UDP4, "127.0.0.1", false)},
	} {
		fd := made(t, c.domain, c.kind, c.protocol)
		if c.v6only >= 0 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, c.v6only); err != nil {
				t.Fatal(err)
			}
		}
		bindTo(t, fd, c.sa)
		ep, listening, err := Inspect(fd)
		if ep != c.want || !listening || err != nil {
			t.Errorf("%+v: %+v, %v, %v, want %+v", c.sa, ep, listening, err, c.want)
		}
		// Frees the port, but not the number.
		if err := unix.Dup3(made(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), fd, unix.O_CLOEXEC); err != nil {
			t.Fatal(err)
		}
	}
}

func TestInspectZone(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	fd := made(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	bindTo(t, fd, &unix.SockaddrInet6{Port: port, Addr: netip.MustParseAddr("fe80::1").As16(), ZoneId: 1})
	ep, _, err := Inspect(fd)
	if want := endpoint(netip.MustParseAddr("fe80::1%lo"), port); ep != want || err != nil {
		t.Errorf("%v, %v, want %v", ep, err, want)
	}
	l, err := Adopt(fd, ep, row(plain()))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if _, _, peer := connect(t, l); peer.Addr().Zone() != "lo" {
		t.Errorf("peer is %v", peer)
	}
}

// Whatever can be passed by mistake is called what it is.
func TestInspectWrongKinds(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	open := func(path string, flags int) int {
		t.Helper()
		fd, err := unix.Open(path, flags|unix.O_CLOEXEC, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		return fd
	}
	if err := unix.Mkfifo(dir+"/fifo", 0o600); err != nil {
		t.Fatal(err)
	}
	memfd, err := unix.MemfdCreate("test", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memfd)
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(epoll)
	pair := func(kind int) int {
		t.Helper()
		pair, err := unix.Socketpair(unix.AF_UNIX, kind|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(pair[0]); unix.Close(pair[1]) })
		return pair[0]
	}
	_, tcp, _ := connect(t, openRow(t, endpoint(loopback4, testkit.FreePort(t)), row(plain())))
	bound := made(t, unix.AF_INET, unix.SOCK_STREAM, 0)
	if err := unix.Bind(bound, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	udp := made(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	if err := unix.Connect(udp, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9}); err != nil {
		t.Fatal(err)
	}
	packet := made(t, unix.AF_PACKET, unix.SOCK_RAW, 0)
	autobound := made(t, unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err := unix.Listen(autobound, 1); err == nil {
		t.Fatal("a socket without a name listens")
	}
	for _, c := range []struct {
		fd   int
		want string
	}{
		{open(dir+"/fifo", unix.O_RDWR), "it is a FIFO, not a socket"},
		{open(dir+"/file", unix.O_RDWR|unix.O_CREAT), "it is a file, not a socket"},
		{open(dir, unix.O_RDONLY), "it is a directory, not a socket"},
		{open("/dev/null", unix.O_RDWR), "it is a character device, not a socket"},
		{memfd, "it is a memfd, not a socket"},
		{epoll, "it is something without a name, not a socket"},
		{made(t, unix.AF_NETLINK, unix.SOCK_RAW, 0), "it is a netlink socket, and no service can have that"},
		{packet, "it is a packet socket, and no service can have that"},
		{made(t, unix.AF_INET, unix.SOCK_RAW, unix.IPPROTO_ICMP), "it is a raw socket, and no service can have that"},
		{made(t, unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDPLITE), "it is a socket of IP protocol 136, and no service can have that"},
		{tcp, "it is a connected TCP socket, not a listening one"},
		{bound, "it is a TCP socket that does not listen"},
		{made(t, unix.AF_INET6, unix.SOCK_STREAM, 0), "it is a TCP socket that does not listen"},
		{udp, "it is a connected UDP socket, which has one peer only"},
		{made(t, unix.AF_INET, unix.SOCK_DGRAM, 0), "it is a UDP socket without a port"},
		{pair(unix.SOCK_STREAM), "it is a connected unix stream socket, not a listening one"},
		{pair(unix.SOCK_SEQPACKET), "it is a connected unix seqpacket socket, not a listening one"},
		{pair(unix.SOCK_DGRAM), "it is a connected unix datagram socket, which has one peer only"},
		{made(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), "it is a unix stream socket that does not listen"},
		{made(t, unix.AF_UNIX, unix.SOCK_DGRAM, 0), "it is a unix socket without a name"},
		{made(t, unix.AF_VSOCK, unix.SOCK_STREAM, 0), "it is a vsock socket that does not listen"},
		{1 << 20, "bad file descriptor"},
	} {
		ep, listening, err := Inspect(c.fd)
		if err == nil || !strings.HasSuffix(err.Error(), c.want) || listening || ep != (service.Endpoint{}) {
			t.Errorf("%+v, %v, %v, want %q", ep, listening, err, c.want)
		}
	}
	if got := (shape{domain: unix.AF_ALG, kind: unix.SOCK_SEQPACKET}).String(); got != "a socket of address family 38" {
		t.Error(got)
	}
	// Relative to whatever directory its maker was in.
	if err := os.Chdir(dir); err != nil {
		t.Fatal(err)
	}
	defer os.Chdir("/")
	relative := bindTo(t, made(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), &unix.SockaddrUnix{Name: "relative"})
	if _, _, err := Inspect(relative); err == nil || err.Error() != `it is a unix socket at "relative", which is no absolute path` {
		t.Error(err)
	}
}
