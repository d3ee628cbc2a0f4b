package limit

import (
	"net/netip"
	"testing"
)

func TestParseSource(t *testing.T) {
	var l Limits
	for text, want := range map[string]Source{
		"192.0.2.1":            l.Source(netip.MustParseAddr("192.0.2.1")),
		"::ffff:192.0.2.1":     l.Source(netip.MustParseAddr("192.0.2.1")),
		"192.0.2.1/32":         l.Source(netip.MustParseAddr("192.0.2.1")),
		"2001:db8::1":          l.Source(netip.MustParseAddr("2001:db8::2")),
		"2001:db8::/64":        l.Source(netip.MustParseAddr("2001:db8::2")),
		"uid:1000":             User(1000),
		"vsock:3":              Machine(3),
		"":                     {},
		"192.0.2.0/24":         {},
		"192.0.2.1/24":         {},
		"2001:db8::1/64":       {},
		"2001:db8::/48":        {},
		"uid:":                 {},
		"uid:-1":               {},
		"uid:4294967296":       {},
		"vsock:x":              {},
		"example.org":          {},
		"192.0.2.1:1000":       {},
		"unknown":              {},
		"2001:db8::/64, other": {},
	} {
		got, err := ParseSource(text)
		if got != want || (err != nil) != (want == Source{}) {
			t.Errorf("%q: %v, %v; want %v", text, got, err, want)
		}
		if err == nil {
			if again, err := ParseSource(got.String()); again != got || err != nil {
				t.Errorf("%q: String is %q, which is %v, %v", text, got, again, err)
			}
		}
	}
}

func FuzzParseSource(f *testing.F) {
	f.Add("192.0.2.1")
	f.Add("2001:db8::/64")
	f.Add("uid:1")
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSource(text)
		if (err == nil) == (s == Source{}) {
			t.Fatalf("%q: %v, %v", text, s, err)
		}
		if err != nil {
			return
		}
		if again, err := ParseSource(s.String()); again != s || err != nil {
			t.Fatalf("%q: %v is %v, %v", text, s, again, err)
		}
	})
}
