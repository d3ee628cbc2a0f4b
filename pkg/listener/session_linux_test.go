package listener

// Sessions with peers in another network namespace, behind a link with a strict
// rp_filter: a datagram that is put back looks there as if it came the wrong way.

import (
	"bufio"
	"bytes"
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
