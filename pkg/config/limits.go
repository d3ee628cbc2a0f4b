// How many may come, and how often.

package config

import (
	"fmt"
	"strconv"
	"strings"
	"time"

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
	defaultServers            = 1 // of a row with wait = true, for each socket
	maxInstances              = 1 << 20
)

// defaultReplies are the datagrams that a built-in service sends to one source,
// because any source can be forged: no row is a reflector worth having.
var defaultReplies = limit.Rate{N: 20, Per: time.Second}

const defaultRepliesBurst = 40

func (r *row) limits() {
	out := &r.svc.Limits
	instances, perSource, least := int64(defaultInstances), int64(defaultInstancesPerSource), int64(0)
	var each limit.Rate
	var burst int
	switch {
	case r.isDefaults():
	case r.kind == multiplexer:
		instances, perSource = defaultPending, defaultPendingPerSource
	case r.wait:
		instances, perSource, least = defaultServers, 0, 1
		if r.inherited["limits.instances"] {
			r.writable().Limits.Instances = Int{} // it is about instances of one peer each
		}
		r.without("the program takes its peers itself, and nobody can count them by source", "instances_per_source", "rate_per_source", "burst_per_source", "source_prefix_v4", "source_prefix_v6")
	case r.svc.Builtin == service.BuiltinSensor:
		instances, perSource = 0, 0
	case r.answers():
		instances, perSource = 0, 0
		each, burst = defaultReplies, defaultRepliesBurst
		r.without("datagrams are answered one by one, there are no instances", "instances", "instances_per_source")
	}
	l := &r.text.Limits // which the above may have changed
	*out = limit.Limits{
		Instances:          int(r.number("limits.instances", l.Instances, instances, least, maxInstances)),
		InstancesPerSource: int(r.number("limits.instances_per_source", l.InstancesPerSource, perSource, 0, maxInstances)),
		PrefixV4:           int(r.number("limits.source_prefix_v4", l.SourcePrefixV4, limit.DefaultPrefixV4, 1, 32)),
		PrefixV6:           int(r.number("limits.source_prefix_v6", l.SourcePrefixV6, limit.DefaultPrefixV6, 1, 128)),
	}
	out.Rate, out.Burst = r.rate("limits.rate", l.Rate, "limits.burst", l.Burst, limit.Rate{}, 0)
	out.RatePerSource, out.BurstPerSource = r.rate("limits.rate_per_source", l.RatePerSource, "limits.burst_per_source", l.BurstPerSource, each, burst)

	r.overflow()
	r.refusal()
	r.suspend()
	r.shed()
}

// serverLimits are those of [server.limits]. What is not written is unlimited.
func (r *row) serverLimits(l *Limits) limit.Limits {
	if !l.Pos.IsSet() {
		return limit.Limits{}
	}
	out := limit.Limits{
		Instances:          int(r.number("limits.instances", l.Instances, 0, 0, maxInstances)),
		InstancesPerSource: int(r.number("limits.instances_per_source", l.InstancesPerSource, 0, 0, maxInstances)),
	}
	out.Rate, out.Burst = r.rate("limits.rate", l.Rate, "limits.burst", l.Burst, limit.Rate{}, 0)
	out.RatePerSource, out.BurstPerSource = r.rate("limits.rate_per_source", l.RatePerSource, "limits.burst_per_source", l.BurstPerSource, limit.Rate{}, 0)
	v4 := int(r.number("limits.source_prefix_v4", l.SourcePrefixV4, limit.DefaultPrefixV4, 1, 32))
	v6 := int(r.number("limits.source_prefix_v6", l.SourcePrefixV6, limit.DefaultPrefixV6, 1, 128))
	if out != (limit.Limits{}) {
		out.PrefixV4, out.PrefixV6 = v4, v6
	}
	return out
}

// without reports limits of the row's own that mean nothing for it, and forgets
// all of them.
func (r *row) without(why string, keys ...string) {
	for _, name := range keys {
		field := find(limitsKeys, name).field(&r.text.Limits)
		pos := written(field)
		if !pos.IsSet() {
			continue
		}
		if !r.inherited["limits."+name] {
			r.errorf("limits."+name, pos, "%s; take it out", why)
		}
		forget(find(limitsKeys, name).field(&r.writable().Limits))
	}
}

// rate reads "256/min" and the burst that belongs to it; def and defBurst are for
// what is not written.
func (r *row) rate(key string, s String, burstKey string, b Int, def limit.Rate, defBurst int) (limit.Rate, int) {
	burst := int(r.number(burstKey, b, 0, 1, limit.MaxRate))
	if !r.isDefaults() && r.inherited[burstKey] && (s.IsSet() || r.bad(key)) {
		r.c.bursts[burstKey] = true
	}
	if !s.IsSet() && def.N > 0 {
		if burst == 0 {
			burst = defBurst
		}
		return def, burst
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
