package listener

import (
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func rules(t *testing.T, deny ...string) *access.Rules {
	t.Helper()
	var list []netip.Prefix
	for _, d := range deny {
		list = append(list, netip.MustParsePrefix(d))
	}
	r, err := access.New(nil, list)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// received sends a datagram from 127.0.0.2, then one from 127.0.0.3, then one
// from 127.0.0.1, and says which of them came: loopback keeps their order.
func received(t *testing.T, l *Listener) string {
	t.Helper()
	for _, last := range []byte{2, 3, 1} {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if err := unix.Bind(c, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, last}}); err != nil {
			t.Fatal(err)
		}
		if err := unix.Sendto(c, []byte{'0' + last}, 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(l.Endpoint.Addr.Port())}); err != nil {
			t.Fatal(err)
		}
		unix.Close(c)
	}
	var got string
	for !strings.HasSuffix(got, "1") {
		awaitReadable(t, l)
		b := make([]byte, 10)
		n, _, err := unix.Recvfrom(l.Fd(), b, 0)
		if err != nil {
			t.Fatal(err)
		}
		got += string(b[:n])
	}
	return got
}

// Of a wait row it is the kernel that judges, and reloads change its rules.
func TestAccessOfWaitRows(t *testing.T) {
	testkit.Check(t)
	ep := endpoint(loopback4, testkit.FreePort(t))
	ep.Network = service.UDP4
	every := []*service.Service{
		{Socket: plain(), Wait: true},
		{Socket: plain(), Wait: true, Access: rules(t, "127.0.0.2/32")},
		{Socket: plain(), Wait: true, Access: rules(t, "127.0.0.3/32")},
		{Socket: plain(), Access: rules(t, "127.0.0.3/32")}, // the daemon judges
	}
	want := []string{"231", "31", "21", "231"}
	for first := range every {
		l := openRow(t, ep, every[first])
		if got := received(t, l); got != want[first] {
			t.Errorf("row %d gets %s, want %s", first, got, want[first])
		}
		now := first
		for _, next := range []int{1, 2, 0, 3, 2, 1} {
			if err := l.Retune(every[now], every[next]); err != nil {
				t.Fatal(err)
			}
			if got := received(t, l); got != want[next] {
				t.Errorf("row %d after %d gets %s, want %s", next, now, got, want[next])
			}
			now = next
		}
		// A server cannot take it off.
		if err := unix.SetsockoptInt(l.Fd(), unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != unix.EPERM {
			t.Errorf("taking the filter off: %v, want EPERM", err)
		}
		l.Close()
	}
}

// Hours begin and end while a socket is open; what has a filter has it from the
// start.
func TestHoursOfWaitRows(t *testing.T) {
	testkit.Check(t)
	ep := endpoint(loopback4, testkit.FreePort(t))
	ep.Network = service.UDP4
	at := func(h int) *service.Service { // open at some hours of the day, of now and of another
		now := time.Now().UTC()
		minute := (int(now.Weekday())+6)%7*access.Day + now.Hour()*60
		from := (minute + h*60) % access.Week
		hours := access.NewHours([]access.Span{{From: from, To: from + 6*60}}, time.UTC, "")
		return &service.Service{Socket: plain(), Wait: true, Hours: hours}
	}
	open, closed := at(-1+168), at(12)
	l := openRow(t, ep, open)
	defer l.Close()
	if l.guard.filter == nil {
		t.Fatal("there is no filter before it is needed")
	}
	if got := received(t, l); got != "231" {
		t.Errorf("in its hours it gets %s", got)
	}
	if err := l.Judge(closed); err != nil {
		t.Fatal(err)
	}
	c, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(c)
	if err := unix.Sendto(c, []byte("x"), 0, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}, Port: int(ep.Addr.Port())}); err != nil {
		t.Fatal(err)
	}
	if l.Waiting() {
		t.Error("a datagram waits outside of the hours")
	}
	if err := l.Judge(open); err != nil {
		t.Fatal(err)
	}
	if got := received(t, l); got != "231" {
		t.Errorf("in its hours again it gets %s", got)
	}
}

func TestAccessOfStreamWaitRows(t *testing.T) {
	testkit.Check(t)
	for _, a := range []netip.Addr{loopback4, loopback6} {
		sv := row(plain())
		sv.Wait, sv.Access = true, rules(t, netip.PrefixFrom(a, a.BitLen()).String())
		l := openRow(t, endpoint(a, testkit.FreePort(t)), sv)
		c, err := newSocket(l.Endpoint.Network, false)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(c)
		if err := unix.Connect(c, address(t, l.Endpoint)); err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		open := row(plain())
		open.Wait = true
		// Its first SYN was dropped on the spot.
		if l.Waiting() {
			t.Errorf("%s: a denied peer waits", a)
		}
		if err := l.Retune(sv, open); err != nil {
			t.Fatal(err)
		}
		dial(t, l.Endpoint)
		if !l.Waiting() {
			t.Errorf("%s: nobody waits", a)
		}
	}
}
