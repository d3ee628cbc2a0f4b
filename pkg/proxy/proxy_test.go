package proxy

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"net/netip"
	"strings"
	"testing"

	"github.com/pires/go-proxyproto"
)

// v2 is a header of version 2 with these fields.
func v2(command, family byte, rest string) string {
	b := append([]byte("\r\n\r\n\x00\r\nQUIT\n"), command, family)
	return string(binary.BigEndian.AppendUint16(b, uint16(len(rest)))) + rest
}

const (
	tcp4 = "\xc0\x00\x02\x07\xc6\x33\x64\x01\x10\x00\x00\x50"
	tcp6 = "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x10\x00\x00\x50"
	map6 = "\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\xff\xff\xc0\x00\x02\x07" + "\x20\x01\x0d\xb8\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01" + "\x10\x00\x00\x50"
)

// headers are those that are taken, and what they say.
var headers = []struct{ name, text, source, destination string }{
	{"TCP4", "PROXY TCP4 192.0.2.7 198.51.100.1 4096 80\r\n", "192.0.2.7:4096", "198.51.100.1:80"},
	{"TCP6", "PROXY TCP6 2001:db8::7 2001:db8::1 4096 80\r\n", "[2001:db8::7]:4096", "[2001:db8::1]:80"},
	{"mapped", "PROXY TCP6 ::ffff:192.0.2.7 ::ffff:198.51.100.1 4096 80\r\n", "192.0.2.7:4096", "198.51.100.1:80"},
	{"longest", "PROXY TCP6 ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n",
		"[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535", "[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535"},
	{"UNKNOWN", "PROXY UNKNOWN\r\n", "", ""},
	{"UNKNOWN with the longest rest", "PROXY UNKNOWN " + strings.Repeat("f", 91) + "\r\n", "", ""},
	{"v2 TCP4", v2(0x21, 0x11, tcp4), "192.0.2.7:4096", "198.51.100.1:80"},
	{"v2 TCP6", v2(0x21, 0x21, tcp6), "[2001:db8::7]:4096", "[2001:db8::1]:80"},
	{"v2 TCP6 mapped", v2(0x21, 0x21, map6), "192.0.2.7:4096", "[2001:db8::1]:80"},
	{"v2 with TLVs", v2(0x21, 0x11, tcp4+"\x04\x00\x03abc"), "192.0.2.7:4096", "198.51.100.1:80"},
	{"v2 with what is no TLV", v2(0x21, 0x11, tcp4+"\x04\xff"), "192.0.2.7:4096", "198.51.100.1:80"},
	{"v2 as long as may be", v2(0x21, 0x11, tcp4+strings.Repeat("x", MaxHeader-28)), "192.0.2.7:4096", "198.51.100.1:80"},
	{"v2 LOCAL", v2(0x20, 0x00, ""), "", ""},
	{"v2 LOCAL with addresses", v2(0x20, 0x11, tcp4), "", ""},
	{"v2 LOCAL with half an address", v2(0x20, 0x11, "abc"), "", ""},
	{"v2 of an unknown family", v2(0x21, 0x00, "whatever"), "", ""},
	{"v2 of a unix socket", v2(0x21, 0x31, strings.Repeat("\x00", 216)), "", ""},
}

func say(ap netip.AddrPort) string {
	if !ap.IsValid() {
		return ""
	}
	return ap.String()
}

// TestHeaders: each is found however much of it there is and whatever comes after.
func TestHeaders(t *testing.T) {
	var r Reader
	for _, h := range headers {
		for n := range len(h.text) {
			if size, s := Scan([]byte(h.text[:n])); s != More || size != 0 {
				t.Errorf("%s: the first %d bytes: %d, state %d", h.name, n, size, s)
			}
		}
		for _, after := range []string{"", "\r\n", "PROXY ", strings.Repeat("x", 600)} {
			if size, s := Scan([]byte(h.text + after)); s != Whole || size != len(h.text) {
				t.Errorf("%s: %d bytes, state %d, and not its %d", h.name, size, s, len(h.text))
			}
		}
		got, err := r.Parse([]byte(h.text))
		if err != nil || say(got.Source) != h.source || say(got.Destination) != h.destination {
			t.Errorf("%s: %v, %v", h.name, got, err)
		}
	}
}

// TestBadBegin: what cannot become a header is known for that at once.
func TestBadBegin(t *testing.T) {
	for _, text := range []string{
		"ssh\r\n", "P ", "PROXYTCP4", "proxy TCP4", "PROXY TCP4\n", "PROXY UNKNOWN " + strings.Repeat("f", 93),
		"\r\n\r\n\x00\r\nQUIT ", "\r\n\r\n\x00\r\nQUIT\n\x11", "\r\n\r\n\x00\r\nQUIT\n\x21\x11\x02\x09", v2(0x21, 0x11, tcp4+strings.Repeat("x", 600)),
	} {
		if size, s := Scan([]byte(text)); s != Bad || size != 0 {
			t.Errorf("%q: %d, state %d", text, size, s)
		}
	}
}

