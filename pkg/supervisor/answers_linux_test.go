package supervisor

// What a batch of datagrams adds to what relays_linux_test.go asks of single ones.

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// In a batch each datagram is judged by itself: those that are refused do not
// keep the others, a limit is reached in the middle, and answers have their order.
func TestDatagramBatches(t *testing.T) {
	testkit.Check(t)
	const (
		sent  = 3 * builtin.Batch
		allow = builtin.Batch + 7
	)
	port := testkit.FreePort(t)
	sv := onUDP(internal(service.BuiltinEcho, 0), "127.0.0.1", port)
	sv.Access = rules(t, "", "127.0.0.66/32")
	sv.Limits = limit.Limits{RatePerSource: limit.Rate{N: allow, Per: time.Hour}}
	s := serve(t, sv)
	good, bad := call(t, "127.0.0.3:0", "127.0.0.1", port), call(t, "127.0.0.66:0", "127.0.0.1", port)
	other := call(t, "127.0.0.4:0", "127.0.0.1", port)
	// The worker waits with the first ones that it has got; the rest comes in
	// batches as large as they may be.
	u := s.unit(sv.ID)
	u.mu.Lock()
	for i := range sent {
		fmt.Fprintf(bad, "bad %d", i)
		fmt.Fprintf(good, "good %d", i)
	}
	u.mu.Unlock()
	b := make([]byte, 100)
	for i := range allow {
		n, err := good.Read(b)
		if want := fmt.Sprintf("good %d", i); err != nil || string(b[:n]) != want {
			t.Fatalf("answer %d is %q, %v", i, b[:n], err)
		}
	}
	if got := other.ask("what comes after all of them"); !strings.HasPrefix(got, "what") {
		t.Errorf("another peer got %q", got)
	}
	s.logs.wait(t, "refuse", "reason=access", "rule=127.0.0.66/32", fmt.Sprint("peer=", bad.LocalAddr()))
	s.logs.wait(t, "refuse", "reason="+limit.OverRatePerSource.String(), fmt.Sprint("peer=", good.LocalAddr()))
	for _, c := range []*caller{good, bad} {
		c.SetReadDeadline(time.Now().Add(time.Millisecond))
		if n, err := c.Read(b); err == nil {
			t.Errorf("%q was answered", b[:n])
		}
	}
}

// Datagrams that are answered come to one loop, connections to each.
func TestDatagramsComeToOneLoop(t *testing.T) {
	testkit.Check(t)
	udp, tcp := onUDP(internal(service.BuiltinEcho, 0), "127.0.0.1", testkit.FreePort(t)), internal(service.BuiltinTime, testkit.FreePort(t))
	s := serve(t, udp, tcp)
	for id, want := range map[string]int{udp.ID: 1, tcp.ID: len(s.loops)} {
		u := s.unit(id)
		u.mu.Lock()
		fd := u.listeners[0].Fd()
		u.mu.Unlock()
		got := 0
		for _, l := range s.loops {
			info, err := os.ReadFile(fmt.Sprintf("/proc/self/fdinfo/%d", l.poll.fd))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(info)) {
				if f := strings.Fields(line); len(f) > 1 && f[0] == "tfd:" && f[1] == fmt.Sprint(fd) {
					got++
				}
			}
		}
		if got != want {
			t.Errorf("%s is polled by %d of %d loops, want %d", id, got, len(s.loops), want)
		}
	}
}
