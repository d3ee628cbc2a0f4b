package supervisor

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// bound is how long anything here may take that does not say otherwise.
const bound = 20 * time.Second

// A server is a supervisor that a test runs.
type server struct {
	*Supervisor
	t    *testing.T
	logs *logBook
	done chan error
	over bool
}

// serve runs a supervisor on rows until the test ends.
func serve(t *testing.T, rows ...*service.Service) *server {
	t.Helper()
	return serveTable(t, table(rows...))
}

func serveTable(t *testing.T, tab *service.Table) *server {
	t.Helper()
	s := prepare(t, tab)
	s.run()
	return s
}

// prepare makes a supervisor that listens and does not accept yet; run follows.
func prepare(t *testing.T, tab *service.Table) *server {
	t.Helper()
	s := &server{t: t, logs: new(logBook), done: make(chan error, 1)}
	var err error
	if s.Supervisor, err = New(slog.New(s.logs)); err != nil {
		t.Fatal(err)
	}
	if err := s.Apply(tab); err != nil {
		t.Fatal(err)
	}
	return s
}

func (s *server) run() {
	s.t.Cleanup(s.stop)
	go func() { s.done <- s.Run() }()
}

// stop ends the supervisor and every child it has left.
func (s *server) stop() {
	if s.over {
		return
	}
	s.over = true
	s.Stop(nil)
	select {
	case err := <-s.done:
		if err != nil {
			s.t.Errorf("Run: %v", err)
		}
	case <-time.After(bound):
		s.t.Fatal("Run does not return after Stop")
	}
	// Its reaper may wait for them, or have ended.
	var pids []int
	s.reaper.each(func(pid int, in *instance) {
		syscall.Kill(-pid, syscall.SIGKILL)
		pids = append(pids, pid)
	})
	for _, pid := range pids {
		within(s.t, "the end of a child", func() bool {
			got, err := syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
			return got == pid || err == syscall.ECHILD
		})
	}
	if s.t.Failed() {
		s.t.Logf("the log:\n%s", s.logs)
	}
}

// reload applies a new table, which must succeed.
func (s *server) reload(rows ...*service.Service) {
	s.t.Helper()
	if err := s.Apply(table(rows...)); err != nil {
		s.t.Fatalf("reload: %v", err)
	}
}

func table(rows ...*service.Service) *service.Table {
	rows = slices.Clone(rows)
	slices.SortFunc(rows, func(a, b *service.Service) int { return strings.Compare(a.ID, b.ID) })
	return &service.Table{Services: rows}
}

// within polls a condition, for as long as bound.
func within(t testing.TB, what string, ok func() bool) {
	t.Helper()
	if !poll(bound, ok) {
		t.Fatalf("not within %v: %s", bound, what)
	}
}

func poll(most time.Duration, ok func() bool) bool {
	for deadline := time.Now().Add(most); !ok(); {
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(time.Millisecond)
	}
	return true
}

// instances waits until so many run and no other is being started.
func (s *server) instances(n int) {
	s.t.Helper()
	within(s.t, fmt.Sprintf("%d instances", n), func() bool {
		s.reaper.mu.Lock()
		defer s.reaper.mu.Unlock()
		return len(s.reaper.running) == n && len(s.reaper.starting) == 0
	})
}

// waiting waits until so many connections are in the pending table.
func (s *server) waiting(n int) {
	s.t.Helper()
	if !poll(bound, func() bool { return int(s.pending.count.Load()) == n }) {
		s.t.Fatalf("%d pending connections, want %d", s.pending.count.Load(), n)
	}
}

// unit is a row's runtime.
func (s *server) unit(id string) *unit {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	return s.units[id]
}

// cookies are the kernel's names of a row's sockets, which no two sockets share.
func (s *server) cookies(id string) []uint64 {
	s.t.Helper()
	var list []uint64
	u := s.unit(id)
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, l := range u.listeners {
		c, err := unix.GetsockoptUint64(l.Fd(), unix.SOL_SOCKET, unix.SO_COOKIE)
		if err != nil {
			s.t.Fatal(err)
		}
		list = append(list, c)
	}
	slices.Sort(list)
	return list
}

