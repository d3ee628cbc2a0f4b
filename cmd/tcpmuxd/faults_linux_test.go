// What goes wrong with sockets and with the servers that own them: for each
// fault what an operator sees in the log, and that nothing which waits is lost.

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

// A server that takes one datagram and says to the log what it was.
const readOne = "dd bs=2048 count=1 status=none >&2; echo >&2"

// shell is a row that runs a script as root, which may write where the test
// looks.
func shell(script string) string {
	return fmt.Sprintf("exec = [\"/bin/sh\", \"-c\", %q]\nuser = \"root\"\non_stop = \"kill\"", script)
}

// send sends a datagram from an address of this machine.
func send(t testing.TB, from, addr, what string) {
	t.Helper()
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte(what)); err != nil {
		t.Fatal(err)
	}
}

// The inetds start a server that does not read for ever and as fast as they can,
// or close the service for ten minutes; xinetd throws the datagram away. Here it
// is started ever more seldom, the log says why, and the datagram is there when
// the row has a server that reads.
func TestServerThatNeverReads(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		script, reason string
		most           int // starts within two seconds
	}{
		"succeeds": {"exit 0", "its server ends at once and leaves what has come unread", 18},
		"fails":    {"exit 1", "its server ends at once", 8},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			addr := local(t)
			d := serve(t, jsonLog+waitRow("deaf", addr, shell(c.script)))
			began := time.Now()
			send(t, "127.0.0.1", addr, "still here")
			e := d.waitFor("back off", "service", "deaf", "reason", c.reason)
			if e.text("local") != addr || e.number("pid") == 0 || e.number("for") < 1 {
				t.Errorf("the log says %v", e)
			}
			d.waitForN(4, "start", "service", "deaf")
			sockets := d.sockets()
			time.Sleep(time.Until(began.Add(2 * time.Second)))
			if n := len(d.events("start", "service", "deaf")); n > c.most {
				t.Errorf("it was started %d times in %v, want %d at most", n, time.Since(began), c.most)
			}
			d.reload(jsonLog + waitRow("deaf", addr, shell(readOne)))
			d.waitFor("output", "service", "deaf", "line", "still here")
			if now := d.sockets(); len(now) < len(sockets) {
				t.Errorf("the sockets were %v and are %v", sockets, now)
			}
		})
	}
}

// Somebody kills a server that was started for a datagram and has not read it:
// the next server gets it.
func TestServerKilledBeforeItReads(t *testing.T) {
	t.Parallel()
	addr, mark := local(t), tempDir(t)+"/mark"
	d := serve(t, jsonLog+waitRow("killed", addr, shell(fmt.Sprintf(
		"[ -e %[1]s ] || { : >%[1]s; exec sleep 100; }; %s", mark, readOne))))
	send(t, "127.0.0.1", addr, "not lost")
	pid := d.waitFor("start", "service", "killed").number("pid")
	if !poll(bound, func() bool { _, err := os.Stat(mark); return err == nil }) {
		t.Fatal("the server does not run")
	}
	if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	d.waitFor("end", "service", "killed", "signal", "SIGKILL", "pid", fmt.Sprint(pid))
	d.waitFor("output", "service", "killed", "line", "not lost")
	d.ended("killed", 2)
}

// A path that a living server has is not taken from it; one that a dead server
// has left is.
func TestUnixPathIsTaken(t *testing.T) {
	t.Parallel()
	dir, first := tempDir(t), local(t)
	path := dir + "/socket"
	row := fmt.Sprintf("[service.path]\nsocket = \"stream\"\nlisten = [%q]\nexec = [\"/bin/echo\", \"ours\"]\nuser = \"nobody\"\n", path)
	owner, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		t.Fatal(err)
	}
	defer owner.Close()
	owner.SetUnlinkOnClose(false)
	answer := func() string {
		c, err := net.Dial("unix", path)
		if err != nil {
			return err.Error()
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(bound))
		b := make([]byte, 100)
		n, _ := c.Read(b)
		return string(b[:n])
	}

	// A daemon with the row does not start, and says who is in the way.
	d := launch(t, jsonLog+row, &how{})
	if code := d.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	e := d.waitFor("cannot serve")
	hasAll(t, "the log", e.text("error"), path, "in use")

	// Nor does one get it by a reload, and the old table runs on.
	other := fmt.Sprintf("[service.other]\nlisten = [%q]\nexec = [\"/bin/echo\", \"other\"]\nuser = \"nobody\"\n", first)
	d = serve(t, jsonLog+other)
	d.write(jsonLog + other + row)
	d.signal(syscall.SIGHUP)
	e = d.waitFor("reload failed, the old table runs on")
	hasAll(t, "the log", e.text("error"), path, "in use")
	expect(t, "", first, "", "other\n")
	if c, err := net.Dial("unix", path); err != nil {
		t.Errorf("the other server is not reached any more: %v", err)
	} else {
		c.Close()
	}

	// The owner dies, and its socket stays.
	owner.Close()
	d.reload(jsonLog + other + row)
	d.waitFor("listen", "service", "path", "local", path)
	if got := answer(); got != "ours\n" {
		t.Errorf("on the path is answered %q", got)
	}
	d.ended("path", 1, "status", "0")

	// What is no socket is nobody's to remove.
	writeFile(t, dir+"/file", 0o644, "precious")
	d.write(jsonLog + other + row + strings.NewReplacer("service.path", "service.file", path, dir+"/file").Replace(row))
	d.signal(syscall.SIGHUP)
	e = d.waitForN(2, "reload failed, the old table runs on")[1]
	hasAll(t, "the log", e.text("error"), dir+"/file")
	alike(t, "the file in the way", readFile(t, dir+"/file"), "precious")

	// The row goes, and its path with it.
	d.reload(jsonLog + other)
	if _, err := os.Stat(path); err == nil {
		t.Error("the path is left behind")
	}
}

