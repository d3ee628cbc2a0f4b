package supervisor

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// internal is a row that runs a built-in on a port of its own.
func internal(b service.Builtin, port int) *service.Service {
	sv := direct(b.String(), port, nil)
	sv.Builtin = b
	return sv
}

// muxed makes a row one that is reached by name.
func muxed(plus bool, sv *service.Service) *service.Service {
	sv.Listen, sv.Mux, sv.Plus = nil, true, plus
	sv.ID = "tcpmux/" + sv.Name
	if plus {
		sv.ID = "tcpmux/+" + sv.Name
	}
	return sv
}

// forward is a row that relays to the listeners.
func forward(port int, to ...service.Target) *service.Service {
	sv := direct("forward", port, nil)
	sv.Forward = &service.Forward{Targets: to, Timeout: bound}
	return sv
}

// relayed waits until so many instances without a child run.
func (s *server) relayed(n int) {
	s.t.Helper()
	within(s.t, fmt.Sprintf("%d relayed instances", n), func() bool { return s.relays.count() == n })
}

// target is a server that a row forwards to: it echoes and then says bye.
func target(t *testing.T) service.Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.Copy(c, c)
				io.WriteString(c, "bye")
			}()
		}
	}()
	return service.Target{Addr: netip.MustParseAddrPort(l.Addr().String())}
}

func TestStreamBuiltins(t *testing.T) {
	testkit.Check(t)
	ports := map[service.Builtin]int{}
	var rows []*service.Service
	for b := service.BuiltinEcho; b <= service.BuiltinTime; b++ {
		ports[b] = testkit.FreePort(t)
		rows = append(rows, internal(b, ports[b]), muxed(true, internal(b, 0)))
	}
	m := testkit.FreePort(t)
	s := serve(t, append(rows, mux(m))...)
	for _, by := range []string{"port", "name"} {
		ask := func(b service.Builtin) *client {
			if by == "port" {
				return dial(t, ports[b])
			}
			return dial(t, m).send(b.String() + "\r\n").expect("+Go\r\n")
		}
		t.Run(by, func(t *testing.T) {
			ask(service.BuiltinEcho).send("hello").expect("hello").send("bye").half().ends("bye")
			ask(service.BuiltinDiscard).send("hello").half().ends("")
			ask(service.BuiltinChargen).expect(string(builtin.Pattern()[:5000])).Close()
			if got := ask(service.BuiltinDaytime).rest(); len(got) != 26 || got[24:] != "\r\n" {
				t.Errorf("daytime is %q", got)
			}
			if got := ask(service.BuiltinTime).rest(); len(got) != 4 {
				t.Errorf("time is %x", got)
			}
			s.relayed(0)
		})
	}
	for _, sv := range rows {
		l := s.logs.wait(t, "end", "service="+sv.ID, "reason=closed")
		if l.attrs["peer"] == "" || l.attrs["local"] == "" || l.attrs["duration"] == "" {
			t.Errorf("the line is %s", l.text)
		}
	}
	if n := s.logs.count("start", "service=echo"); n != 1 {
		t.Errorf("%d lines say that echo has started", n)
	}
}

// A peer that says something is not reset while its answer is under way.
func TestShortAnswersArrive(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := prepare(t, table(internal(service.BuiltinTime, port)))
	var clients []*client
	for range 50 { // what they have sent is there before they are accepted
		clients = append(clients, dial(t, port).send(strings.Repeat("x", 1000)))
	}
	s.run()
	for _, c := range clients {
		if got := c.rest(); len(got) != 4 {
			t.Fatalf("time is %x", got)
		}
		c.Close()
	}
	s.relayed(0)
}

func TestForwards(t *testing.T) {
	testkit.Check(t)
	port, m := testkit.FreePort(t), testkit.FreePort(t)
	to := target(t)
	nowhere := service.Target{Path: filepath.Join(t.TempDir(), "none")}
	s := serve(t, mux(m), forward(port, nowhere, to),
		muxed(true, with(forward(0, to), func(sv *service.Service) { sv.Name = "yes" })),
		muxed(true, with(forward(0, nowhere), func(sv *service.Service) { sv.Name = "no" })),
		muxed(false, with(forward(0, to), func(sv *service.Service) { sv.Name = "bare" })))
	dial(t, port).send("hello").expect("hello").half().ends("bye")
	l := s.logs.wait(t, "end", "service=forward", "reason=closed", "in=5", "out=8", "target="+to.String())
	if !strings.Contains(l.attrs["error"], "/none: no such file or directory") {
		t.Errorf("the line is %s", l.text)
	}
	dial(t, m).send("yes\r\nhello").half().ends("+Go\r\nhellobye")
	dial(t, m).send("bare\r\nhello").half().ends("hellobye")
	dial(t, m).send("no\r\nhello").ends(tcpmux.NotAvailable)
	s.logs.wait(t, "end", "service=tcpmux/+no", "reason=connect")
	s.relayed(0)
}

