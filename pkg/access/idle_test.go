package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
)

func TestIdle(t *testing.T) {
	for _, tt := range []struct {
		desc        string
		allow, deny []string
		want        []string
	}{
		{"nothing is", []string{"10.0.0.0/8", "10.1.2.0/24"}, []string{"10.1.0.0/16"}, nil},
		{"within an allowed one", []string{"10.0.0.0/8", "10.1.0.0/16"}, nil, []string{"10.1.0.0/16 allow 0 10.0.0.0/8"}},
		{"within a denied one", nil, []string{"10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24"}, []string{"10.1.0.0/16 deny 0 10.0.0.0/8", "10.1.2.0/24 deny 0 10.1.0.0/16"}},
		{"not on the list anyway", []string{"10.0.0.0/8"}, []string{"11.0.0.0/8", "::/0"}, []string{"11.0.0.0/8 deny 1 invalid Prefix", "::/0 deny 1 invalid Prefix"}},
		{"all of it is replaced", []string{"10.0.0.0/25", "10.0.0.128/26", "10.0.0.192/26"}, []string{"10.0.0.0/24", "10.0.0.1/32"}, []string{"10.0.0.0/24 deny 1 invalid Prefix"}},
		{"replaced in an open net", []string{"10.0.0.0/23"}, []string{"10.0.0.0/24", "10.0.1.0/24"}, []string{"10.0.0.0/23 allow 2 invalid Prefix"}},
		{"all but one address", []string{"10.0.0.0/30"}, []string{"10.0.0.0/31", "10.0.0.2/32"}, nil},
	} {
		var got []string
		for i := range mustNew(t, prefixes(t, tt.allow...), prefixes(t, tt.deny...)).Idle() {
			got = append(got, fmt.Sprint(i.Prefix, " ", i.Verdict, " ", i.Reason, " ", i.By))
		}
		if !slices.Equal(got, tt.want) {
			t.Errorf("%s: %q, want %q", tt.desc, got, tt.want)
		}
	}
	for range (*Rules)(nil).Idle() {
		t.Error("nil has an idle rule")
	}
}

// TestIdleAgainstTheVerdicts takes out every rule in turn: those that are idle,
// and no others, change no verdict on any address of a small world.
func TestIdleAgainstTheVerdicts(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	base := netip.MustParseAddr("10.0.0.0").As4()
	addr := func(n int) netip.Addr { return netip.AddrFrom4([4]byte{base[0], 0, 0, byte(n)}) }
	for range 500 {
		var allow, deny []netip.Prefix
		seen := map[netip.Prefix]bool{}
		for range 1 + rng.IntN(24) {
			p := netip.PrefixFrom(addr(rng.IntN(32)), 27+rng.IntN(6)).Masked()
			if seen[p] {
				continue
			}
			seen[p] = true
			if rng.IntN(2) == 0 {
				allow = append(allow, p)
			} else {
				deny = append(deny, p)
			}
		}
		listed := len(allow) > 0
		r, err := newRules(allow, deny, listed)
		if err != nil {
			t.Fatal(err)
		}
		idle := map[netip.Prefix]bool{}
		for i := range r.Idle() {
			idle[i.Prefix] = true
		}
		for p := range r.All() {
			without := func(l []netip.Prefix) []netip.Prefix {
				return slices.DeleteFunc(slices.Clone(l), func(q netip.Prefix) bool { return q == p })
			}
			s, err := newRules(without(allow), without(deny), listed)
			if err != nil {
				t.Fatal(err)
			}
			same := true
			for n := range 64 { // half of them outside
				a, _ := r.Check(addr(n))
				b, _ := s.Check(addr(n))
				same = same && (a == Allow) == (b == Allow)
			}
			if same != idle[p] {
				t.Fatalf("%v: idle %v, but without it the verdicts are the same: %v\nallow %v\ndeny %v", p, idle[p], same, allow, deny)
			}
		}
	}
}

func TestListed(t *testing.T) {
	nobody, err := NewListed(nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if v, _ := nobody.Check(netip.MustParseAddr("10.0.0.1")); v != NoRule || nobody.Otherwise() != NoRule {
		t.Errorf("an allow list with nobody on it: %v", v)
	}
	if nobody.Equal(nil) || !nobody.Equal(nobody) {
		t.Error("nobody is everybody")
	}
	denied := prefixes(t, "10.0.0.0/8")
	only, err := NewListed(nil, denied)
	if err != nil || only.Equal(mustNew(t, nil, denied)) {
		t.Errorf("a deny list alone is equal to one with an empty allow list, %v", err)
	}
	if v := (*Rules)(nil).Otherwise(); v != Allow {
		t.Errorf("no rules: %v", v)
	}
}
