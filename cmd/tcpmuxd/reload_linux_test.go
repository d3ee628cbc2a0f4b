// Reloads: what a bad table does (nothing), and what a good one leaves alone.

package main_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// sayRow is a direct row that says something.
func sayRow(id, addr, what string) string {
	return fmt.Sprintf("[service.%s]\nlisten = [%q]\nexec = [\"/bin/echo\", %q]\nuser = \"nobody\"\n", id, addr, what)
}

// Whatever is wrong with the file, the old table runs on and the log says why.
// The daemon is nobody, because root can read everything.
func TestReloadOfBadFiles(t *testing.T) {
	t.Parallel()
	addr := local(t)
	row := func(what string) string {
		return fmt.Sprintf(jsonLog+"[service.a]\nlisten = [%q]\nexec = [\"/bin/echo\", %q]\n", addr, what)
	}
	d := serveAs(t, row("old"), &how{cred: &syscall.Credential{Uid: 65534, Gid: 65534}})
	for _, bad := range []struct {
		name  string
		spoil func() error
		says  string
	}{
		{"a syntax error", func() error { return os.WriteFile(d.path, []byte("[service.a]\nexec = [1, 2\n"), 0o644) }, "tcpmuxd.toml:"},
		{"two errors", func() error {
			return os.WriteFile(d.path, []byte("[service.a]\nexec = [\"date\"]\nlisten = [\"x\"]\n"), 0o644)
		}, "relative path"},
		{"missing", func() error { return nil }, "no such file"},
		{"unreadable", func() error { return os.WriteFile(d.path, []byte(row("unreadable")), 0) }, "permission denied"},
		{"empty", func() error { return os.WriteFile(d.path, nil, 0o644) }, "no row"},
		{"only comments", func() error { return os.WriteFile(d.path, []byte("# nothing\n\n"), 0o644) }, "no row"},
		{"huge", func() error {
			return os.WriteFile(d.path, []byte(row("huge")+strings.Repeat("# filler\n", 2<<20)), 0o644)
		}, "longer than"},
		{"a directory", func() error { return os.Mkdir(d.path, 0o755) }, "not a regular file"},
		{"a pipe without a writer", func() error { return unix.Mkfifo(d.path, 0o644) }, "not a regular file"},
		{"a loop of links", func() error { return os.Symlink("tcpmuxd.toml", d.path) }, "too many"},
		{"a user that is not ours", func() error { return os.WriteFile(d.path, []byte(row("user")+"user = \"root\"\n"), 0o644) }, "only root can"},
		{"an address in use", func() error {
			return os.WriteFile(d.path, []byte(row("one")+sayRow("b", addr, "two")), 0o644)
		}, "row \"a\""},
	} {
		if err := bad.spoil(); err != nil {
			t.Fatal(err)
		}
		n := len(d.events("reload failed, the old table runs on"))
		d.signal(syscall.SIGHUP)
		why := d.waitForN(n+1, "reload failed, the old table runs on")[n:]
		if !poll(bound, func() bool {
			why = d.events("reload failed, the old table runs on")[n:]
			for _, e := range why {
				if strings.Contains(strings.ToLower(e.text("error")), bad.says) {
					return true
				}
			}
			return false
		}) {
			t.Errorf("%s: the log says %v, and nothing of %q", bad.name, why, bad.says)
		}
		expect(t, "", addr, "", "old\n")
		if err := os.RemoveAll(d.path); err != nil {
			t.Fatal(err)
		}
	}
	d.reload(row("new"))
	expect(t, "", addr, "", "new\n")
}

