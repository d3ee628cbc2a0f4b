// Debian's init scripts of the super-servers, as they are, with only the program
// replaced: they find the daemon by its pid file and by its program, and expect that
// what they have started runs and what they have stopped is gone.

package main_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"
)

// ask says something to a port, on each address of the host, and returns the answer.
func (d *debian) ask(port int, say string) (got string) {
	d.Helper()
	d.inside(func() {
		for _, host := range []string{"127.0.0.1", "::1"} {
			text, err := talk("", net.JoinHostPort(host, fmt.Sprint(port)), say)
			if err != nil {
				got += err.Error()
			}
			got += text + "\n"
		}
	})
	return got
}

// answers wants a port to answer, on IPv4 and IPv6, as soon as it is served.
func (d *debian) answers(port int, want string) {
	d.Helper()
	got := ""
	if !poll(bound, func() bool {
		got = d.ask(port, "")
		return strings.Count(got, want) >= 2 && !strings.Contains(got, "dial")
	}) {
		d.Errorf("port %d answers %q, want %q", port, got, want)
	}
}

// refuses wants nobody at a port.
func (d *debian) refuses(port int) {
	d.Helper()
	d.inside(func() {
		for _, host := range []string{"127.0.0.1", "::1"} {
			if c, err := net.DialTimeout("tcp", net.JoinHostPort(host, fmt.Sprint(port)), time.Second); err == nil {
				c.Close()
				d.Errorf("port %d of %s is served", port, host)
			}
		}
	})
}

// service calls the init script of the super-server, which exits with code.
func (d *debian) service(verb string, code int) result {
	d.Helper()
	r := d.try("/etc/init.d/"+d.pkg, verb)
	if r.code != code {
		d.Fatalf("%s %s: exit code %d, want %d: %s%s", d.pkg, verb, r.code, code, r.stdout, r.stderr)
	}
	return r
}

// stops stops the daemon by its script, and wants nothing of it to be left.
func (d *debian) stops() {
	d.Helper()
	name := d.pidFile()
	d.service("stop", 0)
	if !poll(bound, func() bool { return len(d.daemons()) == 0 }) {
		d.Errorf("after the stop there is %q", d.daemons())
	}
	if d.glob(name) != nil {
		d.Errorf("%s is left", name)
	}
	d.refuses(13)
}

// TestDebianInitScripts: every verb of each.
func TestDebianInitScripts(t *testing.T) {
	t.Parallel()
	for _, pkg := range []string{"openbsd-inetd", "inetutils-inetd", "xinetd"} {
		t.Run(pkg, func(t *testing.T) {
			t.Parallel()
			d := newDebian(t, pkg)
			off := 3 // what the status exits with then
			if pkg == "inetutils-inetd" {
				off = 0
			}
			conf := "/etc/inetd.conf"
			add := func() { d.edit(conf, "#time", "time") }
			if pkg == "xinetd" {
				conf = "/etc/xinetd.d/daytime"
				add = func() { d.edit("/etc/xinetd.d/time", "= yes", "= no") }
				d.edit(conf, "= yes", "= no")
			} else {
				d.script(pkg, "preinst", "install")
				d.service("start", 0) // there is nothing to serve
				d.service("status", off)
				if list := d.daemons(); len(list) > 0 {
					t.Errorf("without a service there is %q", list)
				}
				d.edit(conf, "#daytime", "daytime")
			}
			d.service("status", off)
			d.service("start", 0)
			pid := d.serving()
			d.answers(13, ":")
			d.refuses(37)
			if got := d.service("status", 0).stdout; !strings.Contains(got, "is running") {
				t.Errorf("the status is %q", got)
			}
			if pkg == "xinetd" && !poll(bound, func() bool { return strings.Contains(d.service("status", 0).stdout, "msg=instances service=daytime") }) {
				t.Errorf("the status has no state: %q", d.service("status", 0).stdout)
			}
			d.service("start", 0)
			add()
			d.service("reload", 0)
			d.answers(37, "\n")
			if now := d.serving(); now != pid || len(d.daemons()) != 1 {
				t.Errorf("after the reload it is process %s, not %s; there is %q", now, pid, d.daemons())
			}
			for _, verb := range []string{"restart", "force-reload"} {
				before := d.serving()
				d.service(verb, 0)
				restarts := verb == "restart" || pkg == "xinetd"
				if !poll(bound, func() bool { return (d.serving() != before) == restarts && len(d.daemons()) == 1 }) {
					t.Errorf("%s: process %s, and before %s; there is %q", verb, d.serving(), before, d.daemons())
				}
				d.answers(13, ":")
				d.answers(37, "\n")
			}
			d.stops()
			d.service("status", off)
			d.service("stop", 0)
			if left := d.glob("/run/*.pid"); !slices.Equal(left, nil) {
				t.Errorf("there is %q", left)
			}
		})
	}
}
