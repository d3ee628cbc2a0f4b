package listener

import (
	"net/netip"
	"os"
	"slices"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

var stamp = kernel.Stamp

// Datagrams makes a UDP listener ready for sessions: from here on the daemon
// receives by it, and nobody reads the listener itself. poll is called for each
// descriptor besides the listener's that Receive is to be called for when it is
// readable; these are closed here, which ends the polling. It needs CAP_NET_RAW.
func (l *Listener) Datagrams(poll func(fd int)) (_ *Datagrams, err error) {
	d := &Datagrams{l: l, poll: poll, raw4: -1, raw6: -1, fds: []int{l.fd}, guards: map[netip.Addr]*standIn{}}
	defer func() {
		if err != nil {
			d.Close()
		}
	}()
	if d.raw4, err = rawSocket(unix.AF_INET); err != nil {
		return nil, err
	}
	if l.Endpoint.Network.V6() {
		if d.raw6, err = rawSocket(unix.AF_INET6); err != nil {
			return nil, err
		}
	}
	if err := tell(l.fd, l.Endpoint.Network.V6(), 1); err != nil {
		return nil, err
	}
	if l.Endpoint.Addr.Addr().IsUnspecified() {
		return d, nil
	}
	// The group of the address begins with the listener as soon as it has a
	// second member, which nothing comes to any more once the first has the
	// program. What came before that is received like anything else.
	options := unset
	options.BindToDevice = deviceOf(l.fd)
	second, err := d.bind(l.Endpoint.Addr, options, true, l.fd)
	if err != nil {
		return nil, err
	}
	d.fds = append(d.fds, second)
	if err := firstReceives(l.fd); err != nil {
		return nil, err
	}
	poll(second)
	// It has done its part, and goes as a guard does without sessions.
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dismissLocked(&standIn{fd: second, sessions: 1}, l.Endpoint.Addr)
	return d, nil
}

// tell has the kernel tell where datagrams were sent to.
func tell(fd int, v6 bool, on int) error {
	// Of a v6 socket that takes v4, both.
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, on); err != nil {
		return os.NewSyscallError("setsockopt IP_PKTINFO", err)
	}
	if !v6 {
		return nil
	}
	return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, on))
}

// firstReceives gives the group of a socket the program "return 0", which is
// the index of the member that receives: SO_ATTACH_REUSEPORT_CBPF in socket(7).
func firstReceives(fd int) error {
	zero := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}
	err := unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF, &unix.SockFprog{Len: 1, Filter: &zero[0]})
	return os.NewSyscallError("setsockopt SO_ATTACH_REUSEPORT_CBPF", err)
}

func deviceOf(fd int) string {
	name, err := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	if err != nil {
		return ""
	}
	return name
}

// bind makes a blocking socket at an address of the sockets with, in the group of
// the last of them.
func (d *Datagrams) bind(a netip.AddrPort, s service.Socket, receives bool, with ...int) (_ int, err error) {
	domain, network := unix.AF_INET, service.UDP4
	if a.Addr().Is6() {
		domain, network = unix.AF_INET6, service.UDP6
	}
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	for _, o := range []struct {
		name int
		word string
	}{
		{unix.SO_REUSEPORT, "SO_REUSEPORT"},
		{unix.SO_REUSEADDR, "SO_REUSEADDR"}, // see leaveGroup
	} {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, o.name, 1); err != nil {
			return -1, os.NewSyscallError("setsockopt "+o.word, err)
		}
	}
	if err := setup(fd, service.Endpoint{Network: network, Addr: a}, s); err != nil {
		return -1, err
	}
	if receives {
		// Before bind(2): it is noted of each datagram as it comes.
		if err := tell(fd, network.V6(), 1); err != nil {
			return -1, err
		}
	}
	sa, err := d.sockaddr(a)
	if err != nil {
		return -1, err
	}
	if err := join(fd, sa, with); err != nil {
		return -1, err
	}
	return fd, nil
}

