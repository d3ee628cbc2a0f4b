package kernel

import (
	"bytes"
	"encoding/binary"
	"errors"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const bound = 10 * time.Second

// socket is a UDP socket on a free port that tells where datagrams were sent to.
func socket(t testing.TB, domain int) (fd int, port uint16) {
	t.Helper()
	fd, err := unix.Socket(domain, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	var sa unix.Sockaddr = &unix.SockaddrInet4{}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1); err != nil {
		t.Fatal(err)
	}
	if domain == unix.AF_INET6 {
		sa = &unix.SockaddrInet6{}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			t.Fatal(err)
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, 0); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Bind(fd, sa); err != nil {
		t.Fatal(err)
	}
	switch sa, _ := unix.Getsockname(fd); sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = uint16(sa.Port)
	case *unix.SockaddrInet6:
		port = uint16(sa.Port)
	}
	return fd, port
}

// receive waits for datagrams.
func receive(t testing.TB, b *Batch, fd int) int {
	t.Helper()
	for deadline := time.Now().Add(bound); ; {
		n, err := b.Receive(fd)
		if err == nil {
			return n
		}
		if err != unix.EAGAIN || time.Now().After(deadline) {
			t.Fatalf("receiving: %v", err)
		}
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
	}
}

func dial(t testing.TB, from, to string) *net.UDPConn {
	t.Helper()
	local := net.UDPAddrFromAddrPort(netip.AddrPortFrom(netip.MustParseAddr(from), 0))
	c, err := net.DialUDP("udp", local, net.UDPAddrFromAddrPort(netip.MustParseAddrPort(to)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	return c
}

// An answer comes from the address that was asked, whatever the socket's family.
func TestAnswer(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		domain   int
		from, to string
	}{
		{unix.AF_INET, "127.0.0.1", "127.0.0.1"},
		{unix.AF_INET, "127.1.2.3", "127.4.5.6"},
		{unix.AF_INET6, "::1", "::1"},
		{unix.AF_INET6, "127.1.2.3", "127.4.5.6"},
	} {
		fd, port := socket(t, test.domain)
		to := netip.AddrPortFrom(netip.MustParseAddr(test.to), port)
		c := dial(t, test.from, to.String())
		peer := c.LocalAddr().(*net.UDPAddr).AddrPort()
		b, o := NewBatch(4, 100), NewOutbox(4)
		v6 := test.domain == unix.AF_INET6

		for _, payload := range []string{"hello", "", string(bytes.Repeat([]byte("x"), 101))} {
			if _, err := c.Write([]byte(payload)); err != nil {
				t.Fatal(err)
			}
			if n := receive(t, b, fd); n != 1 {
				t.Fatalf("%v: %d datagrams, want 1", test, n)
			}
			m := b.Message(0)
			if want := payload[:min(len(payload), 100)]; string(m.Data) != want {
				t.Errorf("%v: data %q, want %q", test, m.Data, want)
			}
			if m.Truncated != (len(payload) > 100) {
				t.Errorf("%v: %d bytes: truncated is %v", test, len(payload), m.Truncated)
			}
			if m.Peer != peer || m.Scope != 0 {
				t.Errorf("%v: peer %v scope %d, want %v", test, m.Peer, m.Scope, peer)
			}
			if m.To != to.Addr() || m.Local != to.Addr() || m.Interface != uint32(lo.Index) {
				t.Errorf("%v: to %v, local %v, interface %d", test, m.To, m.Local, m.Interface)
			}
			o.Answer(m, m.Data, v6)
			if n, err := o.Send(fd); n != 1 || err != nil {
				t.Fatalf("%v: sent %d: %v", test, n, err)
			}
			// The client is connected: another source would not reach it.
			got := make([]byte, 200)
			n, err := c.Read(got)
			if err != nil || string(got[:n]) != string(m.Data) {
				t.Fatalf("%v: answer %q, %v", test, got[:n], err)
			}
		}
	}
}

func TestBatchIsFilledInOrder(t *testing.T) {
	fd, port := socket(t, unix.AF_INET)
	c := dial(t, "127.0.0.1", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	for i := range 10 {
		c.Write([]byte{byte(i)})
	}
	b := NewBatch(4, 16)
	var got []byte
	for len(got) < 10 {
		n := receive(t, b, fd)
		if n > 4 {
			t.Fatalf("%d datagrams in a batch of 4", n)
		}
		for i := range n {
			got = append(got, b.Message(i).Data...)
		}
	}
	if want := []byte{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}; !bytes.Equal(got, want) {
		t.Errorf("received %v, want %v", got, want)
	}
	if n, err := b.Receive(fd); n != 0 || err != unix.EAGAIN {
		t.Errorf("of an empty socket: %d, %v, want EAGAIN", n, err)
	}
	if _, err := b.Receive(-1); err != unix.EBADF {
		t.Errorf("of no socket: %v, want EBADF", err)
	}
}

// What cannot go keeps nothing else back.
func TestOutboxGoesOn(t *testing.T) {
	fd, _ := socket(t, unix.AF_INET)
	to, port := socket(t, unix.AF_INET)
	good := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	bad := netip.AddrPortFrom(netip.MustParseAddr("255.255.255.255"), port) // EACCES: no SO_BROADCAST
	o := NewOutbox(4)
	for _, a := range []netip.AddrPort{bad, good, bad, good} {
		o.Add([]byte("x"), a, 0, netip.Addr{}, 0, false)
	}
	if !o.Full() || o.Len() != 4 {
		t.Errorf("full is %v with %d of 4", o.Full(), o.Len())
	}
	if n, err := o.Send(fd); n != 2 || err != unix.EACCES {
		t.Errorf("sent %d, %v, want 2, EACCES", n, err)
	}
	if o.Len() != 0 {
		t.Errorf("%d left after Send", o.Len())
	}
	if n, err := o.Send(fd); n != 0 || err != nil {
		t.Errorf("sent %d, %v of nothing", n, err)
	}
	b := NewBatch(4, 16)
	for got := 0; got < 2; {
		got += receive(t, b, to)
	}
}

func TestCallsAllocateNothing(t *testing.T) {
	fd, port := socket(t, unix.AF_INET6)
	b, o := NewBatch(8, 64), NewOutbox(8)
	self := netip.AddrPortFrom(netip.MustParseAddr("::1"), port)
	payload := []byte("payload")
	n := testing.AllocsPerRun(200, func() {
		for range 8 {
			o.Add(payload, self, 0, self.Addr(), 0, true)
		}
		o.Send(fd)
		got, _ := b.Receive(fd)
		for i := range got {
			if m := b.Message(i); m.To != self.Addr() {
				t.Errorf("to %v", m.To)
			}
		}
	})
	if n > 0 {
		t.Errorf("%v allocations for a batch there and back", n)
	}
}

// The memory that the kernel writes to is there while it writes, however hard
// the collector works and whatever else is allocated meanwhile.
func TestUnderCollection(t *testing.T) {
	var stop atomic.Bool
	done := make(chan struct{})
	go func() {
		defer close(done)
		var keep [64][]byte
		for i := 0; !stop.Load(); i++ {
			keep[i%64] = bytes.Repeat([]byte{0xff}, 64+i%4096)
			if i%64 == 0 {
				runtime.GC()
			}
		}
	}()
	defer func() { stop.Store(true); <-done }()
	fd, port := socket(t, unix.AF_INET)
	self := netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port)
	m := createMap(t)
	for i := range uint64(500) {
		// Fresh memory every time, and nothing but the call holds it.
		o := NewOutbox(8)
		for j := range uint64(8) {
			o.Add(binary.BigEndian.AppendUint64(nil, i<<8|j), self, 0, self.Addr(), 0, false)
		}
		if n, err := o.Send(fd); n != 8 || err != nil {
			t.Fatalf("sent %d: %v", n, err)
		}
		for j := uint64(0); j < 8; {
			b := NewBatch(8, 32)
			for k := range receive(t, b, fd) {
				got := b.Message(k)
				if len(got.Data) != 8 || binary.BigEndian.Uint64(got.Data) != i<<8|j || got.Peer != self {
					t.Fatalf("round %d, datagram %d: %x of %v", i, j, got.Data, got.Peer)
				}
				j++
			}
		}
		value, got := binary.NativeEndian.AppendUint64(nil, i), make([]byte, 8)
		if err := MapUpdate(m, key(1), value); err != nil {
			t.Fatal(err)
		}
		if err := MapLookup(m, key(1), got); err != nil || !bytes.Equal(got, value) {
			t.Fatalf("round %d: the map has %x, %v", i, got, err)
		}
	}
}

func TestStamp(t *testing.T) {
	fd, port := socket(t, unix.AF_INET)
	if _, _, err := Stamp(fd); err != unix.ENOENT {
		t.Fatalf("before anything was read: %v, want ENOENT", err)
	}
	c := dial(t, "127.0.0.1", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port).String())
	b := NewBatch(1, 16)
	var last time.Time
	for range 3 {
		before := time.Now().Add(-time.Millisecond)
		c.Write([]byte("x"))
		unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(bound/time.Millisecond))
		if s, us, err := Stamp(fd); err == nil && !time.Unix(s, us*1000).Equal(last) {
			t.Errorf("the time is another one before anybody has read: %v, then %v", last, time.Unix(s, us*1000))
		}
		receive(t, b, fd)
		s, us, err := Stamp(fd)
		if err != nil {
			t.Fatal(err)
		}
		if last = time.Unix(s, us*1000); last.Before(before) || last.After(time.Now()) {
			t.Errorf("last read: %v, and it is %v", last, time.Now())
		}
	}
	if _, _, err := Stamp(-1); err != unix.EBADF {
		t.Errorf("of no socket: %v", err)
	}
}

