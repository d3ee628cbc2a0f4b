package listener

import (
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"net"
	"net/netip"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

const dgramBound = 20 * time.Second

// datagrams is a UDP listener on a free port of an address. A dual one is bound
// as sockets are that others have opened: one of v6 that takes v4.
func datagrams(t testing.TB, address string, dual bool) *Datagrams {
	t.Helper()
	a := netip.MustParseAddr(address)
	domain, network := unix.AF_INET, service.UDP4
	if a.Is6() {
		domain, network = unix.AF_INET6, service.UDP6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	if a.Is6() {
		only := 1
		if dual {
			only = 0
		}
		unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only)
	}
	sa, zone, err := sockaddr(netip.AddrPortFrom(a, 0))
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatalf("bind to %v: %v", a, err)
	}
	port := 0
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	l := &Listener{Endpoint: service.Endpoint{Network: network, Addr: netip.AddrPortFrom(a, uint16(port)), Dual: dual}, fd: fd, zone: zone, guard: new(guard)}
	l.refs.Store(1)
	t.Cleanup(func() { unix.Close(fd) })
	d, err := l.Datagrams(func(int) {})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.Close)
	return d
}

// at is where the listener is reached.
func (d *Datagrams) at(address string) netip.AddrPort {
	return netip.AddrPortFrom(netip.MustParseAddr(address), d.l.Endpoint.Addr.Port())
}

// client is a socket that is connected to an address.
func client(t testing.TB, from string, to netip.AddrPort) *net.UDPConn {
	t.Helper()
	var local *net.UDPAddr
	if from != "" {
		local = net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	}
	c, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(to))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(dgramBound))
	c.SetWriteBuffer(1 << 20)
	return c
}

func addrOf(c *net.UDPConn) netip.AddrPort { return c.LocalAddr().(*net.UDPAddr).AddrPort() }

// receive waits for one datagram that has no session.
func (d *Datagrams) receive(t testing.TB) (Datagram, *kernel.Batch) {
	t.Helper()
	b := kernel.NewBatch(1, 1<<16)
	for deadline := time.Now().Add(dgramBound); ; {
		if n, err := d.Receive(b); n == 1 {
			return d.DatagramOf(b, 0), b
		} else if err != unix.EAGAIN {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatal("no datagram came")
		}
		d.await(nil, 100)
	}
}

// await waits until a socket is readable.
func (d *Datagrams) await(more []int, ms int) {
	d.mu.Lock()
	fds := slices.Concat(d.fds, more)
	d.mu.Unlock()
	var p []unix.PollFd
	for _, fd := range fds {
		p = append(p, unix.PollFd{Fd: int32(fd), Events: unix.POLLIN})
	}
	unix.Poll(p, ms)
}

// empty checks that nothing has come but for sessions.
func (d *Datagrams) empty(t testing.TB) {
	t.Helper()
	b := kernel.NewBatch(1, 100)
	if n, err := d.Receive(b); n != 0 || err != unix.EAGAIN {
		t.Errorf("the listener has received %d (%v): %+v", n, err, d.DatagramOf(b, 0))
	}
}

// read reads from a session as its server would, and reports false if nothing
// comes in time.
func (s *Session) read(t testing.TB, timeout time.Duration) (string, bool) {
	t.Helper()
	p := []unix.PollFd{{Fd: int32(s.fd), Events: unix.POLLIN}}
	if n, _ := unix.Poll(p, int(timeout/time.Millisecond)); n == 0 {
		return "", false
	}
	b := make([]byte, 1<<16)
	n, err := unix.Read(s.fd, b)
	if err != nil {
		t.Fatal(err)
	}
	return string(b[:n]), true
}

func wantRead(t testing.TB, s *Session, want string) {
	t.Helper()
	if got, _ := s.read(t, dgramBound); got != want {
		t.Fatalf("the session of %v has read %.40q (%d bytes), want %.40q (%d bytes)", s.Peer, got, len(got), want, len(want))
	}
}

