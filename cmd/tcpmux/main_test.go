package main

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// bound is how long anything in these tests may take.
const bound = 30 * time.Second

// TestMain lets the test binary be the program, so that what is tested is what
// a user sees: arguments, streams, exit code.
func TestMain(m *testing.M) {
	if os.Getenv("TCPMUX_TEST_BE_MAIN") != "" {
		main()
	}
	os.Exit(m.Run())
}

type result struct {
	stdout, stderr string
	code           int // -1: ended by a signal
}

// program is the client, ready to start; it is killed after bound.
func program(t *testing.T, args ...string) *exec.Cmd {
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	// The race detector otherwise waits a second at every exit.
	cmd.Env = append(os.Environ(), "TCPMUX_TEST_BE_MAIN=1", "GORACE=atexit_sleep_ms=0")
	return cmd
}

// client runs the program to its end. A nil stdin is /dev/null.
func client(t *testing.T, stdin io.Reader, args ...string) result {
	t.Helper()
	cmd := program(t, args...)
	var stdout, stderr bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = stdin, &stdout, &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// expect compares; stderr need only contain what is wanted, and must be empty
// if that is.
func (got result) expect(t *testing.T, code int, stdout, stderr string) {
	t.Helper()
	if got.code != code {
		t.Errorf("exit code %d, want %d; stderr: %s", got.code, code, got.stderr)
	}
	if got.stdout != stdout {
		t.Errorf("stdout %s, want %s", short(got.stdout), short(stdout))
	}
	if !strings.Contains(got.stderr, stderr) || stderr == "" && got.stderr != "" {
		t.Errorf("stderr %q, want %q", got.stderr, stderr)
	}
}

func short(s string) string {
	if len(s) <= 200 {
		return "\"" + printable(s) + "\""
	}
	return "\"" + printable(s[:100]) + "…\" and more"
}

// serve runs handle for the one connection that it accepts, and returns the
// address. The test ends after handle has.
func serve(t *testing.T, handle func(*net.TCPConn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(bound))
		handle(c.(*net.TCPConn))
	}()
	t.Cleanup(func() { l.Close(); <-done })
	return l.Addr().String()
}

// readLine reads the request byte by byte, so that what follows stays on c.
func readLine(c io.Reader) string {
	var line []byte
	for b := make([]byte, 1); len(line) < 1000; {
		if _, err := io.ReadFull(c, b); err != nil {
			break
		}
		line = append(line, b[0])
		if b[0] == '\n' {
			break
		}
	}
	return string(line)
}

func TestRequestIsTheNameAndNothingElse(t *testing.T) {
	testkit.Check(t)
	got := make(chan string, 2)
	addr := serve(t, func(c *net.TCPConn) {
		got <- readLine(c)
		io.WriteString(c, "-no\r\n")
		c.CloseWrite()
		rest, _ := io.ReadAll(c)
		got <- string(rest)
	})
	r := client(t, strings.NewReader("typed too early"), addr, "SSH thing")
	r.expect(t, exitRefused, "", "refused: no\n")
	if line := <-got; line != "SSH thing\r\n" {
		t.Errorf("request %q", line)
	}
	if rest := <-got; rest != "" {
		t.Errorf("%q of standard input was sent before the reply", rest)
	}
}

func TestRefusalAtOnceIsNotLost(t *testing.T) {
	testkit.Check(t)
	// The server does not read the request and closes, so that the refusal
	// has a reset on its heels.
	for range 10 {
		addr := serve(t, func(c *net.TCPConn) { io.WriteString(c, "-Too many connections\r\n") })
		client(t, strings.NewReader("input"), addr, "x").expect(t, exitRefused, "", "Too many connections")
	}
}

func TestRefusalIsNoCommandToATerminal(t *testing.T) {
	testkit.Check(t)
	for reply, want := range map[string]string{
		"-no\x1b[31m way\r\n": "refused: no?[31m way\n",
		"-\x1b]0;title\a\r\n": "refused: ?]0;title?\n",
		"-no\rway\u009b\n":    "refused: no?way?\n",
	} {
		for _, args := range [][]string{{"x"}, {}} {
			addr := serve(t, func(c *net.TCPConn) {
				readLine(c)
				io.WriteString(c, reply)
			})
			r := client(t, nil, append([]string{addr}, args...)...)
			r.expect(t, exitRefused, "", want)
			if strings.ContainsAny(r.stderr, "\x1b\a\r\u009b") {
				t.Errorf("%q was printed as %q", reply, r.stderr)
			}
		}
	}
}

