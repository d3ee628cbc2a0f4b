// What a child sees of itself, compared as a whole with what its row says: from
// outside, in /proc, so that no library of the child's own stands between.

package main_test

import (
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"strings"
	"syscall"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// A child is everything of a process that a row, or its absence, decides.
type child struct {
	UID, GID []string // real, effective, saved, file system
	Groups   []string
	Caps     map[string]string
	Signals  map[string]string // SigBlk, SigIgn, SigCgt, SigPnd
	Umask    string
	Files    map[string]string // descriptor: what it is, and its flags
	Argv     []string
	Env      []string
	Limits   string
	Cwd      string
	Exe      string
	Session  bool // leads a session and a group of its own, without a terminal
	Parent   int
	Other    map[string]string // NoNewPrivs, Seccomp and the like
}

// look reads what the kernel says of a process.
func look(t *testing.T, pid int) child {
	t.Helper()
	read := func(name string) string {
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	link := func(name string) string {
		target, err := os.Readlink(fmt.Sprintf("/proc/%d/%s", pid, name))
		if err != nil {
			t.Fatal(err)
		}
		return target
	}
	strs := func(s string) []string { return strings.Split(strings.TrimSuffix(s, "\x00"), "\x00") }
	status := status(t, pid)
	pick := func(names ...string) map[string]string {
		m := map[string]string{}
		for _, n := range names {
			m[n] = status[n]
		}
		return m
	}
	c := child{
		UID: strings.Fields(status["Uid"]), GID: strings.Fields(status["Gid"]), Groups: strings.Fields(status["Groups"]),
		Caps:    pick("CapInh", "CapPrm", "CapEff", "CapAmb", "CapBnd"),
		Signals: pick("SigBlk", "SigIgn", "SigCgt", "SigPnd", "ShdPnd"),
		Umask:   status["Umask"],
		Files:   map[string]string{},
		Argv:    strs(read("cmdline")), Env: strs(read("environ")),
		Limits: read("limits"), Cwd: link("cwd"), Exe: link("exe"),
		Other: pick("NoNewPrivs", "Seccomp", "Threads", "TracerPid", "Kthread"),
	}
	c.Other["oom_score_adj"] = read("oom_score_adj")
	c.Other["nice"] = strings.Fields(afterName(read("stat")))[16]
	var pgrp, session, tty int
	fmt.Sscanf(afterName(read("stat")), "%s %d %d %d %d", new(string), &c.Parent, &pgrp, &session, &tty)
	c.Session = pgrp == pid && session == pid && tty == 0
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	if err != nil {
		t.Fatal(err)
	}
	first := ""
	for _, e := range entries {
		target := link("fd/" + e.Name())
		switch {
		case e.Name() == "0" && strings.HasPrefix(target, "socket:"):
			first, target = target, "the connection"
		case target == first:
			target = "the connection"
		case e.Name() == "2" && strings.HasPrefix(target, "socket:"):
			target = "the log"
		}
		flags := ""
		for line := range strings.Lines(read("fdinfo/" + e.Name())) {
			if f, ok := strings.CutPrefix(line, "flags:"); ok {
				flags = strings.TrimSpace(f)
			}
		}
		c.Files[e.Name()] = target + " " + flags
	}
	return c
}

// status is /proc/PID/status.
func status(t *testing.T, pid int) map[string]string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := map[string]string{}
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		m[name] = strings.TrimSpace(value)
	}
	return m
}

// afterName is /proc/PID/stat from the state on: the name before it can have
// spaces.
func afterName(stat string) string { return stat[strings.LastIndexByte(stat, ')')+2:] }

// connectionAndLog are the descriptors of a child whose row says nothing of them,
// connectionOnly those of one with stderr = "socket". The flags are O_RDWR alone:
// neither O_NONBLOCK nor O_CLOEXEC.
var (
	connectionAndLog = map[string]string{"0": "the connection 02", "1": "the connection 02", "2": "the log 02"}
	connectionOnly   = map[string]string{"0": "the connection 02", "1": "the connection 02", "2": "the connection 02"}
)

var noCaps = map[string]string{
	"CapInh": "0000000000000000", "CapPrm": "0000000000000000", "CapEff": "0000000000000000", "CapAmb": "0000000000000000",
}

