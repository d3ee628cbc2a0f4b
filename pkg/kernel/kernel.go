// Package kernel has the system calls that golang.org/x/sys has no wrapper for:
// bpf(2), recvmmsg(2), sendmmsg(2), the ioctl for a socket's last receipt, and
// options with values that it does not know.
//
// They are thin: a call here is one system call, but for one that has to ask twice,
// errors are errno values, and nothing is decided. What programs and maps are for is package filter's,
// what datagrams are for is others'.
//
// The package does without unsafe code. The kernel is told addresses of memory
// that reflect.Value.Pointer names: always of the heap, because Pointer makes
// its argument escape, and pinned by a runtime.Pinner until the call has
// returned, so that the collector neither frees nor moves it. Pointers that
// stand in a structure for the kernel as Go pointers (the buffers of a message)
// are kept alive by the structure, as they are in syscall.Sendmsg.
package kernel

import "net/netip"

// A Message is one received datagram. Data belongs to the Batch it was received
// with and is overwritten by its next Receive.
type Message struct {
	Data      []byte
	Truncated bool // the datagram was longer than the buffer
	// Peer is who has sent it; not valid for a peer without an IP address.
	// It has no zone: Scope is the index of a link-local peer's interface.
	Peer  netip.AddrPort
	Scope uint32
	// To is where it was sent to, and Local this machine's own address that an
	// answer should come from: they differ for broadcasts and multicasts, for
	// which an IPv6 packet has no Local. Both are valid only where the socket
	// has IP_PKTINFO or IPV6_RECVPKTINFO, ip(7), ipv6(7), and v4 where the
	// packet was v4.
	To, Local netip.Addr
	Interface uint32 // index of the interface it came by; 0 without To
}