func TestNoReply(t *testing.T) {
	testkit.Check(t)
	tests := []struct {
		name, reply, stderr string
	}{
		{"nothing", "", "closed without a reply"},
		{"no end", "+Go", "closed in the middle of the reply"},
		{"half an end", "+Go\r", "closed in the middle of the reply"},
		{"lone CR", "+Go\rdata", "no reply of RFC 1078"},
		{"other protocol", "SSH-2.0-OpenSSH_9.2\r\n", `no reply of RFC 1078 but "SSH-2.0-OpenSSH_9.2`},
		{"empty line", "\r\n", "no reply of RFC 1078"},
		{"endless", "+" + strings.Repeat("x", 100_000), "no reply of RFC 1078"},
		{"escape sequence", "+\x1b]0;title\a\r\n", `no reply of RFC 1078 but "+\x1b]0`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			addr := serve(t, func(c *net.TCPConn) {
				readLine(c)
				io.WriteString(c, test.reply)
			})
			client(t, nil, addr, "x").expect(t, exitProtocol, "", test.stderr)
		})
	}
}

func TestResetInsteadOfReply(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) { readLine(c); c.SetLinger(0) })
	client(t, nil, addr, "x").expect(t, exitProtocol, "", "closed without a reply")
}

func TestTimeoutIsForTheWholeExchange(t *testing.T) {
	testkit.Check(t)
	servers := map[string]func(*net.TCPConn){
		"silent": func(c *net.TCPConn) { io.Copy(io.Discard, c) },
		"dripping": func(c *net.TCPConn) {
			for b := "+"; ; b = "x" {
				if _, err := io.WriteString(c, b); err != nil {
					return
				}
				time.Sleep(10 * time.Millisecond)
			}
		},
	}
	for name, server := range servers {
		for _, args := range [][]string{{"x"}, {"help"}, {}} {
			t.Run(name+" "+strings.Join(args, " "), func(t *testing.T) {
				addr := serve(t, server)
				args := append([]string{"-t", "250ms", addr}, args...)
				client(t, nil, args...).expect(t, exitTimeout, "", "timed out")
			})
		}
	}
}

func TestTimeoutEndsWithTheReply(t *testing.T) {
	testkit.Check(t)
	addr := serve(t, func(c *net.TCPConn) {
		readLine(c)
		io.WriteString(c, "+\r\n")
		time.Sleep(700 * time.Millisecond) // more than the client's -t
		io.WriteString(c, "late")
	})
	client(t, nil, "-t", "500ms", addr, "x").expect(t, exitOK, "late", "")
}

func TestCannotConnect(t *testing.T) {
	testkit.Check(t)
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	l.Close()
	client(t, nil, addr, "x").expect(t, exitUnavailable, "", "connecting to "+addr)
	client(t, nil, "-6", addr, "x").expect(t, exitNoHost, "", "connecting to "+addr)
	client(t, nil, "not..a.name", "x").expect(t, exitNoHost, "", "connecting to not..a.name:1")
}

func TestNameWithSeveralAddresses(t *testing.T) {
	testkit.Check(t)
	// localhost has ::1 too on most machines, where nobody listens.
	l, err := net.Listen("tcp4", "127.0.0.1:"+itoa(testkit.FreePort(t)))
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan bool)
	go func() {
		defer close(done)
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			readLine(c)
			io.WriteString(c, "+\r\nhere")
			c.Close()
		}
	}()
	t.Cleanup(func() { l.Close(); <-done })
	_, port, _ := net.SplitHostPort(l.Addr().String())
	client(t, nil, "localhost:"+port, "x").expect(t, exitOK, "here", "")
	client(t, nil, "-4", "localhost:"+port, "x").expect(t, exitOK, "here", "")
}

