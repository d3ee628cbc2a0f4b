// The manual pages against the programs: every flag, exit code, log message and
// reason that is in the source stands in the page. It is the source that is
// read, so that a word cannot be forgotten because no test provokes it.

package main_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// sources parses the non-test files of a directory.
func sources(t *testing.T, dir string) (files []*ast.File) {
	t.Helper()
	names, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil || names == nil {
		t.Fatalf("no sources in %s: %v", dir, err)
	}
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	return files
}

// calls lists the first argument, a string, of all calls of such methods.
func calls(files []*ast.File, methods ...string) (words []string) {
	for _, f := range files {
		ast.Inspect(f, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || len(call.Args) == 0 {
				return true
			}
			fun, ok := call.Fun.(*ast.SelectorExpr)
			if !ok || !slices.Contains(methods, fun.Sel.Name) {
				return true
			}
			if word, ok := text(call.Args[0]); ok {
				words = append(words, word)
			}
			return true
		})
	}
	slices.Sort(words)
	return slices.Compact(words)
}

// text is the value of a string literal.
func text(e ast.Expr) (string, bool) {
	lit, ok := e.(*ast.BasicLit)
	if !ok || lit.Kind != token.STRING {
		return "", false
	}
	s, err := strconv.Unquote(lit.Value)
	return s, err == nil
}

// constants are those of a type, or whose names begin so.
func constants(files []*ast.File, match func(name, typ string) bool) map[string]string {
	found := map[string]string{}
	for _, f := range files {
		for _, decl := range f.Decls {
			gen, ok := decl.(*ast.GenDecl)
			if !ok || gen.Tok != token.CONST {
				continue
			}
			for _, s := range gen.Specs {
				spec := s.(*ast.ValueSpec)
				typ := ""
				if id, ok := spec.Type.(*ast.Ident); ok {
					typ = id.Name
				}
				for i, name := range spec.Names {
					if i >= len(spec.Values) || !match(name.Name, typ) {
						continue
					}
					if lit, ok := spec.Values[i].(*ast.BasicLit); ok {
						found[name.Name] = strings.Trim(lit.Value, `"`)
					}
				}
			}
		}
	}
	return found
}

// page reads a manual page; words is its text with every blank alike and
// without escapes.
func page(t *testing.T, name string) (raw, words string) {
	t.Helper()
	b, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw = string(b)
	words = strings.NewReplacer(`\-`, "-", `\&`, "", `"`, "").Replace(raw)
	return raw, strings.Join(strings.Fields(words), " ")
}

func TestFlagsAndExitCodesStandInTheManual(t *testing.T) {
	for dir, name := range map[string]string{"../tcpmuxd": "tcpmuxd.8", "../tcpmux": "tcpmux.1", "../tcpmuxctl": "tcpmuxctl.8"} {
		raw, _ := page(t, filepath.Join(dir, name))
		files := sources(t, dir)
		flags := calls(files, "Bool", "String", "Duration", "Int", "BoolVar", "StringVar", "DurationVar", "Func")
		if len(flags) == 0 {
			t.Errorf("%s has no flags: does the test still find them?", dir)
		}
		for _, f := range flags {
			if !regexp.MustCompile(`(?m)^\.It .*\bFl ` + regexp.QuoteMeta(f) + `\b`).MatchString(raw) {
				t.Errorf("%s does not explain -%s", name, f)
			}
		}
		exits := constants(files, func(name, _ string) bool { return strings.HasPrefix(name, "exit") })
		if len(exits) == 0 {
			t.Errorf("%s has no exit codes: does the test still find them?", dir)
		}
		for code, value := range exits {
			if !regexp.MustCompile(`(?m)^\.It (Li )?`+value+`$`).MatchString(raw) && !strings.Contains(raw, "Ex -std") {
				t.Errorf("%s does not explain exit code %s, %s", name, value, code)
			}
		}
	}
}

func TestLogStandsInTheManual(t *testing.T) {
	_, words := page(t, "tcpmuxd.8")
	supervisor := sources(t, "../../pkg/supervisor")
	messages := calls(supervisor, "info", "warn", "error", "problem")
	messages = append(messages, calls(sources(t, "."), "Info", "Warn", "Error", "logErrors")...)
	if len(messages) < 20 {
		t.Errorf("only %d messages: does the test still find them?", len(messages))
	}
	for _, m := range messages {
		if !strings.Contains(words, "Qq "+m) {
			t.Errorf("tcpmuxd.8 does not explain the log message %q", m)
		}
	}
	reasons := constants(supervisor, func(_, typ string) bool { return typ == "refusal" })
	if len(reasons) < 5 {
		t.Errorf("only %d reasons: does the test still find them?", len(reasons))
	}
	for name, r := range reasons {
		if !regexp.MustCompile(fmt.Sprintf(`Cm (\w+ , )*%s\b`, r)).MatchString(words) {
			t.Errorf("tcpmuxd.8 does not explain the reason %s, %s", r, name)
		}
	}
}
