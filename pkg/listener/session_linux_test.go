package listener

// Sessions with peers in another network namespace, behind a link with a strict
// rp_filter: a datagram that is put back looks there as if it came the wrong way.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// dgramNetwork has the test run in a process of its own in an empty network
// namespace, where ip(8) has done what is asked. It reports whether this is that
// process; in the other one the test is over.
func dgramNetwork(t *testing.T, commands ...string) bool {
	t.Helper()
	const mark = "TCPMUXD_TEST_DGRAM_NETWORK"
	if os.Getenv(mark) == t.Name() {
		ip(t, commands...)
		return true
	}
	cmd := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+t.Name())
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("in a network namespace: %v\n%s", err, out)
	}
	return false
}

func ip(t *testing.T, commands ...string) {
	t.Helper()
	for _, c := range commands {
		cmd := exec.Command("ip", strings.Fields(c)...)
		if cmd.Err != nil { // an ordinary user's PATH
			cmd = exec.Command("/sbin/ip", strings.Fields(c)...)
		}
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("ip %s: %v\n%s", c, err, out)
		}
	}
}

// farClient is the other end: it sends two datagrams to each address and prints
// what comes back.
func farClient(t *testing.T, addresses []string) {
	line := bufio.NewScanner(os.Stdin)
	line.Scan() // the link is there
	ip(t, "link set lo up", "link set far up", "addr add 192.0.2.2/24 dev far",
		"-6 addr add fd01::2/64 dev far nodad", "-6 addr add fe80::2/64 dev far nodad")
	for _, a := range addresses {
		a = strings.ReplaceAll(a, "%near", "%far")
		to := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(a))
		c, err := net.DialUDP("udp", nil, to)
		if err != nil {
			t.Fatal(err)
		}
		c.SetDeadline(time.Now().Add(dgramBound))
		for i := range 2 {
			fmt.Fprintf(c, "datagram %d", i)
			b := make([]byte, 100)
			n, err := c.Read(b)
			if err != nil {
				t.Fatalf("%s: %v", a, err)
			}
			fmt.Printf("ANSWER %s\n", b[:n])
		}
		c.Close()
	}
}