// epollSets are the descriptors that each loop polls.
func (s *server) epollSets() [][]int {
	s.t.Helper()
	var sets [][]int
	for _, l := range s.loops {
		b, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.poll.fd))
		if err != nil {
			s.t.Fatal(err)
		}
		var set []int
		for line := range strings.Lines(string(b)) {
			if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" {
				fd, _ := strconv.Atoi(f[1])
				set = append(set, fd)
			}
		}
		sets = append(sets, set)
	}
	return sets
}

// Rows.

// mux is a multiplexer on both loopback addresses.
func mux(port int) *service.Service {
	return &service.Service{
		ID: "tcpmux", Name: "tcpmux", Listen: local(port), Socket: service.Socket{TOS: -1},
		Builtin: service.BuiltinTCPMUX, Timeout: 30 * time.Second,
		Limits: limit.Limits{Instances: 4096, InstancesPerSource: 256},
	}
}

func local(port int) []service.Endpoint {
	return []service.Endpoint{on("127.0.0.1", port), on("::1", port)}
}

func on(addr string, port int) service.Endpoint {
	ep := service.Endpoint{Network: service.TCP4, Addr: netip.AddrPortFrom(netip.MustParseAddr(addr), uint16(port))}
	if ep.Addr.Addr().Is6() {
		ep.Network = service.TCP6
	}
	return ep
}

// anywhere accepts on all of 127.0.0.0/8, so that peers can have many addresses.
func anywhere(sv *service.Service) *service.Service {
	sv.Listen = []service.Endpoint{on("0.0.0.0", int(sv.Listen[0].Addr.Port()))}
	return sv
}

// plus is a row "tcpmux/+name".
func plus(name string, e *service.Exec) *service.Service {
	return &service.Service{ID: "tcpmux/+" + name, Name: name, Mux: true, Plus: true, Exec: e}
}

// minus is a row "tcpmux/name".
func minus(name string, e *service.Exec) *service.Service {
	return &service.Service{ID: "tcpmux/" + name, Name: name, Mux: true, Exec: e}
}

// direct is a row with a port of its own.
func direct(id string, port int, e *service.Exec) *service.Service {
	return &service.Service{ID: id, Name: id, Listen: local(port), Socket: service.Socket{TOS: -1}, Exec: e}
}

// with changes a copy of a row.
func with(sv *service.Service, change func(*service.Service)) *service.Service {
	c := *sv
	change(&c)
	return &c
}

func program(path string, args ...string) *service.Exec {
	return &service.Exec{
		Path: path, Argv: append([]string{path}, args...), Dir: "/", Umask: 0o22,
		Env: []string{"PATH=/usr/bin:/bin"},
	}
}

func cat() *service.Exec             { return program("/bin/cat") }
func sh(script string) *service.Exec { return program("/bin/sh", "-c", script) }
func as(uid uint32, e *service.Exec) *service.Exec {
	e.Cred = &service.Cred{User: strconv.Itoa(int(uid)), UID: uid, GID: uid}
	return e
}

func rules(t *testing.T, allow, deny string) *access.Rules {
	t.Helper()
	prefixes := func(s string) (list []netip.Prefix) {
		for _, p := range strings.Fields(s) {
			list = append(list, netip.MustParsePrefix(p))
		}
		return list
	}
	r, err := access.New(prefixes(allow), prefixes(deny))
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// Clients.

// A client is a peer; every one of its calls is bounded.
type client struct {
	*net.TCPConn
	t testing.TB
}

func dial(t testing.TB, port int) *client { t.Helper(); return dialFrom(t, "127.0.0.1", port) }

// dialFrom connects from an address of 127.0.0.0/8, or ::1.
func dialFrom(t testing.TB, source string, port int) *client {
	t.Helper()
	c, err := tryFrom(source, port)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return &client{c, t}
}

func tryFrom(source string, port int) (*net.TCPConn, error) {
	a := netip.MustParseAddr(source)
	to := netip.MustParseAddr("127.0.0.1")
	if a.Is6() {
		to = netip.IPv6Loopback()
	}
	d := net.Dialer{Timeout: bound, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(a, 0))}
	c, err := d.Dial("tcp", netip.AddrPortFrom(to, uint16(port)).String())
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(bound))
	return c.(*net.TCPConn), nil
}

func (c *client) send(s string) *client {
	c.t.Helper()
	if _, err := c.Write([]byte(s)); err != nil {
		c.t.Fatalf("sending %.40q: %v", s, err)
	}
	return c
}

// half ends the client's direction.
func (c *client) half() *client {
	c.t.Helper()
	if err := c.CloseWrite(); err != nil {
		c.t.Fatal(err)
	}
	return c
}

