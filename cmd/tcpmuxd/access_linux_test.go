// Access beyond the peer's own address: sets and their files, interfaces, local
// addresses and hours, for every kind of row of the built daemon.

package main_test

import (
	"encoding/binary"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// oClock is a tzfile(5) of a place where it is this time of a day now.
func oClock(t *testing.T, want time.Duration) (path string) {
	t.Helper()
	now := time.Now().UTC()
	midnight := now.Truncate(24 * time.Hour)
	b := append([]byte("TZif"), make([]byte, 16+16)...)
	b = binary.BigEndian.AppendUint32(b, 1) // one kind of local time
	b = binary.BigEndian.AppendUint32(b, 4) // and its name
	b = binary.BigEndian.AppendUint32(b, uint32(int32((want-now.Sub(midnight))/time.Second)))
	b = append(b, "\x00\x00odd\x00"...)
	return writeFile(t, filepath.Join(tempDir(t), "zone"), 0o644, string(b))
}

// A five is one row of each kind, with the same access.
type five struct{ mux, direct, answers, wait, session string }

func newFive(t *testing.T) five {
	return five{local(t), local(t), local(t), local(t), local(t)}
}

func (f five) table(more, access string) string {
	return jsonLog + more + fmt.Sprintf(`
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+named"]
exec = %s
user = "nobody"
%[6]s
[service.direct]
listen = [%[3]q]
exec = %[2]s
user = "nobody"
%[6]s
[service.answers]
socket = "dgram"
listen = [%[4]q]
builtin = "echo"
limits.rate_per_source = "0"
%[6]s
`, f.mux, echoOK, f.direct, f.answers, "", access) +
		waitRow("wait", f.wait, shell(readOne)+"\n"+access) +
		fmt.Sprintf("[service.session]\nsocket = \"dgram\"\nlisten = [%q]\n%s\n%s\n", f.session, shell(readOne), access)
}

var fives atomic.Int64

// expect says whether a source is let in by all five, and by whom else.
func (f five) expect(d *daemon, from string, want bool) {
	d.Helper()
	for row, way := range map[string][2]string{"tcpmux/+named": {f.mux, "named\r\n"}, "direct": {f.direct, ""}} {
		if got := served(d, from, way[0], way[1]); got != want {
			d.Errorf("from %s to %s: served is %v", from, row, got)
		}
	}
	names, err := talk(from, f.mux, "help\r\n")
	if err != nil || strings.Contains(names, "named") != want {
		d.Errorf("HELP from %s says %q, %v; want a name: %v", from, names, err, want)
	}
	word := fmt.Sprintf("word %d", fives.Add(1))
	send(d, from, f.wait, word)
	send(d, from, f.session, word)
	if answered(d, from, f.answers) != want {
		d.Errorf("from %s: the built-in answers: %v", from, !want)
	}
	if want {
		d.waitFor("output", "service", "wait", "line", word)
		d.waitFor("output", "service", "session", "line", word)
		return
	}
	// What was to come would have come before the answer to the other.
	d.waitFor("refuse", "service", "session", "reason", "access")
	if got := append(d.events("output", "service", "wait", "line", word), d.events("output", "service", "session", "line", word)...); len(got) > 0 {
		d.Errorf("from %s: %v", from, got)
	}
}

// answered says whether an echo comes back. A built-in that refuses logs it, so
// that nobody waits for what does not come.
func answered(d *daemon, from, addr string) bool {
	d.Helper()
	to, err := net.ResolveUDPAddr("udp4", addr)
	if err != nil {
		d.Fatal(err)
	}
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, to)
	if err != nil {
		d.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("x")); err != nil {
		d.Fatal(err)
	}
	got := false
	if !poll(bound, func() bool {
		c.SetReadDeadline(time.Now().Add(20 * time.Millisecond))
		n, _ := c.Read(make([]byte, 10))
		got = n == 1
		return got || len(d.events("refuse", "service", "answers", "peer", c.LocalAddr().String())) > 0
	}) {
		d.Errorf("from %s: neither an answer nor a refusal", from)
	}
	return got
}

