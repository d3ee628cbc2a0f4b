// What the tests of real servers share: where the servers are, a way for every
// client to use a service by name, and an /etc of one's own. The servers stand
// in the other real_*_linux_test.go, each with the client its users have.
//
// Nothing of the machine is changed: each server has a configuration, a
// directory and a port of its own, and reads /etc where it cannot be told
// otherwise in a mount namespace.

package main_test

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"
)

// unpacked is where contrib/ci/deps puts the servers that Debian does not let
// be installed side by side.
const unpacked = "/var/cache/tcpmuxd-check"

// peer is the path of a server that is unpacked and not installed.
func peer(t testing.TB, name string) string {
	t.Helper()
	path := filepath.Join(unpacked, "usr/sbin", name)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: contrib/ci/deps check unpacks it", err)
	}
	return path
}

// A way is an address with which a client reaches a service.
type way struct{ name, host, port, addr string }

func wayTo(name, addr string) way {
	host, port, _ := net.SplitHostPort(addr)
	return way{name, host, port, addr}
}

// bothWays starts a daemon with one program on a port and, as "+", by name.
func bothWays(t *testing.T, name, row string) (*daemon, []way) {
	t.Helper()
	return bothWaysAs(t, name, row, &how{})
}

func bothWaysAs(t *testing.T, name, row string, h *how) (*daemon, []way) {
	t.Helper()
	mux, direct := local(t), local(t)
	d := serveAs(t, both(mux, direct, name, row), h)
	return d, []way{wayTo("by port", direct), wayTo("by name", named(t, mux, name))}
}

// named is an address behind which tcpmux stands: each connection to it becomes
// one to the service of this name, as with the ProxyCommand of ssh. So clients
// that know nothing of RFC 1078 can use it.
func named(t testing.TB, mux, name string) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var running sync.WaitGroup
	running.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f, err := c.(*net.TCPConn).File()
			c.Close()
			if err != nil {
				t.Error(err)
				return
			}
			cmd := exec.Command(programs.tcpmux, mux, name)
			cmd.Stdin, cmd.Stdout, cmd.Stderr = f, f, t.Output()
			err = cmd.Start()
			f.Close()
			if err != nil {
				t.Error(err)
				return
			}
			running.Go(func() {
				kill := time.AfterFunc(bound, func() { cmd.Process.Kill() })
				defer kill.Stop()
				cmd.Wait()
			})
		}
	})
	t.Cleanup(func() {
		l.Close()
		running.Wait()
	})
	return l.Addr().String()
}

// ended waits until all n instances of a row have ended: "status", "0".
func (d *daemon) ended(id string, n int, how ...string) {
	d.Helper()
	d.waitForN(n, "end", append([]string{"service", id}, how...)...)
	if started := len(d.events("start", "service", id)); started != n {
		d.Errorf("%s was started %d times, want %d", id, started, n)
	}
}

// endedBoth is ended for the two rows of bothWays.
func (d *daemon) endedBoth(name string, n int, how ...string) {
	d.Helper()
	d.ended(name, n, how...)
	d.ended("tcpmux/+"+name, n, how...)
}

// directory makes a directory below dir.
func directory(t testing.TB, mode os.FileMode, path ...string) string {
	t.Helper()
	dir := filepath.Join(path...)
	if err := os.Mkdir(dir, mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(dir, mode); err != nil {
		t.Fatal(err)
	}
	return dir
}

// readFile is the text of a file that has to be there.
func readFile(t testing.TB, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// alike compares what was transferred with what was sent.
func alike(t testing.TB, what, got, want string) {
	t.Helper()
	switch {
	case got == want:
	case len(got)+len(want) < 1000:
		t.Errorf("%s: %q, want %q", what, got, want)
	default:
		t.Errorf("%s: %d bytes, and not the %d that were sent", what, len(got), len(want))
	}
}

// hasAll wants to find all of these in a text.
func hasAll(t testing.TB, what, text string, wanted ...string) {
	t.Helper()
	for _, w := range wanted {
		if !strings.Contains(text, w) {
			t.Errorf("%s: no %q in %q", what, w, text)
		}
	}
}