// The limits are the same as for children, with the same words.
func TestInsideHasLimits(t *testing.T) {
	testkit.Check(t)
	port, m := testkit.FreePort(t), testkit.FreePort(t)
	one := func(sv *service.Service) *service.Service {
		sv.Limits = limit.Limits{Instances: 1}
		return sv
	}
	denied := internal(service.BuiltinDiscard, testkit.FreePort(t))
	denied.Access = rules(t, "192.0.2.0/24", "")
	s := serve(t, mux(m), one(internal(service.BuiltinEcho, port)), one(muxed(true, internal(service.BuiltinEcho, 0))), denied)
	a, b := dial(t, port).send("a").expect("a"), dial(t, m).send("echo\r\n").expect("+Go\r\n")
	dial(t, port).gone()
	dial(t, m).send("echo\r\n").ends(tcpmux.Busy)
	for _, id := range []string{"echo", "tcpmux/+echo"} {
		s.logs.wait(t, "refuse", "service="+id, "reason=instances")
	}
	dial(t, int(denied.Listen[0].Addr.Port())).gone()
	s.logs.wait(t, "refuse", "service=discard", "reason=access")
	a.Close()
	b.Close()
	s.relayed(0)
	dial(t, port).send("again").expect("again")
}

// What waits in the kernel's queue gets its turn when an instance ends.
func TestInsideQueues(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	sv := internal(service.BuiltinEcho, port)
	sv.Limits, sv.Overflow = limit.Limits{Instances: 1}, service.OverflowQueue
	s := serve(t, sv)
	first := dial(t, port).send("a").expect("a")
	second := dial(t, port).send("b")
	s.relayed(1)
	first.Close()
	second.expect("b").Close()
	s.relayed(0)
}

func TestReloadOfInside(t *testing.T) {
	testkit.Check(t)
	for _, how := range []service.OnReload{service.ReloadFinish, service.ReloadEnd} {
		for _, what := range []string{"same", "changed", "removed"} {
			t.Run(fmt.Sprint(how, " ", what), func(t *testing.T) {
				port := testkit.FreePort(t)
				old := internal(service.BuiltinEcho, port)
				old.OnReload = how
				s := serve(t, old)
				c := dial(t, port).send("a").expect("a")
				switch what {
				case "same":
					s.reload(with(old, func(*service.Service) {}))
				case "changed":
					s.reload(with(old, func(sv *service.Service) { sv.Idle = time.Hour }))
				case "removed":
					s.reload()
				}
				if how == service.ReloadEnd && what != "same" {
					c.gone()
					s.logs.wait(t, "end", "service=echo", "reason=cut")
				} else {
					c.send("b").expect("b")
				}
			})
		}
	}
}

func TestStopOfInside(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	tab := table(internal(service.BuiltinEcho, port))
	tab.Server.Grace = bound
	s := serveTable(t, tab)
	a, b := dial(t, port).send("a").expect("a"), dial(t, port).send("b").expect("b")
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		s.stop()
	}()
	s.logs.wait(t, "drain", "instances=2")
	a.send("still").expect("still").half().ends("")
	b.Close()
	<-stopped
	if n := s.logs.count("end", "reason=closed"); n != 2 {
		t.Errorf("%d have ended in order", n)
	}
	// And without a grace.
	s = serve(t, internal(service.BuiltinEcho, port))
	c := dial(t, port).send("a").expect("a")
	s.stop()
	c.gone()
	s.logs.wait(t, "end", "reason=cut")
}

// Many instances cost no goroutine, and leave nothing.
func TestManyInside(t *testing.T) {
	testkit.Check(t)
	const many = 500
	port := testkit.FreePort(t)
	s := serve(t, internal(service.BuiltinEcho, port))
	var clients []*client
	for range many {
		clients = append(clients, dial(t, port).send("x"))
	}
	for _, c := range clients {
		c.expect("x")
	}
	s.relayed(many)
	for _, c := range clients {
		c.Close()
	}
	s.relayed(0)
	within(t, "all ends", func() bool { return s.logs.count("end", "reason=closed") == many })
	if n := s.unit("echo").book.Instances(); n != 0 {
		t.Errorf("%d leases are left", n)
	}
}

