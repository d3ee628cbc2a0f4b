package supervisor

// PROXY headers: who the peer is, whose word counts, and what a header that does
// not come costs.

import (
	"fmt"
	"net"
	"net/netip"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// balanced is a row that believes load balancers at these addresses.
func balanced(t *testing.T, from string, sv *service.Service) *service.Service {
	return with(sv, func(sv *service.Service) {
		sv.ProxyFrom, sv.ProxyTimeout = rules(t, from, ""), time.Minute
	})
}

const balancer = "127.0.0.1/32"

// header is one of version 1 or 2 for a client at this address.
func header(version byte, client string) string {
	return string(proxy.New(version, netip.MustParseAddrPort(client), netip.MustParseAddrPort("198.51.100.1:80")))
}

// whoami writes what a child is told of its peer, and then what it reads.
func whoami() *service.Exec {
	return sh(`echo $TCPREMOTEIP $TCPREMOTEPORT $REMOTE_ADDR $REMOTE_PORT $REMOTE_HOST $TCPLOCALIP $TCPLOCALPORT "${PROXY_ADDR-none}" "${PROXY_PORT-none}"; exec cat`)
}

// TestHeaderNamesThePeer: on a direct row and on a multiplexer, however the
// header comes, and not a byte of what follows is touched.
func TestHeaderNamesThePeer(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, balanced(t, balancer, direct("who", port, whoami())),
		balanced(t, balancer, mux(muxPort)), plus("who", whoami()))
	const rest = "PROXY TCP4 1.2.3.4 1.2.3.4 1 1\r\n\x00\xff"
	for _, c := range []struct{ client, ip string }{{"192.0.2.7:4096", "192.0.2.7"}, {"[2001:db8::7]:4096", "2001:db8::7"}} {
		for version := byte(1); version <= 2; version++ {
			for _, how := range []string{"at once", "in parts", "byte by byte"} {
				for _, name := range []string{"", "WHO\r\n"} {
					p, answer, row := port, "", "who"
					if name != "" {
						p, answer, row = muxPort, tcpmux.Go, "tcpmux/+who"
					}
					conn := dial(t, p)
					conn.SetNoDelay(true)
					own := conn.LocalAddr().(*net.TCPAddr)
					text := header(version, c.client) + name
					switch how {
					case "at once":
						conn.send(text + rest)
					case "in parts":
						conn.send(text[:9])
						s.waiting(1)
						conn.send(text[9 : len(text)-1])
						conn.send(text[len(text)-1:] + rest)
					default:
						for i := range len(text) {
							conn.send(text[i : i+1])
						}
						conn.send(rest)
					}
					conn.half().ends(answer + fmt.Sprintf("%s 4096 %s 4096 %s 198.51.100.1 80 127.0.0.1 %d\n", c.ip, c.ip, c.ip, own.Port) + rest)
					s.logs.wait(t, "start", "service="+row, "peer="+c.client, "proxy="+own.String())
					s.logs.wait(t, "end", "service="+row, "peer="+c.client, "proxy="+own.String())
				}
			}
		}
	}
	s.waiting(0)
	s.instances(0)
}

// TestHeaderOfAnybodyElse: nobody but those in proxy_from can claim an address,
// and their bytes are the service's.
func TestHeaderOfAnybodyElse(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, anywhere(balanced(t, "127.0.0.2/32 ::1/128", direct("who", port, whoami()))),
		anywhere(balanced(t, "127.0.0.2/32", mux(muxPort))), plus("who", whoami()))
	for version := byte(1); version <= 2; version++ {
		claim := header(version, "192.0.2.7:4096")
		c := dial(t, port)
		own := c.LocalAddr().(*net.TCPAddr)
		want := fmt.Sprintf("127.0.0.1 %d 127.0.0.1 %d 127.0.0.1 127.0.0.1 %d none none\n", own.Port, own.Port, port)
		c.send(claim + "x").half().ends(want + claim + "x")
		if got := ask(t, muxPort, claim+"who\r\n"); !strings.HasPrefix(got, "-") {
			t.Errorf("version %d on a multiplexer: %q", version, got)
		}
	}
	if got := ask(t, muxPort, "who\r\n"); !strings.HasPrefix(got, tcpmux.Go+"127.0.0.1 ") {
		t.Errorf("without a header: %q", got)
	}
	for _, l := range append(s.logs.find("start"), s.logs.find("refuse")...) {
		if !strings.HasPrefix(l.attrs["peer"], "127.0.0.1:") || l.attrs["proxy"] != "" || l.attrs["reason"] == "proxy" {
			t.Errorf("%s", l.text)
		}
	}
	s.instances(0)
}

