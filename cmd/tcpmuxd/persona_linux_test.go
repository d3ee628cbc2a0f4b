// The daemon under other names: as inetd and as xinetd it has their command line,
// goes into the background, and is found by its pid file.

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// A called is a directory with the program under another name in it.
type called struct {
	*testing.T
	dir, program string
}

func callAs(t *testing.T, name string) *called {
	t.Helper()
	needRoot(t)
	c := &called{T: t, dir: tempDir(t)}
	c.program = filepath.Join(c.dir, name)
	if err := os.Symlink(programs.checked, c.program); err != nil {
		t.Fatal(err)
	}
	return c
}

func (c *called) path(name string) string { return filepath.Join(c.dir, name) }

// command is the program, to be started in the directory, with stderr in the file
// "log" there.
func (c *called) command(args ...string) *exec.Cmd {
	c.Helper()
	cmd := exec.Command(c.program, args...)
	cmd.Dir = c.dir
	cmd.Env = []string{"PATH=/usr/bin:/bin", "GORACE=atexit_sleep_ms=0 exitcode=66", "MARK=passed on"}
	log, err := os.OpenFile(c.path("log"), os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o644)
	if err != nil {
		c.Fatal(err)
	}
	c.Cleanup(func() { log.Close() })
	cmd.Stderr = log
	return cmd
}

// run runs the program until it exits, and returns with what, and what it has said.
func (c *called) run(args ...string) (code int, said string) {
	c.Helper()
	cmd := c.command(args...)
	out, err := cmd.Output()
	if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
		c.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out) + c.read("log")
}

func (c *called) read(name string) string {
	text, _ := os.ReadFile(c.path(name))
	return string(text)
}

func (c *called) write(name, format string, args ...any) {
	c.Helper()
	writeFile(c.T, c.path(name), 0o644, fmt.Sprintf(format, args...))
}

// daemon is the process of a pid file, which has come to this one: it is ended with
// the test if it has not been.
func (c *called) daemon(pidFile string) int {
	c.Helper()
	pid, err := strconv.Atoi(strings.TrimSuffix(c.read(pidFile), "\n"))
	if err != nil || !slices.Contains(children(os.Getpid()), pid) {
		c.Fatalf("the pid file has %q: %v\n%s", c.read(pidFile), err, c.read("log"))
	}
	c.Cleanup(func() {
		if slices.Contains(children(os.Getpid()), pid) {
			reap(pid)
		}
	})
	return pid
}

// end ends a daemon in the background by a signal.
func (c *called) end(pid int, sig syscall.Signal) {
	c.Helper()
	syscall.Kill(pid, sig)
	var status syscall.WaitStatus
	if !poll(bound, func() bool {
		got, err := syscall.Wait4(pid, &status, syscall.WNOHANG, nil)
		return got == pid || err != nil && !errors.Is(err, syscall.EINTR)
	}) {
		c.Fatalf("the daemon does not end by %v", sig)
	}
	if status.ExitStatus() != 0 {
		c.Errorf("%v: wait status %#x\n%s", sig, status, c.read("log"))
	}
}

func (c *called) gone(name string) {
	c.Helper()
	if _, err := os.Lstat(c.path(name)); !errors.Is(err, os.ErrNotExist) {
		c.Errorf("%s is still there: %v", name, err)
	}
}

func refused(t *testing.T, addr string) {
	t.Helper()
	if c, err := net.DialTimeout("tcp", addr, time.Second); err == nil {
		c.Close()
		t.Errorf("%s is served", addr)
	}
}

