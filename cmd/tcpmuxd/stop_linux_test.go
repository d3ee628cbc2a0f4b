// The end: what a stopping daemon waits for, what it leaves and what it ends.

package main_test

import (
	"fmt"
	"net"
	"syscall"
	"testing"
	"time"
)

// stopTable has two rows that run something until it is told to end.
func stopTable(grace, mux, direct, program, more string) string {
	return fmt.Sprintf(jsonLog+`
grace = %q
[defaults]
user = "nobody"
exec = %s
%s
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+a"]
[service.a]
listen = [%q]
`, grace, program, more, mux, direct)
}

// As under inetd, children live on when the daemon ends at once.
func TestStopLeavesInstances(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serveAs(t, stopTable("0s", mux, direct, `["/bin/cat"]`, ""), &how{leaves: true})
	conns := []*net.TCPConn{open(t, "", mux, "a"), dial(t, "", direct)}
	for _, c := range conns {
		echo(t, c, "before\n")
	}
	holds := func(n int) {
		t.Helper()
		if !poll(bound, func() bool { return d.descriptors() == d.idle+n }) {
			t.Fatalf("the daemon does not hold %d connections", n)
		}
	}
	holds(0) // the children have theirs alone
	pending := dial(t, "", mux)
	pending.Write([]byte("a half of a na"))
	holds(1)
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	hearEnd(t, pending, replyNo)
	if n := len(d.events("leave")); n != 2 {
		t.Errorf("%d instances are left by the log, want 2", n)
	}
	for _, c := range conns {
		echo(t, c, "after\n")
		c.CloseWrite()
		hearEnd(t, c, "")
	}
}

// Within the grace the daemon waits, lets nobody in, and ends as soon as the
// last instance has.
func TestStopWaitsForInstances(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serve(t, stopTable("1h", mux, direct, `["/bin/cat"]`, ""))
	a, b := open(t, "", mux, "a"), dial(t, "", direct)
	echo(t, b, "hello\n")
	d.signal(syscall.SIGTERM)
	if e := d.waitFor("drain"); e.text("instances") != "2" {
		t.Errorf("%v, want 2 instances", e)
	}
	for _, addr := range []string{mux, direct} {
		if c, err := connect("", addr); err == nil {
			c.Close()
			t.Errorf("%s is still listened on", addr)
		}
	}
	d.signal(syscall.SIGHUP) // no hurry, and no reload
	echo(t, a, "still\n")
	a.Close()
	d.waitFor("end")
	echo(t, b, "still\n")
	select {
	case <-d.exited:
		t.Fatal("the daemon ended before its last instance")
	default:
	}
	b.Close()
	if code := d.wait(); code != 0 {
		t.Errorf("exit code %d, want 0", code)
	}
	d.waitFor("stopped")
}

// A second signal ends the wait.
func TestSecondSignalHurries(t *testing.T) {
	t.Parallel()
	for _, signals := range [][2]syscall.Signal{{syscall.SIGTERM, syscall.SIGTERM}, {syscall.SIGINT, syscall.SIGINT}, {syscall.SIGTERM, syscall.SIGQUIT}} {
		mux, direct := local(t), local(t)
		d := serveAs(t, stopTable("1h", mux, direct, `["/bin/cat"]`, ""), &how{leaves: true})
		c := open(t, "", mux, "a")
		d.signal(signals[0])
		d.waitFor("drain")
		echo(t, c, "waits\n")
		d.signal(signals[1])
		if code := d.wait(); code != 0 {
			t.Errorf("%v: exit code %d, want 0", signals, code)
		}
		echo(t, c, "lives on\n")
	}
}

// What outlives the grace is treated as its row says.
func TestOnStop(t *testing.T) {
	t.Parallel()
	const (
		obeys = `["/bin/cat"]`
		deaf  = `["/bin/sh", "-c", "trap '' TERM; echo deaf; cat"]`
	)
	for _, c := range []struct {
		name, program, onStop string
		ends                  bool
	}{
		{"leave", obeys, "leave", false},
		{"term", obeys, "term", true},
		{"term, and it is ignored", deaf, "term", false},
		{"kill", deaf, "kill", true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			mux, direct := local(t), local(t)
			d := serveAs(t, stopTable("100ms", mux, direct, c.program, "on_stop = \""+c.onStop+"\""), &how{leaves: true})
			conns := []*net.TCPConn{open(t, "", mux, "a"), dial(t, "", direct)}
			for _, conn := range conns {
				if c.program == deaf {
					hear(t, conn, "deaf\n")
				}
				echo(t, conn, "hello\n")
			}
			began := time.Now()
			if code := d.stop(); code != 0 {
				t.Errorf("exit code %d, want 0", code)
			}
			if took := time.Since(began); took < 100*time.Millisecond {
				t.Errorf("it ended after %v, before the grace", took)
			}
			for _, conn := range conns {
				if c.ends {
					hearEnd(t, conn, "")
				} else {
					echo(t, conn, "lives on\n")
					conn.Close()
				}
			}
		})
	}
}