func openSession(t testing.TB, d *Datagrams, g Datagram) *Session {
	t.Helper()
	s, err := d.Open(g, plain(), kernel.NewBatch(4, 1<<16))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// A peer's datagrams reach its session and those of others do not; what the
// server answers comes from the address that was asked.
func TestSession(t *testing.T) {
	for _, test := range []struct {
		listen, from, to string
		dual             bool
	}{
		{"127.0.0.1", "127.0.0.1", "127.0.0.1", false},
		{"127.0.0.1", "127.9.8.7", "127.0.0.1", false},
		{"0.0.0.0", "127.0.0.1", "127.0.0.1", false},
		{"0.0.0.0", "127.9.8.7", "127.6.5.4", false},
		{"::1", "::1", "::1", false},
		{"::", "::1", "::1", false},
		{"::", "::1", "::1", true},
		{"::", "127.9.8.7", "127.6.5.4", true},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			testkit.Check(t)
			d := datagrams(t, test.listen, test.dual)
			to := d.at(test.to)
			one, two := client(t, test.from, to), client(t, test.from, to)
			one.Write([]byte("first"))
			g, b := d.receive(t)
			if string(g.Data) != "first" || g.Peer != addrOf(one) || g.Local != to {
				t.Fatalf("received %q from %v to %v", g.Data, g.Peer, g.Local)
			}
			s := openSession(t, d, g)
			if err := d.PutBack(g); err != nil {
				t.Fatal(err)
			}
			wantRead(t, s, "first")
			one.Write([]byte("second"))
			wantRead(t, s, "second")
			two.Write([]byte("other"))
			if g, _ := d.receive(t); string(g.Data) != "other" || g.Peer != addrOf(two) || g.Local != to {
				t.Errorf("received %q from %v to %v", g.Data, g.Peer, g.Local)
			}
			if _, err := unix.Write(s.fd, []byte("answer")); err != nil {
				t.Fatal(err)
			}
			answer := make([]byte, 100)
			if n, err := one.Read(answer); string(answer[:n]) != "answer" {
				t.Errorf("answer %q, %v", answer[:n], err)
			}
			// It blocks, as children expect.
			if flags, _ := unix.FcntlInt(uintptr(s.fd), unix.F_GETFL, 0); flags&unix.O_NONBLOCK != 0 {
				t.Error("the socket does not block")
			}
			d.End(s, false, b, func(Datagram) { t.Error("something was left") })
			one.Write([]byte("third"))
			if g, _ := d.receive(t); string(g.Data) != "third" {
				t.Errorf("after the end: received %q", g.Data)
			}
			sweepAll(t, d, b)
			if len(d.fds) > 2 || len(d.guards) > 0 {
				t.Errorf("left: descriptors %v, guards %v", d.fds, d.guards)
			}
			two.Write([]byte("last"))
			if g, _ := d.receive(t); string(g.Data) != "last" {
				t.Errorf("without a guard: received %q", g.Data)
			}
			d.empty(t)
		})
	}
}

func sweepAll(t testing.TB, d *Datagrams, b *kernel.Batch) {
	t.Helper()
	for deadline := time.Now().Add(dgramBound); ; time.Sleep(time.Millisecond) {
		if !d.Sweep(b, func(g Datagram) { t.Errorf("late: %q", g.Data) }) {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("sweeping has no end")
		}
	}
}

// A session that cannot be opened leaves nothing behind.
func TestSessionFails(t *testing.T) {
	testkit.Check(t)
	d := datagrams(t, "127.0.0.1", false)
	c := client(t, "127.0.0.1", d.at("127.0.0.1"))
	c.Write([]byte("x"))
	g, b := d.receive(t)
	g.Local = d.at("192.0.2.1") // not this machine's
	for range 3 {
		if _, err := d.Open(g, plain(), b); !errors.Is(err, unix.EADDRNOTAVAIL) {
			t.Fatalf("opening a session on %v: %v", g.Local, err)
		}
	}
}

