package supervisor

import (
	"errors"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// scanning is a table that holds a source off after four names.
func scanning(change func(*service.Scan), rows ...*service.Service) *service.Table {
	t := table(rows...)
	t.Server.Scan = &service.Scan{Names: 4, Within: time.Minute, Hold: time.Hour, Sources: 1 << 16, TarpitMost: 2}
	if change != nil {
		change(t.Server.Scan)
	}
	return t
}

// sensor makes a row one.
func sensor(sv *service.Service) *service.Service {
	sv.Exec, sv.Builtin, sv.Hidden = nil, service.BuiltinSensor, true
	return sv
}

func from(t *testing.T, source string, port int, request string) *client {
	t.Helper()
	return dialFrom(t, source, port).send(request)
}

// Whoever asks for names that he may not have is held off from everything, and
// nobody else is.
func TestScan(t *testing.T) {
	testkit.Check(t)
	port, other, port6 := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	denied := plus("denied", cat())
	denied.Access = rules(t, "", "127.6.0.0/16")
	closed := plus("closed", cat())
	closed.Refuse = "for a test"
	rows := []*service.Service{
		anywhere(mux(port)), plus("cat", cat()), denied, closed, anywhere(direct("direct", other, cat())),
		{ID: "mux6", Name: "tcpmux", Listen: []service.Endpoint{on("::1", port6)}, Socket: service.Socket{TOS: -1}, Builtin: service.BuiltinTCPMUX, Timeout: time.Minute},
	}
	s := serveTable(t, scanning(func(c *service.Scan) { c.Exempt = []netip.Prefix{netip.MustParsePrefix("127.7.0.0/16")} }, rows...))

	// It has connected before, and asks afterwards.
	early := dialFrom(t, "127.6.0.1", port)
	s.waiting(1)
	for i, name := range []string{"denied", "closed", "DENIED", "closed", "nosuch"} {
		from(t, "127.6.0.1", port, name+"\r\n").ends(tcpmux.NotAvailable)
		// The log comes after the answer.
		within(t, "it is logged", func() bool { return s.logs.count("refuse") == i+1 })
	}
	if n := s.logs.count("ban"); n != 0 {
		t.Fatal("banned after three names")
	}
	from(t, "127.6.0.1", port, "cat\r\nx").half().ends("+Go\r\nx") // what it may have does not count
	if got := from(t, "127.6.0.1", port, "help\r\n").half().rest(); !strings.Contains(got, "cat") {
		t.Errorf("HELP: %q", got)
	}
	l := s.logs.wait(t, "ban")
	if l.attrs["source"] != "127.6.0.1" || l.attrs["reason"] != "names" || l.attrs["names"] != "[denied closed nosuch help]" || l.attrs["service"] != "tcpmux" {
		t.Error(l.text)
	}
	if until, err := time.Parse(time.RFC3339, l.attrs["until"]); err != nil || time.Until(until) < 50*time.Minute {
		t.Error(l.text, err)
	}
	from(t, "127.6.0.1", port, "cat\r\n").gone()
	dialFrom(t, "127.6.0.1", other).gone()
	early.send("cat\r\n").gone()
	within(t, "three refusals", func() bool { return s.logs.count("refuse", "reason=banned") == 3 })

	// Others are not concerned, and exempt ones never.
	for i := range 10 {
		from(t, "127.7.0.1", port, fmt.Sprintf("name%d\r\n", i)).ends(tcpmux.NotAvailable)
	}
	for _, source := range []string{"127.6.0.2", "127.7.0.1"} {
		from(t, source, port, "cat\r\nx").half().ends("+Go\r\nx")
	}
	// A v6 source is its network.
	for i := range 4 {
		from(t, "::1", port6, fmt.Sprintf("name%d\r\n", i)).ends(tcpmux.NotAvailable)
	}
	s.logs.wait(t, "ban", "source=::/64", "service=mux6")

	bans := s.Bans()
	if len(bans) != 2 || bans[0].Source != "127.6.0.1" || bans[0].Refused != 3 || bans[1].Source != "::/64" {
		t.Errorf("%+v", bans)
	}
	// A reload keeps them.
	if err := s.Apply(scanning(func(c *service.Scan) { c.Names = 100 }, rows...)); err != nil {
		t.Fatal(err)
	}
	dialFrom(t, "127.6.0.1", other).gone()
	s.Dump(s.log.info)
	s.logs.wait(t, "banned", "source=127.6.0.1", "refused=4")
	s.logs.wait(t, "refusals", "banned=4", "unknown="+strconv.Itoa(1+10+4), "access=2", "row=2", "sensor=0", "rate=0")
	s.logs.wait(t, "scanners", "banned=2", "missed=0")
	s.logs.wait(t, "instances", "service=direct", "instances=0")

	if err := s.Unban("127.6.0.9"); err == nil || err.Error() != "127.6.0.9 is not banned" {
		t.Errorf("unban of another: %v", err)
	}
	if err := s.Unban("127.6.0.1"); err != nil {
		t.Error(err)
	}
	s.logs.wait(t, "unban", "source=127.6.0.1", "reason=unban")
	from(t, "127.6.0.1", port, "cat\r\nx").half().ends("+Go\r\nx")
	// Who is exempt now is freed.
	if err := s.Apply(scanning(func(c *service.Scan) { c.Exempt = []netip.Prefix{netip.MustParsePrefix("::/0")} }, rows...)); err != nil {
		t.Fatal(err)
	}
	s.logs.wait(t, "unban", "source=::/64", "reason=exempt")
	from(t, "::1", port6, "cat\r\nx").half().ends("+Go\r\nx")
}

// However many ask at the same time: no more are answered than it takes to be held
// off.
func TestScanAtOnce(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serveTable(t, scanning(nil, anywhere(mux(port)), plus("cat", cat())))
	const rounds, atOnce = 40, 16
	for round := range rounds {
		answers := make(chan string, atOnce)
		var all sync.WaitGroup
		for i := range atOnce {
			all.Go(func() {
				c := from(t, fmt.Sprintf("127.6.1.%d", round), port, fmt.Sprintf("name%d\r\n", i))
				b, _ := io.ReadAll(c)
				answers <- string(b)
			})
		}
		all.Wait()
		answered := 0
		for range atOnce {
			if <-answers != "" {
				answered++
			}
		}
		if answered != 4 {
			t.Errorf("%d were answered", answered)
		}
	}
}

// A hold ends by itself, and with the part of the table that it comes from.
func TestHoldEnds(t *testing.T) {
	testkit.Check(t)
	port, trap := testkit.FreePort(t), testkit.FreePort(t)
	rows := []*service.Service{mux(port), plus("cat", cat()), anywhere(sensor(direct("trap", trap, nil)))}
	s := serveTable(t, scanning(func(c *service.Scan) { c.Hold = 200 * time.Millisecond }, rows...))
	begin := time.Now()
	dial(t, trap).gone()
	s.logs.wait(t, "ban", "reason=sensor")
	within(t, "the end of a hold", func() bool {
		c, err := tryFrom("127.0.0.1", port)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("cat\r\n"))
		n, _ := c.Read(make([]byte, 5))
		return n == 5
	})
	if d := time.Since(begin); d < 200*time.Millisecond {
		t.Errorf("held off for %v", d)
	}
	within(t, "that it is forgotten", func() bool { return s.scanners.held.Load() == 0 })
	if err := s.Apply(scanning(nil, rows...)); err != nil {
		t.Fatal(err)
	}
	dial(t, trap).gone()
	within(t, "a ban", func() bool { return len(s.Bans()) == 1 })
	s.reload(mux(port), plus("cat", cat()))
	if len(s.Bans()) != 0 {
		t.Error("bans without [server.scan]")
	}
	dial(t, port).send("cat\r\nx").half().ends("+Go\r\nx")
}

