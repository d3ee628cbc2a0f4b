package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func closeFd(fd int) { unix.Close(fd) }

func unlisten(fd int) { unix.Shutdown(fd, unix.SHUT_RD) }

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err != nil || n > 0
}

func (l *Listener) open(s service.Socket) (err error) {
	if l.fd, l.zone, err = bind(l.Endpoint, s); err != nil {
		return err
	}
	if l.Endpoint.Network.UDP() {
		return l.SetBlocking(l.wait)
	}
	defer func() { l.SetBlocking(l.wait) }()
	if err := unix.Listen(l.fd, backlog(s)); err != nil {
		unix.Close(l.fd)
		return os.NewSyscallError("listen", err)
	}
	return nil
}

// bind makes a socket with all of its options that has its address and does
// not listen yet. The descriptor is the caller's if there is no error.
func bind(ep service.Endpoint, s service.Socket) (fd int, zone uint32, err error) {
	domain := unix.AF_INET
	if ep.Network == service.TCP6 {
		domain = unix.AF_INET6
	}
	// A plain TCP socket, not MPTCP: inetd's children look at SO_PROTOCOL.
	typ, proto := unix.SOCK_STREAM, unix.IPPROTO_TCP
	if ep.Network.UDP() {
		typ, proto = unix.SOCK_DGRAM, 0
	}
	fd, err = unix.Socket(domain, typ|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, proto)
	if err == unix.EAFNOSUPPORT {
		return 0, 0, fmt.Errorf("%w: this system has no IPv6", ErrNotUp)
	}
	if err != nil {
		return 0, 0, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	if err := setup(fd, ep, s); err != nil {
		return fd, 0, err
	}
	addr, zone, err := sockaddr(ep.Addr)
	if err != nil {
		return fd, 0, err
	}
	switch err := unix.Bind(fd, addr); err {
	case nil:
		return fd, zone, nil
	case unix.EADDRNOTAVAIL, unix.ENODEV:
		return fd, 0, fmt.Errorf("%w (bind: %v)", ErrNotUp, err)
	default:
		return fd, 0, os.NewSyscallError("bind", err)
	}
}

func isUp(a netip.Addr, device string) bool {
	ep := service.Endpoint{Network: service.TCP4, Addr: netip.AddrPortFrom(a, 0)}
	if a.Is6() {
		ep.Network = service.TCP6
	}
	fd, _, err := bind(ep, service.Socket{TOS: -1, BindToDevice: device})
	if err == nil {
		unix.Close(fd)
	}
	return !errors.Is(err, ErrNotUp)
}

// setup sets what must stand before bind(2), then all the rest.
func setup(fd int, ep service.Endpoint, s service.Socket) error {
	type option struct {
		on               bool
		level, name, val int
		word             string
	}
	v6 := ep.Network == service.TCP6
	for _, o := range []option{
		// Without it a restart would wait for TIME_WAIT of old connections.
		{true, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{v6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY"},
		{s.ReusePort, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		{s.Freebind && !v6, unix.IPPROTO_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND"},
		{s.Freebind && v6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND"},
	} {
		if !o.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	if s.BindToDevice != "" {
		err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, s.BindToDevice)
		if err == unix.ENODEV {
			return fmt.Errorf("%w: there is no interface %q", ErrNotUp, s.BindToDevice)
		}
		if err != nil {
			return os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
		}
	}
	return tune(fd, ep.Network, service.Socket{TOS: -1}, s)
}

// tune takes the options of a socket from old to s: what the row does not name
// is left at, or set back to, the kernel's default.
func tune(fd int, network service.Network, old, s service.Socket) error {
	boolean := map[bool]int{true: 1}
	tosLevel, tosName := unix.IPPROTO_IP, unix.IP_TOS
	if network == service.TCP6 {
		tosLevel, tosName = unix.IPPROTO_IPV6, unix.IPV6_TCLASS
	}
	for _, o := range []struct {
		level, name int
		was, val    int
		word        string
	}{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, boolean[old.Keepalive.On], boolean[s.Keepalive.On], "SO_KEEPALIVE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(old.Keepalive.Idle, idle), seconds(s.Keepalive.Idle, idle), "TCP_KEEPIDLE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(old.Keepalive.Interval, interval), seconds(s.Keepalive.Interval, interval), "TCP_KEEPINTVL"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count(old.Keepalive.Count), count(s.Keepalive.Count), "TCP_KEEPCNT"},
		{unix.IPPROTO_TCP, unix.TCP_NODELAY, boolean[old.Nodelay], boolean[s.Nodelay], "TCP_NODELAY"},
		{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(old.DeferAccept / time.Second), int(s.DeferAccept / time.Second), "TCP_DEFER_ACCEPT"},
		{unix.SOL_SOCKET, unix.SO_MARK, int(old.Mark), int(s.Mark), "SO_MARK"},
		{tosLevel, tosName, max(old.TOS, 0), max(s.TOS, 0), "IP_TOS"},
	} {
		if o.was == o.val {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	for _, o := range []struct {
		name, lock int
		was, val   int
		file       string
		otherwise  int
	}{
		{unix.SO_RCVBUF, unix.SOCK_RCVBUF_LOCK, old.Rcvbuf, s.Rcvbuf, "/proc/sys/net/ipv4/tcp_rmem", 131072},
		{unix.SO_SNDBUF, unix.SOCK_SNDBUF_LOCK, old.Sndbuf, s.Sndbuf, "/proc/sys/net/ipv4/tcp_wmem", 16384},
	} {
		if o.was == o.val {
			continue
		}
		automatic := o.val == 0
		if automatic {
			o.val = sysctl(o.file, o.otherwise) / 2 // the kernel doubles it
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt of a buffer size", err)
		}
		if automatic {
			// A size that was set stays as it is set. Linux 5.14 can take that
			// back; before, connections keep the size they begin with.
			if locks, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK); err == nil {
				unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BUF_LOCK, locks&^o.lock)
			}
		}
	}
	if old.Backlog != s.Backlog {
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			return os.NewSyscallError("listen", unix.Listen(fd, backlog(s)))
		}
	}
	return nil
}

// backlog is the row's, or as much as the kernel allows: it cuts the number
// down to net.core.somaxconn by itself.
func backlog(s service.Socket) int {
	if s.Backlog > 0 {
		return s.Backlog
	}
	return 1<<31 - 1
}

// The kernel's defaults of the keepalive clocks, tcp(7).
const (
	idle     = "/proc/sys/net/ipv4/tcp_keepalive_time"
	interval = "/proc/sys/net/ipv4/tcp_keepalive_intvl"
	probes   = "/proc/sys/net/ipv4/tcp_keepalive_probes"
)

var defaults = map[string]func() int{
	idle:     sync.OnceValue(func() int { return sysctl(idle, 7200) }),
	interval: sync.OnceValue(func() int { return sysctl(interval, 75) }),
	probes:   sync.OnceValue(func() int { return sysctl(probes, 9) }),
}

func seconds(d time.Duration, file string) int {
	if d == 0 {
		return defaults[file]()
	}
	return int(d / time.Second)
}

func count(n int) int {
	if n == 0 {
		return defaults[probes]()
	}
	return n
}

// sysctl reads a number. Of the three that tcp_rmem and tcp_wmem have, tcp(7),
// the second is the default.
func sysctl(file string, otherwise int) int {
	b, err := os.ReadFile(file)
	if err != nil {
		return otherwise
	}
	fields := strings.Fields(string(b))
	if len(fields) == 0 {
		return otherwise
	}
	n, err := strconv.Atoi(fields[len(fields)/2])
	if err != nil {
		return otherwise
	}
	return n
}

// sockaddr turns an address into the kernel's form; a zone becomes the index
// of the interface.
func sockaddr(a netip.AddrPort) (unix.Sockaddr, uint32, error) {
	if a.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}, 0, nil
	}
	sa := &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16()}
	if z := a.Addr().Zone(); z != "" {
		index, err := interfaceIndex(z)
		if err != nil {
			return nil, 0, err
		}
		sa.ZoneId = index
	}
	return sa, sa.ZoneId, nil
}

func interfaceIndex(name string) (uint32, error) {
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n), nil
	}
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return 0, fmt.Errorf("interface %q: %w", name, err)
	}
	s, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	defer unix.Close(s)
	if err := unix.IoctlIfreq(s, unix.SIOCGIFINDEX, ifr); err != nil {
		return 0, fmt.Errorf("%w: there is no interface %q", ErrNotUp, name)
	}
	return ifr.Uint32(), nil
}