// TestHeaderForAccessAndLimits: it is the client that is let in and counted, and
// never the load balancer.
func TestHeaderForAccessAndLimits(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	once := func(sv *service.Service) {
		sv.Access = rules(t, "192.0.2.0/24 2001:db8::/32", "192.0.2.66/32 127.0.0.0/8")
		sv.Limits = limit.Limits{Instances: 10, InstancesPerSource: 1, RatePerSource: limit.Rate{N: 3, Per: time.Hour}, BurstPerSource: 3}
	}
	s := serve(t, with(balanced(t, balancer, direct("once", port, cat())), once),
		with(balanced(t, balancer, mux(muxPort)), func(sv *service.Service) { sv.Access = rules(t, "", "192.0.2.99/32") }),
		with(plus("once", cat()), once))
	for _, name := range []string{"", "once\r\n"} {
		p, goOn, busy, denied, row := port, "", "", "", "once"
		if name != "" {
			p, goOn, busy, denied, row = muxPort, tcpmux.Go, tcpmux.Busy, tcpmux.NotAvailable, "tcpmux/+once"
		}
		via := func(client string) *client { return dial(t, p).send(header(2, client) + name) }
		a := via("192.0.2.7:1").send("x").expect(goOn + "x")
		b := via("192.0.2.8:1").send("x").expect(goOn + "x")
		s.instances(2)
		via("192.0.2.7:2").ends(busy)
		s.logs.wait(t, "refuse", "service="+row, "reason=instances_per_source", "peer=192.0.2.7:2")
		via("192.0.2.66:1").ends(denied)
		s.logs.wait(t, "refuse", "service="+row, "reason=access", "peer=192.0.2.66:1", "rule=192.0.2.66/32")
		via("198.51.100.7:1").ends(denied)
		a.half().ends("")
		b.half().ends("")
		s.instances(0)
		for i := range 3 {
			via(fmt.Sprintf("192.0.2.9:%d", i+1)).half().ends(goOn)
			s.instances(0)
		}
		via("192.0.2.9:4").ends(busy)
		s.logs.wait(t, "refuse", "service="+row, "reason=rate_per_source", "peer=192.0.2.9:4")
		via("[2001:db8::1]:1").half().ends(goOn)
		s.instances(0)
		// For nobody: the load balancer is the peer.
		dial(t, p).send("PROXY UNKNOWN\r\n" + name).ends(denied)
		s.logs.wait(t, "refuse", "service="+row, "rule=127.0.0.0/8")
		if n := s.logs.count("refuse", "service="+row, "rule=127.0.0.0/8"); n != 1 {
			t.Errorf("%s: the load balancer itself was refused %d times", row, n)
		}
	}
	dial(t, muxPort).send(header(1, "192.0.2.99:1")).ends(tcpmux.NotAvailable)
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=access", "peer=192.0.2.99:1")
	got := dial(t, muxPort).send(header(1, "203.0.113.1:1") + "HELP\r\n").half().rest()
	if strings.Contains(got, "once") {
		t.Errorf("HELP for a client that may not have it: %q", got)
	}
	got = dial(t, muxPort).send(header(1, "192.0.2.1:1") + "HELP\r\n").half().rest()
	if !strings.Contains(got, "once") {
		t.Errorf("HELP for a client that may have it: %q", got)
	}
}

