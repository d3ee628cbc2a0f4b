// The connection: the exchange of RFC 1078, the list that HELP gets, and the
// pipe in both directions. The name and the reply are read and written by
// pkg/tcpmux.

package main

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

const (
	// bufferSize is what one read can bring, in each direction. It is more
	// than tcpmux.MaxReply, so there is always room to wait for a reply.
	bufferSize = 64 << 10
	// maxList bounds what a server can make us keep of its HELP list.
	maxList = 4 << 20
)

// negotiate asks and waits for the reply, before a byte of standard input is
// sent: a server that refuses closes, and bytes that reach a closed socket make
// the reset that can destroy the refusal on its way. The wait costs a round
// trip. It returns what came after the reply, which is the service's.
func negotiate(conn net.Conn, request []byte) (rest []byte, err error) {
	// A server that is too busy replies and closes without reading: the reply
	// is looked for also when the request could not be written, and reading
	// fails soon enough if there is none.
	conn.Write(request)
	buf := make([]byte, bufferSize)
	have := 0
	for {
		n, err := conn.Read(buf[have:])
		have += n
		ok, text, used, state := tcpmux.ScanReply(buf[:have])
		switch {
		case state == tcpmux.Line && ok:
			return buf[used:have], nil
		case state == tcpmux.Line && len(text) == 0:
			return nil, failed(exitRefused, "%s: refused", conn.RemoteAddr())
		case state == tcpmux.Line:
			return nil, failed(exitRefused, "%s: refused: %s", conn.RemoteAddr(), text)
		case state != tcpmux.More:
			return nil, failed(exitProtocol, "%s: no reply of RFC 1078 but %q", conn.RemoteAddr(), start(buf[:have]))
		case err == nil:
			continue
		}
		return nil, noReply(conn, buf[:have], err)
	}
}

// noReply is the error for a connection that ended before the server's answer.
func noReply(conn net.Conn, got []byte, err error) error {
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return failed(exitTimeout, "%s: timed out waiting for the reply", conn.RemoteAddr())
	case !errors.Is(err, io.EOF) && !errors.Is(err, syscall.ECONNRESET):
		return failed(exitIO, "waiting for the reply: %w", err)
	case len(got) > 0:
		return failed(exitProtocol, "%s: closed in the middle of the reply: %q", conn.RemoteAddr(), start(got))
	}
	return failed(exitProtocol, "%s: closed without a reply", conn.RemoteAddr())
}

// start is as much of b as a message can bear.
func start(b []byte) []byte { return b[:min(len(b), 60)] }

// relay copies both ways until the service closes, which ends it whether or not
// standard input is still open: nobody is left to send it to. The end of
// standard input is handed on as a half-close, and the service may go on
// talking.
func relay(conn *net.TCPConn, rest []byte, stdin io.Reader, stdout io.Writer) error {
	out := &sender{conn: conn}
	input := make(chan error, 1)
	go func() {
		errRead, errWrite := pump(out, stdin)
		input <- errRead
		if errWrite == nil {
			conn.CloseWrite()
		}
	}()

	errRead, errWrite := pump(stdout, io.MultiReader(bytes.NewReader(rest), conn))
	if errWrite != nil {
		return failed(exitIO, "writing standard output: %w", errWrite)
	}
	if errRead == nil {
		errRead = out.stop()
	}
	if errRead != nil {
		return failed(exitIO, "the connection broke off: %w", errRead)
	}
	select {
	case err := <-input:
		if err != nil {
			return failed(exitIO, "reading standard input: %w", err)
		}
	default:
	}
	return nil
}

// A sender is the connection as written to by one goroutine, of which another
// one can learn how that went.
type sender struct {
	conn *net.TCPConn
	mu   sync.Mutex
	err  error
}

func (s *sender) Write(b []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n, err := s.conn.Write(b)
	s.err = err
	return n, err
}

// stop ends a Write that is under way and returns the error by which sending
// has ended, if that says more than that the peer closed. A socket tells of a
// reset once: a writer that hears of it leaves the reader nothing but an end
// of file that looks like a good one.
func (s *sender) stop() error {
	s.conn.SetWriteDeadline(time.Unix(1, 0))
	s.mu.Lock()
	defer s.mu.Unlock()
	if errors.Is(s.err, syscall.EPIPE) || errors.Is(s.err, os.ErrDeadlineExceeded) {
		return nil
	}
	return s.err
}

// pump copies until the end of src and says which side failed. It is io.Copy
// but for that: the error of a spliced copy does not tell.
func pump(dst io.Writer, src io.Reader) (errRead, errWrite error) {
	buf := make([]byte, bufferSize)
	for {
		n, err := src.Read(buf)
		if n > 0 {
			if _, err := dst.Write(buf[:n]); err != nil {
				return nil, err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return err, nil
		}
	}
}

// listServices prints what the server answers to HELP: one name per line, and
// no reply before it (RFC 1078). A first line with "+" is the heading that
// NetBSD sends, one with "-" is a refusal; no name begins so.
func listServices(conn net.Conn, request []byte, stdout io.Writer) error {
	conn.Write(request)
	answer, err := io.ReadAll(io.LimitReader(conn, maxList+1))
	switch {
	case err != nil:
		return noReply(conn, answer, err)
	case len(answer) > maxList:
		return failed(exitProtocol, "%s: the list is longer than %d bytes", conn.RemoteAddr(), maxList)
	}
	lines := splitLines(answer)
	switch {
	case len(lines) > 0 && strings.HasPrefix(lines[0], "-"):
		return failed(exitRefused, "%s: refused: %s", conn.RemoteAddr(), strings.TrimSpace(lines[0][1:]))
	case len(lines) > 0 && strings.HasPrefix(lines[0], "+"):
		lines = lines[1:]
	}
	w := bufio.NewWriter(stdout)
	for _, name := range lines {
		w.WriteString(printable(name) + "\n")
	}
	if err := w.Flush(); err != nil {
		return failed(exitIO, "writing standard output: %w", err)
	}
	return nil
}

// splitLines returns the lines that are not empty, without their ends.
func splitLines(b []byte) []string {
	var lines []string
	for line := range strings.Lines(string(b)) {
		if line = strings.TrimRight(line, "\r\n"); line != "" {
			lines = append(lines, line)
		}
	}
	return lines
}
