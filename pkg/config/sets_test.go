package config

import (
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

const setsText = "[set.a]\nfile = \"/a\"\n[set.b]\nfile = \"/b\"\n[defaults]\nexec = \"/bin/a\"\nuser = \"root\"\n" +
	"[service.ftp]\naccess.allow = \"@a\"\n[service.ssh]\naccess.deny = \"@b\"\n"

// A setMachine has two files of sets.
type setMachine struct {
	*Options
	files map[string]string
	path  string
}

func newSetMachine(t *testing.T) *setMachine {
	t.Helper()
	m := &setMachine{Options: asRoot(), files: map[string]string{"/a": "10.0.0.1\n", "/b": "10.0.0.2\n"}}
	m.ReadSet = func(path string) ([]byte, error) {
		if text, ok := m.files[path]; ok {
			return []byte(text), nil
		}
		return nil, &os.PathError{Op: "open", Path: path, Err: os.ErrNotExist}
	}
	m.path = filepath.Join(t.TempDir(), "t.toml")
	if err := os.WriteFile(m.path, []byte(setsText), 0o644); err != nil {
		t.Fatal(err)
	}
	return m
}

// verdicts are what the rows say of 10.0.0.1 to 10.0.0.3.
func verdicts(t *testing.T, r *Reading) string {
	t.Helper()
	if r.Err != nil {
		t.Fatal(r.Err)
	}
	var b strings.Builder
	for _, s := range r.Table.Services {
		fmt.Fprint(&b, s.ID, ":")
		for i := byte(1); i <= 3; i++ {
			if s.Access.Lets(netip.AddrFrom4([4]byte{10, 0, 0, i})) {
				fmt.Fprint(&b, i)
			}
		}
		b.WriteString(" ")
	}
	return strings.TrimSpace(b.String())
}

// TestSetFilesChange: a file that is wrong, or gone, leaves its set as it was for
// as long as the table runs, and no other.
func TestSetFilesChange(t *testing.T) {
	m := newSetMachine(t)
	r := Read(TOML(m.path), m.Options)
	if got := r.SetFiles(); !slices.Equal(got, []string{"/a", "/b"}) {
		t.Errorf("the files are %v", got)
	}
	m.VanishedUsers = true
	for _, step := range []struct {
		a, b     string // "-": gone
		want     string
		warnings int
		same     bool
	}{
		{"10.0.0.1\n", "10.0.0.2\n", "ftp:1 ssh:13", 0, true},
		{"10.0.0.3\n", "10.0.0.2\n", "ftp:3 ssh:13", 0, false},
		{"10.0.0.3\n", "10.0.0.2\n", "ftp:3 ssh:13", 0, true},
		{"10.0.0.3\n", "10.0.0.2\nx\n", "ftp:3 ssh:13", 1, false},
		{"10.0.0.1\n", "10.0.0.2\nx\n", "ftp:1 ssh:13", 1, false}, // one that is wrong does not hold the other up
		{"-", "10.0.0.2\nx\n", "ftp:1 ssh:13", 2, false},
		{"-", "-", "ftp:1 ssh:13", 2, false},
		{"", "", "ftp: ssh:123", 0, false},
		{"0.0.0.0/0", "10.0.0.1\n10.0.0.3", "ftp:123 ssh:2", 0, false},
	} {
		for path, text := range map[string]string{"/a": step.a, "/b": step.b} {
			if m.files[path] = text; text == "-" {
				delete(m.files, path)
			}
		}
		next := r.Compile(m.Options)
		if got := verdicts(t, next); got != step.want || len(next.Warnings) != step.warnings || (next == r) != step.same {
			t.Errorf("with %q and %q: %s, warnings %v, the same %v", step.a, step.b, got, next.Warnings, next == r)
		}
		r = next
	}
	// A reload that an administrator asks for is told the truth.
	m.files["/a"] = "x"
	m.VanishedUsers = false
	if again := r.Read(m.Options); again.Err == nil || !strings.Contains(again.Err.Error(), "/a:1:1: [set.a]: file: \"x\" is no address") {
		t.Errorf("read again: %v", again.Err)
	}
}

// TestSetsAgainstALinearScan: whatever sets and prefixes a row has, the most
// specific decides, and of two that are the same the one that denies.
func TestSetsAgainstALinearScan(t *testing.T) {
	rng := rand.New(rand.NewPCG(9, 10))
	addr := func() netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, byte(rng.IntN(64))}) }
	list := func(n int) (ps []netip.Prefix) {
		for range rng.IntN(n) {
			ps = append(ps, netip.PrefixFrom(addr(), 26+rng.IntN(7)).Masked())
		}
		return ps
	}
	for range 300 {
		o := asRoot()
		files := map[string][]netip.Prefix{"/a": list(8), "/d": list(8)}
		o.ReadSet = func(path string) ([]byte, error) {
			var b strings.Builder
			for _, p := range files[path] {
				fmt.Fprintln(&b, p, "#", p)
			}
			return []byte(b.String()), nil
		}
		own := list(4)
		text := "[set.a]\nfile = \"/a\"\n[set.d]\nfile = \"/d\"\n[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\naccess.deny = [\"@d\"]\naccess.allow = [\"@a\""
		for _, p := range own {
			text += fmt.Sprintf(", %q", p)
		}
		sv := must(t, text+"]\n", o)["ftp"]
		for range 100 {
			a := addr()
			best, allowed := -1, false
			for _, p := range append(slices.Clone(files["/a"]), own...) {
				if p.Contains(a) && p.Bits() > best {
					best, allowed = p.Bits(), true
				}
			}
			for _, p := range files["/d"] {
				if p.Contains(a) && p.Bits() >= best {
					best, allowed = p.Bits(), false
				}
			}
			if got := sv.Access.Lets(a); got != allowed {
				t.Fatalf("%v: let in %v\nsets %v\n%s]", a, got, files, text)
			}
		}
	}
}