// TestHeaderForNobody: the connection is the load balancer's own.
func TestHeaderForNobody(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, balanced(t, balancer, direct("who", port, whoami())))
	for _, text := range []string{"PROXY UNKNOWN\r\n", "PROXY UNKNOWN 192.0.2.7 192.0.2.8 1 2\r\n",
		"\r\n\r\n\x00\r\nQUIT\n\x20\x00\x00\x00", "\r\n\r\n\x00\r\nQUIT\n\x21\x00\x00\x03abc",
		"\r\n\r\n\x00\r\nQUIT\n\x21\x31\x00\xd8" + strings.Repeat("/", 216)} {
		c := dial(t, port)
		own := c.LocalAddr().(*net.TCPAddr)
		want := fmt.Sprintf("127.0.0.1 %d 127.0.0.1 %d 127.0.0.1 127.0.0.1 %d none none\n", own.Port, own.Port, port)
		c.send(text + "rest").half().ends(want + "rest")
	}
	s.instances(0)
}

// TestHeaderRefused: without a header that is right nobody gets anything.
func TestHeaderRefused(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, balanced(t, balancer, direct("cat", port, cat())), balanced(t, balancer, mux(muxPort)), plus("cat", cat()))
	for _, text := range []string{"cat\r\n", "\r\n\r\nx", "PROXY\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 4096\r\ncat\r\n", "PROXY TCP4 x 198.51.100.1 4096 1\r\ncat\r\n",
		"PROXY UNKNOWN" + strings.Repeat(" ", 100) + "\r\ncat\r\n", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x02\x09", "\r\n\r\n\x00\r\nQUIT\n\x21\x12\x00\x0c123456789012cat\r\n"} {
		dial(t, port).send(text).gone()
		dial(t, muxPort).send(text).ends(tcpmux.NotAvailable)
	}
	// Half of one, and the end.
	dial(t, port).send("PROXY TCP4 ").half().gone()
	dial(t, muxPort).send("PROXY TCP4 ").half().ends(tcpmux.NotAvailable)
	refused := func(id string, counted int) bool {
		s.logs.mu.Lock()
		defer s.logs.mu.Unlock()
		s.log.mu.Lock()
		defer s.log.mu.Unlock()
		return s.log.sampled[sampleKey{id, "refuse", "proxy"}] == counted
	}
	within(t, "nine refusals of each row", func() bool { return refused("cat", 9) && refused("tcpmux", 9) })
	for _, l := range s.logs.find("refuse") {
		if l.attrs["reason"] != "proxy" || l.attrs["error"] == "" || !strings.HasPrefix(l.attrs["peer"], "127.0.0.1:") || l.attrs["local"] == "" {
			t.Errorf("%s", l.text)
		}
	}
	// Nobody was there who could have got anything.
	dial(t, port).half().gone()
	dial(t, muxPort).half().gone()
	s.logs.wait(t, "refuse", "service=cat", "reason=gone")
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=gone")
	if n := s.logs.count("start"); n != 0 {
		t.Errorf("%d instances", n)
	}
	s.waiting(0)
}

// TestHeaderTooLate: on a multiplexer the name has its own time after it.
func TestHeaderTooLate(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	soon := func(sv *service.Service) { sv.ProxyTimeout = 50 * time.Millisecond }
	s := serve(t, with(balanced(t, balancer, direct("cat", port, cat())), soon), with(balanced(t, balancer, mux(muxPort)), soon), plus("cat", cat()))
	a, b := dial(t, port).send("PROXY TCP4"), dial(t, muxPort).send("PROXY TCP4")
	c := dial(t, muxPort).send(header(2, "192.0.2.7:1"))
	s.waiting(1)
	a.gone()
	b.ends(tcpmux.NotAvailable)
	for _, id := range []string{"cat", "tcpmux"} {
		if l := s.logs.wait(t, "refuse", "service="+id, "reason=proxy"); l.attrs["error"] != errHeaderLate.Error() {
			t.Errorf("%s", l.text)
		}
	}
	c.send("cat\r\n").half().ends(tcpmux.Go)
	s.instances(0)
}