var noSignals = map[string]string{
	"SigBlk": "0000000000000000", "SigIgn": "0000000000000000", "SigCgt": "0000000000000000",
	"SigPnd": "0000000000000000", "ShdPnd": "0000000000000000",
}

// same gives an id four times, as it stands in /proc/PID/status.
func same(id string) []string { return []string{id, id, id, id} }

// peerEnv is what a child is told of its connection, in its order.
func peerEnv(c net.Conn, mux string) []string {
	peer, own := c.LocalAddr().(*net.TCPAddr), c.RemoteAddr().(*net.TCPAddr)
	env := []string{
		"PROTO=TCP",
		"TCPLOCALIP=" + own.IP.String(), fmt.Sprint("TCPLOCALPORT=", own.Port),
		"TCPREMOTEIP=" + peer.IP.String(), fmt.Sprint("TCPREMOTEPORT=", peer.Port),
		"REMOTE_ADDR=" + peer.IP.String(), fmt.Sprint("REMOTE_PORT=", peer.Port),
		"REMOTE_HOST=" + peer.IP.String(),
	}
	if mux != "" {
		env = append(env, "TCPMUX_SERVICE="+mux)
	}
	return env
}

// childTable has four rows: with all defaults and with everything set, each
// direct and on the multiplexer.
const childTable = jsonLog + `
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]

[service.plain]
listen = [%q]
exec = ["/bin/cat"]
user = "nobody"

[service."tcpmux/+plain"]
exec = ["/bin/cat"]
user = "nobody"

[service.full]
listen = [%q]
exec = ["/bin/sed", "-u", "-e", ""]
argv0 = "a  cat"
user = "daemon"
group = "games"
groups = ["adm", "31337"]
cwd = "/usr/share"
umask = %q
env = { HOME = "/nowhere", TZ = "UTC", EMPTY = "" }
env_pass = ["PASSED", "UNSET"]
stderr = "socket"

[service."tcpmux/+full"]
exec = ["/bin/sed", "-u", "-e", ""]
argv0 = "a  cat"
user = "daemon"
group = "games"
groups = ["adm", "31337"]
cwd = "/usr/share"
umask = %q
env = { HOME = "/nowhere", TZ = "UTC", EMPTY = "" }
env_pass = ["PASSED", "UNSET"]
stderr = "socket"
`

// Whatever a daemon was started with, its children have what their rows say.
func TestChildIsAsItsRowSays(t *testing.T) {
	odd := []int{3, 4, 5, 7, 9, 20, 33, 60, 255, 1000}
	nohup := find(t, "nohup")
	for _, start := range []struct {
		name  string
		under condition
		wrap  []string
		deaf  bool // the log cannot be read
	}{
		{name: "plain"},
		{name: "nohup", wrap: []string{nohup}},
		{name: "signals ignored", under: condition{Ignore: []syscall.Signal{
			syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGPIPE, syscall.SIGCHLD, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGTSTP, 34, 64}}},
		{name: "signals blocked", under: condition{Block: []syscall.Signal{
			syscall.SIGHUP, syscall.SIGINT, syscall.SIGTERM, syscall.SIGCHLD, syscall.SIGPIPE, syscall.SIGURG, syscall.SIGUSR2, 35, 64}}},
		{name: "odd descriptors", under: condition{Files: odd}},
		{name: "nofile 64", under: condition{Nofile: 64}},
		{name: "umask 0", under: condition{Umask: 0o1000}},
		{name: "umask 777", under: condition{Umask: 0o777}},
		{name: "stdio closed", under: condition{Close: []int{0, 1, 2}}, deaf: true},
		{name: "everything", under: condition{
			Block: []syscall.Signal{syscall.SIGTERM, syscall.SIGHUP}, Ignore: []syscall.Signal{syscall.SIGINT, syscall.SIGCHLD},
			Files: odd, Nofile: 80, Umask: 0o77}},
	} {
		for _, args := range [][]string{nil, {"-portable-spawn"}} {
			t.Run(strings.Join(append([]string{start.name}, args...), " "), func(t *testing.T) {
				t.Parallel()
				h := &how{
					args: args, under: &start.under, wrap: start.wrap, shipped: true, words: start.deaf,
					env: []string{"PASSED=on", "HOME=/root"},
					// These groups must not be seen again.
					cred: &syscall.Credential{Uid: 0, Gid: 0, Groups: []uint32{0, 1, 2, 3, 6, 27, 5000}},
				}
				testChild(t, h, args != nil)
			})
		}
	}
}

