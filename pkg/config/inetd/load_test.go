package inetd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// files makes files in a directory and returns it.
func files(t *testing.T, list map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range list {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func rowsOf(f *config.File) string {
	var ids []string
	for _, s := range f.Services {
		id := s.ID
		for _, l := range s.Listen.V {
			id += "@" + l.V
		}
		ids = append(ids, id)
	}
	return strings.Join(ids, " ")
}

func line(name string) string { return name + " stream tcp4 nowait root /bin/" + name + "\n" }

// TestInclude: a file that is included begins with the address of where it is
// included, and what is in it does not last.
func TestInclude(t *testing.T) {
	dir := files(t, map[string]string{
		"main":    line("a") + "192.0.2.1:\n.include \"d/*\" and what is ignored\n.include none\n.include d\n" + line("z"),
		"d/1":     line("b") + "192.0.2.2:\n" + line("c") + ".include ../main\n.include ../more\n",
		"d/2":     line("d"),
		"d/.3":    line("hidden"),
		"d/sub/x": line("sub"),
		"more":    line("e") + ".include\n.include \"[\"\n",
	})
	main := filepath.Join(dir, "main")
	d := config.NewDisk()
	f := Source(Named("netbsd"), main)(d)
	want := "a b@192.0.2.1:b c@192.0.2.2:c e@192.0.2.2:e d@192.0.2.1:d z@192.0.2.1:z"
	if got := rowsOf(f); got != want {
		t.Errorf("got %s\nwant %s", got, want)
	}
	var got []string
	for _, p := range f.Problems {
		got = append(got, strings.ReplaceAll(p.Error(), dir+"/", ""))
	}
	wantProblems := []string{
		"d/1:4:10: ../main: main includes itself; take it out",
		"more:2:1: .include: names no file; write .include and a file or pattern, or take it out",
		"more:3:10: [: \"[\" is no pattern: syntax error in pattern; write one such as \"tcpmuxd.d/*.toml\"",
		"main:4:10: none: none cannot be read: no such file or directory",
	}
	if !slices.Equal(got, wantProblems) {
		t.Errorf("problems:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(wantProblems, "\n"))
	}
	if len(f.Paths) != 4 || f.Path != main {
		t.Errorf("path %s, paths %v", f.Path, f.Paths)
	}
}

// TestManyFiles: GNU's inetd takes files and directories.
func TestManyFiles(t *testing.T) {
	dir := files(t, map[string]string{
		"inetd.conf": "192.0.2.1:\n" + line("a"),
		"inetd.d/2":  line("c"),
		"inetd.d/1":  line("b"),
		"inetd.d/.x": line("x"),
	})
	f := Source(Named("gnu"), filepath.Join(dir, "inetd.conf"), filepath.Join(dir, "inetd.d"))(config.NewDisk())
	if got := rowsOf(f); got != "a@192.0.2.1:a b c" {
		t.Errorf("got %s", got)
	}
	if len(f.Notes) != 1 || f.Notes[0].Kind != config.Lost || !strings.HasSuffix(f.Notes[0].File, "/.x") {
		t.Errorf("notes %v", f.Notes)
	}
	f = Source(nil, filepath.Join(dir, "none"), filepath.Join(dir, "inetd.conf"))(config.NewDisk())
	if rowsOf(f) != "a@192.0.2.1:a" || len(f.Problems) != 1 || f.Problems[0].IsSet() {
		t.Errorf("rows %s, problems %v", rowsOf(f), f.Problems)
	}
	if _, _, err := config.Compile(f, asRoot()); err == nil {
		t.Error("a file that cannot be read is no error")
	}
}

// TestReading: a reading is made again if a file, or the files in a directory,
// have changed, and only then.
func TestReading(t *testing.T) {
	dir := files(t, map[string]string{"d/1": line("ftp")})
	o := asRoot()
	r := config.Read(Source(nil, filepath.Join(dir, "d")), o)
	if r.Err != nil || len(r.Table.Services) != 1 || r.Read(o) != r {
		t.Fatalf("%v, %v", r.Err, r.Table)
	}
	if err := os.WriteFile(filepath.Join(dir, "d/2"), []byte(line("telnet")), 0o644); err != nil {
		t.Fatal(err)
	}
	if again := r.Read(o); again == r || len(again.Table.Services) != 2 {
		t.Errorf("a new file is not seen")
	}
}

// TestNames: every dialect has its name, and its bit stands for it.
func TestNames(t *testing.T) {
	for i, d := range dialects {
		if Named(d.Name) != d || d.set != 1<<i || d.set.first() != d || !d.set.only() {
			t.Errorf("%s is not where it should be", d.Name)
		}
	}
	for alias, name := range map[string]string{"debian": "openbsd", "inetutils": "gnu"} {
		if Named(alias) != Named(name) {
			t.Errorf("%s is not %s", alias, name)
		}
	}
	for _, name := range Names() {
		if Named(name) == nil {
			t.Errorf("%s is no dialect", name)
		}
	}
	if Named("") != nil || Named("inetd") != nil {
		t.Error("no name is a dialect")
	}
	if every.String() != "openbsd, freebsd, netbsd, gnu and busybox" {
		t.Error(every)
	}
}

// TestIs: what an inetd.conf looks like, and what others do.
func TestIs(t *testing.T) {
	for text, want := range map[string]bool{
		line("a"): true, "# c\n\n  # d\n" + line("a"): true, "127.0.0.1:\n": true, "*:\n": true, ".include x\n": true, "a on protocol = tcp4;": true,
		"a stream,3:f tcp nowait root /x": true,
		"":                                false, "# nothing\n": false, "[server]\n": false, "include = [\"a\"]\n": false, "defaults\n{\n}\n": false,
		"service ftp\n{\n": false, "a = \"stream\"": false, "one two three four five six": false, "a stream tcp": false,
	} {
		if got := Is(text); got != want {
			t.Errorf("%q: %v", text, got)
		}
	}
}
