// What may come later, or go and come back: users, addresses, programs. None of
// it needs a reload. Users and addresses are changed in namespaces of the
// daemon's own.

package main_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// privateEtc makes a copy of what the daemon reads in /etc, and the command that
// runs it with the copy in the place of /etc. The copy is a directory of the
// same file system for both, so what the test renames there the daemon sees.
func privateEtc(t *testing.T) (dir string, wrap []string) {
	t.Helper()
	dir = filepath.Join(tempDir(t), "etc")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"passwd", "group", "nsswitch.conf", "services", "ld.so.cache"} {
		text, err := os.ReadFile("/etc/" + name)
		if err != nil {
			continue // not every system has all of them
		}
		writeFile(t, filepath.Join(dir, name), 0o644, string(text))
	}
	return dir, []string{find(t, "unshare"), "--mount", "--propagation", "private",
		"/bin/sh", "-c", `mount --bind "$0" /etc && exec "$@"`, dir}
}

// A user that vanishes takes its row out of service, and no other one; when it
// is back, with another number even, so is the row.
func TestUserVanishes(t *testing.T) {
	t.Parallel()
	etc, wrap := privateEtc(t)
	passwd, err := os.ReadFile(etc + "/passwd")
	if err != nil {
		t.Fatal(err)
	}
	// As useradd(8) does: a new file, renamed into place.
	users := func(more string) {
		t.Helper()
		writeFile(t, etc+"/passwd+", 0o644, string(passwd)+more)
		if err := os.Rename(etc+"/passwd+", etc+"/passwd"); err != nil {
			t.Fatal(err)
		}
	}
	users("guest:x:31001:31001::/:/bin/sh\n")
	mux, direct := local(t), local(t)
	const script = `exec = ["/bin/sh", "-c", "echo $(id -u) $(id -g)"]`
	d := serveAs(t, both(mux, direct, "guest", script+"\nuser = \"guest\"\n")+
		"[service.\"tcpmux/+nobody\"]\n"+script+"\nuser = \"nobody\"\n", &how{wrap: wrap})
	served := func(who string) {
		t.Helper()
		expect(t, "", mux, "guest\r\n", replyGo+who)
		expect(t, "", direct, "", who)
		expect(t, "", mux, "nobody\r\n", replyGo+"65534 65534\n")
	}
	served("31001 31001\n")

	users("")
	d.waitForN(1, "users read again")
	for _, row := range []string{"guest", "tcpmux/+guest"} {
		if e := d.waitFor("row refuses", "service", row); !strings.Contains(e.text("reason"), "guest") {
			t.Errorf("the reason is %q", e.text("reason"))
		}
	}
	expect(t, "", mux, "guest\r\n", replyNo)
	expect(t, "", mux, "help\r\n", "nobody\r\n")
	if c := dial(t, "", direct); !turnedAway(c) {
		t.Error("the direct row of a user who is not there serves")
	}
	d.waitFor("refuse", "service", "guest", "reason", "row")
	expect(t, "", mux, "nobody\r\n", replyGo+"65534 65534\n")

	users("guest:x:31002:31003::/:/bin/sh\n")
	d.waitForN(2, "users read again")
	served("31002 31003\n")

	// A reload is asked for by somebody who can mend the table: there an
	// unknown user is an error, and the old table runs on.
	users("")
	d.waitForN(3, "users read again")
	n := len(d.events("reload failed, the old table runs on"))
	d.signal(unix.SIGHUP)
	if e := d.waitForN(n+1, "reload failed, the old table runs on")[n]; !strings.Contains(e.text("error"), "guest") {
		t.Errorf("the error is %q", e.text("error"))
	}
	users("guest:x:31001:31001::/:/bin/sh\n")
	d.waitForN(4, "users read again")
	served("31001 31001\n")
}

// An address that comes up after the daemon is listened on without a reload.
func TestAddressAppears(t *testing.T) {
	t.Parallel()
	ip := find(t, "ip")
	row := func(id, addr string) string { return sayRow(id, addr, id) }
	const (
		late4, late6 = "192.0.2.7:1007", "[2001:db8::7]:1007"
		muxed        = "192.0.2.7:1"
	)
	d := serveAs(t, jsonLog+row("four", late4)+row("six", late6)+row("loop", "127.0.0.1:1007")+fmt.Sprintf(`
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+hello"]
exec = ["/bin/echo", "hello"]
user = "nobody"
`, muxed), &how{wrap: []string{find(t, "unshare"), "--net", "/bin/sh", "-c", `"$0" link set lo up && exec "$@"`, ip}})
	for _, id := range []string{"four", "six", "tcpmux"} {
		d.waitFor("address is not up", "service", id)
	}
	set := func(args ...string) {
		t.Helper()
		inNetworkOf(t, d.pid, func() { must(t, exec.Command(ip, args...)) })
	}
	listening := func(id string, n int) {
		t.Helper()
		d.waitForN(n, "listen", "service", id)
	}
	set("address", "add", "192.0.2.7/32", "dev", "lo")
	listening("four", 1)
	listening("tcpmux", 1)
	set("address", "add", "2001:db8::7/128", "dev", "lo", "nodad")
	listening("six", 1)
	inNetworkOf(t, d.pid, func() {
		expect(t, "", late4, "", "four\n")
		expect(t, "", late6, "", "six\n")
		expect(t, "", "127.0.0.1:1007", "", "loop\n")
		expect(t, "", muxed, "HELLO\r\n", replyGo+"hello\n")
	})
	// An address that goes and comes back needs nothing: the socket has stayed.
	set("address", "del", "192.0.2.7/32", "dev", "lo")
	set("address", "add", "192.0.2.7/32", "dev", "lo")
	inNetworkOf(t, d.pid, func() { expect(t, "", late4, "", "four\n") })
	// A reload counts as a new try as well, and keeps what is up.
	d.reload(jsonLog + row("four", late4) + row("six", late6))
	inNetworkOf(t, d.pid, func() { expect(t, "", late6, "", "six\n") })
	if n := len(d.events("listen", "service", "six")); n != 1 {
		t.Errorf("six was listened on %d times, want once", n)
	}
}

