// Sockets that whoever starts the daemon has opened for it: by
// systemd-socket-activate(1), and by the test itself for what that never passes.

package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// passedTable says nowhere where it listens.
const passedTable = jsonLog + `
[defaults]
user = "nobody"
[service.tcpmux]
builtin = "tcpmux"
[service."tcpmux/+env"]
exec = ["/bin/sh", "-c", "env; exec cat"]
`

const directRow = `
[service.direct]
exec = ["/bin/cat"]
`

// As systemd-socket-activate starts it, at the first connection, which is
// answered as all others.
func TestSocketActivate(t *testing.T) {
	t.Parallel()
	activate := find(t, "systemd-socket-activate")
	for _, c := range []struct {
		name, names, more string
		sockets           int
	}{
		{"by name", "tcpmux:direct", directRow, 2},
		{"the only one", "", "", 1},
		{"the only one without a name", "unknown:direct", directRow, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			wrap, addrs := []string{activate}, []string{}
			for range c.sockets {
				addrs = append(addrs, local(t))
				wrap = append(wrap, "-l", addrs[len(addrs)-1])
			}
			if c.names != "" {
				wrap = append(wrap, "--fdname="+c.names)
			}
			d := launch(t, passedTable+c.more, &how{wrap: wrap, words: true})
			first := func() (conn *net.TCPConn) {
				if !poll(bound, func() bool { conn, _ = connect("", addrs[0]); return conn != nil }) {
					t.Fatal("systemd-socket-activate does not listen")
				}
				return conn
			}()
			defer first.Close()
			first.SetDeadline(time.Now().Add(bound))
			fmt.Fprintf(first, "env\r\n")
			first.CloseWrite()
			env := readAll(t, first)
			if !strings.Contains(env, "TCPMUX_SERVICE=env") {
				t.Errorf("%q", env)
			}
			if strings.Contains(env, "LISTEN_") {
				t.Errorf("a child has the variables:\n%s", env)
			}
			if c.sockets == 2 {
				conn := dial(t, "", addrs[1])
				echo(t, conn, "direct\n")
				conn.Close()
			}
			d.reload(passedTable + c.more)
			open(t, "", addrs[0], "env").Close()
			d.waitForN(2, "end", "service", "tcpmux/+env")
			for _, e := range d.events("configuration") {
				t.Errorf("%v", e)
			}
		})
	}
}

// forItself has LISTEN_PID be the daemon's, which only a shell can do.
func forItself(names string, n int) (wrap, env []string) {
	return []string{"/bin/sh", "-c", `LISTEN_PID=$$ exec "$@"`, "sh"},
		[]string{fmt.Sprintf("LISTEN_FDS=%d", n), "LISTEN_FDNAMES=" + names}
}

// opened is a listener for the daemon, and its address.
func opened(t *testing.T) (*os.File, string) {
	t.Helper()
	l, err := net.Listen("tcp", local(t))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		t.Fatal(err)
	}
	return f, l.Addr().String()
}

// What is no use is reported, each by a line, and the rest is served.
func TestPassedOfTheWrongKind(t *testing.T) {
	t.Parallel()
	mux, muxAddr := opened(t)
	unwanted, unwantedAddr := opened(t)
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	pair, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	syscall.Close(pair[1])
	connected := os.NewFile(uintptr(pair[0]), "connected")
	files := []*os.File{pipe, mux, connected, unwanted}
	wrap, env := forItself("pipe:tcpmux:connected:unwanted:none", len(files)+1)
	d := serveAs(t, passedTable, &how{wrap: wrap, env: env, files: files})
	var errors []string
	for _, e := range d.events("a passed socket is not used") {
		errors = append(errors, e.text("error"))
	}
	if len(errors) != 3 || !strings.HasPrefix(errors[0], `descriptor 3, "pipe": `) ||
		!strings.HasPrefix(errors[1], `descriptor 5, "connected": `) || !strings.HasPrefix(errors[2], `descriptor 7, "none": `) {
		t.Errorf("%q", errors)
	}
	if !slices.ContainsFunc(d.events("configuration"), func(e event) bool {
		return strings.Contains(e.text("at"), unwantedAddr) && strings.Contains(e.text("at"), "matches no row")
	}) {
		t.Errorf("what matches no row is not reported: %v", d.events("configuration"))
	}
	open(t, "", muxAddr, "env").Close()

	// A reload can find a use for it: nobody was refused meanwhile.
	waiting := dial(t, "", unwantedAddr)
	d.reload(passedTable + strings.ReplaceAll(directRow, "direct", "unwanted"))
	echo(t, waiting, "at last\n")
	waiting.Close()
	d.reload(passedTable)
	d.idle = 0 // the reload has opened what the start had not
}

