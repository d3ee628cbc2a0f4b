// Which rows want the same socket.

package config

import (
	"cmp"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// taken knows which sockets are spoken for. The kernel's rule for two sockets of
// one port (inet_csk_bind_conflict and inet_rcv_saddr_any in Linux) is the same
// for listeners and for datagrams: they are in each other's way if their
// addresses are equal or one is the wildcard, and their devices are equal or one
// has none, unless both have SO_REUSEPORT. SO_REUSEADDR does not help against a
// listener, and datagram sockets do not get it. The families never meet, because
// IPV6_V6ONLY is set on all but some that were passed, which are both; TCP and
// UDP never meet. A path is one socket of whatever kind, an abstract name one of
// each kind, and vsock is ports and machines as TCP is ports and addresses.
type taken struct {
	// doors has who came to a port or a path first, nil after somebody else came.
	// Nearly always that is all.
	doors map[door]*holder
	spots map[spot]*[2]*holder // the first without, and the first with SO_REUSEPORT
}

// A door is what two sockets have in common that can be in each other's way.
type door struct {
	network service.Network
	port    uint32
	path    string
}

// A spot is an address and a device, either of which may stand for any, so
// that a few look-ups find whoever is in the way, however many rows there are.
type spot struct {
	network   service.Network
	port      uint32
	addr      netip.Addr // without zone; of vsock the machine; not valid: any
	path      string
	device    string
	anyDevice bool
}

type holder struct {
	row *row
	bound
}

// A clash is one entry and who is in its way.
type clash struct {
	pos   Pos
	other *row
}

// spotOf is where e is, and the address that stands for all of them there.
func spotOf(e service.Endpoint) (at spot, wildcard netip.Addr) {
	switch {
	case e.Network.Unix():
		at = spot{network: e.Network, path: e.Path}
		if e.Path[0] == '/' {
			at.network = service.UnixStream
		}
		return at, netip.Addr{}
	case e.Network.Vsock():
		cid := func(n uint32) netip.Addr {
			return netip.AddrFrom4([4]byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)})
		}
		return spot{network: service.VsockStream, port: e.Port, addr: cid(e.CID)}, cid(service.VsockAny)
	}
	wildcard = netip.IPv4Unspecified()
	if e.Network.V6() {
		wildcard = netip.IPv6Unspecified()
	}
	return spot{network: e.Network, port: uint32(e.Addr.Port()), addr: e.Addr.Addr().WithZone("")}, wildcard
}

// take notes that r listens on b, and reports a row that does so already.
func (t taken) take(r *row, b bound) {
	if b.Network.IP() && b.Addr.Port() == 0 {
		return // each has one that is free
	}
	if b.Dual {
		four := b
		four.Dual = false
		four.Network = map[bool]service.Network{true: service.UDP4, false: service.TCP4}[b.Network.UDP()]
		four.Addr = netip.AddrPortFrom(netip.IPv4Unspecified(), b.Addr.Port())
		t.take(r, four)
	}
	at, _ := spotOf(b.Endpoint)
	d := door{at.network, at.port, at.path}
	first, come := t.doors[d]
	if !come {
		t.doors[d] = &holder{r, b}
		return
	}
	if first != nil {
		t.doors[d] = nil
		t.judge(first.row, first.bound)
	}
	t.judge(r, b)
}

// judge notes that r listens on b, behind a door to which others have come, too.
func (t taken) judge(r *row, b bound) {
	at, wildcard := spotOf(b.Endpoint)
	reuse := false
	if b.Network.IP() {
		// A link-local socket is bound to its interface (inet6_bind).
		at.device = cmp.Or(r.svc.Socket.BindToDevice, b.Addr.Addr().Zone())
		reuse = r.svc.Socket.ReusePort
	}
	device := at.device
	anyAddr, anyDevice := at, at
	anyAddr.addr = netip.Addr{}
	anyDevice.device, anyDevice.anyDevice = "", true
	both := anyDevice
	both.addr = netip.Addr{}

	// Who is in the way: of the same address and of the wildcard, or of any
	// address if this is the wildcard; likewise for the device.
	addrs := []netip.Addr{at.addr, wildcard}
	if at.addr == wildcard {
		addrs = []netip.Addr{{}}
	}
	var other *holder
search:
	for _, addr := range addrs {
		s := at
		s.addr = addr
		in := []spot{s, s}
		in[1].device = ""
		if device == "" {
			s.anyDevice = true
			in = []spot{s}
		}
		for _, s := range in {
			h := t.spots[s]
			if h == nil {
				continue
			}
			if other = h[0]; other == nil && !reuse {
				other = h[1]
			}
			if other != nil {
				break search
			}
		}
	}
	// With listen from [defaults] the row is where the two can be told apart.
	pos := b.pos
	if r.inherited["listen"] {
		pos = r.text.Pos
	}
	report := func(format string, args ...any) {
		c := clash{pos, other.row}
		if r.clashes[c] { // of the other family: said already
			return
		}
		if r.clashes == nil {
			r.clashes = make(map[clash]bool)
		}
		r.clashes[c] = true
		p := r.problem("", pos, format, args)
		p.Key = "listen"
		r.fault(p)
	}
	switch {
	case other == nil:
	case other.row == r:
		report("%s is taken by %s of this row already; take one out", b.Endpoint, other.Endpoint)
	default:
		write := "address or port"
		if b.Network.Unix() {
			write = "path"
		}
		report("%s is taken: row %q at %s has %s; write another %s", b.Endpoint, other.row.text.ID, other.row.text.Pos, other.Endpoint, write)
	}

	i, here := 0, &holder{r, b}
	if reuse {
		i = 1
	}
	for _, s := range []spot{at, anyAddr, anyDevice, both} {
		if t.spots[s] == nil {
			t.spots[s] = new([2]*holder)
		}
		if t.spots[s][i] == nil {
			t.spots[s][i] = here
		}
	}
}
