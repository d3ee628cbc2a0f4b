package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// configuration is what a server's command writes for a task.
func configuration(t *testing.T, s *server, tk task) string {
	t.Helper()
	tk.dir = t.TempDir()
	if _, err := s.command("/bin/false", tk); err != nil {
		t.Fatal(err)
	}
	files, err := filepath.Glob(filepath.Join(tk.dir, "*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("%s wrote %v, %v", s.name, files, err)
	}
	text, err := os.ReadFile(files[0])
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// A table has the rows it is to have, and a changed one differs from it in one
// place: what a reload is measured with.
func TestTableOfManyRows(t *testing.T) {
	for _, s := range servers {
		if s.name != oursName && s.name != "xinetd" && s.name != "openbsd-inetd" {
			continue
		}
		tk := task{work: spawn, variant: variant{rows: 50}, child: "/child"}
		text := configuration(t, s, tk)
		if n := strings.Count(text, "/child"); n != 50 {
			t.Errorf("%s: %d rows", s.name, n)
		}
		if !strings.Contains(text, "4049") || strings.Contains(text, "changed") {
			t.Errorf("%s: the table is\n%s", s.name, text)
		}
		tk.changed = true
		if n := strings.Count(configuration(t, s, tk), "changed"); n != 1 {
			t.Errorf("%s: %d rows are changed", s.name, n)
		}
	}
}

// Every attacked server has a configuration for every attack, and names those
// that are asked for.
func TestDefences(t *testing.T) {
	for _, sc := range attacks {
		for _, s := range servers {
			if !s.runs(sc) {
				continue
			}
			for _, v := range sc.conditions() {
				tk := task{work: sc.work, variant: v, scenario: sc.name, child: "/scratch/tiny", port: 4321, dir: t.TempDir()}
				if _, err := s.defend("/bin/false", tk); err != nil {
					t.Fatalf("%s, %s: %v", s.name, sc.name, err)
				}
				file := map[string]string{oursName: "tcpmuxd.toml", "xinetd": "xinetd.conf", "inetutils-inetd": "inetd.conf"}[s.name]
				text, err := os.ReadFile(filepath.Join(tk.dir, file))
				if err != nil || !strings.Contains(string(text), "/scratch/tiny") {
					t.Errorf("%s, %s: %v\n%s", s.name, sc.name, err, text)
				}
				if sc.name == "refusals" && (!strings.Contains(string(text), refusedNames[1]) || strings.Contains(string(text), refusedNames[0])) {
					t.Errorf("%s, %s:\n%s", s.name, sc.name, text)
				}
			}
		}
	}
}

// Every server has a configuration for every kind of work that it does.
func TestCommands(t *testing.T) {
	for _, s := range servers {
		for _, w := range s.does {
			tk := task{work: w, scratch: "/scratch", child: "/scratch/tiny", port: 4321, dir: t.TempDir()}
			if s.name == "rlinetd" { // whose parser is looked for beside it
				continue
			}
			argv, err := s.command("/bin/false", tk)
			if err != nil || len(argv) == 0 {
				t.Errorf("%s, %s: %q, %v", s.name, w, argv, err)
			}
		}
	}
}
