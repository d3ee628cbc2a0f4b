// Package pkg_test holds the rules about the tree itself: which package may
// import which, what may be linked into the daemon, where unsafe code may stand
// and what lies at the top. It tests no behaviour.
package pkg_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"go/parser"
	"go/token"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

const module = "github.com/tcpmuxd/tcpmuxd"

// floors says how high a package stands. An import goes down, never sideways:
// that is also what keeps the text half (config) and the socket half (listener,
// spawn) apart. Everything outside of pkg stands on top and is imported by
// nobody.
var floors = map[string]int{
	"pkg/tcpmux":        0, // 0: leaves
	"pkg/access":        0,
	"pkg/access/hosts":  0,
	"pkg/limit":         0,
	"pkg/pressure":      0,
	"pkg/account":       0,
	"pkg/logs":          0,
	"pkg/kernel":        0,
	"pkg/proxy":         0,
	"pkg/spawn/origin":  0,
	"pkg/nft":           0,
	"pkg/control":       0,
	"pkg/rpcbind":       0,
	"pkg/service":       1, // 1: the table
	"pkg/filter":        1, //    and access in the kernel
	"pkg/ban":           1,
	"pkg/config":        2, // 2: the text half
	"pkg/config/inetd":  3, //    (its other ways to write a table, and which one a file is)
	"pkg/config/xinetd": 3,
	"pkg/config/units":  3, //    (and as units of systemd)
	"pkg/config/front":  4,
	"pkg/listener":      2, //    and the socket half
	"pkg/spawn":         2,
	"pkg/systemd":       2, //    and whoever starts the daemon
	"pkg/relay":         2, //    and what runs in the daemon
	"pkg/builtin":       2,
	"pkg/ident":         2,
	"pkg/supervisor":    3,
}

const (
	top     = 5
	testkit = "pkg/testkit" // beside the building: imports nothing of ours, is imported by tests only
)

// platforms are those that `make vet` looks at.
var platforms = []string{"linux/amd64", "linux/arm64", "freebsd/amd64", "darwin/arm64"}

// goPackage is what these tests use of go list -json.
type goPackage struct {
	ImportPath                              string
	Dir                                     string
	GoFiles, CgoFiles, SFiles, IgnoredFiles []string
	Imports, TestImports, XTestImports      []string
}

func (p goPackage) short() string { return strings.TrimPrefix(p.ImportPath, module+"/") }

func (p goPackage) allImports() []string {
	return slices.Concat(p.Imports, p.TestImports, p.XTestImports)
}

// list returns all packages of the module as they are for one platform.
func list(t *testing.T, platform string) []goPackage {
	t.Helper()
	goos, goarch, _ := strings.Cut(platform, "/")
	cmd := exec.Command("go", "list", "-e", "-json=ImportPath,Dir,GoFiles,CgoFiles,SFiles,IgnoredFiles,Imports,TestImports,XTestImports", "./...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "GOOS="+goos, "GOARCH="+goarch, "CGO_ENABLED=0")
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list for %s: %v\n%s", platform, err, &stderr)
	}
	var packages []goPackage
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p goPackage
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return packages
		} else if err != nil {
			t.Fatal(err)
		}
		packages = append(packages, p)
	}
}

func TestImportsGoDown(t *testing.T) {
	for _, platform := range platforms {
		for _, p := range list(t, platform) {
			name := p.short()
			floor, known := floors[name]
			switch {
			case !strings.HasPrefix(name, "pkg/"):
				floor = top
			case name == testkit:
				floor = 0
			case name != "pkg" && !known:
				t.Errorf("%s stands on no floor: add it to the list in this test", name)
			}
			for _, path := range p.Imports {
				imported, ours := strings.CutPrefix(path, module+"/")
				if !ours {
					continue
				}
				if below, ok := floors[imported]; !ok || below >= floor {
					t.Errorf("%s: %s imports %s, which is not below it", platform, name, imported)
				}
			}
		}
	}
}

