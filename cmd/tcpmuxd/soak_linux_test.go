// The soak: many instances of every kind of socket one after the other, and
// whether the daemon has afterwards what it had before. `make soak` has -soak
// 100000; with the tests it is short.

package main_test

import (
	"flag"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

var (
	soak     = flag.Int("soak", 500, "instances of each kind in TestSoak")
	soakTime = flag.Duration("soak-time", time.Hour, "after which TestSoak lets a kind be that has had a fifth of them")
)

// A request is one exchange with a service of the soak.
type request struct {
	domain, kind int
	to           func() unix.Sockaddr
	named        bool   // has a name of its own, to be answered
	say, hear    string // hear is how the answer begins; empty: any answer will do
	number       int64  // if not 0 it follows both, so that no answer can be another's
}

func (r request) run() error {
	if r.number != 0 {
		r.say, r.hear = fmt.Sprint(r.say, r.number), fmt.Sprint(r.hear, r.number)
	}
	fd, err := unix.Socket(r.domain, r.kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 20})
	if r.named {
		if err := unix.Bind(fd, &unix.SockaddrUnix{}); err != nil { // the kernel chooses
			return err
		}
	}
	if err := unix.Connect(fd, r.to()); err != nil {
		return fmt.Errorf("connect: %w", err)
	}
	if r.say != "" {
		if _, err := unix.Write(fd, []byte(r.say)); err != nil {
			return fmt.Errorf("write: %w", err)
		}
	}
	var got []byte
	var b [512]byte
	for len(got) < max(1, len(r.hear)) {
		n, err := unix.Read(fd, b[:])
		if err == unix.EINTR {
			continue // Go's own signals
		}
		if err != nil || n == 0 {
			return fmt.Errorf("said %q, read %q, then %d bytes: %w", r.say, got, n, err)
		}
		got = append(got, b[:n]...)
	}
	if !strings.HasPrefix(string(got), r.hear) {
		return fmt.Errorf("said %q, read %q, want %q", r.say, got, r.hear)
	}
	if r.kind == unix.SOCK_STREAM {
		unix.Shutdown(fd, unix.SHUT_WR)
		for { // so that the other side closes first and no port is used up
			if n, err := unix.Read(fd, b[:]); n <= 0 && err != unix.EINTR {
				break
			}
		}
	}
	return nil
}

// connects reports whether somebody listens there.
func (r request) connects() bool {
	fd, err := unix.Socket(r.domain, r.kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	return unix.Connect(fd, r.to()) == nil
}

func TestSoak(t *testing.T) {
	dir := tempDir(t)
	answer := filepath.Join(dir, "answer")
	if out, err := exec.Command("gcc", "-O2", "-static", "-o", answer, "testdata/answer.c").CombinedOutput(); err != nil {
		t.Fatalf("gcc: %v\n%s", err, out)
	}
	port := map[string]int{}
	inet := func(name string) func() unix.Sockaddr {
		return func() unix.Sockaddr {
			return &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port[name]}
		}
	}
	var table strings.Builder
	table.WriteString(jsonLog + "[defaults]\nuser = \"nobody\"\non_stop = \"kill\"\n")
	row := func(name, where, what string) {
		if where == "" {
			addr := local(t)
			port[name] = int(netip.MustParseAddrPort(addr).Port())
			where = fmt.Sprintf("listen = [%q]\n", addr)
		}
		fmt.Fprintf(&table, "[service.%q]\n%s%s\n", name, where, what)
	}
	path := func(name string) string { return filepath.Join(dir, name) }
	exec1 := fmt.Sprintf("exec = [%q]\n", answer)
	row("tcp", "", exec1)
	row("tcpmux", "", "builtin = \"tcpmux\"")
	row("tcpmux/+name", " ", exec1)
	row("stream", fmt.Sprintf("protocol = \"unix\"\nlisten = [%q]\n", path("stream")), exec1)
	row("seqpacket", fmt.Sprintf("socket = \"seqpacket\"\nlisten = [%q]\n", path("seqpacket")), exec1)
	row("dgram", fmt.Sprintf("socket = \"dgram\"\nprotocol = \"unix\"\nwait = true\nlisten = [%q]\n", path("dgram")), exec1)
	row("udp", "", "socket = \"dgram\"\n"+exec1)
	row("udpwait", "", "socket = \"dgram\"\nwait = true\nlimits.instances = 4\n"+exec1)
	row("tcpwait", "", fmt.Sprintf("wait = true\nlimits.instances = 4\nexec = [%q, \"accept\"]\n", answer))
	row("echo", "", "builtin = \"echo\"")
	row("daytime", "", "builtin = \"daytime\"")
	row("echo-udp", "", "socket = \"dgram\"\nbuiltin = \"echo\"\nlimits.rate_per_source = \"0\"")
	row("forward", "", fmt.Sprintf("forward = [%q]\n", path("stream")))
	// A million lines are too many to keep.
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	d := serveAs(t, table.String(), &how{shipped: true, stderr: null})

	tcp := func(name string) request {
		return request{domain: unix.AF_INET, kind: unix.SOCK_STREAM, to: inet(name), say: "hello", hear: "hello"}
	}
	udp := func(name string) request {
		return request{domain: unix.AF_INET, kind: unix.SOCK_DGRAM, to: inet(name), say: "hello", hear: "hello"}
	}
	local := func(name string, kind int) request {
		to := func() unix.Sockaddr { return &unix.SockaddrUnix{Name: path(name)} }
		return request{domain: unix.AF_UNIX, kind: kind, to: to, say: "hello", hear: "hello"}
	}
	if !poll(bound, func() bool { return tcp("daytime").connects() }) {
		t.Fatal("the daemon does not serve")
	}
	mux, daytime, dgram := tcp("tcpmux"), tcp("daytime"), local("dgram", unix.SOCK_DGRAM)
	mux.say, mux.hear = "name\r\nhello", "+Go\r\nhello"
	daytime.say, daytime.hear = "", ""
	dgram.named = true
	var numbers atomic.Int64
	for _, kind := range []struct {
		name string
		request
	}{
		{"tcp", tcp("tcp")}, {"mux", mux}, {"unix stream", local("stream", unix.SOCK_STREAM)},
		{"unix seqpacket", local("seqpacket", unix.SOCK_SEQPACKET)}, {"unix dgram wait", dgram},
		{"udp session", udp("udp")}, {"udp wait", udp("udpwait")}, {"tcp wait", tcp("tcpwait")},
		{"echo", tcp("echo")}, {"daytime", daytime}, {"udp echo", udp("echo-udp")}, {"forward", tcp("forward")},
	} {
		t.Run(kind.name, func(t *testing.T) {
			run := func(n int) int {
				var begun atomic.Int64
				var wg sync.WaitGroup
				began := time.Now()
				for range 4 {
					wg.Go(func() {
						for !t.Failed() {
							switch i := begun.Add(1); {
							case i > int64(n), i > int64(n/5) && time.Since(began) > *soakTime:
								begun.Add(-1)
								return
							}
							r := kind.request
							if r.hear != "" {
								r.number = numbers.Add(1)
							}
							if err := r.run(); err != nil {
								t.Error(err)
							}
						}
					})
				}
				wg.Wait()
				return int(begun.Load())
			}
			run(*soak / 10)
			files := -1 // once what has ended is given up
			poll(bound, func() bool {
				before := files
				files = len(d.files())
				time.Sleep(200 * time.Millisecond)
				return files == before
			})
			memory := resident(t, d.pid)
			began := time.Now()
			done := run(*soak)
			took := time.Since(began)
			// Once many are open at a time the daemon keeps some of its own: those that
			// it keeps back, and one for each slot of package spawn.
			files += 12 + 4*runtime.NumCPU()
			if !poll(10*time.Second, func() bool { return len(d.files()) <= files }) {
				t.Errorf("%d descriptors, more than %d:\n%s", len(d.files()), files, strings.Join(d.files(), "\n"))
			}
			grown := resident(t, d.pid) - memory
			t.Logf("%d in %v, %.0f/s; %d descriptors, grown by %d kB", done, took.Round(time.Millisecond), float64(done)/took.Seconds(), len(d.files()), grown)
			if grown > 8<<10 {
				t.Errorf("the daemon has grown by %d kB", grown)
			}
		})
	}
}

