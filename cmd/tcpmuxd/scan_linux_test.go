// Scanners, as an administrator sees them: the log, tcpmuxctl, SIGUSR1, and the
// sets of nftables with a firewall that makes use of them.

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// scanTable has a multiplexer on all addresses, names that not everybody may have,
// and a sensor.
func scanTable(mux, trap, server string) string {
	port := func(addr string) string { return addr[strings.LastIndexByte(addr, ':')+1:] }
	return fmt.Sprintf(`
[server]
log_format = "json"
%s
[service.tcpmux]
builtin = "tcpmux"
listen = %q
[service."tcpmux/+hello"]
exec = ["/bin/echo", "hello"]
user = "nobody"
[service."tcpmux/+denied"]
exec = ["/bin/echo", "no"]
user = "nobody"
access.deny = ["127.0.0.0/8"]
[service.trap]
builtin = "sensor"
listen = %q
`, server, port(mux), port(trap))
}

// ask runs tcpmuxctl and returns what it prints, and its exit code.
func ask(t *testing.T, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	cmd := exec.Command(programs.ctl, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

// closed expects a connection that ends without a word.
func closed(t *testing.T, from, addr string) {
	t.Helper()
	if got, err := talk(from, addr, "hello\r\n"); got != "" || err != nil && !errors.Is(err, syscall.ECONNRESET) && !errors.Is(err, syscall.EPIPE) {
		t.Errorf("from %s: %q, %v", from, got, err)
	}
}

// A scan of 10,000 names ends after the tenth; the honest user next door notices
// nothing; and the administrator has the last word.
func TestScanner(t *testing.T) {
	t.Parallel()
	mux, trap := local(t), local(t)
	socket := filepath.Join(tempDir(t), "run", "control.sock")
	table := func(more string) string {
		return scanTable(mux, trap, fmt.Sprintf("control = %q\nscan = { hold = \"1h\", exempt = [\"127.7.0.0/16\"] }\n%s", socket, more))
	}
	d := serve(t, table(""))
	answered := 0
	for i := range 10_000 {
		name := fmt.Sprintf("name%d", i)
		if i%2 == 1 {
			name = "denied"
		}
		if got, err := talk("127.6.0.1", mux, name+"\r\n"); err == nil && got == replyNo {
			answered++
		}
		if i%1000 == 0 {
			expect(t, "127.6.0.2", mux, "hello\r\n", replyGo+"hello\n")
			expect(t, "127.7.0.1", mux, name+"\r\n", replyNo)
		}
	}
	// Nine unknown names and the denied one, which counts once.
	if want := 17; answered != want {
		t.Errorf("%d names were answered, want %d", answered, want)
	}
	if bans := d.events("ban"); len(bans) != 1 || !bans[0].has([]string{"source", "127.6.0.1", "reason", "names", "service", "tcpmux"}) ||
		len(bans[0]["names"].([]any)) != 10 {
		t.Errorf("%v", bans)
	}
	line := regexp.MustCompile(`^SOURCE +UNTIL +LEFT +REFUSED\n127\.6\.0\.1 +20\d\d-\S+Z +5\dm\S+ +\d{4}\n$`)
	if out, errs, code := ask(t, "bans", "-s", socket); code != 0 || errs != "" || !line.MatchString(out) {
		t.Errorf("bans: exit %d\n%s%s", code, out, errs)
	}
	if st, err := os.Stat(socket); err != nil || st.Mode() != os.ModeSocket|0o600 {
		t.Errorf("the socket: %v, %v", st.Mode(), err)
	}
	// SIGUSR1 logs it, and every counter by the word that stands in the manual.
	d.signal(syscall.SIGUSR1)
	d.waitFor("banned", "source", "127.6.0.1")
	d.waitFor("instances", "service", "trap")
	counted := d.waitFor("refusals")
	page, err := os.ReadFile("tcpmuxd.8")
	if err != nil {
		t.Fatal(err)
	}
	_, list, _ := strings.Cut(string(page), ".It Qq refuse\n")
	list, _, _ = strings.Cut(list, ".It Qq defer\n")
	list, _, _ = strings.Cut(list, ".It Qq ban\n")
	var words, counters []string
	for _, m := range regexp.MustCompile(`(?m)^\.It Cm (.*)$`).FindAllStringSubmatch(list, -1) {
		words = append(words, strings.Split(m[1], " , ")...)
	}
	for key := range counted {
		if !slices.Contains([]string{"time", "level", "msg"}, key) {
			counters = append(counters, key)
		}
	}
	slices.Sort(words)
	slices.Sort(counters)
	if !slices.Equal(words, counters) {
		t.Errorf("the manual has %v\nthe counters are %v", words, counters)
	}
	if counted.number("banned") != 10_000-answered || counted.number("access") < 8 {
		t.Errorf("%v", counted)
	}
	// A reload keeps the ban, and has the socket at another place.
	old := socket
	socket = filepath.Join(filepath.Dir(socket), "other.sock")
	d.reload(table(""))
	closed(t, "127.6.0.1", mux)
	if _, errs, code := ask(t, "bans", "-s", old); code != 1 || !strings.Contains(errs, "no such file") {
		t.Errorf("the old socket: exit %d\n%s", code, errs)
	}
	if out, errs, code := ask(t, "unban", "-s", socket, "127.6.0.2", "127.6.0.1", "nobody"); code != 1 || out != "" ||
		errs != "tcpmuxctl: error: 127.6.0.2 is not banned\ntcpmuxctl: error: \"nobody\" is no source; write an address, a prefix, \"uid:1000\" or \"vsock:3\"\n" {
		t.Errorf("unban: exit %d\n%s%s", code, out, errs)
	}
	expect(t, "127.6.0.1", mux, "hello\r\n", replyGo+"hello\n")
	if out, _, code := ask(t, "bans", "-s", socket); code != 0 || out != "" {
		t.Errorf("bans: exit %d\n%s", code, out)
	}
	closed(t, "127.6.0.1", trap)
	d.waitFor("ban", "reason", "sensor", "service", "trap") // it comes after the close
	closed(t, "127.6.0.1", mux)
}

// A control socket that cannot be had is said, and costs nobody a service; one
// that a dead daemon has left is replaced.
func TestControlSocket(t *testing.T) {
	t.Parallel()
	mux, trap := local(t), local(t)
	socket := filepath.Join(tempDir(t), "control.sock")
	table := scanTable(mux, trap, fmt.Sprintf("control = %q\nscan = {}\n", socket))
	if err := os.WriteFile(socket, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	d := serve(t, table)
	d.waitFor("no control socket")
	expect(t, "", mux, "hello\r\n", replyGo+"hello\n")
	os.Remove(socket)
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: socket})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	d.reload(table)
	if out, errs, code := ask(t, "bans", "-s", socket); code != 0 {
		t.Errorf("bans: exit %d\n%s%s", code, out, errs)
	}
	d.idle = d.settled() // with the socket
	if code := d.stop(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if _, err := os.Lstat(socket); !os.IsNotExist(err) {
		t.Errorf("the socket is left: %v", err)
	}
}

// nft(8) sees who is banned, and its rules drop him.
func TestScanNftables(t *testing.T) {
	t.Parallel()
	nft := find(t, "nft")
	const mux, mux6, trap = "127.0.0.1:1001", "[::1]:1001", "127.0.0.1:1002"
	firewall := filepath.Join(tempDir(t), "firewall")
	writeFile(t, firewall, 0o644, `
table inet filter {
	set tcpmuxd4 { type ipv4_addr; flags timeout; }
	set tcpmuxd6 { type ipv6_addr; flags interval, timeout; }
	chain input {
		type filter hook input priority 0;
		ip saddr @tcpmuxd4 counter drop
		ip6 saddr @tcpmuxd6 counter drop
	}
}
`)
	table := func(hold, set string) string {
		return scanTable(mux, trap, fmt.Sprintf("[server.scan]\nnames = 3\nhold = %q\nnft_set = %q\nnft_set_v6 = \"inet filter tcpmuxd6\"\n", hold, set))
	}
	d := serveAs(t, table("1h", "inet filter tcpmuxd4"), &how{wrap: []string{find(t, "unshare"), "--net", "/bin/sh", "-c", `"$0" link set lo up && exec "$@"`, find(t, "ip")}})
	// The firewall comes later than the daemon.
	d.waitFor("cannot write bans to nftables")
	list := func() (out string) {
		inNetworkOf(t, d.pid, func() {
			b, err := exec.Command(nft, "list", "ruleset").CombinedOutput()
			if err != nil {
				t.Errorf("%v\n%s", err, b)
			}
			out = string(b)
		})
		return out
	}
	listed := func(want string, yes bool) {
		t.Helper()
		if !poll(bound, func() bool { return strings.Contains(list(), want) == yes }) {
			t.Errorf("%q, want %v, in\n%s", want, yes, list())
		}
	}
	inNetworkOf(t, d.pid, func() {
		must(t, exec.Command(nft, "-f", firewall))
		for _, name := range []string{"one", "two", "three"} {
			expect(t, "127.6.0.1", mux, name+"\r\n", replyNo)
			expect(t, "", mux6, name+"\r\n", replyNo)
		}
	})
	listed("127.6.0.1 timeout ", true)
	listed("::/64 timeout ", true)
	inNetworkOf(t, d.pid, func() {
		dialer := net.Dialer{Timeout: 300 * time.Millisecond, LocalAddr: &net.TCPAddr{IP: net.ParseIP("127.6.0.1")}}
		if c, err := dialer.Dial("tcp", mux); err == nil {
			c.Close()
			t.Error("a connection in spite of the firewall")
		}
		expect(t, "127.6.0.2", mux, "hello\r\n", replyGo+"hello\n")
		// Whoever empties the sets has them filled again by a reload.
		must(t, exec.Command(nft, "flush", "ruleset"))
		must(t, exec.Command(nft, "-f", firewall))
	})
	d.reload(table("1s", "inet filter tcpmuxd4"))
	listed("127.6.0.1 timeout ", true)
	inNetworkOf(t, d.pid, func() { closed(t, "127.6.0.3", trap) })
	d.waitFor("ban", "source", "127.6.0.3")
	if !strings.Contains(list(), "127.6.0.1 timeout ") {
		t.Error("the longer ban is gone")
	}
	// Whoever is exempt by a reload is let in by the firewall, too, and a set that is
	// no longer written to has nobody in it whom nobody would lift.
	exempt := strings.Replace(table("1h", "inet filter tcpmuxd4"), "hold =", "exempt = [\"127.6.0.1\"]\nhold =", 1)
	d.reload(exempt)
	listed("127.6.0.1 timeout ", false)
	listed("::/64 timeout ", true)
	d.reload(strings.Replace(exempt, "nft_set_v6 = \"inet filter tcpmuxd6\"\n", "", 1))
	listed("::/64 timeout ", false)
}

// What programs take themselves, the built daemon has the kernel keep away from
// those who are banned.
func TestScanWaitRow(t *testing.T) {
	t.Parallel()
	mux, trap := local(t), local(t)
	c, addr := kept(t)
	c.Close()
	d := serve(t, scanTable(mux, trap, "scan = {}\n")+waitRow("judged", addr, shell(readOne)))
	closed(t, "127.0.0.2", trap)
	d.waitFor("ban", "source", "127.0.0.2")
	// Until the kernel knows it, what he sends may come through.
	n := 0
	if !poll(bound, func() bool {
		n++
		denied, allowed := fmt.Sprintf("denied %d", n), fmt.Sprintf("allowed %d", n)
		send(d, "127.0.0.2", addr, denied)
		send(d, "127.0.0.3", addr, allowed)
		d.waitFor("output", "service", "judged", "line", allowed)
		return len(d.events("output", "service", "judged", "line", denied)) == 0
	}) {
		t.Error("a banned source is heard")
	}
}