// inNetworkOf runs f on a thread in the network of another process. What f
// starts or connects is there, too.
func inNetworkOf(t *testing.T, pid int, f func()) {
	t.Helper()
	done := make(chan error)
	go func() {
		var err error
		// Not unlocked: the thread ends with its goroutine, and nobody else
		// gets it.
		runtime.LockOSThread()
		defer func() { done <- err }()
		var ns *os.File
		if ns, err = os.Open(fmt.Sprintf("/proc/%d/ns/net", pid)); err != nil {
			return
		}
		defer ns.Close()
		if err = unix.Setns(int(ns.Fd()), unix.CLONE_NEWNET); err == nil {
			f()
		}
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

// A program that is not there yet is a warning, and "-" until it is. Nothing has
// to be reloaded, and no other row is kept waiting.
func TestProgramAppears(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	program := filepath.Join(dir, "program")
	mux, direct := local(t), local(t)
	d := serve(t, both(mux, direct, "late", fmt.Sprintf("exec = [%q]\nuser = \"nobody\"", program)))
	if e := d.waitFor("configuration"); !strings.Contains(e.text("at"), program) {
		t.Errorf("the warning is %q", e.text("at"))
	}
	refused := func() {
		t.Helper()
		expect(t, "", mux, "late\r\n", replyNo)
		if c := dial(t, "", direct); !turnedAway(c) {
			t.Error("the direct row serves")
		}
	}
	refused()
	writeFile(t, program, 0o700, "#!/bin/sh\necho here\n") // root's alone
	refused()
	if err := os.Chmod(program, 0o755); err != nil {
		t.Fatal(err)
	}
	expect(t, "", mux, "late\r\n", replyGo+"here\n")
	expect(t, "", direct, "", "here\n")
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	refused()
}

// What cannot be executed gets "-" and never "+Go" and then nothing; only what
// the kernel finds out while it reads the program is told by a reset.
func TestExecFailureIsRefused(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	if err := os.Mkdir(dir+"/directory", 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("nowhere", dir+"/dangling"); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mkfifo(dir+"/pipe", 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(dir+"/closed/in", 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, dir+"/closed/program", 0o755, "#!/bin/sh\n")
	writeFile(t, dir+"/plain", 0o644, "#!/bin/sh\n")
	writeFile(t, dir+"/private", 0o750, "#!/bin/sh\n")
	writeFile(t, dir+"/badinterpreter", 0o755, "#!/no/such/interpreter\n")
	writeFile(t, dir+"/notext", 0o755, "\x01\x02\x03 no program")
	mux := local(t)
	table := jsonLog + fmt.Sprintf("[defaults]\nuser = \"nobody\"\n[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = [%q]\n", mux)
	before := []string{"missing", "directory", "dangling", "pipe", "plain", "plain/below", "private", "closed/program"}
	after := []string{"badinterpreter", "notext"}
	for _, name := range append(before, after...) {
		table += fmt.Sprintf("[service.\"tcpmux/+%s\"]\nexec = [%q]\n", strings.ReplaceAll(name, "/", "-"), dir+"/"+name)
	}
	table += "[service.\"tcpmux/+badcwd\"]\nexec = [\"/bin/echo\", \"in\"]\ncwd = \"" + dir + "/closed\"\n"
	for _, args := range [][]string{nil, {"-portable-spawn"}} {
		d := serveAs(t, table, &how{args: args})
		for _, name := range append(before, "badcwd") {
			name := strings.ReplaceAll(name, "/", "-")
			// The twin cannot see what only the child's user is denied.
			if args != nil && (name == "private" || name == "closed-program" || name == "badcwd") {
				expectReset(t, mux, name)
			} else {
				expect(t, "", mux, name+"\r\n", replyNo)
			}
			d.waitFor("cannot start", "service", "tcpmux/+"+name)
		}
		for _, name := range after {
			expectReset(t, mux, name)
			d.waitFor("cannot start", "service", "tcpmux/+"+name)
		}
		if n := len(d.events("start")); n != 0 {
			t.Errorf("%d starts are in the log", n)
		}
		if code := d.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// expectReset asks for a service that turns out not to run when it is too late
// to say so.
func expectReset(t *testing.T, mux, name string) {
	t.Helper()
	got, err := talk("", mux, name+"\r\n")
	if !errors.Is(err, syscall.ECONNRESET) || got != replyGo && got != "" {
		t.Errorf("%q is answered %q, %v; want +Go and a reset", name, got, err)
	}
}
