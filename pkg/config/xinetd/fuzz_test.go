package xinetd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// FuzzParse: no text panics, and none hangs; every row, note and error has a place in
// the text; what is read can be compiled.
func FuzzParse(f *testing.F) {
	files, err := filepath.Glob("testdata/*.conf")
	if err != nil {
		f.Fatal(err)
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(string(text))
	}
	o := machineOfTests()
	f.Fuzz(func(t *testing.T, text string) {
		file := Parse("x", text)
		lines := int32(1)
		for _, c := range []byte(text) {
			if c == '\n' {
				lines++
			}
		}
		check := func(what string, p config.Pos) {
			if p.File != "x" || p.Line < 1 || p.Line > lines || p.Col < 1 || int(p.Col) > len(text)+1 {
				t.Errorf("%s at %v, which is not in the text", what, p)
			}
		}
		for _, n := range file.Notes {
			check(n.Text, n.Pos)
		}
		for _, p := range file.Problems {
			check(p.Text, p.Pos)
		}
		for _, s := range file.Services {
			check(s.ID, s.Pos)
		}
		_, warnings, err := config.Compile(file, o)
		for _, w := range warnings {
			check(w.Text, w.Pos)
		}
		_ = err
	})
}
