// Where a row listens. Whether an address is up is never an error: it may come
// later, and is the listener's matter.

package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of listen. That of paths is sun_path's, unix(7).
const (
	maxSocketPath = 107
	maxRange      = 1024 // ports of an entry
	maxSockets    = 4096 // of a row
	maxAllSockets = 1 << 16
	maxVsockPort  = 1<<32 - 2
	vsockReserved = 1023 // the last port of vsock that needs a right, net/vmw_vsock/af_vsock.c
)

// A bound is an endpoint and where it is written.
type bound struct {
	service.Endpoint
	pos    Pos
	passed bool // whoever started the daemon has opened it
}

// A heard is the endpoints of a row so far, and whether they were passed. Most
// rows have one or two.
type heard struct {
	few  []bool // of the first of list
	list []service.Endpoint
	more map[service.Endpoint]bool
}

const heardFew = 8

func (h *heard) get(e service.Endpoint) (passed, ok bool) {
	if i := slices.Index(h.list, e); i >= 0 {
		return h.few[i], true
	}
	passed, ok = h.more[e]
	return passed, ok
}

func (h *heard) put(e service.Endpoint, passed bool) {
	if i := slices.Index(h.list, e); i >= 0 {
		h.few[i] = passed
		return
	}
	if len(h.list) < heardFew {
		h.list, h.few = append(h.list, e), append(h.few, passed)
		return
	}
	if h.more == nil {
		h.more = make(map[service.Endpoint]bool)
	}
	h.more[e] = passed
}

// endpoints fills in listen: what was passed by the row's name, and what is
// written, or else what the row's name stands for.
func (r *row) endpoints() {
	s := r.text
	r.takePassed()
	switch {
	case s.Listen.IsSet():
		if len(s.Listen.V) == 0 {
			r.errorf("listen", s.Listen.Pos, "an empty list; write a port, or an address and a port")
		}
		ports := false
		for _, l := range s.Listen.V {
			if l.IsSet() {
				ports = r.entry(l) || ports
			}
		}
		if r.own && !ports && len(s.Listen.V) > 0 && r.family != "unix" && r.family != "vsock" && !r.inherited["listen"] {
			r.errorf("protocol", s.Protocol.Pos, "is about ports, and listen has none; take it out")
		}
	case r.isDefaults() || r.bad("listen") || r.bad("rpc") || r.both || len(r.passed) > 0:
	case r.family == "unix" || r.family == "vsock":
		pos := s.Pos
		if r.own {
			pos = s.Protocol.Pos
		}
		write := map[string]string{"unix": "/run/NAME.sock", "vsock": "vsock:PORT"}[r.family]
		r.errorf("listen", pos, "%s sockets have no place of their own; write listen = %q", r.family, write)
	case r.text.RPC.Pos.IsSet():
		r.listenOn("", 0, 0, String{"0", r.text.RPC.Pos}) // who asks rpcbind finds it at any port
	case r.kind == multiplexer:
		r.listenOn("", 1, 1, String{"1", s.Pos}) // RFC 1078: TCP port 1
	case badName(r.svc.Name) != "" || r.bad("name"): // said already
	default:
		pos := s.Pos
		if s.Name.IsSet() && !r.inherited["name"] {
			pos = s.Name.Pos
		}
		port, err := r.port(r.svc.Name)
		if err != nil {
			r.errorf("listen", pos, "there is no port for it: %s service %s %s; write listen = \"PORT\"", r.transport(), clip(r.svc.Name), lookupError(err))
			break
		}
		r.listenOn("", port, port, String{r.svc.Name, pos})
	}
}

// port looks a name up in services(5).
func (r *row) port(name string) (uint16, error) {
	return r.c.asked.port(r.c.o, strings.ToLower(r.transport()), name)
}

// entry adds the endpoints of one entry, whose kind its look tells; ports says
// that it is one of ports.
func (r *row) entry(l String) (ports bool) {
	s := l.V
	switch {
	case strings.HasPrefix(s, "/") || strings.HasPrefix(s, "@"):
		r.unix(l)
	case strings.HasPrefix(s, "vsock:"):
		r.vsock(l)
	case strings.HasPrefix(s, "unix:"):
		write := strings.TrimPrefix(strings.TrimPrefix(s, "unix:"), "//")
		if write == "" || write[0] != '/' && write[0] != '@' {
			write = "/PATH"
		}
		r.errorf("listen", l.Pos, "a unix socket is its path alone; write %s instead", clip(write))
	case strings.Contains(s, "/") && !strings.Contains(s, ":") && !strings.HasSuffix(s, "/tcp") && !strings.HasSuffix(s, "/udp"):
		r.errorf("listen", l.Pos, "%s is a relative path; write the whole path, such as \"/run/NAME.sock\", instead", clip(s))
	default:
		if host, lo, hi, ok := r.split(l); ok {
			r.listenOn(host, lo, hi, l)
		}
		return true
	}
	return false
}

