package listener

import (
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// unset is the options of a socket as the kernel makes it.
var unset = service.Socket{TOS: -1, UID: -1, GID: -1}

// setup sets what must stand before bind(2), then all the rest.
func setup(fd int, ep service.Endpoint, s service.Socket) error {
	v6, ip := ep.Network.V6(), ep.Network.IP()
	for _, o := range []struct {
		on               bool
		level, name, val int
		word             string
	}{
		// Without it a restart would wait for TIME_WAIT of old connections. On
		// UDP it would let two daemons have the same address.
		{ep.Network.TCP(), unix.SOL_SOCKET, unix.SO_REUSEADDR, 1, "SO_REUSEADDR"},
		{v6, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 1, "IPV6_V6ONLY"},
		{s.ReusePort && ep.Network.TCP(), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1, "SO_REUSEPORT"},
		{s.Freebind && ip && !v6, unix.IPPROTO_IP, unix.IP_FREEBIND, 1, "IP_FREEBIND"},
		{s.Freebind && v6, unix.IPPROTO_IPV6, unix.IPV6_FREEBIND, 1, "IPV6_FREEBIND"},
	} {
		if !o.on {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	if s.BindToDevice != "" && ip {
		err := unix.SetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE, s.BindToDevice)
		if err == unix.ENODEV {
			return fmt.Errorf("%w: there is no interface %q", ErrNotUp, s.BindToDevice)
		}
		if err != nil {
			return os.NewSyscallError("setsockopt SO_BINDTODEVICE", err)
		}
	}
	return tune(fd, ep, unset, s)
}

// tune takes the options of a socket from old to s: what the row does not name
// is left at, or set back to, the kernel's default.
func tune(fd int, ep service.Endpoint, old, s service.Socket) error {
	same := s // but for its file, which is redress's
	same.Mode, same.UID, same.GID, same.DirectoryMode = old.Mode, old.UID, old.GID, old.DirectoryMode
	if same == old { // as for most rows
		return nil
	}
	was := numbers(ep, old)
	for i, o := range numbers(ep, s) {
		if o.val == was[i].val {
			continue
		}
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	if err := tunePriority(fd, ep, old, s); err != nil {
		return err
	}
	if ep.Network.TCP() && old.Congestion != s.Congestion {
		if err := tuneCongestion(fd, s.Congestion); err != nil {
			return err
		}
	}
	if err := tuneBuffers(fd, ep, old, s); err != nil {
		return err
	}
	if old.Backlog != s.Backlog && !ep.Network.Dgram() {
		if on, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN); err == nil && on == 1 {
			return os.NewSyscallError("listen", unix.Listen(fd, backlog(s)))
		}
	}
	return nil
}

// A number is an option of setsockopt(2) and what it is to be.
type number struct {
	level, name, val int
	word             string
}

// numbers are the options that mean something for ep, in the same order whatever
// s says.
func numbers(ep service.Endpoint, s service.Socket) (list []number) {
	boolean := map[bool]int{true: 1}
	ttl := s.TTL
	if ttl == 0 {
		ttl = -1 // back to the default
	}
	if ep.Network.TCP() {
		list = append(list,
			number{unix.SOL_SOCKET, unix.SO_KEEPALIVE, boolean[s.Keepalive.On], "SO_KEEPALIVE"},
			number{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(s.Keepalive.Idle, idle), "TCP_KEEPIDLE"},
			number{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(s.Keepalive.Interval, interval), "TCP_KEEPINTVL"},
			number{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, count(s.Keepalive.Count), "TCP_KEEPCNT"},
			number{unix.IPPROTO_TCP, unix.TCP_NODELAY, boolean[s.Nodelay], "TCP_NODELAY"},
			number{unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, int(s.DeferAccept / time.Second), "TCP_DEFER_ACCEPT"},
		)
	}
	if ep.Network.UDP() {
		list = append(list,
			number{unix.SOL_SOCKET, unix.SO_BROADCAST, boolean[s.Broadcast], "SO_BROADCAST"},
			number{unix.SOL_SOCKET, unix.SO_REUSEPORT, boolean[s.ReusePort], "SO_REUSEPORT"},
		)
	}
	if ep.Network.IP() {
		list = append(list, number{unix.SOL_SOCKET, unix.SO_MARK, int(s.Mark), "SO_MARK"})
	}
	if four(ep) {
		list = append(list,
			number{unix.IPPROTO_IP, unix.IP_TTL, ttl, "IP_TTL"},
			number{unix.IPPROTO_IP, unix.IP_TRANSPARENT, boolean[s.Transparent], "IP_TRANSPARENT"},
		)
	}
	if ep.Network.V6() {
		list = append(list,
			number{unix.IPPROTO_IPV6, unix.IPV6_TCLASS, max(s.TOS, 0), "IPV6_TCLASS"},
			number{unix.IPPROTO_IPV6, unix.IPV6_UNICAST_HOPS, ttl, "IPV6_UNICAST_HOPS"},
			number{unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT, boolean[s.Transparent], "IPV6_TRANSPARENT"},
		)
	}
	if ep.Network.Unix() {
		list = append(list, number{unix.SOL_SOCKET, unix.SO_PASSCRED, boolean[s.PassCred], "SO_PASSCRED"})
	}
	return list
}

// four reports whether v4 packets come from sockets of ep.
func four(ep service.Endpoint) bool { return ep.Network.IP() && (!ep.Network.V6() || ep.Dual) }

// tunePriority sets SO_PRIORITY and IP_TOS together: whenever IP_TOS changes,
// and only then, the kernel makes a priority of it, socket(7).
func tunePriority(fd int, ep service.Endpoint, old, s service.Socket) error {
	if !ep.Network.IP() || old.Priority == s.Priority && old.TOS == s.TOS {
		return nil
	}
	list := []number{{unix.SOL_SOCKET, unix.SO_PRIORITY, 0, "SO_PRIORITY"}}
	if four(ep) {
		list = append(list, number{unix.IPPROTO_IP, unix.IP_TOS, 0, "IP_TOS"}, number{unix.IPPROTO_IP, unix.IP_TOS, max(s.TOS, 0), "IP_TOS"})
	}
	if s.Priority != 0 {
		list = append(list, number{unix.SOL_SOCKET, unix.SO_PRIORITY, s.Priority, "SO_PRIORITY"})
	}
	for _, o := range list {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.val); err != nil {
			return os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	return nil
}

// tuneCongestion sets the algorithm by its name; the empty one is the kernel's
// own choice.
func tuneCongestion(fd int, name string) error {
	if name == "" {
		b, err := os.ReadFile("/proc/sys/net/ipv4/tcp_congestion_control")
		if err != nil {
			return fmt.Errorf("finding out the kernel's congestion control: %w", err)
		}
		name = strings.TrimSpace(string(b))
	}
	if err := unix.SetsockoptString(fd, unix.IPPROTO_TCP, unix.TCP_CONGESTION, name); err != nil {
		return fmt.Errorf("setsockopt TCP_CONGESTION %q: %w", name, err)
	}
	return nil
}

func tuneBuffers(fd int, ep service.Endpoint, old, s service.Socket) error {
	rmem, wmem := "/proc/sys/net/core/rmem_default", "/proc/sys/net/core/wmem_default"
	rsize, wsize := 212992, 212992
	if ep.Network.TCP() {
		rmem, wmem = "/proc/sys/net/ipv4/tcp_rmem", "/proc/sys/net/ipv4/tcp_wmem"
		rsize, wsize = 131072, 16384
	}
	for _, o := range []struct {
		name, lock int
		was, val   int
		file       string
		otherwise  int
	}{
		{unix.SO_RCVBUF, unix.SOCK_RCVBUF_LOCK, old.Rcvbuf, s.Rcvbuf, rmem, rsize},
		{unix.SO_SNDBUF, unix.SOCK_SNDBUF_LOCK, old.Sndbuf, s.Sndbuf, wmem, wsize},
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
