// Which of the sockets that were passed to the daemon belongs to which row:
// sd_listen_fds(3). They are matched by what is said of them alone; nothing here
// touches a descriptor.

package config

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A passed is a socket and whether a row has it.
type passed struct {
	service.Passed
	row *row // who has it by name; nil: nobody so far
	use bool // a row listens on it
}

func passedTo(list []service.Passed) []*passed {
	var out []*passed
	for _, p := range list {
		out = append(out, &passed{Passed: p})
	}
	return out
}

// String says in a message which socket it is.
func (p *passed) String() string {
	return fmt.Sprintf("%s (%s, descriptor %d, name %q)", p.Endpoint, p.Endpoint.Network, p.FD, p.Name)
}

// unnamed reports whether nobody has given p a name: systemd names a socket
// "unknown", or by its unit, where the unit does not say FileDescriptorName.
func (p *passed) unnamed() bool {
	return p.Name == "" || p.Name == "unknown" || strings.HasSuffix(p.Name, ".socket")
}

// wild reports whether p takes the v4 peers of a v6 wildcard, too.
func (p *passed) wild() bool {
	return p.Endpoint.Dual && p.Endpoint.Network.V6() && p.Endpoint.Addr.Addr().IsUnspecified()
}

// halves are the endpoints of a row that p is both of, if p is wild.
func (p *passed) halves() [2]service.Endpoint {
	port := p.Endpoint.Addr.Port()
	four, six := service.TCP4, service.TCP6
	if p.Endpoint.Network.UDP() {
		four, six = service.UDP4, service.UDP6
	}
	return [2]service.Endpoint{
		{Network: four, Addr: netip.AddrPortFrom(netip.IPv4Unspecified(), port)},
		{Network: six, Addr: netip.AddrPortFrom(netip.IPv6Unspecified(), port)},
	}
}

// passByName gives rows the sockets that are called as they are: by a row's key
// or, where no row has that key, by its name.
func (c *compiler) passByName(rows []*row) {
	if len(c.passed) == 0 {
		return
	}
	called := make(map[string][]*row)
	for _, r := range rows {
		if r.kind&sockets != 0 && r.svc.Name != r.text.ID {
			called[r.svc.Name] = append(called[r.svc.Name], r)
		}
	}
	for _, r := range rows {
		if r.kind&sockets != 0 {
			called[r.text.ID] = []*row{r}
		}
	}
	for _, p := range c.passed {
		for _, r := range called[p.Name] {
			if r.disabled {
				r.passed = append(r.passed, p) // it is checked as if it had it
				continue
			}
			if p.row != nil {
				r.errorf("", r.text.Pos, "the socket %s was passed, and row %q at %s has that name, too; give the socket the key of the row it is for", p, p.row.text.ID, p.row.text.Pos)
				continue
			}
			r.passed = append(r.passed, p)
			p.row, p.use = r, true
		}
	}
}

// takePassed adds what was passed by the row's name.
func (r *row) takePassed() {
	for _, p := range r.passed {
		if r.wrongKind(p) {
			continue
		}
		if _, twice := r.heard.get(p.Endpoint); twice {
			r.warnf("", r.text.Pos, "the socket %s was passed twice; one of them is not used", p)
			continue
		}
		r.heard.put(p.Endpoint, true)
		if p.wild() {
			for _, e := range p.halves() {
				r.heard.put(e, true)
			}
		}
		r.listen = append(r.listen, bound{Endpoint: p.Endpoint, pos: r.text.Pos, passed: true})
	}
}

// wrongKind reports a socket that was passed by the row's name and that the row
// cannot have.
func (r *row) wrongKind(p *passed) bool {
	n := p.Endpoint.Network
	if got := styleOf(n); got != r.style {
		write := fmt.Sprintf("write socket = %q or pass another", got)
		if r.kind&(execDirect|builtinDirect) == 0 || r.kind == builtinDirect && got == seqpacket {
			write = "pass another"
		}
		r.errorf("", r.text.Pos, "the socket %s was passed, a %s socket, and the row wants a %s one; %s", p, got, r.style, write)
		return true
	}
	if !r.own {
		return false
	}
	for _, want := range networks[r.style][r.family] {
		if n == want && (!p.wild() || len(networks[r.style][r.family]) == 2) {
			return false
		}
	}
	what := n.String()
	if p.wild() {
		what = "for IPv4 and IPv6"
	}
	r.errorf("", r.text.Pos, "the socket %s was passed, which is %s, and the row has protocol %q; write another protocol or pass another", p, what, r.family)
	return true
}

// passByAddress gives rows the sockets that are where they listen. The first
// multiplexer that does not say where it listens, and for which there is none,
// takes the only socket without a name that is left and that it can have.
func (c *compiler) passByAddress(rows []*row) {
	if len(c.passed) == 0 {
		return
	}
	at := make(map[service.Endpoint]*passed)
	var wild []*passed
	for _, p := range c.passed {
		if p.row != nil {
			continue
		}
		if at[p.Endpoint] == nil {
			at[p.Endpoint] = p
		}
		if p.wild() {
			wild = append(wild, p)
		}
	}
	for _, r := range rows {
		for _, p := range wild {
			r.takeWild(p)
		}
		for i := range r.listen {
			b := &r.listen[i]
			if p := at[b.Endpoint]; p != nil && !b.passed {
				b.passed = true
				p.use = p.use || !r.disabled
			}
		}
	}
	for _, r := range rows {
		if r.kind != multiplexer || r.disabled || r.text.Listen.IsSet() {
			continue
		}
		if len(r.passed) > 0 || len(r.listen) == 0 || r.listen[0].passed {
			break
		}
		if p := c.onlyUnnamed(); p != nil && !(r.own && r.wrongKind(p)) {
			p.use = true
			r.listen = []bound{{p.Endpoint, r.text.Pos, true}}
		}
		break
	}
}

// takeWild puts p in the place of the two wildcards that it is.
func (r *row) takeWild(p *passed) {
	var at [2]int
	halves := p.halves()
	for i, e := range halves {
		at[i] = -1
		for j, b := range r.listen {
			if b.Endpoint == e && !b.passed {
				at[i] = j
			}
		}
	}
	switch {
	case at[0] < 0 && at[1] < 0:
	case at[0] < 0 || at[1] < 0:
		b := &r.listen[max(at[0], at[1])]
		b.passed = true // and no right is asked for
		r.errorf("listen", b.pos, "the socket %s was passed, which is for IPv4 and IPv6, and the row wants one of them; write both, or pass one with BindIPv6Only=ipv6-only", p)
	default:
		r.listen[at[0]] = bound{p.Endpoint, r.listen[at[0]].pos, true}
		r.listen = append(r.listen[:at[1]], r.listen[at[1]+1:]...)
		p.use = p.use || !r.disabled
	}
}

// onlyUnnamed is the only stream socket without a name that no row has; nil if
// there is none or several.
func (c *compiler) onlyUnnamed() (only *passed) {
	for _, p := range c.passed {
		if p.use || !p.unnamed() || styleOf(p.Endpoint.Network) != stream {
			continue
		}
		if only != nil {
			return nil
		}
		only = p
	}
	return only
}

// notTaken warns of what matches no row. It is of no use beside errors: a row
// that is wrong may be the one.
func (c *compiler) notTaken() {
	if len(c.errors) > 0 {
		return
	}
	for _, p := range c.passed {
		if !p.use {
			c.warnings = append(c.warnings, &Problem{Pos: Pos{c.f.Path, 1, 1},
				Text: fmt.Sprintf("the socket %s was passed and matches no row; give it the key of a row, or write its address in listen", p)})
		}
	}
}
