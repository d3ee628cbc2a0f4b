// Where a row listens, and with which socket options. Whether an address is up
// is never an error: it may come later, and is the listener's matter.

package config

import (
	"cmp"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of socket options. The clocks are those of tcp(7) and
// linux/tcp.h: MAX_TCP_KEEPIDLE, MAX_TCP_KEEPINTVL, MAX_TCP_KEEPCNT.
const (
	maxBacklog    = 1 << 20
	minBuffer     = 1 << 10
	maxBuffer     = 1 << 30
	maxKeepalive  = 32767 * time.Second
	maxKeepcount  = 127
	maxDefer      = time.Hour
	maxDeviceName = 15 // IFNAMSIZ without its NUL
)

func (r *row) socket() service.Socket {
	s := &r.text
	o := service.Socket{
		Backlog:     int(r.number("backlog", s.Backlog, 0, 1, maxBacklog)),
		Nodelay:     s.Nodelay.V,
		DeferAccept: r.duration("defer_accept", s.DeferAccept, 0, 0, maxDefer, time.Second),
		ReusePort:   s.Reuseport.V,
		Freebind:    s.Freebind.V,
		Rcvbuf:      int(r.number("rcvbuf", s.Rcvbuf, 0, minBuffer, maxBuffer)),
		Sndbuf:      int(r.number("sndbuf", s.Sndbuf, 0, minBuffer, maxBuffer)),
		Mark:        uint32(r.number("mark", s.Mark, 0, 0, 1<<32-1)),
		TOS:         int(r.number("tos", s.TOS, -1, 0, 252)),
	}
	if o.TOS > 0 && o.TOS&3 != 0 {
		r.errorf("tos", s.TOS.Pos, "the two low bits are the kernel's, for ECN; write %d instead", o.TOS&^3)
	}
	if o.Mark != 0 && !r.c.o.Mark {
		r.errorf("mark", s.Mark.Pos, "needs root, CAP_NET_ADMIN or CAP_NET_RAW; run tcpmuxd so or take it out")
	}
	if d := s.BindToDevice; d.IsSet() && r.plain("bind_to_device", d, maxDeviceName, "an interface's name such as \"eth0\"") {
		if validDevice(d.V) {
			o.BindToDevice = d.V
		} else {
			r.errorf("bind_to_device", d.Pos, "%s is no interface's name; write one such as \"eth0\" instead", clip(d.V))
		}
	}
	if k := &s.Keepalive; k.On {
		o.Keepalive = service.Keepalive{
			On:       true,
			Idle:     r.duration("keepalive.idle", k.Idle, 0, time.Second, maxKeepalive, time.Second),
			Interval: r.duration("keepalive.interval", k.Interval, 0, time.Second, maxKeepalive, time.Second),
			Count:    int(r.number("keepalive.count", k.Count, 0, 1, maxKeepcount)),
		}
	}
	return o
}

// validDevice is the kernel's dev_valid_name.
func validDevice(s string) bool {
	return s != "" && len(s) <= maxDeviceName && s != "." && s != ".." && !strings.ContainsAny(s, "/: \t\n\v\f\r\x00")
}

// A bound is an endpoint and where it is written.
type bound struct {
	service.Endpoint
	pos Pos
}

func (r *row) endpoints() {
	s := &r.text
	family := choose(r, "protocol", s.Protocol, []choice[string]{{"tcp", "tcp"}, {"tcp4", "tcp4"}, {"tcp6", "tcp6"}})
	switch {
	case s.Listen.IsSet():
		if len(s.Listen.V) == 0 {
			r.errorf("listen", s.Listen.Pos, "an empty list; write a port, or an address and a port")
		}
		for _, l := range s.Listen.V {
			if !l.IsSet() {
				continue
			}
			if host, port, ok := r.split(l); ok {
				r.listenOn(family, host, port, l)
			}
		}
	case r.isDefaults() || r.bad("listen"):
	case r.kind == builtin:
		r.listenOn(family, "", 1, String{"1", s.Pos}) // RFC 1078: TCP port 1
	default:
		if badName(r.svc.Name) != "" || r.bad("name") {
			break // said already
		}
		if r.both {
			break
		}
		pos := s.Pos
		if s.Name.IsSet() && !r.inherited["name"] {
			pos = s.Name.Pos
		}
		port, err := r.c.asked.port(r.c.o.Accounts, r.svc.Name)
		if err != nil {
			r.errorf("listen", pos, "there is no port for it: TCP service %s %s; write listen = \"PORT\"", clip(r.svc.Name), lookupError(err))
			break
		}
		r.listenOn(family, "", port, String{r.svc.Name, pos})
	}
	for _, b := range r.listen {
		r.svc.Listen = append(r.svc.Listen, b.Endpoint)
		r.svc.ListenOrigin = append(r.svc.ListenOrigin, b.pos.String())
	}
	if r.c.o.Up != nil && !r.isDefaults() {
		r.notUp()
	}
}

// notUp warns of interfaces and addresses that this machine does not have now.
func (r *row) notUp() {
	up := func(a netip.Addr, device string) bool { return r.c.asked.isUp(r.c.o, a, device) }
	device := r.svc.Socket.BindToDevice
	if device != "" && !up(netip.Addr{}, device) {
		r.warnf("bind_to_device", r.text.BindToDevice.Pos, "there is no interface %q; the row listens as soon as there is", device)
		return
	}
	for _, b := range r.listen {
		a := b.Addr.Addr()
		if a.IsUnspecified() || r.svc.Socket.Freebind && a.Zone() == "" {
			continue
		}
		if !up(a, device) {
			r.warnf("listen", b.pos, "%s is not up on this machine; the row listens there as soon as it is", a)
		}
	}
}

// split takes a listen entry apart: port, :port, *:port, addr:port, [addr]:port.
func (r *row) split(l String) (host string, port uint16, ok bool) {
	fail := func(format string, args ...any) (string, uint16, bool) {
		r.errorf("listen", l.Pos, format, args...)
		return "", 0, false
	}
	s := l.V
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Is4() {
			return fail("%s is an address without a port; write \"%s:PORT\" instead", clip(s), s)
		}
		if with, ok := bracketed(s); ok {
			return fail("%s is an address without a port, or lacks brackets; write \"%s\" or \"[%s]:PORT\" instead", clip(s), with, s)
		}
		return fail("%s is an address without a port; write \"[%s]:PORT\" instead", clip(s), s)
	}
	name := s
	if rest, found := strings.CutPrefix(s, "["); found {
		host, name, ok = strings.Cut(rest, "]:")
		if !ok || host == "" {
			write := "[ADDRESS]:PORT"
			host, name, _ = strings.Cut(rest, "]")
			if with, ok := bracketed(rest); ok {
				write = with
			} else if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
				write = "[" + host + "]:" + cmp.Or(name, "PORT")
			}
			return fail("%s is no address and port; write \"%s\" instead", clip(s), write)
		}
		if a, err := netip.ParseAddr(host); err != nil {
			return fail("%s has no IPv6 address in its brackets; write \"[ADDRESS]:PORT\" instead", clip(s))
		} else if !a.Is6() {
			return fail("only an IPv6 address has brackets; write \"%s:%s\" instead", host, clipped(name))
		}
	} else if i := strings.LastIndexByte(s, ':'); i >= 0 {
		host, name = s[:i], s[i+1:]
		if strings.Contains(host, ":") {
			if with, ok := bracketed(s); ok {
				return fail("%s is an IPv6 address without brackets; write \"%s\" instead", clip(s), with)
			}
			return fail("%s is an IPv6 address without brackets; write \"[ADDRESS]:PORT\" instead", clip(s))
		}
		if host == "*" {
			host = ""
		}
		if host != "" {
			if _, err := netip.ParseAddr(host); err != nil {
				if strings.EqualFold(host, "localhost") {
					return fail("%s begins with a name, not an address; write \"127.0.0.1:%s\", \"[::1]:%s\" or both instead", clip(s), clipped(name), clipped(name))
				}
				return fail("%s begins with %s, which is no address; write \"ADDRESS:PORT\" instead", clip(s), clip(host))
			}
		}
	}
	if name == "" || name == "*" {
		return fail("%s has no port; write a port from 1 to 65535 or its name", clip(s))
	}
	if strings.Trim(name, "0123456789") == "" {
		n, err := strconv.ParseUint(name, 10, 16)
		if err != nil || n == 0 {
			return fail("port %s is out of bounds; write a port from 1 to 65535 instead", clipped(name))
		}
		return host, uint16(n), true
	}
	port, err := r.c.asked.port(r.c.o.Accounts, name)
	if err != nil {
		return fail("TCP service %s %s; write a port from 1 to 65535 instead", clip(name), lookupError(err))
	}
	return host, port, true
}

