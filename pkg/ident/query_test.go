package ident

import (
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func TestParse(t *testing.T) {
	for line, want := range map[string]struct {
		q  Query
		ok bool
	}{
		"6193, 23":            {Query{6193, 23}, true}, // RFC 1413, section 5
		"6193,23":             {Query{6193, 23}, true},
		" \t6193\t , 23 \r\n": {Query{6193, 23}, true},
		"00001,65535":         {Query{1, 65535}, true},
		"0, 23":               {Query{0, 23}, false},
		"6193, 0":             {Query{6193, 0}, false},
		"65536, 23":           {Query{65536, 23}, false},
		"6193, 65536":         {Query{6193, 65536}, false},
		"99999, 99999":        {Query{99999, 99999}, false},
		"100000, 23":          {},
		"-1, 23":              {},
		"+1, 23":              {},
		"6193.0, 23":          {},
		"0x10, 23":            {},
		"6193 23":             {},
		"6193":                {},
		"6193, 23, 5":         {},
		"61 93, 23":           {},
		",":                   {},
		"":                    {},
		"6193, 23\x00":        {},
		"６, 23":               {},
	} {
		if q, ok := Parse([]byte(line)); q != want.q || ok != want.ok {
			t.Errorf("%q is %+v, %v; want %+v, %v", line, q, ok, want.q, want.ok)
		}
	}
}

func TestReplies(t *testing.T) {
	q := Query{6193, 23}
	for _, test := range []struct{ got, want string }{
		{q.User("UNIX", "stjohns"), "6193, 23 : USERID : UNIX : stjohns\r\n"}, // RFC 1413, section 5
		{q.Error(NoUser), "6193, 23 : ERROR : NO-USER\r\n"},
		{TimedOut, "0, 0 : ERROR : UNKNOWN-ERROR\r\n"},
		{q.User("UNIX", "a\r\nb"), "6193, 23 : ERROR : UNKNOWN-ERROR\r\n"},
		{q.User("UNIX", ""), "6193, 23 : ERROR : UNKNOWN-ERROR\r\n"},
		{q.User("UNIX", strings.Repeat("x", MaxID+1)), "6193, 23 : ERROR : UNKNOWN-ERROR\r\n"},
	} {
		if test.got != test.want {
			t.Errorf("%q, want %q", test.got, test.want)
		}
	}
}

// What needs no look-up, and by default nothing does.
func TestTold(t *testing.T) {
	q := Query{6193, 23}
	for _, test := range []struct {
		s    service.Ident
		want string
	}{
		{service.Ident{}, "6193, 23 : ERROR : HIDDEN-USER\r\n"},
		{service.Ident{OS: "UNIX", Fallback: "nobody"}, "6193, 23 : USERID : UNIX : nobody\r\n"},
		{service.Ident{Reply: service.IdentName}, ""},
		{service.Ident{Reply: service.IdentUID, Fallback: "nobody"}, ""},
	} {
		if got := Told(&test.s, q); got != test.want {
			t.Errorf("%+v: %q, want %q", test.s, got, test.want)
		}
	}
	random := service.Ident{Reply: service.IdentRandom, OS: "OTHER"}
	a, b := Told(&random, q), Told(&random, q)
	if want := "6193, 23 : USERID : OTHER : "; !strings.HasPrefix(a, want) || len(a) != len(want)+len("c0c993\r\n") || a == b {
		t.Errorf("%q and %q", a, b)
	}
}

func FuzzParse(f *testing.F) {
	for _, s := range []string{"6193, 23", "0,65536\r\n", "1 , 2, 3", "", ",", "99999,99999", "\x00,\xff", "6193, 23 : USERID : UNIX : x"} {
		f.Add([]byte(s), s)
	}
	f.Fuzz(func(t *testing.T, line []byte, id string) {
		q, ok := Parse(line)
		if q.Server > 99999 || q.Client > 99999 || ok && (!isPort(q.Server) || !isPort(q.Client)) {
			t.Fatalf("%q is %+v, %v", line, q, ok)
		}
		if again, ok2 := Parse([]byte(q.Error("")[:strings.Index(q.Error(""), " :")])); again != q || ok2 != ok && ok {
			t.Fatalf("%+v comes back as %+v, %v", q, again, ok2)
		}
		for _, reply := range []string{q.Error(InvalidPort), q.User("UNIX", id)} {
			if len(reply) > 1000 || // which is as long as clients read
				strings.IndexAny(reply, "\r\n\x00") != len(reply)-2 || strings.Count(reply, ":") > 3 {
				t.Fatalf("the reply to %q, of %q, is %q", line, id, reply)
			}
		}
	})
}
