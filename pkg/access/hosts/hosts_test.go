package hosts

import (
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// files are what there is to read, by path.
type files map[string]string

func (f files) read(path string) ([]byte, error) {
	text, ok := f[path]
	switch {
	case text == "unreadable":
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrPermission}
	case !ok:
		return nil, &fs.PathError{Op: "open", Path: path, Err: fs.ErrNotExist}
	}
	return []byte(text), nil
}

func both(allow, deny string) *Rules {
	return Read("/etc", files{"/etc/hosts.allow": allow, "/etc/hosts.deny": deny}.read)
}

// ask says what the rules say: "" if the peer is let in.
func ask(r *Rules, daemon, peer, local string) string {
	d, _ := r.For(daemon)
	a, _ := netip.ParseAddr(peer)
	l, _ := netip.ParseAddr(local)
	_, rule := d.Check(a, l)
	return rule
}

// TestCheck: what hosts_access(5) says, line by line.
func TestCheck(t *testing.T) {
	const refused = "hosts.deny:1 ftpd"
	for _, c := range []struct{ allow, deny, peer, want string }{
		{"", "", "192.0.2.1", ""},
		{"", "ALL: ALL", "192.0.2.1", refused},
		{"ALL: ALL", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd: 192.0.2.1", "ALL: ALL", "192.0.2.1", ""},
		{"FTPD: all", "ALL: ALL", "192.0.2.1", ""},
		{"in.ftpd: ALL", "ALL: ALL", "192.0.2.1", refused},
		{"ft*: ALL", "ALL: ALL", "192.0.2.1", ""},
		{"telnetd, ftpd: 192.0.2., 198.51.100.", "ALL: ALL", "198.51.100.7", ""},
		{"ftpd: 192.0.2.", "ALL: ALL", "192.0.20.1", refused},
		{"ftpd: 192.0.2.1.", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: 192.0.2.*", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd: 192.0.?.1", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd: .2.1", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd: *", "ALL: ALL", "2001:db8::1", ""},
		{"ftpd: 192.0.2.0/255.255.254.0", "ALL: ALL", "192.0.3.1", ""},
		{"ftpd: 192.0.2.0/23", "ALL: ALL", "192.0.3.1", ""},
		{"ftpd: 192.0.3.0/23", "ALL: ALL", "192.0.3.1", refused},
		{"", "ftpd: 192.0.3.0/23", "203.0.113.1", refused},
		{"", "ftpd: 192.0.2.0/255.0.255.0", "203.0.113.1", refused},
		{"ftpd: [2001:db8::]/32", "ALL: ALL", "2001:db8:1::1", ""},
		{"ftpd: [2001:db8::1]", "ALL: ALL", "2001:db8::1", ""},
		{"ftpd: [2001:db8::1]:allow", "ALL: ALL", "2001:db8::2", refused},
		{"ftpd: [::ffff:192.0.2.0]/120", "ALL: ALL", "192.0.2.9", ""},
		{"ftpd: 192.0.2.1", "ALL: ALL", "::ffff:192.0.2.1", ""},
		{"ftpd: ALL EXCEPT 192.0.2.", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: ALL EXCEPT 192.0.2. EXCEPT 192.0.2.1", "ALL: ALL", "192.0.2.1", ""},
		{"ALL EXCEPT ftpd: ALL", "ALL: ALL", "192.0.2.1", refused},
		{"", "ALL EXCEPT telnetd: ALL", "192.0.2.1", refused},
		{"ftpd:\\\n ALL", "ALL: ALL", "192.0.2.1", ""},
		{"#ftpd: ALL", "ALL: ALL", "192.0.2.1", refused},
		// Names are open: they do not allow, and they do deny.
		{"ftpd: .example.com", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: ALL EXCEPT evil.example.com", "ALL: ALL", "192.0.2.1", refused},
		{"", "ftpd: .example.com", "192.0.2.1", refused},
		{"", "ftpd: ALL EXCEPT .example.com", "192.0.2.1", refused},
		{"", "ftpd: 198.51.100.0/24 EXCEPT good.example.com", "192.0.2.1", ""},
		{"ftpd: LOCAL", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: KNOWN", "ALL: ALL", "192.0.2.1", refused},
		{"", "ALL: PARANOID", "192.0.2.1", refused},
		{"", "ALL: UNKNOWN", "192.0.2.1", refused},
		{"ftpd: @friends", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: root@192.0.2.1", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd: ALL@192.0.2.1", "ALL: ALL", "192.0.2.1", ""},
		{"", "ftpd: root@198.51.100.1", "192.0.2.1", ""},
		// Where it is asked for.
		{"ftpd@203.0.113.1: ALL", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd@203.0.113.2: ALL", "ALL: ALL", "192.0.2.1", refused},
		{"ftpd@www.example.com: ALL", "ALL: ALL", "192.0.2.1", refused},
		{"ALL EXCEPT ftpd@203.0.113.1: ALL", "ALL: ALL", "192.0.2.1", refused},
		// Options.
		{"", "ftpd: ALL: allow", "192.0.2.1", ""},
		{"ftpd: ALL: deny", "", "192.0.2.1", "hosts.allow:1 ftpd"},
		{"ftpd: ALL: severity auth.info : banners /etc/b : nice 3", "ALL: ALL", "192.0.2.1", ""},
		{"ftpd: ALL: spawn (echo a\\:b) & : allow", "", "192.0.2.1", "hosts.allow:1 ftpd"},
		{"ftpd: ALL: twist /bin/echo no", "", "192.0.2.1", "hosts.allow:1 ftpd"},
		{"ftpd: ALL: (/bin/echo no) &", "", "192.0.2.1", "hosts.allow:1 ftpd"},
		{"ftpd: ALL: allow : nice", "", "192.0.2.1", "hosts.allow:1 ftpd"},
		// What is no rule.
		{"ftpd ALL", "ALL: ALL", "192.0.2.1", refused},
		{"", "ftpd ALL", "192.0.2.1", refused},
		{"", "telnetd x", "192.0.2.1", ""},
		{"", "ftpd:", "192.0.2.1", ""},
		// Whose address is not known.
		{"ftpd: ALL", "ALL: ALL", "", ""},
		{"ftpd: 192.0.2.1", "ALL: ALL", "", refused},
		{"", "ftpd: 192.0.2.1", "", refused},
		// Files that are not there, or cannot be read.
		{"ftpd: /etc/none", "ALL: ALL", "192.0.2.1", refused},
		{"ALL: ALL", "unreadable", "192.0.2.1", refused},
		{"unreadable", "", "192.0.2.1", "hosts.allow:1 ftpd"},
	} {
		if got := ask(both(c.allow, c.deny), "ftpd", c.peer, "203.0.113.1"); got != c.want {
			t.Errorf("%q, %q: %s: %q, want %q", c.allow, c.deny, c.peer, got, c.want)
		}
	}
	if got := ask(Read("/etc", files{}.read), "ftpd", "192.0.2.1", ""); got != "" {
		t.Errorf("without files: %q", got)
	}
}

// TestPatternFiles: words of a file are patterns, and a file may name others, but
// not for ever.
func TestPatternFiles(t *testing.T) {
	f := files{"/etc/hosts.allow": "ALL: /etc/a", "/etc/hosts.deny": "ALL: ALL",
		"/etc/a": "192.0.2.1 198.51.100.\n/etc/b", "/etc/b": "203.0.113.0/24\n/etc/a"}
	r := Read("/etc", f.read)
	for peer, in := range map[string]bool{"192.0.2.1": true, "198.51.100.4": true, "203.0.113.9": true, "192.0.2.2": false} {
		if got := ask(r, "x", peer, ""); (got == "") != in {
			t.Errorf("%s: %q", peer, got)
		}
	}
	a, _ := r.For("x")
	b, _ := Read("/etc", f.read).For("x")
	if !a.Equal(b) {
		t.Error("what was read twice is not the same")
	}
	f["/etc/b"] = ""
	if b, _ = Read("/etc", f.read).For("x"); a.Equal(b) || a.Equal(nil) {
		t.Error("another file is the same")
	}
}

// TestGolden compares the rules and notes for daemons with what they were.
func TestGolden(t *testing.T) {
	rules := Read("testdata", os.ReadFile)
	var b strings.Builder
	for _, name := range []string{"in.ftpd", "in.telnetd", "other"} {
		d, notes := rules.For(name)
		fmt.Fprintf(&b, "%s: needs the local address: %v\n", name, d.NeedsLocal())
		for _, n := range notes {
			fmt.Fprintf(&b, "\t%s:%d: %s\n", n.File, n.Line, n.Text)
		}
		for _, r := range d.rules {
			fmt.Fprintf(&b, "\t%s: allow is %v\n", r.where, r.allow)
		}
		allow, deny, exact := d.Prefixes()
		rules, err := access.NewListed(allow, deny)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(&b, "\tprefixes, exact is %v\n", exact)
		for p, v := range rules.All() {
			fmt.Fprintf(&b, "\t\t%v %v\n", v, p)
		}
	}
	testkit.Compare(t, "testdata/golden.txt", b.String())
}

// naive is hosts_access(5) word by word, on lines that have one daemon and no
// options, for somebody who knows what the peer is called.
func naive(allow, deny []string, peer netip.Addr, name string) bool {
	matches := func(line string) bool {
		_, clients, _ := strings.Cut(line, ":")
		var in func(words []string) bool
		one := func(w string) bool {
			if p, err := netip.ParsePrefix(strings.NewReplacer("[", "", "]", "").Replace(w)); err == nil {
				return p.Contains(peer)
			}
			if strings.HasPrefix(w, ".") {
				return strings.HasSuffix(name, w)
			}
			return w == "ALL" || w == peer.String() || w == name || strings.HasSuffix(w, ".") && strings.HasPrefix(peer.String(), w) ||
				strings.HasSuffix(w, ".*") && strings.HasPrefix(peer.String(), w[:len(w)-1])
		}
		in = func(words []string) bool {
			for i, w := range words {
				if w == "EXCEPT" {
					return false
				}
				if one(w) {
					for k := i; k < len(words); k++ {
						if words[k] == "EXCEPT" {
							return !in(words[k+1:])
						}
					}
					return true
				}
			}
			return false
		}
		return in(strings.Fields(clients))
	}
	for _, l := range allow {
		if matches(l) {
			return true
		}
	}
	for _, l := range deny {
		if matches(l) {
			return false
		}
	}
	return true
}

// TestAgainstNaive: without names both say the same; with them nobody is let in who
// would not be, whatever the peer is called. Prefixes say what Check says.
func TestAgainstNaive(t *testing.T) {
	r := rand.New(rand.NewPCG(6, 6))
	plain := []string{"ALL", "10.0.0.1", "10.", "10.0.0.", "10.0.0.0/24", "10.0.0.0/31", "[2001:db8::]/32", "[2001:db8::1]/128", "0.0.0.0/0", "EXCEPT", "EXCEPT"}
	peers := []string{"10.0.0.1", "10.0.0.0", "10.0.0.2", "10.1.0.1", "11.0.0.1", "2001:db8::1", "2001:db8::2", "2001:db9::1"}
	called := []string{"a.example.com", "b.example.org", "unknown"}
	lines := func(words []string) (list []string) {
		for range r.IntN(4) {
			line := "d:"
			for range 1 + r.IntN(6) {
				line += " " + words[r.IntN(len(words))]
			}
			list = append(list, line)
		}
		return list
	}
	for i := range 6000 {
		words, exact := plain, true
		switch i % 3 {
		case 1:
			words, exact = append([]string{".example.com", "b.example.org"}, plain...), false
		case 2:
			words = append([]string{"10.0.*"}, plain...)
		}
		allow, deny := lines(words), lines(words)
		d, _ := both(strings.Join(allow, "\n"), strings.Join(deny, "\n")).For("d")
		in, out, whole := d.Prefixes()
		prefixes, err := access.NewListed(in, out)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range peers {
			peer := netip.MustParseAddr(p)
			got, _ := d.Check(peer, netip.Addr{})
			for _, name := range called {
				if want := naive(allow, deny, peer, name); got && !want || exact && got != want {
					t.Fatalf("%q, %q: %s called %s: %v, want %v", allow, deny, p, name, got, want)
				}
			}
			if by := prefixes.Lets(peer); by && !got || whole && by != got {
				t.Fatalf("%q, %q: %s: by prefixes %v, by rules %v", allow, deny, p, by, got)
			}
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add("ALL: ALL EXCEPT 10. : allow", "in.ftpd@[::1], b*: /etc/f .x @n u@h KNOWN [2001:db8::]/32 1.2.3.4/255.0.0.0", "10.0.0.1 *", "10.0.0.1")
	f.Add("\\\n: [", "a:b:c\\:d:", "/etc/f", "::ffff:1.2.3.4")
	f.Fuzz(func(t *testing.T, allow, deny, patterns, peer string) {
		rules := Read("/etc", files{"/etc/hosts.allow": allow, "/etc/hosts.deny": deny, "/etc/f": patterns}.read)
		a, _ := netip.ParseAddr(peer)
		for _, name := range []string{"in.ftpd", "b", ""} {
			d, _ := rules.For(name)
			ok, rule := d.Check(a, a)
			if ok != (rule == "") {
				t.Fatalf("%v by %q", ok, rule)
			}
			in, out, exact := d.Prefixes()
			prefixes, err := access.NewListed(in, out)
			if err != nil {
				t.Fatal(err)
			}
			if a.IsValid() && (prefixes.Lets(a) && !ok || exact && prefixes.Lets(a) != ok) {
				t.Fatalf("%v: by prefixes %v, by rules %v", a, !ok, ok)
			}
			// Less known is never more allowed.
			if less, _ := d.Check(netip.Addr{}, netip.Addr{}); less && !ok {
				t.Fatalf("%v is refused by %s, and an unknown address is not", a, rule)
			}
		}
	})
}

func TestReadErrors(t *testing.T) {
	_, notes := Read("/etc", func(string) ([]byte, error) { return nil, errors.New("broken") }).For("x")
	if len(notes) != 2 || !strings.Contains(notes[0].Text, "broken") {
		t.Errorf("%v", notes)
	}
}
