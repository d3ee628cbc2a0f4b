package ident

// The kernel's answer, sock_diag(7): one question about one connection, one
// answer. The structures are those of linux/inet_diag.h.

import (
	"encoding/binary"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	requestSize = 56 // struct inet_diag_req_v2
	answerSize  = 72 // struct inet_diag_msg
)

// owner is the user of the process that has a TCP connection of this network
// namespace, by its exact ends. A connection that no process has, because it has
// ended, or is not yet accepted, is errNoConnection, as is a listening socket.
func owner(local, remote netip.AddrPort) (uint32, error) {
	l, r := local.Addr().Unmap(), remote.Addr().Unmap()
	if l.Is4() != r.Is4() || !l.IsValid() || !r.IsValid() {
		return 0, errNoConnection
	}
	s, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_SOCK_DIAG)
	if err != nil {
		return 0, os.NewSyscallError("socket NETLINK_SOCK_DIAG", err)
	}
	defer unix.Close(s)
	question := request(netip.AddrPortFrom(l, local.Port()), netip.AddrPortFrom(r, remote.Port()))
	if err := unix.Sendto(s, question, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return 0, os.NewSyscallError("sendto NETLINK_SOCK_DIAG", err)
	}
	// It answers while the question is sent.
	b := make([]byte, 4096)
	n, _, err := unix.Recvfrom(s, b, 0)
	if err != nil {
		return 0, os.NewSyscallError("recvfrom NETLINK_SOCK_DIAG", err)
	}
	return answer(b[:n], netip.AddrPortFrom(l, local.Port()), netip.AddrPortFrom(r, remote.Port()))
}

// request is a message with struct inet_diag_req_v2.
func request(local, remote netip.AddrPort) []byte {
	b := make([]byte, 0, unix.SizeofNlMsghdr+requestSize)
	ne, be := binary.NativeEndian, binary.BigEndian
	b = ne.AppendUint32(b, unix.SizeofNlMsghdr+requestSize)
	b = ne.AppendUint16(b, unix.SOCK_DIAG_BY_FAMILY)
	b = ne.AppendUint16(b, unix.NLM_F_REQUEST)
	b = ne.AppendUint32(b, 1) // number
	b = ne.AppendUint32(b, 0) // from: the kernel fills it in
	family := byte(unix.AF_INET6)
	if local.Addr().Is4() {
		family = unix.AF_INET
	}
	b = append(b, family, unix.IPPROTO_TCP, 0, 0)
	b = ne.AppendUint32(b, ^uint32(0)) // any state
	b = be.AppendUint16(b, local.Port())
	b = be.AppendUint16(b, remote.Port())
	b = appendAddr(b, local.Addr())
	b = appendAddr(b, remote.Addr())
	b = ne.AppendUint32(b, zone(local.Addr().Zone(), remote.Addr().Zone()))
	return append(b, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff) // INET_DIAG_NOCOOKIE
}

func appendAddr(b []byte, a netip.Addr) []byte {
	b = append(b, a.AsSlice()...)
	if a.Is4() {
		b = append(b, make([]byte, 12)...)
	}
	return b
}

// zone is the index of the first interface that is named; 0 if none is there.
func zone(names ...string) uint32 {
	for _, name := range names {
		if n, err := strconv.ParseUint(name, 10, 32); err == nil {
			return uint32(n)
		}
		if name == "" {
			continue
		}
		if i, err := net.InterfaceByName(name); err == nil {
			return uint32(i.Index)
		}
	}
	return 0
}

// answer reads a message with struct inet_diag_msg, or with an error. The kernel
// finds a listening socket as well where there is no connection.
func answer(b []byte, local, remote netip.AddrPort) (uint32, error) {
	ne, be := binary.NativeEndian, binary.BigEndian
	if len(b) < unix.SizeofNlMsghdr+4 {
		return 0, fmt.Errorf("inet_diag: an answer of %d bytes", len(b))
	}
	kind, body := ne.Uint16(b[4:]), b[unix.SizeofNlMsghdr:]
	if kind == unix.NLMSG_ERROR {
		errno := unix.Errno(-int32(ne.Uint32(body)))
		if errno == unix.ENOENT {
			return 0, errNoConnection
		}
		return 0, fmt.Errorf("inet_diag: %w", errno)
	}
	if kind != unix.SOCK_DIAG_BY_FAMILY || len(body) < answerSize {
		return 0, fmt.Errorf("inet_diag: an answer of kind %d and %d bytes", kind, len(b))
	}
	addr := func(at int) netip.Addr {
		if body[0] == unix.AF_INET {
			return netip.AddrFrom4([4]byte(body[at:]))
		}
		return netip.AddrFrom16([16]byte(body[at:])).Unmap()
	}
	ends := netip.AddrPortFrom(addr(8), be.Uint16(body[4:])) == netip.AddrPortFrom(local.Addr().WithZone(""), local.Port()) &&
		netip.AddrPortFrom(addr(24), be.Uint16(body[6:])) == netip.AddrPortFrom(remote.Addr().WithZone(""), remote.Port())
	// A socket that no process has any more, or has yet, has no inode, and the
	// kernel says root of it.
	uid, inode := ne.Uint32(body[64:]), ne.Uint32(body[68:])
	if !ends || inode == 0 || !connected(body[1]) {
		return 0, errNoConnection
	}
	return uid, nil
}

// connected reports whether a state is one of a connection, net/tcp_states.h.
func connected(state byte) bool {
	switch state {
	case unix.BPF_TCP_ESTABLISHED, unix.BPF_TCP_FIN_WAIT1, unix.BPF_TCP_FIN_WAIT2, unix.BPF_TCP_CLOSE_WAIT,
		unix.BPF_TCP_LAST_ACK, unix.BPF_TCP_CLOSING:
		return true
	}
	return false
}
