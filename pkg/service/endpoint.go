package service

import (
	"net/netip"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// An Endpoint is one address to listen on. It is comparable: equal endpoints
// are the same place.
type Endpoint struct {
	Network Network
	Addr    netip.AddrPort // TCP and UDP: never v4-mapped; the zone is an interface's name; port 0: any that is free
	Dual    bool           // TCP6 and UDP6 that were inherited: v4 peers come here, too
	Path    string         // unix sockets: an absolute path, or "@name" for an abstract one
	CID     uint32         // vsock; VsockAny: every one of this machine
	Port    uint32         // vsock
}

// VsockAny is VMADDR_CID_ANY, vsock(7).
const VsockAny = ^uint32(0)

// String is the address as the log shows it and listen takes it.
func (e Endpoint) String() string { return string(e.Append(nil)) }

// Append appends String to b.
func (e Endpoint) Append(b []byte) []byte {
	switch {
	case e.Network.Unix():
		return append(b, e.Path...)
	case e.Network.Vsock():
		return appendVsock(b, e.CID, e.Port)
	case !e.Addr.IsValid():
		return append(b, e.Addr.String()...)
	}
	return e.Addr.AppendTo(b)
}

func appendVsock(b []byte, cid, port uint32) []byte {
	b = append(b, "vsock:"...)
	if cid != VsockAny {
		b = append(strconv.AppendUint(b, uint64(cid), 10), ':')
	}
	return strconv.AppendUint(b, uint64(port), 10)
}

// Network is the kind of a listening socket.
type Network uint8

// The kinds of listening sockets. A row with protocol "tcp" has an Endpoint of
// each family: a child of a v4 peer then has a v4 socket, which is what
// programs older than IPv6 expect.
const (
	TCP4 Network = iota
	TCP6         // IPV6_V6ONLY is set, unless the socket was inherited; see Endpoint.Dual
	UDP4
	UDP6
	UnixStream
	UnixDgram
	UnixSeqpacket
	VsockStream
	VsockSeqpacket
)

var networkWords = [...]string{"tcp4", "tcp6", "udp4", "udp6", "unix", "unix dgram", "unix seqpacket", "vsock", "vsock seqpacket"}

func (n Network) String() string { return networkWords[n] }

// IP reports whether endpoints of n have an Addr.
func (n Network) IP() bool { return n <= UDP6 }

// TCP reports whether it is TCP.
func (n Network) TCP() bool { return n == TCP4 || n == TCP6 }

// UDP reports whether it is UDP.
func (n Network) UDP() bool { return n == UDP4 || n == UDP6 }

// Netid is what rpcbind(8) calls it; for TCP and UDP alone.
func (n Network) Netid() string { return strings.TrimSuffix(n.String(), "4") }

// V6 reports whether sockets of n are of the family AF_INET6.
func (n Network) V6() bool { return n == TCP6 || n == UDP6 }

// Unix reports whether endpoints of n have a Path.
func (n Network) Unix() bool { return n >= UnixStream && n <= UnixSeqpacket }

// Vsock reports whether endpoints of n have a CID and a Port.
func (n Network) Vsock() bool { return n == VsockStream || n == VsockSeqpacket }

// Dgram reports whether there is nothing to accept on sockets of n.
func (n Network) Dgram() bool { return n.UDP() || n == UnixDgram }

// A Peer is who has connected, or sent a datagram.
type Peer struct {
	Network Network        // of the socket it has come to
	Addr    netip.AddrPort // TCP and UDP
	UID     uint32         // unix sockets: SO_PEERCRED, unix(7)
	GID     uint32
	PID     int32
	CID     uint32 // vsock
	Port    uint32 // vsock
	// Groups are the supplementary groups of the peer of a unix socket
	// (SO_PEERGROUPS), and only filled in for a row that asks for groups.
	Groups []uint32
	// Proxy is how the peer has come if a PROXY header has said who it is, and
	// nil otherwise. Network is the connection's then, and Addr what was said,
	// which may be of another family. It is never changed.
	Proxy *Proxy
}

// A Proxy is who has brought a peer.
type Proxy struct {
	Addr  netip.AddrPort // the proxy's own
	Local netip.AddrPort // what the peer had connected to, as the proxy says
}

// String is the peer as the log shows it.
func (p Peer) String() string { return string(p.Append(nil)) }

// Append appends String to b.
func (p *Peer) Append(b []byte) []byte {
	switch {
	case p.Network.Unix():
		b = strconv.AppendUint(append(b, "uid:"...), uint64(p.UID), 10)
		return strconv.AppendInt(append(b, ",pid:"...), int64(p.PID), 10)
	case p.Network.Vsock():
		return appendVsock(b, p.CID, p.Port)
	case !p.Addr.IsValid():
		return append(b, "unknown"...)
	}
	return p.Addr.AppendTo(b)
}

// Check says whether a row's access lets p in, as far as it is about who p is; if
// not, rule says in the words of the log why. A row whose access is about peers of another kind only lets p not
// in: nobody can tell what it would mean for p.
func (s *Service) Check(p Peer) (ok bool, rule string) {
	switch {
	case s.Access == nil && s.Users == nil:
		return true, ""
	case p.Network.Unix() && s.Users == nil:
		return false, "neither access.uids nor access.gids"
	case p.Network.Unix():
		if s.Users.Allows(p.UID, p.GID, p.Groups) {
			return true, ""
		}
		return false, "none of access.uids and access.gids"
	case !p.Network.IP():
		return false, "access cannot judge vsock peers"
	case s.Access == nil:
		return false, "no access.allow"
	}
	switch v, prefix := s.Access.Check(p.Addr.Addr()); v {
	case access.Allow:
		return true, ""
	case access.NoRule:
		return false, "none of access.allow"
	default:
		return false, prefix.String()
	}
}

// SourceOf is what l counts p as: the prefix of its address, on unix sockets its
// user, on vsock its machine.
func SourceOf(l *limit.Limits, p Peer) limit.Source {
	switch {
	case p.Network.Unix():
		return limit.User(p.UID)
	case p.Network.Vsock():
		return limit.Machine(p.CID)
	}
	return l.Source(p.Addr.Addr())
}

// A Passed is a socket that whoever started the daemon has opened for it
// (sd_listen_fds(3)).
type Passed struct {
	FD       int    // as the daemon has it now
	Name     string // of LISTEN_FDNAMES; empty: it has none
	Endpoint Endpoint
}
