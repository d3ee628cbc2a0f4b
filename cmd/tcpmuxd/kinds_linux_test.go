// What the child of each kind of row sees, who may come to it, and what a reload
// leaves of it, by tables as an administrator writes them.

package main_test

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialUnix connects to a unix socket as a user and group; 0 is the tests' own. The
// thread that becomes another user ends with its goroutine.
func dialUnix(t testing.TB, network, path string, uid, gid int) net.Conn {
	t.Helper()
	type dialled struct {
		c   net.Conn
		err error
	}
	done := make(chan dialled)
	go func() {
		runtime.LockOSThread()
		if uid == 0 && gid == 0 {
			defer runtime.UnlockOSThread()
		} else {
			syscall.RawSyscall(unix.SYS_SETGROUPS, 0, 0, 0)
			syscall.RawSyscall(unix.SYS_SETRESGID, uintptr(gid), uintptr(gid), uintptr(gid))
			syscall.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		}
		c, err := net.Dial(network, path)
		done <- dialled{c, err}
	}()
	d := <-done
	if d.err != nil {
		t.Fatal(d.err)
	}
	t.Cleanup(func() { d.c.Close() })
	d.c.SetDeadline(time.Now().Add(bound))
	return d.c
}

// all reads a connection to its end; a reset is an end.
func all(t testing.TB, c net.Conn) string {
	t.Helper()
	b, err := io.ReadAll(c)
	if err != nil && !errors.Is(err, syscall.ECONNRESET) {
		t.Fatal(err)
	}
	return string(b)
}

