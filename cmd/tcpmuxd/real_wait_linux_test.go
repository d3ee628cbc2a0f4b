// Real servers that are handed a socket and not a connection: the row waits
// until they have enough of it, and then serves the next peer with a new one.

package main_test

import (
	"bufio"
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// waitRow is a row whose program gets a datagram socket.
func waitRow(id, addr, row string) string {
	return fmt.Sprintf("[service.%s]\nsocket = \"dgram\"\nwait = true\nlisten = [%q]\n%s\n", id, addr, row)
}

// Both servers exit when nobody has asked for a second. The next peer gets a new
// one, twice.
func TestTFTP(t *testing.T) {
	t.Parallel()
	tftp, atftp := find(t, "tftp"), find(t, "atftp")
	for name, server := range map[string]struct {
		row func(t *testing.T, dir string) string
		get func(w way, name, to string) *exec.Cmd
		put func(w way, from, name string) *exec.Cmd
	}{
		"tftpd-hpa": {
			func(t *testing.T, dir string) string {
				return fmt.Sprintf("exec = [%q, \"--timeout\", \"1\", \"--create\", \"--user\", \"nobody\", \"--secure\", %q]\nuser = \"root\"", peer(t, "in.tftpd"), dir)
			},
			func(w way, name, to string) *exec.Cmd {
				return exec.Command(tftp, "-m", "binary", w.host, w.port, "-c", "get", name, to)
			},
			func(w way, from, name string) *exec.Cmd {
				return exec.Command(tftp, "-m", "binary", w.host, w.port, "-c", "put", from, name)
			},
		},
		"atftpd": {
			func(t *testing.T, dir string) string {
				return fmt.Sprintf("exec = [%q, \"--tftpd-timeout\", \"1\", \"--no-multicast\", \"--user\", \"nobody.nogroup\", %q]\nuser = \"root\"", peer(t, "atftpd"), dir)
			},
			func(w way, name, to string) *exec.Cmd {
				return exec.Command(atftp, "--get", "--remote-file", name, "--local-file", to, w.host, w.port)
			},
			func(w way, from, name string) *exec.Cmd {
				return exec.Command(atftp, "--put", "--remote-file", name, "--local-file", from, w.host, w.port)
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir, served := tempDir(t), directory(t, 0o777, tempDir(t), "served")
			direct := local(t)
			d := serve(t, jsonLog+waitRow("tftp", direct, server.row(t, served)))
			w := wayTo("", direct)
			for i := range 2 {
				data := string(someBytes(megabyte/4 + i))
				up, down, name := writeFile(t, dir+"/up", 0o644, data), filepath.Join(dir, fmt.Sprint("down", i)), fmt.Sprint("file", i)
				must(t, server.put(w, up, name))
				must(t, server.get(w, name, down))
				alike(t, fmt.Sprintf("the file by server %d", i+1), readFile(t, down), data)
				// One server does both, unless the machine is so slow that its
				// second of patience is over in between.
				d.waitForN(i+1, "end", "service", "tftp", "status", "0")
				for n := 0; n != len(d.events("start", "service", "tftp")); {
					n = len(d.events("start", "service", "tftp"))
					d.waitForN(n, "end", "service", "tftp", "status", "0")
				}
			}
		})
	}
}

// The messages of talk, protocols/talkd.h: everything is in network order.
type (
	talkAddress struct {
		Family, Port uint16
		IP           [4]byte
		_            [8]byte
	}
	talkRequest struct {
		Version, Type, _, _ uint8
		ID                  uint32
		Address, Control    talkAddress
		PID                 int32
		Caller, Callee      [12]byte
		Terminal            [16]byte
	}
	talkReply struct {
		Version, Type, Answer, _ uint8
		ID                       uint32
		Address                  talkAddress
	}
)

const (
	talkLeaveInvite = iota
	talkLookUp
	talkDelete
)

// askTalk asks a server of talk, of a connection with 4242 as the port of the caller.
func askTalk(t *testing.T, conn net.Conn, kind uint8, id uint32, caller, callee string) (r talkReply) {
	t.Helper()
	here := talkAddress{Family: 2, Port: uint16(conn.LocalAddr().(*net.UDPAddr).Port), IP: [4]byte{127, 0, 0, 1}}
	q := talkRequest{Version: 1, Type: kind, ID: id, Address: talkAddress{2, 4242, here.IP, [8]byte{}}, Control: here, PID: 42}
	copy(q.Caller[:], caller)
	copy(q.Callee[:], callee)
	var b bytes.Buffer
	binary.Write(&b, binary.BigEndian, q)
	answer := make([]byte, 100)
	for deadline := time.Now().Add(bound); ; {
		conn.Write(b.Bytes())
		// As talk(1) does, a client asks again: a datagram that a killed
		// server has taken is lost.
		conn.SetReadDeadline(time.Now().Add(5 * time.Second))
		n, err := conn.Read(answer)
		if err != nil && time.Now().Before(deadline) {
			continue
		}
		if err == nil {
			err = binary.Read(bytes.NewReader(answer[:n]), binary.BigEndian, &r)
		}
		if err != nil || r.Type != kind {
			t.Fatalf("request %d is answered %+v, %v", kind, r, err)
		}
		return r
	}
}

// An invitation that one client leaves another one finds, as both ends of
// talk(1) do it: so it is one server to which both have spoken. When that is
// killed, the next one knows of nothing.
func TestNtalk(t *testing.T) {
	t.Parallel()
	addr := local(t)
	// It would wait for two minutes of silence.
	d := serve(t, jsonLog+waitRow("ntalk", addr, fmt.Sprintf("exec = [%q]\nuser = \"nobody\"\non_stop = \"term\"", peer(t, "in.ntalkd"))))
	conn, err := net.Dial("udp4", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ask := func(kind uint8, id uint32, caller, callee string) talkReply {
		t.Helper()
		return askTalk(t, conn, kind, id, caller, callee)
	}
	const found, notHere = 0, 1
	if r := ask(talkLookUp, 0, "b", "a"); r.Answer != notHere {
		t.Errorf("without an invitation: answer %d, want %d", r.Answer, notHere)
	}
	left := ask(talkLeaveInvite, 0, "a", "b")
	if left.ID == 0 {
		t.Errorf("the invitation is answered %+v", left)
	}
	if r := ask(talkLookUp, 0, "b", "a"); r.Answer != found || r.Address.Port != 4242 {
		t.Errorf("the other one is told %+v, want port 4242", r)
	}
	if r := ask(talkDelete, left.ID, "a", "b"); r.Answer != found {
		t.Errorf("the end of the invitation is answered %d", r.Answer)
	}
	ask(talkLeaveInvite, 0, "a", "b")
	first := d.waitFor("start", "service", "ntalk").number("pid")
	if err := syscall.Kill(first, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended("ntalk", 1, "signal", "SIGTERM")
	if r := ask(talkLookUp, 0, "b", "a"); r.Answer != notHere {
		t.Errorf("a new server answers %d, want %d", r.Answer, notHere)
	}
	second := d.waitForN(2, "start", "service", "ntalk")[1].number("pid")
	if err := syscall.Kill(second, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	d.ended("ntalk", 2, "signal", "SIGTERM")
}

// websockify accepts connections itself, and puts a web socket in front of a
// server that has none: another row here.
func TestWebsockify(t *testing.T) {
	t.Parallel()
	dir := tempDir(t)
	data := string(someBytes(megabyte))
	writeFile(t, dir+"/data.html", 0o644, data)
	web, plain := local(t), local(t)
	d := serve(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
[service.web]
listen = [%q]
wait = true
exec = [%q, "--inetd", "--idle-timeout=1", %q]
[service.plain]
listen = [%[3]q]
exec = [%q, %q]
`, web, find(t, "websockify"), plain, peer(t, "micro-httpd"), dir))
	for i := range 2 {
		got, err := throughWebSocket(t, web, "GET /data.html HTTP/1.0\r\n\r\n")
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := bytes.Cut(got, []byte("\r\n\r\n"))
		alike(t, fmt.Sprintf("the file by server %d", i+1), string(body), data)
		d.waitForN(i+1, "end", "service", "web")
	}
	d.ended("plain", 2, "status", "0")
	d.ended("web", 2)
	// It forks for each connection, and both say what they do on stderr.
	d.waitFor("output", "service", "web", "line", "listener exit due to --idle-timeout 1")
	d.waitFor("output", "service", "web", "descendant", "true")
}

// throughWebSocket sends something in a message of RFC 6455, and returns what
// comes back in messages until the other side closes.
func throughWebSocket(t testing.TB, addr, say string) (heard []byte, err error) {
	t.Helper()
	c := dial(t, "", addr)
	key := base64.StdEncoding.EncodeToString(someBytes(16))
	fmt.Fprintf(c, "GET / HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: %s\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Protocol: binary\r\n\r\n", addr, key)
	r := bufio.NewReader(c)
	answer, err := http.ReadResponse(r, nil)
	if err != nil {
		return nil, err
	}
	if answer.StatusCode != http.StatusSwitchingProtocols {
		return nil, errors.New(answer.Status)
	}
	// The last fragment, binary; masked, and with a mask of zeros.
	c.Write(append([]byte{0x82, 0x80 | byte(len(say)), 0, 0, 0, 0}, say...))
	for {
		var head [2]byte
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return heard, err
		}
		n := uint64(head[1])
		switch n {
		case 126:
			var long uint16
			err = binary.Read(r, binary.BigEndian, &long)
			n = uint64(long)
		case 127:
			err = binary.Read(r, binary.BigEndian, &n)
		}
		if err != nil || n > megabyte {
			return heard, fmt.Errorf("a frame of %d bytes, %v", n, err)
		}
		frame := make([]byte, n)
		if _, err := io.ReadFull(r, frame); err != nil {
			return heard, err
		}
		switch head[0] & 0x0f {
		case 0, 2:
			heard = append(heard, frame...)
		case 8: // close
			return heard, nil
		}
	}
}
