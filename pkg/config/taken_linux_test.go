package config

import (
	"fmt"
	"net/netip"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// TestTakenAsTheKernel asks the kernel about every pair of listeners, and
// Compile must say the same.
func TestTakenAsTheKernel(t *testing.T) {
	for name, kind := range map[string]int{"stream": syscall.SOCK_STREAM, "dgram": syscall.SOCK_DGRAM} {
		t.Run(name, func(t *testing.T) { takenAsTheKernel(t, name, kind) })
	}
}

func takenAsTheKernel(t *testing.T, style string, kind int) {
	addrs := []string{"0.0.0.0", "127.0.0.1", "127.0.0.2", "[::]", "[::1]"}
	type side struct {
		addr  string
		reuse bool
		dev   string
	}
	var sides []side
	for _, a := range addrs {
		for _, r := range []bool{false, true} {
			for _, d := range []string{"", "lo"} {
				sides = append(sides, side{a, r, d})
			}
		}
	}
	port := testkit.FreePort(t)
	listen := func(s side) (int, error) {
		at := netip.MustParseAddrPort(fmt.Sprintf("%s:%d", s.addr, port))
		family, sa := syscall.AF_INET6, syscall.Sockaddr(&syscall.SockaddrInet6{Port: port, Addr: at.Addr().As16()})
		if at.Addr().Is4() {
			family, sa = syscall.AF_INET, &syscall.SockaddrInet4{Port: port, Addr: at.Addr().As4()}
		}
		fd, err := syscall.Socket(family, kind|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		set := func(level, opt int) {
			if err := syscall.SetsockoptInt(fd, level, opt, 1); err != nil {
				t.Fatal(err)
			}
		}
		if kind == syscall.SOCK_STREAM {
			set(syscall.SOL_SOCKET, syscall.SO_REUSEADDR)
		}
		if family == syscall.AF_INET6 {
			set(syscall.IPPROTO_IPV6, syscall.IPV6_V6ONLY)
		}
		if s.reuse {
			set(syscall.SOL_SOCKET, 15) // SO_REUSEPORT
		}
		if s.dev != "" {
			if err := syscall.SetsockoptString(fd, syscall.SOL_SOCKET, syscall.SO_BINDTODEVICE, s.dev); err != nil {
				t.Fatal(err)
			}
		}
		if err = syscall.Bind(fd, sa); err == nil && kind == syscall.SOCK_STREAM {
			err = syscall.Listen(fd, 1)
		}
		if err != nil {
			syscall.Close(fd)
			return -1, err
		}
		return fd, nil
	}
	row := func(id string, s side) string {
		text := fmt.Sprintf("[service.%s]\nexec = \"/bin/a\"\nuser = \"root\"\nlisten = \"%s:%d\"\nreuseport = %v\nsocket = %q\nwait = true\n", id, s.addr, port, s.reuse, style)
		if s.dev != "" {
			text += fmt.Sprintf("bind_to_device = %q\n", s.dev)
		}
		return text
	}
	for _, a := range sides {
		first, err := listen(a)
		if err != nil {
			t.Fatalf("%+v: %v", a, err)
		}
		for _, b := range sides {
			second, kernel := listen(b)
			if kernel == nil {
				syscall.Close(second)
			} else if kernel != syscall.EADDRINUSE {
				t.Fatalf("%+v: %v", b, kernel)
			}
			_, _, err := compile(t, row("a", a)+row("b", b), asRoot())
			if err != nil && !strings.Contains(err.Error(), "is taken") {
				t.Fatal(err)
			}
			if (err == nil) != (kernel == nil) {
				t.Errorf("%+v then %+v: the kernel says %v, Compile %v", a, b, kernel, err)
			}
		}
		syscall.Close(first)
	}
}
