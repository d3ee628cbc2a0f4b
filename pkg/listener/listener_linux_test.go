package listener

import (
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func TestAccept(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6, netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		l := open(t, a, plain())
		if _, _, err := l.Accept(); err != unix.EAGAIN {
			t.Errorf("%s: Accept on an empty queue: %v, want EAGAIN", a, err)
		}
		if l.Waiting() {
			t.Errorf("%s: somebody waits in an empty queue", a)
		}
		c, fd, peer := connect(t, l)
		if want := c.LocalAddr().(*net.TCPAddr).AddrPort(); peer != want {
			t.Errorf("%s: peer is %v, want %v", a, peer, want)
		}
		if want := c.RemoteAddr().(*net.TCPAddr).AddrPort(); l.Local(fd).Addr != want {
			t.Errorf("%s: local is %v, want %v", a, l.Local(fd).Addr, want)
		}
	}
}

// A socket of one family has peers of that family only.
func TestV6OnlyLeavesV4Alone(t *testing.T) {
	testkit.Check(t)
	six := open(t, netip.IPv6Unspecified(), plain())
	to := netip.AddrPortFrom(loopback4, six.Endpoint.Addr.Port())
	if c, err := net.DialTimeout("tcp4", to.String(), bound); !errors.Is(err, syscall.ECONNREFUSED) {
		if err == nil {
			c.Close()
		}
		t.Errorf("a v4 peer of a v6 listener: %v, want a refusal", err)
	}
	// And the other family has room beside it.
	four, err := Open(endpoint(netip.IPv4Unspecified(), int(to.Port())), row(plain()))
	if err != nil {
		t.Fatal(err)
	}
	defer four.Close()
	_, _, peer := connect(t, four)
	if !peer.Addr().Is4() {
		t.Errorf("peer %v is not v4", peer)
	}
}

