package filter

// What a packet is judged by besides its source.

import (
	"net"
	"net/netip"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

func listed(t testing.TB, list ...string) *access.Rules {
	t.Helper()
	r, err := access.NewListed(prefixes(list...), nil)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// sendTo is send to an address other than the loopback interface's own.
func (r *receiver) sendTo(t testing.TB, to, payload string) {
	t.Helper()
	a := netip.MustParseAddr(to)
	c, err := net.Dial("udp", netip.AddrPortFrom(a, uint16(r.port)).String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(payload)); err != nil {
		t.Fatal(err)
	}
	r.sent++
}

func TestLocals(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	for _, test := range []struct {
		desc string
		j    Judgment
		to   string
		want bool
	}{
		{"all", Judgment{}, "127.0.0.1", true},
		{"its address", Judgment{Locals: listed(t, "127.0.0.1/32")}, "127.0.0.1", true},
		{"another", Judgment{Locals: listed(t, "127.0.0.1/32")}, "127.0.0.2", false},
		{"another family", Judgment{Locals: listed(t, "::/0")}, "127.0.0.2", false},
		{"its prefix", Judgment{Locals: listed(t, "10.7.0.0/16", "fd00::/16")}, "10.7.1.1", true},
		{"v6", Judgment{Locals: listed(t, "10.7.0.0/16", "fd00::/16")}, "fd00::9", true},
		{"v6, another", Judgment{Locals: listed(t, "10.7.0.0/16", "fd00::8/125")}, "fd00::7", false},
		{"everything", Judgment{Locals: listed(t, "::/0", "0.0.0.0/0")}, "fd00::7", true},
		{"nowhere", Judgment{Locals: listed(t)}, "127.0.0.1", false},
		{"a source is no place", Judgment{Sources: rulesOf(t, prefixes("127.0.0.1/32"), nil), Locals: listed(t, "127.0.0.9/32")}, "127.0.0.1", false},
		{"neither is a place a source", Judgment{Sources: rulesOf(t, prefixes("127.0.0.9/32"), nil), Locals: listed(t, "127.0.0.1/32")}, "127.0.0.1", false},
		{"both", Judgment{Sources: rulesOf(t, prefixes("127.0.0.1/32"), nil), Locals: listed(t, "127.0.0.1/32")}, "127.0.0.1", true},
		{"closed", Judgment{Closed: true}, "127.0.0.1", false},
		{"closed, v6", Judgment{Closed: true}, "::1", false},
		{"closed to those who may", Judgment{Closed: true, Sources: rulesOf(t, prefixes("127.0.0.1/32"), nil)}, "127.0.0.1", false},
	} {
		f, err := New(test.j, 0)
		if err != nil {
			t.Fatal(err)
		}
		v6 := netip.MustParseAddr(test.to).Is6()
		for _, r := range []*receiver{listenUDP(t, v6, false), listenUDP(t, true, true)} {
			if err := f.Attach(r.fd); err != nil {
				t.Fatal(err)
			}
			r.sendTo(t, test.to, "x")
			if got := r.take(t); (len(got) == 1) != test.want {
				t.Errorf("%s: to %s came %d datagrams", test.desc, test.to, len(got))
			}
		}
		f.Close()
	}
}

// TestInterfaces has two interfaces: what comes from the outer namespace's end of
// a pair comes by veth, what the machine sends to itself by lo.
func TestInterfaces(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	// The other namespace lives as long as a process in it.
	other := exec.Command("sleep", "60")
	other.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if err := other.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { other.Process.Kill(); other.Wait() })
	there := "nsenter -n -t " + strconv.Itoa(other.Process.Pid) + " "
	run := func(command string, more ...string) {
		t.Helper()
		args := append(strings.Fields(command), more...)
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%s: %v\n%s", args, err, out)
		}
	}
	run("ip link add in type veth peer name out")
	run("ip link set out netns " + strconv.Itoa(other.Process.Pid))
	run("ip addr add 192.0.2.1/24 dev in")
	run("ip link set in up")
	run(there + "ip addr add 192.0.2.2/24 dev out")
	run(there + "ip link set out up")
	index := func(name string) uint32 {
		i, err := net.InterfaceByName(name)
		if err != nil {
			t.Fatal(err)
		}
		return uint32(i.Index)
	}
	f := newFilter(t, nil)
	r := listenUDP(t, false, false)
	if err := f.Attach(r.fd); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		by   []uint32
		want string
	}{
		{nil, "lo in"}, {[]uint32{}, ""}, {[]uint32{index("lo")}, "lo"}, {[]uint32{index("in")}, "in"},
		{[]uint32{index("in"), index("lo")}, "lo in"}, {[]uint32{77}, ""},
	} {
		if err := f.Update(Judgment{Interfaces: test.by}); err != nil {
			t.Fatal(err)
		}
		r.sendTo(t, "192.0.2.1", "lo")
		run(there+"bash -c", "echo -n in > /dev/udp/192.0.2.1/"+strconv.Itoa(r.port))
		r.sent++
		if got := strings.Join(r.take(t), " "); got != test.want {
			t.Errorf("interfaces %v: came %q, want %q", test.by, got, test.want)
		}
	}
}

func TestEqualJudgments(t *testing.T) {
	all := []Judgment{
		{}, {Closed: true}, {Sources: listed(t)}, {Locals: listed(t)}, {Sources: listed(t, "10.0.0.0/8")},
		{Interfaces: []uint32{}}, {Interfaces: []uint32{1}},
	}
	for i, a := range all {
		for k, b := range all {
			if a.Equal(b) != (i == k) {
				t.Errorf("%+v and %+v: equal %v", a, b, a.Equal(b))
			}
		}
	}
	if !(Judgment{Sources: listed(t, "10.0.0.0/8")}).Equal(all[4]) {
		t.Error("the same prefixes are not equal")
	}
}
