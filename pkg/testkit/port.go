// Package testkit helps tests to leave no trace and to stay out of each
// other's way: ports that no other test process takes, and a check that no
// goroutine, descriptor or dead child outlives a test.
//
// It is imported by tests only. It holds no fakes and starts nothing: what a
// test needs of one package stands beside that package.
package testkit

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"syscall"
	"testing"
)

// The range lies under the kernel's own range of ephemeral ports (32768 and up
// unless changed), so that no outgoing connection takes a port between
// FreePort and the test's own bind.
const (
	firstPort = 20000
	lastPort  = 32000
)

// FreePort returns a TCP and UDP port, 20000 to 32000, that nobody listens on
// at any address, IPv4 or IPv6. On Linux the port is kept from all other
// callers of FreePort in the same network namespace until t ends, also from
// those in other processes; nothing is bound to the port itself.
func FreePort(t testing.TB) int {
	t.Helper()
	for range 1000 {
		port := firstPort + rand.IntN(lastPort-firstPort+1)
		unlock, ok := lockPort(port)
		if !ok {
			continue
		}
		if !portIsFree(port) {
			unlock()
			continue
		}
		t.Cleanup(unlock)
		return port
	}
	t.Fatalf("finding a free port: all 1000 tries between %d and %d were taken", firstPort, lastPort)
	return 0
}

// portIsFree binds the wildcard address of both families, one after the other,
// because a socket bound to one of them only would hide from the other. A
// machine without IPv6 has nothing to collide with there.
func portIsFree(port int) bool {
	p := strconv.Itoa(port)
	for _, family := range []string{"4", "6"} {
		l, err := net.Listen("tcp"+family, ":"+p)
		if absent(err) {
			continue
		}
		if err != nil {
			return false
		}
		l.Close()
		c, err := net.ListenPacket("udp"+family, ":"+p)
		if err != nil {
			return false
		}
		c.Close()
	}
	return true
}

func absent(err error) bool {
	return errors.Is(err, syscall.EAFNOSUPPORT) || errors.Is(err, syscall.EADDRNOTAVAIL)
}
