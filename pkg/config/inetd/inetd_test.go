package inetd

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// accounts know everybody but those whose name begins with "no-".
type accounts struct{}

func (accounts) User(name string) (account.User, error) {
	if strings.HasPrefix(name, "no-") {
		return account.User{}, account.ErrUnknown
	}
	return account.User{Name: name, UID: number(name), GID: number(name), Home: "/", Shell: "/bin/sh"}, nil
}

func (accounts) Group(name string) (uint32, error) {
	if strings.HasPrefix(name, "no-") {
		return 0, account.ErrUnknown
	}
	return number(name), nil
}

func (accounts) Groups(account.User) ([]uint32, error) { return nil, nil }

func (accounts) Port(protocol, name string) (uint16, error) {
	if strings.HasPrefix(name, "no-") || strings.ContainsAny(name, "<>:/") {
		return 0, account.ErrUnknown
	}
	if p, ok := map[string]uint16{"echo": 7, "discard": 9, "daytime": 13, "chargen": 19, "ftp": 21, "ssh": 22, "telnet": 23, "time": 37, "tftp": 69, "finger": 79, "auth": 113}[name]; ok {
		return p, nil
	}
	return uint16(2000 + number(name)%60000), nil
}

func (accounts) Program(name string) (uint32, error) {
	if strings.HasPrefix(name, "no-") {
		return 0, account.ErrUnknown
	}
	return 300000 + number(name), nil
}

func number(name string) (n uint32) {
	for _, c := range name {
		n = n*31 + uint32(c)
	}
	return n%50000 + 1
}

func asRoot() *config.Options {
	o := &config.Options{
		Accounts: accounts{}, UnprivilegedPort: 1024, Native: true,
		Program:  func(string) error { return nil },
		Dir:      func(string) error { return nil },
		ReadFile: func(string) ([]byte, error) { return nil, errors.New("there is none") },
		ReadSet:  func(string) ([]byte, error) { return nil, os.ErrNotExist },
	}
	return o.AsRoot()
}

// converted is the TOML of f.
func converted(t testing.TB, f *config.File) string {
	t.Helper()
	var b bytes.Buffer
	if problems, err := f.Write(&b); err != nil {
		t.Fatal(err)
	} else if len(problems) > 0 {
		fmt.Fprintln(&b, "#", problems)
	}
	return b.String()
}

// report is what there is to say of f, a line each.
func report(f *config.File) string {
	var b strings.Builder
	for _, p := range f.Problems {
		fmt.Fprintln(&b, "refused:", p)
	}
	for _, n := range f.Notes {
		fmt.Fprintf(&b, "%s: %v\n", n.Kind, n.Problem)
	}
	return b.String()
}

// same compiles f and its conversion, and reports what differs between the tables.
func same(t testing.TB, f *config.File, o *config.Options) (table *service.Table, warnings []*config.Problem) {
	t.Helper()
	table, warnings, err := config.Compile(f, o)
	if err != nil {
		t.Fatalf("it does not compile: %v", err)
	}
	text := converted(t, f)
	again, include := config.Parse("converted.toml", text)
	again.SkipBad = true // what was left out is left out again
	if len(include) > 0 || len(again.Problems) > 0 {
		t.Fatalf("the conversion is not read: %v\n%s", again.Problems, text)
	}
	other, _, err := config.Compile(again, o)
	if err != nil {
		t.Fatalf("the conversion does not compile: %v\n%s", err, text)
	}
	if len(other.Services) != len(table.Services) {
		t.Fatalf("%d rows, the conversion has %d\n%s", len(table.Services), len(other.Services), text)
	}
	for i, s := range table.Services {
		if !s.Equal(other.Services[i]) {
			t.Errorf("row %s is not the same\n%+v\n%+v", s.ID, s, other.Services[i])
		}
	}
	return table, warnings
}

// TestGolden reads testdata/DIALECT.NAME.conf, and guess.NAME.conf without being
// told the dialect, and compares the TOML, the report and what Compile says with
// the .txt beside it.
func TestGolden(t *testing.T) {
	testkit.Golden(t, "testdata/*.conf", func(t *testing.T, name, text string) string {
		dialect, _, _ := strings.Cut(name, ".")
		d := Named(dialect)
		if d == nil && dialect != "guess" {
			t.Fatalf("there is no dialect %q", dialect)
		}
		f := Parse(name, text, d)
		_, warnings := same(t, f, asRoot())
		var b strings.Builder
		b.WriteString(converted(t, f) + "\n" + report(f))
		for _, w := range warnings {
			if !strings.Contains(b.String(), w.Error()) && !strings.Contains(b.String(), strings.TrimSuffix(w.Error(), "; this is left out until then")) {
				fmt.Fprintln(&b, "compile:", w)
			}
		}
		return b.String()
	})
}

