package limit

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"testing"
	"time"
)

func TestSource(t *testing.T) {
	tests := []struct {
		desc   string
		v4, v6 int
		addr   string // empty: not valid
		want   string
	}{
		{"no address", 0, 0, "", "unknown"},
		{"v4", 0, 0, "192.0.2.7", "192.0.2.7"},
		{"v4-mapped is v4", 0, 0, "::ffff:192.0.2.7", "192.0.2.7"},
		{"v6 is its /64", 0, 0, "2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"},
		{"the zone is dropped", 0, 0, "fe80::1%eth0", "fe80::/64"},
		{"v4-compatible is v6", 0, 128, "::192.0.2.7", "::c000:207"},
		{"odd v4 length", 25, 0, "192.0.2.255", "192.0.2.128/25"},
		{"odd v6 length", 0, 33, "2001:db8:ffff::", "2001:db8:8000::/33"},
		{"shortest", 1, 1, "255.0.0.1", "128.0.0.0/1"},
		{"v6 host", 0, 128, "2001:db8::1", "2001:db8::1"},
		{"too long means unset", 33, 129, "2001:db8::1", "2001:db8::/64"},
		{"negative means unset", -1, -1, "192.0.2.7", "192.0.2.7"},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			l := Limits{PrefixV4: tt.v4, PrefixV6: tt.v6}
			var a netip.Addr
			if tt.addr != "" {
				a = netip.MustParseAddr(tt.addr)
			}
			if got := l.Source(a).String(); got != tt.want {
				t.Errorf("Source(%v) = %s, want %s", a, got, tt.want)
			}
		})
	}
}

// A source is netip's own masked prefix.
func TestSourceAgainstNetip(t *testing.T) {
	rng := rand.New(rand.NewPCG(11, 12))
	for range 20_000 {
		l := Limits{PrefixV4: 1 + rng.IntN(32), PrefixV6: 1 + rng.IntN(128)}
		var b [16]byte
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		a, bits := netip.AddrFrom16(b), l.PrefixV6
		if rng.IntN(2) == 0 {
			a, bits = netip.AddrFrom4([4]byte(b[:4])), l.PrefixV4
		}
		want, err := a.Prefix(bits)
		if err != nil {
			t.Fatal(err)
		}
		s := l.Source(a)
		if s.Prefix() != want {
			t.Fatalf("Source(%v) with %d bits is %v, want %v", a, bits, s.Prefix(), want)
		}
		if s != l.Source(want.Addr()) {
			t.Fatalf("the source of %v is not that of %v", a, want.Addr())
		}
	}
}

// Sources of different kinds and lengths are never the same.
func TestSourcesDiffer(t *testing.T) {
	seen := make(map[Source]string)
	for _, l := range []Limits{{}, {PrefixV4: 24, PrefixV6: 48}} {
		for _, s := range []string{"0.0.0.0", "::", "1.0.0.0", "100::", "192.0.2.1", "192.0.3.1"} {
			k := l.Source(netip.MustParseAddr(s))
			if other, ok := seen[k]; ok {
				t.Errorf("%s and %s are one source", s, other)
			}
			seen[k] = s
		}
	}
	if _, ok := seen[Source{}]; ok {
		t.Error("a valid address is the source of those without one")
	}
}

func TestStrings(t *testing.T) {
	got := []string{
		OK.String(), OverInstances.String(), OverInstancesPerSource.String(), OverRate.String(), OverRatePerSource.String(),
		OverInstances.OfServer().String(), OverInstancesPerSource.OfServer().String(), OverRate.OfServer().String(), OverRatePerSource.OfServer().String(), Reason(99).String(),
		Rate{}.String(), Rate{5, time.Second}.String(), Rate{256, time.Minute}.String(), Rate{1, time.Hour}.String(),
		Rate{3, 24 * time.Hour}.String(), Rate{2, 90 * time.Second}.String(),
	}
	want := []string{
		"ok", "instances", "instances_per_source", "rate", "rate_per_source",
		"server_instances", "server_instances_per_source", "server_rate", "server_rate_per_source", "Reason(99)",
		"0", "5/s", "256/min", "1/h", "3/d", "2/1m30s",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got  %q\nwant %q", got, want)
	}
}

// A user and a machine are sources of their own, never taken for an address or
// for each other, and limited like any other.
func TestNumberedSources(t *testing.T) {
	for _, tt := range []struct {
		source Source
		want   string
	}{
		{User(0), "uid:0"},
		{User(1000), "uid:1000"},
		{User(1<<32 - 2), "uid:4294967294"},
		{Machine(0), "vsock:0"},
		{Machine(3), "vsock:3"},
	} {
		if got := tt.source.String(); got != tt.want {
			t.Errorf("%s, want %s", got, tt.want)
		}
		if p := tt.source.Prefix(); p.IsValid() {
			t.Errorf("%s has the prefix %v", tt.want, p)
		}
	}
	var l Limits
	same := []Source{User(3), Machine(3), l.Source(netip.AddrFrom4([4]byte{3: 3})), l.Source(netip.AddrFrom4([4]byte{3})), {}}
	for i, a := range same {
		for j, b := range same {
			if (a == b) != (i == j) {
				t.Errorf("%v and %v: %v", a, b, a == b)
			}
		}
	}
	b := NewBook(Limits{InstancesPerSource: 1, PrefixV4: 1, PrefixV6: 1}, 0)
	for _, s := range append(same[:2:2], User(4), Machine(4)) {
		lease := admit(t, b, 0, s, OK)
		admit(t, b, 0, s, OverInstancesPerSource)
		b.Release(&lease)
		admit(t, b, 0, s, OK)
	}
}