// unix adds a path or an abstract name.
func (r *row) unix(l String) {
	s, abstract := l.V, l.V[0] == '@'
	length := len(s)
	if abstract {
		length-- // its "@" stands for a NUL that the kernel does not count
	}
	switch {
	case r.own && r.family == "vsock":
		r.errorf("listen", l.Pos, "%s is a unix socket in a row with protocol \"vsock\"; take the protocol out for both, or write \"vsock:PORT\" instead", clip(s))
	case strings.ContainsRune(s, 0):
		r.errorf("listen", l.Pos, "%s has a NUL in it; write a path without one instead", clip(s))
	case length > maxSocketPath:
		r.errorf("listen", l.Pos, "%s has %d bytes; write a path of at most %d, the kernel has room for no more", clip(s), length, maxSocketPath)
	case s == "@":
		r.errorf("listen", l.Pos, "\"@\" has no name; write \"@NAME\" instead")
	case abstract:
		r.add(service.Endpoint{Network: networks[r.style]["unix"][0], Path: s}, l)
	case strings.HasSuffix(s, "/") || path.Clean(s) == "/":
		r.errorf("listen", l.Pos, "%s is a directory; write the path of a socket such as \"/run/NAME.sock\" instead", clip(s))
	default:
		r.add(service.Endpoint{Network: networks[r.style]["unix"][0], Path: path.Clean(s)}, l)
	}
}

// vsock adds vsock:PORT or vsock:CID:PORT.
func (r *row) vsock(l String) {
	rest := strings.TrimPrefix(l.V, "vsock:")
	cid, port := uint64(service.VsockAny), uint64(0)
	var err error
	if first, second, ok := strings.Cut(rest, ":"); ok {
		if cid, err = strconv.ParseUint(first, 10, 32); err == nil && cid == uint64(service.VsockAny) {
			r.errorf("listen", l.Pos, "%s is every machine; write \"vsock:%s\" instead", clip(first), clipped(second))
			return
		}
		rest = second
	}
	if err == nil {
		port, err = strconv.ParseUint(rest, 10, 32)
	}
	switch {
	case r.style == dgram:
		r.errorf("listen", l.Pos, "vsock has no datagrams; write socket = \"stream\" or \"seqpacket\" instead")
	case r.own && r.family != "vsock" && r.family == "unix":
		r.errorf("listen", l.Pos, "%s is a vsock socket in a row with protocol \"unix\"; take the protocol out for both, or write \"/PATH\" instead", clip(l.V))
	case err != nil || port > maxVsockPort || port == 0:
		r.errorf("listen", l.Pos, "%s is no vsock address; write \"vsock:PORT\" or \"vsock:CID:PORT\" with a port from 1 to %d instead", clip(l.V), uint64(maxVsockPort))
	default:
		r.add(service.Endpoint{Network: networks[r.style]["vsock"][0], CID: uint32(cid), Port: uint32(port)}, l)
	}
}

// add notes an endpoint, and reports whether there is nothing to say against it.
// What was passed may be written, too.
func (r *row) add(e service.Endpoint, l String) bool {
	if passed, twice := r.heard.get(e); twice {
		if !passed {
			r.errorf("listen", l.Pos, "%s is in this list already; take one out", e)
		}
		return passed
	}
	if len(r.listen) >= maxSockets {
		r.errorf("listen", l.Pos, "more than %d sockets; make several rows of it", maxSockets)
		return false
	}
	if r.c.sockets >= maxAllSockets {
		r.errorf("listen", l.Pos, "more than %d sockets in all rows; take some out", maxAllSockets)
		return false
	}
	r.c.sockets++
	r.heard.put(e, false)
	r.listen = append(r.listen, bound{Endpoint: e, pos: l.Pos})
	return true
}