// Whatever has become of a session, Close closes each of the sockets once: a
// number that is closed twice may be another's by then.
func TestCloseLate(t *testing.T) {
	testkit.Check(t)
	for _, a := range []string{"127.0.0.1", "0.0.0.0"} {
		d := datagrams(t, a, false)
		for range 2 {
			client(t, "127.0.0.1", d.at("127.0.0.1")).Write([]byte("x"))
			g, b := d.receive(t)
			x, err := d.Open(g, plain(), b)
			if err != nil {
				t.Fatal(err)
			}
			d.End(x, true, b, func(Datagram) {})
		}
		d.mu.Lock()
		own := d.ownLocked()
		d.mu.Unlock()
		slices.Sort(own)
		if once := slices.Compact(slices.Clone(own)); len(once) != len(own) {
			t.Errorf("%s: twice among %v", a, own)
		}
		d.Close()
	}
}

// Datagrams of every size are put back whole.
func TestPutBackSizes(t *testing.T) {
	for _, a := range []string{"127.0.0.1", "::1"} {
		d := datagrams(t, a, false)
		c := client(t, a, d.at(a))
		c.Write([]byte("x"))
		g, _ := d.receive(t)
		s := openSession(t, d, g)
		unix.SetsockoptInt(s.fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1<<20)
		// 65535 bytes of IPv4, RFC 791; of IPv6 without its header, RFC 8200,
		// which is more than the loopback interface takes.
		sizes := []int{0, 1, 2, 3, 1000, 1001, 65487, 65488, 65489, 65506, 65507}
		if netip.MustParseAddr(a).Is6() {
			sizes = append(sizes, 65526, 65527)
		}
		for _, size := range sizes {
			g.Data = make([]byte, size)
			for i := range g.Data {
				g.Data[i] = byte(rand.IntN(256))
			}
			if err := d.PutBack(g); err != nil {
				t.Fatalf("%s, %d bytes: %v", a, size, err)
			}
			wantRead(t, s, string(g.Data))
		}
		// A sum that comes out as 0 is sent as 0xffff.
		for i := range 1 << 16 {
			g.Data = []byte{byte(i >> 8), byte(i)}
			if h := udpHeader(g); h[6] == 0xff && h[7] == 0xff {
				if err := d.PutBack(g); err != nil {
					t.Fatal(err)
				}
				wantRead(t, s, string(g.Data))
			} else if h[6] == 0 && h[7] == 0 {
				t.Fatal("a checksum of 0 means that there is none")
			}
		}
		d.End(s, false, kernel.NewBatch(1, 10), nil)
	}
}

// What a server has left unread goes to the next one only if it has read
// anything: otherwise it would be started for ever.
func TestLeftUnread(t *testing.T) {
	for _, test := range []struct {
		name    string
		read    bool
		again   bool
		left    int
		dropped int
	}{
		{"nothing read", false, false, 0, 3},
		{"one read", true, false, 2, 0},
		{"not started", false, true, 3, 0},
	} {
		d := datagrams(t, "0.0.0.0", false)
		c := client(t, "127.0.0.1", d.at("127.0.0.2"))
		c.Write([]byte("0"))
		g, b := d.receive(t)
		s := openSession(t, d, g)
		if s.Read() != 0 {
			t.Errorf("%s: something was read", test.name)
		}
		d.PutBack(g)
		for i := range 2 {
			c.Write([]byte{'1' + byte(i)})
		}
		before := s.Read()
		if test.read {
			wantRead(t, s, "0")
			if s.Read() == before {
				t.Errorf("%s: Read has not changed", test.name)
			}
		}
		var left []string
		dropped := d.End(s, test.again, b, func(g Datagram) {
			if g.Peer != s.Peer || g.Local != s.Local {
				t.Errorf("%s: %v to %v", test.name, g.Peer, g.Local)
			}
			left = append(left, string(g.Data))
		})
		if want := []string{"0", "1", "2"}[3-test.left:]; !slices.Equal(left, want) && len(left)+len(want) > 0 || dropped != test.dropped {
			t.Errorf("%s: left %q, dropped %d", test.name, left, dropped)
		}
	}
}

