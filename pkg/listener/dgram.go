package listener

// Datagram sockets of rows that have a session for each peer: what is received
// from them, and the sockets that make it possible to part the peers.
//
// A session has a socket of its own that is bound to the address its datagrams
// are sent to and connected to its peer. The kernel prefers such a socket to the
// listening one for that peer's datagrams. Between bind(2) and connect(2),
// though, it would take anybody's. Therefore all sockets of one address are a
// group with SO_REUSEPORT, of which a program lets only the first receive what
// is not for a connected one: the listening socket itself or, where that is
// bound to no address, a guard that stands in for it at the one address. They have
// the option only while one comes to the group, so that no other daemon can.
//
// The first datagrams of a peer come to the listening socket, as nobody knows of
// the peer before. They are put back into the session's socket by a raw socket,
// which sends them once more with the peer's address as their source. They go
// over the loopback interface, whatever the address, and pass the packet filter
// there.
//
// Who may have a session, and what runs in it, is not decided here.

import (
	"errors"
	"net/netip"
	"sync"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// ErrNoSession means that datagrams to this address cannot have a session: it is
// a multicast address.
var ErrNoSession = errors.New("no session can have this address")

// A Datagram is what a peer has sent. Data is the Batch's.
type Datagram struct {
	Data        []byte
	Peer, Local netip.AddrPort // Local is not valid where there is none to answer from
	Interface   uint32         // the index of the one it came by; of what was put back, of the one that has Local
}

// Datagrams is the receiving half of a UDP listener whose peers have sessions.
// Its methods may be called concurrently, each with a Batch of its own.
type Datagrams struct {
	l    *Listener
	poll func(fd int)
	raw4 int
	raw6 int

	mu     sync.RWMutex
	fds    []int                   // to receive from: the listener's, and guards'
	turn   int                     // of fds, whose turn it is
	guards map[netip.Addr]*standIn // by local address
	late   []late
	closed bool
}

// A standIn is what an address has while it has sessions: a guard, which receives
// for the listener there, and spares.
type standIn struct {
	fd       int // -1 where the listener has the address itself
	sessions int
	spares   []spare // oldest first
}

// A spare is a socket for a session to come. It is connected to itself, and not
// bound just before it is connected to a peer: for that moment the kernel may take
// another peer's datagrams for it, see Part, and they may be late. Those that were
// taken for a spare have come when it is used, or nearly: where sessions are opened
// without a pause it is some milliseconds old, and Part is for the rest.
type spare struct {
	fd      int
	options service.Socket
	since   time.Time
	ripe    bool // what was late has been looked for
}

// sparesMost is how many spares an address has. They are as many as it has
// sessions beside the last one: where peers come one by one there are none.
const sparesMost = 8

// A late socket is one of a session that has ended, or a guard or a spare of an
// address without sessions. It is connected to itself, but what was on its way to
// it may still arrive.
type late struct {
	fd    int
	since time.Time
	read  bool           // its server has read something
	peer  netip.AddrPort // not valid: a guard; local: a spare
	local netip.AddrPort
}

// LateTime is how long a socket is kept that nothing new comes to. It covers
// packets for which the kernel had chosen the socket already.
const LateTime = 50 * time.Millisecond

// A Session is the socket of one peer. It belongs to the Datagrams it was opened
// from and is ended by its End.
type Session struct {
	Peer, Local netip.AddrPort
	fd          int
	guard       *standIn
	parted      int64 // the stamp of what Part has read last
	served      bool  // the server had read something by then
}

// Fd is the descriptor: close-on-exec and blocking, for the child. It belongs to
// the Session.
func (s *Session) Fd() int { return s.fd }

// Read says when the datagram came that the server has read last, as a number to
// compare with an earlier answer; 0: it has read none.
func (s *Session) Read() int64 {
	if t := s.stamp(); t != s.parted || s.served {
		return t
	}
	return 0
}

// stamp says when the datagram came that was read last, by whomever.
func (s *Session) stamp() int64 {
	seconds, micros, err := stamp(s.fd)
	if err != nil {
		return 0
	}
	return seconds*1e6 + micros
}

// DatagramOf is the i-th datagram that Receive has brought.
func (d *Datagrams) DatagramOf(b *kernel.Batch, i int) Datagram {
	m := b.Message(i)
	g := Datagram{Data: m.Data, Interface: m.Interface, Peer: netip.AddrPortFrom(d.zoned(m.Peer.Addr(), m.Scope), m.Peer.Port())}
	if m.Local.IsValid() {
		g.Local = netip.AddrPortFrom(d.zoned(m.Local, m.Interface), d.l.Endpoint.Addr.Port())
	}
	return g
}

// Each calls f for every descriptor that Receive receives from. They belong to
// the Datagrams, which must not be used from f.
func (d *Datagrams) Each(f func(fd int)) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	for _, fd := range d.fds {
		f(fd)
	}
}
