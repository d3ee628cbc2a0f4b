package config

import (
	"bytes"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
)

// written is f in TOML.
func writtenOut(t testing.TB, f *File) string {
	t.Helper()
	var b bytes.Buffer
	problems, err := f.Write(&b)
	if err != nil || len(problems) > 0 {
		t.Fatalf("%v, %v", problems, err)
	}
	return b.String()
}

// TestWriteAll writes all good tables out and reads them again: they are the same,
// and so is what is written of them then.
func TestWriteAll(t *testing.T) {
	files, _ := filepath.Glob("testdata/*.good.toml")
	if files == nil {
		t.Fatal("no files")
	}
	for _, path := range append(files, reference) {
		text, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		in := string(text)
		if path == reference {
			in = example.ReplaceAllString(in, "$1")
		}
		o := asRoot()
		if strings.Contains(path, "alice") {
			o = asAlice()
		}
		if strings.Contains(path, "portable") {
			o.Native = false
		}
		f, _ := Parse("t.toml", in)
		table, _, err := Compile(f, o)
		if err != nil {
			t.Errorf("%s: %v", path, err)
			continue
		}
		out := writtenOut(t, f)
		again, _ := Parse("out.toml", out)
		other, _, err := Compile(again, o)
		if err != nil {
			t.Errorf("%s: what is written does not compile: %v\n%s", path, err, out)
			continue
		}
		if !reflect.DeepEqual(other.Server, table.Server) || len(other.Services) != len(table.Services) {
			t.Errorf("%s: %+v with %d rows became %+v with %d", path, table.Server, len(table.Services), other.Server, len(other.Services))
			continue
		}
		for i, s := range table.Services {
			if !s.Equal(other.Services[i]) {
				t.Errorf("%s: row %s is not the same\n%s", path, s.ID, out)
			}
		}
		if twice := writtenOut(t, again); twice != out {
			t.Errorf("%s: written twice:\n%s\n%s", path, out, twice)
		}
	}
}

// TestWriteOdd: strings are any, comments stay where they were.
func TestWriteOdd(t *testing.T) {
	at := Pos{"x", 1, 1}
	f := &File{Comments: []Comment{{0, "# a\x01\xff"}, {0, ""}, {1, ""}, {1, "# b"}, {1, "#c  "}, {2, "# end"}}}
	f.Services = []*Service{
		{ID: "a", Exec: List{[]String{{"/a\"\\\t\n\r\x01\x7f é", at}}, at}},
		{ID: "tcpmux/+a", Env: Env{Pos: at, Vars: []Var{{"A B", at, String{"", at}}}}, Keepalive: Keepalive{Pos: at, On: true}},
	}
	want := `# a??

[service.a]
exec = ["/a\"\\\t\n\r\u0001\u007F é"]

# b
#c
[service."tcpmux/+a"]
keepalive = true
env = { "A B" = "" }

# end
`
	if got := writtenOut(t, f); got != want {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
	f.Services[0].Argv0 = String{"\xff", at}
	var b bytes.Buffer
	problems, err := f.Write(&b)
	if err != nil || len(problems) != 1 || problems[0].Error() != `x:1:1: row "a": argv0: "\xff" is not UTF-8, as all of TOML must be; it is written with ? for what is not` {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestSkipBad: what is wrong with a row costs no other row, and what is wrong with
// the whole is an error all the same.
func TestSkipBad(t *testing.T) {
	parse := func(text string) *File {
		f, _ := Parse("t.toml", text)
		f.SkipBad = true
		return f
	}
	const good = "[service.good]\nlisten = \"1000\"\nexec = \"/bin/a\"\nuser = \"root\"\n"
	for _, tt := range []struct {
		text, rows string
		warnings   []string
	}{
		{good, "good", nil},
		{good + "[service.bad]\nlisten = \"99999\"\nexec = \"a\"\nuser = \"root\"\n", "good", []string{"t.toml:6:10: ", "t.toml:7:8: "}},
		// The second of two is left out. A third that was only wrong beside it is not.
		{good + "[service.two]\nlisten = \"1000\"\nexec = \"/bin/a\"\nuser = \"root\"\n", "good", []string{"t.toml:6:10: "}},
		{good + "[service.x]\nfrob = 1\n", "good", []string{"t.toml:5:10: row \"x\": the row runs", "t.toml:5:10: row \"x\": listen", "t.toml:6:1: "}},
		{"", "", []string{"t.toml:1:1: there is no row"}},
		{"[service.bad]\nlisten = \"99999\"\nexec = \"/bin/a\"\nuser = \"root\"\n", "", []string{"t.toml:1:1: there is no row", "t.toml:2:10: "}},
	} {
		table, warnings, err := Compile(parse(tt.text), asRoot())
		if err != nil {
			t.Errorf("%s\n%v", tt.text, err)
			continue
		}
		var rows []string
		for _, s := range table.Services {
			rows = append(rows, s.ID)
		}
		if got := strings.Join(rows, " "); got != tt.rows || len(warnings) != len(tt.warnings) {
			t.Errorf("%s\nrows %q, warnings %v", tt.text, got, warnings)
			continue
		}
		for i, w := range warnings {
			if !strings.HasPrefix(w.Error(), tt.warnings[i]) {
				t.Errorf("%s\ngot %v, want %s", tt.text, w, tt.warnings[i])
			}
		}
	}
	for _, text := range []string{"[server]\ngrace = \"x\"\n" + good, "[defaults]\nuser = \"nobody-knows\"\n" + good} {
		if _, _, err := Compile(parse(text), asRoot()); err == nil {
			t.Errorf("no error:\n%s", text)
		}
	}
	f := Load("/nonexistent/file")
	f.SkipBad = true
	if _, _, err := Compile(f, asRoot()); err == nil {
		t.Error("no error for a file that is not there")
	}
}
