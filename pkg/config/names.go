// Names of hosts that rows listen on. They are looked up when a table is made, as
// users and ports are, and not again before the next reload.

package config

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"slices"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// lookupTime is how long all names of a load have: whoever waits for a daemon to
// start should not have to wait for each.
const lookupTime = 10 * time.Second

// lookupHost makes a function for the names of one load. It asks /etc/hosts and name
// servers.
func lookupHost() func(name string) ([]netip.Addr, error) {
	resolver := &net.Resolver{PreferGo: true}
	var end time.Time
	return func(name string) ([]netip.Addr, error) {
		if end.IsZero() {
			end = time.Now().Add(lookupTime)
		}
		ctx, cancel := context.WithDeadline(context.Background(), end)
		defer cancel()
		return resolver.LookupNetIP(ctx, "ip", name)
	}
}

// host asks for the addresses of a name, sorted: their order means nothing, and name
// servers change it.
func (o *Options) host(name string) ([]netip.Addr, error) {
	if o.Host == nil {
		return nil, errors.New("nobody is asked for names here")
	}
	addrs, err := o.Host(name)
	addrs = slices.Clone(addrs)
	for i := range addrs {
		addrs[i] = addrs[i].Unmap()
	}
	slices.SortFunc(addrs, netip.Addr.Compare)
	return slices.Compact(addrs), err
}

// hostError says in words why a name has no addresses.
func hostError(err error) string {
	var dns *net.DNSError
	switch {
	case !errors.As(err, &dns):
		return "cannot be looked up: " + err.Error()
	case dns.IsNotFound:
		return "is unknown"
	case dns.IsTimeout:
		return "cannot be looked up: no name server answers in time"
	}
	return "cannot be looked up: " + dns.Err
}

// addresses are those of a name. While a table runs they are what they were for as
// long as the name cannot be looked up, and are not looked up for the sake of users.
func (r *row) addresses(name string, l String) ([]netip.Addr, error) {
	c := r.c
	was, known := c.names[name]
	if known && c.o.VanishedUsers {
		c.asked.names[name] = said[[]netip.Addr]{v: was}
	}
	addrs, err := c.asked.names.ask(name, c.o.host)
	var dns *net.DNSError
	switch {
	case err == nil:
		c.names[name] = addrs
	case known && !(errors.As(err, &dns) && dns.IsNotFound):
		r.warnf("listen", l.Pos, "the host %s %s; it stays on the addresses it had", clip(name), hostError(err))
		return was, nil
	}
	return addrs, err
}

// named are the addresses of a name that the row can listen on; nets are the families
// it has. localhost is known without asking (RFC 6761, section 6.3).
func (r *row) named(nets []service.Network, name string, l String) []netip.Addr {
	name = strings.ToLower(strings.TrimSuffix(name, "."))
	addrs := []netip.Addr{netip.AddrFrom4([4]byte{127, 0, 0, 1}), netip.IPv6Loopback()}
	if name != "localhost" {
		var err error
		if addrs, err = r.addresses(name, l); err != nil {
			r.errorf("listen", l.Pos, "the host %s %s; write an address instead", clip(name), hostError(err))
			return nil
		}
	}
	var out []netip.Addr
	for _, a := range addrs {
		switch {
		case a.IsUnspecified() || a.IsMulticast():
			r.errorf("listen", l.Pos, "the host %s has the address %s, which is none of a host; write an address instead", clip(name), a)
			return nil
		case a.Is4() && nets[0].V6(), a.Is6() && !nets[len(nets)-1].V6():
		case a.Is6() && a.IsLinkLocalUnicast() && a.Zone() == "": // of which interface?
		default:
			out = append(out, a)
		}
	}
	if out == nil {
		r.errorf("listen", l.Pos, "the host %s has no address that a row with protocol %q could have; write an address or another protocol", clip(name), r.family)
	}
	return out
}
