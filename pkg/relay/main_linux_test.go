package relay

// The tests give a loop one end of real sockets and talk to it at the other.

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// bound is how long anything here may take.
const bound = 20 * time.Second

// A runner is a loop that runs.
type runner struct {
	*Loop
	t    *testing.T
	ends chan End
	next uint64
}

func run(t *testing.T, lookup Lookup) *runner {
	t.Helper()
	testkit.Check(t)
	names := NewNames(lookup)
	l, err := NewLoop(names)
	if err != nil {
		t.Fatal(err)
	}
	r := &runner{Loop: l, t: t, ends: make(chan End, 5000)}
	var done sync.WaitGroup
	done.Go(func() {
		for {
			ended, ok := l.Serve()
			for _, e := range ended {
				r.ends <- e
			}
			if !ok {
				return
			}
		}
	})
	t.Cleanup(func() {
		l.Close()
		done.Wait()
		names.Close()
	})
	return r
}

// end waits for the next connection to end.
func (r *runner) end() End {
	r.t.Helper()
	select {
	case e := <-r.ends:
		return e
	case <-time.After(bound):
		r.t.Fatal("no connection has ended")
	}
	return End{}
}

// expect is end, and looks at its reason.
func (r *runner) expect(why Reason) End {
	r.t.Helper()
	e := r.end()
	if e.Reason != why {
		r.t.Errorf("it ended by %q (%v), want %q", e.Reason, e.Err, why)
	}
	return e
}

// conn is what net.TCPConn and net.UnixConn have in common.
type conn interface {
	net.Conn
	CloseWrite() error
	SyscallConn() (syscall.RawConn, error)
}

// serve has a new connection served and returns the client's end of it.
func (r *runner) serve(network string, p *Plan) conn {
	r.t.Helper()
	client, fd, peer := pair(r.t, network)
	r.next++
	if err := r.Add(Conn{ID: r.next, FD: fd, Plan: p, Peer: peer}); err != nil {
		unix.Close(fd)
		r.t.Fatal(err)
	}
	return client
}

var networks = []string{"tcp", "unix"}

// pair makes a connection: its one end, and the descriptor of the other.
func pair(t *testing.T, network string) (conn, int, service.Peer) {
	t.Helper()
	l := listen(t, network)
	defer l.Close()
	client, err := net.Dial(network, l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	client.SetDeadline(time.Now().Add(bound))
	t.Cleanup(func() { client.Close() })
	server, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	raw, err := server.(conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(n uintptr) { fd, err = unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 3) })
	if err != nil {
		t.Fatal(err)
	}
	peer := service.Peer{Network: service.UnixStream}
	if network == "tcp" {
		peer.Network = service.TCP4
		peer.Addr = netip.MustParseAddrPort(client.LocalAddr().String())
	}
	return client.(conn), fd, peer
}

func listen(t *testing.T, network string) net.Listener {
	t.Helper()
	at := "127.0.0.1:0"
	if network == "unix" {
		at = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// targetOf is a listener as a target.
func targetOf(l net.Listener) service.Target {
	if l.Addr().Network() == "unix" {
		return service.Target{Path: l.Addr().String()}
	}
	return service.Target{Addr: netip.MustParseAddrPort(l.Addr().String())}
}

// to is a plan that forwards.
func to(targets ...service.Target) *Plan {
	return &Plan{Flow: Forward, Forward: &service.Forward{Targets: targets, Timeout: bound}}
}

// accept takes one connection from a listener.
func accept(t *testing.T, l net.Listener) conn {
	t.Helper()
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	c.SetDeadline(time.Now().Add(bound))
	t.Cleanup(func() { c.Close() })
	return c.(conn)
}

func send(t *testing.T, c net.Conn, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// receive reads exactly what is expected.
func receive(t *testing.T, c net.Conn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	if _, err := io.ReadFull(c, b); err != nil || string(b) != want {
		t.Fatalf("read %q, %v; want %q", b, err, want)
	}
}

// receiveEnd reads the end of the stream.
func receiveEnd(t *testing.T, c net.Conn) {
	t.Helper()
	if n, err := c.Read(make([]byte, 1)); n != 0 || err != io.EOF {
		t.Fatalf("read %d bytes, %v; want the end", n, err)
	}
}

// receiveReset reads until the connection is reset. Unix sockets have a plain
// end, unless something was not read.
func receiveReset(t *testing.T, c net.Conn) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	if c.LocalAddr().Network() == "tcp" && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("read to %v, want a reset", err)
	}
}

// reset ends a connection by a reset.
func reset(t *testing.T, c conn) {
	t.Helper()
	if tcp, ok := c.(*net.TCPConn); ok {
		tcp.SetLinger(0)
	}
	c.Close()
}