func testChild(t *testing.T, h *how, twin bool) {
	umask := "137"
	if twin {
		umask = "022" // the only one it can
	}
	mux, plain, full := local(t), local(t), local(t)
	d := serveAs(t, fmt.Sprintf(childTable, mux, plain, full, umask, umask), h)
	limits := limitsUnder(t, h.under)
	bounding := map[string]string{"CapBnd": status(t, os.Getpid())["CapBnd"]}
	for _, row := range []struct {
		addr, mux, umask string
		want             child
	}{
		{plain, "", "0022", plainChild},
		{mux, "plain", "0022", plainChild},
		{full, "", "0" + umask, fullChild},
		{mux, "full", "0" + umask, fullChild},
	} {
		var c *net.TCPConn
		if row.mux == "" {
			if h.words { // then nothing tells that it serves
				poll(bound, func() bool {
					c, err := connect("", row.addr)
					if err == nil {
						c.Close()
					}
					return err == nil
				})
			}
			c = dial(t, "", row.addr)
		} else {
			c = open(t, "", row.addr, row.mux)
		}
		echo(t, c, "ready\n")
		got := look(t, d.childOf(c))
		want := row.want
		want.Umask = row.umask
		want.Env = append(append([]string(nil), want.Env...), peerEnv(c, row.mux)...)
		want.Limits, want.Parent = limits, d.pid
		want.Caps = merge(noCaps, bounding)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s %s: the child differs from its row (-want +got):\n%s", row.addr, row.mux, diff)
		}
		c.CloseWrite()
		hearEnd(t, c, "")
	}
}

var others = map[string]string{"NoNewPrivs": "0", "Seccomp": "0", "Threads": "1", "TracerPid": "0", "Kthread": "0", "oom_score_adj": "0\n", "nice": "0"}

var plainChild = child{
	UID: same("65534"), GID: same("65534"), Groups: []string{"65534"},
	Signals: noSignals, Files: connectionAndLog, Session: true, Other: others,
	Argv: []string{"/bin/cat"}, Exe: "/usr/bin/cat", Cwd: "/",
	Env: []string{
		"HOME=/nonexistent", "LOGNAME=nobody", "PATH=/usr/local/bin:/usr/bin:/bin", "SHELL=/usr/sbin/nologin", "USER=nobody",
	},
}

var fullChild = child{
	UID: same("1"), GID: same("60"), Groups: []string{"4", "31337"},
	Signals: noSignals, Files: connectionOnly, Session: true, Other: others,
	Argv: []string{"a  cat", "-u", "-e", ""}, Exe: "/usr/bin/sed", Cwd: "/usr/share",
	Env: []string{
		"EMPTY=", "HOME=/nowhere", "LOGNAME=daemon", "PASSED=on", "PATH=/usr/local/bin:/usr/bin:/bin", "SHELL=/usr/sbin/nologin", "TZ=UTC", "USER=daemon",
	},
}

func merge(maps ...map[string]string) map[string]string {
	all := map[string]string{}
	for _, m := range maps {
		for k, v := range m {
			all[k] = v
		}
	}
	return all
}

// childOf is the process that has the other end of a connection of ours.
func (d *daemon) childOf(c net.Conn) int {
	d.Helper()
	port := c.LocalAddr().(*net.TCPAddr).Port
	for _, pid := range children(d.pid) {
		env, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", pid))
		if strings.Contains(string(env), fmt.Sprintf("\x00TCPREMOTEPORT=%d\x00", port)) {
			return pid
		}
	}
	d.Fatalf("no child of the daemon is told of port %d", port)
	return 0
}

// limitsUnder is /proc/PID/limits of a program that is started like the daemon,
// but not by it.
func limitsUnder(t *testing.T, c *condition) string {
	t.Helper()
	if c == nil {
		c = &condition{}
	}
	only := condition{Nofile: c.Nofile}
	argv, env := only.command(t, []string{"/bin/cat", "/proc/self/limits"}, nil)
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = env
	return must(t, cmd)
}

