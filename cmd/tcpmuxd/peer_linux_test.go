// Peers: what connects to a daemon, from which address, and how it says what it
// wants.

package main_test

import (
	"errors"
	"io"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// The replies, as they stand in RFC 1078 and in tcpmuxd(8).
const (
	replyGo    = "+Go\r\n"
	replyNo    = "-Service not available\r\n"
	replyBusy  = "-Too many connections\r\n"
	replyCrowd = "-Too many pending connections\r\n"
)

// local is an address of this machine that nobody listens on.
func local(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(testkit.FreePort(t)))
}

// connect connects from an address of this machine, any if it is empty.
func connect(from, addr string) (*net.TCPConn, error) {
	d := net.Dialer{Timeout: bound, KeepAlive: -1}
	if from != "" {
		d.LocalAddr = &net.TCPAddr{IP: net.ParseIP(from)}
	}
	c, err := d.Dial("tcp", addr)
	if err != nil {
		return nil, err
	}
	c.SetDeadline(time.Now().Add(bound))
	return c.(*net.TCPConn), nil
}

// dial is connect, and the connection is closed when the test ends.
func dial(t testing.TB, from, addr string) *net.TCPConn {
	t.Helper()
	c, err := connect(from, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// talk sends what a peer has to say, and returns all that it hears until the
// other side closes.
func talk(from, addr, say string) (string, error) {
	c, err := connect(from, addr)
	if err != nil {
		return "", err
	}
	defer c.Close()
	if _, err := io.WriteString(c, say); err != nil {
		return "", err
	}
	c.CloseWrite()
	heard, err := io.ReadAll(c)
	return string(heard), err
}

// expect talks and compares what is heard.
func expect(t testing.TB, from, addr, say, want string) {
	t.Helper()
	if got, err := talk(from, addr, say); err != nil || got != want {
		t.Errorf("from %q to %s, %q is answered %q, %v; want %q", from, addr, say, got, err, want)
	}
}

// open asks for a service of the "+" kind and keeps the connection.
func open(t testing.TB, from, addr, name string) *net.TCPConn {
	t.Helper()
	c := dial(t, from, addr)
	if _, err := io.WriteString(c, name+"\r\n"); err != nil {
		t.Fatal(err)
	}
	hear(t, c, replyGo)
	return c
}

// hear reads exactly what is wanted.
func hear(t testing.TB, c *net.TCPConn, want string) {
	t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(c, b)
	if err != nil || string(b) != want {
		t.Fatalf("heard %q, %v; want %q", b[:n], err, want)
	}
}

// echo says something to a service that repeats it, and hears it.
func echo(t testing.TB, c *net.TCPConn, what string) {
	t.Helper()
	if _, err := io.WriteString(c, what); err != nil {
		t.Fatal(err)
	}
	hear(t, c, what)
}

// hearEnd reads until the other side closes, and wants to hear only this much.
func hearEnd(t testing.TB, c *net.TCPConn, want string) {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil || string(b) != want {
		t.Fatalf("heard %q, %v; want %q and the end", b, err, want)
	}
}

// turnedAway says whether a connection was ended by the other side without a
// word, by a close or a reset.
func turnedAway(c *net.TCPConn) bool {
	b := make([]byte, 1)
	n, err := c.Read(b)
	return n == 0 && (errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET))
}

// readAll reads to the end of the stream; the deadline is the caller's.
func readAll(t testing.TB, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("reading: %v, after %q", err, b)
	}
	return string(b)
}
