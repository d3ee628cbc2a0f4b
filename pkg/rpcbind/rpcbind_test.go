package rpcbind

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// A fake is an rpcbind, or a portmapper, that answers each call by a function.
type fake struct {
	versions [2]uint32 // that it speaks
	answer   func(version, proc, program uint32) uint32
	from     chan string // who has connected
}

// serve answers on a listener until the test ends.
func (f *fake) serve(t *testing.T, l net.Listener) {
	f.from = make(chan string, 100)
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.from <- c.RemoteAddr().String()
			go f.talk(c)
		}
	}()
}

func (f *fake) talk(c net.Conn) {
	defer c.Close()
	var room [1 << 10]byte
	for {
		b, err := readRecord(c, room[:])
		if err != nil || len(b) < 48 {
			return
		}
		n := func(i int) uint32 { return binary.BigEndian.Uint32(b[4*i:]) }
		reply := binary.BigEndian.AppendUint32(nil, 0)
		add := func(list ...uint32) {
			for _, v := range list {
				reply = binary.BigEndian.AppendUint32(reply, v)
			}
		}
		add(n(0), msgReply, accepted, authNone, 0)
		if v := n(4); v < f.versions[0] || v > f.versions[1] {
			add(progMismatch, f.versions[0], f.versions[1])
		} else {
			add(0, f.answer(v, n(5), n(10)))
		}
		binary.BigEndian.PutUint32(reply, lastFragment|uint32(len(reply)-4))
		c.Write(reply)
	}
}

func listen(t *testing.T, network, addr string) net.Listener {
	t.Helper()
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func dial(t *testing.T, s Server) (*Conn, error) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	t.Cleanup(cancel)
	c, err := s.Dial(ctx)
	if err == nil {
		t.Cleanup(func() { c.Close() })
	}
	return c, err
}

// TestSocketFirst: its own socket, where there is one, and the loopback interface
// where there is none or nobody listens on it, from a reserved port.
func TestSocketFirst(t *testing.T) {
	yes := func(version, proc, program uint32) uint32 { return 1 }
	near, far := &fake{versions: [2]uint32{2, 4}, answer: yes}, &fake{versions: [2]uint32{2, 4}, answer: yes}
	dir := t.TempDir()
	path := filepath.Join(dir, "rpcbind.sock")
	local := listen(t, "unix", path)
	near.serve(t, local)
	tcp := listen(t, "tcp4", "127.0.0.1:0")
	far.serve(t, tcp)
	s := Server{Sockets: []string{filepath.Join(dir, "none"), path}, Addr: netip.MustParseAddrPort(tcp.Addr().String())}
	ask := func() {
		t.Helper()
		c, err := dial(t, s)
		if err == nil {
			err = c.Set(four)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	ask()
	if len(near.from) != 1 || len(far.from) != 0 {
		t.Errorf("asked at its socket %d times, at its port %d times", len(near.from), len(far.from))
	}
	local.(*net.UnixListener).SetUnlinkOnClose(false)
	local.Close()
	ask()
	if len(far.from) != 1 {
		t.Fatal("not asked at its port while nobody is at its socket")
	}
	from := netip.MustParseAddrPort(<-far.from)
	if reserved := from.Port() < 1024; reserved != (os.Geteuid() == 0) {
		t.Errorf("asked from %v", from)
	}
	tcp.Close()
	if _, err := dial(t, s); err == nil || !strings.Contains(err.Error(), path+": ") || !strings.Contains(err.Error(), "refused") {
		t.Errorf("nobody is there: %v", err)
	}
	os.Remove(path)
	_, err := dial(t, s)
	if err == nil || !strings.Contains(err.Error(), s.Addr.String()+": ") {
		t.Errorf("nothing is there: %v", err)
	}
	if _, again := dial(t, s); again == nil || again.Error() != err.Error() {
		t.Errorf("the same has other words: %v, %v", err, again)
	}
}

// TestVersions: a portmapper is asked in its version, and not about IPv6.
func TestVersions(t *testing.T) {
	for _, versions := range [][2]uint32{{2, 4}, {2, 2}, {3, 4}, {5, 6}, {1, 1}} {
		asked := make(chan uint32, 10)
		f := &fake{versions: versions, answer: func(version, proc, program uint32) uint32 { asked <- version; return 1 }}
		l := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
		f.serve(t, l)
		c, err := dial(t, Server{Sockets: []string{l.Addr().String()}})
		if err != nil {
			t.Fatal(err)
		}
		err = c.Set(four)
		if known := versions[0] <= 3 && versions[1] >= 2; known != (err == nil) {
			t.Fatalf("versions %v: %v", versions, err)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "versions") {
				t.Errorf("versions %v: %v", versions, err)
			}
			continue
		}
		if got, want := <-asked, min(versions[1], 3); got != want || c.Portmapper() != (want == 2) {
			t.Errorf("versions %v: asked in %d, a portmapper: %v", versions, got, c.Portmapper())
		}
		if err := c.Unset(six); c.Portmapper() != errors.Is(err, ErrRefused) {
			t.Errorf("versions %v: IPv6: %v", versions, err)
		}
	}
}

// TestRefused: a no is about one mapping; for taking out it is none.
func TestRefused(t *testing.T) {
	f := &fake{versions: [2]uint32{2, 4}, answer: func(version, proc, program uint32) uint32 {
		if program == four.Program {
			return 0
		}
		return 1
	}}
	l := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
	f.serve(t, l)
	c, err := dial(t, Server{Sockets: []string{l.Addr().String()}})
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Set(four); !errors.Is(err, ErrRefused) {
		t.Errorf("%v", err)
	}
	if err := c.Set(six); err != nil {
		t.Errorf("after a refusal: %v", err)
	}
	if err := c.Unset(four); err != nil {
		t.Errorf("%v", err)
	}
}

// TestSilent: who does not answer is waited for no longer than the deadline, and who
// answers nonsense is found out.
func TestSilent(t *testing.T) {
	for name, say := range map[string]string{"silence": "", "nonsense": "HTTP/1.1 400 Bad Request\r\n\r\n", "a part": "\x80\x00\x00\x1c\x00"} {
		t.Run(name, func(t *testing.T) {
			l := listen(t, "unix", filepath.Join(t.TempDir(), "s"))
			t.Cleanup(func() { l.Close() })
			go func() {
				if c, err := l.Accept(); err == nil {
					io.WriteString(c, say)
					t.Cleanup(func() { c.Close() })
				}
			}()
			ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
			defer cancel()
			c, err := Server{Sockets: []string{l.Addr().String()}}.Dial(ctx)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			if err := c.Set(four); err == nil || errors.Is(err, ErrRefused) {
				t.Errorf("%v", err)
			} else if got := errors.Is(err, os.ErrDeadlineExceeded); got != (name != "nonsense") {
				t.Errorf("%v", err)
			}
		})
	}
}
