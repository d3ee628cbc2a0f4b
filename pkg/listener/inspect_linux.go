package listener

// What a descriptor is that the daemon was passed. Whoever passes sockets may
// pass anything: what it is, is what the kernel says.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// ipprotoMPTCP is IPPROTO_MPTCP of linux/in.h. Its listeners are as good as
// those of TCP.
const ipprotoMPTCP = 262

func inspect(fd int) (ep service.Endpoint, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return ep, os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		kind := kindOf(&st)
		if to, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(fd)); err == nil && strings.HasPrefix(to, "/memfd:") {
			kind = "a memfd"
		}
		return ep, fmt.Errorf("it is %s, not a socket", kind)
	}
	s := shape{fd: fd}
	for _, o := range []struct {
		name int
		to   *int
	}{
		{unix.SO_DOMAIN, &s.domain}, {unix.SO_TYPE, &s.kind}, {unix.SO_PROTOCOL, &s.protocol}, {unix.SO_ACCEPTCONN, &s.accepts},
	} {
		if *o.to, err = unix.GetsockoptInt(fd, unix.SOL_SOCKET, o.name); err != nil {
			return ep, os.NewSyscallError("getsockopt", err)
		}
	}
	var ok bool
	if ep.Network, ok = s.network(); !ok {
		return service.Endpoint{}, fmt.Errorf("it is %s, and no service can have that", s)
	}
	if err := s.serves(ep.Network); err != nil {
		return service.Endpoint{}, err
	}
	if err := s.name(&ep); err != nil {
		return service.Endpoint{}, err
	}
	return ep, nil
}

// kindOf names what an inode is of.
func kindOf(st *unix.Stat_t) string {
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFIFO:
		return "a FIFO"
	case unix.S_IFREG:
		return "a file"
	case unix.S_IFDIR:
		return "a directory"
	case unix.S_IFLNK:
		return "a symbolic link"
	case unix.S_IFCHR:
		return "a character device"
	case unix.S_IFBLK:
		return "a block device"
	case unix.S_IFSOCK:
		return "a socket"
	}
	return "something without a name" // epoll, timers and the like
}

// A shape is what socket(2) was asked for, and whether listen(2) was called.
type shape struct {
	fd                              int
	domain, kind, protocol, accepts int
}

// network is false where a socket is of no kind that rows can have.
func (s shape) network() (service.Network, bool) {
	type form struct{ domain, kind, protocol int }
	f := form{s.domain, s.kind, s.protocol}
	if f.domain == unix.AF_UNIX || f.domain == unix.AF_VSOCK {
		f.protocol = 0
	} else if f.protocol == ipprotoMPTCP {
		f.protocol = unix.IPPROTO_TCP
	}
	n, ok := map[form]service.Network{
		{unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP}:  service.TCP4,
		{unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP}: service.TCP6,
		{unix.AF_INET, unix.SOCK_DGRAM, unix.IPPROTO_UDP}:   service.UDP4,
		{unix.AF_INET6, unix.SOCK_DGRAM, unix.IPPROTO_UDP}:  service.UDP6,
		{unix.AF_UNIX, unix.SOCK_STREAM, 0}:                 service.UnixStream,
		{unix.AF_UNIX, unix.SOCK_DGRAM, 0}:                  service.UnixDgram,
		{unix.AF_UNIX, unix.SOCK_SEQPACKET, 0}:              service.UnixSeqpacket,
		{unix.AF_VSOCK, unix.SOCK_STREAM, 0}:                service.VsockStream,
		{unix.AF_VSOCK, unix.SOCK_SEQPACKET, 0}:             service.VsockSeqpacket,
	}[f]
	return n, ok
}

// String names a socket of a kind that rows cannot have.
func (s shape) String() string {
	switch {
	case s.domain == unix.AF_NETLINK:
		return "a netlink socket"
	case s.domain == unix.AF_PACKET:
		return "a packet socket"
	case s.kind == unix.SOCK_RAW:
		return "a raw socket"
	case s.domain == unix.AF_INET || s.domain == unix.AF_INET6:
		return fmt.Sprintf("a socket of IP protocol %d", s.protocol)
	case s.domain == unix.AF_VSOCK:
		return "a vsock datagram socket"
	}
	return fmt.Sprintf("a socket of address family %d", s.domain)
}

// words are how messages call a socket of each kind.
var words = map[service.Network]string{
	service.TCP4: "TCP", service.TCP6: "TCP", service.UDP4: "UDP", service.UDP6: "UDP",
	service.UnixStream: "unix stream", service.UnixDgram: "unix datagram", service.UnixSeqpacket: "unix seqpacket",
	service.VsockStream: "vsock", service.VsockSeqpacket: "vsock seqpacket",
}

// serves says what is wrong with a socket that nobody can connect or send to.
func (s shape) serves(network service.Network) error {
	_, err := unix.Getpeername(s.fd)
	connected := err == nil
	switch {
	case network.Dgram() && connected:
		return fmt.Errorf("it is a connected %s socket, which has one peer only", words[network])
	case network.Dgram() || s.accepts == 1:
		return nil
	case connected:
		return fmt.Errorf("it is a connected %s socket, not a listening one", words[network])
	}
	return fmt.Errorf("it is a %s socket that does not listen", words[network])
}

// name fills in where a socket is bound.
func (s shape) name(ep *service.Endpoint) error {
	sa, err := unix.Getsockname(s.fd)
	if err != nil {
		return os.NewSyscallError("getsockname", err)
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		ep.Addr = netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		a := netip.AddrFrom16(sa.Addr)
		switch {
		case a.Is4In6():
			// Nothing but v4 comes to it, and v4's options are what acts.
			a = a.Unmap()
			ep.Network--
		case sa.ZoneId != 0:
			zone, err := interfaceName(sa.ZoneId)
			if err != nil {
				return err
			}
			a = a.WithZone(zone)
		}
		if a.Is6() {
			only, err := unix.GetsockoptInt(s.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
			if err != nil {
				return os.NewSyscallError("getsockopt IPV6_V6ONLY", err)
			}
			ep.Dual = only == 0 && a.IsUnspecified()
		}
		ep.Addr = netip.AddrPortFrom(a, uint16(sa.Port))
	case *unix.SockaddrUnix:
		switch {
		case sa.Name == "" || sa.Name == "@":
			return errors.New("it is a unix socket without a name")
		case sa.Name[0] != '/' && sa.Name[0] != '@':
			return fmt.Errorf("it is a unix socket at %q, which is no absolute path", sa.Name)
		}
		ep.Path = sa.Name
	case *unix.SockaddrVM:
		ep.CID, ep.Port = sa.CID, sa.Port
	}
	if ep.Network.IP() && ep.Addr.Port() == 0 {
		return fmt.Errorf("it is a %s socket without a port", words[ep.Network])
	}
	return nil
}

func interfaceName(index uint32) (string, error) {
	ifr, err := unix.NewIfreq("")
	if err != nil {
		return "", err
	}
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", os.NewSyscallError("socket", err)
	}
	defer unix.Close(fd)
	ifr.SetUint32(index)
	if err := unix.IoctlIfreq(fd, unix.SIOCGIFNAME, ifr); err != nil {
		return "", fmt.Errorf("the name of interface %d: %w", index, err)
	}
	return ifr.Name(), nil
}