func TestFarPeers(t *testing.T) {
	const mark = "TCPMUXD_TEST_FAR"
	if list := os.Getenv(mark); list != "" {
		farClient(t, strings.Fields(list))
		return
	}
	if !dgramNetwork(t, "link set lo up", "link add near type veth peer name far", "link set near up",
		"addr add 192.0.2.1/24 dev near", "-6 addr add fd01::1/64 dev near nodad", "-6 addr add fe80::1/64 dev near nodad") {
		return
	}
	for _, f := range []string{"all", "near", "lo"} {
		if err := os.WriteFile("/proc/sys/net/ipv4/conf/"+f+"/rp_filter", []byte("1"), 0); err != nil {
			t.Fatal(err)
		}
	}
	var all []*Datagrams
	var addresses []string
	for _, x := range []struct {
		listen, to string
		dual       bool
	}{
		{"192.0.2.1", "192.0.2.1", false},
		{"0.0.0.0", "192.0.2.1", false},
		{"fd01::1", "fd01::1", false},
		{"::", "fd01::1", false},
		{"::", "fe80::1%near", false},
		{"fe80::1%near", "fe80::1%near", false},
		{"::", "192.0.2.1", true},
	} {
		d := datagrams(t, x.listen, x.dual)
		all = append(all, d)
		addresses = append(addresses, d.at(x.to).String())
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestFarPeers$", "-test.timeout=60s")
	cmd.Env = append(os.Environ(), mark+"="+strings.Join(addresses, " "))
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ip(t, fmt.Sprintf("link set far netns %d", cmd.Process.Pid))
	io.WriteString(in, "go\n")
	var want strings.Builder
	for i, d := range all {
		g, _ := d.receive(t)
		if string(g.Data) != "datagram 0" {
			t.Errorf("%s: received %q", addresses[i], g.Data)
		}
		s := openSession(t, d, g)
		if err := d.PutBack(g); err != nil {
			t.Fatal(err)
		}
		for j := range 2 {
			wantRead(t, s, fmt.Sprintf("datagram %d", j))
			answer := fmt.Sprintf("%v to %v", g.Peer, j)
			if _, err := unix.Write(s.fd, []byte(answer)); err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(&want, "ANSWER %s\n", answer)
		}
		d.empty(t)
	}
	if err := cmd.Wait(); err != nil || !strings.HasPrefix(out.String(), want.String()) {
		t.Errorf("the other end: %v\n%s\nwant\n%s", err, out.String(), want.String())
	}
}

// A link in fragments, as where the loopback interface takes little.
func TestPutBackInFragments(t *testing.T) {
	if !dgramNetwork(t, "link set lo up mtu 1500") {
		return
	}
	for _, a := range []string{"127.0.0.1", "::1"} {
		d := datagrams(t, a, false)
		c := client(t, a, d.at(a))
		c.Write([]byte("x"))
		g, _ := d.receive(t)
		s := openSession(t, d, g)
		for _, size := range []int{1400, 1472, 1473, 3000, 65507} {
			g.Data = bytes.Repeat([]byte{byte(size)}, size)
			if err := d.PutBack(g); err != nil {
				t.Fatalf("%s, %d bytes: %v", a, size, err)
			}
			wantRead(t, s, string(g.Data))
		}
	}
}

// Whatever sessions there are, nobody else gets the port of a row that does not
// share it: not another daemon of the same table, and nobody who asks to share.
func TestPortIsOurs(t *testing.T) {
	for _, test := range []struct {
		listen, to string
		shared     bool
	}{
		{"127.0.0.1", "127.0.0.1", false}, {"0.0.0.0", "127.6.5.4", false}, {"::1", "::1", false}, {"::", "::1", false},
		{"127.0.0.1", "127.0.0.1", true}, {"0.0.0.0", "127.6.5.4", true},
	} {
		t.Run(fmt.Sprint(test), func(t *testing.T) {
			testkit.Check(t)
			ep := endpoint(netip.MustParseAddr(test.listen), testkit.FreePort(t))
			ep.Network = map[bool]service.Network{true: service.UDP4, false: service.UDP6}[ep.Addr.Addr().Is4()]
			sv := row(plain())
			sv.Exec, sv.Socket.ReusePort = &service.Exec{}, test.shared
			l := openRow(t, ep, sv)
			to := netip.AddrPortFrom(netip.MustParseAddr(test.to), ep.Addr.Port())
			rivals := func(when string) {
				t.Helper()
				for _, option := range []int{0, unix.SO_REUSEADDR, unix.SO_REUSEPORT} {
					for _, a := range []netip.AddrPort{ep.Addr, to} {
						fd, err := newSocket(ep.Network, false)
						if err != nil {
							t.Fatal(err)
						}
						if option != 0 {
							unix.SetsockoptInt(fd, unix.SOL_SOCKET, option, 1)
						}
						if err := unix.Bind(fd, address(t, service.Endpoint{Network: ep.Network, Addr: a})); (err != unix.EADDRINUSE) != (test.shared && option == unix.SO_REUSEPORT) {
							t.Errorf("%s, with option %d, %v: %v", when, option, a, err)
						}
						unix.Close(fd)
					}
				}
				if second, err := Open(ep, sv); (err == nil) != test.shared {
					t.Errorf("%s, a second daemon: %v", when, err)
				} else if err == nil {
					second.Close()
				} else if !errors.Is(err, unix.EADDRINUSE) {
					t.Errorf("%s, a second daemon: %v", when, err)
				}
			}
			rivals("before anything came")
			d, err := l.Datagrams(func(int) {})
			if err != nil {
				t.Fatal(err)
			}
			defer d.Close()
			if !test.shared { // sessions share with nobody, nor does what they need
				rivals("without sessions")
			}
			for range 3 {
				c := client(t, "", to)
				c.Write([]byte("hello"))
				g, b := d.receive(t)
				s := openSession(t, d, g)
				if err := d.PutBack(g); err != nil {
					t.Fatal(err)
				}
				wantRead(t, s, "hello")
				if !test.shared {
					rivals("with sessions")
				}
				defer d.End(s, false, b, func(Datagram) {})
			}
			if n, err := unix.GetsockoptInt(l.Fd(), unix.SOL_SOCKET, unix.SO_REUSEPORT); err != nil || n == 1 != test.shared {
				t.Errorf("SO_REUSEPORT is %d, %v", n, err)
			}
		})
	}
}

// A socket that cannot be connected to itself is no spare: unconnected, it would
// be given everybody's datagrams.
func TestNoSpareUnconnected(t *testing.T) {
	if !dgramNetwork(t, "link set lo up", "link add near type veth peer name far", "link set near up") {
		return
	}
	d := datagrams(t, "0.0.0.0", false)
	to := d.at("127.0.0.1")
	options := plain()
	options.BindToDevice = "near"
	d.mu.Lock()
	defer d.mu.Unlock()
	g, err := d.guardLocked(to, plain())
	if err != nil {
		t.Fatal(err)
	}
	g.sessions = 2
	if d.makeSparesLocked(g, to, options, []int{d.l.fd, g.fd}); len(g.spares) > 0 {
		t.Errorf("%d spares that nobody can be connected by", len(g.spares))
	}
	if d.makeSparesLocked(g, to, plain(), []int{d.l.fd, g.fd}); len(g.spares) != 1 {
		t.Errorf("%d spares, want one", len(g.spares))
	}
}
