package config

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

const oneRow = "[service.%s]\nlisten = \"%d\"\nexec = \"/bin/a\"\nuser = \"root\"\n"

// relative makes messages about files in the directory of path readable.
func relative(path string, err error) string {
	if err == nil {
		return ""
	}
	dir := filepath.Dir(path) + "/"
	return strings.ReplaceAll(err.Error(), dir, "")
}

func TestInclude(t *testing.T) {
	path := write(t,
		"main.toml", "include = [\"d/*.toml\", \"other/x.toml\", \"d/1.toml\", \"none/*.toml\"]\n"+fmt.Sprintf(oneRow, "main", 2000),
		"d/2.toml", fmt.Sprintf(oneRow, "two", 2002),
		"d/1.toml", "include = [\"../deep/*\"]\n"+fmt.Sprintf(oneRow, "one", 2001),
		"d/.#2.toml", "broken [",
		"d/3.toml.bak", "broken [",
		"deep/z", fmt.Sprintf(oneRow, "deep", 2003),
		"other/x.toml", fmt.Sprintf(oneRow, "x", 2004))
	f := Load(path)
	table, _, err := Compile(f, asRoot())
	if err != nil {
		t.Fatal(err)
	}
	var order []string
	for _, s := range f.Services {
		order = append(order, s.ID)
	}
	if got := strings.Join(order, " "); got != "main one deep two x" {
		t.Errorf("read in the order %s", got)
	}
	if len(table.Services) != 5 || len(f.Paths) != 5 {
		t.Errorf("%d rows from %q", len(table.Services), f.Paths)
	}
}

func TestIncludeErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"a row in two files",
			[]string{"m", "include = [\"a\", \"b\"]\n", "a", fmt.Sprintf(oneRow, "x", 2000), "b", "\n" + fmt.Sprintf(oneRow, "x", 2000)},
			`b:2:10: row "x": there is such a row already at a:1:10; take one of them out or call it otherwise`},
		{"itself", []string{"m", "include = \"m\"\n" + fmt.Sprintf(oneRow, "x", 2000)},
			`m:1:11: include: m includes itself; take it out`},
		{"a loop", []string{"m", "include = \"a\"\n" + fmt.Sprintf(oneRow, "x", 2000), "a", "include = [\"./m\"]"},
			`a:1:12: include: m includes itself; take it out`},
		{"no such file", []string{"m", "include = [\"a\"]\n" + fmt.Sprintf(oneRow, "x", 2000)},
			`m:1:12: include: a cannot be read: no such file or directory`},
		{"no pattern", []string{"m", "include = [\"[\", \"\", \"a\\u0000\"]\n" + fmt.Sprintf(oneRow, "x", 2000)},
			`m:1:12: include: "[" is no pattern: syntax error in pattern; write one such as "tcpmuxd.d/*.toml"` + "\n" +
				`m:1:17: include: an empty name; write a file or a pattern such as "tcpmuxd.d/*.toml"` + "\n" +
				`m:1:21: include: "a\x00" has a NUL in it; write a file's name`},
		{"a directory", []string{"m", "include = [\"d\"]\n" + fmt.Sprintf(oneRow, "x", 2000), "d/a", ""},
			`m:1:12: include: d cannot be read: not a regular file`},
		{"server and defaults elsewhere", []string{"m", "include = [\"a\"]\n" + fmt.Sprintf(oneRow, "x", 2000), "a", "[server]\ngrace = \"1s\"\n[defaults]\nuser = \"root\"\n"},
			"a:1:2: server: only the main file may have [server]; move it there\n" +
				"a:3:2: defaults: only the main file may have [defaults]; move it there"},
		{"errors in the order of reading", []string{"z", "include = [\"b\", \"a\"]\nx = 1\n", "b", "y = 1\n", "a", "z = 1\n[service"},
			"z:2:1: x: unknown key\nb:1:1: y: unknown key\na:2:"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := write(t, tt.files...)
			_, _, err := Compile(Load(path), asRoot())
			got := relative(path, err)
			for _, want := range strings.Split(tt.want, "\n") {
				i := strings.Index(got, want)
				if i < 0 {
					t.Fatalf("got:\n%s\nwant:\n%s", relative(path, err), tt.want)
				}
				got = got[i+len(want):]
			}
		})
	}
}

// TestIncludeDepth: a chain of files ends with an error, not with the stack.
func TestIncludeDepth(t *testing.T) {
	var files []string
	for i := range 30 {
		files = append(files, fmt.Sprintf("f%d", i), fmt.Sprintf("include = \"f%d\"\n", i+1)+fmt.Sprintf(oneRow, fmt.Sprintf("r%d", i), 2000+i))
	}
	path := write(t, files...)
	f := Load(path)
	_, _, err := Compile(f, asRoot())
	if got := relative(path, err); !strings.HasPrefix(got, "f8:1:11: include: files include each other more than 8 deep") {
		t.Errorf("error %q", got)
	}
	if len(f.Paths) != maxIncludeDepth+1 {
		t.Errorf("%d files were read", len(f.Paths))
	}
}

// TestUnreadable: what is no readable text is an error that names the file;
// nothing waits for a writer that never comes.
func TestUnreadable(t *testing.T) {
	dir := t.TempDir()
	fifo := filepath.Join(dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	large := filepath.Join(dir, "large")
	if err := os.WriteFile(large, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(large, maxFile+1); err != nil {
		t.Fatal(err)
	}
	loop := filepath.Join(dir, "loop")
	if err := os.Symlink("loop", loop); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		fifo:                          "fifo cannot be read: not a regular file",
		dir:                           "cannot be read: not a regular file",
		large:                         "large cannot be read: longer than 16777216 bytes",
		loop:                          "loop cannot be read: ",
		filepath.Join(dir, "missing"): "missing cannot be read: no such file or directory",
	} {
		table, _, err := Compile(Load(path), asRoot())
		if err == nil || table != nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestUTF8Mark(t *testing.T) {
	_, _, err := compile(t, "\ufeffx = 1\n[service.ftp]\nexec = \"/bin/a\"\nuser = \"root\"", asRoot())
	if err == nil || !strings.HasPrefix(err.Error(), "t.toml:1:1: x: ") {
		t.Errorf("error %v", err)
	}
}
