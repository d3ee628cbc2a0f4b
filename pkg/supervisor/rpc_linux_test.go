package supervisor

// Rows of Sun RPC against an rpcbind that is made up, and can be what the real one is
// not: old, deaf, or of another mind. The real one is asked in cmd/tcpmuxd.

import (
	"encoding/binary"
	"fmt"
	"io"
	"log/slog"
	"maps"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/rpcbind"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A book is an rpcbind: it keeps what was registered, by "program version netid".
type book struct {
	path   string
	oldest bool // a portmapper

	mu    sync.Mutex
	known map[string]string // to ports
	calls int
	conns []net.Conn
	l     net.Listener
}

func newBook(t *testing.T) *book {
	t.Helper()
	b := &book{path: filepath.Join(t.TempDir(), "rpcbind.sock"), known: map[string]string{}}
	b.open(t)
	t.Cleanup(b.close)
	return b
}

func (b *book) open(t *testing.T) {
	t.Helper()
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	b.l = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.conns = append(b.conns, c)
			b.mu.Unlock()
			go b.talk(c)
		}
	}()
}

// close ends it, with all that it knows.
func (b *book) close() {
	b.l.Close()
	b.mu.Lock()
	defer b.mu.Unlock()
	clear(b.known)
	for _, c := range b.conns {
		c.Close()
	}
}

func (b *book) talk(c net.Conn) {
	defer c.Close()
	for {
		var mark [4]byte
		if _, err := io.ReadFull(c, mark[:]); err != nil {
			return
		}
		call := make([]byte, binary.BigEndian.Uint32(mark[:])&0xffff)
		if _, err := io.ReadFull(c, call); err != nil {
			return
		}
		reply := make([]byte, 28, 40)
		copy(reply[4:], call[:4])
		reply[11] = 1
		if answer, ok := b.answer(call); ok {
			reply = binary.BigEndian.AppendUint32(reply, answer)
		} else { // there is version 2 alone
			reply[27] = 2
			reply = append(reply, 0, 0, 0, 2, 0, 0, 0, 2)
		}
		reply[0], reply[3] = 0x80, byte(len(reply)-4)
		c.Write(reply)
	}
}

// answer does what was asked for; not ok: the version is not spoken.
func (b *book) answer(call []byte) (answer uint32, ok bool) {
	n := func(i int) uint32 { return binary.BigEndian.Uint32(call[4*i:]) }
	version, proc := n(4), n(5)
	netid, port := map[uint32]string{6: "tcp", 17: "udp"}[n(12)], fmt.Sprint(n(13))
	if version != 2 {
		text := func(at int) (string, int) {
			size := int(binary.BigEndian.Uint32(call[at:]))
			return string(call[at+4 : at+4+size]), at + 4 + (size+3)&^3
		}
		var at int
		var uaddr string
		netid, at = text(48)
		uaddr, _ = text(at)
		f := strings.Split(uaddr, ".")
		var hi, lo int
		fmt.Sscan(strings.Join(f[len(f)-2:], " "), &hi, &lo)
		port = fmt.Sprint(hi<<8 | lo)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.calls++
	if b.oldest != (version == 2) {
		return 0, false
	}
	key := fmt.Sprintf("%d %d ", n(10), n(11))
	switch was, is := b.known[key+netid]; {
	case proc == 1 && is && (was != port || was == "foreign"):
		return 0, true
	case proc == 1:
		b.known[key+netid] = port
	case b.oldest: // whatever the protocol is
		for _, netid := range []string{"tcp", "udp"} {
			delete(b.known, key+netid)
		}
	case is && was != "foreign": // only root could
		delete(b.known, key+netid)
	default:
		return 0, true
	}
	return 1, true
}

func (b *book) all() map[string]string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return maps.Clone(b.known)
}

// knows waits until exactly this is registered: "100001 1 udp", for sockets of rows.
func (b *book) knows(t *testing.T, s *server, want map[string]string) {
	t.Helper()
	ports := map[string]string{}
	for key, at := range want {
		ports[key] = at
		if id, i, ok := strings.Cut(at, "#"); ok {
			u := s.unit(id)
			ports[key] = fmt.Sprint(u.listeners[i[0]-'0'].Endpoint.Addr.Port())
		}
	}
	if !poll(bound, func() bool { return maps.Equal(b.all(), ports) }) {
		t.Fatalf("rpcbind knows %v, want %v", b.all(), ports)
	}
}

