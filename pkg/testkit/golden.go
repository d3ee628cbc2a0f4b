// Golden files: what a test makes of each of its input files stands beside it.

package testkit

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// Golden runs a subtest for each file that pattern names, of which there has to be
// one: what f makes of its text is compared with what stands beside it, in the file
// of the same name that ends in .txt.
func Golden(t *testing.T, pattern string, f func(t *testing.T, name, text string) (got string)) {
	t.Helper()
	files, err := filepath.Glob(pattern)
	if err != nil || len(files) == 0 {
		t.Fatalf("no files: %v", err)
	}
	for _, path := range files {
		name := filepath.Base(path)
		t.Run(name, func(t *testing.T) {
			text, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			Compare(t, strings.TrimSuffix(path, filepath.Ext(path))+".txt", f(t, name, string(text)))
		})
	}
}

// Compare compares with a golden file, which the flag -update writes.
func Compare(t testing.TB, golden, got string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(golden, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got:\n%s\nwant:\n%s", got, want)
	}
}
