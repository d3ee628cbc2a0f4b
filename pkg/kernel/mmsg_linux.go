package kernel

// recvmmsg(2) and sendmmsg(2). All memory of a batch is made once; a call
// allocates nothing.

import (
	"encoding/binary"
	"net/netip"
	"reflect"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	nameSize    = unix.SizeofSockaddrInet6
	controlSize = 128 // IP_PKTINFO and IPV6_PKTINFO together, and room
)

// messages is what both directions have: headers that point to buffers.
type messages struct {
	headers []unix.Mmsghdr
	vectors []unix.Iovec
	names   []byte
	control []byte
}

func newMessages(n int) messages {
	return messages{
		headers: make([]unix.Mmsghdr, n),
		vectors: make([]unix.Iovec, n),
		names:   make([]byte, n*nameSize),
		control: make([]byte, n*controlSize),
	}
}

func (m *messages) name(i int) []byte { return m.names[i*nameSize:][:nameSize:nameSize] }

func (m *messages) controlOf(i int) []byte {
	return m.control[i*controlSize:][:controlSize:controlSize]
}

// call does recvmmsg or sendmmsg with the headers from first to before end.
func (m *messages) call(number uintptr, fd, first, end, flags int) (int, error) {
	var p runtime.Pinner
	p.Pin(&m.headers[0])
	defer p.Unpin()
	for {
		n, _, errno := syscall.Syscall6(number, uintptr(fd),
			reflect.ValueOf(&m.headers[first]).Pointer(), uintptr(end-first), uintptr(flags), 0, 0)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		}
		return 0, errno
	}
}

// A Batch is memory for datagrams that are received together. It is not safe
// for concurrent use.
type Batch struct {
	messages
	data []byte
	size int
	n    int
}

// NewBatch makes a Batch of n datagrams, 1 or more, of up to size bytes each, 1
// or more.
func NewBatch(n, size int) *Batch {
	b := &Batch{messages: newMessages(n), data: make([]byte, n*size), size: size}
	for i := range b.headers {
		b.vectors[i].Base = &b.data[i*size]
		b.vectors[i].SetLen(size)
		h := &b.headers[i].Hdr
		h.Iov = &b.vectors[i]
		h.SetIovlen(1)
		h.Name = &b.name(i)[0]
		h.Control = &b.controlOf(i)[0]
	}
	return b
}

// Receive takes what datagrams there are, as many as the Batch holds, and never
// waits: EAGAIN means that there is none. Other errors are the socket's, for
// example ECONNREFUSED for a port unreachable that has come back, and are over
// once reported.
func (b *Batch) Receive(fd int) (int, error) {
	b.n = 0
	for i := range b.headers {
		h := &b.headers[i].Hdr
		h.Namelen = nameSize
		h.SetControllen(controlSize)
		h.Flags = 0
	}
	n, err := b.call(unix.SYS_RECVMMSG, fd, 0, len(b.headers), unix.MSG_DONTWAIT)
	b.n = n
	return n, err
}

// Message is the i-th datagram that the last Receive has brought.
func (b *Batch) Message(i int) Message {
	h := &b.headers[:b.n][i]
	m := Message{
		Data:      b.data[i*b.size:][:h.Len:h.Len],
		Truncated: h.Hdr.Flags&unix.MSG_TRUNC != 0,
	}
	m.Peer, m.Scope = parseName(b.name(i)[:min(h.Hdr.Namelen, nameSize)])
	m.parseControl(b.controlOf(i)[:min(uint64(h.Hdr.Controllen), controlSize)])
	return m
}

// parseName reads a struct sockaddr_in or sockaddr_in6.
func parseName(name []byte) (peer netip.AddrPort, scope uint32) {
	if len(name) < unix.SizeofSockaddrInet4 {
		return netip.AddrPort{}, 0
	}
	port := binary.BigEndian.Uint16(name[2:])
	switch family := binary.NativeEndian.Uint16(name); {
	case family == unix.AF_INET:
		return netip.AddrPortFrom(netip.AddrFrom4([4]byte(name[4:8])), port), 0
	case family == unix.AF_INET6 && len(name) >= unix.SizeofSockaddrInet6:
		a := netip.AddrFrom16([16]byte(name[8:24])).Unmap()
		return netip.AddrPortFrom(a, port), binary.NativeEndian.Uint32(name[24:])
	}
	return netip.AddrPort{}, 0
}

var broadcast = netip.AddrFrom4([4]byte{255, 255, 255, 255})

// parseControl looks for struct in_pktinfo, ip(7), and in6_pktinfo, RFC 3542
// section 6.
func (m *Message) parseControl(b []byte) {
	for len(b) >= unix.SizeofCmsghdr {
		h, data, rest, err := unix.ParseOneSocketControlMessage(b)
		if err != nil {
			return
		}
		b = rest
		switch {
		case h.Level == unix.IPPROTO_IP && h.Type == unix.IP_PKTINFO && len(data) >= unix.SizeofInet4Pktinfo:
			m.Interface = binary.NativeEndian.Uint32(data)
			m.Local = netip.AddrFrom4([4]byte(data[4:8]))
			m.To = netip.AddrFrom4([4]byte(data[8:12]))
			if m.Local.IsUnspecified() { // it came before the option was set
				m.Local = m.To
			}
			if m.Local.IsMulticast() || m.Local == broadcast {
				m.Local = netip.Addr{}
			}
		case h.Level == unix.IPPROTO_IPV6 && h.Type == unix.IPV6_PKTINFO && len(data) >= unix.SizeofInet6Pktinfo:
			if m.To.Is4() {
				continue // a v6 socket that tells both, and in_pktinfo tells more
			}
			m.Interface = binary.NativeEndian.Uint32(data[16:])
			m.To = netip.AddrFrom16([16]byte(data)).Unmap()
			if m.Local = m.To; m.To.IsMulticast() {
				m.Local = netip.Addr{}
			}
		}
	}
}