// TestHeadersCrowd: those who wait for their headers are bounded, and it is
// whoever holds most that has to make room.
func TestHeadersCrowd(t *testing.T) {
	const places = 20
	few := func(sv *service.Service) { sv.Limits = limit.Limits{Instances: places, InstancesPerSource: 2} }
	for _, c := range []struct {
		most         int
		row          *service.Service
		name, answer string
	}{{headersMost, direct("cat", 0, cat()), "", ""}, {places, with(mux(0), few), "cat\r\n", tcpmux.Go}} {
		t.Run(c.row.ID, func(t *testing.T) {
			testkit.Check(t)
			port := testkit.FreePort(t)
			c.row.Listen = []service.Endpoint{on("0.0.0.0", port)}
			s := serve(t, balanced(t, "127.0.0.0/8", c.row), plus("cat", cat()))
			honest := dialFrom(t, "127.0.0.9", port)
			s.waiting(1)
			for range c.most - 1 {
				rawPeer(t, "127.0.0.8", port, "PROXY ")
			}
			s.waiting(c.most)
			// What a source may have is about clients and not about load balancers.
			if n := s.logs.count("refuse"); n != 0 {
				t.Fatalf("%d refused before the table was full", n)
			}
			other := dialFrom(t, "127.0.0.10", port)
			l := s.logs.wait(t, "refuse", "service="+c.row.ID, "reason=crowded")
			if !strings.HasPrefix(l.attrs["peer"], "127.0.0.8:") {
				t.Errorf("%s", l.text)
			}
			s.waiting(c.most)
			for _, p := range []*client{honest, other} {
				p.send(header(1, "192.0.2.7:1") + c.name).half().ends(c.answer)
			}
			s.waiting(c.most - 2)
		})
	}
}

// TestHeaderHoldsAPlace: with overflow = "queue" a place is taken before the
// accept, and given back whatever becomes of the header.
func TestHeaderHoldsAPlace(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(balanced(t, balancer, direct("cat", port, cat())), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	})
	s := serve(t, row)
	first := dial(t, port)
	s.waiting(1)
	second := dial(t, port).send(header(1, "192.0.2.8:1") + "second").half()
	first.send(header(1, "192.0.2.7:1") + "first").expect("first")
	s.instances(1)
	first.half().ends("")
	second.ends("second")
	for _, text := range []string{"x", "PROXY TCP4 \r\n"} {
		dial(t, port).send(text).gone()
	}
	dial(t, port).half().gone()
	soon := with(row, func(sv *service.Service) { sv.ProxyTimeout = 20 * time.Millisecond })
	s.reload(soon)
	dial(t, port).send("PROXY ").gone()
	s.reload(row)
	dial(t, port).send(header(1, "192.0.2.7:1") + "again").half().ends("again")
	s.instances(0)
}

// TestHeaderHoldsNoPlace: a row that has become a multiplexer counts its peers
// otherwise.
func TestHeaderHoldsNoPlace(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := with(balanced(t, balancer, direct("row", port, cat())), func(sv *service.Service) {
		sv.Overflow, sv.Limits.Instances = service.OverflowQueue, 1
	})
	s := serve(t, row)
	c := dial(t, port)
	s.waiting(1)
	s.reload(with(balanced(t, balancer, mux(port)), func(sv *service.Service) { sv.ID = "row" }))
	c.send(header(1, "192.0.2.7:1") + "nosuch\r\n").ends(tcpmux.NotAvailable)
	s.reload(row)
	if got := ask(t, port, header(1, "192.0.2.7:1")+"served"); got != "served" {
		t.Errorf("%q", got)
	}
	s.instances(0)
}