// A v4-mapped address is a v4 address wherever it comes from.
func TestMappedPeersAreV4(t *testing.T) {
	l := &Listener{Endpoint: endpoint(netip.IPv6Unspecified(), 7), zone: 3}
	l.Endpoint.Addr = netip.AddrPortFrom(netip.MustParseAddr("fe80::1%eth7"), 7)
	for _, c := range []struct {
		sa   syscall.Sockaddr
		want string
	}{
		{&syscall.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:192.0.2.7").As16(), Port: 99}, "192.0.2.7:99"},
		{&syscall.SockaddrInet6{Addr: netip.MustParseAddr("::ffff:192.0.2.7").As16(), Port: 99, ZoneId: 3}, "192.0.2.7:99"},
		{&syscall.SockaddrInet6{Addr: netip.MustParseAddr("2001:db8::1").As16(), Port: 65535}, "[2001:db8::1]:65535"},
		{&syscall.SockaddrInet6{Addr: netip.MustParseAddr("fe80::2").As16(), Port: 1, ZoneId: 3}, "[fe80::2%eth7]:1"},
		{&syscall.SockaddrInet6{Addr: netip.MustParseAddr("fe80::2").As16(), Port: 1, ZoneId: 9}, "[fe80::2%9]:1"},
		{&syscall.SockaddrInet4{Addr: [4]byte{192, 0, 2, 1}, Port: 0}, "192.0.2.1:0"},
		{&syscall.SockaddrUnix{Name: "/x"}, "invalid AddrPort"},
	} {
		if got := l.addrPort(c.sa); got.String() != c.want {
			t.Errorf("%+v is %v, want %v", c.sa, got, c.want)
		}
	}
}

func TestErrNotUp(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	device := plain()
	device.BindToDevice = "tcpmuxd-none"
	for _, c := range []struct {
		name   string
		addr   string
		socket service.Socket
	}{
		{"v4 address", "192.0.2.1", plain()},
		{"v6 address", "2001:db8::1", plain()},
		{"zone by name", "fe80::1%tcpmuxd-none", plain()},
		{"zone by number", "fe80::1%2147483000", plain()},
		{"device", "127.0.0.1", device},
		{"device of v6", "::1", device},
	} {
		l, err := Open(endpoint(netip.MustParseAddr(c.addr), port), row(c.socket))
		if err == nil {
			l.Close()
		}
		if !errors.Is(err, ErrNotUp) {
			t.Errorf("%s: %v, want ErrNotUp", c.name, err)
		}
		if err != nil && !strings.Contains(err.Error(), c.addr) {
			t.Errorf("%s: %q does not name the address", c.name, err)
		}
	}
}

// Up says what Open would find, and leaves no descriptor, which Check sees.
func TestUp(t *testing.T) {
	testkit.Check(t)
	open(t, loopback4, plain()) // a port that is taken does not matter
	for _, c := range []struct {
		addr, device string
		want         bool
	}{
		{"127.0.0.1", "", true}, {"127.0.0.2", "lo", true}, {"::1", "", true}, {"0.0.0.0", "", true}, {"", "lo", true}, {"", "", true},
		{"192.0.2.1", "", false}, {"2001:db8::1", "", false}, {"fe80::1%tcpmuxd-none", "", false}, {"fe80::1%2147483000", "", false},
		{"", "tcpmuxd-none", false}, {"127.0.0.1", "tcpmuxd-none", false},
	} {
		a := netip.Addr{}
		if c.addr != "" {
			a = netip.MustParseAddr(c.addr)
		}
		if got := Up(a, c.device); got != c.want {
			t.Errorf("%q on %.20q: %v", c.addr, c.device, got)
		}
	}
}

// What will not come up by itself is not ErrNotUp, and no failure leaves a
// descriptor open, which Check sees.
func TestErrors(t *testing.T) {
	testkit.Check(t)
	l := open(t, loopback4, plain())
	long := plain()
	long.BindToDevice = strings.Repeat("x", 300)
	count := plain()
	count.Keepalive = service.Keepalive{On: true, Count: 1000}
	for _, c := range []struct {
		name   string
		ep     service.Endpoint
		socket service.Socket
		want   error
	}{
		{"taken", l.Endpoint, plain(), unix.EADDRINUSE},
		{"wildcard over it", endpoint(netip.IPv4Unspecified(), int(l.Endpoint.Addr.Port())), plain(), unix.EADDRINUSE},
		{"option out of bounds", endpoint(loopback4, testkit.FreePort(t)), count, unix.EINVAL},
		{"name of a device too long", endpoint(loopback4, testkit.FreePort(t)), long, nil},
		{"name of a zone too long", endpoint(netip.MustParseAddr("fe80::1%"+strings.Repeat("x", 300)), 9), plain(), unix.EINVAL},
	} {
		bad, err := Open(c.ep, row(c.socket))
		switch {
		case err == nil:
			bad.Close()
			t.Errorf("%s: no error", c.name)
		case c.want != nil && !errors.Is(err, c.want):
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		case c.want != nil && errors.Is(err, ErrNotUp):
			t.Errorf("%s: %v is ErrNotUp", c.name, err)
		}
	}
}

func TestZones(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testkit.Check(t)
	for _, zone := range []string{"lo", "1"} {
		l := open(t, netip.MustParseAddr("fe80::1%"+zone), plain())
		_, fd, peer := connect(t, l)
		if want := "fe80::1%" + zone; peer.Addr().String() != want {
			t.Errorf("peer is %v, want %v", peer.Addr(), want)
		}
		if l.Local(fd) != l.Endpoint {
			t.Errorf("local is %v, want %v", l.Local(fd), l.Endpoint)
		}
	}
	// On the wildcard the zone is the interface that the peer came in by.
	l := open(t, netip.IPv6Unspecified(), plain())
	to := netip.AddrPortFrom(netip.MustParseAddr("fe80::1%lo"), l.Endpoint.Addr.Port())
	c, err := net.DialTimeout("tcp", to.String(), bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	fd, peer := accept(t, l)
	if peer.Addr.Addr().String() != "fe80::1%1" || l.Local(fd).Addr.Addr().String() != "fe80::1%1" {
		t.Errorf("peer is %v and local %v, want fe80::1%%1 for both", peer.Addr, l.Local(fd).Addr)
	}
	other, err := Open(endpoint(netip.MustParseAddr("192.0.2.1"), testkit.FreePort(t)), row(plain()))
	if err != nil {
		t.Fatalf("an address that is up: %v", err)
	}
	other.Close()
}

func TestClose(t *testing.T) {
	testkit.Check(t)
	l := open(t, loopback4, plain())
	c, err := net.DialTimeout("tcp", l.Endpoint.Addr.String(), bound)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if !l.Waiting() {
		t.Error("nobody waits")
	}
	l.Close()
	l.Close() // does nothing
	if l.Waiting() {
		t.Error("somebody waits after Close")
	}
	if fd, _, err := l.Accept(); !errors.Is(err, ErrClosed) || fd != -1 {
		t.Errorf("Accept after Close: %d, %v", fd, err)
	}
	// Who waited in the queue is told.
	c.SetReadDeadline(time.Now().Add(bound))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("a peer in the queue reads %v, want a reset", err)
	}
	again, err := Open(l.Endpoint, row(plain()))
	if err != nil {
		t.Fatalf("the port is not free: %v", err)
	}
	again.Close()
}

// A child that is being made has, for a moment, copies of descriptors that it
// then gives up. The address must be free all the same.
func TestCloseFreesTheAddressOfACopy(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6, netip.IPv4Unspecified()} {
		for _, reuse := range []bool{false, true} {
			s := plain()
			s.ReusePort = reuse
			l := open(t, a, s)
			child, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_DUPFD_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(child)
			c, err := net.DialTimeout("tcp", netip.AddrPortFrom(map[bool]netip.Addr{true: loopback4, false: loopback6}[a.Is4()], l.Endpoint.Addr.Port()).String(), bound)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			l.Close()
			c.SetReadDeadline(time.Now().Add(bound))
			if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
				t.Errorf("%s: a peer in the queue reads %v, want a reset", a, err)
			}
			next, err := Open(l.Endpoint, row(plain()))
			if err != nil {
				t.Fatalf("%s, reuseport %v: the address is not free: %v", a, reuse, err)
			}
			connect(t, next)
			next.Close()
		}
	}
}