// TestInetd: GNU's own scripts start it so; relative names, a port that moves.
func TestInetd(t *testing.T) {
	t.Parallel()
	c := callAs(t, "inetd")
	at, moved := local(t), local(t)
	c.write("my.conf", "%s stream tcp4 nowait root /bin/sh sh -c echo$IFS$MARK;pwd\n", at)
	if code, said := c.run("-ElR100", "-pmy.pid", "my.conf"); code != 0 || said != "" {
		t.Fatalf("exit code %d, %s", code, said)
	}
	pid := c.daemon("my.pid")
	expect(t, "", at, "", "passed on\n/\n")
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	_, after, _ := bytes.Cut(stat, []byte(") "))
	var session int
	fmt.Sscanf(string(after), "%s %d %d %d", new(string), new(int), new(int), &session)
	if session != pid || !bytes.Contains(stat, []byte(" (inetd) ")) {
		t.Errorf("no session of its own, or another name: %s", stat)
	}
	for fd := range 3 {
		if target, _ := os.Readlink(fmt.Sprintf("/proc/%d/fd/%d", pid, fd)); target != os.DevNull {
			t.Errorf("descriptor %d is %s", fd, target)
		}
	}
	if code, said := c.run("-pmy.pid", "my.conf"); code != 1 || !strings.Contains(said, fmt.Sprintf("runs already, as process %d", pid)) {
		t.Errorf("a second one: exit code %d, %s", code, said)
	}
	c.write("my.conf", "%s stream tcp4 nowait root /bin/echo echo moved\n", moved)
	syscall.Kill(pid, syscall.SIGHUP)
	if !poll(bound, func() bool { got, err := talk("", moved, ""); return err == nil && got == "moved\n" }) {
		t.Error("SIGHUP does not move the port")
	}
	refused(t, at)
	c.end(pid, syscall.SIGTERM)
	c.gone("my.pid")
	refused(t, moved)
}

// TestInetdForeground: the log on standard error, and the pid file all the same.
func TestInetdForeground(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{{"inetd", "-d", "--pidfile=my.pid"}, {"-i", "-w"}, {"-fp", "my.pid"}} {
		c := callAs(t, map[bool]string{true: "tcpmuxd", false: "openbsd-inetd"}[args[0] == "inetd"])
		if args[0] == "-i" {
			args = append(args, "-pmy.pid")
		}
		at := local(t)
		c.write("my.conf", "%s stream tcp4 nowait root /bin/echo echo hello\n", at)
		cmd := c.command(append(args, "my.conf")...)
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if !poll(bound, func() bool { return strings.HasSuffix(c.read("my.pid"), "\n") }) {
			t.Errorf("%q: no pid file\n%s", args, c.read("log"))
		}
		if got := c.daemon("my.pid"); got != cmd.Process.Pid {
			t.Errorf("%q: the pid file has %d, want %d", args, got, cmd.Process.Pid)
		}
		expect(t, "", at, "", "hello\n")
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("%q: %v", args, err)
		}
		c.gone("my.pid")
		if log := c.read("log"); !strings.Contains(log, "msg=serving") || strings.Contains(log, "tcp_wrappers") {
			t.Errorf("%q: the log is\n%s", args, log)
		}
	}
}

// TestInetdFlags: what the flags say of the rows, and what is no command line.
func TestInetdFlags(t *testing.T) {
	t.Parallel()
	c := callAs(t, "inetd")
	at := local(t)
	_, port, _ := net.SplitHostPort(at)
	c.write("my.conf", "%s stream tcp nowait root /bin/cat cat\n", port)
	code, said := c.run("-e", "-a", "localhost", "-s1", "-C", "0", "-c5", "-q20", "-R", "0", "--resolve", "--environment", "--dialect=freebsd", "my.conf", "-p", "my.pid")
	if code != 0 || !strings.Contains(said, "TCPREMOTEHOST") {
		t.Fatalf("exit code %d, %s", code, said)
	}
	pid := c.daemon("my.pid")
	first := dial(t, "", at)
	echo(t, first, "first\n")
	if got, err := talk("", at, ""); err != nil || got != "" {
		t.Errorf("a second of the same source: %q, %v", got, err)
	}
	if !poll(bound, func() bool { return strings.Contains(c.read("log"), "instances_per_source") }) {
		t.Errorf("the log is not on standard error:\n%s", c.read("log"))
	}
	first.Close()
	c.end(pid, syscall.SIGTERM)
	for _, tt := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--version"}, 0, "tcpmuxd"},
		{[]string{"--help"}, 0, "usage: inetd"},
		{[]string{"-Z"}, 64, "no option -Z"},
		{[]string{"-R", "many"}, 64, "write a number"},
		{[]string{"-a", "host:1"}, 64, "write an address"},
		{[]string{"-R"}, 64, "needs a value"},
		{[]string{"--frob"}, 64, "no option --frob"},
		{[]string{"--d", "my.conf"}, 64, "--d is one of --debug, --dialect"},
		{[]string{"--vers"}, 0, "tcpmuxd"},
		{[]string{"--dialect", "frob"}, 64, "there is no dialect"},
		{[]string{"-pnew.pid", "nonesuch.conf"}, 1, "nonesuch.conf cannot be read"},
		{[]string{"-p", "my.conf", "my.conf"}, 1, "is no pid file"},
		{[]string{"-p/nonesuch/pid", "my.conf"}, 1, "no such file"},
	} {
		if code, said := c.run(tt.args...); code != tt.code || !strings.Contains(said, tt.says) {
			t.Errorf("%q: exit code %d, want %d and %q:\n%s", tt.args, code, tt.code, tt.says, said)
		}
		os.Remove(c.path("log"))
	}
	c.gone("new.pid")
}

