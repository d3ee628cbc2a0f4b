package relay

// The PROXY header that a target is told first: who the peer is, and what it has
// connected to.

import (
	"net/netip"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// headerFor is what targets are told of a connection; empty if they are told
// nothing.
func headerFor(c *Conn) string {
	version := byte(1)
	switch c.Plan.Forward.SendProxy {
	case service.SendNone:
		return ""
	case service.SendV2:
		version = 2
	}
	p := &c.Peer
	switch {
	case !p.Network.TCP(): // it has no address, and nobody is to get one for it
		return string(proxy.New(version, netip.AddrPort{}, netip.AddrPort{}))
	case p.Proxy != nil:
		return string(proxy.New(version, p.Addr, p.Proxy.Local))
	}
	return string(proxy.New(version, p.Addr, localAddr(c.FD)))
}

// localAddr is the address that a connection has come to; not valid if that cannot
// be told.
func localAddr(fd int) netip.AddrPort {
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return netip.AddrPort{}
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr).Unmap(), uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// greet tells a target that has accepted who the peer is. It finds room in the
// empty buffer of any socket; a target that does not take it has not accepted.
func (l *Loop) greet(r *record) error {
	return say(int(r.sides[1].fd), r.dial.header)
}