// TestAccessOfEveryKind: every row judges alike, and says by what.
func TestAccessOfEveryKind(t *testing.T) {
	t.Parallel()
	noon := oClock(t, 12*time.Hour)
	for name, c := range map[string]struct {
		access, rule string
		want         bool
	}{
		"interface":       {`access.interfaces = ["lo"]`, "", true},
		"no interface":    {`access.interfaces = ["tcpmuxd-none"]`, "none of access.interfaces", false},
		"local":           {`access.local = ["127.0.0.1", "@here"]`, "", true},
		"another local":   {`access.local = ["@here", "::1"]`, "none of access.local", false},
		"open":            {`access.hours = ["11:00-14:00"]`, "", true},
		"closed":          {`access.hours = ["22:00-02:00"]`, "not within access.hours", false},
		"set":             {`access.allow = ["@peers"]`, "", true},
		"not in the set":  {`access.allow = ["@here"]`, "none of access.allow", false},
		"denied by a set": {`access.deny = ["@peers"]`, "127.0.0.0/29", false},
		"everything":      {"access.allow = [\"@peers\"]\naccess.interfaces = [\"lo\"]\naccess.local = [\"127.0.0.1\"]\naccess.hours = [\"11:00-14:00\"]", "", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFive(t)
			sets := "[set.peers]\nprefixes = [\"127.0.0.0/29\"]\n[set.here]\nprefixes = [\"192.0.2.0/24\"]\n"
			d := serveAs(t, f.table(sets, c.access), &how{env: []string{"TZ=" + noon}})
			d.idle = 0 // the first session opens what is kept
			f.expect(d, "127.0.0.2", c.want)
			if c.rule != "" {
				for _, row := range []string{"tcpmux/+named", "direct", "answers", "session"} {
					d.waitFor("refuse", "service", row, "reason", "access", "rule", c.rule)
				}
			}
		})
	}
}

// TestHoursBeginAndEnd: at the edge all rows change, those that the kernel judges
// for as well, and what runs goes on.
func TestHoursBeginAndEnd(t *testing.T) {
	t.Parallel()
	for _, margin := range []time.Duration{5 * time.Second, 15 * time.Second, 25 * time.Second} {
		if hoursChange(t, margin) {
			return
		}
		t.Logf("the machine is too slow for %v", margin)
	}
	t.Error("the hours began before anybody could look")
}

// hoursChange has an edge come after a margin, and reports whether there was time
// to look before.
func hoursChange(t *testing.T, margin time.Duration) bool {
	opens, closes, direct := local(t), local(t), local(t)
	env := []string{"TZ=" + oClock(t, 8*time.Hour-margin)}
	d := serveAs(t, jsonLog+waitRow("opens", opens, shell(readOne)+"\naccess.hours = [\"08:00-20:00\"]")+
		waitRow("closes", closes, shell(readOne)+"\naccess.hours = [\"20:00-08:00\"]")+
		fmt.Sprintf("[service.cat]\nlisten = [%q]\nexec = \"/bin/cat\"\nuser = \"nobody\"\naccess.hours = [\"20:00-08:00\"]\n", direct),
		&how{env: env})
	d.waitFor("row closes", "service", "opens")
	send(t, "127.0.0.1", opens, "too early")
	send(t, "127.0.0.1", closes, "in time")
	stays, err := connect("", direct)
	if err != nil {
		t.Fatal(err)
	}
	defer stays.Close()
	if _, err := stays.Write([]byte("before\n")); err != nil {
		t.Fatal(err)
	}
	if len(d.events("row opens", "service", "opens")) > 0 {
		d.stop()
		return false
	}
	d.waitFor("output", "service", "closes", "line", "in time")
	hear(t, stays, "before\n")
	d.waitFor("row opens", "service", "opens")
	d.waitFor("row closes", "service", "closes")
	d.waitFor("row closes", "service", "cat")
	send(t, "127.0.0.1", closes, "too late")
	send(t, "127.0.0.1", opens, "in time")
	d.waitFor("output", "service", "opens", "line", "in time")
	echo(t, stays, "after\n")
	late := dial(t, "", direct)
	if !turnedAway(late) {
		t.Error("a peer is let in when the hours are over")
	}
	d.waitFor("refuse", "service", "cat", "reason", "access", "rule", "not within access.hours")
	for _, line := range []string{"too early", "too late"} {
		if got := d.events("output", "line", line); len(got) > 0 {
			t.Errorf("a server has read %v", got)
		}
	}
	stays.Close()
	return true
}

