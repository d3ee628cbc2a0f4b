package relay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// exchange sends much both ways at the same time, and then the two ends.
func exchange(t *testing.T, a, b conn) {
	t.Helper()
	var all sync.WaitGroup
	for _, x := range [][2]conn{{a, b}, {b, a}} {
		all.Go(func() {
			if _, err := x[0].Write(much); err != nil {
				t.Error(err)
			}
			x[0].CloseWrite()
		})
		all.Go(func() {
			got, err := io.ReadAll(x[1])
			if err != nil || !bytes.Equal(got, much) {
				t.Errorf("read %d of %d bytes, %v", len(got), len(much), err)
			}
		})
	}
	all.Wait()
}

func TestForward(t *testing.T) {
	for _, from := range networks {
		for _, by := range networks {
			t.Run(from+" to "+by, func(t *testing.T) {
				r := run(t, nil)
				server := listen(t, by)
				c := r.serve(from, to(targetOf(server)))
				exchange(t, c, accept(t, server))
				e := r.expect(Closed)
				if e.In != uint64(len(much)) || e.Out != uint64(len(much)) || e.Target != targetOf(server).String() || e.Err != nil {
					t.Errorf("%+v", e)
				}
			})
		}
	}
}

// Each side may end first, and the other goes on.
func TestForwardKeepsHalfClose(t *testing.T) {
	for _, network := range networks {
		for _, first := range []string{"client", "server"} {
			t.Run(network+" "+first, func(t *testing.T) {
				r := run(t, nil)
				server := listen(t, network)
				c := r.serve(network, to(targetOf(server)))
				a, b := c, accept(t, server)
				if first == "server" {
					a, b = b, a
				}
				send(t, a, "question")
				a.CloseWrite()
				receive(t, b, "question")
				receiveEnd(t, b)
				for range 3 {
					send(t, b, "answer")
					receive(t, a, "answer")
				}
				b.Close()
				receiveEnd(t, a)
				r.expect(Closed)
			})
		}
	}
}

func TestForwardPassesAResetOn(t *testing.T) {
	for _, first := range []string{"client", "server"} {
		t.Run(first, func(t *testing.T) {
			r := run(t, nil)
			server := listen(t, "tcp")
			c := r.serve("tcp", to(targetOf(server)))
			a, b := c, accept(t, server)
			if first == "server" {
				a, b = b, a
			}
			send(t, a, "half of a w")
			receive(t, b, "half of a w")
			reset(t, a)
			receiveReset(t, b)
			r.expect(Reset)
		})
	}
}

// A reset is found out also where nothing is waited for of that side.
func TestForwardSeesAResetBehindASlowReader(t *testing.T) {
	r := run(t, nil)
	server := listen(t, "tcp")
	c := r.serve("tcp", to(targetOf(server)))
	s := accept(t, server)
	c.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
	if _, err := c.Write(much); err == nil {
		t.Fatal("all was taken")
	}
	reset(t, c)
	receiveReset(t, s)
	r.expect(Reset)
}

// A unix peer that has closed hangs up for good, while what it has sent waits
// for a slow reader: that must neither spin nor lose anything.
func TestForwardOfWhatAPeerHasLeft(t *testing.T) {
	r := run(t, nil)
	server := listen(t, "unix")
	c := r.serve("unix", to(targetOf(server)))
	s := accept(t, server)
	c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	n, _ := c.Write(much)
	c.Close()
	before := cpu()
	time.Sleep(200 * time.Millisecond) // the span that is measured
	if used := cpu() - before; used > 100*time.Millisecond {
		t.Errorf("%v of CPU for waiting", used)
	}
	got, err := io.ReadAll(s)
	if err != nil || !bytes.Equal(got, much[:n]) {
		t.Errorf("read %d of %d bytes, %v", len(got), n, err)
	}
	s.Close()
	r.expect(Closed)
}

func cpu() time.Duration {
	var u unix.Rusage
	unix.Getrusage(unix.RUSAGE_SELF, &u)
	return time.Duration(u.Utime.Nano() + u.Stime.Nano())
}

// nobody is a target that refuses.
func nobody(t *testing.T) service.Target {
	l := listen(t, "tcp")
	defer l.Close()
	return targetOf(l)
}

