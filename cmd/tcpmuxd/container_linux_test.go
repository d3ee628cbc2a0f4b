// The daemon as the first process of a container: who reaps, who is told to end,
// and how it ends itself.

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// asFirst starts a daemon as process 1, with a /proc to match. What the test
// knows it by is its number outside.
func asFirst(h *how) *how {
	h.clone = syscall.CLONE_NEWPID | syscall.CLONE_NEWNS
	h.wrap = []string{"/bin/sh", "-c", `mount --make-rprivate / && mount -t proc proc /proc && exec "$@"`, "sh"}
	return h
}

// containerTable has one direct row.
func containerTable(addr, program, more string) string {
	return fmt.Sprintf(jsonLog+`
grace = "100ms"
[defaults]
user = "root"
[service.row]
listen = [%q]
exec = ["/bin/sh", "-c", %q]
%s
`, addr, program, more)
}

// Orphans of children come to the daemon, which reaps them and takes none of them
// for an instance.
func TestFirstProcessReapsStrangers(t *testing.T) {
	t.Parallel()
	addr := local(t)
	d := serveAs(t, containerTable(addr, "( ( sleep 0.05; exit 7 ) & ) & echo $PPID; exit 3", ""), asFirst(&how{}))
	const n = 20
	for range n {
		expect(t, "", addr, "", "1\n")
	}
	d.waitForN(n, "end")
	for _, e := range d.events("end") {
		if e.text("status") != "3" {
			t.Errorf("%v", e)
		}
	}
	if !poll(bound, func() bool { return len(children(d.pid)) == 0 }) {
		t.Errorf("%d children are left, dead or alive", len(children(d.pid)))
	}
}

// A stop is told to everybody in the container, after the instances had their
// grace.
func TestFirstProcessEndsTheContainer(t *testing.T) {
	t.Parallel()
	addr := local(t)
	note := filepath.Join(tempDir(t), "note")
	// The orphan is nobody's instance; it notes that it was told.
	program := fmt.Sprintf(`( setsid sh -c 'trap "echo told >%s; exit" TERM; echo ready; while :; do sleep 0.02; done' & ) & exec cat`, note)
	d := serveAs(t, containerTable(addr, program, ""), asFirst(&how{}))
	c := dial(t, "", addr)
	hear(t, c, "ready\n")
	began := time.Now()
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	if took := time.Since(began); took < 100*time.Millisecond || took > 4*time.Second {
		t.Errorf("it took %v", took)
	}
	if b, _ := os.ReadFile(note); string(b) != "told\n" {
		t.Errorf("the orphan was not told: %q", b)
	}
	// on_stop is leave, and yet the log has the instance's end.
	if n := len(d.events("leave")); n != 0 {
		t.Error("the log says that an instance is left")
	}
	if e := d.waitFor("end"); e.text("signal") != "SIGTERM" {
		t.Errorf("%v", e)
	}
	d.waitFor("ending the container")
	d.waitFor("stopped")
}

// Whoever does not listen is killed with the container, at the latest after some
// seconds, and at once by a second signal.
func TestFirstProcessDoesNotHang(t *testing.T) {
	t.Parallel()
	const deaf = "trap '' TERM; ( setsid sleep 1000 & ) & echo deaf; exec cat"
	for _, hurry := range []bool{false, true} {
		t.Run(strconv.FormatBool(hurry), func(t *testing.T) {
			t.Parallel()
			addr := local(t)
			d := serveAs(t, containerTable(addr, deaf, ""), asFirst(&how{}))
			c := dial(t, "", addr)
			hear(t, c, "deaf\n")
			began := time.Now()
			d.signal(syscall.SIGTERM)
			d.waitFor("ending the container")
			if hurry {
				d.signal(syscall.SIGINT)
			}
			if code := d.wait(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if took := time.Since(began); hurry == (took > 4*time.Second) || took > 12*time.Second {
				t.Errorf("it took %v", took)
			}
			hearEnd(t, c, "")
			d.waitFor("what is left in the container is killed")
			if e := d.waitFor("end"); e.text("signal") != "SIGKILL" {
				t.Errorf("%v", e)
			}
		})
	}
}

// SIGHUP is for the servers of wait rows as much as for the daemon, as far as
// they can do something with it, and for no child of a connection.
func TestFirstProcessPassesHangupsOn(t *testing.T) {
	t.Parallel()
	conn, catches, ignorant := local(t), local(t), local(t)
	note := filepath.Join(tempDir(t), "note")
	program := fmt.Sprintf(`trap "echo told >>%s" HUP; echo >%s; while :; do sleep 0.02; done`, note, note+".up")
	table := containerTable(conn, "trap 'echo told' HUP; echo ready; cat", "on_stop = \"term\"") + fmt.Sprintf(`
[service.catches]
listen = [%q]
wait = true
exec = ["/bin/sh", "-c", %q]
[service.ignorant]
listen = [%q]
wait = true
exec = ["/bin/sleep", "1000"]
`, catches, program, ignorant)
	d := serveAs(t, table, asFirst(&how{}))
	c := dial(t, "", conn)
	hear(t, c, "ready\n")
	dial(t, "", catches)
	dial(t, "", ignorant)
	d.waitForN(3, "start")
	read := func(name string) string { b, _ := os.ReadFile(name); return string(b) }
	if !poll(bound, func() bool { return read(note+".up") != "" }) {
		t.Fatal("the server does not come up")
	}
	for i := range 2 {
		d.signal(syscall.SIGHUP)
		d.waitForN(i+1, "reloaded")
		if !poll(bound, func() bool { return read(note) == strings.Repeat("told\n", i+1) }) {
			t.Fatalf("the server was told %q", read(note))
		}
		if e := d.events("signal passed on")[i]; e.number("servers") != 1 {
			t.Errorf("%v", e)
		}
	}
	echo(t, c, "alive\n")
	if n := len(d.events("end")); n != 0 {
		t.Errorf("%d instances have ended: %v", n, d.events("end"))
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if n := len(d.running()); n != 0 {
		t.Errorf("the log knows of %d instances that still run", n)
	}
}

// It ends as it would elsewhere when there is nothing to serve.
func TestFirstProcessFails(t *testing.T) {
	t.Parallel()
	d := launch(t, "nonsense", asFirst(&how{words: true}))
	if code := d.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	taken := local(t)
	serve(t, containerTable(taken, "true", ""))
	d = launch(t, containerTable(taken, "true", ""), asFirst(&how{}))
	if code := d.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
}
