// Package proxy reads and writes the header of the PROXY protocol, by which a
// load balancer says whom a connection is for.
//
// It looks at bytes that somebody has peeked: Scan says how many of them are the
// header, and nothing here ever has a byte that comes after it, because that is
// the service's. It decides neither who may send a header nor what an address may
// have. What a header says besides the addresses (TLVs) is not looked at.
//
// The rules are those of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt.
package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"

	"github.com/pires/go-proxyproto"
)

const (
	// MaxHeader is the longest header that is taken, in bytes: what the smallest
	// segment of TCP has room for, so that a header always comes as one piece. No
	// address of any family needs more than 232; the rest is for TLVs.
	MaxHeader = 536
	maxV1     = 107 // section 2.1
	fixedV2   = 16  // section 2.2: signature, version and command, family, length
)

// A State is what Scan has found.
type State uint8

// The states.
const (
	More  State = iota // may become a header
	Whole              // begins with a whole header
	Bad                // is no header, and none can come of it
)

var (
	signatureV1 = []byte("PROXY ")
	signatureV2 = proxyproto.SIGV2
)

// Scan says whether b begins with a header, and with Whole how long that is, from
// 1 to MaxHeader bytes. Whether its content makes sense is Parse's to say. Scan
// reads no further than the header and allocates nothing.
func Scan(b []byte) (size int, s State) {
	switch {
	case begins(b, signatureV2):
		return scanV2(b)
	case begins(b, signatureV1):
		return scanV1(b)
	}
	return 0, Bad
}

// begins reports whether b begins with signature, as far as it goes.
func begins(b, signature []byte) bool {
	n := min(len(b), len(signature))
	return bytes.Equal(b[:n], signature[:n])
}

func scanV1(b []byte) (int, State) {
	line := b[:min(len(b), maxV1)]
	i := bytes.IndexByte(line, '\n')
	switch {
	case i > 0 && line[i-1] == '\r':
		return i + 1, Whole
	case i >= 0 || len(line) == maxV1:
		return 0, Bad
	}
	return 0, More
}

func scanV2(b []byte) (int, State) {
	if len(b) > len(signatureV2) && b[len(signatureV2)]>>4 != 2 {
		return 0, Bad
	}
	if len(b) < fixedV2 {
		return 0, More
	}
	size := fixedV2 + int(binary.BigEndian.Uint16(b[fixedV2-2:]))
	switch {
	case size > MaxHeader:
		return 0, Bad
	case size > len(b):
		return 0, More
	}
	return size, Whole
}

// A Header is what a header says. Without addresses, both not valid, it says
// that they are the connection's own: the proxy speaks for itself, as in a health
// check (LOCAL), or for a client of which it knows no IP address (UNKNOWN,
// AF_UNSPEC, a unix socket).
type Header struct {
	Source      netip.AddrPort // the client; never v4-mapped
	Destination netip.AddrPort // what the client had connected to
}

// A Reader parses headers, one after the other. The zero Reader is ready; it is
// not safe for concurrent use.
type Reader struct {
	bytes  bytes.Reader
	reader *bufio.Reader
}

var errDatagram = errors.New("a header of datagrams on a stream")

// Parse reads a header; b is all of it and nothing else, as Scan has found it. It
// keeps nothing of b.
func (r *Reader) Parse(b []byte) (Header, error) {
	if len(b) > fixedV2-1 && begins(b, signatureV2) && b[12] == byte(proxyproto.PROXY) && b[13] == byte(proxyproto.UNSPEC) {
		// Section 2.2 leaves it to the receiver; it is what UNKNOWN was.
		return Header{}, nil
	}
	r.bytes.Reset(b)
	if r.reader == nil {
		r.reader = bufio.NewReaderSize(nil, MaxHeader)
	}
	r.reader.Reset(&r.bytes)
	h, err := proxyproto.Read(r.reader)
	switch {
	case err != nil:
		return Header{}, err
	case r.reader.Buffered() > 0:
		return Header{}, fmt.Errorf("%d bytes too many", r.reader.Buffered())
	case h.Command == proxyproto.LOCAL:
		return Header{}, nil
	case h.TransportProtocol.IsDatagram():
		return Header{}, errDatagram
	case h.TransportProtocol.IsUnix():
		return Header{}, nil
	}
	source, destination, ok := h.TCPAddrs()
	if !ok {
		return Header{}, proxyproto.ErrInvalidAddress
	}
	return Header{unmapped(source), unmapped(destination)}, nil
}

func unmapped(a *net.TCPAddr) netip.AddrPort {
	ap := a.AddrPort()
	return netip.AddrPortFrom(ap.Addr().Unmap(), ap.Port())
}

// New makes a header of version 1 or 2 for a connection of source to destination.
// If one of them is not valid it says that nothing is known of the client: UNKNOWN
// in version 1, LOCAL in 2. Where the families differ, both go as IPv6. It has at
// most 107 bytes.
func New(version byte, source, destination netip.AddrPort) []byte {
	h := proxyproto.HeaderProxyFromAddrs(version, nil, nil)
	if source.IsValid() && destination.IsValid() {
		h = proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(destination))
	}
	b, err := h.Format()
	if err != nil {
		// It has formatted what it has made itself: there is no such error.
		panic(fmt.Sprintf("proxy: %v", err))
	}
	return b
}