// TestHeaderAndReload: who waits for his header meets the row as it is when it
// comes, and none waits for a row that is gone.
func TestHeaderAndReload(t *testing.T) {
	testkit.Check(t)
	port, otherPort, muxPort := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	row := balanced(t, balancer, direct("who", port, whoami()))
	other := balanced(t, balancer, direct("other", otherPort, cat()))
	plexer := balanced(t, balancer, mux(muxPort))
	s := serve(t, row, other, plexer, plus("cat", cat()))
	a, b, c := dial(t, port), dial(t, otherPort), dial(t, muxPort)
	s.waiting(3)
	s.reload(with(row, func(sv *service.Service) { sv.Access = rules(t, "", "192.0.2.7/32") }), plus("cat", cat()), plexer)
	b.gone() // its row is
	s.waiting(2)
	a.send(header(1, "192.0.2.7:1")).gone()
	s.logs.wait(t, "refuse", "service=who", "reason=access")
	// A row that believes nobody any more, and one that hands its sockets out.
	d := dial(t, port)
	s.waiting(2)
	s.reload(with(row, func(sv *service.Service) {
		sv.ProxyFrom, sv.ProxyTimeout, sv.Wait, sv.Limits.Instances = nil, 0, true, 1
	}), plus("cat", cat()), with(plexer, func(sv *service.Service) { sv.ProxyFrom, sv.ProxyTimeout = nil, 0 }))
	d.send(header(1, "192.0.2.7:1")).gone()
	c.send(header(1, "192.0.2.7:1") + "cat\r\n").ends(tcpmux.NotAvailable)
	s.logs.wait(t, "refuse", "service=who", "reason=proxy")
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=proxy")
	s.waiting(0)
	e := dial(t, muxPort)
	s.waiting(1)
	s.stop()
	e.ends(tcpmux.NotAvailable)
}

// TestHeaderBeforeBuiltins: what the daemon serves itself gets its bytes, too.
func TestHeaderBeforeBuiltins(t *testing.T) {
	testkit.Check(t)
	port, muxPort := testkit.FreePort(t), testkit.FreePort(t)
	echo := direct("echo", port, nil)
	echo.Builtin = service.BuiltinEcho
	named := plus("echo", nil)
	named.Builtin = service.BuiltinEcho
	s := serve(t, balanced(t, balancer, echo), balanced(t, balancer, mux(muxPort)), named)
	dial(t, port).send(header(2, "192.0.2.7:4096") + "hello").half().ends("hello")
	dial(t, muxPort).send(header(1, "192.0.2.7:4096") + "echo\r\nhello").half().ends(tcpmux.Go + "hello")
	for _, id := range []string{"echo", "tcpmux/+echo"} {
		l := s.logs.wait(t, "end", "service="+id, "peer=192.0.2.7:4096")
		if !strings.HasPrefix(l.attrs["proxy"], "127.0.0.1:") {
			t.Errorf("%s", l.text)
		}
	}
}

// TestHeadersCostNothing: whoever waits for one has no process, no goroutine and
// no time of the processor.
func TestHeadersCostNothing(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, balanced(t, balancer, direct("cat", port, cat())))
	dial(t, port).send(header(1, "192.0.2.7:1")).half().ends("")
	s.instances(0)
	before := runtime.NumGoroutine()
	for i := range headersMost / 2 {
		rawPeer(t, "127.0.0.1", port, []string{"", "PROXY", "PROXY TCP4 192.0.2.7 "}[i%3])
	}
	s.waiting(headersMost / 2)
	if n := runtime.NumGoroutine(); n > before+2 {
		t.Errorf("%d goroutines, and %d before", n, before)
	}
	if share := idleCPU(t, time.Second); share > 0.05 {
		t.Errorf("%.1f %% of a processor", 100*share)
	}
	dial(t, port).send(header(1, "192.0.2.7:1") + "x").half().ends("x")
}
