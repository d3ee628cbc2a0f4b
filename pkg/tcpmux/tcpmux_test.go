package tcpmux

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"
)

// slowScan is Scan as the rules read, without a thought for speed: it asks for
// every prefix in turn whether it decides, and the first that does counts.
func slowScan(b []byte) (name string, n int, st State) {
	for n := range len(b) + 1 {
		p := b[:n]
		if m := slowLine.FindSubmatch(p); m != nil {
			return string(m[1]), n, Line
		}
		if slowMore.Match(p) {
			continue
		}
		if n > MaxName && slowName.Match(p[:MaxName]) && p[MaxName] != '\r' {
			return "", 0, TooLong
		}
		return "", 0, BadByte
	}
	return "", 0, More
}

var (
	slowLine = regexp.MustCompile(`^([\x20-\x7e]{0,256})\r?\n$`)
	slowMore = regexp.MustCompile(`^[\x20-\x7e]{0,256}\r?$`)
	slowName = regexp.MustCompile(`^[\x20-\x7e]*$`)
)

func TestScan(t *testing.T) {
	long := strings.Repeat("n", MaxName)
	tests := []struct {
		desc, in string
		name     string
		n        int
		st       State
	}{
		{"NUL ends nothing", "date\x00\r\n", "", 0, BadByte},
		{"control byte", "da\x1bte\r\n", "", 0, BadByte},
		{"tab", "date\t\r\n", "", 0, BadByte},
		{"DEL", "date\x7f\r\n", "", 0, BadByte},
		{"high byte", "d\xc3\xa4te\r\n", "", 0, BadByte},
		{"CR inside", "da\rte\r\n", "", 0, BadByte},
		{"CR CR LF", "date\r\r\n", "", 0, BadByte},
		{"CR first", "\rdate\r\n", "", 0, BadByte},
		{"too long", long + "n", "", 0, TooLong},
		{"too long, then a line end", long + "n\r\n", "", 0, TooLong},
		{"bad byte where it is too long", long + "\x00", "", 0, TooLong},
		{"longest name, CR inside", long + "\rn", "", 0, BadByte},
		{"nothing", "", "", 0, More},
		{"partial", "dat", "", 0, More},
		{"longest name, no terminator", long, "", 0, More},
		{"longest name, half a terminator", long + "\r", "", 0, More},
		{"only CR", "\r", "", 0, More},
		{"empty line", "\r\n", "", 2, Line},
		{"empty line, LF", "\n", "", 1, Line},
		{"CRLF", "date\r\n", "date", 6, Line},
		{"bare LF", "date\n", "date", 5, Line},
		{"as written", " DaTe ~\r\n", " DaTe ~", 9, Line},
		{"longest", long + "\r\n", long, MaxLine, Line},
		{"longest, bare LF", long + "\n", long, MaxLine - 1, Line},
		{"pipelined", "date\r\nGET /\r\n", "date", 6, Line},
		{"pipelined garbage", "date\n\x00\xff\r", "date", 5, Line},
		{"two lines", "\n\n", "", 1, Line},
	}
	for _, tt := range tests {
		t.Run(tt.desc, func(t *testing.T) {
			name, n, st := Scan([]byte(tt.in))
			if string(name) != tt.name || n != tt.n || st != tt.st {
				t.Errorf("Scan(%q) = %q, %d, %v; want %q, %d, %v", tt.in, name, n, st, tt.name, tt.n, tt.st)
			}
			checkScan(t, []byte(tt.in))
		})
	}
}

// checkScan checks what holds for every input.
func checkScan(t *testing.T, in []byte) {
	t.Helper()
	b := bytes.Clone(in)
	name, n, st := Scan(b)
	if !bytes.Equal(b, in) {
		t.Fatalf("Scan(%q) changed its input to %q", in, b)
	}
	if wname, wn, wst := slowScan(in); string(name) != wname || n != wn || st != wst {
		t.Fatalf("Scan(%q) = %q, %d, %v; slowScan says %q, %d, %v", in, name, n, st, wname, wn, wst)
	}
	if st == Line {
		term, rest := b[len(name):n], b[n:]
		if got := string(name) + string(term) + string(rest); got != string(in) {
			t.Fatalf("Scan(%q): name, terminator and rest are %q", in, got)
		}
		if s := string(term); s != "\r\n" && s != "\n" {
			t.Fatalf("Scan(%q): terminator %q", in, s)
		}
		if n > MaxLine || len(name) > MaxName {
			t.Fatalf("Scan(%q): line of %d bytes, name of %d", in, n, len(name))
		}
		if cap(name) != len(name) {
			t.Fatalf("Scan(%q): an append to the name would write into the terminator", in)
		}
	} else if name != nil || n != 0 {
		t.Fatalf("Scan(%q) = %q, %d with state %v", in, name, n, st)
	}

	// As the bytes come in one by one, nothing else is ever decided; and
	// MaxLine bytes decide.
	for i := range len(in) + 1 {
		iname, in2, ist := Scan(in[:i])
		if ist == More {
			if i >= MaxLine {
				t.Fatalf("Scan(%q) wants more", in[:i])
			}
			continue
		}
		if string(iname) != string(name) || in2 != n || ist != st {
			t.Fatalf("Scan(%q) = %q, %d, %v, but of the whole %q: %q, %d, %v", in[:i], iname, in2, ist, in, name, n, st)
		}
		return
	}
	if st != More {
		t.Fatalf("Scan(%q) = %v, and of the same input %v", in, st, More)
	}
}