// A child has none of the descriptors.
func TestCloseOnExec(t *testing.T) {
	m := createMap(t)
	p, err := ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, keepAll, "GPL", "test")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(p)
	for _, fd := range []int{m, p} {
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("flags %#x, %v", flags, err)
		}
	}
}

// Whoever may not use bpf(2) is told so.
func TestRefused(t *testing.T) {
	const mark = "TCPMUXD_TEST_REFUSED"
	if os.Getenv(mark) != "" {
		runtime.LockOSThread()
		var none [2]unix.CapUserData
		if err := unix.Capset(&unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}, &none[0]); err != nil {
			t.Fatal(err)
		}
		if _, err := ProgLoad(unix.BPF_PROG_TYPE_KPROBE, keepAll, "GPL", "test"); !errors.Is(err, unix.EPERM) {
			t.Errorf("loading without capabilities: %v, want EPERM", err)
		}
		return
	}
	cmd := exec.Command(os.Args[0], "-test.run=^TestRefused$")
	cmd.Env = append(os.Environ(), mark+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}

func FuzzMessage(f *testing.F) {
	name := make([]byte, nameSize)
	writeName(name, netip.MustParseAddrPort("[fe80::1]:69"), 3, true)
	control := make([]byte, controlSize)
	f.Add(name, control[:writeControl(control, netip.MustParseAddr("fe80::2"), 3, true)])
	f.Add(name[:16], make([]byte, 32))
	control = make([]byte, controlSize)
	f.Add([]byte{2, 0}, control[:writeControl(control, netip.MustParseAddr("127.0.0.1"), 1, false)])
	f.Fuzz(func(t *testing.T, name, control []byte) {
		peer, _ := parseName(name)
		if peer.Addr().Is4In6() {
			t.Errorf("peer %v is v4-mapped", peer)
		}
		var m Message
		// As the kernel's: aligned, and no longer than the buffer.
		aligned := make([]byte, min(len(control), controlSize), controlSize)
		copy(aligned, control)
		m.parseControl(aligned)
		if m.To.Is4In6() || m.Local.Is4In6() {
			t.Errorf("to %v, local %v", m.To, m.Local)
		}
	})
}
