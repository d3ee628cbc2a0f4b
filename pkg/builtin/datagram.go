package builtin

import (
	"net/netip"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A Refusal is why a datagram is not answered, in a word for the log. Empty: it
// may be.
type Refusal string

// The refusals.
const (
	// RefusedLoop: it comes from a port that answers whatever it gets, so that
	// two servers would never stop.
	RefusedLoop Refusal = "loop"
	// RefusedSource: nobody can be at the address that it claims to come from.
	RefusedSource Refusal = "source"
	// RefusedBroadcast: it was sent to all; all would answer at once.
	RefusedBroadcast Refusal = "broadcast"
)

// Ports are those of our own datagram built-ins. It is not changed once it is
// used.
type Ports map[uint16]bool

var (
	thisNetwork = netip.MustParsePrefix("0.0.0.0/8") // RFC 1122 section 3.2.1.3
	limited     = netip.AddrFrom4([4]byte{255, 255, 255, 255})
)

// Judge says whether a datagram may be answered at all. Peers that cannot be are
// refused, and those on the ports of echo, discard, daytime, qotd, chargen and
// time, or on one of own, wherever they are. Loopback is as good as any other
// address.
func Judge(m *kernel.Message, own Ports) Refusal {
	a, port := m.Peer.Addr(), m.Peer.Port()
	switch {
	case !a.IsValid(), a.IsMulticast(), a.IsUnspecified(), a == limited, thisNetwork.Contains(a), port == 0:
		return RefusedSource
	case m.To.IsMulticast(), m.To.Is4() && m.To != m.Local:
		return RefusedBroadcast
	}
	switch port {
	case 7, 9, 13, 17, 19, 37:
		return RefusedLoop
	}
	if own[port] {
		return RefusedLoop
	}
	return ""
}

// Batch is how many datagrams Receive takes at once.
const Batch = 32

// largest is more than a datagram can have. Memory that no datagram has filled
// is never touched.
const largest = 64 << 10

// Datagrams receives and answers datagrams in batches, with memory that is made
// once. It is not safe for concurrent use.
type Datagrams struct {
	in     *kernel.Batch
	out    *kernel.Outbox
	line   uint   // the next one of chargen
	text   []byte // daytime or time, for this batch
	single []byte // for a datagram of a unix socket
}

// NewDatagrams makes a Datagrams.
func NewDatagrams() *Datagrams {
	return &Datagrams{in: kernel.NewBatch(Batch, largest), out: kernel.NewOutbox(Batch)}
}

// Receive takes a batch from a socket without waiting, and says how many that
// are: there may be more if it is Batch. The errors are those of kernel.Batch.Receive.
func (d *Datagrams) Receive(fd int) (int, error) {
	d.text = d.text[:0]
	return d.in.Receive(fd)
}

// Message is the i-th of the batch.
func (d *Datagrams) Message(i int) kernel.Message { return d.in.Message(i) }

// Answer prepares the answer of a service to m, if it has any, and returns its
// size. v6 says that the socket is of the family AF_INET6. now is asked once for
// a batch.
func (d *Datagrams) Answer(b service.Builtin, m *kernel.Message, v6 bool, now func() time.Time) int {
	payload := d.payload(b, m.Data, now)
	if payload == nil {
		return 0
	}
	d.out.Answer(*m, payload, v6)
	return len(payload)
}

// payload is what a service answers, nil for nothing. Chargen answers with one
// line, whatever was asked: RFC 864 allows 512 bytes, which would be worth a
// forged source address. With headers it is 102 bytes for 28.
func (d *Datagrams) payload(b service.Builtin, data []byte, now func() time.Time) []byte {
	switch b {
	case service.BuiltinEcho:
		if data == nil {
			return []byte{}
		}
		return data
	case service.BuiltinChargen:
		d.line++
		return Line(d.line - 1)
	case service.BuiltinDaytime:
		if len(d.text) == 0 {
			d.text = AppendDaytime(d.text, now())
		}
		return d.text
	case service.BuiltinTime:
		if len(d.text) == 0 {
			d.text = AppendTime(d.text, now())
		}
		return d.text
	}
	return nil // discard
}

// Send sends what Answer has prepared. The errors are those of
// kernel.Outbox.Send.
func (d *Datagrams) Send(fd int) (int, error) {
	if d.out.Len() == 0 {
		return 0, nil
	}
	return d.out.Send(fd)
}
