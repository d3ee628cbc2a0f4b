package nft

import (
	"encoding/binary"
	"fmt"
	"math/big"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// ownNetwork runs the rest of a test in a process with a network namespace of its
// own, where nobody is concerned by nftables. It reports whether this is it.
func ownNetwork(t *testing.T) bool {
	t.Helper()
	const mark = "TCPMUXD_TEST_NETWORK"
	if os.Getenv(mark) != "" {
		return true
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), mark+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a network of its own: %v\n%s", err, out)
	}
	return false
}

// run runs nft(8).
func run(t *testing.T, args ...string) string {
	t.Helper()
	out, err := exec.Command("nft", args...).CombinedOutput()
	if err != nil {
		t.Fatalf("nft %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestSets(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	run(t, "add", "table", "inet", "filter")
	run(t, "add", "set", "inet", "filter", "four", "{ type ipv4_addr; flags timeout; }")
	run(t, "add", "set", "inet", "filter", "four_interval", "{ type ipv4_addr; flags interval, timeout; }")
	run(t, "add", "set", "inet", "filter", "six", "{ type ipv6_addr; flags interval, timeout; }")
	run(t, "add", "set", "inet", "filter", "still", "{ type ipv4_addr; }")
	run(t, "add", "set", "inet", "filter", "single", "{ type ipv6_addr; flags timeout; }")
	run(t, "add", "set", "inet", "filter", "ports", "{ type inet_service; flags timeout; }")
	run(t, "add", "map", "inet", "filter", "verdicts", "{ type ipv4_addr : verdict; flags timeout; }")
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	set := func(name string) Set { return Set{"inet", "filter", name} }
	for _, tt := range []struct {
		name string
		v6   bool
		want string
	}{
		{"four", false, ""},
		{"four_interval", false, ""},
		{"six", true, ""},
		{"four", true, `the nftables set "inet filter four": it is no set of addresses; make it with "type ipv6_addr"`},
		{"ports", false, `type ipv4_addr`},
		{"verdicts", false, `type ipv4_addr`},
		{"still", false, `flags timeout`},
		{"single", true, `flags interval, timeout`},
		{"none", false, `no such table or set`},
	} {
		if _, err := c.Look(set(tt.name), tt.v6); (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want %s", tt.name, err, tt.want)
		}
	}
	if _, err := c.Look(Set{"ip", "filter", "four"}, false); err == nil {
		t.Error("a set of another family")
	}
	for _, name := range []string{"four", "four_interval", "six"} {
		v6 := name == "six"
		k, err := c.Look(set(name), v6)
		if err != nil {
			t.Fatal(err)
		}
		var list []Element
		texts := []string{"192.0.2.1/32", "192.0.2.2/32", "255.255.255.255/32", "10.0.0.255/32"}
		if v6 {
			texts = []string{"2001:db8::/64", "2001:db8:0:1::/64", "ffff:ffff:ffff:ffff::/64", "2001:db8:0:ff::/64"}
		}
		for _, p := range texts {
			list = append(list, Element{netip.MustParsePrefix(p), time.Hour})
		}
		for range 2 { // the second time changes nothing
			if err := c.Add(set(name), k, list); err != nil {
				t.Fatalf("%s: %v", name, err)
			}
		}
		out := run(t, "list", "set", "inet", "filter", name)
		for _, p := range texts {
			if !strings.Contains(out, strings.TrimSuffix(p, "/32")+" timeout 1h expires ") {
				t.Errorf("%s has no %s:\n%s", name, p, out)
			}
		}
		for range 2 { // and so here
			if err := c.Remove(set(name), k, list[0].Prefix); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		out = run(t, "list", "set", "inet", "filter", name)
		if strings.Contains(out, strings.TrimSuffix(texts[0], "/32")+" timeout") || !strings.Contains(out, strings.TrimSuffix(texts[1], "/32")+" timeout") {
			t.Errorf("after Remove: %s", out)
		}
	}
	// More than go in one message, and they end by themselves.
	k, _ := c.Look(set("four"), false)
	var many []Element
	for i := range uint32(1000) {
		a := netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, 0x0b000000+i)))
		many = append(many, Element{netip.PrefixFrom(a, 32), time.Second})
	}
	if err := c.Add(set("four"), k, many); err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(20 * time.Second); strings.Contains(run(t, "list", "set", "inet", "filter", "four"), "11.0."); time.Sleep(50 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("they do not end")
		}
	}
	run(t, "flush", "ruleset")
	if err := c.Add(set("four"), k, many); err == nil || !strings.Contains(err.Error(), "no such table or set") {
		t.Errorf("without the set: %v", err)
	}
	if err := c.Remove(set("four"), k, many[0].Prefix); err == nil || !strings.Contains(err.Error(), "no such table or set") {
		t.Errorf("without the set: %v", err)
	}
}

// What comes after a prefix, by other means.
// What an administrator has put into a set keeps nobody else out of it.
func TestOverlap(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	run(t, "add", "table", "inet", "filter")
	run(t, "add", "set", "inet", "filter", "four", "{ type ipv4_addr; flags interval, timeout; elements = { 10.0.0.0/8 } }")
	c, err := Open()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	set := Set{"inet", "filter", "four"}
	k, err := c.Look(set, false)
	if err != nil {
		t.Fatal(err)
	}
	var list []Element
	for _, p := range []string{"192.0.2.1/32", "10.1.2.3/32", "192.0.2.3/32"} {
		list = append(list, Element{netip.MustParsePrefix(p), time.Hour})
	}
	if err := c.Add(set, k, list); err == nil || !strings.Contains(err.Error(), "10.1.2.3/32") {
		t.Error(err)
	}
	out := run(t, "list", "set", "inet", "filter", "four")
	for _, want := range []string{"192.0.2.1 ", "192.0.2.3 "} {
		if !strings.Contains(out, want) {
			t.Errorf("no %sin %s", want, out)
		}
	}
	if err := c.Remove(set, k, list[1].Prefix); err != nil {
		t.Error(err)
	}
}

func TestAfter(t *testing.T) {
	for _, text := range []string{"0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "192.0.2.1/32", "255.255.255.255/32", "255.255.255.0/24",
		"10.0.255.0/24", "::/0", "2001:db8::/64", "2001:db8:0:ffff::/64", "ffff:ffff:ffff:ffff::/64", "::ff/128", "fe80::/10"} {
		p := netip.MustParsePrefix(text)
		n := new(big.Int).SetBytes(p.Addr().AsSlice())
		n.Add(n, new(big.Int).Lsh(big.NewInt(1), uint(p.Addr().BitLen()-p.Bits())))
		a, ok := after(p)
		want := slices.Concat(make([]byte, p.Addr().BitLen()/8-min(p.Addr().BitLen()/8, len(n.Bytes()))), n.Bytes())
		fits := n.BitLen() <= p.Addr().BitLen()
		if ok != fits || ok && fmt.Sprint(a.AsSlice()) != fmt.Sprint(want) {
			t.Errorf("after %v: %v, %v; want %v", p, a, ok, want)
		}
	}
}
