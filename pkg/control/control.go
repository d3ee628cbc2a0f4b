// Package control is what tcpmuxctl(8) and a running daemon say to each other over
// a unix socket: the question is one line of words, the answer is lines, of which
// the last is "ok" or "error: " and why.
//
// Only root and the daemon's own user are heard: the socket's mode keeps others
// out, and the server asks the kernel who has connected, besides. Questions are
// answered one after the other, each within bounds of size and time. The package
// opens no socket for the daemon, and does not know what is asked.
package control

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"
)

// DefaultPath is where tcpmuxctl(8) looks for the socket.
const DefaultPath = "/run/tcpmuxd/control.sock"

const (
	// patience bounds a question with its answer.
	patience = 10 * time.Second
	// maxQuestion is the longest line, in bytes.
	maxQuestion = 1024
	// maxAnswer is the most that Ask reads, in bytes.
	maxAnswer = 256 << 20
)

// A Handler answers a question, whose words there is at least one of. Lines have
// no line end in them, and none is "ok" or begins with "error: ".
type Handler func(words []string) (lines []string, err error)

// Serve answers whoever connects to l until l is closed, and returns nil then.
// Peers that are not heard, and those that do not come to their question, are
// told so or cut off; problem is called for them.
func Serve(l *net.UnixListener, answer Handler, problem func(error)) error {
	for {
		c, err := l.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return nil
		case err != nil:
			// For want of descriptors, most likely: that may pass.
			problem(err)
			time.Sleep(time.Second)
			continue
		}
		if err := serve(c, answer); err != nil {
			problem(err)
		}
		c.Close()
	}
}

func serve(c *net.UnixConn, answer Handler) error {
	c.SetDeadline(time.Now().Add(patience))
	uid, err := peerOf(c)
	if err != nil {
		return err
	}
	// The question is taken in any case: bytes that nobody has read would make the
	// close a reset, which destroys the answer.
	line, err := bufio.NewReaderSize(io.LimitReader(c, maxQuestion), maxQuestion).ReadString('\n')
	if err != nil {
		return fmt.Errorf("no question within %d bytes and %v: %w", maxQuestion, patience, err)
	}
	if uid != 0 && int64(uid) != int64(os.Geteuid()) {
		io.WriteString(c, "error: only root may ask\n")
		return fmt.Errorf("user %d has asked; only root and the daemon's own user may", uid)
	}
	var b bytes.Buffer
	var lines []string
	words := strings.Fields(line)
	if len(words) == 0 {
		err = errors.New("an empty question")
	} else {
		lines, err = answer(words)
	}
	for _, line := range lines {
		b.WriteString(line)
		b.WriteByte('\n')
	}
	if err != nil {
		fmt.Fprintf(&b, "error: %s\n", strings.ReplaceAll(err.Error(), "\n", "; "))
	} else {
		b.WriteString("ok\n")
	}
	_, err = c.Write(b.Bytes())
	return err
}

// Ask asks the daemon whose socket is at path. The error is the daemon's answer,
// or says why there is none.
func Ask(path string, words ...string) (lines []string, err error) {
	d := net.Dialer{Timeout: patience}
	c, err := d.Dial("unix", path)
	if err != nil {
		return nil, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(2 * patience)) // it may be busy with another
	if _, err := io.WriteString(c, strings.Join(words, " ")+"\n"); err != nil {
		return nil, err
	}
	b, err := io.ReadAll(io.LimitReader(c, maxAnswer))
	if err != nil {
		return nil, err
	}
	return parse(string(b))
}

// parse takes an answer apart.
func parse(answer string) ([]string, error) {
	text, whole := strings.CutSuffix(answer, "\n")
	lines := strings.Split(text, "\n")
	last := lines[len(lines)-1]
	lines = lines[:len(lines)-1]
	why, failed := strings.CutPrefix(last, "error: ")
	switch {
	case whole && last == "ok":
		return lines, nil
	case whole && failed:
		return lines, errors.New(why)
	}
	return nil, fmt.Errorf("the answer breaks off after %d bytes", len(answer))
}
