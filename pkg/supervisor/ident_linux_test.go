package supervisor

import (
	"fmt"
	"net"
	"net/netip"
	"os"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/ident"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// auth is a row that says who owns a connection.
func auth(port int, reply service.IdentReply) *service.Service {
	sv := anywhere(internal(service.BuiltinAuth, port))
	sv.Listen = append(sv.Listen, on("::1", port))
	sv.Ident = service.Ident{Reply: reply, OS: "UNIX", Timeout: bound}
	return sv
}

// identifying is serve for rows that look users up.
func identifying(t *testing.T, rows ...*service.Service) *server {
	s := prepare(t, table())
	s.Identify(ident.New(func() *account.DB { return account.Open(account.System(), nil) }))
	s.reload(rows...)
	s.run()
	return s
}

// owned is a connection of another user to a listener at an address; it returns the
// ports of both ends. Whose a socket is its thread's rights in the file system say:
// a process of his would be one that the supervisor reaps.
func owned(t *testing.T, at string, uid int) (client, server int) {
	t.Helper()
	l, err := net.Listen("tcp", net.JoinHostPort(at, "0"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	made := make(chan net.Conn, 1)
	go func() {
		runtime.LockOSThread() // which ends with it
		unix.SetfsuidRetUid(uid)
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Error(err)
		}
		made <- c
	}()
	c := <-made
	if c == nil {
		t.FailNow()
	}
	t.Cleanup(func() { c.Close() })
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { accepted.Close() })
	return c.LocalAddr().(*net.TCPAddr).Port, l.Addr().(*net.TCPAddr).Port
}

// asking asks from an address for a connection of the other one.
func asking(t *testing.T, from, to string, port int, question string) string {
	t.Helper()
	d := net.Dialer{Timeout: bound, LocalAddr: net.TCPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))}
	c, err := d.Dial("tcp", net.JoinHostPort(to, fmt.Sprint(port)))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(bound))
	return (&client{c.(*net.TCPConn), t}).send(question).rest()
}

// Whose a connection is its own peer learns, and nobody else.
func TestIdent(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Fatal("the test is another user for a moment: run it as root")
	}
	const uid = 4711
	port, hidden, m := testkit.FreePort(t), testkit.FreePort(t), testkit.FreePort(t)
	v4, v4Server := owned(t, "127.0.0.2", uid) // 127.0.0.1 to 127.0.0.2
	v6, v6Server := owned(t, "::1", uid)
	testkit.Check(t)
	s := identifying(t, auth(port, service.IdentUID), mux(m),
		muxed(true, auth(0, service.IdentUID)),
		with(auth(hidden, service.IdentHidden), func(sv *service.Service) { sv.ID = "hidden" }))
	told := func(a, b int) string { return fmt.Sprintf("%d, %d : USERID : UNIX : %d\r\n", a, b, uid) }
	no := func(a, b int, why string) string { return fmt.Sprintf("%d, %d : ERROR : %s\r\n", a, b, why) }
	for _, test := range []struct {
		from, to string
		port     int
		question string
		want     string
	}{
		{"127.0.0.2", "127.0.0.1", port, fmt.Sprintf("%d, %d\r\n", v4, v4Server), told(v4, v4Server)},
		{"127.0.0.2", "127.0.0.1", port, fmt.Sprintf(" %d ,%d \n", v4, v4Server), told(v4, v4Server)},
		{"::1", "::1", port, fmt.Sprintf("%d,%d\n", v6, v6Server), told(v6, v6Server)},
		// By other peers, to other addresses, and by the other family.
		{"127.0.0.3", "127.0.0.1", port, fmt.Sprintf("%d, %d\r\n", v4, v4Server), no(v4, v4Server, "NO-USER")},
		{"127.0.0.2", "127.0.0.4", port, fmt.Sprintf("%d, %d\r\n", v4, v4Server), no(v4, v4Server, "NO-USER")},
		{"::1", "::1", port, fmt.Sprintf("%d, %d\r\n", v4, v4Server), no(v4, v4Server, "NO-USER")},
		{"127.0.0.1", "127.0.0.1", port, fmt.Sprintf("%d, %d\r\n", v6, v6Server), no(v6, v6Server, "NO-USER")},
		// Its other end is no connection of this user's here; a listener is none at all.
		{"127.0.0.2", "127.0.0.1", port, fmt.Sprintf("%d, %d\r\n", v4Server, v4), no(v4Server, v4, "NO-USER")},
		{"127.0.0.2", "127.0.0.1", port, fmt.Sprintf("%d, %d\r\n", port, 1), no(port, 1, "NO-USER")},
		// Whoever asks a row that hides does not even learn whether there is such.
		{"127.0.0.2", "127.0.0.1", hidden, fmt.Sprintf("%d, %d\r\n", v4, v4Server), no(v4, v4Server, "HIDDEN-USER")},
		{"127.0.0.2", "127.0.0.1", hidden, "1, 2\r\n", no(1, 2, "HIDDEN-USER")},
		{"127.0.0.2", "127.0.0.1", hidden, "0, 2\r\n", no(0, 2, "INVALID-PORT")},
		// What is no question.
		{"127.0.0.2", "127.0.0.1", port, "0, 23\r\n", no(0, 23, "INVALID-PORT")},
		{"127.0.0.2", "127.0.0.1", port, "23, 65536\r\n", no(23, 65536, "INVALID-PORT")},
		{"127.0.0.2", "127.0.0.1", port, "hello\r\n", no(0, 0, "INVALID-PORT")},
		{"127.0.0.2", "127.0.0.1", port, "\n", no(0, 0, "INVALID-PORT")},
		{"127.0.0.2", "127.0.0.1", port, strings.Repeat("1", 5000), no(0, 0, "INVALID-PORT")},
		{"127.0.0.2", "127.0.0.1", port, "1, 2" + strings.Repeat(" ", 5000), no(0, 0, "INVALID-PORT")},
	} {
		if got := asking(t, test.from, test.to, test.port, test.question); got != test.want {
			t.Errorf("from %s to %s, %.40q: %q, want %q", test.from, test.to, test.question, got, test.want)
		}
	}
	// By name it is the same; the multiplexer is on 127.0.0.1.
	if got := asking(t, "127.0.0.2", "127.0.0.1", m, fmt.Sprintf("auth\r\n%d, %d\r\n", v4, v4Server)); got != tcpmux.Go+told(v4, v4Server) {
		t.Errorf("by name: %q", got)
	}
	s.relayed(0)
	s.logs.wait(t, "ident", "service=auth", fmt.Sprintf("answer=%d, %d : USERID : UNIX : %d", v4, v4Server, uid))
	s.logs.wait(t, "end", "service=auth", "reason=closed")
}

