package supervisor

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// sessionRow is a row with a session for each peer.
func sessionRow(id, addr string, port int, e *service.Exec) *service.Service {
	sv := waitUDP(id, port, e)
	sv.Wait = false
	sv.Listen[0].Addr = on(addr, port).Addr
	return sv
}

// fromUDP sends from an address to another.
func fromUDP(t testing.TB, from, to string, port int) *asker {
	t.Helper()
	c, err := net.DialUDP("udp4", &net.UDPAddr{IP: net.ParseIP(from)}, &net.UDPAddr{IP: net.ParseIP(to), Port: port})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	return &asker{c, t}
}

// Each peer has a server of its own, and hears from no other.
func TestSessions(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "0.0.0.0"} {
		testkit.Check(t)
		port := testkit.FreePort(t)
		s := serve(t, sessionRow("talk", addr, port, receiver(bound, 12)))
		var askers []*asker
		pids := map[int]bool{}
		for i := range 5 {
			to := "127.0.0.1"
			if addr == "0.0.0.0" && i > 2 {
				to = "127.0.5.5"
			}
			askers = append(askers, fromUDP(t, fmt.Sprintf("127.0.1.%d", i/2+1), to, port))
		}
		server := make([]int, len(askers))
		for round := range 12 {
			for i, a := range askers {
				text := fmt.Sprintf("round %d of %d", round, i)
				pid := a.send(text).answer(text)
				if round == 0 {
					server[i] = pid
					pids[pid] = true
				} else if pid != server[i] {
					t.Errorf("%s: peer %d has another server now, %d after %d", addr, i, pid, server[i])
				}
			}
		}
		if len(pids) != len(askers) {
			t.Errorf("%s: %d servers for %d peers", addr, len(pids), len(askers))
		}
		s.instances(0)
		if n := s.logs.count("start", "service=talk"); n != len(askers) {
			t.Errorf("%s: %d starts", addr, n)
		}
		s.logs.wait(t, "start", "peer="+askers[0].LocalAddr().String(), "pid="+strconv.Itoa(server[0]))
		s.stop()
	}
}

// What the child is told of its peer.
func TestSessionEnvironment(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, sessionRow("env", "0.0.0.0", port, sh(`line=$(dd bs=1000 count=1 2>/dev/null); echo "$line $PROTO $UDPREMOTEIP $UDPREMOTEPORT $UDPLOCALIP $UDPLOCALPORT $REMOTE_ADDR $REMOTE_PORT $REMOTE_HOST"`)))
	a := fromUDP(t, "127.0.1.1", "127.0.2.2", port)
	a.send("hello\n")
	b := make([]byte, 1000)
	n, err := a.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	p := a.LocalAddr().(*net.UDPAddr).Port
	if got, want := string(b[:n]), fmt.Sprintf("hello UDP 127.0.1.1 %d 127.0.2.2 %d 127.0.1.1 %d 127.0.1.1\n", p, port, p); got != want {
		t.Errorf("the child says %q, want %q", got, want)
	}
	s.instances(0)
}

// What a server leaves unread is the next one's, unless it has read nothing.
func TestSessionsEndAndBegin(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, sessionRow("one", "127.0.0.1", port, receiver(bound, 1)))
	a := askUDP(t, port)
	for i := range 20 {
		a.send(strconv.Itoa(i))
	}
	got := map[string]bool{}
	b := make([]byte, 100)
	for range 20 {
		n, err := a.Read(b)
		if err != nil {
			t.Fatalf("%d of 20 answers: %v\n%s", len(got), err, s.logs)
		}
		got[string(b[:n])] = true
	}
	if len(got) != 20 {
		t.Errorf("the answers are %v", got)
	}
	s.instances(0)
}

func TestSessionUnread(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, sessionRow("deaf", "127.0.0.1", port, sh("exit 0")))
	askUDP(t, port).send("hello")
	s.logs.wait(t, "refuse", "service=deaf", "reason=unread", "datagrams=1")
	s.instances(0)
	if n := s.logs.count("start"); n != 1 {
		t.Errorf("%d starts for one datagram", n)
	}
}

// A session ends when its peer is silent.
func TestSessionIdle(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(sessionRow("talk", "0.0.0.0", port, receiver(time.Minute, 1000)), func(sv *service.Service) {
		sv.Idle = 2 * time.Second // longer than a server takes to begin, anywhere
	}))
	a, silent := askUDP(t, port), askUDP(t, port)
	pid := a.send("1").answer("1")
	quiet := silent.send("1").answer("1")
	for end := time.Now().Add(3 * time.Second); time.Now().Before(end); time.Sleep(20 * time.Millisecond) {
		if a.send("2").answer("2") != pid {
			t.Fatal("the session of a peer that talks has ended")
		}
	}
	s.logs.wait(t, "end", "pid="+strconv.Itoa(quiet), "signal=SIGTERM")
	// On a slow machine a server may be ended before it has begun.
	again := 0
	within(t, "another server answers", func() bool {
		b := make([]byte, 100)
		silent.send("3").SetReadDeadline(time.Now().Add(time.Second))
		n, err := silent.Read(b)
		if err == nil {
			again = told(t, string(b[:n]), "3")
		}
		return err == nil
	})
	if again == quiet {
		t.Error("who was ended answers")
	}
	s.instances(0)
}