// A server that was faster than Part has read what it has read.
func TestPartTooLate(t *testing.T) {
	d := datagrams(t, "127.0.0.1", false)
	c := client(t, "127.0.0.1", d.at("127.0.0.1"))
	c.Write([]byte("0"))
	g, b := d.receive(t)
	s := openSession(t, d, g)
	d.PutBack(g)
	wantRead(t, s, "0")
	c.Write([]byte("1"))
	own := d.Part(s, kernel.NewBatch(4, 100))
	if len(own) != 1 || s.Read() == 0 {
		t.Fatalf("Part has left %+v, Read says %d", own, s.Read())
	}
	d.PutBack(own[0])
	var left []string
	if n := d.End(s, false, b, func(g Datagram) { left = append(left, string(g.Data)) }); n != 0 || !slices.Equal(left, []string{"1"}) {
		t.Errorf("dropped %d, left %q", n, left)
	}
}

// What the kernel has taken for a session and is another peer's goes back to where
// it belongs, whether its server has been started yet or not; it counts for nothing
// that the server has read.
func TestPart(t *testing.T) {
	for _, test := range []struct{ listen, to string }{{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "127.3.3.3"}, {"::", "::1"}} {
		d := datagrams(t, test.listen, false)
		c, other := client(t, "", d.at(test.to)), client(t, "", d.at(test.to))
		c.Write([]byte("0"))
		g, b := d.receive(t)
		s := openSession(t, d, g)
		connect := func(to netip.AddrPort) {
			sa, err := d.sockaddr(to)
			if err == nil {
				err = unix.Connect(s.fd, sa)
			}
			if err != nil {
				t.Fatal(err)
			}
		}
		mix := func() { // as if the kernel had been late three times
			connect(addrOf(other))
			other.Write([]byte("a"))
			connect(s.Peer)
			c.Write([]byte("1"))
			connect(addrOf(other))
			other.Write([]byte("b"))
			connect(s.Peer)
		}
		mix()
		own := d.Part(s, kernel.NewBatch(4, 100))
		if len(own) != 1 || string(own[0].Data) != "1" || own[0].Peer != s.Peer || own[0].Local != s.Local {
			t.Errorf("%s: Part has left %+v", test.listen, own)
		}
		if s.Read() != 0 {
			t.Errorf("%s: the server is said to have read", test.listen)
		}
		for _, want := range []string{"a", "b"} {
			if g, _ := d.receive(t); string(g.Data) != want || g.Peer != addrOf(other) {
				t.Errorf("%s: received %q of %v", test.listen, g.Data, g.Peer)
			}
		}
		if got, more := s.read(t, 0); more {
			t.Errorf("%s: the session has read %q", test.listen, got)
		}
		d.PutBack(own[0])
		mix()
		var left []string
		if dropped := d.End(s, false, b, func(g Datagram) {
			if g.Peer != addrOf(other) || g.Local != s.Local {
				t.Errorf("%s: %q of %v to %v", test.listen, g.Data, g.Peer, g.Local)
			}
			left = append(left, string(g.Data))
		}); dropped != 1 && dropped != 2 || !slices.Equal(left, []string{"a", "b"}) {
			t.Errorf("%s: dropped %d, left %q", test.listen, dropped, left)
		}
	}
}