// TestXinetd: its options, its log file, and which signal leaves servers.
func TestXinetd(t *testing.T) {
	t.Parallel()
	for sig, leaves := range map[syscall.Signal]bool{syscall.SIGTERM: false, syscall.SIGQUIT: true} {
		c := callAs(t, "xinetd")
		at := local(t)
		_, port, _ := net.SplitHostPort(at)
		c.write("x.conf", "service cat\n{\n\ttype = UNLISTED\n\tport = %s\n\tbind = 127.0.0.1\n\tsocket_type = stream\n\twait = no\n\tuser = root\n\tserver = /bin/cat\n}\n", port)
		args := []string{"-f", "x.conf", "-filelog", "x.log", "-pidfile", "x.pid", "-stayalive", "-cc", "60", "-limit", "1"}
		if code, said := c.run(args...); code != 0 {
			t.Fatalf("exit code %d, %s", code, said)
		}
		pid := c.daemon("x.pid")
		conn := dial(t, "", at)
		echo(t, conn, "before\n")
		if got, err := talk("", at, ""); err != nil || got != "" {
			t.Errorf("more than -limit: %q, %v", got, err)
		}
		server := children(pid)
		syscall.Kill(pid, syscall.SIGUSR1)
		if !poll(bound, func() bool { return strings.Contains(c.read("x.log"), "msg=instances") }) {
			t.Errorf("SIGUSR1 leaves nothing in the log:\n%s", c.read("x.log"))
		}
		c.end(pid, sig)
		if leaves {
			echo(t, conn, "after\n")
			conn.Close()
			for _, p := range server {
				reap(p)
			}
		} else if got := readAll(t, conn); got != "" {
			t.Errorf("after %v: %q", sig, got)
		}
		c.gone("x.pid")
		if log := c.read("x.log"); !strings.Contains(log, "-cc asks for checks") || !strings.Contains(log, "msg=stopped") {
			t.Errorf("the log is\n%s", log)
		}
	}
	c := callAs(t, "xinetd")
	for args, says := range map[string]string{"-version": "tcpmuxd", "-h": "usage: xinetd", "-limit x": "invalid value", "more": "unexpected argument", "-syslog frob": "there is no syslog facility"} {
		if _, said := c.run(strings.Fields(args)...); !strings.Contains(said, says) {
			t.Errorf("%s: %s", args, said)
		}
		os.Remove(c.path("log"))
	}
}

// TestRestartWithoutPause: who starts a daemon as soon as another one has a signal, as
// init scripts do, gets one that serves. A port that the first one still has, or its
// pid file, is in nobody's way.
func TestRestartWithoutPause(t *testing.T) {
	t.Parallel()
	c := callAs(t, "inetd")
	at := local(t)
	c.write("my.conf", "%s stream tcp4 nowait root /bin/echo echo hello\n", at)
	start := func() int {
		if code, said := c.run("-e", "-pmy.pid", "my.conf"); code != 0 {
			t.Fatalf("exit code %d: %s", code, said)
		}
		return c.daemon("my.pid")
	}
	pid := start()
	for range 5 {
		syscall.Kill(pid, syscall.SIGTERM)
		// That is what they look at.
		if !poll(bound, func() bool { return strings.TrimSpace(c.read("my.pid")) == "" }) {
			t.Fatalf("the pid file has %q", c.read("my.pid"))
		}
		next := start()
		expect(t, "", at, "", "hello\n")
		c.end(pid, 0)
		pid = next
	}
	c.end(pid, syscall.SIGTERM)
	c.gone("my.pid")
}
