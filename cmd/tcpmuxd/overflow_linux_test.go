// What the built daemon does with the excess: limits of all rows together, a line
// by name, texts, resets, and rows that shed.

package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// withServer is a table of limited with limits of all rows together.
func withServer(mux, direct, program, limits, server string) string {
	return limited(mux, direct, program, limits) + "\n[server.limits]\n" + server + "\n"
}

// Limits of the daemon are over all rows, whichever way a peer comes; a reload
// keeps what is counted, and brings them to what runs already.
func TestServerLimits(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	table := func(server string) string { return withServer(mux, direct, `["/bin/cat"]`, "", server) }
	d := serve(t, table("instances = 3\ninstances_per_source = 2"))
	a, b := open(t, "127.0.0.2", mux, "a"), dial(t, "127.0.0.2", direct)
	echo(t, b, "second\n")
	expect(t, "127.0.0.2", mux, "a\r\n", replyBusy)
	d.waitFor("refuse", "service", "tcpmux/+a", "reason", "server_instances_per_source")
	c := open(t, "127.0.0.3", mux, "a")
	if x := dial(t, "127.0.0.4", direct); !turnedAway(x) {
		t.Error("a fourth instance")
	}
	d.waitFor("refuse", "service", "a", "reason", "server_instances")
	d.reload(table("instances = 4"))
	e := open(t, "127.0.0.2", mux, "a")
	expect(t, "127.0.0.5", mux, "a\r\n", replyBusy)
	// Without limits there is no book to pay to, and with them again all are in it.
	d.reload(limited(mux, direct, `["/bin/cat"]`, ""))
	f := open(t, "127.0.0.2", mux, "a")
	d.reload(table("instances = 5"))
	expect(t, "127.0.0.5", mux, "a\r\n", replyBusy)
	for _, x := range []*net.TCPConn{a, b, c, e, f} {
		x.CloseWrite()
		hearEnd(t, x, "")
	}
	d.checkIdle()
	open(t, "127.0.0.5", mux, "a")
}

// Peers wait by name: nobody is refused, the greedy one does not keep the other
// from his turn, and nothing runs for those who wait.
func TestQueueByName(t *testing.T) {
	t.Parallel()
	mux := local(t)
	table := func(wait string) string {
		return fmt.Sprintf(jsonLog+`
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+a"]
exec = "/bin/cat"
user = "nobody"
limits = { instances = 1, overflow = "queue", overflow_wait = %q }
`, mux, wait)
	}
	d := serve(t, table("1m"))
	held := open(t, "127.0.0.2", mux, "a")
	ask := func(from string) *net.TCPConn {
		c := dial(t, from, mux)
		if _, err := c.Write([]byte("a\r\nx")); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		return c
	}
	descriptors := len(d.files())
	var greedy []*net.TCPConn
	for i := range 50 {
		greedy = append(greedy, ask("127.0.0.2"))
		if !poll(bound, func() bool { return len(d.files()) >= descriptors+1+i }) {
			t.Fatal("a peer does not wait")
		}
	}
	other := ask("127.0.0.3")
	// Who is accepted does not stand in line yet.
	if !poll(bound, func() bool {
		d.signal(syscall.SIGUSR1)
		time.Sleep(10 * time.Millisecond)
		return len(d.files()) >= descriptors+51 && len(d.events("instances", "service", "tcpmux/+a", "waiting", "51")) > 0
	}) {
		t.Fatal("a peer does not wait")
	}
	if n := len(d.running()); n != 1 {
		t.Errorf("%d instances run", n)
	}
	held.CloseWrite()
	hearEnd(t, held, "")
	for _, c := range append(greedy, other) {
		hearEnd(t, c, replyGo+"x")
	}
	d.checkIdle()
	if n := len(d.events("refuse", "reason", "instances")); n != 0 {
		t.Errorf("%d are refused", n)
	}
	if starts := d.waitForN(52, "start"); len(starts) != 52 || !strings.HasPrefix(starts[2].text("peer"), "127.0.0.3:") {
		t.Errorf("%d starts, and the second turn was that of %s", len(starts), starts[2].text("peer"))
	}
	// Nobody waits for ever.
	d.reload(table("200ms"))
	held = open(t, "127.0.0.2", mux, "a")
	expect(t, "127.0.0.3", mux, "a\r\n", replyBusy)
	d.waitFor("refuse", "service", "tcpmux/+a", "reason", "overflow_wait")
	held.Close()
}

func TestRefusalTexts(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	file := filepath.Join(tempDir(t), "banner")
	write := func(text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("from a file\n")
	table := func(limits string) string {
		return limited(mux, direct, `["/bin/cat"]`, "limits = { instances = 1, "+limits+" }")
	}
	d := serve(t, table(`refusal = "busy, sorry"`))
	a, b := open(t, "", mux, "a"), dial(t, "", direct)
	echo(t, b, "it runs\n")
	expect(t, "", mux, "a\r\n", "-busy, sorry\r\n")
	expect(t, "", direct, "", "busy, sorry\r\n")
	expect(t, "", mux, "other\r\n", replyNo)
	d.reload(table(fmt.Sprintf("refusal_file = %q", file)))
	expect(t, "", mux, "a\r\n", "-from a file\r\n")
	expect(t, "", direct, "", "from a file\n")
	write("another\n")
	d.reload(table(fmt.Sprintf("refusal_file = %q", file)))
	expect(t, "", direct, "", "another\n")
	d.reload(table(`overflow = "reset"`))
	for _, way := range [][2]string{{mux, "a\r\n"}, {direct, ""}} {
		got, err := talk("", way[0], way[1])
		if got != "" || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("heard %q, %v", got, err)
		}
	}
	for _, c := range []*net.TCPConn{a, b} {
		c.CloseWrite()
		hearEnd(t, c, "")
	}
}

// A machine is always busier than next to nothing, and never as busy as this.
func TestShed(t *testing.T) {
	t.Parallel()
	load, err := os.ReadFile("/proc/loadavg")
	if err != nil || bytes.HasPrefix(load, []byte("0.00 ")) {
		load = nil // nothing has run for a minute: only the other half can be seen
	}
	mux, direct := local(t), local(t)
	table := func(load string) string {
		return limited(mux, direct, echoOK, "limits = { shed = { load = "+load+" } }")
	}
	d := serve(t, table("99999"))
	if !served(t, "", mux, "a\r\n") || !served(t, "", direct, "") {
		t.Error("it sheds")
	}
	if load == nil {
		return
	}
	d.reload(table("0.001"))
	d.waitFor("row sheds", "service", "a")
	expect(t, "", mux, "a\r\n", replyBusy)
	if served(t, "", direct, "") {
		t.Error("it does not shed")
	}
	d.waitFor("refuse", "service", "tcpmux/+a", "reason", "shed")
	d.waitFor("refuse", "service", "a", "reason", "shed")
	d.reload(limited(mux, direct, echoOK, ""))
	if !served(t, "", mux, "a\r\n") || !served(t, "", direct, "") {
		t.Error("it sheds, and the row says nothing of it")
	}
	if got := d.events("row sheds"); len(got) == 0 || !strings.Contains(fmt.Sprint(got[0]), "load") {
		t.Errorf("the log says %v", got)
	}
}
