// Whose a connection is, asked of the daemon as it is shipped: by the machine at
// its other end, and by others.

package main_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// someone is a user of every Debian, by whom a test has a connection made.
const (
	someone    = "daemon"
	someoneUID = 1
)

// connection has a process of someone's connect to an address, and returns the
// ports of both ends.
func connection(t *testing.T, at string) (client, server string) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	_, server, _ = net.SplitHostPort(l.Addr().String())
	cmd := exec.Command("/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; read <&3", at, server))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: someoneUID, Gid: someoneUID}}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	l.(*net.TCPListener).SetDeadline(time.Now().Add(bound))
	c, err := l.Accept()
	t.Cleanup(func() {
		if c != nil {
			c.Close() // which ends its read
		}
		cmd.Process.Kill()
		cmd.Wait()
	})
	if err != nil {
		t.Fatal(err)
	}
	_, client, _ = net.SplitHostPort(c.RemoteAddr().String())
	return client, server
}

// askIdent asks from an address and returns the whole answer.
func askIdent(t *testing.T, from, to, question string) string {
	t.Helper()
	d := net.Dialer{Timeout: bound, LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}
	c, err := d.Dial("tcp", to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	if _, err := io.WriteString(c, question); err != nil {
		t.Fatal(err)
	}
	b, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func TestWhoseAConnectionIs(t *testing.T) {
	needRoot(t)
	t.Parallel()
	_, port, _ := net.SplitHostPort(local(t))
	_, hidden, _ := net.SplitHostPort(local(t))
	d := serve(t, jsonLog+fmt.Sprintf(`
[service.auth]
builtin = "auth"
listen = ["0.0.0.0:%[1]s", "[::1]:%[1]s"]
ident = { reply = "name", fakeid = "any", noident = true }
[service.hidden]
builtin = "auth"
listen = "127.0.0.1:%[2]s"
`, port, hidden))
	v4, v4Server := connection(t, "127.0.0.2")
	v6, v6Server := connection(t, "::1")
	v4Ports, v6Ports := v4+", "+v4Server, v6+", "+v6Server
	const told, nobody = " : USERID : UNIX : " + someone + "\r\n", " : ERROR : NO-USER\r\n"
	for _, test := range []struct{ from, to, question, want string }{
		{"127.0.0.2", "127.0.0.1:" + port, v4Ports, v4Ports + told},
		{"::1", "[::1]:" + port, v6Ports, v6Ports + told},
		{"127.0.0.3", "127.0.0.1:" + port, v4Ports, v4Ports + nobody},
		{"127.0.0.2", "127.0.0.3:" + port, v4Ports, v4Ports + nobody},
		{"::1", "[::1]:" + port, v4Ports, v4Ports + nobody},
		{"127.0.0.1", "127.0.0.1:" + port, v6Ports, v6Ports + nobody},
		{"127.0.0.2", "127.0.0.1:" + hidden, v4Ports, v4Ports + " : ERROR : HIDDEN-USER\r\n"},
		{"127.0.0.2", "127.0.0.1:" + port, v4 + ", 65536", v4 + ", 65536 : ERROR : INVALID-PORT\r\n"},
		{"127.0.0.2", "127.0.0.1:" + port, strings.Repeat(" ", 4000) + v4Ports, "0, 0 : ERROR : INVALID-PORT\r\n"},
	} {
		if got := askIdent(t, test.from, test.to, test.question+"\r\n"); got != test.want {
			t.Errorf("%s asks %s %.40q: %q, want %q", test.from, test.to, test.question, got, test.want)
		}
	}
	d.waitFor("ident")
	if d.stop() != 0 {
		t.Error("it has not ended well")
	}
}
