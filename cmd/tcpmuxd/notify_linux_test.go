// What the daemon tells a service manager: here one that the test plays, and one
// that does not listen. contrib/ci/systemd.sh has the real one.

package main_test

import (
	"net"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// notifyTable has a multiplexer and n rows on it, each of which prints its
// environment.
func notifyTable(mux string, names ...string) string {
	table := jsonLog + "[defaults]\nuser = \"nobody\"\n[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = [\"" + mux + "\"]\n"
	for _, n := range names {
		table += "[service.\"tcpmux/+" + n + "\"]\nexec = [\"/bin/sh\", \"-c\", \"env; exec cat\"]\n"
	}
	return table
}

// A fakeManager is a NOTIFY_SOCKET.
type fakeManager struct {
	t    testing.TB
	conn *net.UnixConn

	mu    sync.Mutex
	lines []string
}

func newManager(t testing.TB) *fakeManager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(tempDir(t), "notify"), Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return &fakeManager{t: t, conn: conn}
}

func (m *fakeManager) env() []string {
	return []string{"NOTIFY_SOCKET=" + m.conn.LocalAddr().String(), "WATCHDOG_USEC=4000000"}
}

// listen collects the lines of all messages.
func (m *fakeManager) listen() {
	go func() {
		b := make([]byte, 1<<16)
		for {
			n, err := m.conn.Read(b)
			if err != nil {
				return
			}
			m.mu.Lock()
			m.lines = append(m.lines, strings.Split(string(b[:n]), "\n")...)
			m.mu.Unlock()
		}
	}()
}

// heard counts the lines that begin so.
func (m *fakeManager) heard(line string) (n int) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, l := range m.lines {
		if strings.HasPrefix(l, line) {
			n++
		}
	}
	return n
}

func (m *fakeManager) waitForN(n int, line string) {
	m.t.Helper()
	if !poll(bound, func() bool { return m.heard(line) >= n }) {
		m.t.Fatalf("%q came %d times, want %d; of %q", line, m.heard(line), n, m.lines)
	}
}

func TestNotify(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	m.listen()
	mux := local(t)
	d := serveAs(t, notifyTable(mux, "a"), &how{env: m.env()})
	m.waitForN(1, "READY=1")
	m.waitForN(1, "STATUS=serving 2 rows, 0 instances")
	m.waitForN(2, "WATCHDOG=1")

	c := open(t, "", mux, "a")
	m.waitForN(1, "STATUS=serving 2 rows, 1 instance")
	c.CloseWrite()
	c.SetReadDeadline(time.Now().Add(bound))
	env := readAll(t, c)
	for _, name := range []string{"NOTIFY_SOCKET", "WATCHDOG_"} {
		if strings.Contains(env, name) {
			t.Errorf("a child has %s:\n%s", name, env)
		}
	}

	d.reload(notifyTable(mux, "a", "b"))
	m.waitForN(1, "RELOADING=1")
	m.waitForN(1, "MONOTONIC_USEC=")
	m.waitForN(2, "READY=1")
	m.waitForN(1, "STATUS=serving 3 rows, ")

	d.write("nonsense")
	d.signal(syscall.SIGHUP)
	m.waitForN(3, "READY=1")
	m.waitForN(1, "STATUS=serving 3 rows, 0 instances; the last reload failed, see the log")

	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	m.waitForN(1, "STOPPING=1")
	m.waitForN(1, "EXTEND_TIMEOUT_USEC=")
}

// A manager that hangs is no reason for anything to wait, and it is said once.
func TestNobodyReadsNotifications(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	// The queue is filled beforehand, so that not even READY=1 goes through.
	full, err := net.DialUnix("unixgram", nil, m.conn.LocalAddr().(*net.UnixAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer full.Close()
	full.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
	for err == nil {
		_, err = full.Write([]byte("full"))
	}
	mux := local(t)
	d := serveAs(t, notifyTable(mux, "a"), &how{env: m.env()})
	open(t, "", mux, "a").Close()
	if e := d.waitFor("the service manager is not told"); !strings.Contains(e.text("error"), "nobody reads") {
		t.Errorf("%v", e)
	}
	for range 20 {
		d.reload(notifyTable(mux, "a"))
	}
	open(t, "", mux, "a").Close()
	began := time.Now()
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("it took %v to stop", took)
	}
	if n := len(d.events("the service manager is not told")); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
	if n := len(d.events("the watchdog is not fed")); n != 0 {
		t.Error("the manager's fault is taken for the daemon's")
	}
}

// A daemon that has no descriptor left is alive, and says so.
func TestWatchdogIsFedWithoutDescriptors(t *testing.T) {
	t.Parallel()
	m := newManager(t)
	m.listen()
	mux := local(t)
	d := serveAs(t, notifyTable(mux, "a"), &how{env: m.env(), wrap: []string{"/bin/sh", "-c", `ulimit -n 100 && exec "$@"`, "sh"}})
	for range 120 {
		dial(t, "", mux)
	}
	d.waitFor("out of descriptors")
	n := m.heard("WATCHDOG=1")
	m.waitForN(n+2, "WATCHDOG=1")
	for _, msg := range []string{"the service manager is not told", "the watchdog is not fed"} {
		for _, e := range d.events(msg) {
			t.Errorf("%v", e)
		}
	}
}

// Signals that mean something elsewhere do nothing, and say so.
func TestMeaninglessSignals(t *testing.T) {
	t.Parallel()
	mux := local(t)
	d := serve(t, notifyTable(mux, "a"))
	for i, sig := range []syscall.Signal{syscall.SIGUSR2, syscall.SIGALRM} {
		d.signal(sig)
		d.waitForN(i+1, "signal without a meaning")
	}
	open(t, "", mux, "a").Close()
}
