package access

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"reflect"
	"slices"
	"strings"
	"testing"
)

func prefixes(t testing.TB, list ...string) []netip.Prefix {
	t.Helper()
	var ps []netip.Prefix
	for _, s := range list {
		p, err := netip.ParsePrefix(s)
		if err != nil {
			t.Fatal(err)
		}
		ps = append(ps, p)
	}
	return ps
}

func mustNew(t testing.TB, allow, deny []netip.Prefix) *Rules {
	t.Helper()
	r, err := New(allow, deny)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestNewErrors(t *testing.T) {
	tests := []struct {
		desc        string
		allow, deny []netip.Prefix
		want        []string
	}{
		{
			"same prefix in both lists",
			prefixes(t, "10.0.0.0/8", "2001:db8::/32"), prefixes(t, "10.0.0.0/8", "192.0.2.0/24"),
			[]string{"prefix 10.0.0.0/8 is both allowed and denied"},
		},
		{
			"the same but for host bits",
			prefixes(t, "10.1.2.3/8"), prefixes(t, "10.3.2.1/8"),
			[]string{"prefix 10.0.0.0/8 is both allowed and denied"},
		},
		{
			"the same but for the mapping",
			prefixes(t, "::ffff:10.0.0.0/104"), prefixes(t, "10.0.0.0/8"),
			[]string{"prefix 10.0.0.0/8 is both allowed and denied"},
		},
		{
			"every error is there",
			append(prefixes(t, "10.0.0.0/8", "::/0", "::ffff:10.0.0.0/95"), netip.Prefix{}), prefixes(t, "::/0", "10.0.0.0/8", "10.0.0.0/8"),
			[]string{
				"prefix ::ffff:10.0.0.0/95 is v4-mapped only in part: write a v4 prefix, or ::/95",
				"prefix is not valid",
				"prefix 10.0.0.0/8 is both allowed and denied",
				"prefix ::/0 is both allowed and denied",
			},
		},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			r, err := New(tt.allow, tt.deny)
			if err == nil || r != nil {
				t.Fatalf("New = %v, %v", r, err)
			}
			if got := strings.Split(err.Error(), "\n"); !slices.Equal(got, tt.want) {
				t.Errorf("errors are %q, want %q", got, tt.want)
			}
		})
	}
}