func TestForwardTriesTargetsInTurn(t *testing.T) {
	r := run(t, func(context.Context, string) ([]netip.Addr, error) { return nil, errors.New("servfail") })
	server := listen(t, "tcp")
	p := to(nobody(t), service.Target{Path: filepath.Join(t.TempDir(), "none")}, service.Target{Host: "db", Port: 1}, targetOf(server))
	p.Prefix = "+Go\r\n"
	c := r.serve("tcp", p)
	s := accept(t, server)
	receive(t, c, "+Go\r\n")
	send(t, c, "x")
	receive(t, s, "x")
	c.Close()
	s.Close()
	e := r.expect(Closed)
	if e.Target != targetOf(server).String() || e.Err == nil {
		t.Fatalf("%+v", e)
	}
	for _, want := range []string{"connection refused; ", "/none: no such file", "db:1: looking up the name: servfail"} {
		if !strings.Contains(e.Err.Error(), want) {
			t.Errorf("%q has no %q", e.Err, want)
		}
	}
}

func TestForwardToNobody(t *testing.T) {
	r := run(t, nil)
	c := r.serve("tcp", to(nobody(t)))
	receiveReset(t, c)
	e := r.expect(Connect)
	if !errors.Is(e.Err, syscall.ECONNREFUSED) || strings.Contains(e.Err.Error(), "\n") {
		t.Errorf("the error is %v", e.Err)
	}
}

// Whoever has been promised an answer in words gets it, although it has sent
// more than anybody has read.
func TestForwardToNobodySaysSo(t *testing.T) {
	const text = "-Service not available\r\n"
	r := run(t, nil)
	p := to(nobody(t), nobody(t))
	p.Prefix, p.Refusal = "+Go\r\n", text
	client, fd, peer := pair(t, "tcp")
	send(t, client, strings.Repeat("x", 1000))
	if err := r.Add(Conn{ID: 1, FD: fd, Plan: p, Peer: peer}); err != nil {
		t.Fatal(err)
	}
	receive(t, client, text)
	receiveEnd(t, client)
	client.Close()
	r.expect(Connect)
}

// full is a target whose queue is full, so that nobody answers.
func full(t *testing.T, network string) (service.Target, int) {
	t.Helper()
	var fd int
	var err error
	var target service.Target
	if network == "unix" {
		target.Path = filepath.Join(t.TempDir(), "full")
		fd, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: target.Path})
		}
	} else {
		fd, err = unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
		}
	}
	if err == nil {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if network == "tcp" {
		sa, _ := unix.Getsockname(fd)
		target.Addr = netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(sa.(*unix.SockaddrInet4).Port))
	}
	for range 3 {
		at := target.Path
		if at == "" {
			at = target.Addr.String()
		}
		d := net.Dialer{Timeout: 100 * time.Millisecond}
		if c, err := d.Dial(network, at); err == nil {
			t.Cleanup(func() { c.Close() })
		}
	}
	return target, fd
}

func TestForwardTimesOut(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			server := listen(t, "tcp")
			slow, _ := full(t, network)
			p := to(slow, targetOf(server))
			p.Forward.Timeout = 100 * time.Millisecond
			start := time.Now()
			c := r.serve("tcp", p)
			s := accept(t, server)
			if d := time.Since(start); d < p.Forward.Timeout {
				t.Errorf("the next target was tried after %v", d)
			}
			c.Close()
			s.Close()
			if e := r.expect(Closed); e.Err == nil {
				t.Error("nothing is said of the first target")
			}
		})
	}
}

// The queue of a unix socket says at once that it is full; that passes.
func TestForwardWaitsForAFullUnixQueue(t *testing.T) {
	r := run(t, nil)
	target, fd := full(t, "unix")
	c := r.serve("tcp", to(target))
	send(t, c, "x")
	for end := time.Now().Add(bound); ; {
		s, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
		if err != nil || time.Now().After(end) {
			t.Fatal("it was not tried again", err)
		}
		// Those who fill the queue say nothing.
		unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 100_000})
		var b [8]byte
		n, _ := unix.Read(s, b[:])
		unix.Close(s)
		if n == 1 {
			break
		}
	}
	c.Close()
	r.end()
}

// Who gives up while a target is sought is not kept.
func TestForwardGivesUpWithItsPeer(t *testing.T) {
	release := make(chan struct{})
	r := run(t, func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-release
		return nil, errors.New("late")
	})
	slow, _ := full(t, "tcp")
	for _, p := range []*Plan{to(slow), to(service.Target{Host: "slow", Port: 1})} {
		c := r.serve("tcp", p)
		reset(t, c)
		r.expect(Reset)
	}
	close(release)
}

