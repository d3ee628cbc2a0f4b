package filter

import (
	"net/netip"
	"slices"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func newTestBans(t *testing.T, most int) *Bans {
	t.Helper()
	b, err := NewBans(most)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.Close)
	return b
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// A ban holds on all sockets whatever the rules are, and as long as it is there.
func TestBans(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	bans := newTestBans(t, 16)
	open, strict := newFilter(t, nil), newFilter(t, rulesOf(t, prefixes("127.0.0.0/8", "127.6.0.1/32", "fd00::/64"), nil))
	receivers := map[*receiver]bool{}
	for _, f := range []*Filter{open, strict} {
		r := listenUDP(t, true, true)
		must(t, f.Attach(r.fd))
		receivers[r] = true
	}
	sources := []string{"127.6.0.1", "127.6.0.2", "fd00::1", "fd00::2"}
	check := func(want ...string) {
		t.Helper()
		for r := range receivers {
			for _, s := range sources {
				r.send(t, netip.MustParseAddr(s), s)
			}
			if got := r.take(t); !slices.Equal(got, want) {
				t.Errorf("received %v, want %v", got, want)
			}
		}
	}
	check(sources...)
	must(t, open.Ban(bans))
	must(t, strict.Ban(bans))
	check(sources...)
	must(t, bans.Add(netip.MustParsePrefix("127.6.0.1/32")))
	must(t, bans.Add(netip.MustParsePrefix("127.6.0.1/32")))
	check("127.6.0.2", "fd00::1", "fd00::2")
	must(t, bans.Add(netip.MustParsePrefix("fd00::/64")))
	check("127.6.0.2")
	// Rules change, bans stay.
	must(t, strict.Update(Judgment{Sources: rulesOf(t, prefixes("127.0.0.0/8", "fd00::/64"), nil)}))
	check("127.6.0.2")
	must(t, bans.Remove(netip.MustParsePrefix("127.6.0.1/32")))
	must(t, bans.Remove(netip.MustParsePrefix("127.6.0.1/32")))
	check("127.6.0.1", "127.6.0.2")
	must(t, open.Ban(nil))
	must(t, open.Ban(nil))
	must(t, strict.Ban(nil))
	check(sources...)
}

// A filter that an earlier daemon has made is found with its bans, and can be rid
// of them.
func TestFindWithBans(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	r := listenUDP(t, false, false)
	f, err := New(Judgment{}, cookieOf(t, r.fd))
	must(t, err)
	must(t, f.Attach(r.fd))
	bans, err := NewBans(4)
	must(t, err)
	must(t, bans.Add(netip.MustParsePrefix("127.6.0.1/32")))
	must(t, f.Ban(bans))
	bans.Close()
	f.Close()
	from := func(want int) {
		t.Helper()
		r.send(t, netip.MustParseAddr("127.6.0.1"), "x")
		if got := r.take(t); len(got) != want {
			t.Errorf("%d datagrams, want %d", len(got), want)
		}
	}
	from(0)
	if f, err = Find(r.fd); err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	must(t, f.Ban(nil))
	from(1)
}

// It has room for as many as were asked for, and is gone when it is closed.
func TestBansFull(t *testing.T) {
	testkit.Check(t)
	b, err := NewBans(2)
	must(t, err)
	defer b.Close()
	for i := range byte(3) {
		err := b.Add(netip.PrefixFrom(netip.AddrFrom4([4]byte{192, 0, 2, i}), 32))
		if (err != nil) != (i == 2) {
			t.Errorf("%d: %v", i, err)
		}
	}
}