// An Outbox is memory for datagrams that are sent together. It is not safe for
// concurrent use.
type Outbox struct {
	messages
	n int
}

// NewOutbox makes an Outbox of n datagrams, 1 or more.
func NewOutbox(n int) *Outbox {
	o := &Outbox{messages: newMessages(n)}
	for i := range o.headers {
		h := &o.headers[i].Hdr
		h.Iov = &o.vectors[i]
		h.SetIovlen(1)
	}
	return o
}

// Full reports whether nothing more can be added before Send.
func (o *Outbox) Full() bool { return o.n == len(o.headers) }

// Len is how many datagrams wait for Send.
func (o *Outbox) Len() int { return o.n }

// Answer adds an answer to m: it goes where m came from, out by the same
// interface, and from the address m was sent to. v6 says that it leaves by a
// socket of the family AF_INET6, where v4 addresses are v4-mapped. The payload
// must stay as it is until Send. The Outbox must not be full.
func (o *Outbox) Answer(m Message, payload []byte, v6 bool) {
	o.Add(payload, m.Peer, m.Scope, m.Local, m.Interface, v6)
}

// Add adds a datagram to the peer to, whose link-local address is on the
// interface with the index scope. A valid from is its source address, and the
// interface index, unless it is 0, the way it goes: see IP_PKTINFO in ip(7) and
// RFC 3542 section 6. An invalid to is whom the socket is connected to. For v6
// and payload see Answer.
func (o *Outbox) Add(payload []byte, to netip.AddrPort, scope uint32, from netip.Addr, index uint32, v6 bool) {
	i := o.n
	o.n++
	h := &o.headers[i].Hdr
	vector := &o.vectors[i]
	vector.Base = nil
	if len(payload) > 0 {
		vector.Base = &payload[0]
	}
	vector.SetLen(len(payload))
	h.Name, h.Namelen = nil, 0
	if to.IsValid() {
		h.Name = &o.name(i)[0]
		h.Namelen = uint32(writeName(o.name(i), to, scope, v6))
	}
	h.Control = nil
	h.SetControllen(0)
	if from.IsValid() {
		h.Control = &o.controlOf(i)[0]
		h.SetControllen(writeControl(o.controlOf(i), from, index, v6))
	}
}

// writeName writes a struct sockaddr_in or sockaddr_in6 and says how long it is.
func writeName(name []byte, to netip.AddrPort, scope uint32, v6 bool) int {
	clear(name)
	binary.BigEndian.PutUint16(name[2:], to.Port())
	if !v6 {
		binary.NativeEndian.PutUint16(name, unix.AF_INET)
		a := to.Addr().As4()
		copy(name[4:], a[:])
		return unix.SizeofSockaddrInet4
	}
	binary.NativeEndian.PutUint16(name, unix.AF_INET6)
	a := to.Addr().As16()
	copy(name[8:], a[:])
	binary.NativeEndian.PutUint32(name[24:], scope)
	return unix.SizeofSockaddrInet6
}

func writeControl(b []byte, from netip.Addr, index uint32, v6 bool) int {
	clear(b)
	level, kind, size := uint32(unix.IPPROTO_IP), uint32(unix.IP_PKTINFO), unix.SizeofInet4Pktinfo
	if v6 {
		level, kind, size = unix.IPPROTO_IPV6, unix.IPV6_PKTINFO, unix.SizeofInet6Pktinfo
	}
	// struct cmsghdr begins with a size_t.
	if unix.SizeofPtr == 8 {
		binary.NativeEndian.PutUint64(b, uint64(unix.CmsgLen(size)))
	} else {
		binary.NativeEndian.PutUint32(b, uint32(unix.CmsgLen(size)))
	}
	binary.NativeEndian.PutUint32(b[unix.SizeofPtr:], level)
	binary.NativeEndian.PutUint32(b[unix.SizeofPtr+4:], kind)
	data := b[unix.CmsgLen(0):]
	if v6 {
		a := from.As16()
		copy(data, a[:])
		binary.NativeEndian.PutUint32(data[16:], index)
	} else {
		a := from.As4()
		binary.NativeEndian.PutUint32(data, index)
		copy(data[4:], a[:])
	}
	return unix.CmsgSpace(size)
}

// Send sends what was added, never waits, and empties the Outbox. One datagram
// that cannot go does not keep the others: sent is how many went, and err what
// was in the way of the first that did not. After EAGAIN, a full socket buffer,
// the rest is given up, as the network would.
func (o *Outbox) Send(fd int) (sent int, err error) {
	for first := 0; first < o.n; {
		n, e := o.call(unix.SYS_SENDMMSG, fd, first, o.n, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		sent += n
		first += n
		if e == nil {
			continue
		}
		if err == nil {
			err = e
		}
		if e == unix.EAGAIN {
			break
		}
		first++
	}
	// The payloads are the caller's: nothing here keeps them alive.
	for i := range o.n {
		o.vectors[i].Base = nil
	}
	o.n = 0
	return sent, err
}
