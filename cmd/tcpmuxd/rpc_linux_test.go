// Rows of Sun RPC with Debian's own rpcbind, servers and clients, in a network and a
// /run of the test's own: rpcbind insists on port 111 and its socket.

package main_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// A rpcMachine is where rpcbind may run, and be asked.
type rpcMachine struct {
	t       *testing.T
	wrap    []string // a command that executes another one there
	pid     int
	rpcbind *exec.Cmd
}

func newRPCMachine(t *testing.T) *rpcMachine {
	t.Helper()
	needRoot(t)
	m := &rpcMachine{t: t}
	// rpcbind wants a user of its own, as its package makes it.
	passwd := writeFile(t, tempDir(t)+"/passwd", 0o644, readFile(t, "/etc/passwd")+"\n_rpc:x:31004:65534::/run/rpcbind:/usr/sbin/nologin\n")
	holder := exec.Command(find(t, "unshare"), "--net", "--mount", "--propagation", "private", "/bin/sh", "-c",
		`"$0" link set lo up && mount -t tmpfs tmpfs /run && mount --bind "$1" /etc/passwd && echo ready && exec cat`, find(t, "ip"), passwd)
	stdin, err := holder.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := holder.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := holder.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stdin.Close()
		holder.Wait()
	})
	ready := make([]byte, 6)
	if _, err := io.ReadFull(stdout, ready); err != nil {
		t.Fatalf("no network of the test's own: %v", err)
	}
	m.pid = holder.Process.Pid
	m.wrap = []string{find(t, "nsenter"), "--net", "--mount", "--target", strconv.Itoa(m.pid), "--"}
	return m
}

// command is one that runs there.
func (m *rpcMachine) command(argv ...string) *exec.Cmd {
	return exec.Command(m.wrap[0], append(m.wrap[1:len(m.wrap):len(m.wrap)], argv...)...)
}

func unpackedFile(t testing.TB, path string) string {
	t.Helper()
	path = filepath.Join(unpacked, path)
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: contrib/ci/deps check unpacks it", err)
	}
	return path
}

// start starts rpcbind, and waits until it can be asked.
func (m *rpcMachine) start(flags ...string) {
	m.t.Helper()
	m.rpcbind = m.command(append([]string{unpackedFile(m.t, "sbin/rpcbind"), "-f"}, flags...)...)
	m.rpcbind.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := m.rpcbind.Start(); err != nil {
		m.t.Fatal(err)
	}
	m.t.Cleanup(m.end)
	if !poll(bound, func() bool { return m.command(unpackedFile(m.t, "usr/bin/rpcinfo"), "-p").Run() == nil }) {
		m.t.Fatal("rpcbind cannot be asked")
	}
}

// end kills it: it says goodbye to nobody.
func (m *rpcMachine) end() {
	if m.rpcbind != nil {
		m.rpcbind.Process.Kill()
		m.rpcbind.Wait()
		m.rpcbind = nil
	}
}

// registered is what rpcinfo shows, but for rpcbind itself: "100001 3 udp6" and the
// port, or with an owner the owner, of each.
func (m *rpcMachine) registered(owner bool) map[string]string {
	m.t.Helper()
	list := map[string]string{}
	for line := range strings.Lines(must(m.t, m.command(unpackedFile(m.t, "usr/bin/rpcinfo")))) {
		f := strings.Fields(line)
		if len(f) < 5 || f[0] == "program" || f[0] == "100000" {
			continue
		}
		key := strings.Join(f[:3], " ")
		if list[key] = f[len(f)-1]; !owner {
			a := strings.Split(f[3], ".")
			hi, _ := strconv.Atoi(a[len(a)-2])
			lo, _ := strconv.Atoi(a[len(a)-1])
			list[key] = strconv.Itoa(hi<<8 | lo)
		}
	}
	return list
}

// shows waits until rpcinfo shows exactly these, and returns their ports.
func (m *rpcMachine) shows(keys ...string) map[string]string {
	m.t.Helper()
	var list map[string]string
	if !poll(bound, func() bool {
		list = m.registered(false)
		for _, k := range keys {
			if list[k] == "" {
				return false
			}
		}
		return len(list) == len(keys)
	}) {
		m.t.Fatalf("rpcinfo shows %v, want %q", list, keys)
	}
	return list
}