func TestCheck(t *testing.T) {
	tests := []struct {
		desc        string
		allow, deny []string
		addr        string // empty: an address that is not valid
		want        Verdict
		by          string // empty: none
	}{
		{"not on the list", []string{"10.0.0.0/8"}, nil, "11.0.0.1", NoRule, ""},
		{"other family", []string{"10.0.0.0/8"}, nil, "2001:db8::1", NoRule, ""},
		{"all of v4 is not v6", []string{"0.0.0.0/0"}, nil, "::1", NoRule, ""},
		{"all of v6 is not v4", []string{"::/0"}, nil, "10.0.0.1", NoRule, ""},
		{"all of v6 is not mapped v4", []string{"::/0"}, nil, "::ffff:10.0.0.1", NoRule, ""},
		{"denied", nil, []string{"10.0.0.0/8"}, "10.255.0.1", Deny, "10.0.0.0/8"},
		{"denied though mapped", nil, []string{"10.0.0.0/8"}, "::ffff:10.0.0.1", Deny, "10.0.0.0/8"},
		{"denied by a mapped rule", nil, []string{"::ffff:10.0.0.0/104"}, "10.0.0.1", Deny, "10.0.0.0/8"},
		{"denied though zoned", nil, []string{"fe80::/10"}, "fe80::1%eth0", Deny, "fe80::/10"},
		{"denied in an allowed net", []string{"10.0.0.0/8"}, []string{"10.1.0.0/16"}, "10.1.2.3", Deny, "10.1.0.0/16"},
		{"denied host in an allowed net", []string{"10.0.0.0/8"}, []string{"10.1.2.3/32"}, "10.1.2.3", Deny, "10.1.2.3/32"},
		{"everybody denied", []string{"10.0.0.0/8"}, []string{"0.0.0.0/0", "::/0"}, "11.0.0.1", Deny, "0.0.0.0/0"},
		{"denied within allowed within denied", []string{"10.1.0.0/16"}, []string{"10.0.0.0/8", "10.1.2.0/24"}, "10.1.2.3", Deny, "10.1.2.0/24"},
		{"no address, allow list", []string{"0.0.0.0/0", "::/0"}, nil, "", NoRule, ""},
		{"no address, deny list", nil, []string{"10.0.0.0/8"}, "", NoRule, ""},
		{"no rules", nil, nil, "10.0.0.1", Allow, ""},
		{"no rules, no address", nil, nil, "", Allow, ""},
		{"nobody denies it", nil, []string{"10.0.0.0/8"}, "11.0.0.1", Allow, ""},
		{"on the list", []string{"10.0.0.0/8"}, nil, "10.0.0.1", Allow, "10.0.0.0/8"},
		{"on the list, mapped", []string{"10.0.0.0/8"}, nil, "::ffff:10.0.0.1", Allow, "10.0.0.0/8"},
		{"host bits in the rule", []string{"10.9.9.9/8"}, nil, "10.0.0.1", Allow, "10.0.0.0/8"},
		{"allowed in a denied net", []string{"10.1.0.0/16"}, []string{"10.0.0.0/8"}, "10.1.0.1", Allow, "10.1.0.0/16"},
		{"allowed host in a denied net", []string{"2001:db8::1/128"}, []string{"2001:db8::/32"}, "2001:db8::1", Allow, "2001:db8::1/128"},
		{"first address", []string{"10.0.0.0/31"}, nil, "10.0.0.0", Allow, "10.0.0.0/31"},
		{"last address", []string{"::/1"}, nil, "7fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", Allow, "::/1"},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			r := mustNew(t, prefixes(t, tt.allow...), prefixes(t, tt.deny...))
			var a netip.Addr
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			v, p := r.Check(a)
			by := ""
			if p.IsValid() {
				by = p.String()
			}
			if v != tt.want || by != tt.by {
				t.Errorf("Check(%v) = %v by %q, want %v by %q", a, v, by, tt.want, tt.by)
			}
		})
	}
}

// slowCheck is Check as its doc reads: it looks at every prefix.
func slowCheck(allow, deny []netip.Prefix, a netip.Addr) (Verdict, netip.Prefix) {
	var best netip.Prefix
	v := Allow
	if len(allow) > 0 {
		v = NoRule
	}
	a = a.Unmap().WithZone("")
	look := func(list []netip.Prefix, verdict Verdict) {
		for _, p := range list {
			if p.Addr().Is4In6() {
				p = netip.PrefixFrom(p.Addr().Unmap(), p.Bits()-96)
			}
			if p.Contains(a) && (!best.IsValid() || p.Bits() > best.Bits()) {
				best, v = p.Masked(), verdict
			}
		}
	}
	look(allow, Allow)
	look(deny, Deny)
	return v, best
}

// randomAddr is an address out of few, so that prefixes meet.
func randomAddr(rng *rand.Rand) netip.Addr {
	bit := func() byte { return byte(rng.IntN(2)) << rng.IntN(8) }
	if rng.IntN(2) == 0 {
		b := [4]byte{10, bit(), bit(), bit()}
		if a := netip.AddrFrom4(b); rng.IntN(4) > 0 {
			return a
		} else {
			return netip.AddrFrom16(a.As16()) // mapped
		}
	}
	b := [16]byte{0x20, 0x01, 0x0d, 0xb8}
	for range 4 {
		b[4+rng.IntN(12)] = bit()
	}
	a := netip.AddrFrom16(b)
	if rng.IntN(8) == 0 {
		a = a.WithZone("eth0")
	}
	return a
}

