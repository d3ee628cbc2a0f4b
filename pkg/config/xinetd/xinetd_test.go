package xinetd

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// corpus has real files, where there are some; see its README.
const corpus = "../../../../shared/corpus/xinetd"

// TestGolden reads testdata/*.conf and compares the rows, the notes and the errors,
// those of Compile among them, with the .txt beside it. Files without ".bad" in
// their names compile.
func TestGolden(t *testing.T) {
	testkit.Golden(t, "testdata/*.conf", func(t *testing.T, name, text string) string {
		f := Parse(name, text)
		_, warnings, err := config.Compile(f, machineOfTests())
		if good := !strings.Contains(name, ".bad"); good != (err == nil) {
			t.Errorf("good: %v, error:\n%v", good, err)
		}
		said := dump(f, warnings, err)
		converted(t, name, f)
		return said
	})
}

// converted checks that the TOML of a file compiles to the same table.
func converted(t *testing.T, name string, f *config.File) {
	t.Helper()
	want, _, err := config.Compile(f, machineOfTests())
	if err != nil {
		return
	}
	left := *f // without what Compile leaves out
	left.Services = nil
	kept := make(map[string]bool)
	for _, s := range want.Services {
		kept[s.ID] = true
	}
	for _, s := range f.Services {
		if kept[s.ID] || s.Unchecked {
			left.Services = append(left.Services, s)
		}
	}
	left.Comments = nil
	var text strings.Builder
	if odd, err := left.Write(&text); err != nil || len(odd) > 0 {
		t.Errorf("%s: writing TOML: %v, %v", name, odd, err)
		return
	}
	if len(want.Services) == 0 {
		return // which TOML has no words for
	}
	g, _ := config.Parse(name+".toml", text.String())
	got, _, err := config.Compile(g, machineOfTests())
	if err != nil {
		t.Errorf("%s: the TOML does not compile: %v\n%s", name, err, text.String())
		return
	}
	if len(got.Services) != len(want.Services) {
		t.Errorf("%s: %d rows, %d in TOML", name, len(want.Services), len(got.Services))
		return
	}
	for i, s := range want.Services {
		if !s.Equal(got.Services[i]) {
			t.Errorf("%s: row %s is another in TOML:\n%s", name, s.ID, text.String())
		}
	}
}

// TestComments: comments stand above what they stood above.
func TestComments(t *testing.T) {
	f := Parse("x", "# top\ndefaults\n{\n# of the defaults\n}\n# of ftp\nservice ftp\n{\n\tsocket_type = stream\n\twait = no\n\tuser = root\n\t# inside\n\tserver = /bin/a\n}\n# end\n")
	var text strings.Builder
	if _, err := f.Write(&text); err != nil {
		t.Fatal(err)
	}
	last := 0
	for _, c := range []string{"# top", "# of the defaults", "# of ftp", "# inside", "[service.ftp]", "# end"} {
		i := strings.Index(text.String(), c)
		if i < last {
			t.Errorf("%s is at %d in\n%s", c, i, text.String())
		}
		last = i
	}
}

// TestIncludes reads testdata/include with everything it includes.
func TestIncludes(t *testing.T) {
	f := Source("testdata/include/main")(config.NewDisk())
	_, warnings, err := config.Compile(f, machineOfTests())
	testkit.Compare(t, "testdata/include.txt", dump(f, warnings, err)+fmt.Sprintln("read", f.Paths))
}

