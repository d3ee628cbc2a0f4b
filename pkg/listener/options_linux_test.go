package listener

import (
	"bufio"
	"maps"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// An option is one thing that getsockopt(2) tells of a socket.
type option struct {
	word        string
	level, name int
}

var (
	keepalive = option{"SO_KEEPALIVE", unix.SOL_SOCKET, unix.SO_KEEPALIVE}
	keepIdle  = option{"TCP_KEEPIDLE", unix.IPPROTO_TCP, unix.TCP_KEEPIDLE}
	keepIntvl = option{"TCP_KEEPINTVL", unix.IPPROTO_TCP, unix.TCP_KEEPINTVL}
	keepCnt   = option{"TCP_KEEPCNT", unix.IPPROTO_TCP, unix.TCP_KEEPCNT}
	nodelay   = option{"TCP_NODELAY", unix.IPPROTO_TCP, unix.TCP_NODELAY}
	deferring = option{"TCP_DEFER_ACCEPT", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT}
	reuseport = option{"SO_REUSEPORT", unix.SOL_SOCKET, unix.SO_REUSEPORT}
	freebind4 = option{"IP_FREEBIND", unix.IPPROTO_IP, unix.IP_FREEBIND}
	freebind6 = option{"IPV6_FREEBIND", unix.IPPROTO_IPV6, unix.IPV6_FREEBIND}
	rcvbuf    = option{"SO_RCVBUF", unix.SOL_SOCKET, unix.SO_RCVBUF}
	sndbuf    = option{"SO_SNDBUF", unix.SOL_SOCKET, unix.SO_SNDBUF}
	mark      = option{"SO_MARK", unix.SOL_SOCKET, unix.SO_MARK}
	tos4      = option{"IP_TOS", unix.IPPROTO_IP, unix.IP_TOS}
	tclass6   = option{"IPV6_TCLASS", unix.IPPROTO_IPV6, unix.IPV6_TCLASS}
	protocol  = option{"SO_PROTOCOL", unix.SOL_SOCKET, unix.SO_PROTOCOL}
	v6only    = option{"IPV6_V6ONLY", unix.IPPROTO_IPV6, unix.IPV6_V6ONLY}
	linger    = option{"TCP_LINGER2", unix.IPPROTO_TCP, unix.TCP_LINGER2}
	userTime  = option{"TCP_USER_TIMEOUT", unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT}
	quickack  = option{"TCP_QUICKACK", unix.IPPROTO_TCP, unix.TCP_QUICKACK}
	bufLock   = option{"SO_BUF_LOCK", unix.SOL_SOCKET, unix.SO_BUF_LOCK}
	ttl4      = option{"IP_TTL", unix.IPPROTO_IP, unix.IP_TTL}
	hops6     = option{"IPV6_UNICAST_HOPS", unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS}
	priority  = option{"SO_PRIORITY", unix.SOL_SOCKET, unix.SO_PRIORITY}
	trans4    = option{"IP_TRANSPARENT", unix.IPPROTO_IP, unix.IP_TRANSPARENT}
	trans6    = option{"IPV6_TRANSPARENT", unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT}
	broadcast = option{"SO_BROADCAST", unix.SOL_SOCKET, unix.SO_BROADCAST}
	reuseaddr = option{"SO_REUSEADDR", unix.SOL_SOCKET, unix.SO_REUSEADDR}
	passcred  = option{"SO_PASSCRED", unix.SOL_SOCKET, unix.SO_PASSCRED}
	lowat     = option{"SO_RCVLOWAT", unix.SOL_SOCKET, unix.SO_RCVLOWAT}
)

// A setting is one option of a row, and what the kernel then shows of it.
type setting struct {
	name   string
	socket func(*service.Socket)
	four   map[option]int // on a v4 socket
	six    map[option]int // on a v6 socket; nil: as four
}

// deferred is 7: the kernel counts in retransmissions, after 1, 3 and 7 s.
var settings = []setting{
	{"keepalive", func(s *service.Socket) { s.Keepalive.On = true }, map[option]int{keepalive: 1}, nil},
	{"keepalive clocks", func(s *service.Socket) {
		s.Keepalive = service.Keepalive{On: true, Idle: 61 * time.Second, Interval: 11 * time.Second, Count: 4}
	}, map[option]int{keepalive: 1, keepIdle: 61, keepIntvl: 11, keepCnt: 4}, nil},
	{"nodelay", func(s *service.Socket) { s.Nodelay = true }, map[option]int{nodelay: 1}, nil},
	{"defer_accept", func(s *service.Socket) { s.DeferAccept = 7 * time.Second }, map[option]int{deferring: 7}, nil},
	{"reuseport", func(s *service.Socket) { s.ReusePort = true }, map[option]int{reuseport: 1}, nil},
	{"freebind", func(s *service.Socket) { s.Freebind = true }, map[option]int{freebind4: 1}, map[option]int{freebind4: 1, freebind6: 1}},
	{"rcvbuf", func(s *service.Socket) { s.Rcvbuf = 40000 }, map[option]int{rcvbuf: 80000}, nil},
	{"sndbuf", func(s *service.Socket) { s.Sndbuf = 50000 }, map[option]int{sndbuf: 100000}, nil},
	{"mark", func(s *service.Socket) { s.Mark = 0x2a }, map[option]int{mark: 0x2a}, nil},
	{"mark of 32 bits", func(s *service.Socket) { s.Mark = 0xfffffffe }, map[option]int{mark: -2}, nil},
	{"tos", func(s *service.Socket) { s.TOS = 0x48 }, map[option]int{tos4: 0x48, priority: 2}, map[option]int{tclass6: 0x48}},
	{"priority", func(s *service.Socket) { s.Priority = 5 }, map[option]int{priority: 5}, nil},
	{"tos and priority", func(s *service.Socket) { s.TOS, s.Priority = 0x10, 3 }, map[option]int{tos4: 0x10, priority: 3}, map[option]int{tclass6: 0x10, priority: 3}},
	{"ttl", func(s *service.Socket) { s.TTL = 5 }, map[option]int{ttl4: 5}, map[option]int{hops6: 5}},
	{"transparent", func(s *service.Socket) { s.Transparent = true }, map[option]int{trans4: 1}, map[option]int{trans4: 1, trans6: 1}},
	{"tos 0", func(s *service.Socket) { s.TOS = 0 }, map[option]int{tos4: 0}, map[option]int{tclass6: 0}},
}

// retunable are the settings that Retune can change.
func (s setting) retunable() bool { return s.name != "reuseport" && s.name != "freebind" }

func (s setting) on(network service.Network) map[option]int {
	if network == service.TCP6 && s.six != nil {
		return s.six
	}
	return s.four
}

// accepted is on for a connection: TCP_DEFER_ACCEPT is a listener's alone.
func (s setting) accepted(network service.Network) map[option]int {
	m := maps.Clone(s.on(network))
	delete(m, deferring)
	if s.name == "tos" {
		delete(m, priority) // what the kernel makes of it is not handed on
	}
	return m
}

// optionsOf are what a socket of a family can be asked for.
func optionsOf(network service.Network) []option {
	list := []option{
		keepalive, keepIdle, keepIntvl, keepCnt, nodelay, deferring, reuseport, freebind4, rcvbuf, sndbuf,
		mark, tos4, protocol, linger, userTime, quickack, bufLock, lowat, ttl4, priority, trans4, broadcast, reuseaddr,
	}
	if network == service.TCP6 {
		list = append(list, freebind6, tclass6, v6only, hops6, trans6)
	}
	return list
}

// look asks for all options of a socket.
func look(t *testing.T, fd int, network service.Network) map[option]int {
	t.Helper()
	m := make(map[option]int)
	for _, o := range optionsOf(network) {
		m[o] = getInt(t, fd, o.level, o.name)
	}
	// Says how many acknowledgements are due at once: it changes by itself.
	delete(m, quickack)
	return m
}

// expect compares a socket with what it is without any option, but for what is
// set.
func expect(t *testing.T, what string, got, without, set map[option]int) {
	t.Helper()
	for o, have := range got {
		want, ok := set[o]
		if !ok {
			want = without[o]
			// A size that is set locks that buffer.
			if _, sized := set[rcvbuf]; o == bufLock && sized {
				want = unix.SOCK_RCVBUF_LOCK
			} else if _, sized := set[sndbuf]; o == bufLock && sized {
				want = unix.SOCK_SNDBUF_LOCK
			}
		}
		if have != want {
			t.Errorf("%s: %s is %d, want %d", what, o.word, have, want)
		}
	}
}

// untouched are a listener and a connection of the system's own making: a
// socket, bound and listening, with no option but what every row has.
func untouched(t *testing.T, a netip.Addr) (listening, accepted map[option]int) {
	t.Helper()
	l := open(t, a, plain())
	_, fd, _ := connect(t, l)
	return look(t, l.Fd(), l.Endpoint.Network), look(t, fd, l.Endpoint.Network)
}

// Go sets TCP_NODELAY, SO_KEEPALIVE with clocks of its own and MPTCP on what it
// listens on and accepts; inetd's children have never seen that.
func TestNoOptionOfGoReachesAChild(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		l := open(t, a, plain())
		_, fd, _ := connect(t, l)
		raw, err := unix.Socket(map[bool]int{true: unix.AF_INET, false: unix.AF_INET6}[a.Is4()], unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(raw)
		kernel := look(t, raw, l.Endpoint.Network)
		for what, fd := range map[string]int{"listener": l.Fd(), "accepted": fd} {
			got := look(t, fd, l.Endpoint.Network)
			for _, o := range []option{nodelay, keepalive, deferring, reuseport, freebind4, mark, tos4, bufLock} {
				if got[o] != 0 {
					t.Errorf("%s %s: %s is %d, want 0", a, what, o.word, got[o])
				}
			}
			for _, o := range []option{keepIdle, keepIntvl, keepCnt, userTime, linger, lowat} {
				if got[o] != kernel[o] {
					t.Errorf("%s %s: %s is %d, the kernel's own is %d", a, what, o.word, got[o], kernel[o])
				}
			}
			if got[protocol] != unix.IPPROTO_TCP {
				t.Errorf("%s %s: SO_PROTOCOL is %d, want TCP", a, what, got[protocol])
			}
			if a.Is6() && got[v6only] != 1 {
				t.Errorf("%s %s: IPV6_V6ONLY is %d, want 1", a, what, got[v6only])
			}
			if dev, _ := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE); dev != "" {
				t.Errorf("%s %s: bound to device %q", a, what, dev)
			}
		}
	}
}

