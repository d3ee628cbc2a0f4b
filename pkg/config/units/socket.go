// The socket unit: where it listens, the options of its sockets, and who may come
// how often.

package units

import (
	"fmt"
	"math"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A section is lines of a unit.
type section struct{ strings.Builder }

// set adds a line.
func (s *section) set(name, value string) { s.WriteString(name + "=" + value + "\n") }

func (s *section) number(name string, n int) { s.set(name, strconv.Itoa(n)) }

// yes adds a line if on.
func (s *section) yes(name string, on bool) {
	if on {
		s.set(name, "yes")
	}
}

// listen is where a socket unit listens.
func (r *row) listen(list []service.Endpoint) string {
	var s section
	six, file := false, false
	for _, e := range list {
		name := "ListenStream"
		switch e.Network {
		case service.UDP4, service.UDP6, service.UnixDgram:
			name = "ListenDatagram"
		case service.UnixSeqpacket, service.VsockSeqpacket:
			name = "ListenSequentialPacket"
		}
		at := e.String()
		switch zone := e.Addr.Addr().Zone(); {
		case e.Network.Vsock() && e.CID == service.VsockAny:
			at = fmt.Sprintf("vsock::%d", e.Port)
		case e.Network.IP() && zone != "":
			at = fmt.Sprintf("[%s]:%d%%%s", e.Addr.Addr().WithZone(""), e.Addr.Port(), zone)
			r.changed("listen", "systemd leaves %s out if there is no such interface when it reads the unit", e)
		}
		s.set(name, specifiers(at))
		six = six || e.Network.V6()
		file = file || e.Network.Unix() && e.Path[0] == '/'
	}
	if six {
		s.set("BindIPv6Only", "ipv6-only")
	}
	if file {
		r.file(&s)
	}
	// The row listens as soon as the address is there; a unit fails without this.
	s.yes("FreeBind", r.Service.Socket.Freebind || foreign(list))
	return s.String()
}

// named tells that names are addresses in units.
func (r *row) named() {
	for _, l := range r.Text.Listen.V {
		i := strings.LastIndexByte(l.V, ':')
		if i <= 0 || strings.ContainsAny(l.V, "/@[*") || strings.HasPrefix(l.V, "vsock:") {
			continue
		}
		if _, err := netip.ParseAddr(l.V[:i]); err != nil && !strings.EqualFold(l.V[:i], "localhost") {
			r.changed("listen", "the units have the addresses that the host %q has now", l.V[:i])
		}
	}
}

// foreign reports whether one of the addresses may come later.
func foreign(list []service.Endpoint) bool {
	for _, e := range list {
		if a := e.Addr.Addr(); e.Network.IP() && !a.IsUnspecified() && !a.IsLoopback() {
			return true
		}
	}
	return false
}

// file is what the file of a unix socket is like.
func (r *row) file(s *section) {
	t := r.Text
	s.set("SocketMode", fmt.Sprintf("%04o", r.Service.Socket.Mode))
	if t.SocketUser.IsSet() {
		s.set("SocketUser", specifiers(t.SocketUser.V))
	}
	if t.SocketGroup.IsSet() {
		s.set("SocketGroup", specifiers(t.SocketGroup.V))
	}
	if t.DirectoryMode.IsSet() {
		s.set("DirectoryMode", fmt.Sprintf("%04o", r.Service.Socket.DirectoryMode))
	}
	s.yes("RemoveOnStop", true)
}

// socket is the rest of a socket unit.
func (r *row) socket(accept bool) string {
	var s section
	s.set("Accept", map[bool]string{true: "yes", false: "no"}[accept])
	r.limits(&s, accept)
	r.access(&s)
	o := &r.Service.Socket
	if o.Backlog > 0 {
		s.number("Backlog", o.Backlog)
	}
	s.yes("KeepAlive", o.Keepalive.On)
	for _, clock := range []struct {
		name string
		d    time.Duration
	}{{"KeepAliveTimeSec", o.Keepalive.Idle}, {"KeepAliveIntervalSec", o.Keepalive.Interval}, {"DeferAcceptSec", o.DeferAccept}} {
		if clock.d > 0 {
			s.set(clock.name, span(clock.d))
		}
	}
	if o.Keepalive.Count > 0 {
		s.number("KeepAliveProbes", o.Keepalive.Count)
	}
	s.yes("NoDelay", o.Nodelay)
	s.yes("ReusePort", o.ReusePort)
	s.yes("Transparent", o.Transparent)
	s.yes("Broadcast", o.Broadcast)
	s.yes("PassCredentials", o.PassCred)
	if o.BindToDevice != "" {
		s.set("BindToDevice", o.BindToDevice)
	}
	if o.Congestion != "" {
		s.set("TCPCongestion", o.Congestion)
	}
	for _, n := range []struct {
		name string
		n    int
	}{{"ReceiveBuffer", o.Rcvbuf}, {"SendBuffer", o.Sndbuf}, {"Priority", o.Priority}, {"IPTTL", o.TTL}} {
		if n.n > 0 {
			s.number(n.name, n.n)
		}
	}
	if o.TOS >= 0 {
		s.number("IPTOS", o.TOS)
	}
	switch {
	case o.Mark > math.MaxInt32:
		r.lost("mark", "systemd takes no mark above %d: packets have none", math.MaxInt32)
	case o.Mark > 0:
		s.number("Mark", int(o.Mark))
	}
	return s.String()
}

// span is a time as systemd.time(7) has it.
func span(d time.Duration) string {
	if d%time.Second == 0 {
		return fmt.Sprintf("%ds", d/time.Second)
	}
	return fmt.Sprintf("%dus", d.Microseconds())
}

// unlimited is MaxConnections= where there is no limit; without it there would be
// one of 64.
const unlimited = math.MaxUint32

// limits are how many at once and how often.
func (r *row) limits(s *section, accept bool) {
	l := &r.Service.Limits
	switch {
	case accept && l.Instances > 0:
		s.number("MaxConnections", l.Instances)
	case accept:
		s.number("MaxConnections", unlimited)
	case r.Service.Exec != nil && l.Instances > 1:
		r.changed("limits.instances", "a socket has one service that reads from it, not %d", l.Instances)
	}
	switch {
	case l.InstancesPerSource == 0:
	case !accept:
		r.lost("limits.instances_per_source", "systemd does not see who comes to a socket that a service has: there is no such limit")
	default:
		s.number("MaxConnectionsPerSource", l.InstancesPerSource)
		if !r.Service.Listen[0].Network.IP() {
			r.changed("limits.instances_per_source", "systemd before version 256 counts addresses of IP alone, and all other peers as one or not at all")
		} else if whole(l) {
			r.said["limits.source_prefix_v4"], r.said["limits.source_prefix_v6"] = true, true
		} else {
			r.changed("limits.instances_per_source", "systemd counts by whole addresses: whoever has a network of IPv6 has a limit for each address in it")
		}
	}
	r.rate(s, accept)
	if r.Service.Overflow == service.OverflowRefuse {
		r.said["limits.overflow"] = true // so does systemd
	}
}

// whole reports whether a source is an address, as it is to systemd.
func whole(l *limit.Limits) bool { return (l.PrefixV4 == 0 || l.PrefixV4 == 32) && l.PrefixV6 == 128 }

// rate is how often a socket may start its service. Above that systemd gives the
// socket up until somebody starts it again; where there is no limit there is to be
// none of 200 in two seconds.
func (r *row) rate(s *section, accept bool) {
	rate := r.Service.Limits.Rate
	switch {
	case rate == limit.Rate{} && accept:
		s.set("TriggerLimitIntervalSec", "0")
	case rate == limit.Rate{}:
	case r.Service.Forward != nil:
		r.lost("limits.rate", "systemd-socket-proxyd(8) takes as many connections as come")
	default:
		s.set("TriggerLimitIntervalSec", span(rate.Per))
		s.number("TriggerLimitBurst", max(rate.N, r.Service.Limits.Burst))
		r.changed("limits.rate", "more starts than this fail the socket unit until somebody starts it again, and do not only refuse the excess")
		r.lost("limits.burst", "systemd counts the starts in an interval, and nothing within it")
	}
}

// perLine is how many prefixes a line has at most.
const perLine = 16

// access is who may come. hosts.allow and hosts.deny are as they are now.
func (r *row) access(s *section) {
	rules, exact := r.Service.Access, true
	if h := r.Service.Hosts; h != nil {
		var allow, deny []netip.Prefix
		allow, deny, exact = h.Prefixes()
		hosts, err := access.NewListed(allow, deny)
		if err != nil {
			panic("units: prefixes that were right are not: " + err.Error()) // each is in one list
		}
		rules = access.Both(rules, hosts)
	}
	if r.Text.Access.HostsAccess.V {
		text := "the units have what hosts.allow and hosts.deny say now; later changes of the files are not seen"
		if !exact {
			text += ", and patterns in them that are no prefixes allow nobody"
		}
		r.changed("access.hosts_access", "%s", text)
	}
	if rules == nil {
		return
	}
	allow, deny, any := lists(rules)
	for len(allow) > 0 {
		n := min(len(allow), perLine)
		s.set("IPAddressAllow", join(allow[:n]))
		allow = allow[n:]
	}
	for len(deny) > 0 {
		n := min(len(deny), perLine)
		s.set("IPAddressDeny", join(deny[:n]))
		deny = deny[n:]
	}
	if any {
		s.set("IPAddressDeny", "any")
	}
	for _, key := range []string{"access.allow", "access.deny", "access.hosts_access"} {
		if _, ok := r.at[key]; ok {
			r.changed(key, "packets of who is denied are dropped, so that they wait and are not refused; and where the kernel or a container has no BPF for control groups, systemd lets everybody in")
			break
		}
	}
}

func join(list []netip.Prefix) string {
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.String()
	}
	return strings.Join(words, " ")
}
