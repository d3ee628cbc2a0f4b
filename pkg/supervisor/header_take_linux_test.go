package supervisor

import (
	"bytes"
	"math/rand/v2"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
)

// TestHeaderIsTakenToTheByte: from a socket the header is taken and nothing else,
// in however many pieces it comes, and nothing of what is no header. What a header
// is has its fuzz target in package proxy.
func TestHeaderIsTakenToTheByte(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	headers := []string{header(1, "192.0.2.7:1"), header(1, "[2001:db8::7]:65535"), header(2, "192.0.2.7:1"), header(2, "[2001:db8::7]:1"),
		"PROXY UNKNOWN\r\n", "PROXY TCP4 x\r\n", "ssh\r\n", ""}
	whole := 0
	for range 5000 {
		b := []byte(headers[random.IntN(len(headers))])
		b = append(b, make([]byte, random.IntN(700))...)
		if len(b) > 0 && random.IntN(2) == 0 {
			b[random.IntN(min(len(b), 120))] ^= 1 << random.IntN(8)
		}
		if takeFrom(t, b, random.IntN(len(b)+1)) {
			whole++
		}
	}
	if whole < 1000 {
		t.Errorf("only %d of them were headers", whole)
	}
}

// takeFrom has b come in two parts, and reports whether it began with a header.
func takeFrom(t *testing.T, b []byte, part int) bool {
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[1])
	w := new(worker)
	sent := 0
	push := func(p []byte) {
		if _, err := unix.Write(pair[0], p); len(p) > 0 && err != nil {
			t.Fatal(err)
		}
		sent += len(p)
	}
	push(b[:part])
	_, more, err := w.readHeader(pair[1], event{})
	if more {
		push(b[part:])
	}
	unix.Close(pair[0])
	if more {
		_, more, err = w.readHeader(pair[1], event{ended: true})
	}
	if more {
		t.Fatalf("more is wanted after the end of %q", b)
	}
	rest := make([]byte, len(b)+1)
	n, _ := take(pair[1], rest)
	rest = rest[:max(n, 0)]
	size, _ := proxy.Scan(b[:sent])
	if err != nil {
		size = 0
	} else if size == 0 {
		t.Fatalf("%q is taken for a header", b)
	}
	if !bytes.Equal(rest, b[size:sent]) {
		t.Fatalf("%q is left of %q, whose header has %d bytes", rest, b[:sent], size)
	}
	return err == nil
}