// A sensor catches whom its access lets through, by name or on a port.
func TestSensor(t *testing.T) {
	testkit.Check(t)
	port, trap := testkit.FreePort(t), testkit.FreePort(t)
	named, by := sensor(minus("root", nil)), anywhere(sensor(direct("trap", trap, nil)))
	by.Access = rules(t, "", "127.7.0.0/16")
	s := serveTable(t, scanning(nil, anywhere(mux(port)), plus("cat", cat()), named, by))
	dialFrom(t, "127.7.0.1", trap).gone()
	s.logs.wait(t, "refuse", "service=trap", "reason=access")
	if got := from(t, "127.7.0.1", port, "help\r\n").half().rest(); got != "cat\r\n" {
		t.Errorf("HELP: %q", got)
	}
	if len(s.Bans()) != 0 {
		t.Fatal("banned by a sensor that he was denied")
	}
	from(t, "127.6.0.1", port, "Root\r\n").ends(tcpmux.NotAvailable)
	s.logs.wait(t, "ban", "service=tcpmux/root", "source=127.6.0.1", "reason=sensor")
	s.logs.wait(t, "refuse", "service=tcpmux/root", "reason=sensor")
	dialFrom(t, "127.6.0.2", trap).gone()
	s.logs.wait(t, "ban", "service=trap", "source=127.6.0.2")
	for _, source := range []string{"127.6.0.1", "127.6.0.2"} {
		from(t, source, port, "cat\r\n").gone()
	}
}