func TestEachOptionOnListenerAndAccepted(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		bareListener, bareAccepted := untouched(t, a)
		for _, c := range settings {
			t.Run(a.String()+" "+c.name, func(t *testing.T) {
				s := plain()
				c.socket(&s)
				l := open(t, a, s)
				_, fd, _ := connect(t, l)
				network := l.Endpoint.Network
				expect(t, "listener", look(t, l.Fd(), network), bareListener, c.on(network))
				expect(t, "accepted", look(t, fd, network), bareAccepted, c.accepted(network))
			})
		}
	}
}

func TestBindToDevice(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		s := plain()
		s.BindToDevice = "lo"
		l := open(t, a, s)
		_, fd, _ := connect(t, l)
		for what, fd := range map[string]int{"listener": l.Fd(), "accepted": fd} {
			dev, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
			if err != nil || strings.TrimRight(dev, "\x00") != "lo" {
				t.Errorf("%s %s: SO_BINDTODEVICE is %q, %v, want lo", a, what, dev, err)
			}
		}
	}
}

// Freebind is for addresses that are not there yet.
func TestFreebindNeedsNoAddress(t *testing.T) {
	testkit.Check(t)
	for _, a := range []string{"192.0.2.77", "2001:db8::77"} {
		s := plain()
		s.Freebind = true
		open(t, netip.MustParseAddr(a), s)
	}
}