// rpcRows are two real servers and a program that is none, and a row that has nothing
// to do with it.
func rpcRows(t *testing.T) (rusersd, rstatd, rest string) {
	rusersd = fmt.Sprintf("[service.rusersd]\nprotocol = \"udp\"\nwait = true\nexec = [%q]\nuser = \"root\"\nrpc = { program = \"rusersd\", versions = \"2-3\" }\n", peer(t, "rpc.rusersd"))
	rstatd = fmt.Sprintf("[service.rstatd]\nprotocol = \"udp4\"\nwait = true\nexec = [%q]\nuser = \"root\"\nrpc = { program = 100001, versions = \"1-4\" }\n", peer(t, "rpc.rstatd"))
	rest = "[service.cat]\nlisten = \"127.0.0.1:0\"\nexec = [\"/bin/cat\"]\nuser = \"nobody\"\nrpc = { program = 300300, versions = 1 }\n" +
		"[service.plain]\nlisten = \"127.0.0.1:3001\"\nexec = [\"/bin/echo\", \"plain\"]\nuser = \"nobody\"\n"
	// They wait for more for a while, longer than a test.
	return rusersd + "on_stop = \"term\"\n", rstatd + "on_stop = \"term\"\n", rest
}

var (
	rusersdKeys = []string{"100002 2 udp", "100002 3 udp", "100002 2 udp6", "100002 3 udp6"}
	rstatdKeys  = []string{"100001 1 udp", "100001 2 udp", "100001 3 udp", "100001 4 udp"}
	catKeys     = []string{"300300 1 tcp"}
)

func concat(lists ...[]string) (all []string) {
	for _, l := range lists {
		all = append(all, l...)
	}
	return all
}

// asked has real clients ask both servers, twice: the second time a new one.
func (m *rpcMachine) asked() {
	m.t.Helper()
	for range 2 {
		if out := must(m.t, m.command(unpackedFile(m.t, "usr/bin/rup"), "127.0.0.1")); !strings.Contains(out, " up ") {
			m.t.Errorf("rup says %q", out)
		}
		if out := must(m.t, m.command(unpackedFile(m.t, "usr/bin/rusers"), "-a", "127.0.0.1")); !strings.Contains(out, "127.0.0.1") && !strings.Contains(out, "localhost") {
			m.t.Errorf("rusers says %q", out)
		}
	}
}

// differ reports a port that is another one.
func differ(t *testing.T, was, is map[string]string) {
	t.Helper()
	for k, port := range is {
		if was[k] != port {
			t.Errorf("%s: port %s has become %s", k, was[k], port)
		}
	}
}

func TestRPC(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	m.start()
	rusersd, rstatd, rest := rpcRows(t)
	d := serveAs(t, jsonLog+rusersd+rstatd+rest, &how{wrap: m.wrap})
	ports := m.shows(concat(rusersdKeys, rstatdKeys, catKeys)...)
	m.asked()
	if out := must(t, m.command(unpackedFile(t, "usr/bin/rpcinfo"), "-u", "127.0.0.1", "rusersd")); !strings.Contains(out, "version 2 ready") {
		t.Errorf("rpcinfo says %q", out)
	}
	for _, e := range d.events("register", "service", "cat") {
		if got, want := e.text("local"), "127.0.0.1:"+ports[catKeys[0]]; got != want {
			t.Errorf("%v, and rpcbind knows %s", e, want)
		}
	}

	// The same again, and then with another row changed: nothing moves.
	d.reload(jsonLog + rusersd + rstatd + rest)
	differ(t, ports, m.shows(concat(rusersdKeys, rstatdKeys, catKeys)...))
	d.reload(jsonLog + rusersd + strings.Replace(rstatd, "1-4", "2-3", 1) + rest + "nice = 1\n")
	differ(t, ports, m.shows(concat(rusersdKeys, rstatdKeys[1:3], catKeys)...))

	// A row is gone, and comes back.
	d.reload(jsonLog + rusersd + rest)
	differ(t, ports, m.shows(concat(rusersdKeys, catKeys)...))
	d.reload(jsonLog + rusersd + rstatd + rest)
	m.shows(concat(rusersdKeys, rstatdKeys, catKeys)...)
	m.asked()

	// rpcbind forgets, and is told by a SIGHUP.
	ports = m.registered(false)
	m.end()
	m.start()
	if list := m.registered(false); len(list) != 0 {
		t.Errorf("a new rpcbind knows of %v", list)
	}
	d.reload(jsonLog + rusersd + rstatd + rest)
	differ(t, ports, m.shows(concat(rusersdKeys, rstatdKeys, catKeys)...))
	m.asked()

	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	if list := m.registered(false); len(list) != 0 {
		t.Errorf("after the end rpcinfo shows %v", list)
	}
}