func FuzzScan(f *testing.F) {
	for _, s := range []string{
		"", "date\r\n", "date\n", "date\rx", "\r", "\r\n", "HELP\r\nrest", "d\x00\r\n", "\xff\n",
		strings.Repeat("a", 256) + "\r\n", strings.Repeat("a", 257), strings.Repeat("a", 256) + "\r",
		strings.Repeat("a", 256) + "\rb",
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, in []byte) { checkScan(t, in) })
}

// Of every byte it is known whether it can be in a name, and in a reply.
func TestEveryByte(t *testing.T) {
	for c := range 256 {
		want := BadByte
		if c == '\n' || c >= ' ' && c <= '~' {
			want = Line
		}
		in := []byte{'a', byte(c), 'b', '\n'}
		if _, _, st := Scan(in); st != want {
			t.Errorf("Scan(%q) = %v, want %v", in, st, want)
		}
		if c == '\t' || c > 0x7f {
			want = Line
		}
		in[0] = '+'
		if _, _, _, st := ScanReply(in); st != want {
			t.Errorf("ScanReply(%q) = %v, want %v", in, st, want)
		}
	}
}

// FreeBSD, NetBSD and GNU inetd dispatch what has arrived when the stream ends
// (their getline returns the partial name). Here the end of the stream is not
// even an argument: no prefix of a line is a line.
func TestEOFNeverEndsAName(t *testing.T) {
	for _, line := range []string{"date\r\n", "date\n", "\r\n", strings.Repeat("x", MaxName) + "\r\n"} {
		end := strings.IndexAny(line, "\n")
		for i := range end + 1 {
			if _, n, st := Scan([]byte(line[:i])); st != More || n != 0 {
				t.Errorf("Scan(%q) = %d, %v; want more", line[:i], n, st)
			}
		}
	}
}

// In the same three a CR ends the name, and an LF that comes in the next
// segment is the first byte that the service reads.
func TestCRAloneThenLF(t *testing.T) {
	if _, n, st := Scan([]byte("date\r")); st != More || n != 0 {
		t.Fatalf("after the CR: %d, %v; want 0, more", n, st)
	}
	name, n, st := Scan([]byte("date\r\n"))
	if string(name) != "date" || n != 6 || st != Line {
		t.Fatalf("after the LF: %q, %d, %v; want both terminators consumed", name, n, st)
	}
	if _, _, st := Scan([]byte("date\rD")); st != BadByte {
		t.Fatalf("after anything else: %v; want bad byte", st)
	}
}

// All four super-servers lose or misread bytes that a client has pipelined
// behind its name. Whatever has arrived, and however it was cut, the line is
// counted to its terminator and no further.
func TestPipelinedBytesAreNotCounted(t *testing.T) {
	for _, term := range []string{"\r\n", "\n"} {
		for _, data := range []string{"D", "DATA\r\nMORE", "\n", "\r\n", "\x00\xff", "+Go\r\n"} {
			all := "NAME" + term + data
			for cut := range len(all) + 1 {
				name, n, st := Scan([]byte(all[:cut]))
				if cut < 4+len(term) {
					if st != More {
						t.Errorf("Scan(%q) = %v; want more", all[:cut], st)
					}
					continue
				}
				if string(name) != "NAME" || n != 4+len(term) || st != Line {
					t.Errorf("Scan(%q) = %q, %d, %v; want NAME, %d, line", all[:cut], name, n, st, 4+len(term))
				}
			}
		}
	}
}

func TestFold(t *testing.T) {
	var all []byte
	for c := range 256 {
		all = append(all, byte(c))
	}
	got := Fold([]byte("X"), all)
	for i, c := range all {
		want := c
		if c < 0x80 {
			want = []byte(strings.ToLower(string(rune(c))))[0]
		}
		if got[i+1] != want {
			t.Errorf("Fold(%#x) = %#x, want %#x", c, got[i+1], want)
		}
	}
	if got[0] != 'X' {
		t.Errorf("Fold changed dst to %q", got[0])
	}
	b := []byte("DaTe")
	if got := Fold(b[:0], b); string(got) != "date" || string(b) != "date" {
		t.Errorf("Fold in place: %q, %q", got, b)
	}
	if got := Fold(nil, nil); len(got) != 0 {
		t.Errorf("Fold of nothing: %q", got)
	}
}