func TestReusePortSharesAnAddress(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		s := plain()
		s.ReusePort = true
		l := open(t, a, s)
		second, err := Open(l.Endpoint, row(s))
		if err != nil {
			t.Fatalf("a second listener on %s: %v", a, err)
		}
		second.Close()
		if third, err := Open(l.Endpoint, row(plain())); err == nil {
			third.Close()
			t.Errorf("a listener without reuseport shares %s", a)
		}
	}
}

// Retune there and back leaves a socket as if nothing had ever been set.
func TestRetune(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		bareListener, bareAccepted := untouched(t, a)
		for _, c := range settings {
			if !c.retunable() {
				continue
			}
			t.Run(a.String()+" "+c.name, func(t *testing.T) {
				s := plain()
				c.socket(&s)
				l := open(t, a, plain())
				network := l.Endpoint.Network
				// A peer that waits in the queue stays in it.
				early, _, _ := connect(t, l)
				defer early.Close()

				if err := l.Retune(row(plain()), row(s)); err != nil {
					t.Fatal(err)
				}
				_, fd, _ := connect(t, l)
				expect(t, "listener", look(t, l.Fd(), network), bareListener, c.on(network))
				expect(t, "accepted", look(t, fd, network), bareAccepted, c.accepted(network))

				if err := l.Retune(row(s), row(plain())); err != nil {
					t.Fatal(err)
				}
				_, fd, _ = connect(t, l)
				expect(t, "listener, back", look(t, l.Fd(), network), bareListener, nil)
				expect(t, "accepted, back", look(t, fd, network), bareAccepted, nil)
			})
		}
	}
}

