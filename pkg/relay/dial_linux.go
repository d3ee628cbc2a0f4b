package relay

import (
	"net"
	"net/netip"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// queueFull is how long to wait where the queue of a unix socket is full: there
// is nothing to be polled for then, connect(2).
const queueFull = 20 * time.Millisecond

// seek goes on with the targets until one is reached, one is waited for, or none
// is left.
func (l *Loop) seek(r *record) {
	d, f := r.dial, r.plan.Forward
	for ; d.target < len(f.Targets); d.next() {
		t := &f.Targets[d.target]
		if d.places == nil {
			if !d.begun {
				d.begun, d.limit = true, l.now+f.Timeout
			}
			list, ok, err := placesOf(t, l.names, l)
			if !ok {
				l.naming = append(l.naming, r)
				l.wait(r)
				return
			}
			if err != nil {
				d.note(t, err)
				continue
			}
			d.places = list
			d.limit = l.now + f.Timeout
		}
		for d.place < len(d.places) {
			fd, err := l.attempt(d.places[d.place], d.peer, f.Transparent)
			switch {
			case err == nil:
				r.sides[1].fd = int32(fd)
				if err = l.greet(r); err == nil {
					l.reached(r)
					return
				}
			case err == unix.EINPROGRESS:
				r.sides[1].fd = int32(fd)
				d.pending = true
				l.wait(r)
				return
			case err == unix.EAGAIN && l.now < d.limit:
				d.again = l.now + queueFull
				l.wait(r)
				return
			}
			l.nextPlace(r, err)
		}
	}
	l.unreachable(r)
}

// nextPlace notes why a place did not do, and goes to the next one.
func (l *Loop) nextPlace(r *record, err error) {
	d := r.dial
	d.note(&r.plan.Forward.Targets[d.target], err)
	l.closeSide(&r.sides[1], false)
	d.place++
	d.pending, d.again = false, 0
	d.limit = l.now + r.plan.Forward.Timeout
}

// wait leaves the record to its events and to the clock.
func (l *Loop) wait(r *record) {
	if err := l.watch(r); err != nil {
		l.end(r, Failed, err)
		return
	}
	l.schedule(r)
}

// dialed looks at an event of a record that has no target yet.
func (l *Loop) dialed(r *record, s int, events uint32) {
	switch {
	case s == 0 && events&unix.EPOLLERR != 0:
		l.fail(r, unix.ECONNRESET)
	case s == 1 && r.dial.pending:
		n, err := unix.GetsockoptInt(int(r.sides[1].fd), unix.SOL_SOCKET, unix.SO_ERROR)
		if err == nil && n != 0 {
			err = unix.Errno(n)
		}
		if err == nil {
			err = l.greet(r)
		}
		if err != nil {
			l.nextPlace(r, err)
			l.seek(r)
			return
		}
		l.reached(r)
	}
}

// overdue is called when a target has not answered in time, or is to be tried
// once more.
func (l *Loop) overdue(r *record) {
	d := r.dial
	switch {
	case l.now < d.limit: // d.again
		d.again = 0
	case d.places == nil:
		d.note(&r.plan.Forward.Targets[d.target], errNameTimeout)
		d.next()
	default:
		l.nextPlace(r, errTimeout)
	}
	l.seek(r)
}

// reached begins to relay.
func (l *Loop) reached(r *record) {
	d := r.dial
	r.dial, r.err = nil, d.errors()
	r.target = int32(d.target) + 1
	if d.places[d.place].path == "" {
		fd := int(r.sides[1].fd)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
		if r.plan.Idle == 0 {
			// A target that has vanished is to be found out some time.
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		}
	}
	if r.tcp {
		// A relay is not to wait for more: whoever has said it did not.
		unix.SetsockoptInt(int(r.sides[0].fd), unix.IPPROTO_TCP, unix.TCP_NODELAY, 1)
	}
	l.begin(r)
}

// unreachable ends a record that no target has accepted. An orderly end would be
// taken for an empty answer.
func (l *Loop) unreachable(r *record) {
	r.err = r.dial.errors()
	r.dial = nil
	if r.plan.Refusal == "" {
		l.end(r, Connect, nil)
		return
	}
	l.part(r, r.plan.Refusal, Connect)
}

// attempt starts to connect. Without an error, or with EINPROGRESS, there is a
// descriptor.
func (l *Loop) attempt(to place, peer netip.AddrPort, transparent bool) (int, error) {
	if !transparent {
		return connect(to, netip.AddrPort{})
	}
	switch a, b := to.addr.Addr(), peer.Addr(); {
	case to.path != "":
		return -1, errUnixSource
	case !b.IsValid():
		return -1, errNoAddress
	case a.Is4() != b.Unmap().Is4():
		return -1, errFamily
	}
	peer = netip.AddrPortFrom(peer.Addr().Unmap(), peer.Port())
	// The peer's own port as well, unless it is taken: on this machine it may be.
	fd, err := connect(to, peer)
	if err == unix.EADDRINUSE || err == unix.EADDRNOTAVAIL {
		return connect(to, netip.AddrPortFrom(peer.Addr(), 0))
	}
	return fd, err
}

// connect connects from an address, which need not be this machine's: see
// IP_TRANSPARENT in ip(7), which takes CAP_NET_ADMIN and routes that bring the
// answers here. Not valid: from any.
func connect(to place, from netip.AddrPort) (int, error) {
	family := unix.AF_INET
	switch {
	case to.path != "":
		family = unix.AF_UNIX
	case to.addr.Addr().Is6():
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return -1, err
	}
	if from.IsValid() {
		err = bindForeign(fd, family, from)
	}
	if err == nil {
		err = unix.Connect(fd, sockaddr(to))
	}
	switch err {
	case nil:
		return fd, nil
	case unix.EINPROGRESS, unix.EINTR:
		if family != unix.AF_UNIX {
			return fd, unix.EINPROGRESS
		}
	}
	unix.Close(fd)
	return -1, err
}

func bindForeign(fd, family int, from netip.AddrPort) error {
	level, option := unix.IPPROTO_IP, unix.IP_TRANSPARENT
	if family == unix.AF_INET6 {
		level, option = unix.IPPROTO_IPV6, unix.IPV6_TRANSPARENT
	}
	if err := unix.SetsockoptInt(fd, level, option, 1); err != nil {
		return os.NewSyscallError("setsockopt IP_TRANSPARENT", err)
	}
	return unix.Bind(fd, sockaddr(place{addr: from}))
}

func sockaddr(p place) unix.Sockaddr {
	if p.path != "" {
		return &unix.SockaddrUnix{Name: p.path}
	}
	a := p.addr.Addr()
	if a.Is4() {
		return &unix.SockaddrInet4{Port: int(p.addr.Port()), Addr: a.As4()}
	}
	return &unix.SockaddrInet6{Port: int(p.addr.Port()), Addr: a.As16(), ZoneId: zone(a.Zone())}
}

// zone is the index of an interface; 0 for one that is not there.
func zone(name string) uint32 {
	if name == "" {
		return 0
	}
	if n, err := strconv.ParseUint(name, 10, 32); err == nil {
		return uint32(n)
	}
	if i, err := net.InterfaceByName(name); err == nil {
		return uint32(i.Index)
	}
	return 0
}