func TestForwardToAName(t *testing.T) {
	server := listen(t, "tcp")
	at := netip.MustParseAddrPort(server.Addr().String())
	var asked atomic.Int32
	r := run(t, func(_ context.Context, host string) ([]netip.Addr, error) {
		asked.Add(1)
		// Nobody listens at the first.
		return []netip.Addr{netip.MustParseAddr("127.0.0.77"), netip.MustParseAddr("::ffff:127.0.0.1")}, nil
	})
	p := to(service.Target{Host: "db.example", Port: at.Port()})
	for range 5 {
		c := r.serve("tcp", p)
		s := accept(t, server)
		send(t, c, "x")
		receive(t, s, "x")
		c.Close()
		s.Close()
		e := r.expect(Closed)
		if e.Err == nil || !strings.Contains(e.Err.Error(), "(127.0.0.77): connection refused") {
			t.Errorf("the error is %v", e.Err)
		}
	}
	if n := asked.Load(); n != 1 {
		t.Errorf("the name was looked up %d times", n)
	}
}

func TestForwardWhileANameIsSlow(t *testing.T) {
	server := listen(t, "tcp")
	r := run(t, func(ctx context.Context, _ string) ([]netip.Addr, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	})
	p := to(service.Target{Host: "slow", Port: 1}, targetOf(server))
	p.Forward.Timeout = 100 * time.Millisecond
	c := r.serve("tcp", p)
	// The loop goes on meanwhile.
	echo := r.serve("tcp", &Plan{Flow: Echo})
	send(t, echo, "x")
	receive(t, echo, "x")
	s := accept(t, server)
	c.Close()
	s.Close()
	if e := r.expect(Closed); e.Err == nil || !strings.Contains(e.Err.Error(), "slow:1: looking up the name: no answer in time") {
		t.Errorf("the error is %v", e.Err)
	}
}

func TestForwardTransparent(t *testing.T) {
	r := run(t, nil)
	server := listen(t, "tcp")
	six := service.Target{Addr: netip.MustParseAddrPort("[::1]:9")}
	p := to(six, service.Target{Path: "/nowhere"}, targetOf(server))
	p.Forward.Transparent = true
	client, fd, peer := pair(t, "tcp")
	// Somebody else's address; all of 127.0.0.0/8 comes back here.
	peer.Addr = netip.MustParseAddrPort("127.9.8.7:4567")
	if err := r.Add(Conn{ID: 1, FD: fd, Plan: p, Peer: peer}); err != nil {
		t.Fatal(err)
	}
	s := accept(t, server)
	if got := s.RemoteAddr().String(); got != "127.9.8.7:4567" {
		t.Errorf("the target sees %s", got)
	}
	client.Close()
	s.Close()
	if e := r.expect(Closed); !errors.Is(e.Err, errFamily) || !errors.Is(e.Err, errUnixSource) {
		t.Errorf("the error is %v", e.Err)
	}
	// A port that is taken, as the peer's own is on the same machine.
	c := r.serve("tcp", p)
	s = accept(t, server)
	if got := netip.MustParseAddrPort(s.RemoteAddr().String()); got.Addr().String() != "127.0.0.1" || got.String() == c.LocalAddr().String() {
		t.Errorf("the target sees %s", got)
	}
	c.Close()
	s.Close()
	r.expect(Closed)
}

func TestForwardEndsByResetIfCutShort(t *testing.T) {
	for _, why := range []Reason{Idle, Lifetime, Cut} {
		t.Run(string(why), func(t *testing.T) {
			r := run(t, nil)
			server := listen(t, "tcp")
			p := to(targetOf(server))
			switch why {
			case Idle:
				p.Idle = 50 * time.Millisecond
			case Lifetime:
				p.Lifetime = 50 * time.Millisecond
			}
			c := r.serve("tcp", p)
			s := accept(t, server)
			if why == Cut {
				send(t, c, "x")
				receive(t, s, "x")
				r.CutAll()
			}
			receiveReset(t, c)
			receiveReset(t, s)
			r.expect(why)
		})
	}
}

// Connections that wait for something hold their two descriptors and no pipe.
func TestManyConnectionsHoldNoPipes(t *testing.T) {
	const many = 1000
	r := run(t, nil)
	server := listen(t, "tcp")
	p := to(targetOf(server))
	var clients, servers []conn
	for range many {
		clients = append(clients, r.serve("tcp", p))
		servers = append(servers, accept(t, server))
	}
	for i, c := range clients {
		send(t, c, "question")
		receive(t, servers[i], "question")
		send(t, servers[i], "answer")
		receive(t, c, "answer")
	}
	if n := pipesOpen(t); n > sparePipes {
		t.Errorf("%d pipes are open", n)
	}
	for i, c := range clients {
		c.Close()
		servers[i].Close()
		if e := r.expect(Closed); e.In != 8 || e.Out != 6 {
			t.Fatalf("%+v", e)
		}
	}
}