// TestSetFiles: a set changes with its file, without a reload, and a file that is
// wrong changes nothing.
func TestSetFiles(t *testing.T) {
	t.Parallel()
	f := newFive(t)
	file := filepath.Join(tempDir(t), "peers")
	replace := func(text string) {
		t.Helper()
		if err := os.Rename(writeFile(t, file+".new", 0o644, text), file); err != nil {
			t.Fatal(err)
		}
	}
	replace("127.0.0.2 # one\n")
	d := serve(t, f.table(fmt.Sprintf("[set.peers]\nfile = %q\n", file), "access.allow = [\"@peers\"]"))
	d.idle = 0 // the first session opens what is kept
	f.expect(d, "127.0.0.2", true)
	f.expect(d, "127.0.0.3", false)

	replace("127.0.0.3\n2001:db8::/32\n")
	d.waitForN(1, "sets read again")
	f.expect(d, "127.0.0.3", true)
	f.expect(d, "127.0.0.2", false)

	replace("127.0.0.2\n127.0.0.3.4\n")
	d.waitFor("configuration", "level", "WARN")
	if w := d.events("configuration")[0].text("at"); !strings.HasPrefix(w, file+":2:1: [set.peers]: file: ") || !strings.Contains(w, "stays as it was") {
		t.Errorf("the log says %q", w)
	}
	d.waitForN(2, "sets read again")
	f.expect(d, "127.0.0.3", true)

	// Who asks for a reload is told that it is wrong.
	d.signal(syscall.SIGHUP)
	d.waitFor("reload failed, the old table runs on")
	f.expect(d, "127.0.0.3", true)

	os.Remove(file)
	d.waitForN(3, "sets read again")
	f.expect(d, "127.0.0.3", true)

	replace("")
	d.waitForN(4, "sets read again")
	f.expect(d, "127.0.0.3", false)

	replace("127.0.0.0/29\n")
	d.waitForN(5, "sets read again")
	f.expect(d, "127.0.0.3", true)
	f.expect(d, "127.0.0.2", true)
}

// TestSetChangeEndsNobody: on_reload is about reloads.
func TestSetChangeEndsNobody(t *testing.T) {
	t.Parallel()
	direct, dir := local(t), tempDir(t)
	file := writeFile(t, filepath.Join(dir, "peers"), 0o644, "127.0.0.2\n")
	row := fmt.Sprintf("[set.peers]\nfile = %q\n[service.cat]\nlisten = [%q]\nexec = \"/bin/cat\"\nuser = \"nobody\"\non_reload = \"end\"\naccess.allow = \"@peers\"\n", file, direct)
	d := serve(t, jsonLog+row)
	c := dial(t, "127.0.0.2", direct)
	echo(t, c, "before\n")
	if err := os.Rename(writeFile(t, file+".new", 0o644, "127.0.0.3\n"), file); err != nil {
		t.Fatal(err)
	}
	d.waitFor("sets read again")
	echo(t, dial(t, "127.0.0.3", direct), "another\n")
	echo(t, c, "after\n")
	if got := d.events("end"); len(got) > 0 {
		t.Errorf("ended: %v", got)
	}
	d.reload(jsonLog + row + "nice = 1\n")
	d.waitForN(2, "end")
}
