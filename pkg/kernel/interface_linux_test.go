package kernel

import (
	"net"
	"testing"

	"golang.org/x/sys/unix"
)

// TestCameBy: what a machine sends to itself comes by lo, in either family and of
// v4 to a socket of v6 as well. The socket is as before.
func TestCameBy(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		network, listen, dial string
		v6                    bool
	}{
		{"tcp4", "127.0.0.1:0", "127.0.0.1", false},
		{"tcp6", "[::1]:0", "::1", true},
		{"tcp", "[::]:0", "127.0.0.1", true},
		{"tcp", "[::]:0", "::1", true},
	} {
		l, err := net.Listen(test.network, test.listen)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		_, port, _ := net.SplitHostPort(l.Addr().String())
		c, err := net.Dial("tcp", net.JoinHostPort(test.dial, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		got, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer got.Close()
		raw, err := got.(*net.TCPConn).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		raw.Control(func(fd uintptr) {
			for range 2 {
				if index, err := CameBy(int(fd), test.v6); err != nil || index != uint32(lo.Index) {
					t.Errorf("%s to %s: %d, %v, want %d", test.dial, test.listen, index, err, lo.Index)
				}
			}
			level, option := unix.IPPROTO_IP, unix.IP_PKTINFO
			if test.v6 {
				level, option = unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO
			}
			if on, err := unix.GetsockoptInt(int(fd), level, option); err != nil || on != 0 {
				t.Errorf("the option is %d, %v", on, err)
			}
		})
	}
}