// bracketed reads s as an IPv6 address and a port without the brackets.
func bracketed(s string) (string, bool) {
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", false
	}
	host, port := s[:i], s[i+1:]
	a, err := netip.ParseAddr(host)
	n, errPort := strconv.ParseUint(port, 10, 16)
	return "[" + host + "]:" + port, err == nil && a.Is6() && errPort == nil && n > 0 && port[0] != '0'
}

// listenOn adds the endpoints of one entry: with protocol "tcp" and no address
// one of each family.
func (r *row) listenOn(family, host string, port uint16, l String) {
	if int(port) < r.c.o.UnprivilegedPort && !r.c.o.BindPrivileged {
		r.errorf("listen", l.Pos, "port %d needs root or CAP_NET_BIND_SERVICE; write listen = \"PORT\" with a port from %d up instead", port, r.c.o.UnprivilegedPort)
	}
	twice := false // is said once for both families
	add := func(n service.Network, a netip.Addr) {
		b := bound{service.Endpoint{Network: n, Addr: netip.AddrPortFrom(a, port)}, l.Pos}
		if r.heard[b.Endpoint] {
			if !twice {
				r.errorf("listen", l.Pos, "%s is in this list already; take one out", b.Addr)
			}
			twice = true
			return
		}
		if r.heard == nil {
			r.heard = make(map[service.Endpoint]bool)
		}
		r.heard[b.Endpoint] = true
		r.listen = append(r.listen, b)
	}
	if host == "" {
		if family != "tcp6" {
			add(service.TCP4, netip.IPv4Unspecified())
		}
		if family != "tcp4" {
			add(service.TCP6, netip.IPv6Unspecified())
		}
		return
	}
	a, _ := netip.ParseAddr(host)
	zone := a.Zone()
	a = a.Unmap() // v4-mapped is v4 everywhere
	switch {
	case a.Is4() && family == "tcp6":
		r.errorf("listen", l.Pos, "%s is an IPv4 address in a row with protocol \"tcp6\"; write protocol = \"tcp\" or an IPv6 address instead", a)
	case a.Is6() && family == "tcp4":
		r.errorf("listen", l.Pos, "%s is an IPv6 address in a row with protocol \"tcp4\"; write protocol = \"tcp\" or an IPv4 address instead", a)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.errorf("listen", l.Pos, "%s is no address of a host, and TCP knows no other; write the host's address instead", a)
	case a.IsLinkLocalUnicast() && a.Is6() && zone == "":
		r.errorf("listen", l.Pos, "a link-local address needs its interface; write \"[%s%%INTERFACE]:%d\" instead", a, port)
	case zone != "" && !a.IsLinkLocalUnicast():
		r.errorf("listen", l.Pos, "only a link-local address has an interface; write \"[%s]:%d\" instead", a.WithZone(""), port)
	case zone != "" && !validDevice(zone):
		r.errorf("listen", l.Pos, "%s is no interface's name; write \"[%s%%INTERFACE]:%d\" instead", clip(zone), a.WithZone(""), port)
	case a.Is4():
		add(service.TCP4, a)
	default:
		add(service.TCP6, a)
	}
}
