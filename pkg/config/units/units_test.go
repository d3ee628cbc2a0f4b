package units

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/inetd"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/xinetd"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// accounts are those of a made-up machine.
type accounts struct{}

func (accounts) User(name string) (account.User, error) {
	for _, u := range []account.User{
		{Name: "root", Home: "/root", Shell: "/bin/sh"},
		{Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/sh"},
		{Name: "bob", UID: 1001, GID: 1001, Home: "/home/bob", Shell: "/bin/sh"},
	} {
		if u.Name == name {
			return u, nil
		}
	}
	return account.User{}, account.ErrUnknown
}

func (accounts) Group(name string) (uint32, error) {
	if gid, ok := map[string]uint32{"root": 0, "adm": 4, "alice": 1000, "bob": 1001}[name]; ok {
		return gid, nil
	}
	return 0, account.ErrUnknown
}

func (accounts) Groups(u account.User) ([]uint32, error) {
	return map[string][]uint32{"alice": {4, 24, 1000}}[u.Name], nil
}

func (accounts) Port(protocol, name string) (uint16, error) {
	if port, ok := map[string]uint16{"ftp": 21, "tftp": 69, "echo": 7, "tcpmux": 1, "finger": 79, "domain": 53}[name]; ok {
		return port, nil
	}
	return 0, account.ErrUnknown
}

func (accounts) Program(string) (uint32, error) { return 100001, nil }

func machine() *config.Options {
	yes := func(string) error { return nil }
	none := func(string) ([]byte, error) { return nil, os.ErrNotExist }
	o := &config.Options{Accounts: accounts{}, Native: true, LoadAverage: true, Pressure: true, VanishedUsers: true, Program: yes, Dir: yes, ReadFile: none, ReadSet: none}
	o.Zone = func(string) ([]byte, error) { // tzfile(5) of UTC
		head := append([]byte("TZif2"), make([]byte, 39)...)
		head[39], head[43] = 1, 4
		block := append(head, append(make([]byte, 6), "UTC\x00"...)...)
		return append(append(block, block...), "\nUTC0\n"...), nil
	}
	o.ReadFile = func(string) ([]byte, error) { return []byte("A=b\n"), nil }
	o.ReadSet = func(path string) ([]byte, error) {
		switch path {
		case "/etc/hosts.allow":
			return []byte("in.fingerd: 192.0.2.0/24\n"), nil
		case "/etc/hosts.deny":
			return []byte("ALL: ALL\n"), nil
		}
		return nil, os.ErrNotExist
	}
	return o.AsRoot()
}

// read makes a File of a golden file's input.
func read(path, text string) *config.File {
	name := filepath.Base(path)
	switch {
	case strings.HasSuffix(name, ".toml"):
		f, _ := config.Parse(name, text)
		return f
	case strings.HasPrefix(name, "xinetd."):
		return xinetd.Parse(name, text)
	}
	dialect, _, _ := strings.Cut(name, ".")
	return inetd.Parse(name, text, inetd.Named(dialect))
}

func inputs(t *testing.T) []string {
	t.Helper()
	var all []string
	for _, glob := range []string{"testdata/*.toml", "testdata/*.conf"} {
		files, err := filepath.Glob(glob)
		if err != nil || len(files) == 0 {
			t.Fatalf("no files %s: %v", glob, err)
		}
		all = append(all, files...)
	}
	return all
}

// of makes units of a file. Programs that have to be there, for systemd to be content,
// are in a directory made for it, which is PROGRAMS in the files.
func of(t *testing.T, path string) (out *Result, dir string) {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, name := range []string{"$cat", "c at"} {
		if err := os.Symlink("/bin/cat", filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	return Of(read(path, strings.ReplaceAll(string(text), "PROGRAMS", dir)), machine()), dir
}

// TestGolden: units and report of every file.
func TestGolden(t *testing.T) {
	for _, path := range inputs(t) {
		t.Run(filepath.Base(path), func(t *testing.T) {
			out, dir := of(t, path)
			var b strings.Builder
			for _, p := range out.Errors {
				fmt.Fprintln(&b, "error:", p)
			}
			for _, p := range out.Warnings {
				fmt.Fprintln(&b, "warning:", p)
			}
			for _, n := range out.Notes {
				fmt.Fprintf(&b, "%s: %v\n", n.Kind, n.Problem)
			}
			for _, u := range out.Units {
				fmt.Fprintf(&b, "\n# %s\n%s", u.Name, u.Text)
			}
			testkit.Compare(t, path+".txt", strings.ReplaceAll(b.String(), dir, "PROGRAMS"))
		})
	}
}

// TestEveryKey: nothing can be written that units neither have nor a line of the
// report tells about.
func TestEveryKey(t *testing.T) {
	for _, tt := range []struct {
		keys []string
		lost map[string]string
	}{{config.Keys(), lost}, {config.ServerKeys(), serverLost}} {
		for _, key := range tt.keys {
			if _, ok := tt.lost[key]; !ok {
				t.Errorf("%s: nobody says what follows", key)
			}
		}
		for key := range tt.lost {
			if !slices.Contains(tt.keys, key) {
				t.Errorf("%s: there is no such key", key)
			}
		}
	}
}

// TestLists: whom the two lists let in is whom the rules let in.
func TestLists(t *testing.T) {
	prefixes := func(s string) (list []netip.Prefix) {
		for w := range strings.FieldsSeq(s) {
			list = append(list, netip.MustParsePrefix(w))
		}
		return list
	}
	for _, tt := range []struct{ allow, deny, wantAllow, wantDeny string }{
		{"10.0.0.0/8 2001:db8::/32", "", "10.0.0.0/8 2001:db8::/32", "any"},
		{"", "10.0.0.0/8", "", "10.0.0.0/8"},
		{"10.0.0.0/8", "10.0.0.0/10", "10.64.0.0/10 10.128.0.0/9", "any"},
		{"10.0.0.0/8 10.0.0.0/9 10.128.0.0/9", "", "10.0.0.0/8", "any"},
		{"0.0.0.0/0", "192.0.2.1/32", "", "any"},
		{"192.0.2.1/32", "0.0.0.0/0 ::/0", "192.0.2.1/32", "any"},
		{"::/0", "0.0.0.0/0 2001:db8::1/128", "", "any"},
		{"10.1.0.0/16", "10.0.0.0/8 10.1.2.0/24", "", "any"},
	} {
		rules, err := access.New(prefixes(tt.allow), prefixes(tt.deny))
		if err != nil {
			t.Fatal(err)
		}
		allow, deny, any := lists(rules)
		if tt.wantAllow != "" && join(allow) != tt.wantAllow || any != (tt.wantDeny == "any") || !any && join(deny) != tt.wantDeny {
			t.Errorf("%s but not %s: %s; %s %v", tt.allow, tt.deny, join(allow), join(deny), any)
		}
		in := func(list []netip.Prefix, a netip.Addr) bool {
			return slices.ContainsFunc(list, func(p netip.Prefix) bool { return p.Contains(a) })
		}
		for _, p := range prefixes(tt.allow + " " + tt.deny + " 10.0.0.0/8 10.1.2.0/24 10.64.0.0/16 192.0.2.0/24 203.0.113.0/24 2001:db8::/64 2001:db9::/64") {
			for _, a := range []netip.Addr{p.Addr(), p.Addr().Prev(), p.Addr().Next()} {
				if !a.IsValid() {
					continue
				}
				got := in(allow, a) || !any && !in(deny, a)
				if want := rules.Lets(a); got != want {
					t.Errorf("%s but not %s: %v: %v, want %v", tt.allow, tt.deny, a, got, want)
				}
			}
		}
	}
	if allow, deny, any := lists(nil); allow != nil || deny != nil || any {
		t.Error("no rules are some")
	}
}

// TestAllOrNothing: a table in error has no units.
func TestAllOrNothing(t *testing.T) {
	out := Of(read("a.toml", "[service.ftp]\nexec = \"/bin/cat\"\nuser = \"root\"\n[service.b]\nexec = \"cat\"\nuser = \"root\"\nlisten = \"1000\"\n"), machine())
	if len(out.Units) > 0 || len(out.Errors) != 1 || !strings.Contains(out.Errors[0].Text, "relative path") {
		t.Errorf("%d units, errors %v", len(out.Units), out.Errors)
	}
}

// TestEveryRow: a row has units, or a line of the report says that it has none. The
// files are those of the front ends and, where there are any, real ones.
func TestEveryRow(t *testing.T) {
	corpus := os.Getenv("TCPMUXD_CORPUS")
	if corpus == "" {
		corpus = "../../../../shared/corpus"
	}
	rows := 0
	for glob, parse := range map[string]func(name, text string) *config.File{
		"../inetd/testdata/*.conf":  func(name, text string) *config.File { return inetd.Parse(name, text, nil) },
		"../xinetd/testdata/*.conf": xinetd.Parse,
		corpus + "/inetd/*":         func(name, text string) *config.File { return inetd.Parse(name, text, nil) },
		corpus + "/xinetd/*":        xinetd.Parse,
	} {
		files, _ := filepath.Glob(glob)
		for _, path := range files {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			f := parse(filepath.Base(path), string(text))
			out := Of(f, machine())
			if strings.HasSuffix(path, ".bad.conf") && len(out.Units) == 0 && len(out.Errors) > 0 {
				continue // as a whole
			}
			has := make(map[string]bool)
			for _, u := range out.Units {
				has[u.Name] = true
			}
			none := make(map[string]bool)
			for _, n := range out.Notes {
				none[n.Row] = none[n.Row] || strings.HasSuffix(n.Text, "; no units are written for the row")
			}
			for _, p := range out.Errors {
				none[p.Row] = true
			}
			for _, s := range f.Services {
				rows++
				name := escape(s.ID)
				units := has[name+".socket"] && (has[name+".service"] || has[name+"@.service"])
				if units == none[s.ID] {
					t.Errorf("%s: row %q: units %v, none %v", path, s.ID, units, none[s.ID])
				}
			}
		}
	}
	if rows < 100 {
		t.Errorf("only %d rows", rows)
	}
	t.Logf("%d rows", rows)
}
