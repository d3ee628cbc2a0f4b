package listener

import (
	"errors"
	"net/netip"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func adoptRow(t *testing.T, fd int, sv *service.Service) *Listener {
	t.Helper()
	ep, _, err := Inspect(fd)
	if err != nil {
		t.Fatal(err)
	}
	l, err := Adopt(fd, ep, sv)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// passedSockets are sockets of every kind that somebody else has made.
func passedSockets(t *testing.T) []int {
	t.Helper()
	var list []int
	for _, ep := range everyKind(t) {
		fd, err := newSocket(ep.Network, true)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
		sa := address(t, ep)
		if ep.Network.Vsock() {
			sa = &unix.SockaddrVM{CID: ep.CID, Port: ep.Port}
		}
		list = append(list, bindTo(t, fd, sa))
	}
	return list
}

// After a reload without the row, and another with it, the passed socket is as
// good as before.
func TestAdoptTwice(t *testing.T) {
	testkit.Check(t)
	for _, fd := range passedSockets(t) {
		before, _, err := Inspect(fd)
		if err != nil {
			t.Fatal(err)
		}
		for _, wait := range []bool{false, true, false} {
			sv := row(plain())
			sv.Wait = wait
			l := adoptRow(t, fd, sv)
			if l.Fd() == fd {
				t.Error("the caller's descriptor is used")
			}
			if flags, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%v: not close-on-exec: %v", before, err)
			}
			if blocks(t, fd) != wait {
				t.Errorf("%v: blocking is %v", before, !wait)
			}
			if reachable(l.Endpoint) {
				meet(t, l)
			}
			l.Close()
			if _, _, err := l.Accept(); err != ErrClosed {
				t.Errorf("%v: Accept after Close: %v", before, err)
			}
			if after, listening, err := Inspect(fd); after != before || !listening || err != nil {
				t.Errorf("%v after Close: %v, %v, %v", before, after, listening, err)
			}
			if reachable(before) {
				c := dial(t, before)
				if _, err := unix.Write(c, []byte("x")); err != nil {
					t.Errorf("%v after Close: %v", before, err)
				}
				unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(bound.Milliseconds()))
				if before.Network.Dgram() {
					_, _, err = unix.Recvfrom(fd, make([]byte, 9), unix.MSG_DONTWAIT)
				} else {
					var conn int
					if conn, _, err = unix.Accept(fd); err == nil {
						unix.Close(conn)
					}
				}
				if err != nil {
					t.Errorf("%v after Close: %v", before, err)
				}
			}
		}
	}
}

func TestAdoptDoesNotTouchFiles(t *testing.T) {
	testkit.Check(t)
	path := t.TempDir() + "/socket"
	fd := bindTo(t, made(t, unix.AF_UNIX, unix.SOCK_STREAM, 0), &unix.SockaddrUnix{Name: path})
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	s := plain()
	s.Mode, s.UID, s.GID = 0o777, 77, 88
	l := adoptRow(t, fd, row(s))
	s.Mode = 0
	if err := l.Retune(row(plain()), row(s)); err != nil {
		t.Fatal(err)
	}
	l.Close()
	if st := status(t, path); st.Mode != unix.S_IFSOCK|0o640 || st.Uid != 0 || st.Gid != 0 {
		t.Errorf("mode %o, user %d, group %d", st.Mode, st.Uid, st.Gid)
	}
}

// What the row names is set, what another row has named before is taken back,
// and all else is as whoever passes the socket has set it.
func TestAdoptOptions(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6, netip.IPv6Unspecified()} {
		kind := map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[a.Is4()]
		fd := made(t, kind, unix.SOCK_STREAM, 0)
		if kind == unix.AF_INET6 {
			if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
				t.Fatal(err)
			}
		}
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		bindTo(t, fd, address(t, endpoint(a, testkit.FreePort(t))))
		network := service.TCP4
		if kind == unix.AF_INET6 {
			network = service.TCP6
		}
		before := look(t, fd, network)

		adoptRow(t, fd, row(plain())).Close()
		expect(t, "no options", look(t, fd, network), before, nil)
		l := adoptRow(t, fd, row(plain()))
		if n := backlogOf(t, l); n != 5 {
			t.Errorf("the backlog is %d", n)
		}
		l.Close()

		s := plain()
		s.TOS, s.TTL, s.Nodelay, s.Backlog = 0x48, 9, true, 3
		want := map[option]int{nodelay: 1}
		if l.Endpoint.Dual || kind == unix.AF_INET {
			want[tos4], want[ttl4], want[priority] = 0x48, 9, 2
		}
		if kind == unix.AF_INET6 {
			want[tclass6], want[hops6] = 0x48, 9
		}
		l = adoptRow(t, fd, row(s))
		if l.Endpoint.Dual != a.IsUnspecified() {
			t.Errorf("%s: Dual is %v", a, l.Endpoint.Dual)
		}
		expect(t, "with options", look(t, fd, network), before, want)
		if n := backlogOf(t, l); n != 3 {
			t.Errorf("the backlog is %d, want 3", n)
		}
		l.Close()
		expect(t, "between", look(t, fd, network), before, want)
		adoptRow(t, fd, row(plain())).Close()
		expect(t, "without options again", look(t, fd, network), before, nil)
	}
}

