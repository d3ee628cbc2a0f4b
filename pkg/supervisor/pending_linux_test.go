package supervisor

// A full house: who waits, what it costs, and who has to make room.

import (
	"errors"
	"fmt"
	"io"
	"net/netip"
	"runtime"
	"runtime/debug"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A rawPeer is a connection that costs the test a descriptor and nothing else.
func rawPeer(t *testing.T, source string, port int, line string) int {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: netip.MustParseAddr(source).As4()}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Connect(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port}); err != nil {
		t.Fatal(err)
	}
	if len(line) > 0 {
		if _, err := unix.Write(fd, []byte(line)); err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// TestIdlePeersCostNothing: 1,000 clients that sent a part of a line, that
// closed their half, that reset.
func TestIdlePeersCostNothing(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Timeout, sv.Limits.InstancesPerSource = time.Minute, 0
	})), plus("cat", cat()))
	partial := 0
	for i := range 1000 {
		switch i % 5 {
		case 0, 1:
			rawPeer(t, "127.0.0.1", port, "ca")
			partial++
		case 2: // nothing at all
			rawPeer(t, "127.0.0.1", port, "")
			partial++
		case 3:
			fd := rawPeer(t, "127.0.0.1", port, "ca")
			unix.Shutdown(fd, unix.SHUT_WR)
		case 4:
			fd := rawPeer(t, "127.0.0.1", port, "ca")
			unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
			unix.Dup3(int(devNull(t)), fd, unix.O_CLOEXEC) // closes it, and keeps the number for the clean-up
		}
	}
	s.waiting(partial)
	if got := ask(t, port, "cat\r\n"); got != tcpmux.Go {
		t.Errorf("among them: %q", got)
	}
	s.instances(0)
	if share := idleCPU(t, 2*time.Second); share > 0.02 {
		t.Errorf("%.1f %% of a processor, want less than 2", 100*share)
	} else {
		t.Logf("%.2f %% of a processor", 100*share)
	}
	s.waiting(partial)
}

func devNull(t *testing.T) int {
	t.Helper()
	fd, err := unix.Open("/dev/null", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// Memory of one that waits, without the kernel's.
func TestMemoryOfAPending(t *testing.T) {
	testkit.Check(t)
	const peers = 4000
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Timeout, sv.Limits.InstancesPerSource = time.Minute, 0
	})), plus("cat", cat()))
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	for i := range peers {
		rawPeer(t, fmt.Sprintf("127.%d.%d.1", 1+i/200, 1+i%200), port, "ca")
	}
	s.waiting(peers)
	each := (heap() - before) / peers
	t.Logf("%d bytes for each of %d pending connections from as many networks", each, peers)
	if each > 1000 {
		t.Errorf("%d bytes for a pending connection, want less than 1000", each)
	}
}

// A flood that is over gives its memory back.
func TestMemoryAfterAFlood(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) { sv.Limits.InstancesPerSource = 0 })), plus("cat", cat()))
	var all []*client
	for range keepSlots + 100 {
		all = append(all, dial(t, port).send("c"))
	}
	s.waiting(len(all))
	for _, c := range all {
		c.reset()
	}
	s.waiting(0)
	s.pending.mu.Lock()
	if n := len(s.pending.slots); n > 1 {
		t.Errorf("%d records are kept", n)
	}
	s.pending.mu.Unlock()
	c := dial(t, port).send("ca")
	s.waiting(1)
	c.send("t\r\n").half().ends(tcpmux.Go)
}

// crowded expects the reply of one that had to make room.
func (c *client) crowded() {
	c.t.Helper()
	c.ends(tcpmux.Crowded)
}

// TestFullTable: a newcomer is always served, in the place of the oldest one of
// the source that holds most.
func TestFullTable(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Limits.Instances, sv.Limits.InstancesPerSource = 12, 0
	})), plus("cat", cat()))
	var greedy, modest []*client
	for range 8 {
		greedy = append(greedy, dialFrom(t, "127.1.0.1", port).send("c"))
		s.waiting(len(greedy))
	}
	for range 4 {
		modest = append(modest, dialFrom(t, "127.2.0.1", port).send("c"))
		s.waiting(len(greedy) + len(modest))
	}
	// Whoever sends his line at once needs no place.
	if got := ask(t, port, "cat\r\n"); got != tcpmux.Go {
		t.Errorf("a newcomer with a whole line: %q", got)
	}
	for i := range 4 {
		newcomer := dialFrom(t, fmt.Sprintf("127.3.%d.1", i), port).send("ca")
		greedy[i].crowded()
		newcomer.send("t\r\n").expect(tcpmux.Go).half().ends("")
		// Its place was freed: fill it, so that the table is full again.
		dialFrom(t, fmt.Sprintf("127.4.%d.1", i), port).send("c")
		s.waiting(12)
	}
	for _, c := range append(greedy[4:], modest...) {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
	s.logs.wait(t, "refuse", "service=tcpmux", "reason=crowded")
}