// TestBadContent: a whole header that says nothing that can be meant.
func TestBadContent(t *testing.T) {
	var r Reader
	for _, text := range []string{
		"PROXY \r\n", "PROXY TCP4\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 4096\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 4096 80 \r\n",
		"PROXY TCP4 192.0.2.7 198.51.100.1 4096 65536\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 +1 80\r\n", "PROXY TCP4 192.0.2.7 198.51.100.1 01 80\r\n",
		"PROXY TCP4 2001:db8::7 2001:db8::1 4096 80\r\n", "PROXY TCP6 192.0.2.7 198.51.100.1 4096 80\r\n", "PROXY TCP6 fe80::1%lo 2001:db8::1 4096 80\r\n",
		"PROXY TCP4 192.0.2.007 198.51.100.1 4096 80\r\n", "PROXY TCP4  192.0.2.7 198.51.100.1 4096 80\r\n", "PROXY UDP4 192.0.2.7 198.51.100.1 4096 80\r\n",
		"PROXY TCP4 192.0.2.7\r198.51.100.1 4096 80\r\n",
		v2(0x22, 0x11, tcp4), v2(0x21, 0x11, tcp4[:11]), v2(0x21, 0x21, tcp4), v2(0x21, 0x31, tcp6), v2(0x21, 0x12, tcp4), v2(0x21, 0x22, tcp6),
		v2(0x21, 0x32, strings.Repeat("a", 216)), v2(0x21, 0x13, tcp4), v2(0x21, 0x41, tcp4), v2(0x20, 0x41, ""),
	} {
		if size, s := Scan([]byte(text)); s != Whole || size != len(text) {
			t.Errorf("%q: %d, state %d", text, size, s)
		}
		if h, err := r.Parse([]byte(text)); err == nil {
			t.Errorf("%q is taken for %v", text, h)
		}
	}
}

// TestNew: what is written is read again, and byte by byte what the protocol says.
func TestNew(t *testing.T) {
	var r Reader
	a4, b4 := netip.MustParseAddrPort("192.0.2.7:4096"), netip.MustParseAddrPort("198.51.100.1:80")
	a6, b6 := netip.MustParseAddrPort("[2001:db8::7]:4096"), netip.MustParseAddrPort("[fe80::1%lo]:80")
	for _, c := range []struct {
		version byte
		from    netip.AddrPort
		to      netip.AddrPort
		want    string
	}{
		{1, a4, b4, "PROXY TCP4 192.0.2.7 198.51.100.1 4096 80\r\n"},
		{1, a6, b6, "PROXY TCP6 2001:db8::7 fe80::1 4096 80\r\n"},
		{1, a4, b6, "PROXY TCP6 ::ffff:192.0.2.7 fe80::1 4096 80\r\n"},
		{1, a4, netip.AddrPort{}, "PROXY UNKNOWN\r\n"},
		{1, netip.AddrPort{}, netip.AddrPort{}, "PROXY UNKNOWN\r\n"},
		{2, a4, b4, v2(0x21, 0x11, tcp4)},
		{2, a6, netip.MustParseAddrPort("[2001:db8::1]:80"), v2(0x21, 0x21, tcp6)},
		{2, a4, netip.MustParseAddrPort("[2001:db8::1]:80"), v2(0x21, 0x21, map6)},
		{2, netip.AddrPort{}, b4, v2(0x20, 0x00, "")},
	} {
		b := New(c.version, c.from, c.to)
		if string(b) != c.want {
			t.Errorf("version %d, %v to %v:\n%s, want\n%s", c.version, c.from, c.to, hex.Dump(b), hex.Dump([]byte(c.want)))
		}
		if size, s := Scan(b); s != Whole || size != len(b) {
			t.Errorf("%q: %d, state %d", b, size, s)
		}
		if h, err := r.Parse(b); err != nil || h.Source.IsValid() && h.Source != c.from {
			t.Errorf("%q: %v, %v", b, h, err)
		}
	}
}

// TestScanAllocatesNothing: it is called with every piece of a header that drips.
func TestScanAllocatesNothing(t *testing.T) {
	b := []byte(headers[0].text)
	if n := testing.AllocsPerRun(100, func() { Scan(b) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

// FuzzHeader: nothing panics, no more than MaxHeader bytes are ever asked for,
// more bytes never change what was found, and the library takes as many for the
// header as Scan has.
func FuzzHeader(f *testing.F) {
	for _, h := range headers {
		f.Add([]byte(h.text), 3)
		f.Add([]byte(h.text+"tcpmux/ssh\r\n"), len(h.text)-1)
	}
	f.Add([]byte(v2(0x21, 0x11, tcp4+strings.Repeat("x", 600))), 40)
	f.Fuzz(func(t *testing.T, b []byte, part int) {
		size, s := Scan(b)
		if size < 0 || size > min(len(b), MaxHeader) || (s == Whole) != (size > 0) {
			t.Fatalf("%d of %d bytes, state %d", size, len(b), s)
		}
		if s == More && len(b) >= MaxHeader {
			t.Fatal("more than MaxHeader bytes are wanted")
		}
		part = min(max(part, 0), len(b))
		switch first, state := Scan(b[:part]); {
		case state == Whole && (s != Whole || first != size), state == Bad && s != Bad, state == More && part >= size && size > 0:
			t.Fatalf("the first %d bytes: %d, state %d; all: %d, state %d", part, first, state, size, s)
		}
		if s != Whole {
			return
		}
		var r Reader
		h, err := r.Parse(b[:size])
		if err != nil {
			return
		}
		if h.Source.IsValid() != h.Destination.IsValid() || h.Source.Addr().Is4In6() || h.Source.Addr().Zone() != "" {
			t.Fatalf("%v", h)
		}
		if b[12] == byte(proxyproto.PROXY) && b[13] == 0 {
			return // the library refuses it
		}
		rest := bytes.NewReader(b)
		reader := newByteReader(rest)
		if _, err := proxyproto.Read(reader); err != nil {
			t.Fatalf("alone it is a header, with what comes after: %v", err)
		}
		if taken := len(b) - rest.Len() - reader.Buffered(); taken != size {
			t.Fatalf("the library takes %d bytes, and Scan %d", taken, size)
		}
	})
}

// newByteReader holds all of what is read at once, as a peek would.
func newByteReader(r *bytes.Reader) *bufio.Reader { return bufio.NewReaderSize(r, r.Len()+16) }