// TestCloseNeverLetsAnotherSocketBeAcceptedFrom: the number of a closed socket
// is given to the next one that is opened. An Accept that stood just before
// its system call would take a connection of that one, and give it to the row
// of the closed one.
func TestCloseNeverLetsAnotherSocketBeAcceptedFrom(t *testing.T) {
	testkit.Check(t)
	const rounds = 300
	for round := range rounds {
		first := open(t, loopback4, plain())
		var accepting sync.WaitGroup
		var begun, stolen atomic.Int32
		for range 2 {
			accepting.Go(func() {
				for {
					fd, _, err := first.Accept()
					begun.Store(1)
					switch {
					case err == nil:
						stolen.Add(1)
						unix.Close(fd)
					case errors.Is(err, ErrClosed):
						return
					case err != unix.EAGAIN:
						t.Errorf("Accept: %v", err)
						return
					}
				}
			})
		}
		for deadline := time.Now().Add(bound); begun.Load() == 0 && time.Now().Before(deadline); {
		}
		first.Close()
		// Likely with the same number, and with a peer in its queue.
		second := open(t, loopback4, plain())
		c, err := net.DialTimeout("tcp", second.Endpoint.Addr.String(), bound)
		if err != nil {
			t.Fatal(err)
		}
		accepting.Wait()
		if n := stolen.Load(); n != 0 {
			t.Fatalf("round %d: %d connections were taken from another listener", round, n)
		}
		accept(t, second)
		c.Close()
		second.Close()
	}
}

