package access

// Rules that decide nothing, for whoever tells an administrator.

import (
	"iter"
	"net/netip"
	"slices"
)

// A Reason is why a rule is idle.
type Reason uint8

// The reasons.
const (
	SameAs      Reason = iota // a less specific rule, By, has the same verdict
	SameAsNone                // peers that no rule covers fare the same
	AllReplaced               // more specific rules cover all of it
)

// Idle is a rule that could be taken out and nobody would notice.
type Idle struct {
	Prefix  netip.Prefix
	Verdict Verdict
	Reason  Reason
	By      netip.Prefix // SameAs only
}

// Idle yields the rules that decide nothing, sorted by prefix. Each could be
// taken out alone; of several not all.
func (r *Rules) Idle() iter.Seq[Idle] {
	return func(yield func(Idle) bool) {
		if r == nil {
			return
		}
		var around []rule // those that cover the one at hand, the most specific last
		for i, rule := range r.rules {
			// In the order of All a prefix stands right before what it covers.
			for len(around) > 0 && !covers(around[len(around)-1].prefix, rule.prefix) {
				around = around[:len(around)-1]
			}
			idle := Idle{Prefix: rule.prefix, Verdict: rule.verdict}
			n := len(around)
			around = append(around, rule)
			switch {
			case n > 0 && around[n-1].verdict == rule.verdict:
				idle.Reason, idle.By = SameAs, around[n-1].prefix
			case n == 0 && (rule.verdict == Allow) == (r.Otherwise() == Allow):
				idle.Reason = SameAsNone
			case replaced(r.rules[i+1:], rule.prefix):
				idle.Reason = AllReplaced
			default:
				continue
			}
			if !yield(idle) {
				return
			}
		}
	}
}

// covers reports whether all of q is in p.
func covers(p, q netip.Prefix) bool { return p.Bits() <= q.Bits() && p.Contains(q.Addr()) }

// replaced reports whether rules, which are sorted and all stand behind p, cover
// both halves of p, each as a whole or again by its halves.
func replaced(rules []rule, p netip.Prefix) bool {
	if len(rules) == 0 || !covers(p, rules[0].prefix) {
		return false // most often: nothing is in it
	}
	if p.IsSingleIP() {
		return false
	}
	low := netip.PrefixFrom(p.Addr(), p.Bits()+1)
	high := netip.PrefixFrom(upper(p), p.Bits()+1)
	return full(rules, low) && full(rules, high)
}

// full reports whether rules cover all of p.
func full(rules []rule, p netip.Prefix) bool {
	i, found := slices.BinarySearchFunc(rules, p, func(r rule, p netip.Prefix) int { return r.prefix.Compare(p) })
	return found || replaced(rules[i:], p)
}

// upper is the first address of the upper half of p.
func upper(p netip.Prefix) netip.Addr {
	b := p.Addr().AsSlice()
	b[p.Bits()/8] |= 0x80 >> (p.Bits() % 8)
	a, _ := netip.AddrFromSlice(b)
	return a
}