// registering runs rows with this rpcbind.
func registering(t *testing.T, b *book, rows ...*service.Service) *server {
	t.Helper()
	s := &server{t: t, logs: new(logBook), done: make(chan error, 1)}
	var err error
	if s.Supervisor, err = New(slog.New(s.logs)); err != nil {
		t.Fatal(err)
	}
	s.rpc.server = rpcbind.Server{Sockets: []string{b.path}, Addr: netip.MustParseAddrPort("127.0.0.1:1")}
	if err := s.Apply(table(rows...)); err != nil {
		t.Fatal(err)
	}
	s.run()
	return s
}

// rpcRow is a row at a port of the kernel's choice for each network.
func rpcRow(id string, program, low, high uint32, networks ...service.Network) *service.Service {
	sv := at(id, cat())
	sv.RPC = &service.RPC{Program: program, Low: low, High: high}
	for _, n := range networks {
		a := netip.IPv4Unspecified()
		if n.V6() {
			a = netip.IPv6Unspecified()
		}
		sv.Listen = append(sv.Listen, service.Endpoint{Network: n, Addr: netip.AddrPortFrom(a, 0)})
		sv.Wait = sv.Wait || n.UDP()
	}
	return sv
}

func TestRPCIsRegistered(t *testing.T) {
	testkit.Check(t)
	b := newBook(t)
	// Left behind by a daemon that was killed.
	b.known["300001 2 tcp"] = "7"
	port := testkit.FreePort(t)
	both := rpcRow("both", 300001, 1, 2, service.TCP4, service.TCP6)
	udp := rpcRow("udp", 300001, 1, 1, service.UDP4)
	fixed := at("fixed", cat(), on("127.0.0.1", port))
	fixed.RPC = &service.RPC{Program: 300002, Low: 3, High: 3}
	s := registering(t, b, both, udp, fixed)
	defer s.stop()
	all := map[string]string{
		"300001 1 tcp": "both#0", "300001 2 tcp": "both#0", "300001 1 tcp6": "both#1", "300001 2 tcp6": "both#1",
		"300001 1 udp": "udp#0", "300002 3 tcp": fmt.Sprint(port),
	}
	b.knows(t, s, all)
	within(t, "a line in the log for each socket", func() bool { return s.logs.count("register") == 4 })

	// What a reload does not change keeps its sockets; also what it changes
	// otherwise.
	sockets := append(s.cookies("both"), s.cookies("udp")...)
	s.reload(with(both, func(sv *service.Service) { sv.Limits.Instances = 7 }), udp, fixed)
	if now := append(s.cookies("both"), s.cookies("udp")...); fmt.Sprint(now) != fmt.Sprint(sockets) {
		t.Errorf("sockets %v have become %v", sockets, now)
	}
	b.knows(t, s, all)

	// rpcbind is started again, and has forgotten everything; a reload tells it.
	b.close()
	b.open(t)
	s.reload(both, udp, fixed)
	b.knows(t, s, all)

	// A version less, a row less.
	s.reload(with(both, func(sv *service.Service) { sv.RPC = &service.RPC{Program: 300001, Low: 1, High: 1} }), fixed)
	b.knows(t, s, map[string]string{"300001 1 tcp": "both#0", "300001 1 tcp6": "both#1", "300002 3 tcp": fmt.Sprint(port)})
	s.logs.wait(t, "unregister", "service=udp")

	s.stop()
	b.knows(t, s, nil)
	s.logs.wait(t, "unregister", "service=fixed")
}