// Where sessions stand side by side the next one's socket is there before: what was
// taken for it meanwhile goes back when it is used, or after a while. Nothing of it
// is left without sessions.
func TestSpares(t *testing.T) {
	testkit.Check(t)
	for _, test := range []struct{ listen, to string }{{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "127.3.3.3"}, {"::1", "::1"}, {"::", "::1"}} {
		t.Run(test.listen, func(t *testing.T) {
			d := datagrams(t, test.listen, false)
			to := d.at(test.to)
			options := plain()
			b := kernel.NewBatch(4, 100)
			var open []*Session
			session := func() *Session {
				t.Helper()
				c := client(t, "", to)
				c.Write([]byte("0"))
				g, _ := d.receive(t)
				x, err := d.Open(g, options, b)
				if err != nil {
					t.Fatal(err)
				}
				if err := d.PutBack(g); err != nil {
					t.Fatal(err)
				}
				open = append(open, x)
				wantRead(t, x, "0")
				c.Write([]byte("1"))
				wantRead(t, x, "1")
				return x
			}
			unread := func() *Session { // its server reads nothing
				t.Helper()
				c := client(t, "", to)
				c.Write([]byte("0"))
				g, _ := d.receive(t)
				x, err := d.Open(g, options, b)
				if err != nil {
					t.Fatal(err)
				}
				d.PutBack(g)
				if x.Read() != 0 {
					t.Error("the server is said to have read")
				}
				return x
			}
			spares := func() []spare { return d.guards[to.Addr()].spares }
			stranger := client(t, "", to)
			stray := func(fd int, data string) { // as if the kernel had been late
				sa, err := d.sockaddr(addrOf(stranger))
				if err == nil {
					err = unix.Connect(fd, sa)
				}
				if err != nil {
					t.Fatal(err)
				}
				stranger.Write([]byte(data))
				d.toItself(fd, to)
			}
			wantBack := func(want string) {
				t.Helper()
				if g, _ := d.receive(t); string(g.Data) != want || g.Peer != addrOf(stranger) {
					t.Errorf("received %q of %v, want %q", g.Data, g.Peer, want)
				}
			}
			if session(); len(spares()) != 0 {
				t.Errorf("%d spares for one session", len(spares()))
			}
			if session(); len(spares()) != 1 {
				t.Fatalf("%d spares for two sessions", len(spares()))
			}
			next := spares()[0].fd
			stray(next, "a")
			if x := session(); x.fd != next {
				t.Error("a session has not taken the spare")
			}
			wantBack("a")
			stray(spares()[0].fd, "b")
			sweepAll(t, d, b)
			wantBack("b")
			dirty := spares()[0].fd
			idler := unread()
			if idler.fd != dirty {
				t.Error("a session has not taken the spare that had something in it")
			}
			old := spares()
			options.TTL = 7
			x := session()
			for _, o := range old {
				if x.fd == o.fd {
					t.Error("a session with other options has taken a spare")
				}
			}
			for range 2 * sparesMost {
				session()
			}
			if len(spares()) != sparesMost {
				t.Errorf("%d spares for %d sessions", len(spares()), len(open))
			}
			d.empty(t)
			for _, x := range open[1:] {
				d.End(x, false, b, nil)
			}
			if n := d.End(idler, false, b, nil); n != 1 {
				t.Errorf("%d dropped of a server that has read nothing", n)
			}
			if len(spares()) != sparesMost {
				t.Errorf("%d spares left for one session", len(spares()))
			}
			d.End(open[0], false, b, nil)
			sweepAll(t, d, b)
			if len(d.guards)+len(d.late) > 0 || len(d.fds) != 1 {
				t.Errorf("left are %v, %v, %v", d.guards, d.late, d.fds)
			}
			open = nil
			session() // and Close has some to close
			session()
			session()
			for _, x := range open {
				defer unix.Close(x.fd)
			}
		})
	}
}

