package units

import (
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

// lists are rules as IPAddressAllow= and IPAddressDeny= have them, where whoever is
// in the first is let in, then whoever is in the second is not, and then everybody
// is: the most specific rule decides no more, so that what is denied within an
// allowed prefix has to be cut out of it. any says that deny is everybody.
func lists(rules *access.Rules) (allow, deny []netip.Prefix, any bool) {
	var all []rule
	for p, v := range rules.All() {
		all = append(all, rule{p, v == access.Allow})
		if v != access.Allow {
			deny = append(deny, p)
		}
	}
	for _, family := range []netip.Addr{netip.IPv4Unspecified(), netip.IPv6Unspecified()} {
		var of []rule
		for _, r := range all {
			if r.Addr().Is4() == family.Is4() {
				of = append(of, r)
			}
		}
		allow, _ = allowed(allow, netip.PrefixFrom(family, 0), of, false)
	}
	if rules != nil && rules.Otherwise() != access.Allow {
		return allow, nil, true
	}
	return allow, deny, false
}

type rule struct {
	netip.Prefix
	allow bool
}

// allowed adds to dst the fewest prefixes that hold what of p is in an allow rule;
// rules are those in p, and allow is what is decided above it. whole says that all
// of p is.
func allowed(dst []netip.Prefix, p netip.Prefix, rules []rule, allow bool) (_ []netip.Prefix, whole bool) {
	var halves [2][]rule
	for _, r := range rules {
		if r.Prefix == p {
			allow = r.allow
		} else {
			i := bit(r.Addr(), p.Bits())
			halves[i] = append(halves[i], r)
		}
	}
	if len(halves[0])+len(halves[1]) == 0 {
		if allow {
			dst = append(dst, p)
		}
		return dst, allow
	}
	n := len(dst)
	whole = true
	for i, half := range halves {
		a := p.Addr()
		if i == 1 {
			a = withBit(a, p.Bits())
		}
		var all bool
		dst, all = allowed(dst, netip.PrefixFrom(a, p.Bits()+1), half, allow)
		whole = whole && all
	}
	if whole {
		dst = append(dst[:n], p)
	}
	return dst, whole
}

// bit is bit n of an address, the first one being 0.
func bit(a netip.Addr, n int) int { return int(a.AsSlice()[n/8] >> (7 - n%8) & 1) }

func withBit(a netip.Addr, n int) netip.Addr {
	b := a.AsSlice()
	b[n/8] |= 1 << (7 - n%8)
	a, _ = netip.AddrFromSlice(b)
	return a
}