// join binds a socket to an address that others have. They have SO_REUSEPORT
// only meanwhile, unless their row says so: at any other time another process of
// the same user, a second daemon for one, gets EADDRINUSE as it should. Without
// the option they stay in the group that they are in.
func join(fd int, sa unix.Sockaddr, with []int) error {
	for _, w := range with {
		on, err := unix.GetsockoptInt(w, unix.SOL_SOCKET, unix.SO_REUSEPORT)
		if err != nil {
			return os.NewSyscallError("getsockopt SO_REUSEPORT", err)
		}
		if on != 0 {
			continue
		}
		if err := unix.SetsockoptInt(w, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
		defer unix.SetsockoptInt(w, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0)
	}
	return os.NewSyscallError("bind", unix.Bind(fd, sa))
}

// sockaddr is sockaddr with the zones of zoned, which are numbers but for the
// listener's own.
func (d *Datagrams) sockaddr(a netip.AddrPort) (unix.Sockaddr, error) {
	if z := a.Addr().Zone(); z != "" && d.l.zone != 0 && z == d.l.Endpoint.Addr.Addr().Zone() {
		return &unix.SockaddrInet6{Port: int(a.Port()), Addr: a.Addr().As16(), ZoneId: d.l.zone}, nil
	}
	sa, _, err := sockaddr(a)
	return sa, err
}

// zoned gives a link-local address its interface.
func (d *Datagrams) zoned(a netip.Addr, scope uint32) netip.Addr {
	switch {
	case scope == 0 || !a.IsLinkLocalUnicast() || a.Is4():
		return a
	case scope == d.l.zone:
		return a.WithZone(d.l.Endpoint.Addr.Addr().Zone())
	}
	return a.WithZone(strconv.FormatUint(uint64(scope), 10))
}

// Receive takes what has come. EAGAIN means that there is nothing, ErrClosed
// that it is over.
func (d *Datagrams) Receive(b *kernel.Batch) (int, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.l.hold() {
		return 0, ErrClosed
	}
	defer d.l.release()
	for range d.fds {
		d.turn = (d.turn + 1) % len(d.fds) // none may starve another
		if n, err := b.Receive(d.fds[d.turn]); err != unix.EAGAIN {
			return n, err
		}
	}
	return 0, unix.EAGAIN
}

// leaveGroup has a connected socket be no member of the group for those that
// come later. Since Linux 6.13 it is none, but would still be found as one, and
// found a group of its own with the next socket. With SO_REUSEADDR on both they
// share the address all the same; it is the listener that keeps others off it.
func leaveGroup(fd int) error {
	return os.NewSyscallError("setsockopt SO_REUSEPORT", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 0))
}

// guardLocked is the guard of an address, with one session more.
func (d *Datagrams) guardLocked(local netip.AddrPort, s service.Socket) (*standIn, error) {
	if g := d.guards[local.Addr()]; g != nil {
		g.sessions++
		return g, nil
	}
	if !d.l.Endpoint.Addr.Addr().IsUnspecified() {
		g := &standIn{fd: -1, sessions: 1}
		d.guards[local.Addr()] = g
		return g, nil
	}
	fd, err := d.bind(local, s, true, d.l.fd)
	if err != nil {
		return nil, err
	}
	if err = firstReceives(fd); err == nil {
		err = leaveGroup(fd) // it stays the first of its own, see join
	}
	if err != nil {
		unix.Close(fd)
		return nil, err
	}
	g := &standIn{fd: fd, sessions: 1}
	d.guards[local.Addr()] = g
	d.fds = append(d.fds, fd)
	d.poll(fd)
	return g, nil
}

// dismissLocked ends a session's part in a guard. Without sessions there is no
// need for it: the listener receives by itself again.
func (d *Datagrams) dismissLocked(g *standIn, local netip.AddrPort) {
	if d.closed {
		return
	}
	if g.sessions--; g.sessions > 0 {
		return
	}
	delete(d.guards, local.Addr())
	d.dropSparesLocked(g, local)
	if g.fd < 0 {
		return
	}
	leaveGroup(g.fd)
	d.toItself(g.fd, local)
	d.late = append(d.late, late{fd: g.fd, since: time.Now(), read: true, local: local})
}

func (d *Datagrams) dropSparesLocked(g *standIn, local netip.AddrPort) {
	for _, s := range g.spares {
		d.late = append(d.late, late{fd: s.fd, since: time.Now(), read: true, peer: local, local: local})
	}
	g.spares = nil
}

// takeSpareLocked is the oldest spare, or -1 if there is none with such options.
func (d *Datagrams) takeSpareLocked(g *standIn, local netip.AddrPort, options service.Socket) int {
	if len(g.spares) > 0 && g.spares[0].options != options {
		d.dropSparesLocked(g, local)
	}
	if len(g.spares) == 0 {
		return -1
	}
	fd := g.spares[0].fd
	g.spares = g.spares[1:]
	return fd
}