// Datagrams of a source that is held off are not answered, and open no session.
func TestScanDatagrams(t *testing.T) {
	testkit.Check(t)
	trap, echo, sessions := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	udp := func(sv *service.Service) *service.Service {
		sv.Listen[0].Network, sv.Listen = service.UDP4, sv.Listen[:1]
		return sv
	}
	answering := udp(direct("echo", echo, nil))
	answering.Builtin = service.BuiltinEcho
	s := serveTable(t, scanning(nil, sensor(direct("trap", trap, nil)), answering, udp(direct("sessions", sessions, cat()))))
	dial(t, trap).gone()
	s.logs.wait(t, "ban")
	for row, port := range map[string]int{"echo": echo, "sessions": sessions} {
		fromUDP(t, "127.0.0.1", "127.0.0.1", port).send("x")
		s.logs.wait(t, "refuse", "service="+row, "reason=banned")
	}
	s.instances(0)
}

// A tarpit holds as many open as it may, until the hold is over, the peer leaves
// or the daemon stops, and the rest is refused.
func TestTarpit(t *testing.T) {
	testkit.Check(t)
	port, trap := testkit.FreePort(t), testkit.FreePort(t)
	rows := []*service.Service{mux(port), plus("cat", cat()), anywhere(sensor(direct("trap", trap, nil)))}
	tarpit := func(c *service.Scan) { c.Action = service.ScanTarpit }
	s := serveTable(t, scanning(tarpit, rows...))
	held := func(n int) {
		t.Helper()
		within(t, fmt.Sprintf("%d in the tarpit", n), func() bool {
			p := &s.scanners.pit
			p.mu.Lock()
			defer p.mu.Unlock()
			return len(p.conns) == n
		})
	}
	dial(t, trap).gone()
	s.logs.wait(t, "ban")
	one := dial(t, port)
	one.send("cat\r\n")
	two := dial(t, port)
	held(2)
	dial(t, port).gone()
	two.Close()
	held(1)
	three := dial(t, port)
	held(2)
	silent(t, one)
	silent(t, three)
	three.reset()
	held(1)
	// When descriptors are short they are the first to go.
	if !s.evictPit() {
		t.Error("nothing to give up")
	}
	one.gone()
	held(0)
	four := dial(t, port)
	held(1)
	if err := s.Unban("127.0.0.1"); err != nil {
		t.Error(err)
	}
	four.gone()
	dial(t, trap).gone()
	within(t, "another ban", func() bool { return s.logs.count("ban") == 2 })
	five := dial(t, port)
	held(1)
	s.stop()
	five.gone()
	// The hold ends.
	s = serveTable(t, scanning(func(c *service.Scan) { tarpit(c); c.Hold = 300 * time.Millisecond }, rows...))
	dial(t, trap).gone()
	s.logs.wait(t, "ban")
	dial(t, port).gone()
	held(0)
}