// dump writes everything that there is to say of a File.
func dump(f *config.File, warnings []*config.Problem, err error) string {
	var b strings.Builder
	kinds := make(map[config.Problem]config.Kind)
	for _, n := range f.Notes {
		kinds[*n.Problem] = n.Kind
	}
	for _, w := range warnings {
		kind := "warning"
		if k, ok := kinds[*w]; ok {
			kind = k.String()
		}
		fmt.Fprintf(&b, "%s: %v\n", kind, w)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	write := func(name string, pos config.Pos, v any) {
		fmt.Fprintf(&b, "\n[%s] %v\n", name, pos)
		fields(&b, "", reflect.ValueOf(v).Elem())
	}
	write("server", config.Pos{}, &f.Server)
	write("defaults", f.Defaults.Pos, &f.Defaults)
	for _, s := range f.Services {
		write(s.ID, s.Pos, s)
	}
	return b.String()
}

// fields writes what is written in a table, key by key.
func fields(b *strings.Builder, prefix string, v reflect.Value) {
	for i := range v.NumField() {
		name, f := prefix+v.Type().Field(i).Name, v.Field(i)
		if f.Kind() == reflect.Bool && f.Bool() {
			fmt.Fprintf(b, "%s\n", name)
		}
		if f.Kind() != reflect.Struct {
			continue
		}
		pos := f.FieldByName("Pos")
		value := f.FieldByName("V")
		switch {
		case !pos.IsValid() || name == "Pos":
		case value.IsValid() && pos.Interface().(config.Pos).IsSet():
			place := pos.Interface().(config.Pos)
			fmt.Fprintf(b, "%s = ", name)
			if list, ok := value.Interface().([]config.String); ok {
				for _, s := range list {
					fmt.Fprintf(b, "%q (%d:%d) ", s.V, s.Pos.Line, s.Pos.Col)
				}
			} else {
				fmt.Fprintf(b, "%v ", value)
			}
			fmt.Fprintf(b, "@%d:%d\n", place.Line, place.Col)
		case !value.IsValid() && pos.Interface().(config.Pos).IsSet():
			if vars, ok := f.Interface().(config.Env); ok {
				for _, v := range vars.Vars {
					fmt.Fprintf(b, "Env.%s = %q (%d:%d) @%d:%d\n", v.Name, v.Value.V, v.Value.Pos.Line, v.Value.Pos.Col, v.Pos.Line, v.Pos.Col)
				}
			}
			if k, ok := f.Interface().(config.Keepalive); ok {
				fmt.Fprintf(b, "Keepalive = %v\n", k.On)
				continue
			}
			fields(b, name+".", f)
		}
	}
}

// accounts is a machine whose users and services are all there, but for those that
// are called missing.
type accounts struct{}

var errMissing = errors.New("is not known")

func number(name string) uint32 {
	n := uint32(1000)
	for _, c := range name {
		n = n*31 + uint32(c)
	}
	return 1 + n%60000
}

func (accounts) User(name string) (account.User, error) {
	if name == "missing" {
		return account.User{}, errMissing
	}
	return account.User{Name: name, UID: number(name), GID: number(name), Home: "/", Shell: "/bin/sh"}, nil
}

func (accounts) Group(name string) (uint32, error) {
	if name == "missing" {
		return 0, errMissing
	}
	return number(name), nil
}

func (accounts) Groups(account.User) ([]uint32, error) { return nil, nil }

func (accounts) Port(_, name string) (uint16, error) {
	if name == "missing" {
		return 0, errMissing
	}
	return uint16(number(name)), nil
}

func (accounts) Program(name string) (uint32, error) {
	if name == "missing" {
		return 0, errMissing
	}
	return 300000 + number(name), nil
}

func machineOfTests() *config.Options {
	there := func(string) error { return nil }
	return (&config.Options{
		Accounts: accounts{}, UnprivilegedPort: 1024, Native: true, CPUs: []int{0},
		Program: there, Dir: there, ReadFile: func(string) ([]byte, error) { return []byte("no\r\n"), nil },
		ReadSet:     func(string) ([]byte, error) { return nil, os.ErrNotExist },
		LoadAverage: true, Pressure: true,
		Zone: func(string) ([]byte, error) { // tzfile(5) of UTC
			return []byte("TZif" + strings.Repeat("\x00", 32) + "\x00\x00\x00\x01\x00\x00\x00\x04\x00\x00\x00\x00\x00\x00UTC\x00"), nil
		},
	}).AsRoot()
}

// TestEveryAttribute: every attribute there is stands in a golden file, and in the
// table of the manual.
func TestEveryAttribute(t *testing.T) {
	var all strings.Builder
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		all.Write(text)
	}
	man, err := os.ReadFile("../../../cmd/tcpmuxd/tcpmuxd.toml.5")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(man), ".Sh XINETD.CONF")
	words := strings.Fields(all.String())
	has := func(w string) bool {
		for _, word := range words {
			if word == w {
				return true
			}
		}
		return false
	}
	for _, a := range attributes {
		if !has(a.name) {
			t.Errorf("%s is in no golden file", a.name)
		}
		if !strings.Contains(table, "\n.It Ic "+a.name+"\n") && !strings.Contains(table, "\n.It Ic "+a.name+" ,") && !strings.Contains(table, " , "+a.name) {
			t.Errorf("%s is not in tcpmuxd.toml(5)", a.name)
		}
	}
	for _, w := range append(append([]string{}, types...), flags...) {
		if !has(w) {
			t.Errorf("%s is in no golden file", w)
		}
		if !strings.Contains(table, w) {
			t.Errorf("%s is not in tcpmuxd.toml(5)", w)
		}
	}
}

// TestTwice: a text is read the same every time.
func TestTwice(t *testing.T) {
	text, err := os.ReadFile("testdata/services.conf")
	if err != nil {
		t.Fatal(err)
	}
	f := Parse("x", string(text))
	if g := Parse("x", string(text)); !reflect.DeepEqual(f, g) {
		t.Error("two readings of a text are not the same")
	}
}