// corpus is a folder of real files that is not part of the project.
const corpus = "../../../../shared/corpus/inetd"

// TestCorpus reads real files, where there are any: every line that is not a
// comment is a row or in the report, and the conversion is the same table.
func TestCorpus(t *testing.T) {
	folder := corpus
	if dir := os.Getenv("TCPMUXD_CORPUS"); dir != "" {
		folder = filepath.Join(dir, "inetd")
	}
	files, _ := filepath.Glob(filepath.Join(folder, "*"))
	if len(files) == 0 {
		t.Logf("did not run: there is no folder %s", folder)
		return
	}
	rows, served, refused, kinds, guessed := 0, 0, 0, map[string]int{}, map[string]int{}
	reasons := map[string]int{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := Parse(filepath.Base(path), string(text), nil)
		table, warnings := same(t, f, asRoot())
		seen := make(map[int32]bool)
		for _, s := range f.Services {
			seen[s.Pos.Line] = true
		}
		for _, p := range f.Problems {
			seen[p.Line] = true
			reasons[p.Text]++
		}
		for _, n := range f.Notes {
			seen[n.Line] = true
			kinds[n.Kind.String()]++
		}
		for i, line := range strings.Split(string(text), "\n") {
			if line = strings.TrimSpace(line); line != "" && line[0] != '#' && !seen[int32(i+1)] {
				if !strings.HasSuffix(line, ":") { // a default address
					t.Errorf("%s:%d: neither a row nor in the report: %s", path, i+1, line)
				}
			}
		}
		for _, w := range warnings {
			if text, ok := strings.CutSuffix(w.Text, "; this is left out until then"); ok && w.Row != "" {
				reasons[w.Key+" "+text]++
			}
		}
		rows += len(f.Services)
		served += len(table.Services)
		refused += len(f.Problems)
		if len(f.Notes) > 0 {
			_, who, _ := strings.Cut(f.Notes[0].Text, "--dialect=")
			who, _, _ = strings.Cut(who, " ")
			guessed[who]++
		}
	}
	t.Logf("%d files, %d rows, %d served, %d lines refused; notes %v; read as %v", len(files), rows, served, refused, kinds, guessed)
	for r, n := range reasons {
		t.Logf("%4d %s", n, r)
	}
}

// TestLarge: a file of 10 MB is no work. It is not timed here: that it is read in
// a second is for the benchmark to say.
func large() string {
	var b strings.Builder
	for i := 0; b.Len() < 10<<20; i++ {
		fmt.Fprintf(&b, "# service number %d, which is here so that there are comments, too\nsvc%d stream tcp nowait nobody /usr/sbin/tcpd /usr/sbin/in.svcd -l -a %d\n", i, i, i)
	}
	return b.String()
}

func TestLarge(t *testing.T) {
	text := large()
	began := time.Now()
	f := Parse("large", text, nil)
	t.Logf("%d MB, %d rows, %d problems, %v", len(text)>>20, len(f.Services), len(f.Problems), time.Since(began))
	if len(f.Services) != maxRows || len(f.Problems) != 1 {
		t.Errorf("%d rows, %d problems", len(f.Services), len(f.Problems))
	}
}

func BenchmarkParse(b *testing.B) {
	text := large()
	b.SetBytes(int64(len(text)))
	for b.Loop() {
		Parse("large", text, nil)
	}
}

// FuzzParse: no text is too odd, and what becomes a row is the same as TOML.
func FuzzParse(f *testing.F) {
	files, _ := filepath.Glob("testdata/*.conf")
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		for d := range len(dialects) + 1 {
			f.Add(string(text), uint8(d))
		}
	}
	o := asRoot()
	f.Fuzz(func(t *testing.T, text string, d uint8) {
		var dialect *Dialect
		if int(d) < len(dialects) {
			dialect = dialects[d]
		}
		file := Parse("f", text, dialect)
		for _, n := range file.Notes {
			if n.Text == "" || n.Line < 1 || n.Col < 1 {
				t.Errorf("a note without text or place: %v", n.Problem)
			}
		}
		for _, p := range file.Problems {
			if p.Text == "" || p.Line < 1 || p.Col < 1 {
				t.Errorf("a problem without text or place: %v", p)
			}
		}
		var b bytes.Buffer
		if odd, _ := file.Write(&b); len(odd) > 0 {
			return // not the same table
		}
		same(t, file, o)
	})
}