// reset ends the connection without a farewell.
func (c *client) reset() {
	c.SetLinger(0)
	c.Close()
}

// rest reads to the end of the stream.
func (c *client) rest() string {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		c.t.Fatalf("after %.60q: %v", b, err)
	}
	return string(b)
}

// expect reads exactly this.
func (c *client) expect(want string) *client {
	c.t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(c, b)
	if err != nil || string(b) != want {
		c.t.Fatalf("read %q (%v), want %q", b[:n], err, want)
	}
	return c
}

// ends reads exactly this and then the end.
func (c *client) ends(want string) {
	c.t.Helper()
	if got := c.rest(); got != want {
		c.t.Errorf("read %.300q, want %.300q", got, want)
	}
}

// gone expects the end of the connection without a byte, in order or by reset.
func (c *client) gone() {
	c.t.Helper()
	b, err := io.ReadAll(c)
	if len(b) > 0 || err != nil && !errors.Is(err, syscall.ECONNRESET) {
		c.t.Errorf("read %q, %v, want nothing", b, err)
	}
}

// ask is a whole exchange on a multiplexer.
func ask(t testing.TB, port int, request string) string {
	t.Helper()
	return dial(t, port).send(request).half().rest()
}

// The log.

// A logBook keeps what is logged.
type logBook struct {
	mu    sync.Mutex
	lines []logLine
}

type logLine struct {
	at    time.Time
	msg   string
	attrs map[string]string
	text  string
}

func (b *logBook) Enabled(context.Context, slog.Level) bool { return true }
func (b *logBook) WithAttrs([]slog.Attr) slog.Handler       { panic("not used") }
func (b *logBook) WithGroup(string) slog.Handler            { panic("not used") }

func (b *logBook) Handle(_ context.Context, r slog.Record) error {
	l := logLine{at: time.Now(), msg: r.Message, attrs: map[string]string{}}
	var text bytes.Buffer
	fmt.Fprintf(&text, "%s %s %q", l.at.Format("05.000"), r.Level, r.Message)
	r.Attrs(func(a slog.Attr) bool {
		v := a.Value.Resolve().String()
		l.attrs[a.Key] = v
		fmt.Fprintf(&text, " %s=%q", a.Key, v)
		return true
	})
	l.text = text.String()
	b.mu.Lock()
	b.lines = append(b.lines, l)
	b.mu.Unlock()
	return nil
}

// find returns the lines with a message and these attributes, "key=value".
func (b *logBook) find(msg string, attrs ...string) []logLine {
	b.mu.Lock()
	defer b.mu.Unlock()
	var found []logLine
next:
	for _, l := range b.lines {
		if l.msg != msg {
			continue
		}
		for _, a := range attrs {
			if k, v, _ := strings.Cut(a, "="); l.attrs[k] != v {
				continue next
			}
		}
		found = append(found, l)
	}
	return found
}

func (b *logBook) count(msg string, attrs ...string) int { return len(b.find(msg, attrs...)) }

// wait waits for a line and returns it.
func (b *logBook) wait(t testing.TB, msg string, attrs ...string) logLine {
	t.Helper()
	within(t, fmt.Sprintf("the line %q %q", msg, attrs), func() bool { return b.count(msg, attrs...) > 0 })
	return b.find(msg, attrs...)[0]
}

func (b *logBook) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var s strings.Builder
	for i, l := range b.lines {
		if i > 200 {
			fmt.Fprintf(&s, "... %d more\n", len(b.lines)-i)
			break
		}
		s.WriteString(l.text + "\n")
	}
	return s.String()
}

// cpuTime is what this process has used, its children not counted.
func cpuTime(t testing.TB) time.Duration {
	t.Helper()
	var u syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &u); err != nil {
		t.Fatal(err)
	}
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// idleCPU measures for a time what share of a processor this process uses while
// the test does nothing.
func idleCPU(t testing.TB, d time.Duration) (least float64) {
	t.Helper()
	// A garbage collection or a late start may fall into one look, not into all.
	for least = 1; least > 0.02 && !t.Failed(); {
		begin, before := time.Now(), cpuTime(t)
		<-time.After(d)
		share := float64(cpuTime(t)-before) / float64(time.Since(begin))
		if share >= least {
			break
		}
		least = share
	}
	return least
}

var _ = testkit.FreePort // every test needs one