func (l *Listener) accept() (int, netip.AddrPort, error) {
	for {
		// Without SOCK_NONBLOCK: the child gets a blocking socket for free.
		// Not x/sys's: that one asks for SO_PROTOCOL each time.
		fd, sa, err := syscall.Accept4(l.fd, syscall.SOCK_CLOEXEC)
		if err == syscall.EINTR {
			continue
		}
		if err != nil {
			return -1, netip.AddrPort{}, err
		}
		return fd, l.addrPort(sa), nil
	}
}

// Local is the address that the peer of conn, a socket accepted here, has
// connected to.
func (l *Listener) local(conn int) netip.AddrPort {
	if !l.Endpoint.Addr.Addr().IsUnspecified() {
		return l.Endpoint.Addr
	}
	sa, err := syscall.Getsockname(conn)
	if err != nil {
		return l.Endpoint.Addr
	}
	return l.addrPort(sa)
}

func (l *Listener) addrPort(sa syscall.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *syscall.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *syscall.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr).Unmap()
		if sa.ZoneId != 0 && a.Is6() {
			if sa.ZoneId == l.zone {
				a = a.WithZone(l.Endpoint.Addr.Addr().Zone())
			} else {
				a = a.WithZone(strconv.FormatUint(uint64(sa.ZoneId), 10))
			}
		}
		return netip.AddrPortFrom(a, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

func (l *Listener) SetBlocking(b bool) error { return unix.SetNonblock(l.fd, !b) }
