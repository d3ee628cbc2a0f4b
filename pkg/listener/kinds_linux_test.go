package listener

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// everyKind is an endpoint of each kind that is free until the test ends.
func everyKind(t *testing.T) []service.Endpoint {
	t.Helper()
	ip := func(n service.Network, a netip.Addr) service.Endpoint {
		return service.Endpoint{Network: n, Addr: netip.AddrPortFrom(a, uint16(testkit.FreePort(t)))}
	}
	dir := t.TempDir()
	port := uint32(testkit.FreePort(t))
	name := "@tcpmuxd-test-" + filepath.Base(filepath.Dir(dir))
	return []service.Endpoint{
		ip(service.TCP4, loopback4), ip(service.TCP6, loopback6), ip(service.UDP4, loopback4), ip(service.UDP6, loopback6),
		{Network: service.UnixStream, Path: dir + "/stream"}, {Network: service.UnixStream, Path: name + "-stream"},
		{Network: service.UnixDgram, Path: dir + "/dgram"}, {Network: service.UnixDgram, Path: name + "-dgram"},
		{Network: service.UnixSeqpacket, Path: dir + "/seqpacket"}, {Network: service.UnixSeqpacket, Path: name + "-seqpacket"},
		{Network: service.VsockStream, CID: service.VsockAny, Port: port},
		{Network: service.VsockSeqpacket, CID: service.VsockAny, Port: port + 1<<16},
	}
}

func openRow(t *testing.T, ep service.Endpoint, sv *service.Service) *Listener {
	t.Helper()
	l, err := Open(ep, sv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// dial makes a client's socket of the same kind and connects it.
func dial(t *testing.T, ep service.Endpoint) int {
	t.Helper()
	fd, err := newSocket(ep.Network, true)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Connect(fd, address(t, ep)); err != nil {
		t.Fatalf("connecting to %s %s: %v", ep.Network, ep, err)
	}
	return fd
}

// vsockLoops reports whether this machine can connect to itself by vsock: few
// kernels have the module for it.
var vsockLoops = sync.OnceValue(func() bool {
	fd, err := newSocket(service.VsockStream, false)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: 1}); err != unix.EINPROGRESS {
		return err == unix.ECONNRESET
	}
	n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, 200)
	return n == 1
})

// reachable reports whether there can be peers of ep here.
func reachable(ep service.Endpoint) bool { return !ep.Network.Vsock() || vsockLoops() }

func address(t *testing.T, ep service.Endpoint) unix.Sockaddr {
	t.Helper()
	switch {
	case ep.Network.Unix():
		return &unix.SockaddrUnix{Name: ep.Path}
	case ep.Network.Vsock():
		return &unix.SockaddrVM{CID: unix.VMADDR_CID_LOCAL, Port: ep.Port}
	}
	sa, _, err := sockaddr(ep.Addr)
	if err != nil {
		t.Fatal(err)
	}
	return sa
}

func blocks(t *testing.T, fd int) bool {
	t.Helper()
	flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFL, 0)
	if err != nil {
		t.Fatal(err)
	}
	return flags&unix.O_NONBLOCK == 0
}

// awaitReadable waits until something has come; vsock takes its time.
func awaitReadable(t *testing.T, l *Listener) {
	t.Helper()
	for deadline := time.Now().Add(bound); !l.Waiting(); {
		if time.Now().After(deadline) {
			t.Fatalf("%s: nothing has come", l.Endpoint)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(l.Fd()), Events: unix.POLLIN}}, 100)
	}
}