// TestSpoofedSources: datagrams of ever new sources, as many as loopback has, to
// everything that takes datagrams. Nothing grows, and a denied source never wakes
// a server.
func TestSpoofedSources(t *testing.T) {
	sources := 10 * *soak
	session, denied, wait, echo := local(t), local(t), local(t), local(t)
	d := serveAs(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
on_stop = "kill"
socket = "dgram"
[service.session]
listen = [%q]
exec = ["/bin/sleep", "1"]
limits = { instances = 8, rate = "20/s" }
[service.denied]
listen = [%q]
exec = ["/bin/true"]
access.deny = ["127.0.0.0/8"]
[service.wait]
listen = [%q]
wait = true
exec = ["/bin/true"]
access.deny = ["127.0.0.0/8"]
[service.echo]
listen = [%q]
builtin = "echo"
`, session, denied, wait, echo), &how{shipped: true})
	flood := func(addr string, from, to int) {
		port := int(netip.MustParseAddrPort(addr).Port())
		for i := from; i < to; i++ {
			fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				t.Fatal(err)
			}
			// 127.64.0.0/10 has four million.
			source := &unix.SockaddrInet4{Addr: [4]byte{127, byte(64 + i>>16&63), byte(i >> 8), byte(i)}}
			if err := unix.Bind(fd, source); err == nil {
				unix.Sendto(fd, []byte("hello"), unix.MSG_DONTWAIT, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: port})
			}
			unix.Close(fd)
		}
	}
	rows := map[string]string{"session": session, "denied": denied, "wait": wait, "echo": echo}
	for _, addr := range rows {
		flood(addr, 0, sources/10)
	}
	// What a row has once it has seen a datagram stays; its sessions go.
	var now int
	if !poll(bound, func() bool {
		before := now
		now = d.descriptors()
		time.Sleep(500 * time.Millisecond)
		return len(d.running()) == 0 && now == before
	}) {
		t.Fatal("the sessions do not end")
	}
	d.idle = now
	for name, addr := range rows {
		files, memory := len(d.files()), resident(t, d.pid)
		flood(addr, sources/10, sources)
		grown := resident(t, d.pid) - memory
		t.Logf("%s: %d sources, grown by %d kB", name, sources, grown)
		// A full table of sources has a few megabytes.
		if grown > 16<<10 {
			t.Errorf("%s: the daemon has grown by %d kB", name, grown)
		}
		// Each session has a descriptor, and there are eight.
		if n := len(d.files()); n > files+2*8+2 {
			t.Errorf("%s: %d descriptors after %d", name, n, files)
		}
	}
	if n := len(d.events("start", "service", "wait")) + len(d.events("start", "service", "denied")); n > 0 {
		t.Errorf("%d servers were started for sources that are denied", n)
	}
}