func TestRetuneFromOneSettingToAnother(t *testing.T) {
	testkit.Check(t)
	bareListener, bareAccepted := untouched(t, loopback4)
	l := open(t, loopback4, plain())
	old := plain()
	for _, c := range settings {
		if !c.retunable() {
			continue
		}
		s := plain()
		c.socket(&s)
		if err := l.Retune(row(old), row(s)); err != nil {
			t.Fatalf("to %s: %v", c.name, err)
		}
		_, fd, _ := connect(t, l)
		expect(t, "listener with "+c.name, look(t, l.Fd(), service.TCP4), bareListener, c.four)
		expect(t, "accepted with "+c.name, look(t, fd, service.TCP4), bareAccepted, c.accepted(service.TCP4))
		old = s
	}
}

func TestRetuneKeepsTheQueue(t *testing.T) {
	testkit.Check(t)
	l := open(t, loopback4, plain())
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	to := &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(l.Endpoint.Addr.Port())}
	if err := unix.Connect(c, to); err != nil {
		t.Fatal(err)
	}
	s := plain()
	s.Backlog, s.Nodelay, s.Keepalive.On, s.TOS = 5, true, true, 8
	if err := l.Retune(row(plain()), row(s)); err != nil {
		t.Fatal(err)
	}
	if n := waiting(t, l); n != 1 {
		t.Errorf("%d connections wait after Retune, want 1", n)
	}
	accept(t, l)
}

// An option that cannot be set leaves the others as they were.
func TestRetuneThatFailsChangesNothing(t *testing.T) {
	testkit.Check(t)
	l := open(t, loopback4, plain())
	before := look(t, l.Fd(), service.TCP4)
	s := plain()
	s.Keepalive = service.Keepalive{On: true, Idle: 60 * time.Second, Count: 1000} // at most 127, tcp(7)
	s.Nodelay = true
	if err := l.Retune(row(plain()), row(s)); err == nil {
		t.Fatal("TCP_KEEPCNT 1000 was taken")
	}
	expect(t, "listener", look(t, l.Fd(), service.TCP4), before, nil)
}