// split takes an entry of ports apart: port, :port, *:port, addr:port,
// [addr]:port, where a port may be a range.
func (r *row) split(l String) (host string, lo, hi uint16, ok bool) {
	fail := func(format string, args ...any) (string, uint16, uint16, bool) {
		r.errorf("listen", l.Pos, format, args...)
		return "", 0, 0, false
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
	host, name, problem := cutPort(s)
	if problem != "" {
		return fail("%s", problem)
	}
	if host == "*" {
		host = ""
	}
	if host != "" {
		if _, err := netip.ParseAddr(host); err != nil && !validHost(host) {
			return fail("%s begins with %s, which is neither an address nor a name of a host; write \"ADDRESS:PORT\" instead", clip(s), clip(host))
		}
	}
	switch {
	case r.style == seqpacket:
		return fail("%s is a port, and seqpacket sockets are unix or vsock ones; write \"/PATH\", \"@NAME\" or \"vsock:PORT\" instead", clip(s))
	case r.family == "unix" || r.family == "vsock":
		return fail("%s is a port in a row with protocol %q; write protocol = %q or %s instead", clip(s), r.family, families[r.style][0],
			map[string]string{"unix": "\"/PATH\" or \"@NAME\"", "vsock": "\"vsock:PORT\""}[r.family])
	case name == "" || name == "*":
		return fail("%s has no port; write a port from 1 to 65535 or its name", clip(s))
	}
	if first, last, found := strings.Cut(name, "-"); found && isDigits(first) && isDigits(last) {
		a, errA := strconv.ParseUint(first, 10, 16)
		b, errB := strconv.ParseUint(last, 10, 16)
		switch {
		case errA != nil || errB != nil || a == 0 || b == 0:
			return fail("the ports %s are out of bounds; write ports from 1 to 65535 instead", clipped(name))
		case a > b:
			return fail("the ports %s run backwards; write \"%d-%d\" instead", clipped(name), b, a)
		case b-a >= maxRange:
			return fail("the ports %s are %d; write at most %d in one entry", clipped(name), b-a+1, maxRange)
		}
		return host, uint16(a), uint16(b), true
	}
	if isDigits(name) {
		n, err := strconv.ParseUint(name, 10, 16)
		if err == nil && n == 0 && r.text.RPC.Pos.IsSet() {
			return host, 0, 0, true
		}
		if err != nil || n == 0 {
			return fail("port %s is out of bounds; write a port from 1 to 65535 instead", clipped(name))
		}
		return host, uint16(n), uint16(n), true
	}
	port, err := r.port(name)
	if err != nil {
		return fail("%s service %s %s; write a port from 1 to 65535 instead", r.transport(), clip(name), lookupError(err))
	}
	return host, port, port, true
}

func isDigits(s string) bool { return s != "" && strings.Trim(s, "0123456789") == "" }

// cutPort parts the host, without its brackets, from what follows the last
// colon; problem says what is wrong and what to write.
func cutPort(s string) (host, port, problem string) {
	if rest, found := strings.CutPrefix(s, "["); found {
		host, port, ok := strings.Cut(rest, "]:")
		if !ok || host == "" {
			write := "[ADDRESS]:PORT"
			host, port, _ = strings.Cut(rest, "]")
			if with, ok := bracketed(rest); ok {
				write = with
			} else if a, err := netip.ParseAddr(host); err == nil && a.Is6() {
				write = "[" + host + "]:" + cmp.Or(port, "PORT")
			}
			return "", "", fmt.Sprintf("%s is no address and port; write \"%s\" instead", clip(s), write)
		}
		if a, err := netip.ParseAddr(host); err != nil {
			return "", "", fmt.Sprintf("%s has no IPv6 address in its brackets; write \"[ADDRESS]:PORT\" instead", clip(s))
		} else if !a.Is6() {
			return "", "", fmt.Sprintf("only an IPv6 address has brackets; write \"%s:%s\" instead", host, clipped(port))
		}
		return host, port, ""
	}
	i := strings.LastIndexByte(s, ':')
	if i < 0 {
		return "", s, ""
	}
	host, port = s[:i], s[i+1:]
	if strings.Contains(host, ":") {
		if with, ok := bracketed(s); ok {
			return "", "", fmt.Sprintf("%s is an IPv6 address without brackets; write \"%s\" instead", clip(s), with)
		}
		return "", "", fmt.Sprintf("%s is an IPv6 address without brackets; write \"[ADDRESS]:PORT\" instead", clip(s))
	}
	return host, port, ""
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

// listenOn adds the endpoints of ports lo to hi: without an address one of each
// family, with a name those of its addresses.
func (r *row) listenOn(host string, lo, hi uint16, l String) {
	nets := networks[r.style][r.family]
	var addrs []netip.Addr
	a, err := netip.ParseAddr(host)
	named := err != nil && host != ""
	switch {
	case host == "":
		for _, n := range nets {
			a := netip.IPv4Unspecified()
			if n.V6() {
				a = netip.IPv6Unspecified()
			}
			addrs = append(addrs, a)
		}
	case named:
		addrs = r.named(nets, host, l)
	default:
		if a, ok := r.hostAddr(nets, a, lo, l); ok {
			addrs = []netip.Addr{a}
		}
	}
	for port := uint32(lo); port <= uint32(hi); port++ {
		for _, a := range addrs {
			n := nets[0]
			if a.Is6() {
				n = nets[len(nets)-1]
			}
			e := service.Endpoint{Network: n, Addr: netip.AddrPortFrom(a, uint16(port))}
			if _, twice := r.heard.get(e); twice && named {
				continue // it is also called otherwise
			}
			if !r.add(e, l) {
				return // is said once, for both families and all ports
			}
		}
	}
}

// hostAddr checks the address of an entry; nets are the families the row has.
func (r *row) hostAddr(nets []service.Network, a netip.Addr, port uint16, l String) (netip.Addr, bool) {
	zone := a.Zone()
	a = a.Unmap() // v4-mapped is v4 everywhere
	both := families[r.style][0]
	switch {
	case a.Is4() && nets[0].V6():
		r.errorf("listen", l.Pos, "%s is an IPv4 address in a row with protocol %q; write protocol = %q or an IPv6 address instead", a, r.family, both)
	case a.Is6() && !nets[len(nets)-1].V6():
		r.errorf("listen", l.Pos, "%s is an IPv6 address in a row with protocol %q; write protocol = %q or an IPv4 address instead", a, r.family, both)
	case (a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})) && r.style == dgram:
		r.errorf("listen", l.Pos, "%s is no address of a host, and tcpmuxd joins no group; write the host's address instead", a)
	case a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255}):
		r.errorf("listen", l.Pos, "%s is no address of a host, and TCP knows no other; write the host's address instead", a)
	case a.IsLinkLocalUnicast() && a.Is6() && zone == "":
		r.errorf("listen", l.Pos, "a link-local address needs its interface; write \"[%s%%INTERFACE]:%d\" instead", a, port)
	case zone != "" && !a.IsLinkLocalUnicast():
		r.errorf("listen", l.Pos, "only a link-local address has an interface; write \"[%s]:%d\" instead", a.WithZone(""), port)
	case zone != "" && !validDevice(zone):
		r.errorf("listen", l.Pos, "%s is no interface's name; write \"[%s%%INTERFACE]:%d\" instead", clip(zone), a.WithZone(""), port)
	default:
		return a, true
	}
	return a, false
}

