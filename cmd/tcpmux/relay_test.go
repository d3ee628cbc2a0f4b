package main

import (
	"bytes"
	"crypto/sha256"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// large is more than all buffers between two programs hold.
const large = 16 << 20

func itoa(n int) string { return strconv.Itoa(n) }

// noise is the same n bytes for the same seed.
func noise(seed byte, n int) []byte {
	b := make([]byte, n)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return b
}

// accept answers the request with "+".
func accept(c net.Conn) {
	readLine(c)
	io.WriteString(c, "+Go\r\n")
}

func TestHalfCloseOfInput(t *testing.T) {
	testkit.Check(t)
	// The service answers only when it has seen the end of its input.
	in, out := noise(1, large), noise(2, large)
	received := make(chan [32]byte, 1)
	addr := serve(t, func(c *net.TCPConn) {
		accept(c)
		h := sha256.New()
		io.Copy(h, c)
		received <- [32]byte(h.Sum(nil))
		c.Write(out)
	})
	client(t, bytes.NewReader(in), addr, "x").expect(t, exitOK, string(out), "")
	if <-received != sha256.Sum256(in) {
		t.Error("the service got something else than standard input")
	}
}

func TestHalfCloseOfOutput(t *testing.T) {
	testkit.Check(t)
	// The service stops talking while its input is still open, as every
	// service does that exits.
	out := noise(3, large)
	gone := make(chan error, 1)
	addr := serve(t, func(c *net.TCPConn) {
		accept(c)
		c.Write(out)
		c.CloseWrite()
		_, err := io.Copy(io.Discard, c)
		gone <- err
	})
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close() // the client's input has no end
	defer r.Close()
	client(t, r, addr, "x").expect(t, exitOK, string(out), "")
	if err := <-gone; err != nil {
		t.Errorf("the service's input ended with %v", err)
	}
}

func TestBothWaysAtOnce(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		accept(c)
		io.Copy(c, c)
	})
	data := noise(4, large)
	client(t, bytes.NewReader(data), addr, "echo").expect(t, exitOK, string(data), "")
}

func TestDataRightBehindTheReply(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		readLine(c)
		io.WriteString(c, "+Go\r\nSSH-2.0-x\r\n")
		io.Copy(c, c)
	})
	client(t, strings.NewReader("hello"), addr, "ssh").expect(t, exitOK, "SSH-2.0-x\r\nhello", "")
}

func TestReplyByteByByte(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		readLine(c)
		for _, b := range []byte("+Go ahead\r\n\r\n+data") {
			c.Write([]byte{b})
		}
	})
	client(t, nil, addr, "x").expect(t, exitOK, "\r\n+data", "")
}

func TestResetIsNoGoodEnd(t *testing.T) {
	testkit.Check(t)
	// With input under way it is the writing side that hears of the reset.
	inputs := map[string]io.Reader{"no input": nil, "much input": endless{}}
	for name, stdin := range inputs {
		t.Run(name, func(t *testing.T) {
			addr := serve(t, func(c *net.TCPConn) {
				accept(c)
				io.WriteString(c, "half")
				io.CopyN(io.Discard, c, 1<<20)
				c.SetLinger(0)
			})
			r := client(t, stdin, addr, "x")
			r.expect(t, exitIO, r.stdout, "broke off")
		})
	}
}

// endless input, until nobody reads it.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

func TestReaderOfOutputGoesAway(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		accept(c)
		io.Copy(c, endless{})
	})
	cmd := program(t, addr, "x")
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	w.Close()
	io.CopyN(io.Discard, r, 1000)
	r.Close()
	cmd.Wait()
	if s := cmd.ProcessState.Sys().(syscall.WaitStatus); !s.Signaled() || s.Signal() != syscall.SIGPIPE {
		t.Errorf("ended with %v, want SIGPIPE", cmd.ProcessState)
	}
}

func TestInputThatCannotBeRead(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		accept(c)
		io.Copy(c, c) // ends because the end of the input is passed on all the same
		io.WriteString(c, "bye")
	})
	dir, err := os.Open(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	defer dir.Close()
	client(t, dir, addr, "x").expect(t, exitIO, "bye", "reading standard input")
}

func TestList(t *testing.T) {
	testkit.Check(t)
	tests := []struct {
		name, answer, stdout, stderr string
		code                         int
	}{
		{"refused", "-Service not available\r\n", "", "refused: Service not available", exitRefused},
		{"too long", strings.Repeat("x\r\n", maxList/3+1), "", "longer than", exitProtocol},
		{"empty", "", "", "", exitOK},
		{"as RFC 1078 says", "date\r\nssh\r\n", "date\nssh\n", "", exitOK},
		{"bare LF, no end", "date\nssh", "date\nssh\n", "", exitOK},
		{"as NetBSD does", "+Available services:\r\nhelp\r\ndate\r\n", "help\ndate\n", "", exitOK},
		{"for a terminal", "\x1b[2Jdate\r\n\x9b2J\r\n", "?[2Jdate\n\uFFFD2J\n", "", exitOK},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			for _, args := range [][]string{{}, {"hElp"}} {
				request := make(chan string, 1)
				addr := serve(t, func(c *net.TCPConn) {
					request <- readLine(c)
					io.WriteString(c, test.answer)
				})
				r := client(t, nil, append([]string{addr}, args...)...)
				r.expect(t, test.code, test.stdout, test.stderr)
				if line := <-request; !strings.EqualFold(line, "HELP\r\n") {
					t.Errorf("request %q", line)
				}
			}
		})
	}
}

func TestListCutOff(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		readLine(c)
		io.WriteString(c, "date\r\n")
		c.SetLinger(0)
	})
	client(t, nil, addr).expect(t, exitProtocol, "", "closed")
}
