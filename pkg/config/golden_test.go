package config

import (
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden compiles testdata/*.good.toml and *.bad.toml, on the made-up
// machine as root, or as alice where the name has "alice" in it, and compares
// what comes out with the .txt beside it.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.toml")
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
			o := asRoot()
			if strings.Contains(name, "alice") {
				o = asAlice()
			}
			if strings.Contains(name, "portable") {
				o.Native = false
			}
			f, _ := Parse(name, string(text))
			table, warnings, err := Compile(f, o)
			if good := strings.HasSuffix(name, ".good.toml"); good != (err == nil) {
				t.Errorf("good: %v, error:\n%v", good, err)
			}
			got := dump(table, warnings, err)
			golden := strings.TrimSuffix(path, ".toml") + ".txt"
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
		})
	}
}

// dump writes everything Compile returns.
func dump(table *service.Table, warnings []*Problem, err error) string {
	var b strings.Builder
	for _, w := range warnings {
		fmt.Fprintln(&b, "warning:", w)
	}
	if err != nil {
		fmt.Fprintln(&b, err)
	}
	if table == nil {
		return b.String()
	}
	fmt.Fprintf(&b, "server: %+v\n", table.Server)
	for _, s := range table.Services {
		row := *s
		row.Access, row.Exec, row.Listen, row.ListenOrigin = nil, nil, nil, nil
		fmt.Fprintf(&b, "\nrow %s\n%s\n", s.ID, brief(row))
		for i, e := range s.Listen {
			fmt.Fprintln(&b, "listen", e.Network, e, "of", s.ListenOrigin[i])
		}
		for p, v := range s.Access.All() {
			fmt.Fprintln(&b, v, p)
		}
		if s.Exec != nil {
			fmt.Fprintln(&b, brief(s.Exec))
		}
	}
	return b.String()
}

// brief is v in JSON without what is zero in it.
func brief(v any) string {
	out, _ := json.Marshal(v)
	var all any
	_ = json.Unmarshal(out, &all)
	var prune func(any) any
	prune = func(v any) any {
		switch v := v.(type) {
		case map[string]any:
			for k, e := range v {
				if v[k] = prune(e); v[k] == nil {
					delete(v, k)
				}
			}
			if len(v) == 0 {
				return nil
			}
		case []any:
			for i, e := range v {
				if e = prune(e); e != nil {
					v[i] = e
				}
			}
		case string:
			if v == "" {
				return nil
			}
		case float64:
			if v == 0 {
				return nil
			}
		case bool:
			if !v {
				return nil
			}
		}
		return v
	}
	out, _ = json.Marshal(prune(all))
	return string(out)
}