func TestOnlySpawnIsUnsafe(t *testing.T) {
	for _, platform := range platforms {
		for _, p := range list(t, platform) {
			if strings.HasPrefix(p.short()+"/", "pkg/spawn/") {
				continue
			}
			if slices.Contains(p.allImports(), "unsafe") {
				t.Errorf("%s: %s imports unsafe", platform, p.short())
			}
			if len(p.SFiles)+len(p.CgoFiles) > 0 {
				t.Errorf("%s: %s is not Go alone: %v %v", platform, p.short(), p.SFiles, p.CgoFiles)
			}
		}
	}
	forGoFiles(t, func(path string, text []byte) {
		if !strings.HasPrefix(path, "pkg/spawn/") && bytes.Contains(text, []byte("\n//go:linkname ")) {
			t.Errorf("%s uses linkname", path)
		}
	})
}

// forGoFiles calls f for every Go file of the repository.
func forGoFiles(t *testing.T, f func(path string, text []byte)) {
	t.Helper()
	for _, dir := range []string{"cmd", "pkg", "contrib"} {
		err := filepath.WalkDir(filepath.Join("..", dir), func(path string, e os.DirEntry, err error) error {
			if err != nil || e.IsDir() || filepath.Ext(path) != ".go" {
				return err
			}
			text, err := os.ReadFile(path)
			if err == nil {
				f(strings.TrimPrefix(path, "../"), text)
			}
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

// The daemon has one reaper, which waits for every child. Whatever else could
// start or wait for one would race with it, so none of that may be linked. Nor may
// crypto: it would be a fifth of a megabyte of every idle daemon, for a hash or a
// random number.
func TestDaemonLinks(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "tcpmuxd")
	build := exec.Command("go", "build", "-o", binary, "./cmd/tcpmuxd")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("building the daemon: %v\n%s", err, out)
	}
	symbols, err := exec.Command("go", "tool", "nm", binary).Output()
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(symbols, []byte(module+"/pkg/supervisor.")) {
		t.Fatal("nm shows nothing of the supervisor, so it would show nothing else either")
	}
	for line := range strings.Lines(string(symbols)) {
		fields := strings.Fields(line) // address, kind, name; no address if undefined
		name := fields[len(fields)-1]
		switch {
		case strings.HasPrefix(name, "os/exec."),
			strings.HasPrefix(name, "crypto/"),
			strings.EqualFold(name, "os.StartProcess"),
			strings.EqualFold(name, "os.FindProcess"),
			strings.EqualFold(name, "os.(*Process).Wait"):
			t.Errorf("%s is linked into tcpmuxd", name)
		}
	}
}

func TestEveryPackageSaysWhatItIs(t *testing.T) {
	documented := make(map[string]bool)
	forGoFiles(t, func(path string, text []byte) {
		dir := filepath.Dir(path)
		if strings.HasSuffix(path, "_test.go") && dir != "pkg" {
			return
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, text, parser.PackageClauseOnly|parser.ParseComments)
		if err != nil {
			t.Error(err)
			return
		}
		documented[dir] = documented[dir] || f.Doc != nil
	})
	for dir, ok := range documented {
		if !ok {
			t.Errorf("%s has no package comment", dir)
		}
	}
}

func TestTopLevelIsClosed(t *testing.T) {
	want := []string{"LICENSE", "Makefile", "README.md", "cmd", "contrib", "etc", "go.mod", "go.sum", "pkg"}
	var got []string
	for _, path := range repository(t) {
		name, _, _ := strings.Cut(path, "/")
		if name[0] != '.' && !slices.Contains(got, name) {
			got = append(got, name)
		}
	}
	slices.Sort(got)
	if !slices.Equal(got, want) {
		t.Errorf("the top level holds\n%v, want\n%v", got, want)
	}
}

// repository lists what is in the repository: what git knows or, where these
// files have come without git, what is there.
func repository(t *testing.T) []string {
	t.Helper()
	if _, err := os.Stat("../.git"); err == nil {
		// Whose directory it is does not matter for reading names.
		git := exec.Command("git", "-c", "safe.directory=*", "ls-files")
		git.Dir = ".."
		out, err := git.Output()
		if err != nil {
			t.Fatalf("git ls-files: %v", err)
		}
		return strings.Fields(string(out))
	}
	entries, err := os.ReadDir("..")
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, e := range entries {
		if name := e.Name(); name != "bin" && name != "dist" { // made by make
			names = append(names, name)
		}
	}
	return names
}
