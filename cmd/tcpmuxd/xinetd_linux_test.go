// An xinetd.conf as it is, run by the daemon: what it serves, to whom, and what it
// says of the rest.

package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// TestXinetdConf: one file with what it includes, and one service of each kind.
func TestXinetdConf(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	conf, included := filepath.Join(dir, "xinetd.conf"), filepath.Join(dir, "xinetd.d")
	if err := os.Mkdir(included, 0o755); err != nil {
		t.Fatal(err)
	}
	mux, direct, wrapped, built, relayed, only, closed, moved := local(t), local(t), local(t), local(t), local(t), local(t), local(t), local(t)
	port := func(addr string) string {
		_, p, _ := net.SplitHostPort(addr)
		return p
	}
	write := func(name, text string) {
		t.Helper()
		writeFile(t, filepath.Join(dir, name), 0o644, text)
	}
	service := func(name, addr, text string) string {
		return fmt.Sprintf("service %s\n{\n\ttype = UNLISTED\n\tport = %s\n\tbind = 127.0.0.1\n\tsocket_type = stream\n\twait = no\n\tuser = nobody\n%s\n}\n", name, port(addr), text)
	}
	write("xinetd.conf", `# As it may be.
defaults
{
	instances      = 60
	log_type       = SYSLOG authpriv
	log_on_success = HOST PID
	cps            = 25 30
	only_from      = 127.0.0.0
}
includedir `+included+`
service tcpmux
{
	type        = INTERNAL UNLISTED
	id          = tcpmux-server
	port        = `+port(mux)+`
	bind        = 127.0.0.1
	socket_type = stream
	wait        = no
}
service greet
{
	type        = TCPMUXPLUS UNLISTED
	socket_type = stream
	protocol    = tcp
	wait        = no
	user        = nobody
	server      = /bin/echo
	server_args = hello by name
}
`)
	said := filepath.Join(dir, "banner")
	write("banner", "too many\n")
	ids := writeFile(t, filepath.Join(dir, "ids"), 0o755, "#!/bin/sh\necho $0 $A $REMOTE_HOST\nid -G\numask\necho wrong >&2\n")
	write("xinetd.d/direct", service("direct", direct, "\tserver = "+ids+"\n\tgroup = daemon\n\tumask = 077\n\tenv = A=b\n\tflags = NODELAY KEEPALIVE\n\tnice = 1\n\trlimit_files = 64"))
	write("xinetd.d/wrapped", service("wrapped", wrapped, "\tflags = NAMEINARGS\n\tserver = /bin/sh\n\tserver_args = /other/name -c echo$IFS$0"))
	write("xinetd.d/built", strings.Replace(service("echo", built, ""), "UNLISTED", "INTERNAL UNLISTED", 1))
	write("xinetd.d/relayed", service("relayed", relayed, "\tredirect = 127.0.0.1 "+port(built)))
	write("xinetd.d/only", service("only", only, "\tserver = /bin/echo\n\tserver_args = let in\n\tno_access += 127.0.0.2\n\tinstances = 1\n\tbanner_fail = "+said))
	write("xinetd.d/closed", service("closed", closed, "\tserver = /bin/echo\n\tdisable = yes"))
	write("xinetd.d/broken", "service broken\n{\n\ttype = unlisted\n\tsocket_type = stream\n\twait = no\n}\n")
	write("xinetd.d/with.dot", service("dotted", closed, "\tserver = /bin/echo"))
	d, waitFor := launchOn(t, conf)
	waitFor("msg=serving")
	for _, what := range []string{
		conf + `:5:26: [defaults]: authpriv: is no facility`,
		filepath.Join(included, "broken") + `:3:9: row \"broken\": type: \"unlisted\" is none of the types`,
		filepath.Join(included, "with.dot") + `: has a dot in its name`,
	} {
		waitFor(what)
	}
	expect(t, "", mux, "greet\r\n", "+Go\r\nhello by name\n")
	if got, err := talk("", direct, ""); err != nil || !strings.HasPrefix(got, ids+" b 127.0.0.1\n1\n0077\nwrong\n") {
		t.Errorf("direct: %q, %v", got, err)
	}
	expect(t, "", wrapped, "", "/other/name\n")
	expect(t, "", built, "what comes goes", "what comes goes")
	expect(t, "", relayed, "what comes goes", "what comes goes")
	expect(t, "", only, "", "let in\n")
	expect(t, "127.0.0.2", only, "", "")
	if c, err := net.Dial("tcp", closed); err == nil {
		c.Close()
		t.Errorf("%s is served", closed)
	}
	// A file more, and one that has changed.
	write("xinetd.d/only", service("only", moved, "\tserver = /bin/echo\n\tserver_args = moved"))
	write("xinetd.d/added", service("added", closed, "\tserver = /bin/echo\n\tserver_args = added"))
	d.signal(syscall.SIGHUP)
	waitFor("msg=reloaded")
	expect(t, "127.0.0.2", moved, "", "moved\n")
	expect(t, "", closed, "", "added\n")
	// What is wrong in the defaults keeps what runs.
	text, err := os.ReadFile(conf)
	if err != nil {
		t.Fatal(err)
	}
	write("xinetd.conf", strings.Replace(string(text), "127.0.0.0", "127.0.0", 1))
	d.signal(syscall.SIGHUP)
	waitFor("no address; write all four numbers")
	expect(t, "", closed, "", "added\n")
	if code := d.stop(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}