// TestRowsShareRules: a long list is in memory once, however many rows name it.
func TestRowsShareRules(t *testing.T) {
	var b strings.Builder
	b.WriteString("[set.a]\nfile = \"/etc/tcpmuxd/office\"\n[defaults]\nexec = \"/bin/a\"\nuser = \"root\"\naccess.allow = [\"@a\"]\n")
	for i := range 10 {
		fmt.Fprintf(&b, "[service.\"tcpmux/+a%d\"]\n", i)
	}
	fmt.Fprint(&b, "[service.other]\nlisten = \"99\"\naccess.deny = \"10.0.0.0/8\"\n")
	rows := must(t, b.String(), asRoot())
	for id, sv := range rows {
		if want := rows["tcpmux/+a0"].Access; (sv.Access == want) != (id != "other") {
			t.Errorf("%s: rules of its own: %v", id, sv.Access != want)
		}
	}
}

// TestZones: the machine's own zone, and what stands for it.
func TestZones(t *testing.T) {
	o := asRoot()
	winter, summer := time.Date(2026, 1, 7, 7, 30, 0, 0, time.UTC), time.Date(2026, 7, 1, 6, 30, 0, 0, time.UTC)
	for zone, open := range map[string][2]bool{"": {true, true}, "timezone = \"Europe/Berlin\"": {true, true}, "timezone = \"UTC\"": {false, false}} {
		text := "[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"\naccess.hours = \"wed 08:00-09:00\"\n"
		if zone != "" {
			text += "access." + zone + "\n"
		}
		h := must(t, text, o)["ftp"].Hours
		if got := [2]bool{h.Open(winter), h.Open(summer)}; got != open {
			t.Errorf("%s: %v, want %v", zone, got, open)
		}
	}
	dir := t.TempDir()
	file := filepath.Join(dir, "zone")
	if err := os.WriteFile(file, berlin, 0o644); err != nil {
		t.Fatal(err)
	}
	for tz, want := range map[string]string{"": "UTC", "UTC": "UTC", ":UTC": "UTC", file: "CET", ":" + file: "CET"} {
		t.Setenv("TZ", tz)
		z, err := (&Options{Zone: readZone}).zone("")
		if err != nil {
			t.Errorf("TZ=%s: %v", tz, err)
			continue
		}
		if got, _ := winter.In(z.location).Zone(); got != want {
			t.Errorf("TZ=%s is %s, want %s", tz, got, want)
		}
	}
	t.Setenv("TZ", "No/Where")
	if _, err := readZone(""); err == nil {
		t.Error("there is no such zone")
	}
}

func FuzzHours(f *testing.F) {
	for _, s := range []string{"08:00-18:00", "mon-fri 08:00-18:00", "sat,sun 22:00-06:00", "sun-mon,wed 00:00-24:00", "x", "mon 24:00-24:00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		spans, wrong := parseHours(s)
		if (wrong == "") != (len(spans) > 0) {
			t.Fatalf("%q: %v, %q", s, spans, wrong)
		}
		for _, span := range spans {
			if span.From < 0 || span.From >= access.Week || span.To <= span.From || span.To > span.From+access.Day {
				t.Errorf("%q: %v", s, span)
			}
		}
		if wrong == "" {
			h := access.NewHours(spans, time.UTC, "")
			monday := time.Date(2026, 6, 1, 0, 0, 0, 0, time.UTC)
			if !h.Open(monday.Add(time.Duration(spans[0].From) * time.Minute)) {
				t.Errorf("%q is not open when it begins", s)
			}
		}
	})
}

func FuzzSetFile(f *testing.F) {
	for _, s := range []string{"10.0.0.0/8\n", "# x\n\n2001:db8::1 # y\r\n", "x", "::ffff:1.2.3.4", "1.2.3.4/8\n\x00"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		o := &Options{ReadSet: func(string) ([]byte, error) { return []byte(s), nil }}
		file, err := o.setFile("")
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range file.prefixes {
			if !p.IsValid() || p != p.Masked() || p.Addr().Is4In6() {
				t.Errorf("%q: %v", s, p)
			}
		}
		if _, err := access.NewListed(file.prefixes, nil); err != nil {
			t.Errorf("%q: %v", s, err)
		}
		if lines := strings.Count(s, "\n") + 1; len(file.prefixes)+len(file.wrong) > lines {
			t.Errorf("%q: more than its lines", s)
		}
	})
}
