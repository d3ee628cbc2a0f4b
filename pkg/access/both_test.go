package access

import (
	"math/rand/v2"
	"net/netip"
	"testing"
)

// TestBoth: whom both let in, and nobody else.
func TestBoth(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var prefixes []netip.Prefix
	for _, p := range []string{"0.0.0.0/0", "10.0.0.0/8", "10.0.0.0/24", "10.0.0.0/31", "10.0.0.1/32", "::/0", "2001:db8::/32", "2001:db8::1/128"} {
		prefixes = append(prefixes, netip.MustParsePrefix(p))
	}
	some := func() *Rules {
		var allow, deny []netip.Prefix
		for _, p := range prefixes {
			switch r.IntN(4) {
			case 0:
				allow = append(allow, p)
			case 1:
				deny = append(deny, p)
			}
		}
		rules, err := New(allow, deny)
		if err != nil {
			t.Fatal(err)
		}
		return rules
	}
	for range 5000 {
		a, b := some(), some()
		both := Both(a, b)
		for _, p := range []string{"10.0.0.1", "10.0.0.0", "10.0.0.9", "10.9.0.1", "192.0.2.1", "2001:db8::1", "2001:db8::2", "2001:db9::"} {
			peer := netip.MustParseAddr(p)
			if got, want := both.Lets(peer), a.Lets(peer) && b.Lets(peer); got != want {
				t.Fatalf("%s: %v, want %v", p, got, want)
			}
		}
	}
}
