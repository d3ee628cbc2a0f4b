package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func closeFd(fd int) { unix.Close(fd) }

func setBlocking(fd int, on bool) error {
	return os.NewSyscallError("fcntl", unix.SetNonblock(fd, !on))
}

// unlisten does nothing to UDP, whose address is free once all descriptors are
// closed.
func (l *Listener) unlisten() {
	if !l.Endpoint.Network.UDP() {
		unix.Shutdown(l.fd, unix.SHUT_RD)
	}
}

func readable(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
	n, err := unix.Poll(p, 0)
	return err != nil || n > 0
}

func (l *Listener) open(sv *service.Service) (err error) {
	ep := l.Endpoint
	s := sv.Socket
	if l.fd, err = newSocket(ep.Network, sv.Wait); err != nil {
		return err
	}
	defer func() {
		if err != nil {
			l.unlink()
			unix.Close(l.fd)
		}
	}()
	if err := setup(l.fd, ep, s); err != nil {
		return err
	}
	// Before bind(2): no packet comes unjudged.
	if err := l.guard.judge(l.fd, ep.Network, sv); err != nil {
		return err
	}
	// Likewise: of what has come before it is not known by which interface.
	if sv.Interfaces != nil && !sv.Wait && ep.Network.UDP() {
		if err := tell(l.fd, ep.Network.V6(), 1); err != nil {
			return err
		}
	}
	l.takeRights(sv)
	if ep.Network.Unix() {
		err = l.bindPath(s)
	} else {
		if l.zone, err = bind(l.fd, ep); err == nil && ep.Network.IP() && ep.Addr.Port() == 0 {
			err = l.learnPort()
		}
	}
	if err != nil || ep.Network.Dgram() {
		return err
	}
	return os.NewSyscallError("listen", unix.Listen(l.fd, backlog(s)))
}

// takeRights says whether peers of a unix socket may send descriptors. Those of a
// program may; the daemon has no use for them, and would stand in close(2) for as
// long as a peer has set SO_LINGER on them. Before Linux 6.16 all may.
func (l *Listener) takeRights(sv *service.Service) {
	if !l.Endpoint.Network.Unix() {
		return
	}
	on := 0
	if sv.Exec != nil {
		on = 1
	}
	unix.SetsockoptInt(l.fd, unix.SOL_SOCKET, unix.SO_PASSRIGHTS, on)
}

// newSocket makes a socket without any options.
func newSocket(network service.Network, blocking bool) (int, error) {
	domain, kind, protocol := unix.AF_INET, unix.SOCK_STREAM, 0
	switch {
	case network.V6():
		domain = unix.AF_INET6
	case network.Unix():
		domain = unix.AF_UNIX
	case network.Vsock():
		domain = unix.AF_VSOCK
	}
	switch {
	case network.TCP():
		protocol = unix.IPPROTO_TCP // not MPTCP: inetd's children look at SO_PROTOCOL
	case network.Dgram():
		kind = unix.SOCK_DGRAM
	case network == service.UnixSeqpacket, network == service.VsockSeqpacket:
		kind = unix.SOCK_SEQPACKET
	}
	kind |= unix.SOCK_CLOEXEC
	if !blocking {
		kind |= unix.SOCK_NONBLOCK
	}
	fd, err := unix.Socket(domain, kind, protocol)
	switch {
	case err == nil:
		return fd, nil
	case network.V6() && err == unix.EAFNOSUPPORT:
		return -1, fmt.Errorf("%w: this system has no IPv6", ErrNotUp)
	// The others are a kernel that has vsock, but not this type of it, or no
	// device for it.
	case network.Vsock() && (err == unix.EAFNOSUPPORT || err == unix.ESOCKTNOSUPPORT || err == unix.ENODEV):
		return -1, fmt.Errorf("%w: this kernel has no %s", ErrNotUp, network)
	}
	return -1, os.NewSyscallError("socket", err)
}

// bind gives a socket an address that is no path. zone is the index of the
// address's interface.
func bind(fd int, ep service.Endpoint) (zone uint32, err error) {
	var addr unix.Sockaddr = &unix.SockaddrVM{CID: ep.CID, Port: ep.Port}
	if ep.Network.IP() {
		if addr, zone, err = sockaddr(ep.Addr); err != nil {
			return 0, err
		}
	}
	switch err := unix.Bind(fd, addr); err {
	case nil:
		return zone, nil
	case unix.EADDRNOTAVAIL, unix.ENODEV:
		return 0, fmt.Errorf("%w (bind: %v)", ErrNotUp, err)
	default:
		return 0, os.NewSyscallError("bind", err)
	}
}