// A process that a server has left has the session's socket still. It gets
// nothing, and takes nothing from those who come after.
func TestStray(t *testing.T) {
	d := datagrams(t, "0.0.0.0", false)
	to := d.at("127.0.0.5")
	c := client(t, "127.0.0.1", to)
	c.Write([]byte("1"))
	g, b := d.receive(t)
	s := openSession(t, d, g)
	stray, err := unix.Dup(s.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(stray)
	d.End(s, false, b, nil)
	for round := range 3 {
		for end := time.Now().Add(3 * LateTime); time.Now().Before(end); time.Sleep(time.Millisecond) {
			d.Sweep(b, func(Datagram) {})
		}
		c.Write([]byte("2"))
		other := client(t, "127.0.0.1", to)
		other.Write([]byte("3"))
		for range 2 {
			g, _ := d.receive(t)
			if s := openSession(t, d, g); round < 2 {
				d.PutBack(g)
				wantRead(t, s, string(g.Data))
				another := client(t, "127.0.0.1", to)
				another.Write([]byte("4"))
				if g, _ := d.receive(t); string(g.Data) != "4" {
					t.Errorf("received %q", g.Data)
				}
				d.End(s, false, b, nil)
			}
		}
	}
	if n, _, err := unix.Recvfrom(stray, make([]byte, 10), unix.MSG_DONTWAIT); err != unix.EAGAIN {
		t.Errorf("the stray has received %d bytes, %v", n, err)
	}
}

// While sessions open and end and peers send without a pause, every datagram
// reaches its own session once, and none another.
func TestHammer(t *testing.T) {
	for _, test := range []struct{ listen, to string }{{"127.0.0.1", "127.0.0.1"}, {"0.0.0.0", "127.3.3.3"}, {"::", "::1"}} {
		t.Run(test.listen, func(t *testing.T) { hammer(t, datagrams(t, test.listen, false), test.to) })
	}
}

func hammer(t *testing.T, d *Datagrams, to string) {
	const peers, each, window = 12, 1500, 4
	type peer struct {
		sent, got atomic.Int64
		seen      [each]bool
	}
	all := map[netip.AddrPort]*peer{}
	var stop atomic.Bool
	done := make(chan bool, peers)
	var start []func()
	for i := range peers {
		from := to
		if i%2 == 0 && netip.MustParseAddr(to).Is4() {
			from = fmt.Sprintf("127.0.1.%d", i+1)
		}
		c := client(t, from, d.at(to))
		p := &peer{}
		all[addrOf(c)] = p
		start = append(start, func() {
			defer func() { done <- true }()
			for p.sent.Load() < each && !stop.Load() {
				if p.sent.Load()-p.got.Load() >= window {
					time.Sleep(20 * time.Microsecond)
					continue
				}
				n := p.sent.Add(1) - 1
				if _, err := fmt.Fprintf(c, "%v %d", addrOf(c), n); err != nil {
					t.Error(err) // ECONNREFUSED: nobody was there
				}
			}
		})
	}
	for _, f := range start {
		go f()
	}
	defer func() {
		stop.Store(true)
		for range peers {
			<-done
		}
	}()
	total, opened, putBack := 0, 0, 0
	sessions, parted := map[netip.AddrPort]*Session{}, map[*Session]bool{}
	b, drain := kernel.NewBatch(8, 200), kernel.NewBatch(8, 200)
	take := func(s *Session, data []byte) {
		var from string
		var n int
		fmt.Sscan(string(data), &from, &n)
		p := all[s.Peer]
		if from != s.Peer.String() {
			t.Fatalf("the session of %v has got %q", s.Peer, data)
		}
		if p.seen[n] {
			t.Fatalf("%q came twice", data)
		}
		p.seen[n] = true
		p.got.Add(1)
		total++
	}
	arrive := func(g Datagram) {
		if sessions[g.Peer] == nil {
			sessions[g.Peer] = openSession(t, d, g)
			opened++
		}
		if err := d.PutBack(g); err != nil {
			t.Fatal(err)
		}
		putBack++
	}
	buffer := make([]byte, 200)
	for deadline := time.Now().Add(dgramBound); total < peers*each; {
		if time.Now().After(deadline) {
			for a, p := range all {
				if p.got.Load() < p.sent.Load() {
					t.Logf("%v: %d of %d, session %v", a, p.got.Load(), p.sent.Load(), sessions[a])
				}
			}
			t.Fatalf("%d of %d came through %d sessions", total, peers*each, opened)
		}
		n, err := d.Receive(b)
		for i := range n {
			arrive(d.DatagramOf(b, i))
		}
		if n == 0 && err != unix.EAGAIN {
			t.Fatal(err)
		}
		for a, s := range maps.Clone(sessions) {
			if !parted[s] {
				parted[s] = true
				for _, g := range d.Part(s, drain) {
					if err := d.PutBack(g); err != nil {
						t.Fatal(err)
					}
				}
			}
			for range rand.IntN(3) {
				n, _, err := unix.Recvfrom(s.fd, buffer, unix.MSG_DONTWAIT)
				if err != nil {
					break
				}
				take(s, buffer[:n])
			}
			if rand.IntN(20) == 0 {
				delete(sessions, a)
				d.End(s, true, drain, arrive)
			}
		}
		d.Sweep(drain, arrive)
	}
	for _, s := range sessions {
		d.End(s, false, drain, func(g Datagram) { t.Errorf("one too many: %q", g.Data) })
	}
	t.Logf("%d datagrams through %d sessions, %d put back", total, opened, putBack)
}
