// hosts.allow and hosts.deny, for every kind of row of the built daemon.

package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// TestHostsAccess: every kind of row goes by the files, which may change, vanish or
// be no files; the log has the rule and the daemon.
func TestHostsAccess(t *testing.T) {
	t.Parallel()
	f, dir := newFive(t), tempDir(t)
	replace := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.Rename(writeFile(t, path+".new", 0o644, text), path); err != nil {
			t.Fatal(err)
		}
	}
	replace("hosts.allow", "daemon: 127.0.0.2 127.0.0.16/28\n")
	replace("hosts.deny", "# all others\n\nALL EXCEPT other: ALL\n")
	d := serve(t, fmt.Sprintf("[server]\nlog_format = \"json\"\nhosts_access_dir = %q\n", dir)+
		f.table("", "access.hosts_access = true\naccess.hosts_daemon = \"daemon\"")[len(jsonLog):])
	d.idle = 0 // the first session opens what is kept
	f.expect(d, "127.0.0.2", true)
	f.expect(d, "127.0.0.17", true)
	f.expect(d, "127.0.0.3", false)
	refused := func(rule string) {
		t.Helper()
		for _, row := range []string{"tcpmux/+named", "direct", "answers", "session"} {
			d.waitFor("refuse", "service", row, "reason", "access", "rule", rule)
		}
	}
	refused("hosts.deny:3 daemon")

	// Without a reload; a host name is a warning and denies.
	replace("hosts.deny", "daemon: 127.0.0.3 .example.com EXCEPT 127.0.0.5\n")
	d.waitForN(1, "sets read again")
	d.waitFor("configuration", "level", "WARN")
	f.expect(d, "127.0.0.2", true)
	f.expect(d, "127.0.0.3", false)
	f.expect(d, "127.0.0.4", false)
	f.expect(d, "127.0.0.5", true)
	refused("hosts.deny:1 daemon")

	// What was no rule of tcp_wrappers is none that allows, and files may vanish.
	os.Remove(filepath.Join(dir, "hosts.deny"))
	d.waitForN(2, "sets read again")
	f.expect(d, "127.0.0.3", true)
	if err := os.Mkdir(filepath.Join(dir, "hosts.deny"), 0o755); err != nil {
		t.Fatal(err)
	}
	d.waitForN(3, "sets read again")
	f.expect(d, "127.0.0.2", false)
}

// TestHostsAccessByAddress: a rule may be about the address that a peer has come to,
// and the daemon is the program as it is called.
func TestHostsAccessByAddress(t *testing.T) {
	t.Parallel()
	dir, addr := tempDir(t), local(t)
	writeFile(t, filepath.Join(dir, "hosts.allow"), 0o644, "in.there@127.0.0.1: 127.0.0.2\nin.there@127.0.0.9: ALL\n")
	writeFile(t, filepath.Join(dir, "hosts.deny"), 0o644, "ALL: ALL\n")
	d := serve(t, fmt.Sprintf("[server]\nlog_format = \"json\"\nhosts_access_dir = %q\n[service.direct]\nlisten = [%q]\nexec = %s\nargv0 = \"/somewhere/in.there\"\nuser = \"nobody\"\naccess.hosts_access = true\n", dir, addr, echoOK))
	if !served(d, "127.0.0.2", addr, "") {
		t.Error("who may is turned away")
	}
	if served(d, "127.0.0.3", addr, "") {
		t.Error("who may not is served")
	}
	d.waitFor("refuse", "service", "direct", "rule", "hosts.deny:1 in.there")
}