// What a daemon that was killed has left is replaced by the next one's.
func TestRPCAfterAKill(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	m.start()
	_, rstatd, rest := rpcRows(t)
	d := serveAs(t, jsonLog+rstatd+rest, &how{wrap: m.wrap})
	before := m.shows(concat(rstatdKeys, catKeys)...)
	d.signal(syscall.SIGKILL)
	d.wait()
	d = serveAs(t, jsonLog+rstatd, &how{wrap: m.wrap})
	d.waitFor("register", "service", "rstatd")
	after := m.shows(concat(rstatdKeys, catKeys)...)
	if e := d.waitFor("register"); !strings.HasSuffix(e.text("local"), ":"+after[rstatdKeys[0]]) || before[rstatdKeys[0]] == after[rstatdKeys[0]] {
		t.Errorf("rpcinfo shows %v, before it was %v: %v", after, before, e)
	}
	d.stop()
	m.shows(catKeys...) // which is not of this daemon's table
}

// Without rpcbind everything is served, and an error says what to do; once it is
// there the daemon finds it by itself.
func TestRPCWithoutRpcbind(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	_, rstatd, rest := rpcRows(t)
	d := serveAs(t, jsonLog+rstatd+rest, &how{wrap: m.wrap})
	for _, row := range []string{"rstatd", "cat"} {
		if e := d.waitFor("cannot register", "service", row); e.text("level") != "ERROR" || !strings.Contains(e.text("hint"), "start rpcbind and reload") {
			t.Errorf("%v", e)
		}
	}
	inNetworkOf(t, m.pid, func() { expect(t, "", "127.0.0.1:3001", "", "plain\n") })
	m.start()
	m.shows(concat(rstatdKeys, catKeys)...)
	d.waitFor("register", "service", "rstatd")
	if n := len(d.events("cannot register", "service", "rstatd")); n > 2 { // refused, and then not there
		t.Errorf("the error was said %d times", n)
	}
	// It goes away for good: the end does not wait for it.
	m.end()
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
	d.waitFor("cannot unregister", "service", "rstatd")
}

// Without its socket rpcbind is asked over the loopback interface, from a reserved
// port.
func TestRPCOverLoopback(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	m.start()
	must(t, m.command("rm", "/run/rpcbind.sock"))
	_, rstatd, _ := rpcRows(t)
	d := serveAs(t, jsonLog+rstatd, &how{wrap: m.wrap})
	d.waitFor("register", "service", "rstatd")
	list := must(t, m.command(unpackedFile(t, "usr/bin/rpcinfo"), "-p", "127.0.0.1"))
	if strings.Count(list, "100001") != len(rstatdKeys) {
		t.Errorf("rpcinfo says %s", list)
	}
	d.stop()
	if list := must(t, m.command(unpackedFile(t, "usr/bin/rpcinfo"), "-p", "127.0.0.1")); strings.Contains(list, "100001") {
		t.Errorf("after the end rpcinfo says %s", list)
	}
}