// reachable is a directory that everybody may enter.
func reachable(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	for d := dir; d != os.TempDir() && d != "/"; d = filepath.Dir(d) {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// A child on a unix socket knows its peer; the socket is its owner's, and goes
// with the daemon.
func TestUnixChildren(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	stream, seqpacket := filepath.Join(dir, "new", "stream"), filepath.Join(dir, "seqpacket")
	abstract := "@tcpmuxd-test-" + strconv.Itoa(os.Getpid())
	print := `["/bin/sh", "-c", "env | sort"]`
	d := serve(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
[service.stream]
listen = [%q, %q]
socket_mode = "0620"
socket_user = "daemon"
socket_group = "games"
directory_mode = "0751"
exec = %s
[service.seqpacket]
socket = "seqpacket"
listen = %q
exec = %s
`, stream, abstract, print, seqpacket, print))
	for _, c := range []struct{ network, path string }{{"unix", stream}, {"unix", abstract}, {"unixpacket", seqpacket}} {
		conn := dialUnix(t, c.network, c.path, 0, 0)
		b := make([]byte, 4096)
		n, err := io.ReadAtLeast(conn, b, 1)
		if err != nil {
			t.Fatal(err)
		}
		env := strings.Fields(string(b[:n]))
		for _, want := range []string{
			"PROTO=IPC", "IPCREMOTEEUID=0", "IPCREMOTEEGID=0", "IPCREMOTEPID=" + strconv.Itoa(os.Getpid()),
			"IPCLOCALPATH=" + c.path, "USER=nobody",
		} {
			if !slices.Contains(env, want) {
				t.Errorf("%s: the child has no %s: %q", c.path, want, env)
			}
		}
		if strings.Contains(string(b[:n]), "REMOTE_ADDR") {
			t.Errorf("%s: a unix peer has an address: %q", c.path, env)
		}
		d.waitFor("start", "local", c.path, "peer", fmt.Sprintf("uid:0,pid:%d", os.Getpid()))
		conn.Close()
	}
	var st unix.Stat_t
	if err := unix.Stat(stream, &st); err != nil || st.Mode != unix.S_IFSOCK|0o620 || st.Uid != 1 || st.Gid != 60 {
		t.Errorf("the socket has mode %o and is %d:%d's (%v)", st.Mode, st.Uid, st.Gid, err)
	}
	if err := unix.Stat(filepath.Dir(stream), &st); err != nil || st.Mode != unix.S_IFDIR|0o751 {
		t.Errorf("its directory has mode %o (%v)", st.Mode, err)
	}
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, path := range []string{stream, seqpacket} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%s is left: %v", path, err)
		}
	}
}

// Who may come over a unix socket is a matter of users and groups, and limits
// count by users, direct and on a multiplexer.
func TestUnixPeersAreUsers(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	direct, mux := filepath.Join(dir, "direct"), filepath.Join(dir, "mux")
	rows := func(more string) string {
		return fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
exec = ["/bin/cat"]
limits = { instances_per_source = 1 }
access.uids = ["nobody", "1"]
access.gids = ["games"]
[service.direct]
listen = %q
%s
[service.tcpmux]
builtin = "tcpmux"
listen = %q
limits = { instances_per_source = 10 }
access = { uids = ["root", "nobody", "1", "2"], gids = ["games"] }
[service."tcpmux/+cat"]
`, direct, more, mux)
	}
	d := serve(t, rows(""))
	enters := func(path string, uid, gid int) (net.Conn, bool) {
		t.Helper()
		c := dialUnix(t, "unix", path, uid, gid)
		if path == mux {
			c.Write([]byte("cat\r\n"))
			b := make([]byte, 1)
			if _, err := io.ReadFull(c, b); err != nil || b[0] != '+' {
				return c, false
			}
			io.ReadFull(c, make([]byte, len("Go\r\n")))
		}
		c.Write([]byte("x"))
		n, _ := c.Read(make([]byte, 1))
		return c, n == 1
	}
	for _, path := range []string{direct, mux} {
		row := map[string]string{direct: "direct", mux: "tcpmux/+cat"}[path]
		if _, ok := enters(path, 0, 0); ok {
			t.Errorf("%s: root is let in, which no rule says", row)
		}
		d.waitFor("refuse", "service", row, "reason", "access", "rule", "none of access.uids and access.gids")
		nobody, ok := enters(path, 65534, 65534)
		if !ok {
			t.Errorf("%s: nobody is not let in", row)
		}
		if _, ok := enters(path, 65534, 65534); ok {
			t.Errorf("%s: nobody is let in twice", row)
		}
		d.waitFor("refuse", "service", row, "reason", "instances_per_source")
		if _, ok := enters(path, 1, 1); !ok {
			t.Errorf("%s: what one user has counts for another", row)
		}
		if _, ok := enters(path, 2, 60); !ok {
			t.Errorf("%s: the group is not let in", row)
		}
		// A changed row keeps its socket and its instances.
		before := inode(t, path)
		d.reload(rows("umask = \"077\""))
		if inode(t, path) != before {
			t.Errorf("%s: the socket is another one after a reload", row)
		}
		nobody.Write([]byte("still"))
		if _, err := io.ReadFull(nobody, make([]byte, 5)); err != nil {
			t.Errorf("%s: an instance does not outlive a reload: %v", row, err)
		}
		if _, ok := enters(path, 65534, 65534); ok {
			t.Errorf("%s: the reload has forgotten who is there", row)
		}
		d.reload(rows(""))
	}
}

func inode(t testing.TB, path string) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// Several sockets of several kinds, and a range of ports, are one row.
func TestManySocketsOnOneRow(t *testing.T) {
	t.Parallel()
	path := filepath.Join(tempDir(t), "socket")
	var first int
	for first == 0 { // two ports side by side
		_, port, _ := net.SplitHostPort(local(t))
		n, _ := strconv.Atoi(port)
		if l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", n+1)); err == nil {
			l.Close()
			first = n
		}
	}
	d := serve(t, fmt.Sprintf(jsonLog+"[service.a]\nlisten = [\"127.0.0.1:%d-%d\", %q]\nexec = [\"/bin/echo\", \"ok\"]\nuser = \"nobody\"\n", first, first+1, path))
	for i := range 2 {
		expect(t, "", fmt.Sprintf("127.0.0.1:%d", first+i), "", "ok\n")
	}
	if got := all(t, dialUnix(t, "unix", path, 0, 0)); got != "ok\n" {
		t.Errorf("on the unix socket: %q", got)
	}
	if n := len(d.events("listen", "service", "a")); n != 3 {
		t.Errorf("%d sockets, want 3", n)
	}
}

// Every kind of set-up reaches the program.
func TestSetUp(t *testing.T) {
	t.Parallel()
	addr := local(t)
	script := `ulimit -Sn; ulimit -Hn; ulimit -Sc; nice; cat /proc/self/oom_score_adj; grep -o 'Cpus_allowed_list.*' /proc/self/status; ionice -p $$; echo out; echo err >&2`
	d := serve(t, fmt.Sprintf(jsonLog+`
[service.a]
listen = %q
exec = ["/bin/sh", "-c", %q]
user = "nobody"
rlimits = { nofile = "100:200", core = 0 }
nice = 5
ioprio = "best-effort:6"
oom_score_adj = 300
cpus = "0"
stderr = "log"
[service.b]
listen = %q
exec = ["/bin/sh", "-c", "echo out; echo err >&2; exec >&0; echo end"]
user = "nobody"
stdout = "log"
stderr = "null"
`, addr, script, strings.Replace(addr, "127.0.0.1", "127.0.0.2", 1)))
	want := "100\n200\n0\n5\n300\nCpus_allowed_list:\t0\nbest-effort: prio 6\nout\n"
	if got, err := talk("", addr, ""); got != want {
		t.Errorf("the child says %q, %v\nwant %q", got, err, want)
	}
	d.waitFor("output", "service", "a", "line", "err")
	if got, _ := talk("", strings.Replace(addr, "127.0.0.1", "127.0.0.2", 1), ""); got != "end\n" {
		t.Errorf("the peer hears %q, want the end alone", got)
	}
	d.waitFor("output", "service", "b", "line", "out")
	if n := len(d.events("output", "service", "b")); n != 1 {
		t.Errorf("%d lines in the log, want 1", n)
	}
}

