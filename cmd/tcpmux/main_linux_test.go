package main

import (
	"io"
	"net"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func TestConnectTimesOut(t *testing.T) {
	testkit.Check(t)
	// With its queue full a Linux listener drops every SYN, like a firewall.
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	port := testkit.FreePort(t)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	addr := "127.0.0.1:" + itoa(port)
	c, err := net.Dial("tcp4", addr) // a backlog of 0 has room for one
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	client(t, nil, "-t", "250ms", addr, "x").expect(t, exitTimeout, "", "connecting to "+addr+": timed out")
}

func TestOutputThatCannotBeWritten(t *testing.T) {
	testkit.Check(t)
	for _, args := range [][]string{{"x"}, {}} {
		addr := serve(t, func(c *net.TCPConn) {
			accept(c)
			io.WriteString(c, "data")
		})
		full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
		if err != nil {
			t.Fatal(err)
		}
		cmd := program(t, append([]string{addr}, args...)...)
		cmd.Stdout = full
		cmd.Run()
		full.Close()
		if code := cmd.ProcessState.ExitCode(); code != exitIO {
			t.Errorf("%v: exit code %d, want %d", args, code, exitIO)
		}
	}
}