func TestUsage(t *testing.T) {
	client(t, nil, "-h").expect(t, exitOK, usage, "")
	client(t, nil, "-V").expect(t, exitOK, "tcpmux "+version+"\n", "")
	for _, args := range []string{"", "-x host", "host a b", ":1 x", "host:0 x", "host:99999 x", "-4 -6 host",
		"-t 10 host x", "-t x host x", "-t -1s host x", "127.0.0.1:nosuchport x", "127.0.0.1:nosuchport", "[::1 x", "[::1]1 x", "[host]:1 x", "a:b:c x"} {
		r := client(t, nil, strings.Fields(args)...)
		if r.code != exitUsage || r.stdout != "" || !strings.Contains(r.stderr, "tcpmux: hint: ") {
			t.Errorf("%q: %+v, want exit code %d and a hint", args, r, exitUsage)
		}
	}
	client(t, nil, "-t", "5", "host").expect(t, exitUsage, "", `invalid value "5" for flag -t: no unit: write 5s`)
	client(t, nil, "host:nosuchport", "x").expect(t, exitUsage, "", `"nosuchport": a port is 1 to 65535 or a name of services(5)`)
	for _, name := range []string{"", "a\tb", "é", strings.Repeat("x", 257)} {
		client(t, nil, "127.0.0.1:9", name).expect(t, exitUsage, "", "name")
	}
}

func TestParseAddress(t *testing.T) {
	good := map[string]string{
		"host":             "host:1",
		"host:tcpmux":      "host:tcpmux",
		"host:65535":       "host:65535",
		"10.0.0.1":         "10.0.0.1:1",
		"10.0.0.1:7":       "10.0.0.1:7",
		"::1":              "[::1]:1",
		"fe80::1%eth0":     "[fe80::1%eth0]:1",
		"[::1]":            "[::1]:1",
		"[::1]:7":          "[::1]:7",
		"[fe80::1%eth0]:7": "[fe80::1%eth0]:7",
	}
	for s, want := range good {
		if got, err := parseAddress(s); err != nil || got != want {
			t.Errorf("parseAddress(%q) = %q, %v, want %q", s, got, err, want)
		}
	}
	for _, s := range []string{"", ":", ":7", "host:", "host:-1", "[]", "[]:7", "[::1", "[::1]:", "[::1]7", "[10.0.0.1]:7", "1:2:3", "::1::2"} {
		if got, err := parseAddress(s); err == nil {
			t.Errorf("parseAddress(%q) = %q, want an error", s, got)
		}
	}
}

func TestNegotiateSplitAnywhere(t *testing.T) {
	testkit.Check(t)
	for _, head := range []string{"+Go\r\n", "+\r\n", "+\n", "+ at your service\n"} {
		stream := head + "DATA\r\n\x00+more"
		for cut := range len(stream) + 1 {
			got, err := negotiateOver(t, stream[:cut], stream[cut:])
			if err != nil {
				t.Errorf("%q | %q: %v", stream[:cut], stream[cut:], err)
			} else if got != stream[len(head):] {
				t.Errorf("%q | %q: the service's bytes are %q", stream[:cut], stream[cut:], got)
			}
		}
		got, err := negotiateOver(t, strings.Split(stream, "")...)
		if err != nil || got != stream[len(head):] {
			t.Errorf("%q byte by byte: %q, %v", stream, got, err)
		}
	}
}

// negotiateOver lets negotiate read the chunks one a time, and returns what is
// left for the service: what negotiate gave back, and what it did not read.
func negotiateOver(t *testing.T, chunks ...string) (string, error) {
	t.Helper()
	ours, theirs := net.Pipe() // a write is read on its own, never with the next
	deadline := time.Now().Add(bound)
	ours.SetDeadline(deadline)
	theirs.SetDeadline(deadline)
	done := make(chan bool)
	go func() {
		defer close(done)
		defer theirs.Close()
		bufio.NewReader(theirs).ReadString('\n')
		for _, chunk := range chunks {
			io.WriteString(theirs, chunk)
		}
	}()
	rest, err := negotiate(ours, []byte("x\r\n"))
	if err != nil {
		ours.Close()
		<-done
		return "", err
	}
	unread, err := io.ReadAll(ours)
	ours.Close()
	<-done
	return string(rest) + string(unread), err
}
