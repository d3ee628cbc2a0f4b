// Who may come, and how often.

package config

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// What holds where nothing is written, so that a row nobody thought about
// still survives a flood.
const (
	defaultInstances          = 256
	defaultInstancesPerSource = 64
	defaultPending            = 4096 // of a multiplexer, whose instances are negotiations
	defaultPendingPerSource   = 256
	maxInstances              = 1 << 20
)

func (r *row) access() {
	allowed := make(map[netip.Prefix]Pos)
	allow := r.prefixes("access.allow", r.text.Access.Allow, func(p netip.Prefix, pos Pos) bool {
		if _, ok := allowed[p]; !ok {
			allowed[p] = pos
		}
		return true
	})
	deny := r.prefixes("access.deny", r.text.Access.Deny, func(p netip.Prefix, pos Pos) bool {
		other, twice := allowed[p]
		if twice {
			r.errorf("access.deny", pos, "%s stands in allow, too (%s); take one of them out", p, other)
		}
		return !twice
	})
	if l := r.text.Access.Allow; l.IsSet() && len(l.V) == 0 {
		r.errorf("access.allow", l.Pos, "an empty list would let everybody in; take it out, or write deny = [\"0.0.0.0/0\", \"::/0\"]")
	}
	rules, err := access.New(allow, deny)
	if err != nil {
		r.errorf("access", r.text.Access.Pos, "%v", err)
	}
	r.svc.Access = rules
}

// prefixes reads a list of addresses and prefixes; keep may refuse one.
func (r *row) prefixes(key string, l List, keep func(netip.Prefix, Pos) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range l.V {
		if !s.IsSet() {
			continue
		}
		p, err := netip.ParsePrefix(s.V)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s.V); err == nil && a.Zone() == "" {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		switch {
		case !p.IsValid():
			r.errorf(key, s.Pos, "%s is no address or prefix; write one such as \"192.0.2.0/24\" or \"2001:db8::/32\" instead", clip(s.V))
		case p.Addr().Is4In6():
			r.errorf(key, s.Pos, "%s covers IPv4 and more; write \"0.0.0.0/0\" or \"::/0\" instead", clip(s.V))
		case p != p.Masked():
			r.errorf(key, s.Pos, "%s has bits after its %d; write \"%s\" for the network or \"%s\" for the host instead", clip(s.V), p.Bits(), p.Masked(), p.Addr())
		case keep(p, s.Pos):
			out = append(out, p)
		}
	}
	return out
}

func (r *row) limits() {
	l, out := &r.text.Limits, &r.svc.Limits
	instances, perSource := int64(defaultInstances), int64(defaultInstancesPerSource)
	if r.kind == builtin {
		instances, perSource = defaultPending, defaultPendingPerSource
	}
	*out = limit.Limits{
		Instances:          int(r.number("limits.instances", l.Instances, instances, 0, maxInstances)),
		InstancesPerSource: int(r.number("limits.instances_per_source", l.InstancesPerSource, perSource, 0, maxInstances)),
		PrefixV4:           int(r.number("limits.source_prefix_v4", l.SourcePrefixV4, limit.DefaultPrefixV4, 1, 32)),
		PrefixV6:           int(r.number("limits.source_prefix_v6", l.SourcePrefixV6, limit.DefaultPrefixV6, 1, 128)),
	}
	out.Rate, out.Burst = r.rate("limits.rate", l.Rate, "limits.burst", l.Burst)
	out.RatePerSource, out.BurstPerSource = r.rate("limits.rate_per_source", l.RatePerSource, "limits.burst_per_source", l.BurstPerSource)

	r.svc.Overflow = choose(r, "limits.overflow", l.Overflow, []choice[service.Overflow]{{"refuse", service.OverflowRefuse}, {"queue", service.OverflowQueue}})
	if r.svc.Overflow == service.OverflowQueue && r.kind&direct == 0 {
		r.svc.Overflow = service.OverflowRefuse
		if !r.inherited["limits.overflow"] {
			r.errorf("limits.overflow", l.Overflow.Pos, "%s never lets a peer wait in the kernel's queue; write overflow = \"refuse\" instead", r.kind)
		}
	}
}

// rate reads "256/min" and the burst that belongs to it.
func (r *row) rate(key string, s String, burstKey string, b Int) (limit.Rate, int) {
	burst := int(r.number(burstKey, b, 0, 1, limit.MaxRate))
	if !r.isDefaults() && r.inherited[burstKey] && (s.IsSet() || r.bad(key)) {
		r.c.bursts[burstKey] = true
	}
	if !s.IsSet() {
		if b.IsSet() && !r.isDefaults() && !r.inherited[burstKey] && !r.bad(key) {
			name := strings.TrimPrefix(key, "limits.")
			r.errorf(burstKey, b.Pos, "there is no %s for it; write %s = \"256/min\" beside it", name, name)
		}
		return limit.Rate{}, 0
	}
	number, unit, found := strings.Cut(s.V, "/")
	n, err := strconv.ParseUint(number, 10, 64)
	per, known := units[unit]
	switch {
	case err == nil && n == 0 && (known || !found):
		if b.IsSet() && !r.inherited[key] && !r.inherited[burstKey] {
			r.errorf(burstKey, b.Pos, "%s is unlimited, so this means nothing; take it out", strings.TrimPrefix(key, "limits."))
		}
		return limit.Rate{}, 0 // unlimited
	case err == nil && !found:
		r.errorf(key, s.Pos, "%s has no unit; write \"%s/min\" instead", clip(s.V), clipped(s.V))
	case err != nil || !known:
		r.errorf(key, s.Pos, "%s is no rate; write one such as \"10/s\", \"256/min\", \"60/h\" or \"100/d\" instead", clip(s.V))
	case n > limit.MaxRate:
		r.errorf(key, s.Pos, "%s is out of bounds; write at most %d, or \"0\" for unlimited", clip(s.V), limit.MaxRate)
	default:
		return limit.Rate{N: int(n), Per: per}, burst
	}
	return limit.Rate{}, 0
}

// idleBursts reports a burst in [defaults] that no row has a rate for, of its
// own or from there.
func (c *compiler) idleBursts() {
	d := &c.f.Defaults
	for _, b := range []struct {
		burst Int
		name  string
	}{{d.Limits.Burst, "rate"}, {d.Limits.BurstPerSource, "rate_per_source"}} {
		key := "limits." + strings.Replace(b.name, "rate", "burst", 1)
		if b.burst.IsSet() && !c.bursts[key] && len(c.f.Services) > 0 {
			c.errors = append(c.errors, &Problem{b.burst.Pos, "[defaults]", key, fmt.Sprintf("no row has a %s for it; write %s = \"256/min\" beside it", b.name, b.name)})
		}
	}
}

// units are what a rate may be per.
var units = map[string]time.Duration{
	"s": time.Second, "sec": time.Second,
	"m": time.Minute, "min": time.Minute,
	"h": time.Hour, "hour": time.Hour,
	"d": 24 * time.Hour, "day": 24 * time.Hour,
}