// learnPort notes the port that the kernel has chosen.
func (l *Listener) learnPort() error {
	sa, err := syscall.Getsockname(l.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	l.Endpoint.Addr = netip.AddrPortFrom(l.Endpoint.Addr.Addr(), l.addrPort(sa).Port())
	return nil
}

func isUp(a netip.Addr, device string) bool {
	ep := service.Endpoint{Network: service.TCP4, Addr: netip.AddrPortFrom(a, 0)}
	if a.Is6() {
		ep.Network = service.TCP6
	}
	fd, err := newSocket(ep.Network, false)
	if err != nil {
		return !errors.Is(err, ErrNotUp)
	}
	defer unix.Close(fd)
	s := unset
	s.BindToDevice = device
	if err = setup(fd, ep, s); err == nil {
		_, err = bind(fd, ep)
	}
	return !errors.Is(err, ErrNotUp)
}

// change takes a socket from one row to another, or leaves it as it was.
func (l *Listener) change(old, sv *service.Service) error {
	network := l.Endpoint.Network
	was, s := old.Socket, sv.Socket
	if err := tune(l.fd, l.Endpoint, was, s); err != nil {
		// What stood before the option that failed is set back.
		tune(l.fd, l.Endpoint, s, was)
		return err
	}
	if err := l.redress(was, s); err != nil {
		l.redress(s, was)
		tune(l.fd, l.Endpoint, s, was)
		return err
	}
	// Last: what was attached remains.
	if err := l.guard.judge(l.fd, network, sv); err != nil {
		l.redress(s, was)
		tune(l.fd, l.Endpoint, s, was)
		return err
	}
	l.guard.mu.Lock()
	l.guard.options = s
	l.guard.mu.Unlock()
	return nil
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

func (l *Listener) accept() (fd int, peer service.Peer, err error) {
	peer.Network = l.Endpoint.Network
	if peer.Network.Vsock() {
		return l.acceptVsock()
	}
	var sa syscall.Sockaddr
	for {
		// Without SOCK_NONBLOCK: the child gets a blocking socket for free.
		// Not x/sys's: that one asks for SO_PROTOCOL each time.
		fd, sa, err = syscall.Accept4(l.fd, syscall.SOCK_CLOEXEC)
		if err != syscall.EINTR {
			break
		}
	}
	switch {
	case err != nil:
		return -1, peer, err
	case peer.Network.Unix():
		if err := l.credentials(fd, &peer); err != nil {
			unix.Close(fd)
			return -1, peer, err
		}
	default:
		peer.Addr = l.addrPort(sa)
		if p := l.priority.Load(); p != 0 {
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PRIORITY, int(p)) // the listener has it, too
		}
	}
	return fd, peer, nil
}

func (l *Listener) acceptVsock() (int, service.Peer, error) {
	peer := service.Peer{Network: l.Endpoint.Network}
	for {
		fd, sa, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			return -1, peer, err
		}
		if vm, ok := sa.(*unix.SockaddrVM); ok {
			peer.CID, peer.Port = vm.CID, vm.Port
		}
		return fd, peer, nil
	}
}

// credentials are those of the process that has connected, unix(7).
func (l *Listener) credentials(fd int, peer *service.Peer) error {
	c, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	if err != nil {
		return err
	}
	peer.UID, peer.GID, peer.PID = c.Uid, c.Gid, c.Pid
	if l.groups.Load() {
		if peer.Groups, err = kernel.PeerGroups(fd); err != nil {
			return err
		}
	}
	return nil
}

func (l *Listener) local(conn int) service.Endpoint {
	ep := l.Endpoint
	switch {
	case ep.Network.IP() && ep.Addr.Addr().IsUnspecified():
		if sa, err := syscall.Getsockname(conn); err == nil {
			ep.Addr = l.addrPort(sa)
		}
	case ep.Network.Vsock() && ep.CID == service.VsockAny:
		if sa, err := unix.Getsockname(conn); err == nil {
			if vm, ok := sa.(*unix.SockaddrVM); ok {
				ep.CID = vm.CID
			}
		}
	}
	return ep
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