func randomPrefix(rng *rand.Rand) netip.Prefix {
	a := randomAddr(rng)
	if a.Is4In6() {
		return netip.PrefixFrom(a, 96+rng.IntN(33))
	}
	return netip.PrefixFrom(a, rng.IntN(a.BitLen()+1))
}

func TestCheckAgainstLinearScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	made := 0
	for made < 300 {
		var allow, deny []netip.Prefix
		for range rng.IntN(30) {
			allow = append(allow, randomPrefix(rng))
		}
		for range rng.IntN(30) {
			deny = append(deny, randomPrefix(rng))
		}
		r, err := New(allow, deny)
		if err != nil {
			// Strike out what stands in both.
			deny = slices.DeleteFunc(deny, func(p netip.Prefix) bool {
				_, err := New(allow, []netip.Prefix{p})
				return err != nil
			})
			if r, err = New(allow, deny); err != nil {
				t.Fatal(err)
			}
		}
		made++
		for range 200 {
			a := randomAddr(rng)
			v, p := r.Check(a)
			if wv, wp := slowCheck(allow, deny, a); v != wv || p != wp {
				t.Fatalf("Check(%v) = %v by %v; a linear scan says %v by %v\nallow %v\ndeny %v", a, v, p, wv, wp, allow, deny)
			}
		}
	}
}

// The order of a list and what it repeats mean nothing, neither to Check nor
// to reflect.DeepEqual, by which a reload finds out what has changed.
func TestEqual(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 100 {
		var allow, deny []netip.Prefix
		for range rng.IntN(40) {
			p := randomPrefix(rng)
			if rng.IntN(2) == 0 {
				allow = append(allow, p)
			} else {
				deny = append(deny, p)
			}
		}
		r, err := New(allow, deny)
		if err != nil {
			continue
		}
		shuffle := func(list []netip.Prefix) []netip.Prefix {
			list = append(slices.Clone(list), list[:len(list)/2]...)
			rng.Shuffle(len(list), func(i, j int) { list[i], list[j] = list[j], list[i] })
			return list
		}
		s := mustNew(t, shuffle(allow), shuffle(deny))
		if !reflect.DeepEqual(r, s) || !r.Equal(s) || !s.Equal(r) {
			t.Fatalf("not equal to itself in another order: allow %v, deny %v", allow, deny)
		}
		if r == nil {
			continue
		}
		more := mustNew(t, append(allow, netip.MustParsePrefix("198.51.100.0/24")), deny)
		if reflect.DeepEqual(r, more) || r.Equal(more) {
			t.Fatalf("equal to one with more rules: allow %v, deny %v", allow, deny)
		}
	}

	a := mustNew(t, prefixes(t, "10.0.0.0/8"), nil)
	d := mustNew(t, nil, prefixes(t, "10.0.0.0/8"))
	if reflect.DeepEqual(a, d) || a.Equal(d) {
		t.Error("allowing is equal to denying")
	}
	var none *Rules
	if none.Equal(a) || a.Equal(none) || !none.Equal(nil) {
		t.Error("nil is not equal to nil alone")
	}
}

func TestNewOfNothing(t *testing.T) {
	if r, err := New(nil, nil); r != nil || err != nil {
		t.Errorf("New(nil, nil) = %v, %v", r, err)
	}
	if r, err := New([]netip.Prefix{}, []netip.Prefix{}); r != nil || err != nil {
		t.Errorf("New of empty lists = %v, %v", r, err)
	}
}

// New keeps nothing of the lists it was given.
func TestNewCopies(t *testing.T) {
	allow := prefixes(t, "10.0.0.0/8", "11.0.0.0/8")
	r := mustNew(t, allow, nil)
	allow[0] = netip.MustParsePrefix("12.0.0.0/8")
	if v, _ := r.Check(netip.MustParseAddr("10.0.0.1")); v != Allow {
		t.Errorf("10.0.0.1: %v after the caller changed his list", v)
	}
}

