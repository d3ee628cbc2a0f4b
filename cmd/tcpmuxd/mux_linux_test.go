// The multiplexer of the built daemon against the defects of its elders. How
// lines are split and how negotiations crowd is tested in package supervisor.

package main_test

import (
	"fmt"
	"io"
	"net"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// CVE-2012-0862: with xinetd's tcpmux every service could be reached through
// port 1, those for the local machine only among them. Here a row is reached by
// name only if its key says so.
func TestCVE20120862PlainRowsHaveNoName(t *testing.T) {
	t.Parallel()
	mux, secret, named := local(t), local(t), local(t)
	_, port, _ := net.SplitHostPort(secret)
	d := serve(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
[service.tcpmux]
builtin = "tcpmux"
help = "all"
listen = [%q]
[service.secret]
listen = [%q]
exec = ["/bin/echo", "secret"]
access = { allow = ["127.0.0.2"] }
[service.other]
name = "alias"
listen = [%q]
exec = ["/bin/echo", "other"]
[service."tcpmux/+open"]
exec = ["/bin/echo", "open"]
`, mux, secret, named))
	names := []string{"secret", "SECRET", "+secret", "tcpmux/secret", "tcpmux/+secret", "/secret", port, "other", "alias", "tcpmux", "+open", "+", "", "open\x20", "\x20open"}
	for _, name := range names {
		expect(t, "", mux, name+"\r\n", replyNo)
	}
	expect(t, "", mux, "open\r\n", replyGo+"open\n")
	expect(t, "", mux, "help\r\n", "open\r\n")
	expect(t, "127.0.0.2", secret, "", "secret\n")
	if c := dial(t, "", secret); !turnedAway(c) {
		t.Error("the access list of the row is not kept")
	}
	for _, e := range d.events("start") {
		if s := e.text("service"); s != "secret" && s != "tcpmux/+open" {
			t.Errorf("%s was started", s)
		}
	}
}

// FreeBSD's inetd cannot have ftp and tcpmux/ftp in one table.
func TestOneNameDirectAndByName(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	serve(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service.ftp]
listen = [%q]
exec = ["/bin/echo", "direct"]
[service."tcpmux/ftp"]
exec = ["/bin/echo", "by name"]
`, mux, direct))
	expect(t, "", direct, "", "direct\n")
	expect(t, "", mux, "ftp\r\n", "by name\n") // without "+" the daemon says nothing
}

func TestHelp(t *testing.T) {
	t.Parallel()
	mux := local(t)
	table := func(help string) string {
		return fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
exec = ["/bin/true"]
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
help = %q
[service."tcpmux/zebra"]
[service."tcpmux/+Ant"]
[service."tcpmux/+hidden"]
hidden = true
[service."tcpmux/+mine"]
access = { allow = ["127.0.0.2"] }
`, mux, help)
	}
	d := serve(t, table("allowed"))
	for _, ask := range []string{"HELP\r\n", "help\n", "hElP\r\n"} {
		expect(t, "", mux, ask, "ant\r\nzebra\r\n")
	}
	expect(t, "127.0.0.2", mux, "help\r\n", "ant\r\nmine\r\nzebra\r\n")
	if got := must(t, exec.Command(programs.tcpmux, mux)); got != "ant\nzebra\n" {
		t.Errorf("tcpmux lists %q", got)
	}
	d.reload(table("all"))
	expect(t, "", mux, "help\r\n", "ant\r\nmine\r\nzebra\r\n")
	d.reload(table("off"))
	expect(t, "", mux, "help\r\n", replyNo)
	if r := run(t, exec.Command(programs.tcpmux, mux)); r.code != 1 || r.stdout != "" {
		t.Errorf("tcpmux says %q and exits with %d, want 1", r.stdout, r.code)
	}
	expect(t, "", mux, "hidden\r\n", replyGo)
}

// The reply of xinetd ends in a NUL, and every elder loses what the client sent
// together with the name. Here each byte after the line is the service's, and
// each byte before it the daemon's.
func TestEveryByteHasOneReader(t *testing.T) {
	t.Parallel()
	mux := local(t)
	d := serve(t, both(mux, local(t), "cat", "exec = [\"/bin/cat\"]\nuser = \"nobody\""))
	for _, data := range []string{"", "\n", "\r\n", "\x00", "HELP\r\n", strings.Repeat("x", 300), "\r\n\r\ncat\r\n"} {
		for _, end := range []string{"\r\n", "\n"} {
			expect(t, "", mux, "cat"+end+data, replyGo+data)
		}
	}
	started := len(d.waitForN(14, "start"))
	// tcpmuxerd ended altogether when a client left early, and the inetds ran
	// what such a client had asked for by then.
	for i := range "cat\r" {
		c := dial(t, "", mux)
		io.WriteString(c, "cat\r"[:i+1])
		c.CloseWrite()
		if b, _ := io.ReadAll(c); len(b) != 0 {
			t.Errorf("the end after %d bytes is answered %q", i+1, b)
		}
	}
	for _, c := range []struct{ say, want string }{
		{strings.Repeat("x", 257) + "\r\n", "-Service name too long\r\n"},
		{strings.Repeat("x", 100_000), "-Service name too long\r\n"},
		{"cat\x00\r\n", "-Service name has a bad character\r\n"},
		{"cat\rx\r\n", "-Service name has a bad character\r\n"},
		{strings.Repeat("x", 256) + "\r\n", replyNo},
	} {
		expect(t, "", mux, c.say, c.want)
	}
	if n := len(d.events("start")); n != started {
		t.Errorf("%d of these were started", n-started)
	}
}

// FreeBSD's inetd gives each byte of the name ten seconds, in a process of its
// own. Here the whole line has one deadline, and then "-".
func TestDripHasOneDeadline(t *testing.T) {
	t.Parallel()
	mux := local(t)
	d := serve(t, fmt.Sprintf(jsonLog+"[service.tcpmux]\nbuiltin = \"tcpmux\"\ntimeout = \"1s\"\nlisten = [%q]\n", mux)+
		"[service.\"tcpmux/+cat\"]\nexec = [\"/bin/cat\"]\nuser = \"nobody\"\n")
	c := dial(t, "", mux)
	began := time.Now()
	stop := make(chan struct{})
	go func() {
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				io.WriteString(c, "x")
			case <-stop:
				return
			}
		}
	}()
	hear(t, c, "-Timed out waiting for the service name\r\n")
	close(stop)
	if took := time.Since(began); took < 900*time.Millisecond || took > 5*time.Second {
		t.Errorf("it took %v, want 1s", took)
	}
	if n := len(children(d.pid)); n != 0 {
		t.Errorf("%d processes were made for it", n)
	}
	d.waitFor("refuse", "reason", "timeout")
}
