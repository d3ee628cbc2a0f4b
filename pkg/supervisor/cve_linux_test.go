package supervisor

// Bugs that others have had, by their names. Those that belong to a subject
// stand with it: TestCVE20120862, TestDebian1050208, TestNegativeCount,
// TestEOFNeverDispatches, TestOnlyTheOffenderSuffers and others.

import (
	"fmt"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// xinetd ignored user and group of TCPMUX services: they ran as root.
func TestCVE20134342(t *testing.T) {
	testkit.Check(t)
	if os.Geteuid() != 0 {
		t.Fatal("this test has to be run by root")
	}
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	e := sh("id -ru; id -u; id -rg; id -g; id -G")
	e.Cred = &service.Cred{User: "somebody", UID: 64123, GID: 64124, Groups: []uint32{64125, 64126}}
	s := serve(t, mux(muxPort), plus("plus", e), minus("minus", e), direct("direct", port, e))
	const want = "64123\n64123\n64124\n64124\n64124 64125 64126\n"
	if got := ask(t, muxPort, "plus\n"); got != tcpmux.Go+want {
		t.Errorf("plus: %q", got)
	}
	if got := ask(t, muxPort, "minus\n"); got != want {
		t.Errorf("minus: %q", got)
	}
	dial(t, port).ends(want)
	s.instances(0)
}

// xinetd leaked the descriptor of its signal pipe to children.
func TestCVE20020871(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	// Not by a look into the directory, which opens it.
	e := sh("i=0; while [ $i -lt 200 ]; do [ -h /proc/$$/fd/$i ] && echo $i; i=$((i+1)); done")
	s := serve(t, mux(muxPort), minus("fds", e), direct("fds", port, e))
	odd, err := os.Open("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	defer odd.Close()
	dial(t, muxPort).send("pending")
	s.waiting(1)
	if got := ask(t, muxPort, "fds\n"); got != "0\n1\n2\n" {
		t.Errorf("a child has the descriptors %q", got)
	}
	dial(t, port).ends("0\n1\n2\n")
	s.instances(0)
}

// xinetd ran with umask 0, and so did its children.
func TestCVE20011322(t *testing.T) {
	testkit.Check(t)
	port, other := testkit.FreePort(t), testkit.FreePort(t)
	loose := sh("umask")
	loose.Umask = 0o002
	s := serve(t, direct("umask", port, sh("umask")), direct("loose", other, loose))
	dial(t, port).ends("0022\n")
	dial(t, other).ends("0002\n")
	s.instances(0)
}

// xinetd lost descriptors under load (BZ#790036), and memory with every peer
// that it refused (CVE-2003-0211).
func TestCVE20030211(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), plus("true", program("/bin/true")),
		with(direct("denied", port, cat()), func(sv *service.Service) { sv.Access = rules(t, "", "127.0.0.0/8") }))
	round := func() {
		for i := range 300 {
			switch i % 6 {
			case 0:
				dial(t, port).reset()
			case 1:
				c := dial(t, port)
				c.gone()
				c.Close()
			case 2:
				c := dial(t, muxPort).send("nobody\n")
				c.ends(tcpmux.NotAvailable)
				c.Close()
			case 3:
				dial(t, muxPort).send("tr").reset()
			case 4:
				dial(t, muxPort).send("true\n").reset()
			case 5:
				c := dial(t, muxPort).send("true\n")
				c.ends(tcpmux.Go)
				c.Close()
			}
		}
		s.waiting(0)
		s.instances(0)
	}
	state := func() (files int, heap uint64, goroutines int) {
		// The log of the test grows; the daemon's is written.
		s.logs.mu.Lock()
		s.logs.lines = nil
		s.logs.mu.Unlock()
		runtime.GC()
		debug.FreeOSMemory()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		list, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(list), m.HeapAlloc, runtime.NumGoroutine()
	}
	round()
	files, heap, goroutines := state()
	for range 4 {
		round()
	}
	files2, heap2, goroutines2 := state()
	if files2 != files {
		t.Errorf("%d descriptors, before %d", files2, files)
	}
	// The test keeps a little of each of its 1200 clients until it ends.
	if int64(heap2)-int64(heap) > 2<<20 {
		t.Errorf("%d bytes of memory, before %d", heap2, heap)
	}
	if goroutines2 > goroutines+2 {
		t.Errorf("%d goroutines, before %d", goroutines2, goroutines)
	}
}

// A peer that resets its connection between the event and the accept hung BSD's
// daemons, and one that did it before getpeername(2) ended NetBSD's inetd (8.2, 9).
func TestBSDAcceptAfterSelect(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	s := serve(t, mux(muxPort), plus("cat", cat()), direct("cat", port, cat()))
	for i := range 500 {
		to := []int{muxPort, port}[i%2]
		dialFrom(t, []string{"127.0.0.1", "::1"}[i/2%2], to).reset()
		if i%100 == 0 {
			if got := ask(t, muxPort, "cat\n"); got != tcpmux.Go {
				t.Errorf("in the flood: %q", got)
			}
			dial(t, port).send("x").half().ends("x")
		}
	}
	s.waiting(0)
	s.instances(0)
}

// What a child is told of its connection. Values of one connection have come
// to later children of GNU's inetd (8.2, 7).
func TestEnvironmentOfAConnection(t *testing.T) {
	testkit.Check(t)
	muxPort, port := testkit.FreePort(t), testkit.FreePort(t)
	e := program("/usr/bin/env")
	e.Env = []string{"HOME=/", "TCPREMOTEIP=stale", "TCPMUX_SERVICE=stale"}
	direct := direct("env", port, e)
	s := serve(t, mux(muxPort), minus("env", e), direct)
	for _, source := range []string{"127.0.0.1", "::1", "127.0.0.1"} {
		local := map[bool]string{true: "127.0.0.1", false: "::1"}[strings.Contains(source, ".")]
		for _, to := range []int{muxPort, port} {
			c := dialFrom(t, source, to)
			_, peerPort, _ := strings.Cut(c.LocalAddr().String()[len(source):], ":")
			peerPort = strings.TrimPrefix(peerPort, "]:")
			want := map[string]string{
				"HOME": "/", "PROTO": "TCP", "TCPREMOTEIP": source, "TCPREMOTEPORT": peerPort,
				"TCPLOCALIP": local, "TCPLOCALPORT": fmt.Sprint(to), "REMOTE_ADDR": source,
				"REMOTE_PORT": peerPort, "REMOTE_HOST": source, "TCPMUX_SERVICE": "stale",
			}
			if to == muxPort {
				c.send("ENV\n")
				want["TCPMUX_SERVICE"] = "env"
			}
			got := map[string]string{}
			for line := range strings.Lines(c.rest()) {
				k, v, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
				if _, twice := got[k]; twice {
					t.Errorf("%s is there twice", k)
				}
				got[k] = v
			}
			if fmt.Sprint(got) != fmt.Sprint(want) {
				t.Errorf("from %s to %d the environment is\n%v, want\n%v", source, to, got, want)
			}
		}
	}
	s.instances(0)
}