// meet has a peer come, and looks at it from both ends.
func meet(t *testing.T, l *Listener) {
	t.Helper()
	ep := l.Endpoint
	c := dial(t, ep)
	if _, err := unix.Write(c, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	awaitReadable(t, l)
	if ep.Network.Dgram() {
		b := make([]byte, 10)
		if n, _, err := unix.Recvfrom(l.Fd(), b, 0); err != nil || string(b[:n]) != "hello" {
			t.Errorf("received %q, %v", b[:n], err)
		}
	} else if blocks(t, l.Fd()) {
		// A server's: the daemon keeps its hands off.
		if _, _, err := l.Accept(); err != unix.EAGAIN {
			t.Errorf("Accept on a socket that blocks: %v", err)
		}
		fd, _, err := unix.Accept(l.Fd())
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	} else {
		fd, peer := accept(t, l)
		if !blocks(t, fd) {
			t.Error("what was accepted does not block")
		}
		if peer.Network != ep.Network {
			t.Errorf("peer is of %s", peer.Network)
		}
		switch local := l.Local(fd); {
		case ep.Network.Vsock():
			if peer.CID != unix.VMADDR_CID_LOCAL || peer.Port == 0 || local.CID != unix.VMADDR_CID_LOCAL || local.Port != ep.Port {
				t.Errorf("peer is %v, local %v", peer, local)
			}
		case local != ep:
			t.Errorf("local is %v, want %v", local, ep)
		}
	}
}

func TestEveryKind(t *testing.T) {
	testkit.Check(t)
	for _, ep := range everyKind(t) {
		for _, wait := range []bool{false, true} {
			t.Run(ep.Network.String()+" "+ep.String()+map[bool]string{true: " wait"}[wait], func(t *testing.T) {
				sv := row(plain())
				sv.Wait = wait
				l := openRow(t, ep, sv)
				if got := blocks(t, l.Fd()); got != wait {
					t.Errorf("blocking is %v, want %v", got, wait)
				}
				if flags, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
					t.Errorf("not close-on-exec: %v", err)
				}
				if l.Waiting() {
					t.Error("somebody waits")
				}
				if reachable(ep) {
					meet(t, l)
				}
				seen, listening, err := Inspect(l.Fd())
				if seen != ep || !listening || err != nil {
					t.Errorf("Inspect says %+v, %v, %v, want %+v", seen, listening, err, ep)
				}
				if err := l.SetBlocking(!wait); err != nil || blocks(t, l.Fd()) == wait {
					t.Errorf("SetBlocking(%v): %v", !wait, err)
				}
				if second, err := Open(ep, sv); err == nil {
					second.Close()
					t.Error("a second listener has the same address")
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("a second listener: %v, want EADDRINUSE", err)
				} else if ep.Network.Unix() && !strings.Contains(err.Error(), "living process") {
					t.Errorf("a second listener: %v", err)
				}
				l.Close()
				if ep.Network.Unix() && ep.Path[0] == '/' {
					if _, err := os.Lstat(ep.Path); !errors.Is(err, os.ErrNotExist) {
						t.Errorf("after Close: %v", err)
					}
				}
				openRow(t, ep, sv).Close() // the address is free
				for what, err := range map[string]error{"SetBlocking": l.SetBlocking(true), "Retune": l.Retune(sv, sv)} {
					if err != ErrClosed {
						t.Errorf("%s after Close: %v", what, err)
					}
				}
			})
		}
	}
}

// What a server has goes on when the daemon gives it up.
func TestAbandon(t *testing.T) {
	testkit.Check(t)
	for _, ep := range everyKind(t) {
		sv := row(plain())
		sv.Wait = true
		l := openRow(t, ep, sv)
		if !reachable(ep) {
			l.Close()
			continue
		}
		server, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		l.Abandon()
		l.Close() // does nothing
		if _, _, err := l.Accept(); err != ErrClosed {
			t.Errorf("%s: Accept: %v", ep, err)
		}
		c := dial(t, ep)
		if _, err := unix.Write(c, []byte("x")); err != nil {
			t.Errorf("%s: writing: %v", ep, err)
		}
		p := []unix.PollFd{{Fd: int32(server), Events: unix.POLLIN}}
		if n, err := unix.Poll(p, int(bound.Milliseconds())); n != 1 || p[0].Revents != unix.POLLIN {
			t.Errorf("%s: the server sees %d, %#x, %v", ep, n, p[0].Revents, err)
		}
		unix.Close(server)
	}
}

