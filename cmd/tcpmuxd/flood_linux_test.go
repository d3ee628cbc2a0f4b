// Floods: many connections, most of them broken, and what the daemon is like
// afterwards. These tests want the machine for themselves, so they are not
// parallel, and they run the program as it is shipped.

package main_test

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A knock is one connection of a flood, made of bare system calls.
type knock struct {
	addr  string
	say   string
	hear  bool // wait for the other side to close
	reset bool // end by a reset
}

// run makes the connection, the i-th of all: sources are spread, because the
// ports of one would not do.
func (k knock) run(i int) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: int64(bound / time.Second)})
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 1, byte(i >> 4), byte(1 + i%16)}}); err != nil {
		return err
	}
	to := netip.MustParseAddrPort(k.addr)
	if err := unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}); err != nil {
		return err
	}
	if k.say != "" {
		unix.Write(fd, []byte(k.say)) // the other side may have closed
	}
	if k.hear {
		var b [64]byte
		for {
			n, err := unix.Read(fd, b[:])
			if err == unix.EAGAIN {
				return fmt.Errorf("%q to %s: no answer and no end", k.say, k.addr)
			}
			if n <= 0 {
				break
			}
		}
	}
	if k.reset {
		unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	return nil
}

// resident is the memory of a process in kilobytes.
func resident(t *testing.T, pid int) int {
	t.Helper()
	kb, err := strconv.Atoi(strings.TrimSuffix(status(t, pid)["VmRSS"], " kB"))
	if err != nil {
		t.Fatal(err)
	}
	return kb
}

// Red Hat BZ#790036, CVE-2003-0211: descriptors, or memory, leaked with
// connections that were refused or broken off. Here a hundred thousand in every
// way there is to go wrong, and the daemon has what it had before.
func TestConnectionsLeaveNothing(t *testing.T) {
	const connections, clients = 100_000, 4
	mux, direct, denied := local(t), local(t), local(t)
	d := serveAs(t, limited(mux, direct, `["/bin/true"]`, `limits = { rate = "200/s" }`)+fmt.Sprintf(`
[service.denied]
listen = [%q]
exec = ["/bin/true"]
user = "nobody"
access = { allow = ["10.0.0.0/8"] }
`, denied), &how{shipped: true})
	knocks := []knock{
		{addr: mux, reset: true},                          // nothing at all
		{addr: direct, reset: true},                       // refused or served, and gone
		{addr: denied, reset: true},                       // denied, and gone
		{addr: denied, hear: true},                        // denied, and waits for it
		{addr: mux, say: "a half of a na", reset: true},   // broken off
		{addr: mux, say: "a half of a na"},                // closed
		{addr: mux, say: "nothing\r\n", hear: true},       // unknown
		{addr: mux, say: "nothing\r\n", reset: true},      // unknown, and gone
		{addr: mux, say: "bad\x01\r\n", hear: true},       // no name
		{addr: mux, say: "a\r\n", hear: true},             // busy, or served
		{addr: mux, say: "a\r\nand more", reset: true},    // busy, or served, and gone
		{addr: mux, say: "help\r\n", hear: true},          // the list
		{addr: mux, say: "help\r\nmore", reset: true},     // the list, not read
		{addr: mux, say: strings.Repeat("long", 100)},     // too long, closed
		{addr: mux, say: "nothing\r\nunread", hear: true}, // bytes that nobody wants
		{addr: direct, hear: true},                        // refused or served
	}
	flood := func(from, to int) {
		var next atomic.Int64
		next.Store(int64(from))
		var wg sync.WaitGroup
		for range clients {
			wg.Go(func() {
				for {
					i := int(next.Add(1)) - 1
					if i >= to || t.Failed() {
						return
					}
					if err := knocks[i%len(knocks)].run(i / len(knocks)); err != nil {
						t.Error(err)
					}
				}
			})
		}
		wg.Wait()
	}
	began := time.Now()
	flood(0, connections/10) // books and buffers have their size after that
	d.checkIdle()
	before := resident(t, d.pid)
	flood(connections/10, connections)
	d.checkIdle()
	after := resident(t, d.pid)
	t.Logf("%d connections in %v; %d kB before the last nine tenths, %d kB after", connections, time.Since(began).Round(time.Millisecond), before, after)
	if after > before+8<<10 {
		t.Errorf("the daemon has grown from %d kB to %d kB", before, after)
	}
	if got, err := talk("", mux, "help\r\n"); err != nil || got != "a\r\n" {
		t.Errorf("help is answered %q, %v", got, err)
	}
	// The log has not been flooded.
	if n := len(d.log.all()); n > 2*len(d.events("start"))+1000 {
		t.Errorf("the log has %d lines", n)
	}
}

// kernel37: a peer that is gone before the accept had the BSD inetds wait in it
// for ever; NetBSD's exited when it could not ask who the peer was. The daemon
// is stopped meanwhile, so that all of these peers are gone before.
func TestGoneBeforeAccept(t *testing.T) {
	mux, direct := local(t), local(t)
	d := serveAs(t, limited(mux, direct, echoOK, ""), &how{shipped: true})
	for round := range 3 {
		d.signal(syscall.SIGSTOP)
		for i := range 1000 {
			for _, k := range []knock{{addr: mux, reset: true}, {addr: mux, say: "a\r\n", reset: true}, {addr: direct, reset: true}} {
				if err := k.run(i); err != nil {
					t.Error(err)
				}
			}
		}
		d.signal(syscall.SIGCONT)
		began := time.Now()
		expect(t, "", mux, "a\r\n", replyGo+"ok\n")
		expect(t, "", direct, "", "ok\n")
		if took := time.Since(began); took > 10*time.Second {
			t.Errorf("round %d: the next peers wait %v", round, took)
		}
	}
}
