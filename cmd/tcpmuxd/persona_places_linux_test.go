// Where the lines of an inetd.conf listen, as GNU inetutils' own scripts expect it of
// an inetd, and what happens to files when the daemon goes its way.

package main_test

import (
	"fmt"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestInetdPlaces: services that are numbers, ADDRESS:PORT, IPv6 without brackets, a
// name of a host, each family by its word, and one port for a line of each.
func TestInetdPlaces(t *testing.T) {
	t.Parallel()
	c := callAs(t, "inetutils-inetd")
	port := func() string { _, p, _ := net.SplitHostPort(local(t)); return p }
	p := []any{port(), port(), port(), port(), port(), port(), port()}
	answer := func(word string) string {
		return `wait root /usr/bin/perl perl -e 'open S, "+<&=0"; $p = recv S, $b, 99, 0; send S, "` + word + ` $b", 0, $p'`
	}
	c.write("my.conf", `
127.0.0.1:%[1]s stream tcp4 nowait root /bin/echo echo address
::1:%[1]s       stream tcp6 nowait root /bin/echo echo no brackets
[::1]:%[2]s     stream tcp6 nowait root /bin/echo echo brackets
127.0.0.1,::1:%[3]s stream tcp nowait root /bin/echo echo list
%[4]s stream tcp4 nowait root /bin/echo echo four
%[4]s stream tcp6 nowait root /bin/echo echo six
localhost:%[5]s stream tcp nowait root /bin/echo echo name
localhost:%[5]s stream tcp6 nowait root /bin/echo echo name six
%[6]s dgram udp4 `+answer("four")+`
%[6]s dgram udp6 `+answer("six")+`
::1:%[7]s dgram udp6 `+answer("no brackets")+`
127.0.0.1:%[7]s dgram udp4 `+answer("address")+`
host.invalid:%[7]s stream tcp4 nowait root /bin/echo echo nowhere
`, p...)
	if code, said := c.run("-pmy.pid", "my.conf"); code != 0 || said != "" {
		t.Fatalf("exit code %d, %s", code, said)
	}
	pid := c.daemon("my.pid")
	for _, tt := range []struct {
		host string
		port int
		want string
	}{
		{"127.0.0.1", 0, "address"}, {"::1", 0, "no brackets"}, {"::1", 1, "brackets"}, {"127.0.0.1", 2, "list"}, {"::1", 2, "list"},
		{"127.0.0.1", 3, "four"}, {"::1", 3, "six"}, {"127.0.0.1", 4, "name"}, {"::1", 4, "name six"},
	} {
		expect(t, "", net.JoinHostPort(tt.host, p[tt.port].(string)), "", tt.want+"\n")
	}
	refused(t, net.JoinHostPort("127.0.0.1", p[1].(string)))
	refused(t, net.JoinHostPort("127.0.0.1", p[6].(string))) // the name is unknown
	for _, tt := range []struct {
		host string
		port int
		want string
	}{{"127.0.0.1", 5, "four"}, {"::1", 5, "six"}, {"::1", 6, "no brackets"}, {"127.0.0.1", 6, "address"}} {
		addr := net.JoinHostPort(tt.host, p[tt.port].(string))
		if got := askUDP(t, addr, "hello"); got != tt.want+" hello" {
			t.Errorf("udp %s says %q, want %q", addr, got, tt.want)
		}
	}
	c.end(pid, syscall.SIGTERM)
	c.gone("my.pid")
}

// askUDP sends a datagram and returns the answer.
func askUDP(t *testing.T, addr, say string) string {
	t.Helper()
	conn, err := net.Dial("udp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(bound))
	if _, err := conn.Write([]byte(say)); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	n, err := conn.Read(b)
	if err != nil {
		t.Errorf("%s: %v", addr, err)
	}
	return string(b[:n])
}

// TestInetdDirectory: files and directories together, by names of the directory that
// the daemon was started in, which it finds again at every SIGHUP.
func TestInetdDirectory(t *testing.T) {
	t.Parallel()
	c := callAs(t, "inetutils-inetd")
	if err := os.Mkdir(c.path("my.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	one, two, three := local(t), local(t), local(t)
	const line = "%s stream tcp4 nowait root /bin/echo echo %s\n"
	c.write("my.conf", line, one, "one")
	c.write("my.d/two", line, two, "two")
	if code, said := c.run("--pidfil=my.pid", "--rat", "500", "my.conf", "my.d"); code != 0 || said != "" {
		t.Fatalf("exit code %d, %s", code, said)
	}
	pid := c.daemon("my.pid")
	expect(t, "", one, "", "one\n")
	expect(t, "", two, "", "two\n")
	c.write("my.d/three", line, three, "three")
	if err := os.Remove(c.path("my.d/two")); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGHUP)
	if !poll(bound, func() bool { got, err := talk("", three, ""); return err == nil && got == "three\n" }) {
		t.Error("SIGHUP does not read the directory again")
	}
	refused(t, two)
	expect(t, "", one, "", "one\n")
	c.end(pid, syscall.SIGTERM)
}

// TestXinetdLogRotated: whoever rotates the log gives the file another name and sends
// SIGHUP; the old file has all lines until then, the new one those from there on.
func TestXinetdLogRotated(t *testing.T) {
	t.Parallel()
	c := callAs(t, "xinetd")
	at := local(t)
	_, port, _ := net.SplitHostPort(at)
	c.write("x.conf", "service hello\n{\n\ttype = UNLISTED\n\tport = %s\n\tbind = localhost\n\tflags = IPv4\n\tsocket_type = stream\n\twait = no\n\tuser = root\n\tserver = /bin/echo\n\tserver_args = hello\n}\n", port)
	if code, said := c.run("-f", "x.conf", "-filelog", "x.log", "-pidfile", "x.pid"); code != 0 {
		t.Fatalf("exit code %d, %s", code, said)
	}
	pid := c.daemon("x.pid")
	serve := func(file string, n int) {
		t.Helper()
		expect(t, "", at, "", "hello\n")
		if !poll(bound, func() bool { return strings.Count(c.read(file), "msg=end") == n }) {
			t.Errorf("%s has not %d ends:\n%s", file, n, c.read(file))
		}
	}
	serve("x.log", 1)
	if err := os.Rename(c.path("x.log"), c.path("x.log.1")); err != nil {
		t.Fatal(err)
	}
	serve("x.log.1", 2) // nobody has said so yet
	syscall.Kill(pid, syscall.SIGHUP)
	if !poll(bound, func() bool { return strings.Contains(c.read("x.log"), "msg=reloaded") }) {
		t.Fatalf("the log is not opened again:\n%s", c.read("x.log.1"))
	}
	serve("x.log", 1)
	// A file that cannot be opened is said in the old one.
	if err := os.Remove(c.path("x.log")); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(c.path("x.log"), 0o755); err != nil {
		t.Fatal(err)
	}
	syscall.Kill(pid, syscall.SIGHUP)
	fd := ""
	if !poll(bound, func() bool {
		for n := range 64 {
			link := fmt.Sprintf("/proc/%d/fd/%d", pid, n)
			if target, _ := os.Readlink(link); strings.HasPrefix(target, c.path("x.log")) {
				fd = link
			}
		}
		text, _ := os.ReadFile(fd)
		return strings.Contains(string(text), "cannot open the log again")
	}) {
		t.Errorf("nothing is said of a log that cannot be opened, in %q", fd)
	}
	expect(t, "", at, "", "hello\n")
	c.end(pid, syscall.SIGTERM)
}
