// Which rows want the same socket.

package config

import (
	"cmp"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// taken knows which sockets are spoken for. The kernel's rule for two listeners
// of one port (inet_csk_bind_conflict in Linux): they are in each other's way
// if their addresses are equal or one is the wildcard, and their devices are
// equal or one has none, unless both have SO_REUSEPORT. SO_REUSEADDR does not
// help against a listener. The families never meet, because IPV6_V6ONLY is
// always set.
type taken map[spot]*[2]*holder // the first without, and the first with SO_REUSEPORT

// A spot is an address and a device, either of which may stand for any, so
// that a few look-ups find whoever is in the way, however many rows there are.
type spot struct {
	network   service.Network
	port      uint16
	addr      netip.Addr // without zone; not valid: any
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

// take notes that r listens on b, and reports a row that does so already.
func (t taken) take(r *row, b bound) {
	a := b.Addr.Addr()
	// A link-local socket is bound to its interface (inet6_bind).
	device := cmp.Or(r.svc.Socket.BindToDevice, a.Zone())
	at := spot{network: b.Network, port: b.Addr.Port(), addr: a.WithZone(""), device: device}
	anyAddr, anyDevice := at, at
	anyAddr.addr = netip.Addr{}
	anyDevice.device, anyDevice.anyDevice = "", true
	both := anyDevice
	both.addr = netip.Addr{}

	// Who is in the way: of the same address and of the wildcard, or of any
	// address if this is the wildcard; likewise for the device.
	addrs := []netip.Addr{at.addr, netip.IPv4Unspecified()}
	if b.Network == service.TCP6 {
		addrs[1] = netip.IPv6Unspecified()
	}
	if a.IsUnspecified() {
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
			in = []spot{{s.network, s.port, s.addr, "", true}}
		}
		for _, s := range in {
			h := t[s]
			if h == nil {
				continue
			}
			if other = h[0]; other == nil && !r.svc.Socket.ReusePort {
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
		r.c.errors = append(r.c.errors, p)
	}
	switch {
	case other == nil:
	case other.row == r:
		report("%s is taken by %s of this row already; take one out", b.Addr, other.Addr)
	default:
		report("%s is taken: row %q at %s has %s; write another address or port", b.Addr, other.row.text.ID, other.row.text.Pos, other.Addr)
	}

	i := 0
	if r.svc.Socket.ReusePort {
		i = 1
	}
	for _, s := range []spot{at, anyAddr, anyDevice, both} {
		if t[s] == nil {
			t[s] = new([2]*holder)
		}
		if t[s][i] == nil {
			t[s][i] = &holder{r, b}
		}
	}
}
