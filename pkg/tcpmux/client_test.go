package tcpmux

import (
	"bytes"
	"strings"
	"testing"
)

func TestScanReply(t *testing.T) {
	long := strings.Repeat("t", MaxReply-1)
	tests := []struct {
		desc, in string
		ok       bool
		text     string
		n        int
		st       State
	}{
		{"no sign", "Go\r\n", false, "", 0, BadByte},
		{"empty line", "\r\n", false, "", 0, BadByte},
		{"LF first", "\n", false, "", 0, BadByte},
		{"blank before the sign", " +Go\r\n", false, "", 0, BadByte},
		{"NUL before the sign", "\x00+Go\r\n", false, "", 0, BadByte},
		{"a HELP list", "date\r\ngit\r\n", false, "", 0, BadByte},
		{"an SSH server, not a multiplexer", "SSH-2.0-x\r\n", false, "", 0, BadByte},
		{"NUL in the text", "+G\x00o\r\n", false, "", 0, BadByte},
		{"escape sequence in a yes", "+\x1b[2Jgone\r\n", false, "", 0, BadByte},
		{"escape sequence in a no", "-\x1b[2Jgone\r\n", false, "\x1b[2Jgone", 11, Line},
		{"CR inside a no", "-g\ro\r\r\n", false, "g\ro\r", 7, Line},
		{"longest no, CR at its end", "-" + long + "\r\r\n", false, "", 0, TooLong},
		{"CR inside", "+G\ro\r\n", false, "", 0, BadByte},
		{"CR CR LF", "+Go\r\r\n", false, "", 0, BadByte},
		{"too long", "+" + long + "t", false, "", 0, TooLong},
		{"too long, then a line end", "-" + long + "t\r\n", false, "", 0, TooLong},
		{"nothing", "", false, "", 0, More},
		{"sign", "+", false, "", 0, More},
		{"partial", "-Servi", false, "", 0, More},
		{"half a terminator", "+Go\r", false, "", 0, More},
		{"longest, half a terminator", "+" + long + "\r", false, "", 0, More},
		{"inetd yes", "+Go\r\n", true, "Go", 5, Line},
		{"inetd no", "-Service not available\r\n", false, "Service not available", 24, Line},
		{"xinetd yes, with its NUL", "+Go\r\n\x00", true, "Go", 5, Line},
		{"xinetd no, with its NUL", "-Service name not found\r\n\x00", false, "Service name not found", 25, Line},
		{"sustrik yes", "+\r\n", true, "", 3, Line},
		{"tcpmuxerd yes", "+ connected\n", true, " connected", 12, Line},
		{"no text, bare LF", "-\n", false, "", 2, Line},
		{"tab and UTF-8", "-d\xc3\xa9sol\xc3\xa9\t:(\r\n", false, "d\xc3\xa9sol\xc3\xa9\t:(", 14, Line},
		{"service speaks at once", "+Go\r\nSSH-2.0-x\r\n", true, "Go", 5, Line},
		{"longest", "+" + long + "\r\n", true, long, MaxReply + 2, Line},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			ok, text, n, st := ScanReply([]byte(tt.in))
			if ok != tt.ok || string(text) != tt.text || n != tt.n || st != tt.st {
				t.Errorf("ScanReply(%q) = %v, %q, %d, %v; want %v, %q, %d, %v", tt.in, ok, text, n, st, tt.ok, tt.text, tt.n, tt.st)
			}
			checkScanReply(t, []byte(tt.in))
		})
	}
}

// checkScanReply checks what holds for every input.
func checkScanReply(t *testing.T, in []byte) {
	t.Helper()
	ok, text, n, st := ScanReply(in)
	if st == Line {
		sign, term, rest := in[:1], in[1+len(text):n], in[n:]
		if got := string(sign) + string(text) + string(term) + string(rest); got != string(in) {
			t.Fatalf("ScanReply(%q): the parts are %q", in, got)
		}
		if s := string(term); s != "\r\n" && s != "\n" {
			t.Fatalf("ScanReply(%q): terminator %q", in, s)
		}
		if ok != (sign[0] == '+') || !ok && sign[0] != '-' {
			t.Fatalf("ScanReply(%q) = %v", in, ok)
		}
		if bytes.ContainsAny(text, "\n") || ok && bytes.ContainsAny(text, "\r\x00\x1b\x7f") || n > MaxReply+2 {
			t.Fatalf("ScanReply(%q): text %q, %d bytes", in, text, n)
		}
	} else if ok || text != nil || n != 0 {
		t.Fatalf("ScanReply(%q) = %v, %q, %d with state %v", in, ok, text, n, st)
	}
	for i := range len(in) + 1 {
		iok, itext, in2, ist := ScanReply(in[:i])
		if ist == More {
			if i >= MaxReply+2 {
				t.Fatalf("ScanReply(%q) wants more", in[:i])
			}
			continue
		}
		if iok != ok || string(itext) != string(text) || in2 != n || ist != st {
			t.Fatalf("ScanReply(%q) = %v, %q, %d, %v, but of the whole %q: %v, %q, %d, %v",
				in[:i], iok, itext, in2, ist, in, ok, text, n, st)
		}
		return
	}
	if st != More {
		t.Fatalf("ScanReply(%q) = %v, and of the same input %v", in, st, More)
	}
}

func FuzzScanReply(f *testing.F) {
	for _, s := range []string{
		"", Go, NotAvailable, "+", "-\n", "+Go\r", "+Go\rx", "+Go\r\n\x00", "date\r\n",
		"+" + strings.Repeat("t", MaxReply), "-" + strings.Repeat("t", MaxReply-1) + "\r\n",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkScanReply(t, in) })
}

// xinetd sends a NUL behind its replies (it writes the sizeof of the literal).
// Every reply of ours is one whole line that our own client understands.
func TestRepliesAreLines(t *testing.T) {
	for _, r := range []string{Go, NotAvailable, NameTooLong, BadName, TimedOut, Busy, Crowded} {
		ok, text, n, st := ScanReply([]byte(r))
		if st != Line || n != len(r) || ok != (r == Go) || len(text) == 0 || !strings.HasSuffix(r, "\r\n") {
			t.Errorf("%q reads as %v, %q, %d, %v", r, ok, text, n, st)
		}
	}
	// Clients match these two byte by byte.
	if Go != "+Go\r\n" || NotAvailable != "-Service not available\r\n" {
		t.Errorf("wire strings are %q and %q", Go, NotAvailable)
	}
}

func TestAppendRequest(t *testing.T) {
	for _, name := range []string{"", "a\r\nb", "a\nb", "a\x00", "é", strings.Repeat("n", MaxName+1)} {
		dst := []byte("keep")
		got, err := AppendRequest(dst, name)
		if err == nil || string(got) != "keep" {
			t.Errorf("AppendRequest(%q) = %q, %v", name, got, err)
		}
	}
	for _, name := range []string{"date", "HELP", " x ", "+x", strings.Repeat("n", MaxName)} {
		got, err := AppendRequest([]byte("keep"), name)
		if want := "keep" + name + "\r\n"; err != nil || string(got) != want {
			t.Errorf("AppendRequest(%q) = %q, %v; want %q", name, got, err, want)
		}
	}
}

func BenchmarkScanReply(b *testing.B) {
	line := []byte(NotAvailable)
	b.ReportAllocs()
	for b.Loop() {
		ScanReply(line)
	}
}