// makeSparesLocked makes the spares that are missing, as far as that is possible.
func (d *Datagrams) makeSparesLocked(g *standIn, local netip.AddrPort, options service.Socket, with []int) {
	for len(g.spares) < min(g.sessions-1, sparesMost) {
		fd, err := d.bind(local, options, false, with...)
		if err != nil {
			d.dropSparesLocked(g, local) // somebody may lack them
			return
		}
		if d.toItself(fd, local) != nil { // it would be everybody's
			unix.Close(fd)
			return
		}
		leaveGroup(fd)
		g.spares = append(g.spares, spare{fd: fd, options: options, since: time.Now()})
	}
}

// ripenLocked looks for what has come late to spares, and reports whether some
// are too young for that.
func (d *Datagrams) ripenLocked(b *kernel.Batch) (more bool) {
	for a, g := range d.guards {
		local := netip.AddrPortFrom(a, d.l.Endpoint.Addr.Port())
		for i := range g.spares {
			switch s := &g.spares[i]; {
			case s.ripe:
			case time.Since(s.since) < LateTime:
				more = true
			default:
				d.partLocked(&Session{Peer: local, Local: local, fd: s.fd}, b)
				s.ripe = true
			}
		}
	}
	return more
}

// toItself connects a socket to its own address, which no peer has: nothing
// comes to it any more, even if a process that a server has left still holds
// it.
func (d *Datagrams) toItself(fd int, local netip.AddrPort) error {
	sa, err := d.sockaddr(local)
	if err != nil {
		return err
	}
	return unix.Connect(fd, sa)
}

// Sweep closes sockets that nothing comes to any more. What has come to them
// late is passed to f as if it had been received; its data are b's. It reports
// whether some are left, for a call after LateTime. It is to be called that time
// after Open and End.
func (d *Datagrams) Sweep(b *kernel.Batch, f func(Datagram)) (more bool) {
	now := time.Now()
	d.mu.Lock()
	n := 0 // the oldest come first
	for n < len(d.late) && now.Sub(d.late[n].since) >= LateTime {
		fd := d.late[n].fd
		d.fds = slices.DeleteFunc(d.fds, func(f int) bool { return f == fd })
		n++
	}
	done := slices.Clone(d.late[:n])
	d.late = slices.Delete(d.late, 0, n)
	more = d.ripenLocked(b) || len(d.late) > 0
	d.mu.Unlock()
	for _, l := range done {
		d.drain(b, l, f)
		unix.Close(l.fd)
	}
	return more
}

// drain takes what is left in a socket that is no longer read, and says how much
// of it was thrown away, because its server has read nothing at all.
func (d *Datagrams) drain(b *kernel.Batch, l late, f func(Datagram)) (dropped int) {
	for errs := 0; errs < 10; {
		n, err := b.Receive(l.fd)
		if err == unix.EAGAIN {
			break
		}
		if err != nil {
			errs++ // an ICMP message that has come back
		}
		for i := range n {
			g := d.DatagramOf(b, i)
			switch {
			case !samePeer(g.Peer, l.peer): // see Part; or a guard
			case !l.read:
				dropped++
				continue
			default:
				g.Peer = l.peer
			}
			g.Local = l.local
			f(g)
		}
	}
	return dropped
}

// ownLocked are the sockets that Close is to close, each once: a late guard is
// received from until Sweep, too.
func (d *Datagrams) ownLocked() []int {
	own := slices.Clone(d.fds[1:]) // guards, also late ones
	for _, g := range d.guards {
		for _, s := range g.spares {
			own = append(own, s.fd)
		}
	}
	for _, l := range d.late {
		if l.peer.IsValid() {
			own = append(own, l.fd)
		}
	}
	return own
}

// Close ends the receiving. Sockets of sessions stay until their End. The
// listener itself is left open, as it was before.
func (d *Datagrams) Close() {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return
	}
	d.closed = true
	for _, fd := range d.ownLocked() {
		unix.Close(fd)
	}
	d.fds, d.late, d.guards = nil, nil, nil
	unix.Close(d.raw4)
	unix.Close(d.raw6)
	if d.l.hold() {
		defer d.l.release()
		tell(d.l.fd, d.l.Endpoint.Network.V6(), 0)
	}
}