func TestHoldAfterReleaseFails(t *testing.T) {
	l := &Listener{fd: -1}
	l.refs.Store(1)
	if !l.hold() {
		t.Fatal("hold of an open listener failed")
	}
	l.closed.Store(true)
	l.release()
	if l.hold() {
		t.Error("a closing listener was held")
	}
	l.release() // the last: closes descriptor -1, which does nothing
	l.closed.Store(false)
	if l.hold() {
		t.Error("a listener that nobody holds any more was brought back")
	}
}

// TestBSDAcceptAfterSelect: a peer that resets its connection before it is
// accepted has blocked daemons for ever in accept(2) (maldad.org, BSD
// kernel37). A listener never blocks, and the connection costs nothing.
func TestBSDAcceptAfterSelect(t *testing.T) {
	testkit.Check(t)
	l := open(t, loopback4, plain())
	for range 200 {
		c, err := net.DialTimeout("tcp", l.Endpoint.Addr.String(), bound)
		if err != nil {
			t.Fatal(err)
		}
		c.(*net.TCPConn).SetLinger(0)
		c.Close()
	}
	done := make(chan error, 1)
	go func() {
		for {
			fd, _, err := l.Accept()
			if err == unix.EAGAIN {
				done <- nil
				return
			}
			if err != nil && err != unix.ECONNABORTED {
				done <- err
				return
			}
			if err == nil {
				unix.Close(fd)
			}
		}
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(bound):
		t.Fatal("Accept blocks")
	}
	c, fd, _ := connect(t, l)
	if _, err := unix.Write(fd, []byte("ok")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 2)
	if _, err := io.ReadFull(c, b); err != nil || string(b) != "ok" {
		t.Errorf("after the flood a peer reads %q, %v", b, err)
	}
}

func TestConcurrentAccept(t *testing.T) {
	testkit.Check(t)
	const peers = 400
	l := open(t, loopback4, plain())
	var accepted atomic.Int32
	var seen sync.Map
	stop := make(chan struct{})
	var accepting sync.WaitGroup
	for range 4 {
		accepting.Go(func() {
			for {
				fd, peer, err := l.Accept()
				switch {
				case err == nil:
					if _, twice := seen.LoadOrStore(peer.Addr, true); twice {
						t.Errorf("%v was accepted twice", peer)
					}
					unix.Close(fd)
					accepted.Add(1)
				case err != unix.EAGAIN:
					t.Errorf("Accept: %v", err)
					return
				}
				select {
				case <-stop:
					return
				default:
					unix.Poll([]unix.PollFd{{Fd: int32(l.Fd()), Events: unix.POLLIN}}, 20)
				}
			}
		})
	}
	for i := range peers {
		c, err := net.DialTimeout("tcp", l.Endpoint.Addr.String(), bound)
		if err != nil {
			t.Fatal(fmt.Errorf("peer %d: %w", i, err))
		}
		c.(*net.TCPConn).SetLinger(0) // no TIME_WAIT, so that no number comes twice
		io.ReadAll(c)
		c.Close()
		seen.Delete(c.LocalAddr().(*net.TCPAddr).AddrPort())
	}
	close(stop)
	accepting.Wait()
	if n := accepted.Load(); n != peers {
		t.Errorf("%d of %d peers were accepted", n, peers)
	}
}

// For port 0 the kernel chooses one, of each socket another one.
func TestAnyPort(t *testing.T) {
	testkit.Check(t)
	ports := map[uint16]bool{}
	for range 2 {
		for _, a := range []netip.Addr{loopback4, netip.IPv4Unspecified()} {
			asked := endpoint(a, 0)
			l, err := Open(asked, row(plain()))
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			if l.Asked != asked || l.Endpoint.Addr.Addr() != a || l.Endpoint.Addr.Port() == 0 {
				t.Errorf("asked for %v, it is %v, and says %v was asked for", asked, l.Endpoint, l.Asked)
			}
			ports[l.Endpoint.Addr.Port()] = true
			connect(t, l)
		}
	}
	if len(ports) != 4 {
		t.Errorf("4 sockets have the ports %v", ports)
	}
}