// Two daemons at one UDP port would each get some of the datagrams.
func TestUDPSharesNothing(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		ep := endpoint(a, testkit.FreePort(t))
		ep.Network += service.UDP4 - service.TCP4
		sv := row(plain())
		l := openRow(t, ep, sv)
		if n := getInt(t, l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEADDR); n != 0 {
			t.Errorf("%s: SO_REUSEADDR is %d", a, n)
		}
		if n := getInt(t, l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); n != 0 {
			t.Errorf("%s: SO_REUSEPORT is %d", a, n)
		}
		// A reload makes it a row with an instance for each peer, and back.
		each := row(plain())
		each.Exec = new(service.Exec)
		for _, c := range [][2]*service.Service{{sv, each}, {each, sv}} {
			if err := l.Retune(c[0], c[1]); err != nil {
				t.Fatal(err)
			}
			if n := getInt(t, l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); n != 0 {
				t.Errorf("%s: SO_REUSEPORT is %d after a reload", a, n)
			}
		}
		l.Close()
		if n := getInt(t, openRow(t, ep, each).Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); n != 0 {
			t.Errorf("%s: SO_REUSEPORT of a row with instances is %d", a, n)
		}
		tcp := endpoint(a, testkit.FreePort(t))
		if n := getInt(t, openRow(t, tcp, each).Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); n != 0 {
			t.Errorf("%s: SO_REUSEPORT of TCP is %d", a, n)
		}
	}
}

func TestVsockThatIsNotThere(t *testing.T) {
	testkit.Check(t)
	ep := service.Endpoint{Network: service.VsockStream, CID: 77777, Port: uint32(testkit.FreePort(t))}
	if l, err := Open(ep, row(plain())); !errors.Is(err, ErrNotUp) {
		if err == nil {
			l.Close()
		}
		t.Errorf("a CID of another machine: %v, want ErrNotUp", err)
	}
}

// Options of datagram and unix sockets there and back.
func TestRetuneEveryKind(t *testing.T) {
	testkit.Check(t)
	for _, ep := range everyKind(t) {
		for _, c := range []struct {
			name   string
			socket func(*service.Socket)
			on     func(service.Network) bool
			want   map[option]int
		}{
			{"broadcast", func(s *service.Socket) { s.Broadcast = true }, service.Network.UDP, map[option]int{broadcast: 1}},
			{"ttl", func(s *service.Socket) { s.TTL = 9 }, func(n service.Network) bool { return n == service.UDP4 }, map[option]int{ttl4: 9}},
			{"hops", func(s *service.Socket) { s.TTL = 9 }, func(n service.Network) bool { return n == service.UDP6 }, map[option]int{hops6: 9}},
			{"transparent", func(s *service.Socket) { s.Transparent = true }, service.Network.UDP, map[option]int{trans4: 1}},
			{"priority", func(s *service.Socket) { s.Priority = 4 }, service.Network.UDP, map[option]int{priority: 4}},
			{"tos", func(s *service.Socket) { s.TOS = 0x10 }, func(n service.Network) bool { return n == service.UDP4 }, map[option]int{tos4: 0x10, priority: 6}},
			{"mark", func(s *service.Socket) { s.Mark = 3 }, service.Network.UDP, map[option]int{mark: 3}},
			{"buffers", func(s *service.Socket) { s.Rcvbuf, s.Sndbuf = 40000, 50000 }, func(n service.Network) bool { return !n.TCP() },
				map[option]int{rcvbuf: 80000, sndbuf: 100000, bufLock: 3}},
			{"pass_credentials", func(s *service.Socket) { s.PassCred = true }, service.Network.Unix, map[option]int{passcred: 1}},
			{"what is not for it", func(s *service.Socket) {
				s.Nodelay, s.Keepalive.On, s.Congestion, s.DeferAccept = true, true, "none-such", time.Second
			}, func(n service.Network) bool { return !n.TCP() }, nil},
		} {
			if !c.on(ep.Network) {
				continue
			}
			s := plain()
			c.socket(&s)
			l := openRow(t, ep, row(plain()))
			before := map[option]int{}
			for o := range c.want {
				before[o] = getInt(t, l.Fd(), o.level, o.name)
			}
			check := func(what string, fd int, want map[option]int) {
				t.Helper()
				for o, n := range want {
					if got := getInt(t, fd, o.level, o.name); got != n {
						t.Errorf("%s %s, %s: %s is %d, want %d", ep.Network, c.name, what, o.word, got, n)
					}
				}
			}
			if err := l.Retune(row(plain()), row(s)); err != nil {
				t.Fatal(err)
			}
			check("there", l.Fd(), c.want)
			if c.name == "pass_credentials" && !ep.Network.Dgram() {
				dial(t, ep)
				fd, _ := accept(t, l)
				check("accepted", fd, c.want)
			}
			if err := l.Retune(row(s), row(plain())); err != nil {
				t.Fatal(err)
			}
			check("back", l.Fd(), before)
			l.Close()
			l = openRow(t, ep, row(s))
			check("opened", l.Fd(), c.want)
			l.Close()
		}
	}
}