// silent checks that nothing has come and the connection is open.
func silent(t *testing.T, c *client) {
	t.Helper()
	c.SetReadDeadline(time.Now().Add(10 * time.Millisecond))
	if n, err := c.Read(make([]byte, 1)); n != 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%d bytes, %v", n, err)
	}
	c.SetReadDeadline(time.Now().Add(bound))
}

// Users of unix sockets are sources, too.
func TestScanUsers(t *testing.T) {
	src, ok := sourceOf(&service.Peer{Network: service.UnixStream, UID: 1000})
	if !ok || src != limit.User(1000) {
		t.Error(src, ok)
	}
	for _, p := range []service.Peer{{Network: service.UnixDgram}, {Network: service.TCP4}} {
		if src, ok := sourceOf(&p); ok {
			t.Error(p, src)
		}
	}
}

// Every reason of the sources is counted.
func TestRefusals(t *testing.T) {
	found := map[string]bool{}
	for _, dir := range []string{".", "../builtin"} {
		names, err := filepath.Glob(filepath.Join(dir, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if strings.HasSuffix(name, "_test.go") {
				continue
			}
			f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
			if err != nil {
				t.Fatal(err)
			}
			ast.Inspect(f, func(n ast.Node) bool {
				spec, ok := n.(*ast.ValueSpec)
				if !ok {
					return true
				}
				if id, ok := spec.Type.(*ast.Ident); ok && strings.EqualFold(id.Name, "refusal") {
					for _, v := range spec.Values {
						if lit, ok := v.(*ast.BasicLit); ok {
							word, _ := strconv.Unquote(lit.Value)
							found[word] = true
						}
					}
				}
				return true
			})
		}
	}
	for r := limit.OK + 1; !strings.HasPrefix(r.String(), "Reason("); r++ {
		found[r.String()] = true
	}
	for why := range found {
		if !slices.Contains(refusals, refusal(why)) {
			t.Errorf("%q is not counted", why)
		}
	}
	if len(found) != len(refusals) || len(found) < 15 {
		t.Errorf("%d reasons in the sources, %d are counted", len(found), len(refusals))
	}
}

// What programs take themselves the kernel keeps from sources that are held off.
func TestScanKernel(t *testing.T) {
	testkit.Check(t)
	trap, udp, tcp, later := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	talk := func(id string, port int) *service.Service {
		sv := waitUDP(id, port, receiver(bound, 1))
		sv.Listen[0].Addr = on("0.0.0.0", port).Addr
		return sv
	}
	stream := anywhere(direct("stream", tcp, sh("exit 0")))
	stream.Wait = true
	tab := func(hold time.Duration, more ...*service.Service) *service.Table {
		return scanning(func(c *service.Scan) { c.Hold = hold }, append(more, anywhere(sensor(direct("trap", trap, nil))), talk("udp", udp), stream)...)
	}
	s := serveTable(t, tab(time.Hour))
	dialFrom(t, "127.6.0.1", trap).gone()
	s.logs.wait(t, "ban")
	// What is sent until the kernel knows it may come through.
	dropped := func(source string, port int) {
		t.Helper()
		within(t, "that the kernel drops its packets", func() bool {
			c := fromUDP(t, source, "127.0.0.1", port).send("x")
			c.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
			_, err := c.Read(make([]byte, 100))
			return errors.Is(err, os.ErrDeadlineExceeded)
		})
	}
	heard := func(source string, port int) {
		t.Helper()
		fromUDP(t, source, "127.0.0.1", port).send("x").answer("x")
	}
	dropped("127.6.0.1", udp)
	heard("127.6.0.2", udp)
	// A socket that comes with a reload, and those that stay.
	if err := s.Apply(tab(time.Hour, talk("later", later))); err != nil {
		t.Fatal(err)
	}
	dropped("127.6.0.1", later)
	dropped("127.6.0.1", udp)
	if err := s.Unban("127.6.0.1"); err != nil {
		t.Fatal(err)
	}
	freed := func(source string, port int) {
		t.Helper()
		within(t, "that the kernel lets it in", func() bool {
			c := fromUDP(t, source, "127.0.0.1", port).send("x")
			c.SetReadDeadline(time.Now().Add(time.Second))
			n, _ := c.Read(make([]byte, 100))
			return n > 0
		})
	}
	freed("127.6.0.1", udp)
	// Without scan, nothing of it is left.
	dialFrom(t, "127.6.0.1", trap).gone()
	dropped("127.6.0.1", udp)
	s.reload(talk("udp", udp))
	heard("127.6.0.1", udp)
	if err := s.Apply(tab(300 * time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	dialFrom(t, "127.6.0.1", trap).gone()
	within(t, "a ban in the kernel, and its end", func() bool { return s.logs.count("ban") == 3 && s.scanners.held.Load() == 0 })
	freed("127.6.0.1", udp)
}

// A load balancer is never held off for what its clients do: not where it cannot
// name them, not as their neighbour, and not by what drops packets.
func TestScanBalancer(t *testing.T) {
	testkit.Check(t)
	port, trap := testkit.FreePort(t), testkit.FreePort(t)
	tab := scanning(nil, balanced(t, balancer, mux(port)), plus("cat", cat()), sensor(direct("trap", trap, cat())))
	s := serveTable(t, tab)
	for i := range 5 {
		ask(t, port, fmt.Sprintf("PROXY UNKNOWN\r\nname%d\r\n", i))
	}
	dial(t, trap).gone()
	within(t, "all is logged", func() bool { return s.logs.count("refuse") == 6 })
	for i := range 4 {
		ask(t, port, header(2, "192.0.2.7:1")+fmt.Sprintf("name%d\r\n", i))
	}
	if l := s.logs.wait(t, "ban"); l.attrs["source"] != "192.0.2.7" {
		t.Error(l.text)
	}
	dial(t, port).send(header(2, "192.0.2.7:1")).gone()
	for _, who := range []string{"PROXY UNKNOWN\r\n", header(1, "192.0.2.8:1")} {
		if got := ask(t, port, who+"cat\r\nx"); got != "+Go\r\nx" {
			t.Errorf("after %q: %q", who, got)
		}
	}
	if bans := s.Bans(); len(bans) != 1 {
		t.Error(bans)
	}

	tab.Services[0].ProxyFrom = rules(t, "10.0.0.0/24 2001:db8::1/128", "")
	x := scanners{proxies: proxiesOf(tab)}
	for addr, want := range map[string]bool{
		"10.0.0.7": false, "10.0.1.7": true, "2001:db8::2": false, "2001:db8:0:1::1": true,
	} {
		if _, ok := x.outsideLocked(sourceLimits.Source(netip.MustParseAddr(addr))); ok != want {
			t.Errorf("%s: outside is %v", addr, ok)
		}
	}
}

// What could not be written to a set is written anew, and not at every change.
func TestWriteAgain(t *testing.T) {
	s := &Supervisor{epoch: time.Now(), log: newEvents(slog.New(&logBook{}))}
	w := &writing{s: s, inSets: [2]map[netip.Prefix]time.Duration{{}, {}}}
	defer w.close()
	w.use(nil, [2]service.NftSet{{Family: "inet", Table: "tcpmuxd no such table", Set: "no such set"}})
	one := []banChange{{netip.MustParsePrefix("192.0.2.1/32"), time.Hour}}
	w.write(one, false)
	again := w.again
	if again == 0 {
		t.Fatal("it is not tried again")
	}
	if w.write(one, false); w.again != again {
		t.Errorf("another failure moves it from %v to %v", again, w.again)
	}
	if w.write(nil, true); w.again == again {
		t.Error("a whole failure does not")
	}
	w.use(nil, [2]service.NftSet{})
	if w.write(nil, true); w.again != 0 {
		t.Errorf("%v: there is nothing to write to", w.again)
	}
}