// TestRPCPortmapper: one that knows of no netids takes out a version over both
// protocols; the other row's is put back. IPv6 it does not know.
func TestRPCPortmapper(t *testing.T) {
	testkit.Check(t)
	b := newBook(t)
	b.oldest = true
	b.known["300001 1 udp"] = "7"
	tcp, udp := rpcRow("tcp", 300001, 1, 1, service.TCP4, service.TCP6), rpcRow("udp", 300001, 1, 2, service.UDP4)
	s := registering(t, b, tcp, udp)
	defer s.stop()
	b.knows(t, s, map[string]string{"300001 1 tcp": "tcp#0", "300001 1 udp": "udp#0", "300001 2 udp": "udp#0"})
	s.logs.wait(t, "cannot register", "service=tcp", "netid=tcp6")
	s.reload(tcp)
	b.knows(t, s, map[string]string{"300001 1 tcp": "tcp#0"})
	s.stop()
	b.knows(t, s, nil)
}

// TestRPCRefused: what somebody else has stays theirs; all other rows are registered.
func TestRPCRefused(t *testing.T) {
	testkit.Check(t)
	b := newBook(t)
	b.known["300001 2 tcp"] = "foreign"
	s := registering(t, b, rpcRow("refused", 300001, 1, 3, service.TCP4), rpcRow("other", 300002, 1, 1, service.TCP4))
	defer s.stop()
	b.knows(t, s, map[string]string{"300001 2 tcp": "foreign", "300002 1 tcp": "other#0"})
	l := s.logs.wait(t, "cannot register", "service=refused")
	if !strings.Contains(l.attrs["error"], "refuses") || !strings.Contains(l.attrs["hint"], "rpcinfo -d") {
		t.Errorf("%v", l)
	}
	s.stop()
	b.knows(t, s, map[string]string{"300001 2 tcp": "foreign"})
}

// TestRPCComesLater: without rpcbind all rows are served, the log says once what is
// the matter, and it is told as soon as it is there.
func TestRPCComesLater(t *testing.T) {
	testkit.Check(t)
	b := newBook(t)
	b.close()
	port := testkit.FreePort(t)
	s := registering(t, b, rpcRow("late", 300001, 1, 1, service.TCP4), direct("plain", port, cat()))
	defer s.stop()
	l := s.logs.wait(t, "cannot register", "service=late")
	if !strings.Contains(l.attrs["hint"], "start rpcbind and reload") {
		t.Errorf("%v", l)
	}
	dial(t, port).send("served\n").half().expect("served\n")
	late := int(s.unit("late").listeners[0].Endpoint.Addr.Port())
	dial(t, late).send("served, too\n").half().expect("served, too\n")
	b.open(t)
	b.knows(t, s, map[string]string{"300001 1 tcp": "late#0"})
	if n := s.logs.count("cannot register"); n != 1 {
		t.Errorf("said %d times", n)
	}
}

// TestRPCSilent: an rpcbind that does not answer holds up nobody, and the end not for
// long.
func TestRPCSilent(t *testing.T) {
	testkit.Check(t)
	b := &book{path: filepath.Join(t.TempDir(), "rpcbind.sock")}
	l, err := net.Listen("unix", b.path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	port := testkit.FreePort(t)
	row, plain := rpcRow("silent", 300001, 1, 1, service.TCP4), direct("plain", port, cat())
	s := registering(t, b, row, plain)
	defer s.stop()
	for range 20 { // far longer, if they waited for it
		s.reload(row, plain)
	}
	dial(t, port).send("served\n").half().expect("served\n")
	began := time.Now()
	s.stop()
	t.Logf("the end took %v", time.Since(began))
	if n := s.logs.count("register"); n != 0 {
		t.Errorf("%d registrations", n)
	}
}

// TestRPCSessions: the sockets of sessions are at the port that the kernel has chosen.
func TestRPCSessions(t *testing.T) {
	testkit.Check(t)
	b := newBook(t)
	row := sessionRow("talk", "127.0.0.1", 0, receiver(bound, 2))
	row.RPC = &service.RPC{Program: 300001, Low: 1, High: 1}
	s := registering(t, b, row)
	defer s.stop()
	b.knows(t, s, map[string]string{"300001 1 udp": "talk#0"})
	port := int(s.unit("talk").listeners[0].Endpoint.Addr.Port())
	one, two := askUDP(t, port), askUDP(t, port)
	for _, text := range []string{"first", "second"} {
		if one.send(text).answer(text) == two.send(text).answer(text) {
			t.Error("two peers have one server")
		}
	}
	s.instances(0)
}
