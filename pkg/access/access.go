// Package access decides by a peer's address, or its user, and by the time of the
// week whether it may have a service.
//
// Rules are prefixes with a verdict each, and the most specific one that
// covers the address wins, so that their order means nothing. The package
// resolves no names and reads no files; it does not count, limit or log
// anything either: what a peer has used up is package limit's.
package access

import (
	"cmp"
	"errors"
	"fmt"
	"iter"
	"net/netip"
	"slices"

	"github.com/gaissmai/bart"
)

// Verdict is an answer of Rules.Check.
type Verdict uint8

// The verdicts. Only Allow lets a peer in. The zero Verdict refuses.
const (
	NoRule Verdict = iota // there is an allow list and the peer is not on it
	Deny                  // a deny rule is the most specific one
	Allow                 // an allow rule is, or no rule matches and there is no allow list
)

func (v Verdict) String() string {
	switch v {
	case NoRule:
		return "no rule"
	case Deny:
		return "deny"
	case Allow:
		return "allow"
	}
	return fmt.Sprintf("Verdict(%d)", uint8(v))
}

// Rules is an immutable set of rules, safe for concurrent use. A nil *Rules
// lets everybody in. Two Rules made from the same prefixes, in whatever order
// and however often repeated, are equal to reflect.DeepEqual.
type Rules struct {
	rules  []rule // sorted by prefix, no prefix twice
	listed bool   // there is an allow list: whom no rule covers is refused
	// index finds the most specific rule: its value is a place in rules.
	index bart.Table[int32]
}

type rule struct {
	prefix  netip.Prefix
	verdict Verdict // Allow or Deny
}

// New makes Rules of the prefixes to allow and to deny. Host bits are masked
// off, v4-mapped prefixes become v4 (a v6 prefix such as ::/0 says nothing
// about v4 peers), and a prefix may be repeated within a list. With both lists
// empty the result is nil, which lets everybody in.
//
// The error names every prefix that stands in both lists, is not valid, or is
// a v4-mapped address with less than 96 bits; errors.Join holds them together.
func New(allow, deny []netip.Prefix) (*Rules, error) {
	return newRules(allow, deny, len(allow) > 0)
}

// NewListed is New where there is an allow list, even if nobody is on it, as
// where it names a set that has no prefix: the result is never nil, and whom no
// rule covers is refused.
func NewListed(allow, deny []netip.Prefix) (*Rules, error) { return newRules(allow, deny, true) }

func newRules(allow, deny []netip.Prefix, listed bool) (*Rules, error) {
	var rules []rule
	var errs []error
	add := func(list []netip.Prefix, v Verdict) {
		for _, p := range list {
			q, err := canonical(p)
			if err != nil {
				errs = append(errs, err)
				continue
			}
			rules = append(rules, rule{q, v})
		}
	}
	add(allow, Allow)
	add(deny, Deny)

	slices.SortFunc(rules, func(a, b rule) int {
		if c := a.prefix.Compare(b.prefix); c != 0 {
			return c
		}
		return cmp.Compare(a.verdict, b.verdict)
	})
	rules = slices.Compact(rules)
	for i := 1; i < len(rules); i++ {
		if rules[i].prefix == rules[i-1].prefix {
			errs = append(errs, fmt.Errorf("prefix %v is both allowed and denied", rules[i].prefix))
		}
	}
	if err := errors.Join(errs...); err != nil {
		return nil, err
	}
	if len(rules) == 0 && !listed {
		return nil, nil
	}

	// The index grows in sorted order, so that equal rules have equal ones.
	r := &Rules{rules: slices.Clip(rules), listed: listed}
	for i, rule := range r.rules {
		r.index.Insert(rule.prefix, int32(i))
	}
	return r, nil
}

// canonical is p masked, and as a v4 prefix if it is v4-mapped.
func canonical(p netip.Prefix) (netip.Prefix, error) {
	if !p.IsValid() {
		return p, errors.New("prefix is not valid")
	}
	if a := p.Addr(); a.Is4In6() {
		if p.Bits() < 96 {
			return p, fmt.Errorf("prefix %v is v4-mapped only in part: write a v4 prefix, or ::/%d", p, p.Bits())
		}
		p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
	}
	return p.Masked(), nil
}

// Check says whether the peer at a may have the service, and by which rule:
// the prefix is the most specific one that covers a, and not valid if none
// does. A v4-mapped address is a v4 address, and a zone is of no account. An
// address that is not valid matches nothing, and if there are rules at all it
// is refused with NoRule, because nobody can tell whom they mean.
//
// Check costs one look-up, whatever the number of rules, and allocates
// nothing.
func (r *Rules) Check(a netip.Addr) (Verdict, netip.Prefix) {
	if r == nil {
		return Allow, netip.Prefix{}
	}
	if !a.IsValid() {
		return NoRule, netip.Prefix{}
	}
	if i, ok := r.index.Lookup(a.Unmap().WithZone("")); ok {
		return r.rules[i].verdict, r.rules[i].prefix
	}
	return r.Otherwise(), netip.Prefix{}
}

// Lets reports whether Check says Allow of a.
func (r *Rules) Lets(a netip.Addr) bool {
	v, _ := r.Check(a)
	return v == Allow
}

// Otherwise is the verdict on a peer that no rule covers: NoRule or Allow.
func (r *Rules) Otherwise() Verdict {
	if r != nil && r.listed {
		return NoRule
	}
	return Allow
}

// All yields every rule once, sorted by prefix; the verdicts are Allow and
// Deny.
func (r *Rules) All() iter.Seq2[netip.Prefix, Verdict] {
	return func(yield func(netip.Prefix, Verdict) bool) {
		if r == nil {
			return
		}
		for _, rule := range r.rules {
			if !yield(rule.prefix, rule.verdict) {
				return
			}
		}
	}
}

// Equal reports whether r and s are the same rules.
func (r *Rules) Equal(s *Rules) bool {
	if r == nil || s == nil {
		return r == s
	}
	return r == s || r.listed == s.listed && slices.Equal(r.rules, s.rules)
}