// A transparent row has addresses that are not this machine's.
func TestTransparentNeedsNoAddress(t *testing.T) {
	testkit.Check(t)
	for _, a := range []string{"192.0.2.77", "2001:db8::77"} {
		s := plain()
		s.Transparent = true
		open(t, netip.MustParseAddr(a), s)
		ep := endpoint(netip.MustParseAddr(a), testkit.FreePort(t))
		ep.Network += service.UDP4 - service.TCP4
		openRow(t, ep, row(s))
	}
}

func TestCongestion(t *testing.T) {
	testkit.Check(t)
	get := func(fd int) string {
		t.Helper()
		s, err := unix.GetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION)
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	for _, a := range []netip.Addr{loopback4, loopback6} {
		l := open(t, a, plain())
		was := get(l.Fd())
		s := plain()
		if s.Congestion = "reno"; was == "reno" {
			s.Congestion = "cubic"
		}
		if err := l.Retune(row(plain()), row(s)); err != nil {
			t.Fatal(err)
		}
		_, fd, _ := connect(t, l)
		if get(l.Fd()) != s.Congestion || get(fd) != s.Congestion {
			t.Errorf("%s: listener has %s, accepted %s, want %s", a, get(l.Fd()), get(fd), s.Congestion)
		}
		if err := l.Retune(row(s), row(plain())); err != nil {
			t.Fatal(err)
		}
		if got := get(l.Fd()); got != was {
			t.Errorf("%s: %s after Retune back, want %s", a, got, was)
		}
		if got := get(open(t, a, s).Fd()); got != s.Congestion {
			t.Errorf("%s: %s, want %s", a, got, s.Congestion)
		}
		s.Congestion = "none-such"
		if err := l.Retune(row(plain()), row(s)); err == nil || !strings.Contains(err.Error(), "none-such") {
			t.Errorf("%s: an algorithm that is none: %v", a, err)
		}
		if got := get(l.Fd()); got != was {
			t.Errorf("%s: %s after an error, want %s", a, got, was)
		}
	}
}

// Whoever receives on a socket that comes to block is not waited for: he may wait
// for whoever makes it so.
func TestBlockingWhileHeld(t *testing.T) {
	l := open(t, loopback4, plain())
	if _, ok := l.Hold(); !ok {
		t.Fatal("it is closed")
	}
	defer l.Release()
	done := make(chan error, 1)
	go func() { done <- l.SetBlocking(true) }()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(bound):
		t.Error("SetBlocking waits for ever")
	}
}

// Two datagrams with the same words of the same peer are two.
func TestHeadOfEqualDatagrams(t *testing.T) {
	for _, a := range []netip.Addr{loopback4, loopback6} {
		ep := endpoint(a, testkit.FreePort(t))
		ep.Network += service.UDP4 - service.TCP4
		l, err := Open(ep, &service.Service{ID: "test", Socket: plain(), Wait: true})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(l.Close)
		c := client(t, "", ep.Addr)
		// The first of all on this machine are told apart only some time after
		// the kernel was asked to.
		deadline := time.Now().Add(bound)
		for last, different := uint64(0), 0; different < 5; {
			c.Write([]byte("again"))
			head := l.Head()
			if head != l.Head() || head == 0 {
				t.Fatalf("%v: an untouched queue has another head", a)
			}
			if head != last {
				different++
			}
			last = head
			unix.Read(l.Fd(), make([]byte, 100))
			if time.Now().After(deadline) {
				t.Fatalf("%v: equal datagrams are not told apart", a)
			}
		}
	}
}