// TestCorpus reads real files: each service of theirs is a row or has a note or an
// error, and nothing crashes or takes its time.
func TestCorpus(t *testing.T) {
	folder := corpus
	if dir := os.Getenv("TCPMUXD_CORPUS"); dir != "" {
		folder = filepath.Join(dir, "xinetd")
	}
	files, err := filepath.Glob(folder + "/*")
	if err != nil || len(files) == 0 {
		t.Logf("did not run: %s is not there", folder)
		return
	}
	rows, served, failed := 0, 0, 0
	kinds, reasons := map[string]int{}, map[string]int{}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		f := Parse(filepath.Base(path), string(text))
		for _, n := range f.Notes {
			kinds[n.Kind.String()]++
		}
		table, warnings, err := config.Compile(f, machineOfTests())
		for _, w := range warnings {
			if text, ok := strings.CutSuffix(w.Text, "; this is left out until then"); ok {
				reasons[w.Key+": "+text]++
			}
		}
		if err != nil {
			failed++
			t.Logf("%v", err)
		} else {
			served += len(table.Services)
		}
		rows += len(f.Services)
		accounted(t, path, string(text), f)
		converted(t, path, f)
	}
	t.Logf("%d files, %d rows, %d served, %d files refused; notes %v", len(files), rows, served, failed, kinds)
	for r, n := range reasons {
		t.Logf("%4d left out: %s", n, r)
	}
}

// accounted checks that each service of a text that is not disabled is a row, or that
// something in it has a note or an error.
func accounted(t *testing.T, path, text string, f *config.File) {
	t.Helper()
	said := make(map[int]bool)
	for _, n := range f.Notes {
		said[int(n.Line)] = true
	}
	for _, p := range f.Problems {
		said[int(p.Line)] = true
	}
	for _, s := range f.Services {
		said[int(s.Pos.Line)] = true
	}
	lines := strings.Split(text, "\n")
	for i, l := range lines {
		if words := strings.Fields(l); len(words) != 2 || words[0] != "service" || words[1][0] == '=' {
			continue
		}
		found := false
		for n := i; n < len(lines) && (n == i || strings.TrimSpace(lines[n-1]) != "}"); n++ {
			words := strings.Fields(strings.Replace(lines[n], "=", " = ", 1))
			found = found || said[n+1] || len(words) == 3 && words[0] == "disable" && words[2] == "yes"
		}
		if !found {
			t.Errorf("%s:%d: %q is neither a row nor in the report", path, i+1, l)
		}
	}
}

// TestIs tells files of xinetd from others.
func TestIs(t *testing.T) {
	for text, want := range map[string]bool{
		"": false, "# nothing\n": false, "defaults\n{\n}\n": true, "\n# x\n  service ftp\n{\n": true,
		"includedir /etc/xinetd.d\n": true, "service ftp {\n": false, "service = 1\n": false,
		"ftp stream tcp nowait root /bin/a a\n": false, "[service.a]\n": false, "include = [\"a\"]\n": false,
	} {
		if got := Is(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}

// big is 10 MB of services, of included ones and of one long line.
func big() map[string]string {
	text, err := os.ReadFile("testdata/services.conf")
	if err != nil {
		panic(err)
	}
	const size = 10 << 20
	return map[string]string{
		"services":  strings.Repeat(string(text), size/len(text)),
		"addresses": "service a\n{\nonly_from = " + strings.Repeat("192.0.2.7 2001:db8::/32 10.{1,2} ", size/60) + "\n}\n",
		"many":      "service a\n{\n" + many(size) + "}\n",
		"line":      "service a\n{\nserver_args = " + strings.Repeat("x ", size/2) + "\n}\n",
		"words":     strings.Repeat("x\n", size/2),
		"values":    "service a\n{\n" + strings.Repeat("flags = REUSE x\n", size/16),
		"sets":      "service a\n{\n" + strings.Repeat("passenv += A\nonly_from += 10.0.0.1\n", size/40) + "}\n",
		"open":      strings.Repeat("service a\n{\n", size/12),
	}
}

// many is lines of addresses and variables, no two of which are the same.
func many(size int) string {
	var b strings.Builder
	for i := 0; b.Len() < size; i++ {
		fmt.Fprintf(&b, "only_from += 10.%d.%d.%d\nno_access += 2001:db8::%x\npassenv += A%d\nenv += B%d=\n", i>>16&255, i>>8&255, i&255|1, i, i, i)
	}
	return b.String()
}

// BenchmarkRead is how long 10 MB take.
func BenchmarkRead(b *testing.B) {
	for name, text := range big() {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for b.Loop() {
				Parse("x", text)
			}
		})
	}
}

// TestBig: no text of 10 MB holds the daemon up; the bound is generous, a quadratic
// loop would take minutes.
func TestBig(t *testing.T) {
	if testing.Short() {
		return
	}
	for name, text := range big() {
		begin := time.Now()
		Parse("x", text)
		t.Logf("%s: %v", name, time.Since(begin))
	}
}