// settle checks what depends on where the row listens in the end, and fills it
// in.
func (r *row) settle() {
	if r.kind&sockets == 0 {
		return
	}
	r.strangers()
	r.svc.Socket = r.socket()
	r.rights()
	r.proxies()
	r.identEnds()
	r.judges()
	r.circle()
	r.rpc()
	r.svc.Listen = make([]service.Endpoint, 0, len(r.listen))
	r.svc.ListenOrigin = make([]service.Place, 0, len(r.listen))
	for _, b := range r.listen {
		r.svc.Listen = append(r.svc.Listen, b.Endpoint)
		r.svc.ListenOrigin = append(r.svc.ListenOrigin, service.Place{File: b.pos.File, Line: b.pos.Line, Col: b.pos.Col})
	}
	if r.c.o.Up != nil {
		r.notUp()
	}
}

// rights checks that the sockets may be opened, and that their peers can be
// served; each entry is named once.
func (r *row) rights() {
	var last Pos
	for _, b := range r.listen {
		if b.passed || b.pos == last || r.c.o.BindPrivileged {
			continue
		}
		switch {
		case b.Network.IP() && b.Addr.Port() != 0 && int(b.Addr.Port()) < r.c.o.UnprivilegedPort:
			r.errorf("listen", b.pos, "port %d needs root or CAP_NET_BIND_SERVICE; write listen = \"PORT\" with a port from %d up instead", b.Addr.Port(), r.c.o.UnprivilegedPort)
		case b.Network.Vsock() && b.Port <= vsockReserved:
			r.errorf("listen", b.pos, "port %d needs root or CAP_NET_BIND_SERVICE; write listen = \"vsock:PORT\" with a port from %d up instead", b.Port, vsockReserved+1)
		default:
			continue
		}
		last = b.pos
	}
	if r.both || r.style != dgram || r.wait {
		return
	}
	raw := r.c.o.NetRaw
	for _, b := range r.listen {
		switch {
		case b.Network == service.UnixDgram && r.kind == execDirect:
			r.errorf("listen", b.pos, "%s: datagrams on a unix socket have no peer that a session could be for; write wait = true, so that the program reads them", b.Path)
			return
		case b.Network == service.UnixDgram:
			r.errorf("listen", b.pos, "%s: %s answers datagrams over UDP only; write a port instead", b.Path, r.kind)
			return
		case r.kind == execDirect && !raw:
			pos := b.pos
			if s := r.text.Socket; s.IsSet() && !r.inherited["socket"] {
				pos = s.Pos
			}
			r.errorf("socket", pos, "a session for each peer needs root or CAP_NET_RAW, to hand the first datagram on; write wait = true if the program reads from the socket itself, or run tcpmuxd so")
			return
		}
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
		if b.passed || !b.Network.IP() || a.IsUnspecified() || r.svc.Socket.Freebind && a.Zone() == "" {
			continue
		}
		if !up(a, device) {
			r.warnf("listen", b.pos, "%s is not up on this machine; the row listens there as soon as it is", a)
		}
	}
}
