package supervisor

import (
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// ownNetwork is alone in a network namespace where nothing but lo is up.
func ownNetwork(t *testing.T) bool {
	if !alone(t, &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}) {
		return false
	}
	interfaceIoctl(t, "lo", unix.SIOCSIFFLAGS, func(r *unix.Ifreq) { r.SetUint16(unix.IFF_UP | unix.IFF_RUNNING) })
	return true
}

// addAddress gives lo another address, under a label of its own, and with it the
// whole network that it is in.
func addAddress(t *testing.T, label string, a [4]byte) {
	t.Helper()
	interfaceIoctl(t, label, unix.SIOCSIFADDR, func(r *unix.Ifreq) { r.SetInet4Addr(a[:]) })
}

func interfaceIoctl(t *testing.T, name string, request uint, set func(*unix.Ifreq)) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	r, err := unix.NewIfreq(name)
	if err != nil {
		t.Fatal(err)
	}
	set(r)
	if err := unix.IoctlIfreq(fd, request, r); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
}

// TestAddressComesUp: a row whose address is not there yet is a warning, and
// listens as soon as it is.
func TestAddressComesUp(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	row := at("late", sh("echo late"), on("127.0.0.1", port), on("192.0.2.1", port), on("198.51.100.1", port))
	before := at("before", sh("echo before"), on("203.0.113.1", port))
	s := prepare(t, table(row, before))
	l := s.logs.wait(t, "address is not up", "service=late")
	if !strings.HasPrefix(l.attrs["local"], "192.0.2.1:") {
		t.Errorf("the line is for %q", l.attrs["local"])
	}
	// It comes up after the table was applied and before anybody watches.
	addAddress(t, "lo:3", [4]byte{203, 0, 113, 1})
	s.run()
	within(t, "it listens", func() bool { return s.logs.count("listen", "service=before") > 0 })
	dialTo(t, "203.0.113.1", port).ends("before\n")

	dialTo(t, "127.0.0.1", port).ends("late\n")
	addAddress(t, "lo:1", [4]byte{192, 0, 2, 1})
	within(t, "it listens", func() bool { return s.logs.count("listen", "service=late") == 2 })
	dialTo(t, "192.0.2.1", port).ends("late\n")
	s.reload(row) // keeps it, and tries the other again
	dialTo(t, "192.0.2.1", port).ends("late\n")
	if n := s.logs.count("close", "service=late"); n != 0 {
		t.Errorf("%d sockets were closed", n)
	}
	addAddress(t, "lo:2", [4]byte{198, 51, 100, 1})
	within(t, "it listens", func() bool { return s.logs.count("listen", "service=late") == 3 })
	dialTo(t, "198.51.100.1", port).ends("late\n")
	s.instances(0)
}

// What somebody else has taken when it comes up is tried again.
func TestAddressComesUpTaken(t *testing.T) {
	if !ownNetwork(t) {
		return
	}
	testkit.Check(t)
	port := testkit.FreePort(t)
	free := with(at("other", cat(), on("192.0.2.1", port)), func(sv *service.Service) { sv.Socket.Freebind = true })
	other := serve(t, free)
	s := serve(t, at("late", sh("echo late"), on("192.0.2.1", port)))
	addAddress(t, "lo:1", [4]byte{192, 0, 2, 1})
	s.logs.wait(t, "address is not free", "service=late")
	other.stop()
	addAddress(t, "lo:2", [4]byte{198, 51, 100, 1}) // any change will do
	within(t, "it listens", func() bool { return s.logs.count("listen", "service=late") == 1 })
	dialTo(t, "192.0.2.1", port).ends("late\n")
	s.instances(0)
}