func TestIsHelp(t *testing.T) {
	for _, s := range []string{"", "hel", "helpp", "help ", " help", "he1p", "h\x45L\x70\x00", "HE\xccP"} {
		if IsHelp([]byte(s)) {
			t.Errorf("IsHelp(%q)", s)
		}
	}
	for i := range 16 {
		b := []byte("help")
		for j := range b {
			if i>>j&1 == 1 {
				b[j] -= 'a' - 'A'
			}
		}
		if !IsHelp(b) {
			t.Errorf("!IsHelp(%q)", b)
		}
	}
}

func TestAppendHelp(t *testing.T) {
	if got := AppendHelp(nil, nil); len(got) != 0 {
		t.Errorf("no names: %q", got)
	}
	got := AppendHelp([]byte("x"), []string{"date", "git", "ssh"})
	if want := "xdate\r\ngit\r\nssh\r\n"; string(got) != want {
		t.Errorf("AppendHelp = %q, want %q", got, want)
	}
}

func TestValidName(t *testing.T) {
	tests := []struct {
		name string
		err  string // part of it; empty: valid
	}{
		{"", "empty"},
		{strings.Repeat("n", MaxName+1), "257 bytes, more than 256"},
		{"da\x00te", `bad character '\x00' at byte 3`},
		{"date\r", `bad character '\r' at byte 5`},
		{"\tdate", `bad character '\t' at byte 1`},
		{"dät", "bad character"},
		{" date", "blank"},
		{"date ", "blank"},
		{" ", "blank"},
		{"+date", "begins a reply"},
		{"-", "begins a reply"},
		{"help", "reserved"},
		{"HeLp", "reserved"},
		{"date", ""},
		{"DATE", ""},
		{"helper", ""},
		{"two words", ""},
		{"com.example/a+b-c~1", ""},
		{"!", ""},
		{strings.Repeat("n", MaxName), ""},
	}
	for _, tt := range tests {
		err := ValidName(tt.name)
		if tt.err == "" {
			if err != nil {
				t.Errorf("ValidName(%q) = %v", tt.name, err)
			}
			continue
		}
		if err == nil || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("ValidName(%q) = %v, want %q in it", tt.name, err, tt.err)
		}
	}
}

// A name that a row may have can be asked for, and arrives.
func FuzzValidName(f *testing.F) {
	for _, s := range []string{"date", "Help", "a b", "", "+x", "\x7f", strings.Repeat("z", 256)} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		req, rerr := AppendRequest(nil, s)
		if err := ValidName(s); err != nil {
			return
		}
		if rerr != nil {
			t.Fatalf("%q is valid, but cannot be asked for: %v", s, rerr)
		}
		name, n, st := Scan(req)
		if st != Line || n != len(req) || string(name) != s || IsHelp(name) {
			t.Fatalf("%q arrives as %q, %v", s, name, st)
		}
		list := AppendHelp(nil, []string{s})
		if _, _, _, st := ScanReply(list); st != BadByte {
			t.Fatalf("a HELP list of %q reads as a reply", s)
		}
	})
}

func TestNoAllocations(t *testing.T) {
	line := []byte("Com.Example.Service\r\nrest of the stream")
	long := bytes.Repeat([]byte{'x'}, MaxLine)
	dst := make([]byte, 0, MaxLine)
	reply := []byte(NotAvailable)
	help := []string{"date", "git"}
	for name, f := range map[string]func(){
		"Scan":          func() { Scan(line) },
		"Scan too long": func() { Scan(long) },
		"Fold":          func() { Fold(dst, line) },
		"IsHelp":        func() { IsHelp(line) },
		"AppendHelp":    func() { AppendHelp(dst, help) },
		"AppendRequest": func() { AppendRequest(dst, "date") },
		"ScanReply":     func() { ScanReply(reply) },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestStateString(t *testing.T) {
	got := []string{More.String(), Line.String(), TooLong.String(), BadByte.String(), State(9).String()}
	if want := []string{"more", "line", "too long", "bad byte", "State(9)"}; !slices.Equal(got, want) {
		t.Errorf("states are %q, want %q", got, want)
	}
}

func BenchmarkScan(b *testing.B) {
	for _, bb := range []struct {
		name string
		line []byte
	}{
		{"short", []byte("date\r\n")},
		{"longest", append(bytes.Repeat([]byte{'x'}, MaxName), "\r\n"...)},
		{"pipelined", append([]byte("git\r\n"), make([]byte, 4096)...)},
	} {
		b.Run(bb.name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				Scan(bb.line)
			}
		})
	}
}