// Out of descriptors, because peers of the multiplexer have them: what comes to
// a wait row is served all the same, and the daemon does not spin.
func TestOutOfDescriptorsDuringWait(t *testing.T) {
	t.Parallel()
	mux, addr := local(t), local(t)
	const limit = 64
	d := serveAs(t, fmt.Sprintf(jsonLog+"[service.tcpmux]\nbuiltin = \"tcpmux\"\nlisten = [%q]\n", mux)+
		waitRow("patient", addr, shell(readOne)), &how{wrap: []string{"/bin/sh", "-c", fmt.Sprintf(`ulimit -n %d && exec "$0" "$@"`, limit)}})
	var peers []*net.TCPConn
	for range 2 * limit {
		peers = append(peers, dial(t, "", mux))
	}
	e := d.waitFor("out of descriptors")
	hasAll(t, "the hint", e.text("hint"), "LimitNOFILE")
	hasAll(t, "the error", e.text("error"), "too many open files")
	if n := len(d.files()); n < limit-1 {
		t.Errorf("%d of %d descriptors are open, and not all", n, limit)
	}
	before, began := cpuOf(t, d.pid), time.Now()
	send(t, "127.0.0.1", addr, "patience")
	d.waitFor("output", "service", "patient", "line", "patience")
	time.Sleep(time.Until(began.Add(2 * time.Second)))
	if used := cpuOf(t, d.pid) - before; used > 500*time.Millisecond {
		t.Errorf("it used %v of the processor in 2s", used)
	}
	for _, c := range peers {
		c.Close()
	}
	send(t, "127.0.0.1", addr, "again")
	d.waitFor("output", "service", "patient", "line", "again")
	d.ended("patient", 2, "status", "0")
}

// cpuOf is the processor time that a process has used.
func cpuOf(t testing.TB, pid int) time.Duration {
	t.Helper()
	text := readFile(t, fmt.Sprintf("/proc/%d/stat", pid))
	f := strings.Fields(text[strings.LastIndex(text, ")")+1:])
	var user, system int
	fmt.Sscan(f[11], &user)
	fmt.Sscan(f[12], &system)
	return time.Duration(user+system) * 10 * time.Millisecond // USER_HZ
}

// What comes from a denied source never wakes a server, nor the daemon: the
// kernel throws it away. The rules of a reload are in force at once.
func TestDeniedSourceWakesNobody(t *testing.T) {
	t.Parallel()
	addr, stream := local(t), local(t)
	table := func(denied string) string {
		access := fmt.Sprintf("\naccess = { deny = [%q] }\n", denied)
		return jsonLog + waitRow("judged", addr, shell(readOne)+access) +
			fmt.Sprintf("[service.stream]\nlisten = [%q]\nwait = true\n%s%s", stream, shell("sleep 100"), access)
	}
	d := serve(t, table("127.0.0.2"))
	for range 1000 {
		send(t, "127.0.0.2", addr, "denied")
	}
	// A connection is not even answered.
	early := net.Dialer{Timeout: 200 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}}
	if c, err := early.Dial("tcp", stream); err == nil {
		c.Close()
		t.Error("a denied source is connected")
	}
	send(t, "127.0.0.3", addr, "allowed")
	d.waitFor("output", "service", "judged", "line", "allowed")
	d.ended("judged", 1, "status", "0")

	d.reload(table("127.0.0.3"))
	send(t, "127.0.0.3", addr, "denied")
	send(t, "127.0.0.2", addr, "allowed now")
	d.waitFor("output", "service", "judged", "line", "allowed now")
	d.ended("judged", 2, "status", "0")
	for _, e := range d.events("output") {
		if strings.HasPrefix(e.text("line"), "denied") {
			t.Errorf("a server has read %v", e)
		}
	}
	if n := len(d.events("start", "service", "stream")); n != 0 {
		t.Errorf("a server was started for a connection that was denied")
	}
}
