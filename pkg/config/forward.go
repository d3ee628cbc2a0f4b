// Where a row relays to: the keys forward, connect_timeout, source and send_proxy.

package config

import (
	"net/netip"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of forward. That of names is RFC 1035's, section 2.3.4.
const (
	maxTargets            = 64
	maxHost               = 253
	defaultConnectTimeout = 5 * time.Second
	maxConnectTimeout     = 5 * time.Minute
)

func (r *row) forward() {
	s := r.text
	f := &service.Forward{
		Timeout:     r.duration("connect_timeout", s.ConnectTimeout, defaultConnectTimeout, 100*time.Millisecond, maxConnectTimeout, 0),
		Transparent: choose(r, "source", s.Source, []choice[bool]{{"", false}, {"transparent", true}}),
		SendProxy:   choose(r, "send_proxy", s.SendProxy, []choice[service.SendProxy]{{"", service.SendNone}, {"v1", service.SendV1}, {"v2", service.SendV2}}),
	}
	if s.Forward.IsSet() && len(s.Forward.V) == 0 {
		r.errorf("forward", s.Forward.Pos, "an empty list; write an address and a port")
	}
	for i, l := range s.Forward.V {
		if !l.IsSet() {
			continue
		}
		if i == maxTargets {
			r.errorf("forward", l.Pos, "more than %d targets; take some out", maxTargets)
			break
		}
		t, problem := r.target(l.V)
		switch {
		case problem != "":
			r.errorf("forward", l.Pos, "%s %s", clip(l.V), problem)
		case slices.Contains(f.Targets, t):
			r.errorf("forward", l.Pos, "%s is in this list already; take one out", t)
		default:
			f.Targets = append(f.Targets, t)
		}
		if problem == "" && f.Transparent && t.Path != "" && !r.isDefaults() {
			r.errorf("source", s.Source.Pos, "a target on a unix socket, %s, sees no address; take the one or the other out", t)
		}
	}
	if f.Transparent && !r.c.o.NetAdmin && !r.c.o.NetRaw {
		r.errorf("source", s.Source.Pos, "needs root, CAP_NET_ADMIN or CAP_NET_RAW; run tcpmuxd so or take it out")
	}
	if !r.isDefaults() && s.Forward.IsSet() && !r.both {
		r.svc.Forward = f
	}
}

// target reads one target; problem goes on from it in a message.
func (r *row) target(s string) (t service.Target, problem string) {
	fail := func(problem string) (service.Target, string) { return service.Target{}, problem }
	const write = "write \"ADDRESS:PORT\", \"[IPV6]:PORT\", \"HOST:PORT\", \"/PATH\" or \"@NAME\" instead"
	switch {
	case s == "":
		return fail("is empty; " + write)
	case strings.ContainsRune(s, 0):
		return fail("has a NUL in it; " + write)
	case s[0] == '/' || s[0] == '@':
		if s == "@" || len(s) > maxSocketPath+1 || s[0] == '/' && len(s) > maxSocketPath {
			return fail("is no path of a socket; write one of at most 107 bytes instead")
		}
		if s[0] == '/' {
			s = path.Clean(s)
		}
		return service.Target{Path: s}, ""
	}
	if a, err := netip.ParseAddr(s); err == nil {
		if a.Is6() {
			s = "[" + s + "]"
		}
		return fail("is an address without a port; write \"" + s + ":PORT\" instead")
	}
	host, name, wrong := cutPort(s)
	switch {
	case wrong != "":
		return fail("is no address and port; " + write)
	case host == "" && isDigits(name):
		return fail("has no address; write \"127.0.0.1:" + clipped(name) + "\" if this machine is meant")
	case host == "" || name == "":
		return fail("is no address and port; " + write)
	}
	port, err := strconv.ParseUint(name, 10, 16)
	if err != nil && !isDigits(name) {
		var p uint16
		if p, err = r.c.asked.port(r.c.o, "tcp", name); err != nil {
			return fail("has no port: TCP service " + clip(name) + " " + lookupError(err) + "; write a port from 1 to 65535 instead")
		}
		port = uint64(p)
	}
	if err != nil || port == 0 {
		return fail("has a port that is out of bounds; write a port from 1 to 65535 instead")
	}
	a, err := netip.ParseAddr(host)
	switch {
	case err == nil && a.IsUnspecified():
		return fail("is no address to connect to; write the target's own instead")
	case err == nil && (a.IsMulticast() || a == netip.AddrFrom4([4]byte{255, 255, 255, 255})):
		return fail("is no address of a host; write the target's own instead")
	case err == nil && a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "":
		return fail("is a link-local address without its interface; write \"[" + host + "%INTERFACE]:" + name + "\" instead")
	case err == nil:
		return service.Target{Addr: netip.AddrPortFrom(a.Unmap(), uint16(port))}, ""
	case !validHost(host):
		return fail("begins with neither an address nor a name of a host; " + write)
	}
	return service.Target{Host: strings.ToLower(host), Port: uint16(port)}, ""
}

// validHost reports whether s can be a host's name (RFC 1123, section 2.1, and
// the underscores there are). One that ends in a number would be an address.
func validHost(s string) bool {
	s = strings.TrimSuffix(s, ".")
	if s == "" || len(s) > maxHost {
		return false
	}
	last := ""
	for label := range strings.SplitSeq(s, ".") {
		if label == "" || len(label) > 63 || label[0] == '-' || label[len(label)-1] == '-' {
			return false
		}
		for i := range len(label) {
			c := label[i]
			if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
				return false
			}
		}
		last = label
	}
	return !isDigits(last)
}

// circle reports targets that are where the row itself listens, and what source
// = "transparent" cannot be for.
func (r *row) circle() {
	if r.svc.Forward == nil {
		return
	}
	for _, t := range r.svc.Forward.Targets {
		for _, b := range r.listen {
			a := b.Addr.Addr()
			same := t.Addr.IsValid() && b.Network.TCP() && b.Addr.Port() == t.Addr.Port() &&
				(a == t.Addr.Addr() || a.IsUnspecified() && t.Addr.Addr().IsLoopback() && (a.Is4() == t.Addr.Addr().Is4() || b.Dual))
			if same || t.Path != "" && b.Path == t.Path {
				r.errorf("forward", r.text.Forward.Pos, "%s is where the row itself listens; write another target", t)
				return
			}
		}
	}
	for _, b := range r.listen {
		if r.svc.Forward.Transparent && !b.Network.IP() {
			r.errorf("source", r.text.Source.Pos, "the peers of %s have no address that a target could see; take the one or the other out", b.Endpoint)
			return
		}
	}
}