// One that comes from everywhere in a network is found by the network.
func TestFullTableByPrefix(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	const wide = 60
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Limits.Instances, sv.Limits.InstancesPerSource = wide+4, 0
	})), plus("cat", cat()))
	// Two of a source weigh 2; 60 in a network of 24 bits weigh 60/16.
	var pair, spread []*client
	for i := range 2 {
		pair = append(pair, dialFrom(t, "127.9.0.1", port).send("c"), dialFrom(t, "127.9.1.1", port).send("c"))
		s.waiting(2*i + 2)
	}
	for i := range wide {
		spread = append(spread, dialFrom(t, fmt.Sprintf("127.8.8.%d", 1+i), port).send("c"))
		s.waiting(4 + len(spread))
	}
	for i := range 3 {
		newcomer := dialFrom(t, fmt.Sprintf("127.7.%d.1", i), port).send("ca")
		spread[i].crowded()
		newcomer.send("t\r\n").expect(tcpmux.Go).half().ends("")
		dialFrom(t, fmt.Sprintf("127.6.%d.1", i), port).send("c")
		s.waiting(wide + 4)
	}
	for _, c := range pair {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
}

// TestPendingPerSource: a source that has its share gives up its own oldest.
func TestPendingPerSource(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	m := anywhere(with(mux(port), func(sv *service.Service) { sv.Limits.InstancesPerSource = 3 }))
	s := serve(t, m, plus("cat", cat()))
	other := dialFrom(t, "127.0.0.2", port).send("c")
	var mine []*client
	for i := range 6 {
		c := dial(t, port).send("c")
		mine = append(mine, c)
		if i < 3 {
			s.waiting(1 + len(mine))
		} else {
			mine[i-3].crowded()
		}
	}
	s.waiting(4)
	other.send("at\r\n").expect(tcpmux.Go).half().ends("")
	for _, c := range mine[3:] {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
}

// What a source is can change while connections are pending.
func TestPendingPrefixIsReloaded(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	m := anywhere(with(mux(port), func(sv *service.Service) { sv.Limits.InstancesPerSource = 2 }))
	s := serve(t, m, plus("cat", cat()))
	early := dialFrom(t, "127.5.5.1", port).send("c")
	s.waiting(1)
	s.reload(with(m, func(sv *service.Service) { sv.Limits.PrefixV4 = 24 }), plus("cat", cat()))
	var all []*client
	for i := range 3 {
		all = append(all, dialFrom(t, fmt.Sprintf("127.5.5.%d", 2+i), port).send("c"))
		if i < 2 {
			s.waiting(2 + i)
		}
	}
	all[0].crowded()
	for _, c := range append(all[1:], early) {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
}

// The v6 sources of a household are one network of 64 bits.
func TestPendingPerSourceV6(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, with(mux(port), func(sv *service.Service) { sv.Limits.InstancesPerSource = 2 }), plus("cat", cat()))
	a := dialFrom(t, "::1", port).send("c")
	s.waiting(1)
	b := dialFrom(t, "::1", port).send("c")
	s.waiting(2)
	four := dialFrom(t, "127.0.0.1", port).send("c")
	s.waiting(3)
	c := dialFrom(t, "::1", port).send("c")
	a.crowded()
	for _, c := range []*client{b, c, four} {
		c.send("at\r\n").expect(tcpmux.Go).half().ends("")
	}
}

// TestFlood: many at once in a table that is always full, under the race
// detector. Whoever completes a line in time is served or told why not; the
// daemon survives and keeps nothing.
func TestFlood(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(mux(port), func(sv *service.Service) {
		sv.Limits.Instances, sv.Limits.InstancesPerSource, sv.Timeout = 30, 5, 200*time.Millisecond
	})), plus("cat", program("/bin/cat")), plus("true", program("/bin/true")))
	done := make(chan map[string]int)
	requests := []string{"cat\r\n", "c", "nobody\r\n", "", "true\nx", "\x00", "ca\r", "help\r\n"}
	for g := range 8 {
		go func() {
			got := map[string]int{}
			for i := range 60 {
				c, err := tryFrom(fmt.Sprintf("127.0.%d.%d", g/2, 1+i%7), port)
				if err != nil {
					got[err.Error()]++
					continue
				}
				request := requests[(g+i)%len(requests)]
				c.Write([]byte(request))
				switch {
				case i%4 == 0 || request == "cat\r\n":
					c.CloseWrite()
				case i%4 == 1:
					c.SetLinger(0)
					c.Close()
					continue
				}
				b, err := io.ReadAll(io.LimitReader(c, 1<<16))
				if err != nil && !errors.Is(err, syscall.ECONNRESET) && i%4 != 2 {
					got[err.Error()]++
				}
				got[string(b)]++
				c.Close()
			}
			done <- got
		}()
	}
	all := map[string]int{}
	for range 8 {
		select {
		case got := <-done:
			for k, n := range got {
				all[k] += n
			}
		case <-time.After(2 * bound):
			t.Fatal("the flood does not end")
		}
	}
	for k := range all {
		switch k {
		case "", tcpmux.Go, tcpmux.Go + "x", tcpmux.NotAvailable, tcpmux.BadName, tcpmux.TimedOut, tcpmux.Crowded, "cat\r\ntrue\r\n":
		default:
			t.Errorf("%d peers got %q", all[k], k)
		}
	}
	s.waiting(0)
	s.instances(0)
	if got := ask(t, port, "cat\r\n"); got != tcpmux.Go {
		t.Errorf("after the flood: %q", got)
	}
	s.instances(0)
	s.pending.mu.Lock()
	defer s.pending.mu.Unlock()
	if c := s.units["tcpmux"].crowd.crowd; c != nil && c.Len() != 0 {
		t.Errorf("%d places are held by nobody", c.Len())
	}
}