func TestAll(t *testing.T) {
	r := mustNew(t, prefixes(t, "2001:db8::/32", "10.1.0.0/16", "10.1.0.0/16"), prefixes(t, "10.0.0.0/8", "::ffff:9.9.9.9/128"))
	var got []string
	for p, v := range r.All() {
		got = append(got, fmt.Sprint(v, " ", p))
	}
	want := []string{"deny 9.9.9.9/32", "deny 10.0.0.0/8", "allow 10.1.0.0/16", "allow 2001:db8::/32"}
	if !slices.Equal(got, want) {
		t.Errorf("All: %q, want %q", got, want)
	}
	for range r.All() {
		break
	}
	for range (*Rules)(nil).All() {
		t.Error("nil has a rule")
	}
}

func TestVerdictString(t *testing.T) {
	got := []string{NoRule.String(), Deny.String(), Allow.String(), Verdict(7).String()}
	if want := []string{"no rule", "deny", "allow", "Verdict(7)"}; !slices.Equal(got, want) {
		t.Errorf("verdicts are %q, want %q", got, want)
	}
	var zero Verdict
	if zero == Allow {
		t.Error("the zero verdict lets peers in")
	}
}

// many is a table of n rules in v4 and as many in v6.
func many(t testing.TB, n int) *Rules {
	var allow, deny []netip.Prefix
	for i := range n {
		b := byte(i)
		v4 := netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(i >> 8), b, 0}), 24)
		v6 := netip.PrefixFrom(netip.AddrFrom16([16]byte{0x20, 1, 0xd, 0xb8, byte(i >> 8), b}), 48)
		if i%2 == 0 {
			allow = append(allow, v4, v6)
		} else {
			deny = append(deny, v4, v6)
		}
	}
	return mustNew(t, allow, deny)
}

var checked = []netip.Addr{
	netip.MustParseAddr("10.1.2.3"),
	netip.MustParseAddr("::ffff:10.1.2.3"),
	netip.MustParseAddr("192.0.2.1"),
	netip.MustParseAddr("2001:db8:102:3::4"),
	netip.MustParseAddr("fe80::1%eth0"),
}

func TestCheckDoesNotAllocate(t *testing.T) {
	r := many(t, 1000)
	for _, a := range checked {
		if n := testing.AllocsPerRun(100, func() { r.Check(a) }); n != 0 {
			t.Errorf("Check(%v): %v allocations", a, n)
		}
	}
}

func FuzzCheck(f *testing.F) {
	f.Add("10.0.0.0/8", "10.1.0.0/16", "::/0", "10.1.2.3")
	f.Add("::ffff:10.0.0.0/104", "10.0.0.0/24", "0.0.0.0/0", "::ffff:10.0.0.9")
	f.Add("fe80::/10", "fe80::1/128", "fe80::/64", "fe80::1%lo")
	f.Fuzz(func(t *testing.T, a1, a2, d, peer string) {
		parse := func(s string) []netip.Prefix {
			p, err := netip.ParsePrefix(s)
			if err != nil {
				return nil
			}
			return []netip.Prefix{p}
		}
		addr, err := netip.ParseAddr(peer)
		if err != nil {
			return
		}
		allow, deny := append(parse(a1), parse(a2)...), parse(d)
		r, err := New(allow, deny)
		if err != nil {
			return
		}
		v, p := r.Check(addr)
		if wv, wp := slowCheck(allow, deny, addr); v != wv || p != wp {
			t.Fatalf("allow %v, deny %v: Check(%v) = %v by %v; a linear scan says %v by %v", allow, deny, addr, v, p, wv, wp)
		}
	})
}

func BenchmarkCheck(b *testing.B) {
	for _, n := range []int{1, 10_000} {
		r := many(b, n)
		b.Run(fmt.Sprintf("rules=%d", 2*n), func(b *testing.B) {
			b.ReportAllocs()
			i := 0
			for b.Loop() {
				r.Check(checked[i%len(checked)])
				i++
			}
		})
	}
}