// A user's name, of the very connection between a peer and the daemon.
func TestIdentByName(t *testing.T) {
	port := testkit.FreePort(t)
	testkit.Check(t)
	me, err := account.Open(account.System(), nil).UID(uint32(os.Geteuid()))
	if err != nil {
		t.Fatal(err)
	}
	identifying(t, auth(port, service.IdentName))
	for _, at := range []string{"127.0.0.1", "::1"} {
		c := dialFrom(t, at, port)
		own := c.LocalAddr().(*net.TCPAddr).Port
		// The connection that asks has two ends here. They are asked for over others.
		for question, who := range map[string]string{
			fmt.Sprintf("%d, %d", own, port): me.Name,
			fmt.Sprintf("%d, %d", port, own): me.Name,
		} {
			want := fmt.Sprintf("%s : USERID : UNIX : %s\r\n", question, who)
			if got := asking(t, at, at, port, question+"\r\n"); got != want {
				t.Errorf("%q, want %q", got, want)
			}
		}
		c.Close()
	}
}

// Silence and drip end with the time that there is, and hold an instance each
// until then; limits hold as for every row.
func TestIdentInTime(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := identifying(t, with(auth(port, service.IdentUID), func(sv *service.Service) {
		sv.Ident.Timeout = 300 * time.Millisecond
		sv.Limits = limit.Limits{Instances: 3, InstancesPerSource: 2}
	}))
	silent, dripping := dial(t, port), dial(t, port)
	s.relayed(2)
	dial(t, port).gone()
	s.logs.wait(t, "refuse", "service=auth", "reason=instances_per_source")
	for _, b := range "1, 2" { // and no end
		dripping.send(string(b))
	}
	const late = "0, 0 : ERROR : UNKNOWN-ERROR\r\n"
	silent.ends(late)
	dripping.ends(late)
	silent.Close()
	dripping.Close()
	s.relayed(0)
	s.logs.wait(t, "end", "service=auth", "reason=lifetime")
}

// Where nobody looks up, nobody is told anything.
func TestIdentOfNobody(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	serve(t, auth(port, service.IdentUID))
	if got := asking(t, "127.0.0.1", "127.0.0.1", port, "1, 2\n"); got != "1, 2 : ERROR : UNKNOWN-ERROR\r\n" {
		t.Errorf("%q", got)
	}
}
