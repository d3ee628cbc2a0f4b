package access

// Two sets of rules as one, for who can go by one only.

import "net/netip"

// Both are rules that let in whom both a and b let in. Nil lets everybody in. The
// result may have prefixes that decide nothing, and has one for each family.
func Both(a, b *Rules) *Rules {
	switch {
	case a == nil:
		return b
	case b == nil:
		return a
	}
	all := map[netip.Prefix]bool{netip.PrefixFrom(netip.IPv4Unspecified(), 0): true, netip.PrefixFrom(netip.IPv6Unspecified(), 0): true}
	for _, r := range []*Rules{a, b} {
		for _, rule := range r.rules {
			all[rule.prefix] = true
		}
	}
	// Of those in a prefix and in none within it, both have one thing to say.
	var allow, deny []netip.Prefix
	for p := range all {
		if a.of(p) == Allow && b.of(p) == Allow {
			allow = append(allow, p)
		} else {
			deny = append(deny, p)
		}
	}
	both, err := newRules(allow, deny, true)
	if err != nil {
		panic("access: rules that were right are not: " + err.Error()) // each prefix is in one list
	}
	return both
}

// of is the verdict on what is in a prefix, but in none of the rules within it.
func (r *Rules) of(p netip.Prefix) Verdict {
	if i, ok := r.index.LookupPrefix(p); ok {
		return r.rules[i].verdict
	}
	return r.Otherwise()
}
