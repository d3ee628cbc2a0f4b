package listener

// Putting a datagram back: it is sent once more, with the source it came from.

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"os"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// rawSocket is one whose packets have their network header already: raw(7),
// ipv6(7).
func rawSocket(domain int) (int, error) {
	fd, err := unix.Socket(domain, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_RAW)
	if err == unix.EPERM {
		return -1, fmt.Errorf("a session for each peer needs CAP_NET_RAW: %w", os.NewSyscallError("socket", err))
	}
	return fd, os.NewSyscallError("socket", err)
}

// PutBack sends a datagram to this machine's own address once more, as from its
// peer: to the session's socket if the peer has one, otherwise to the listener
// or its guard.
func (d *Datagrams) PutBack(g Datagram) error {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return ErrClosed
	}
	return d.putBack(g)
}

func (d *Datagrams) putBack(g Datagram) error {
	fd := d.raw4
	if g.Local.Addr().Is6() {
		fd = d.raw6
	}
	if err := d.send(fd, g); err != nil {
		return fmt.Errorf("putting a datagram of %s back: %w", g.Peer, os.NewSyscallError("sendmsg", err))
	}
	return nil
}

const (
	header4      = 20 // RFC 791 section 3.1, without options
	header6      = 40 // RFC 8200 section 3
	fragment6    = 8  // section 4.5
	headerUDP    = 8  // RFC 768
	hops         = 64
	fragmentSize = 1232 // of the UDP datagram: fits any link, and is a multiple of 8
)

var fragmentID atomic.Uint32

// send sends a datagram whole and, if the loopback interface does not take it,
// in fragments.
func (d *Datagrams) send(fd int, g Datagram) error {
	to := unix.Sockaddr(&unix.SockaddrInet4{Addr: unmapped(g.Local.Addr())})
	if g.Local.Addr().Is6() {
		sa, err := d.sockaddr(netip.AddrPortFrom(g.Local.Addr(), 0))
		if err != nil {
			return err
		}
		to = sa
	}
	udp := udpHeader(g)
	err := transmit(fd, to, networkHeader(g, headerUDP+len(g.Data), nil), udp, g.Data)
	if err != unix.EMSGSIZE {
		return err
	}
	id := fragmentID.Add(1)
	for uint16(id) == 0 { // for which the kernel takes one of its own
		id = fragmentID.Add(1)
	}
	whole := append(udp, g.Data...)
	for offset := 0; offset < len(whole); offset += fragmentSize {
		part := whole[offset:min(offset+fragmentSize, len(whole))]
		f := fragment{id, offset, offset+len(part) < len(whole)}
		if err := transmit(fd, to, networkHeader(g, len(part), &f), part, nil); err != nil {
			return err
		}
	}
	return nil
}

func transmit(fd int, to unix.Sockaddr, header, a, b []byte) error {
	for {
		_, err := unix.SendmsgBuffers(fd, [][]byte{header, a, b}, nil, to, unix.MSG_DONTWAIT)
		if err != unix.EINTR {
			return err
		}
	}
}

func unmapped(a netip.Addr) [4]byte {
	if a.Is6() {
		return [4]byte{}
	}
	return a.As4()
}

// A fragment is a part of a datagram.
type fragment struct {
	id     uint32
	offset int
	more   bool
}

// networkHeader is the IP header of a packet with so many bytes of UDP. Length
// and checksum of a v4 header are the kernel's to fill in, raw(7).
func networkHeader(g Datagram, size int, f *fragment) []byte {
	from, to := g.Peer.Addr().AsSlice(), g.Local.Addr().AsSlice()
	more := uint16(0)
	if g.Local.Addr().Is4() {
		h := make([]byte, header4)
		h[0] = 4<<4 | header4/4
		h[8], h[9] = hops, unix.IPPROTO_UDP
		if f != nil {
			if f.more {
				more = 1 << 13
			}
			binary.BigEndian.PutUint16(h[4:], uint16(f.id))
			binary.BigEndian.PutUint16(h[6:], uint16(f.offset/8)|more)
		}
		copy(h[12:], from)
		copy(h[16:], to)
		return h
	}
	h := make([]byte, header6, header6+fragment6)
	h[0] = 6 << 4
	h[6], h[7] = unix.IPPROTO_UDP, hops
	copy(h[8:], from)
	copy(h[24:], to)
	if f != nil {
		if f.more {
			more = 1
		}
		size += fragment6
		h[6] = unix.IPPROTO_FRAGMENT
		h = append(h, unix.IPPROTO_UDP, 0)
		h = binary.BigEndian.AppendUint16(h, uint16(f.offset)|more) // in units of 8, above three bits of flags
		h = binary.BigEndian.AppendUint32(h, f.id)
	}
	binary.BigEndian.PutUint16(h[4:], uint16(size))
	return h
}

// udpHeader is the UDP header with its checksum, RFC 768 and RFC 8200 section 8.1.
func udpHeader(g Datagram) []byte {
	size := headerUDP + len(g.Data)
	h := make([]byte, headerUDP, headerUDP+len(g.Data))
	binary.BigEndian.PutUint16(h, g.Peer.Port())
	binary.BigEndian.PutUint16(h[2:], g.Local.Port())
	binary.BigEndian.PutUint16(h[4:], uint16(size))
	sum := uint64(unix.IPPROTO_UDP + size) // the pseudo header's protocol and length
	for _, part := range [][]byte{g.Peer.Addr().AsSlice(), g.Local.Addr().AsSlice(), h, g.Data} {
		sum = addSum(sum, part)
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	c := ^uint16(sum)
	if c == 0 {
		c = 0xffff // 0 is "none"
	}
	binary.BigEndian.PutUint16(h[6:], c)
	return h
}

// addSum adds b, of which only the last part may have an odd length, in words of
// 16 bits: RFC 1071.
func addSum(sum uint64, b []byte) uint64 {
	for ; len(b) >= 2; b = b[2:] {
		sum += uint64(b[0])<<8 | uint64(b[1])
	}
	if len(b) == 1 {
		sum += uint64(b[0]) << 8
	}
	return sum
}
