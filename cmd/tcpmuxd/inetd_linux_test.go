// An inetd.conf as it is, run by the daemon: what it serves, what it says of the
// lines that it cannot serve, and what a reload makes of a changed file.

package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestInetdConf(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	conf, socket := filepath.Join(dir, "inetd.conf"), filepath.Join(dir, "sock")
	hello, who, built, udp, moved := local(t), local(t), local(t), local(t), local(t)
	_, builtPort, _ := net.SplitHostPort(built)
	write := func(hello string) {
		t.Helper()
		text := fmt.Sprintf(`# An inetd.conf as it may be.
%s	stream	tcp	nowait	root	/bin/echo	echo hello	world
%s	stream	tcp	nowait.50	nobody	/bin/sh	sh -c id<&0
127.0.0.1:
%s	stream	tcp4	nowait	nobody	/bin/cat
*:
%s	dgram	udp	wait	nobody	/bin/sh	sh %s
%s	stream	unix	nowait	root	/bin/echo	echo unix
nonesuch	stream	tcp	nowait	root	/bin/echo	echo
broken	stream	tcp
`, hello, who, builtPort, udp, filepath.Join(dir, "answer"), socket)
		if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(hello)
	d, waitFor := launchOn(t, conf)
	waitFor("msg=serving")
	for _, what := range []string{
		conf + `:1:1: read as OpenBSD's and Debian's inetd.conf`,
		conf + `:9:1: row \"nonesuch\": listen: there is no port for it`,
		conf + `:10:1: broken: the line has 3 of at least 6 columns`,
	} {
		waitFor(what)
	}
	expect(t, "", hello, "", "hello world\n")
	if got, err := talk("", who, ""); err != nil || !strings.Contains(got, "(nobody)") {
		t.Errorf("who: %q, %v", got, err)
	}
	expect(t, "", built, "what comes goes", "what comes goes")
	if got := readAll(t, dialUnix(t, "unix", socket, 0, 0)); got != "unix\n" {
		t.Errorf("unix: %q", got)
	}
	// A file with one line more broken and one moved: the rest goes on.
	write(moved)
	d.signal(syscall.SIGHUP)
	waitFor("msg=reloaded")
	expect(t, "", moved, "", "hello world\n")
	if c, err := net.DialTimeout("tcp", hello, time.Second); err == nil {
		c.Close()
		t.Errorf("%s is still served", hello)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

// TestInetdTakenPort: a line whose port somebody else has, a server that an earlier
// daemon has left for example, is served when the port is free, and keeps no other
// line waiting. If all of them are taken the daemon does not start.
func TestInetdTakenPort(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken, free := l.Addr().String(), local(t)
	c := callAs(t, "inetd")
	line := "%s stream tcp4 nowait root /bin/echo echo %s\n"
	c.write("all.conf", line, taken, "taken")
	if code, said := c.run("-e", "-pmy.pid", "all.conf"); code != 1 || !strings.Contains(said, "address already in use") {
		t.Errorf("exit code %d: %s", code, said)
	}
	c.write("my.conf", line+line, taken, "taken", free, "free")
	if code, said := c.run("-e", "-pmy.pid", "my.conf"); code != 0 {
		t.Fatalf("exit code %d: %s", code, said)
	}
	pid := c.daemon("my.pid")
	if !poll(bound, func() bool { return strings.Contains(c.read("log"), "address is not free") }) {
		t.Errorf("the log does not say that a port is taken:\n%s", c.read("log"))
	}
	expect(t, "", free, "", "free\n")
	syscall.Kill(pid, syscall.SIGHUP) // it goes on waiting
	l.Close()
	if !poll(bound, func() bool { got, err := talk("", taken, ""); return err == nil && got == "taken\n" }) {
		t.Errorf("the line is not served when the port is free:\n%s", c.read("log"))
	}
	expect(t, "", free, "", "free\n")
	c.end(pid, syscall.SIGTERM)
}