// A program in a root directory of its own.
func TestChroot(t *testing.T) {
	t.Parallel()
	addr, root := local(t), reachable(t)
	if err := os.Mkdir(filepath.Join(root, "in"), 0o755); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", filepath.Join(root, "in", "answer"), "testdata/answer.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	d := serve(t, fmt.Sprintf(jsonLog+"[service.a]\nlisten = %q\nchroot = %q\ncwd = \"/in\"\nexec = [\"/in/answer\"]\nuser = \"nobody\"\n", addr, root))
	c := dial(t, "", addr)
	pid := d.waitFor("start", "service", "a").number("pid")
	for link, want := range map[string]string{"root": root, "cwd": filepath.Join(root, "in"), "exe": filepath.Join(root, "in", "answer")} {
		if got, _ := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, link)); got != want {
			t.Errorf("%s is %s, want %s", link, got, want)
		}
	}
	c.Write([]byte("hello"))
	hearEnd(t, c, "hello")
}

// A server of a wait row gets the socket, and no peer's variables.
func TestWaitChildren(t *testing.T) {
	t.Parallel()
	dir := reachable(t)
	udp, tcp, path := local(t), local(t), filepath.Join(dir, "dgram")
	row := func(id, where string) string {
		out := filepath.Join(dir, id)
		if err := os.WriteFile(out, nil, 0o666); err != nil {
			t.Fatal(err)
		}
		os.Chmod(out, 0o666)
		return fmt.Sprintf("[service.%s]\n%swait = true\nuser = \"nobody\"\nstdout = \"null\"\non_stop = \"kill\"\nexec = [\"/bin/sh\", \"-c\", %q]\n", id, where,
			fmt.Sprintf("f=$(readlink /proc/$$/fd/0 /proc/$$/fd/1); { env; echo \"$f\"; grep flags /proc/$$/fdinfo/0; echo done; } >%s; exec sleep 60", out))
	}
	d := serve(t, jsonLog+
		row("udp", fmt.Sprintf("socket = \"dgram\"\nlisten = %q\n", udp))+
		row("tcp", fmt.Sprintf("listen = %q\n", tcp))+
		row("unix", fmt.Sprintf("socket = \"dgram\"\nlisten = %q\n", path)))
	for _, to := range []struct{ network, addr string }{{"udp", udp}, {"tcp", tcp}, {"unixgram", path}} {
		c, err := net.Dial(to.network, to.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.Write([]byte("wake up"))
	}
	for id, want := range map[string]string{"udp": "PROTO=UDP", "tcp": "PROTO=TCP", "unix": "IPCLOCALPATH=" + path} {
		var got string
		if !poll(bound, func() bool {
			text, _ := os.ReadFile(filepath.Join(dir, id))
			got = string(text)
			return strings.Contains(got, "done\n")
		}) {
			t.Fatalf("%s: the server says %q", id, got)
		}
		if !strings.Contains(got, want+"\n") || strings.Contains(got, "REMOTE") {
			t.Errorf("%s: the environment is %q, want %s and no peer", id, got, want)
		}
		if !strings.Contains(got, "\nsocket:[") || !strings.Contains(got, "/dev/null\n") {
			t.Errorf("%s: the descriptors are %q", id, got)
		}
		// O_RDWR and no O_NONBLOCK.
		if !strings.Contains(got, "flags:\t02\n") {
			t.Errorf("%s: the socket does not block: %q", id, got)
		}
		e := d.waitFor("start", "service", id)
		if e["peer"] != nil {
			t.Errorf("%s: a peer is logged: %v", id, e)
		}
		// Nothing was read, so the next server would say the same.
		d.reload(jsonLog + "[service.none]\nlisten = \"" + local(t) + "\"\nbuiltin = \"echo\"\n")
		syscall.Kill(e.number("pid"), syscall.SIGKILL)
	}
}