// Datagrams.

// onUDP has a row listen on UDP.
func onUDP(sv *service.Service, addr string, port int) *service.Service {
	ep := on(addr, port)
	ep.Network += service.UDP4 - service.TCP4
	sv.Listen = []service.Endpoint{ep}
	sv.ID += "-udp"
	return sv
}

// A caller asks one UDP port.
type caller struct {
	*net.UDPConn
	t *testing.T
}

func call(t *testing.T, from, to string, port int) *caller {
	t.Helper()
	l := net.UDPAddrFromAddrPort(netip.MustParseAddrPort(from))
	r := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(to), uint16(port)))
	c, err := net.DialUDP("udp", l, r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	return &caller{c, t}
}

func (c *caller) ask(question string) string {
	c.t.Helper()
	if _, err := c.Write([]byte(question)); err != nil {
		c.t.Fatal(err)
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	if err != nil {
		c.t.Fatal(err)
	}
	return string(b[:n])
}

func TestDatagramBuiltins(t *testing.T) {
	testkit.Check(t)
	for _, at := range [][2]string{{"0.0.0.0", "127.0.0.9"}, {"::", "::1"}} {
		t.Run(at[0], func(t *testing.T) {
			ports := map[service.Builtin]int{}
			var rows []*service.Service
			for b := service.BuiltinEcho; b <= service.BuiltinTime; b++ {
				ports[b] = testkit.FreePort(t)
				rows = append(rows, onUDP(internal(b, 0), at[0], ports[b]))
			}
			serve(t, rows...)
			from := net.JoinHostPort(map[bool]string{true: "::1", false: "127.0.0.1"}[at[0] == "::"], "0")
			ask := func(b service.Builtin, q string) string { return call(t, from, at[1], ports[b]).ask(q) }
			for _, q := range []string{"hello", "", strings.Repeat("x", 60_000)} {
				if got := ask(service.BuiltinEcho, q); got != q {
					t.Errorf("echo of %d bytes has %d", len(q), len(got))
				}
			}
			if got := ask(service.BuiltinChargen, ""); len(got) != builtin.LineSize {
				t.Errorf("chargen is %q", got)
			}
			if got := ask(service.BuiltinDaytime, ""); len(got) != 26 {
				t.Errorf("daytime is %q", got)
			}
			if got := ask(service.BuiltinTime, ""); len(got) != 4 {
				t.Errorf("time is %x", got)
			}
		})
	}
}

// Many ask at the same time, and each has its own answers, in their order.
func TestDatagramsOfManyPeers(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serve(t, onUDP(internal(service.BuiltinEcho, 0), "0.0.0.0", port))
	var all sync.WaitGroup
	for i := range 20 {
		c := call(t, fmt.Sprintf("127.0.1.%d:0", i+1), fmt.Sprintf("127.0.2.%d", i+1), port)
		all.Go(func() {
			for n := range 100 {
				question := fmt.Sprint(i, " ", n)
				c.Write([]byte(question))
				b := make([]byte, 100)
				if k, err := c.Read(b); err != nil || string(b[:k]) != question {
					t.Errorf("the answer to %q is %q, %v", question, b[:max(k, 0)], err)
					return
				}
			}
		})
	}
	all.Wait()
}

// Who may not ask, or asks too much, gets nothing, and the next one is served.
func TestDatagramBuiltinsRefuse(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	sv := onUDP(internal(service.BuiltinEcho, 0), "0.0.0.0", port)
	sv.Access = rules(t, "", "127.0.0.66/32")
	sv.Limits = limit.Limits{RatePerSource: limit.Rate{N: 3, Per: time.Hour}}
	s := serve(t, sv, onUDP(internal(service.BuiltinDiscard, 0), "127.0.0.1", other))
	ask := func(from string) { call(t, from, "127.0.0.1", port).Write([]byte("x")) }
	ask("127.0.0.2:7")
	ask(fmt.Sprintf("127.0.0.2:%d", other))
	s.logs.wait(t, "refuse", "service=echo-udp", "reason=loop", "peer=127.0.0.2:7")
	s.logs.wait(t, "refuse", "service=echo-udp", "reason=loop", fmt.Sprintf("peer=127.0.0.2:%d", other))
	call(t, "127.0.0.2:0", "127.255.255.255", port).Write([]byte("to all"))
	s.logs.wait(t, "refuse", "service=echo-udp", "reason=broadcast")
	ask("127.0.0.66:0")
	s.logs.wait(t, "refuse", "service=echo-udp", "reason=access", "rule=127.0.0.66/32")
	c := call(t, "127.0.0.3:0", "127.0.0.1", port)
	for range 3 {
		c.ask("x")
	}
	c.Write([]byte("x"))
	s.logs.wait(t, "refuse", "service=echo-udp", "reason="+limit.OverRatePerSource.String())
	if got := call(t, "127.0.0.4:0", "127.0.0.1", port).ask("y"); got != "y" {
		t.Errorf("another peer got %q", got)
	}
	// After a reload the ports are those of the new table.
	s.reload(sv)
	if got := call(t, fmt.Sprintf("127.0.0.5:%d", other), "127.0.0.1", port).ask("z"); got != "z" {
		t.Errorf("from a port that is no built-in any more: %q", got)
	}
}

// Two daemons that a forged datagram has set on each other do not answer each
// other for ever, although neither can know the other's port.
func TestTwoDaemonsDoNotEchoForEver(t *testing.T) {
	testkit.Check(t)
	ports := []int{testkit.FreePort(t), testkit.FreePort(t)}
	var servers []*server
	for _, p := range ports {
		sv := onUDP(internal(service.BuiltinEcho, 0), "127.0.0.1", p)
		sv.Limits = limit.Limits{RatePerSource: limit.Rate{N: 100, Per: time.Hour}}
		servers = append(servers, serve(t, sv))
	}
	forge(t, ports[1], ports[0])
	// The limit of a source ends it.
	over := "reason=" + limit.OverRatePerSource.String()
	within(t, "the end of the loop", func() bool {
		return servers[0].logs.count("refuse", over)+servers[1].logs.count("refuse", over) > 0
	})
	if share := idleCPU(t, 200*time.Millisecond); share > 0.2 {
		t.Errorf("the daemons still use %.0f %% of a processor", 100*share)
	}
}

// forge sends a datagram that claims to come from a port of this machine.
func forge(t *testing.T, from, to int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.IPPROTO_UDP)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	b := binary.BigEndian.AppendUint16(nil, uint16(from))
	b = binary.BigEndian.AppendUint16(b, uint16(to))
	b = append(b, 0, 9, 0, 0, 'x') // length; no checksum
	if err := unix.Sendto(fd, b, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
}

func TestUnixDatagramBuiltin(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	sv := internal(service.BuiltinEcho, 0)
	sv.Listen = []service.Endpoint{{Network: service.UnixDgram, Path: filepath.Join(dir, "echo")}}
	sv.Socket.Mode, sv.Socket.UID, sv.Socket.GID, sv.Socket.DirectoryMode = 0o666, -1, -1, 0o755
	serve(t, sv)
	c, err := net.DialUnix("unixgram", &net.UnixAddr{Name: filepath.Join(dir, "c"), Net: "unixgram"}, &net.UnixAddr{Name: sv.Listen[0].Path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	c.Write([]byte("hello"))
	b := make([]byte, 100)
	if n, err := c.Read(b); err != nil || !bytes.Equal(b[:n], []byte("hello")) {
		t.Errorf("read %q, %v", b[:n], err)
	}
}

func TestUnixStreamInside(t *testing.T) {
	testkit.Check(t)
	sv := internal(service.BuiltinEcho, 0)
	sv.Listen = []service.Endpoint{{Network: service.UnixStream, Path: filepath.Join(t.TempDir(), "echo")}}
	sv.Socket.Mode, sv.Socket.UID, sv.Socket.GID, sv.Socket.DirectoryMode = 0o666, -1, -1, 0o755
	s := serve(t, sv)
	c, err := net.Dial("unix", sv.Listen[0].Path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	c.Write([]byte("hello"))
	c.(*net.UnixConn).CloseWrite()
	if got, err := io.ReadAll(c); err != nil || string(got) != "hello" {
		t.Errorf("read %q, %v", got, err)
	}
	s.logs.wait(t, "end", "service=echo", "reason=closed")
}

func TestPortsOf(t *testing.T) {
	got := *portsOf(table(onUDP(internal(service.BuiltinEcho, 0), "::", 77), onUDP(direct("x", 0, cat()), "::", 78), internal(service.BuiltinTime, 79)))
	var list []uint16
	for p := range got {
		list = append(list, p)
	}
	if !slices.Equal(list, []uint16{77}) {
		t.Errorf("the ports are %v, want 77", list)
	}
}