// Debian #1050208, and the promise of tcpmuxd(8): sockets that both tables have
// are not closed. Who connects to them through a thousand reloads sees no
// failure, directly and by name, while another row comes and goes and a third
// changes all the time.
func TestThousandReloads(t *testing.T) {
	const reloads = 1000
	mux, kept, other := local(t), local(t), []string{local(t), local(t)}
	table := func(i int) string {
		row := fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
groups = []
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+kept"]
exec = ["/bin/echo", "kept"]
[service.kept]
listen = [%q]
exec = ["/bin/echo", "kept"]
[service.changed]
listen = [%q]
exec = ["/bin/echo", "%d"]
umask = "0%d"
limits = { instances = %d }
keepalive = %v
`, mux, kept, other[i%2], i, 22+i%3, 1+i, i%2 == 0)
		if i%2 == 0 {
			row += "[service.\"tcpmux/+guest\"]\nexec = [\"/bin/true\"]\n"
		}
		return row
	}
	d := serve(t, table(0))
	var done atomic.Bool
	var served [2]atomic.Int64
	var clients sync.WaitGroup
	for i, c := range []struct{ addr, say, want string }{{mux, "kept\r\n", replyGo + "kept\n"}, {kept, "", "kept\n"}} {
		clients.Go(func() {
			for !done.Load() {
				got, err := talk("", c.addr, c.say)
				if err != nil || got != c.want {
					t.Errorf("after %d: %q is answered %q, %v", served[i].Load(), c.say, got, err)
					return
				}
				served[i].Add(1)
			}
		})
	}
	began := time.Now()
	for i := 1; i <= reloads; i++ {
		d.write(table(i))
		d.signal(syscall.SIGHUP)
		d.waitForN(i, "reloaded")
		if t.Failed() || time.Since(began) > 2*bound {
			break
		}
	}
	done.Store(true)
	clients.Wait()
	t.Logf("%d reloads in %v; %d and %d connections", len(d.events("reloaded")), time.Since(began).Round(time.Millisecond), served[0].Load(), served[1].Load())
	for i := range served {
		if served[i].Load() < reloads/20 {
			t.Errorf("only %d connections were tried", served[i].Load())
		}
	}
	if n := len(d.events("reloaded")); n != reloads {
		t.Errorf("%d reloads of %d", n, reloads)
	}
	expect(t, "", other[reloads%2], "", fmt.Sprintln(reloads))
	if c, err := connect("", other[1]); err == nil {
		c.Close()
		t.Errorf("%s is still served", other[1])
	}
}

// NetBSD's inetd dropped every backlog on SIGHUP. Peers that wait in the
// kernel's queue for the one instance are served in their turn, also when the
// row changes meanwhile.
func TestReloadKeepsTheQueue(t *testing.T) {
	t.Parallel()
	addr := local(t)
	row := func(what string) string {
		return fmt.Sprintf(jsonLog+`
[service.a]
listen = [%q]
exec = ["/bin/sh", "-c", "echo %s; exec cat"]
user = "nobody"
limits = { instances = 1, overflow = "queue" }
`, addr, what)
	}
	d := serve(t, row("old"))
	conns := []*net.TCPConn{dial(t, "", addr)}
	hear(t, conns[0], "old\n")
	for range 5 {
		conns = append(conns, dial(t, "", addr)) // in the queue
	}
	d.reload(row("new"))
	echo(t, conns[0], "still here\n")
	for i, c := range conns {
		if i > 0 {
			hear(t, c, "new\n")
		}
		if n := len(children(d.pid)); n != 1 {
			t.Errorf("%d instances run, want 1", n)
		}
		c.CloseWrite()
		hearEnd(t, c, "")
	}
}

// FreeBSD's inetd forgot its count of children at a reload, so that their ends
// drove it below zero and the limit was gone; rlinetd started a second one of
// what may run once.
func TestLimitsOutliveReloads(t *testing.T) {
	t.Parallel()
	addr := local(t)
	row := func(instances int) string {
		return fmt.Sprintf(jsonLog+"[service.a]\nlisten = [%q]\nexec = [\"/bin/cat\"]\nuser = \"nobody\"\nlimits = { instances = %d }\n", addr, instances)
	}
	d := serve(t, row(2))
	admitted := func(want bool) *net.TCPConn {
		t.Helper()
		c := dial(t, "", addr)
		if want {
			echo(t, c, "in\n")
		} else if !turnedAway(c) {
			t.Fatal("one too many is let in")
		}
		return c
	}
	end := func(c *net.TCPConn) {
		c.CloseWrite()
		hearEnd(t, c, "")
	}
	ended := func(n int) { t.Helper(); d.waitForN(n, "end") }
	a, b := admitted(true), admitted(true)
	admitted(false)
	d.reload(row(3))
	c := admitted(true)
	admitted(false)
	d.reload(row(1)) // three run, and may go on
	echo(t, a, "on\n")
	admitted(false)
	end(a)
	end(b)
	ended(2)
	admitted(false) // c still runs
	d.reload(row(1))
	end(c)
	ended(3)
	last := admitted(true)
	admitted(false) // the count is 1, and not -2
	end(last)
	ended(4)
}

// A row that is changed or removed: its instances finish, or are ended, as it
// says.
func TestOnReload(t *testing.T) {
	t.Parallel()
	finish, end, gone, named := local(t), local(t), local(t), local(t)
	row := func(id, addr, more string) string {
		return fmt.Sprintf("[service.%s]\nlisten = [%q]\nexec = [\"/bin/cat\"]\nuser = \"nobody\"\n%s\n", id, addr, more)
	}
	d := serve(t, jsonLog+row("finish", finish, "")+row("end", end, "on_reload = \"end\"")+row("gone", gone, "on_reload = \"end\"")+row("named", named, ""))
	var conns []*net.TCPConn
	for _, addr := range []string{finish, end, gone, named} {
		c := dial(t, "", addr)
		echo(t, c, "hello\n")
		conns = append(conns, c)
	}
	// Only the key of the last one changes: the socket stays open.
	before := d.sockets()
	d.reload(jsonLog + row("finish", finish, "umask = \"077\"") + row("end", end, "umask = \"077\"") + row("renamed", named, ""))
	for _, s := range d.sockets() {
		if !slices.Contains(before, s) {
			t.Errorf("a listener was opened anew: %s", s)
		}
	}
	hearEnd(t, conns[1], "")
	hearEnd(t, conns[2], "")
	if got := d.waitForN(2, "end", "signal", "SIGTERM"); len(got) != 2 {
		t.Errorf("ended: %v", got)
	}
	echo(t, conns[0], "the old way\n")
	echo(t, conns[3], "the old name\n")
	if c, err := connect("", gone); err == nil {
		c.Close()
		t.Error("the removed row still listens")
	}
	c := dial(t, "", named)
	echo(t, c, "new name\n")
	d.waitFor("start", "service", "renamed")
}
