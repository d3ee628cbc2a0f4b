package testkit

import (
	"net"
	"strconv"
	"strings"
	"testing"
	"time"
)

// recorder is a test whose failures and clean-ups are kept instead of done.
type recorder struct {
	testing.TB
	cleanups []func()
	errors   []any
}

func (r *recorder) Cleanup(f func())  { r.cleanups = append(r.cleanups, f) }
func (r *recorder) Error(args ...any) { r.errors = append(r.errors, args...) }
func (r *recorder) Helper()           {}

func (r *recorder) end() {
	for i := len(r.cleanups) - 1; i >= 0; i-- {
		r.cleanups[i]()
	}
}

func TestFreePortCanBeBoundAndIsNotGivenTwice(t *testing.T) {
	seen := make(map[int]bool)
	for range 50 {
		p := FreePort(t)
		if p < firstPort || p > lastPort {
			t.Fatalf("port %d is outside of %d to %d", p, firstPort, lastPort)
		}
		if seen[p] {
			t.Fatalf("port %d was given twice", p)
		}
		seen[p] = true
		l, err := net.Listen("tcp4", "127.0.0.1:"+strconv.Itoa(p))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
	}
}

func TestFreePortGivesBack(t *testing.T) {
	r := &recorder{TB: t}
	p := FreePort(r)
	if _, ok := lockPort(p); ok {
		t.Fatalf("port %d can be locked twice", p)
	}
	r.end()
	unlock, ok := lockPort(p)
	if !ok {
		t.Fatalf("port %d is still locked after the test", p)
	}
	unlock()
}

func TestPortIsFreeSeesOneFamily(t *testing.T) {
	for _, network := range []string{"tcp4", "udp4", "tcp6", "udp6"} {
		p := FreePort(t)
		if !bindLoopback(t, network, p) {
			continue
		}
		if portIsFree(p) {
			t.Errorf("%s on the loopback address: port %d counts as free", network, p)
		}
	}
}

// bindLoopback reports false where the machine does not have the family.
func bindLoopback(t *testing.T, network string, port int) bool {
	host := "127.0.0.1"
	if strings.HasSuffix(network, "6") {
		host = "::1"
	}
	addr := net.JoinHostPort(host, strconv.Itoa(port))
	var err error
	if strings.HasPrefix(network, "udp") {
		var c net.PacketConn
		if c, err = net.ListenPacket(network, addr); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	} else {
		var l net.Listener
		if l, err = net.Listen(network, addr); err == nil {
			t.Cleanup(func() { l.Close() })
		}
	}
	if absent(err) {
		return false
	}
	if err != nil {
		t.Fatal(err)
	}
	return true
}

func TestCheckIsQuietWhenAllIsGone(t *testing.T) {
	r := &recorder{TB: t}
	Check(r)
	done := make(chan bool)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { <-done; l.Close() }()
	time.AfterFunc(20*time.Millisecond, func() { close(done) })
	r.end()
	if len(r.errors) > 0 {
		t.Errorf("found leaks that are none: %v", r.errors)
	}
}

func TestLeaksFindsGoroutine(t *testing.T) {
	before := snapshot()
	done := make(chan bool)
	go leakyGoroutine(done)
	leaks := before.leaks(10 * time.Millisecond)
	close(done)
	if len(leaks) != 1 || !strings.Contains(leaks[0], "leakyGoroutine") {
		t.Errorf("leaks = %q, want the one goroutine with its stack", leaks)
	}
	if leaks := before.leaks(patience); len(leaks) > 0 {
		t.Errorf("still there after its end: %q", leaks)
	}
}

func leakyGoroutine(done chan bool) { <-done }
