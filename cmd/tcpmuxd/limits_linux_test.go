// Access and limits of the built daemon: who is refused, and who must not notice.

package main_test

import (
	"fmt"
	"net"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// limited is a table with one program on the multiplexer and on a port, each
// with these limits.
func limited(mux, direct, program, limits string) string {
	return both(mux, direct, "a", fmt.Sprintf("exec = %s\nuser = \"nobody\"\ngroups = []\n%s", program, limits))
}

// served says whether a peer gets the answer of "/bin/echo ok".
func served(t testing.TB, from, addr, say string) bool {
	t.Helper()
	got, err := talk(from, addr, say)
	switch {
	case strings.HasSuffix(got, "ok\n"):
		return true
	case strings.HasPrefix(got, "-") && err == nil, got == "" && say == "":
		return false
	}
	t.Errorf("from %q to %s, %q is answered %q, %v", from, addr, say, got, err)
	return false
}

const echoOK = `["/bin/echo", "ok"]`

// Red Hat BZ#809271: after its cps limit xinetd could not bind the port again,
// and systemd's trigger limit is for ever. Here the very socket stays, and the
// row recovers by itself.
func TestRateNeverClosesTheListener(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serve(t, limited(mux, direct, echoOK, `limits = { rate = "5/s", burst = 5 }`))
	before := d.sockets()
	for _, way := range []struct{ addr, say string }{{mux, "a\r\n"}, {direct, ""}} {
		began, n := time.Now(), 0
		for range 200 {
			if served(t, "", way.addr, way.say) {
				n++
			}
		}
		if most := 6 + 5*int(time.Since(began)/time.Second+1); n < 5 || n > most {
			t.Errorf("%d of 200 were served, want 5 to %d", n, most)
		}
		if !poll(3*time.Second, func() bool { return served(t, "", way.addr, way.say) }) {
			t.Errorf("%s does not recover", way.addr)
		}
	}
	d.checkIdle()
	// More may have come: what children write to the log has sockets, too.
	after := d.sockets()
	gone := slices.DeleteFunc(slices.Clone(before), func(s string) bool { return slices.Contains(after, s) })
	if len(before) < 2 || len(gone) > 0 {
		t.Errorf("the sockets were %v and are %v", before, after)
	}
}

// xinetd counts denied peers against the rate, so that they can use it up.
func TestDeniedPeersUseNoRate(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serve(t, limited(mux, direct, echoOK, `limits = { rate = "3/d", burst = 3 }
access = { deny = ["127.0.0.2"] }`))
	for row, way := range map[string][2]string{"tcpmux/+a": {mux, "a\r\n"}, "a": {direct, ""}} {
		for range 50 {
			if served(t, "127.0.0.2", way[0], way[1]) {
				t.Fatal("a denied peer is served")
			}
		}
		for i := range 3 {
			if !served(t, "127.0.0.3", way[0], way[1]) {
				t.Errorf("%s: number %d of the allowed peers is refused", row, i+1)
			}
		}
		if served(t, "127.0.0.3", way[0], way[1]) {
			t.Errorf("%s: the rate is not kept", row)
		}
		d.waitFor("refuse", "service", row, "reason", "access")
		d.waitFor("refuse", "service", row, "reason", "rate")
	}
}

// The inetds end a service for ten minutes when one peer asks for it too often:
// 256 cheap connections are an outage. Here an offender far beyond its limit
// does not delay somebody else.
func TestOnlyTheOffenderSuffers(t *testing.T) {
	const soon = time.Second // with a machine that does much else
	mux, direct := local(t), local(t)
	serveAs(t, limited(mux, direct, echoOK, `limits = { rate_per_source = "20/s", burst_per_source = 20 }`), &how{shipped: true})
	var done atomic.Bool
	var tried, got atomic.Int64
	var offenders sync.WaitGroup
	began := time.Now()
	for range 2 {
		for _, way := range [][2]string{{mux, "a\r\n"}, {direct, ""}} {
			offenders.Go(func() {
				for !done.Load() && !t.Failed() {
					tried.Add(1)
					if served(t, "127.0.0.2", way[0], way[1]) {
						got.Add(1)
					}
				}
			})
		}
	}
	for i := range 40 {
		way := [][2]string{{mux, "a\r\n"}, {direct, ""}}[i%2]
		asked := time.Now()
		if !served(t, "127.0.0.3", way[0], way[1]) {
			t.Errorf("the other peer is refused, after %v", time.Since(began))
		}
		if took := time.Since(asked); took > soon {
			t.Errorf("the other peer waits %v", took)
		}
		time.Sleep(50 * time.Millisecond) // it asks 10 times a second of each
	}
	done.Store(true)
	offenders.Wait()
	most := int64(2 * (20 + 20*(time.Since(began).Seconds()+1)))
	t.Logf("the offender tried %d times in %v and was served %d times", tried.Load(), time.Since(began), got.Load())
	if tried.Load() < 10*most/2 || got.Load() > most {
		t.Errorf("the offender tried %d times and was served %d times, want at most %d", tried.Load(), got.Load(), most)
	}
}

// SunOS 101618 and many after it: one peer holds so many connections that
// nobody else gets one. A row that says nothing of limits has some.
func TestDefaultsLeaveRoomForOthers(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serve(t, limited(mux, direct, `["/bin/cat"]`, ""))
	var held []*net.TCPConn
	for range 64 {
		held = append(held, open(t, "127.0.0.2", mux, "a"))
	}
	expect(t, "127.0.0.2", mux, "a\r\n", replyBusy)
	d.waitFor("refuse", "service", "tcpmux/+a", "reason", "instances_per_source")
	echo(t, open(t, "127.0.0.3", mux, "a"), "another source\n")
	c := dial(t, "127.0.0.2", direct)
	echo(t, c, "another row\n")
	held[0].Close()
	d.waitFor("end")
	echo(t, open(t, "127.0.0.2", mux, "a"), "a place is free\n")
}

// A service's own limits hold over TCPMUX, not only those of the multiplexer.
func TestLimitsOfMuxServices(t *testing.T) {
	t.Parallel()
	mux, direct := local(t), local(t)
	d := serve(t, limited(mux, direct, `["/bin/cat"]`, "limits = { instances = 1 }"))
	first := open(t, "", mux, "a")
	expect(t, "", mux, "a\r\n", replyBusy)
	expect(t, "", mux, "help\r\n", "a\r\n")
	d.waitFor("refuse", "service", "tcpmux/+a", "reason", "instances")
	first.CloseWrite()
	hearEnd(t, first, "")
	d.waitFor("end")
	open(t, "", mux, "a")
}