// The table is checked with what is passed to whoever checks it.
func TestPassedToTheCheck(t *testing.T) {
	t.Parallel()
	table := filepath.Join(tempDir(t), "tcpmuxd.toml")
	if err := os.WriteFile(table, []byte(passedTable+directRow), 0o644); err != nil {
		t.Fatal(err)
	}
	check := func(files ...*os.File) result {
		wrap, env := forItself("tcpmux:direct:pipe", len(files))
		cmd := exec.Command(wrap[0], append(wrap[1:], programs.tcpmuxd, "-t", "-c", table)...)
		cmd.Env, cmd.ExtraFiles = env, files
		r := run(t, cmd)
		for _, f := range files {
			f.Close()
		}
		return r
	}
	if r := check(); r.code != 1 || !strings.Contains(r.stderr, `row "direct"`) {
		t.Errorf("without sockets: %+v", r)
	}
	mux, _ := opened(t)
	direct, _ := opened(t)
	pipe, end, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer end.Close()
	if r := check(mux, direct, pipe); r.code != 0 || !strings.Contains(r.stdout, "ok, 3 rows, 0 warnings") ||
		strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, `a passed socket is not used: descriptor 5, "pipe"`) {
		t.Errorf("with sockets: %+v", r)
	}
}

// Variables for somebody else concern nobody, and no descriptor is touched.
func TestPassedToAnotherProcess(t *testing.T) {
	t.Parallel()
	f, addr := opened(t)
	mux := local(t)
	table := strings.Replace(passedTable, `builtin = "tcpmux"`, `builtin = "tcpmux"`+"\nlisten = [\""+mux+"\"]", 1)
	d := serveAs(t, table, &how{env: []string{"LISTEN_PID=1", "LISTEN_FDS=1"}, files: []*os.File{f}})
	for _, msg := range []string{"a passed socket is not used", "configuration"} {
		for _, e := range d.events(msg) {
			t.Errorf("%v", e)
		}
	}
	c := open(t, "", mux, "env")
	c.CloseWrite()
	if env := readAll(t, c); strings.Contains(env, "LISTEN_") {
		t.Errorf("a child has the variables:\n%s", env)
	}
	dial(t, "", addr).Close() // it is still open
}

// A daemon that was started with signals blocked executes itself again; what it
// was passed is there afterwards.
func TestPassedWithSignalsBlocked(t *testing.T) {
	t.Parallel()
	mux, addr := opened(t)
	path := filepath.Join(tempDir(t), "socket")
	u, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	file, err := u.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	wrap, env := forItself("tcpmux:direct", 2)
	serveAs(t, passedTable+directRow, &how{wrap: wrap, env: env, files: []*os.File{mux, file},
		under: &condition{Block: []syscall.Signal{syscall.SIGTERM, syscall.SIGUSR1}}})
	open(t, "", addr, "env").Close()
	c, err := net.Dial("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	b := make([]byte, 16)
	if _, err := c.Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if n, err := c.Read(b); err != nil || string(b[:n]) != "hello" {
		t.Errorf("%q, %v", b[:n], err)
	}
}

// The units are right, and the real systemd finds everything as it should be;
// what that means stands in the script.
func TestUnderSystemd(t *testing.T) {
	t.Parallel()
	needRoot(t)
	cmd := exec.Command("../../contrib/ci/systemd.sh", programs.tcpmuxd, programs.tcpmux, programs.ctl)
	cmd.WaitDelay = 10 * time.Second
	timer := time.AfterFunc(4*bound, func() { cmd.Process.Signal(syscall.SIGTERM) })
	defer timer.Stop()
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