func TestBacklog(t *testing.T) {
	testkit.Check(t)
	b, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if err != nil {
		t.Fatal(err)
	}
	most, err := strconv.Atoi(strings.TrimSpace(string(b)))
	if err != nil {
		t.Fatal(err)
	}
	for _, a := range []netip.Addr{loopback4, loopback6} {
		l := open(t, a, plain())
		if n := backlogOf(t, l); n != most {
			t.Errorf("%s: backlog %d, want the kernel's maximum %d", a, n, most)
		}
		s := plain()
		s.Backlog = 7
		if err := l.Retune(row(plain()), row(s)); err != nil {
			t.Fatal(err)
		}
		if n := backlogOf(t, l); n != 7 {
			t.Errorf("%s: backlog %d after Retune, want 7", a, n)
		}
		if err := l.Retune(row(s), row(plain())); err != nil {
			t.Fatal(err)
		}
		if n := backlogOf(t, l); n != most {
			t.Errorf("%s: backlog %d after Retune back, want %d", a, n, most)
		}
		if n := backlogOf(t, open(t, a, s)); n != 7 {
			t.Errorf("%s: backlog %d, want 7", a, n)
		}
	}
}

// backlogOf is what ss(8) shows as Send-Q: of a listening socket TCP_INFO has
// the length of the queue in tcpi_unacked and the backlog in tcpi_sacked.
func backlogOf(t *testing.T, l *Listener) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(l.Fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Sacked)
}

func waiting(t *testing.T, l *Listener) int {
	t.Helper()
	info, err := unix.GetsockoptTCPInfo(l.Fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		t.Fatal(err)
	}
	return int(info.Unacked)
}

// TestDescriptors: a child must get a blocking socket, the daemon must not be
// held by its own, and neither may be inherited.
func TestDescriptors(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		l := open(t, a, plain())
		_, fd, _ := connect(t, l)
		for what, c := range map[string]struct {
			fd       int
			nonblock bool
		}{"listener": {l.Fd(), true}, "accepted": {fd, false}} {
			flags, err := unix.FcntlInt(uintptr(c.fd), unix.F_GETFL, 0)
			if err != nil {
				t.Fatal(err)
			}
			if got := flags&unix.O_NONBLOCK != 0; got != c.nonblock {
				t.Errorf("%s %s: O_NONBLOCK is %v", a, what, got)
			}
			flags, err = unix.FcntlInt(uintptr(c.fd), unix.F_GETFD, 0)
			if err != nil {
				t.Fatal(err)
			}
			if flags&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s %s: not close-on-exec", a, what)
			}
		}
		if n := getInt(t, l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEADDR); n != 1 {
			t.Errorf("%s: SO_REUSEADDR is %d", a, n)
		}
	}
}

// TestListenersInProc: what the rest of the system sees of a listener.
func TestListenersInProc(t *testing.T) {
	testkit.Check(t)
	for _, c := range []struct {
		a    netip.Addr
		file string
		hex  string
	}{
		{loopback4, "/proc/net/tcp", "0100007F"},
		{netip.IPv4Unspecified(), "/proc/net/tcp", "00000000"},
		{loopback6, "/proc/net/tcp6", "00000000000000000000000001000000"},
		{netip.IPv6Unspecified(), "/proc/net/tcp6", "00000000000000000000000000000000"},
	} {
		l := open(t, c.a, plain())
		f, err := os.Open(c.file)
		if err != nil {
			t.Fatal(err)
		}
		want := c.hex + ":" + strings.ToUpper(strconv.FormatInt(int64(l.Endpoint.Addr.Port()), 16))
		found := false
		for s := bufio.NewScanner(f); s.Scan(); {
			field := strings.Fields(s.Text())
			found = found || len(field) > 3 && field[1] == want && field[3] == "0A" // TCP_LISTEN
		}
		f.Close()
		if !found {
			t.Errorf("%s has no listener %s", c.file, want)
		}
	}
}
