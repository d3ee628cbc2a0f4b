package front

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// TestSource: which file is what, by its name, by what is in it, and by word.
func TestSource(t *testing.T) {
	const (
		inetdText = "echo stream tcp nowait root internal\n"
		tomlText  = "[service.echo]\nbuiltin = \"echo\"\n"
	)
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	if err := os.Mkdir(filepath.Join(dir, "inetd.d"), 0o755); err != nil {
		t.Fatal(err)
	}
	write("inetd.d/one", inetdText)
	if err := os.Mkdir(filepath.Join(dir, "d.toml"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		path, dialect string
		lenient       bool // SkipBad, which only inetd files have
		rows          int
	}{
		{write("a.toml", tomlText), "", false, 1},
		{write("b.toml", inetdText), "", false, 0}, // by its name
		{write("inetd.conf", inetdText), "", true, 1},
		{write("inetd.conf.old", tomlText), "", true, 0},
		{write("services", inetdText), "", true, 1}, // by its text
		{write("table", tomlText), "", false, 1},
		{write("empty", ""), "", false, 0},
		{filepath.Join(dir, "inetd.d"), "", true, 1},
		{filepath.Join(dir, "none"), "", false, 0},
		{filepath.Join(dir, "d.toml"), "", false, 0},
		{filepath.Join(dir, "b.toml"), "inetd", true, 1},
		{filepath.Join(dir, "b.toml"), "freebsd", true, 1},
		{filepath.Join(dir, "inetd.conf.old"), "toml", false, 1},
	} {
		s, err := Source(tt.dialect, tt.path)
		if err != nil {
			t.Errorf("%s as %q: %v", tt.path, tt.dialect, err)
			continue
		}
		f := s(config.NewDisk())
		if f.SkipBad != tt.lenient || len(f.Services) != tt.rows {
			t.Errorf("%s as %q: of inetd %v, %d rows, problems %v", tt.path, tt.dialect, f.SkipBad, len(f.Services), f.Problems)
		}
	}
	if _, err := Source("frob", "x"); err == nil || !strings.Contains(err.Error(), "debian") {
		t.Errorf("no such dialect: %v", err)
	}
	s, _ := Source("", filepath.Join(dir, "a.toml"), filepath.Join(dir, "table"))
	if f := s(config.NewDisk()); len(f.Problems) != 1 {
		t.Errorf("two tables: %v", f.Problems)
	}
	for _, d := range Dialects() {
		if _, err := Source(d, "x"); err != nil {
			t.Error(err)
		}
	}
}