// A daemon without rights owns what it has registered, and takes it out again. What
// is root's it cannot have.
func TestRPCAsNobody(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	m.start()
	roots := serveAs(t, jsonLog+"[service.root]\nprotocol = \"tcp4\"\nexec = [\"/bin/cat\"]\nuser = \"root\"\nrpc = { program = 300301, versions = 1 }\n", &how{wrap: m.wrap})
	roots.waitFor("register")
	row := "[service.%s]\nprotocol = \"tcp4\"\nexec = [\"/bin/cat\"]\nrpc = { program = %d, versions = 1 }\n"
	as := append(m.wrap[:len(m.wrap)-1:len(m.wrap)-1], "--setuid", "65534", "--setgid", "65534", "--")
	d := serveAs(t, jsonLog+fmt.Sprintf(row, "own", 300300)+fmt.Sprintf(row, "taken", 300301), &how{wrap: as})
	d.waitFor("register", "service", "own")
	d.waitFor("cannot register", "service", "taken")
	owners := m.registered(true)
	if len(owners) != 2 || owners["300301 1 tcp"] != "superuser" || owners["300300 1 tcp"] == "superuser" {
		t.Errorf("the owners are %v", owners)
	}
	d.stop()
	m.shows("300301 1 tcp")
}

// The socket that was passed is the one that is registered.
func TestRPCPassed(t *testing.T) {
	t.Parallel()
	m := newRPCMachine(t)
	m.start()
	var file *os.File
	port := 0
	inNetworkOf(t, m.pid, func() {
		conn, err := net.ListenUDP("udp4", &net.UDPAddr{})
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		port = conn.LocalAddr().(*net.UDPAddr).Port
		if file, err = conn.File(); err != nil {
			t.Error(err)
		}
	})
	if file == nil {
		t.FailNow()
	}
	wrap, env := forItself("rstatd", 1)
	_, rstatd, _ := rpcRows(t)
	d := serveAs(t, jsonLog+rstatd, &how{wrap: append(m.wrap[:len(m.wrap):len(m.wrap)], wrap...), env: env, files: []*os.File{file}})
	want := strconv.Itoa(port)
	if got := m.shows(rstatdKeys...)[rstatdKeys[0]]; got != want {
		t.Errorf("port %s is registered, and %s was passed", got, want)
	}
	if out := must(t, m.command(unpackedFile(t, "usr/bin/rup"), "127.0.0.1")); !strings.Contains(out, " up ") {
		t.Errorf("rup says %q", out)
	}
	d.stop()
	m.shows()
}

// The lines of an inetd.conf and an xinetd.conf as they always were.
func TestRPCOfOtherFiles(t *testing.T) {
	t.Parallel()
	for name, text := range map[string]string{
		"inetd.conf": `rstatd/1-4	dgram	rpc/udp	wait	root	%[1]s	rpc.rstatd
rstadt/1	dgram	rpc/udp	wait	root	%[1]s	rpc.rstatd
300300/1	stream	rpc/tcp	nowait	nobody	/bin/cat	cat
`,
		"xinetd.conf": `service rstatd
{
	type        = RPC
	rpc_version = 1-4
	socket_type = dgram
	protocol    = udp
	flags       = IPv4
	wait        = yes
	user        = root
	server      = %[1]s
}
service rstadt
{
	type        = RPC
	rpc_version = 1
	socket_type = dgram
	protocol    = udp
	wait        = yes
	user        = root
	server      = %[1]s
}
service cat
{
	type        = RPC UNLISTED
	rpc_version = 1
	rpc_number  = 300300
	socket_type = stream
	flags       = IPv4
	wait        = no
	user        = nobody
	server      = /bin/cat
}
`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			m := newRPCMachine(t)
			m.start()
			conf := writeFile(t, filepath.Join(tempDir(t), name), 0o644, fmt.Sprintf(text, peer(t, "rpc.rstatd")))
			d := launch(t, "", &how{wrap: m.wrap, args: []string{"-c", conf}, words: true})
			m.shows(concat(rstatdKeys, catKeys)...)
			if out := must(t, m.command(unpackedFile(t, "usr/bin/rup"), "127.0.0.1")); !strings.Contains(out, " up ") {
				t.Errorf("rup says %q", out)
			}
			if code := d.stop(); code != 0 {
				t.Errorf("exit code %d", code)
			}
			m.shows()
			if said := strings.Join(d.log.words(), "\n"); !strings.Contains(said, `is no program in rpc(5)`) || !strings.Contains(said, "this is left out until then") {
				t.Errorf("of the name that is unknown it says nothing:\n%s", said)
			}
		})
	}
}
