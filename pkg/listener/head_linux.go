package listener

import (
	"encoding/binary"
	"hash/maphash"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

var seed = maphash.MakeSeed()

// Head tells one state of the queue from another: for a datagram socket what is
// first in it and from whom, for a stream socket of TCP how many wait. Nothing is
// taken out. 0 is an empty queue, or one that cannot be told.
func (l *Listener) Head() uint64 {
	if !l.hold() {
		return 0
	}
	defer l.release()
	switch {
	case l.Endpoint.Network.Dgram():
		return l.firstDatagram()
	case l.Endpoint.Network == service.TCP4, l.Endpoint.Network == service.TCP6:
		// Of a listening socket tcpi_unacked is the length of its queue.
		if info, err := unix.GetsockoptTCPInfo(l.fd, unix.IPPROTO_TCP, unix.TCP_INFO); err == nil {
			return uint64(info.Unacked)
		}
	}
	return 0
}

func (l *Listener) firstDatagram() uint64 {
	var b [128]byte
	stamp(l.fd) // from here on the kernel notes when they come
	before := time.Now().UnixMicro()
	n, from, err := unix.Recvfrom(l.fd, b[:], unix.MSG_PEEK|unix.MSG_DONTWAIT)
	if err != nil {
		return 0
	}
	var h maphash.Hash
	h.SetSeed(seed)
	h.Write(b[:n])
	switch from := from.(type) {
	case *unix.SockaddrInet4:
		h.Write(from.Addr[:])
		h.Write([]byte{byte(from.Port >> 8), byte(from.Port)})
	case *unix.SockaddrInet6:
		h.Write(from.Addr[:])
		h.Write([]byte{byte(from.Port >> 8), byte(from.Port)})
	case *unix.SockaddrUnix:
		h.WriteString(from.Name)
	}
	// When it came tells two of the same words apart. Of one that came before the
	// kernel noted it, it says the present.
	if s, us, err := stamp(l.fd); err == nil && s*1e6+us < before {
		h.Write(binary.NativeEndian.AppendUint64(nil, uint64(s*1e6+us)))
	}
	return max(1, h.Sum64())
}