func TestSessionLimits(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(sessionRow("talk", "127.0.0.1", port, receiver(bound, 2)), func(sv *service.Service) {
		sv.Limits.Instances, sv.Limits.InstancesPerSource = 3, 2
		sv.Access = rules(t, "", "127.0.9.0/24")
	}))
	one, two, three := fromUDP(t, "127.0.1.1", "127.0.0.1", port), fromUDP(t, "127.0.1.1", "127.0.0.1", port), fromUDP(t, "127.0.1.1", "127.0.0.1", port)
	one.send("x").answer("x")
	two.send("x").answer("x")
	three.send("x")
	s.logs.wait(t, "refuse", "reason="+limit.OverInstancesPerSource.String(), "peer="+three.LocalAddr().String())
	fromUDP(t, "127.0.2.1", "127.0.0.1", port).send("x").answer("x")
	fromUDP(t, "127.0.3.1", "127.0.0.1", port).send("x")
	s.logs.wait(t, "refuse", "reason="+limit.OverInstances.String())
	fromUDP(t, "127.0.9.1", "127.0.0.1", port).send("x")
	s.logs.wait(t, "refuse", "reason=access")
	one.send("y").answer("y") // and its server ends
	s.instances(2)
	three.send("z").answer("z")
}

// A flood of sources costs neither descriptors nor records.
func TestSessionFlood(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(sessionRow("talk", "0.0.0.0", port, receiver(bound, 1000)), func(sv *service.Service) {
		sv.Limits.Instances = 2
		sv.Limits.RatePerSource = limit.Rate{N: 10, Per: time.Minute}
	}))
	a := askUDP(t, port)
	a.send("1").answer("1")
	before := descriptors(t)
	var from, to unix.SockaddrInet4
	to.Port, to.Addr = port, [4]byte{127, 0, 0, 1}
	for i := range 20000 {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		from.Addr = [4]byte{127, 7, byte(i >> 8), byte(i)}
		if err := unix.Bind(fd, &from); err != nil {
			t.Fatal(err)
		}
		to.Addr[3] = byte(1 + i%200)
		unix.Sendto(fd, []byte("x"), 0, &to)
		unix.Close(fd)
	}
	a.send("2").answer("2")
	h := s.unit("talk").listeners[0].turn.hub.Load()
	// The second one ends when its answer finds nobody: what is left is exactly
	// what runs.
	within(t, "that few sessions are left", func() bool {
		running := s.reaper.count()
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.peers) == running && running >= 1 && running <= 2
	})
	// The second session, its guard, and nothing else.
	within(t, "that few descriptors are left", func() bool { return descriptors(t) <= before+2 })
}

func descriptors(t testing.TB) int {
	list, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// A program that is missing is told once, and nothing stays.
func TestSessionNoProgram(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, sessionRow("none", "0.0.0.0", port, program("/no/such/program")))
	a := askUDP(t, port)
	a.send("x")
	l := s.logs.wait(t, "cannot start", "service=none")
	if !strings.Contains(l.text, "/no/such/program") {
		t.Error(l.text)
	}
	h := s.unit("none").listeners[0].turn.hub.Load()
	within(t, "that nothing is left", func() bool {
		h.mu.Lock()
		defer h.mu.Unlock()
		return len(h.peers) == 0 && !h.sweeping
	})
}

// Sessions outlive a reload of their row, which new peers then meet.
func TestSessionReload(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	old := sessionRow("talk", "0.0.0.0", port, receiver(bound, 3))
	s := serve(t, old)
	a := askUDP(t, port)
	first := a.send("1").answer("1")
	s.reload(with(sessionRow("talk", "0.0.0.0", port, sh("echo new $(dd bs=1000 count=1 2>/dev/null)")), func(sv *service.Service) { sv.Name = "talk" }))
	if a.send("2").answer("2") != first {
		t.Error("a reload has ended a session")
	}
	c := askUDP(t, port).send("3\n")
	b := make([]byte, 100)
	if n, err := c.Read(b); string(b[:n]) != "new 3\n" {
		t.Errorf("after the reload: %q, %v", b[:n], err)
	}
	// The row goes, the session stays.
	s.reload()
	if a.send("4").answer("4") != first {
		t.Error("the end of the row has ended a session")
	}
	s.instances(0)
}

// helperStray reads one datagram and turns to somebody else.
func helperStray([]string) {
	unix.Read(0, make([]byte, 100))
	unix.Connect(0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: 9})
	time.Sleep(bound)
}

// What comes from a peer whose server has given up the connection to it does not
// go round and round.
func TestSessionStrays(t *testing.T) {
	server := helper("stray")
	if !alone(t, nil) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(sessionRow("stray", "127.0.0.1", port, server), func(sv *service.Service) { sv.OnStop = service.StopKill }))
	a := askUDP(t, port).send("hello")
	within(t, "a lost datagram", func() bool {
		a.send("are you there?")
		return s.logs.count("refuse", "reason=stray", "peer="+a.LocalAddr().String()) > 0
	})
	if share := idleCPU(t, time.Second); share > 0.05 {
		t.Errorf("%.1f %% of a processor", 100*share)
	}
}

// A worker that comes too late makes no sessions of a socket.
func TestNoSessionsAfterReload(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, sessionRow("row", "127.0.0.1", port, receiver(bound, 1)))
	old := s.unit("row").listeners[0]
	s.reload(onUDP(internal(service.BuiltinEcho, port), "127.0.0.1", port))
	if h, err := s.hub(old); h != nil || err != nil {
		t.Errorf("the row of before still has sessions: %v", err)
	}
	l := s.unit("echo-udp").listeners[0]
	if h, err := s.hub(l); h != nil || err != nil {
		t.Errorf("a built-in has sessions: %v", err)
	}
}
