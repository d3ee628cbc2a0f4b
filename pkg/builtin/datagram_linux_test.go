package builtin

import (
	"bytes"
	"errors"
	"net"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

const bound = 10 * time.Second

// socket opens a datagram socket that tells where datagrams were sent to.
func socket(t *testing.T, network, at string) (net.PacketConn, int) {
	t.Helper()
	c, err := net.ListenPacket(network, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(bound))
	raw, err := c.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	fd := -1
	raw.Control(func(n uintptr) {
		fd = int(n)
		switch network {
		case "udp4":
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1)
		case "udp6":
			err = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	return c, fd
}

// serve answers until n datagrams have come.
func serve(t *testing.T, d *Datagrams, fd int, b service.Builtin, v6 bool, n int) {
	t.Helper()
	for end := time.Now().Add(bound); n > 0; {
		got, err := d.Receive(fd)
		if err != nil && err != unix.EAGAIN || time.Now().After(end) {
			t.Fatalf("%d datagrams have not come: %v", n, err)
		}
		for i := range got {
			m := d.Message(i)
			if why := Judge(&m, nil); why != "" {
				t.Fatalf("%v is refused: %s", m.Peer, why)
			}
			d.Answer(b, &m, v6, time.Now)
		}
		if _, err := d.Send(fd); err != nil {
			t.Fatal(err)
		}
		n -= got
	}
}

func TestAnswers(t *testing.T) {
	testkit.Check(t)
	for network, at := range map[string]string{"udp4": "0.0.0.0:0", "udp6": "[::]:0"} {
		t.Run(network, func(t *testing.T) {
			server, fd := socket(t, network, at)
			_, port, _ := net.SplitHostPort(server.LocalAddr().String())
			// Not the address that the kernel would choose.
			to := net.JoinHostPort("127.0.0.5", port)
			if network == "udp6" {
				to = net.JoinHostPort("::1", port)
			}
			client, err := net.Dial(network, to)
			if err != nil {
				t.Fatal(err)
			}
			defer client.Close()
			client.SetDeadline(time.Now().Add(bound))
			d := NewDatagrams()
			for _, question := range [][]byte{[]byte("x"), {}, bytes.Repeat([]byte("y"), 60_000)} {
				client.Write(question)
				serve(t, d, fd, service.BuiltinEcho, network == "udp6", 1)
				// The client is connected: from elsewhere it would get nothing.
				answer := make([]byte, 70_000)
				if n, err := client.Read(answer); err != nil || !bytes.Equal(answer[:n], question) {
					t.Fatalf("the answer to %d bytes has %d, %v", len(question), n, err)
				}
			}
			for range 3 * Batch / 2 {
				client.Write(nil)
			}
			serve(t, d, fd, service.BuiltinChargen, network == "udp6", 3*Batch/2)
			for i := range 3 * Batch / 2 {
				answer := make([]byte, 1000)
				if n, err := client.Read(answer); err != nil || !bytes.Equal(answer[:n], Line(uint(i))) {
					t.Fatalf("answer %d is %q, %v", i, answer[:n], err)
				}
			}
		})
	}
}

func TestAnswersOnUnixSockets(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	server, fd := socket(t, "unixgram", filepath.Join(dir, "server"))
	client, _ := socket(t, "unixgram", filepath.Join(dir, "client"))
	nameless, err := net.Dial("unixgram", filepath.Join(dir, "server"))
	if err != nil {
		t.Fatal(err)
	}
	defer nameless.Close()
	d := NewDatagrams()
	ask := func(answer bool) {
		if err := d.AnswerUnix(fd, service.BuiltinEcho, answer, time.Now); err != nil {
			t.Fatal(err)
		}
	}
	nameless.Write([]byte("nobody to answer to"))
	client.WriteTo([]byte("not now"), server.LocalAddr())
	client.WriteTo([]byte("question"), server.LocalAddr())
	ask(true)
	ask(false)
	ask(true)
	b := make([]byte, 100)
	if n, _, err := client.ReadFrom(b); err != nil || string(b[:n]) != "question" {
		t.Errorf("the answer is %q, %v", b[:n], err)
	}
	if err := d.AnswerUnix(fd, service.BuiltinEcho, true, time.Now); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("without a datagram: %v", err)
	}
}