// A dual socket has peers of both families.
func TestAdoptDual(t *testing.T) {
	testkit.Check(t)
	fd := made(t, unix.AF_INET6, unix.SOCK_STREAM, 0)
	unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0)
	bindTo(t, fd, address(t, endpoint(netip.IPv6Unspecified(), testkit.FreePort(t))))
	l := adoptRow(t, fd, row(plain()))
	for _, a := range []netip.Addr{loopback4, loopback6} {
		dial(t, endpoint(a, int(l.Endpoint.Addr.Port())))
		conn, peer := accept(t, l)
		if peer.Addr.Addr() != a || l.Local(conn).Addr.Addr() != a {
			t.Errorf("peer %v, local %v, want %v", peer, l.Local(conn), a)
		}
	}
}

// The filter of a passed socket outlives the Listener, and the next one has it
// judge by its own rules.
func TestAdoptAccess(t *testing.T) {
	testkit.Check(t)
	fd := made(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	bindTo(t, fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: testkit.FreePort(t)})
	wait := func(r *access.Rules) *service.Service {
		sv := row(plain())
		sv.Wait, sv.Access = true, r
		return sv
	}
	for i, c := range []struct {
		sv   *service.Service
		want string
	}{
		{wait(rules(t, "127.0.0.2/32")), "31"}, {wait(rules(t, "127.0.0.3/32")), "21"},
		{wait(nil), "231"}, {row(plain()), "231"}, {wait(rules(t, "127.0.0.2/31")), "1"},
	} {
		l := adoptRow(t, fd, c.sv)
		if got := received(t, l); got != c.want {
			t.Errorf("row %d gets %s, want %s", i, got, c.want)
		}
		l.Close()
	}
	// A daemon that is started anew finds the filter, and changes it.
	for _, c := range []struct {
		sv   *service.Service
		want string
	}{{wait(rules(t, "127.0.0.2/32")), "31"}, {wait(nil), "231"}, {row(plain()), "231"}, {wait(rules(t, "127.0.0.3/32")), "21"}} {
		restarted()
		l := adoptRow(t, fd, c.sv)
		if got := received(t, l); got != c.want {
			t.Errorf("after a restart the row gets %s, want %s", got, c.want)
		}
		l.Close()
	}
	restarted()
}

// restarted has this process know no more of passed sockets than one that was just
// started.
func restarted() {
	inherited.Lock()
	defer inherited.Unlock()
	for _, g := range inherited.guards {
		g.close()
	}
	clear(inherited.guards)
}

// Somebody else's filter stays, and the socket is not served.
func TestAdoptLocked(t *testing.T) {
	testkit.Check(t)
	fd := made(t, unix.AF_INET, unix.SOCK_DGRAM, 0)
	bindTo(t, fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: testkit.FreePort(t)})
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1); err != nil {
		t.Fatal(err)
	}
	ep, _, err := Inspect(fd)
	if err != nil {
		t.Fatal(err)
	}
	for _, wait := range []bool{false, true} {
		sv := row(plain())
		sv.Wait = wait
		if l, err := Adopt(fd, ep, sv); !errors.Is(err, ErrLocked) {
			if err == nil {
				l.Close()
			}
			t.Errorf("a socket with somebody else's filter: %v", err)
		}
	}
}

func TestAdoptErrors(t *testing.T) {
	testkit.Check(t)
	if l, err := Adopt(1<<20, endpoint(loopback4, 9), row(plain())); !errors.Is(err, unix.EBADF) {
		if err == nil {
			l.Close()
		}
		t.Errorf("no descriptor: %v", err)
	}
	// MPTCP takes no filter: nothing is let in unjudged.
	fd := made(t, unix.AF_INET, unix.SOCK_STREAM, ipprotoMPTCP)
	bindTo(t, fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: testkit.FreePort(t)})
	sv := row(plain())
	sv.Wait, sv.Access = true, rules(t, "127.0.0.2/32")
	ep, _, err := Inspect(fd)
	if err != nil {
		t.Fatal(err)
	}
	if l, err := Adopt(fd, ep, sv); !errors.Is(err, unix.EOPNOTSUPP) {
		if err == nil {
			l.Close()
		}
		t.Errorf("a filter on MPTCP: %v", err)
	}
}
