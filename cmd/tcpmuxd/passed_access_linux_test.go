// A restart under systemd, which keeps the sockets: with them the kernel keeps
// the filter that an access list of the last daemon has put on one for good.

package main_test

import (
	"fmt"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
)

// kept is a UDP socket that outlives daemons, and its address.
func kept(t *testing.T) (*net.UDPConn, string) {
	t.Helper()
	c, err := net.ListenPacket("udp4", local(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.UDPConn), c.LocalAddr().String()
}

// started starts a daemon with a socket that is kept.
func started(t *testing.T, c *net.UDPConn, table string, wrap ...string) *daemon {
	t.Helper()
	f, err := c.File()
	if err != nil {
		t.Fatal(err)
	}
	more, env := forItself("judged", 1)
	return serveAs(t, table, &how{wrap: append(slices.Clone(wrap), more...), env: env, files: []*os.File{f}})
}

func judgedTable(addr, beside, denied string) string {
	return jsonLog + waitRow("judged", addr, shell(readOne)+fmt.Sprintf("\naccess = { deny = [%q] }\n", denied)) +
		strings.Replace(directRow, "exec", fmt.Sprintf("user = \"nobody\"\nlisten = [%q]\nexec", beside), 1)
}

// judges expects that of two sources one is denied and the other is served.
func (d *daemon) judges(addr, denied, allowed string) {
	d.Helper()
	n := len(d.events("output", "service", "judged"))
	send(d, denied, addr, "of "+denied)
	send(d, allowed, addr, "of "+allowed)
	d.waitFor("output", "service", "judged", "line", "of "+allowed)
	if got := d.events("output", "service", "judged"); len(got) != n+1 {
		d.Errorf("the server has read %v", got[n:])
	}
}

func TestRestartWithAccess(t *testing.T) {
	t.Parallel()
	c, addr := kept(t)
	beside := local(t)
	for i, denied := range []string{"127.0.0.2", "127.0.0.3", "127.0.0.2"} {
		other := []string{"127.0.0.3", "127.0.0.2", "127.0.0.3"}[i]
		d := started(t, c, judgedTable(addr, beside, denied))
		d.judges(addr, denied, other)
		d.reload(judgedTable(addr, beside, other))
		d.judges(addr, other, denied)
		if code := d.stop(); code != 0 {
			t.Errorf("exit code %d", code)
		}
	}
}

// Without the right to find the filter the row is not served, whatever it says
// now, and all others are. The mend is told.
func TestRestartWithAccessHardened(t *testing.T) {
	t.Parallel()
	c, addr := kept(t)
	beside := local(t)
	first := started(t, c, judgedTable(addr, beside, "127.0.0.2"))
	first.judges(addr, "127.0.0.2", "127.0.0.3")
	first.stop()

	d := started(t, c, judgedTable(addr, beside, "127.0.0.3"), find(t, "setpriv"), "--bounding-set=-sys_admin")
	told := d.waitFor("passed socket is not served", "service", "judged", "local", addr, "level", "ERROR")
	for _, want := range []string{"systemctl restart its .socket unit", "CAP_SYS_ADMIN"} {
		if !strings.Contains(told.text("error"), want) {
			t.Errorf("%q does not tell of %q", told.text("error"), want)
		}
	}
	conn := dial(t, "", beside)
	echo(t, conn, "beside\n")
	conn.Close()
	// A reload goes through, too, and says it again.
	d.reload(judgedTable(addr, beside, "127.0.0.2"))
	d.waitForN(2, "passed socket is not served", "service", "judged")
	conn = dial(t, "", beside)
	echo(t, conn, "beside\n")
	conn.Close()
	send(t, "127.0.0.3", addr, "waits")
	d.stop()
	// It has waited for a daemon that may.
	last := started(t, c, judgedTable(addr, beside, "127.0.0.2"))
	last.waitFor("output", "service", "judged", "line", "waits")
}