// CVE-2013-4342: xinetd ran the services of its multiplexer as root, whatever
// their user and group were. Here both kinds of them, and with the groups.
func TestCVE20134342MuxServicesHaveTheirUser(t *testing.T) {
	t.Parallel()
	id := find(t, "id")
	mux := local(t)
	h := &how{cred: &syscall.Credential{Groups: []uint32{0, 4, 27}}}
	table := fmt.Sprintf(jsonLog+`
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+whoami"]
exec = [%q]
user = "nobody"
[service."tcpmux/whoareyou"]
exec = [%q]
user = "nobody"
group = "games"
`, mux, id, id)
	for _, args := range [][]string{nil, {"-portable-spawn"}} {
		h := *h
		h.args = args
		d := serveAs(t, table, &h)
		expect(t, "", mux, "whoami\r\n", replyGo+"uid=65534(nobody) gid=65534(nogroup) groups=65534(nogroup)\n")
		expect(t, "", mux, "whoareyou\r\n", "uid=65534(nobody) gid=60(games) groups=60(games)\n")
		if code := d.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// CVE-2002-0871: xinetd gave its children the pipe its signal handlers wrote
// to. With a daemon that has inherited descriptors, and many connections open
// at the same time, a child still has its own and no other.
func TestCVE20020871ChildrenHaveOneDescriptor(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serveAs(t, both(mux, direct, "cat", "exec = [\"/bin/cat\"]\nuser = \"nobody\""),
		&how{under: &condition{Files: []int{3, 6, 8, 40, 100, 101, 102, 500}}})
	for range 20 {
		dial(t, "", mux) // pending negotiations
	}
	var conns []*net.TCPConn
	for range 12 {
		conns = append(conns, open(t, "", mux, "cat"), dial(t, "", direct))
	}
	for i, c := range conns {
		echo(t, c, fmt.Sprintf("I am %d\n", i)) // and it is the right one
		if got := look(t, d.childOf(c)).Files; !reflect.DeepEqual(got, connectionAndLog) {
			t.Errorf("the child has %v", got)
		}
	}
}

// CVE-2001-1322: xinetd's children had the umask it was started with, and that
// was 0.
func TestCVE20011322Umask(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	if err := os.Chmod(dir, 0o777); err != nil {
		t.Fatal(err)
	}
	usual, asked := local(t), local(t)
	serveAs(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
exec = ["/bin/sh", "-c", "umask; : >$TCPLOCALPORT; stat -c %%a $TCPLOCALPORT"]
cwd = %q
[service.usual]
listen = [%q]
[service.asked]
listen = [%q]
umask = "077"
`, dir, usual, asked), &how{under: &condition{Umask: 0o1000}})
	expect(t, "", usual, "", "0022\n644\n")
	expect(t, "", asked, "", "0077\n600\n")
}

// A row that wants what the twin cannot do is an error, and not a row without it.
func TestTwinSaysWhatItCannot(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "twin.toml")
	if err := os.WriteFile(path, []byte("[service.a]\nlisten = [\""+local(t)+"\"]\nexec = [\"/bin/cat\"]\nuser = \"nobody\"\numask = \"077\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	got := run(t, exec.Command(programs.tcpmuxd, "-c", path, "-portable-spawn"))
	if got.code != 1 || !strings.Contains(got.stderr, "twin.toml:5:9: row \"a\": umask: ") {
		t.Errorf("exit code %d, %q", got.code, got.stderr)
	}
}

// A reload under nohup: the ignored SIGHUP is the daemon's own signal.
func TestReloadUnderNohup(t *testing.T) {
	t.Parallel()
	first, second := local(t), local(t)
	row := func(addr string) string {
		return jsonLog + "[service.a]\nlisten = [\"" + addr + "\"]\nexec = [\"/bin/echo\", \"hello\"]\nuser = \"nobody\"\n"
	}
	d := serveAs(t, row(first), &how{wrap: []string{find(t, "nohup")}})
	d.reload(row(second))
	expect(t, "", second, "", "hello\n")
	if c, err := connect("", first); err == nil {
		c.Close()
		t.Errorf("%s is still served", first)
	}
}
