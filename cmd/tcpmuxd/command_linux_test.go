// The command lines of the built programs: flags, exit codes, words. And how
// tests run other programs.

package main_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const dateTable = `
[service.tcpmux]
builtin = "tcpmux"
listen = ["127.0.0.1:%s"]
[service."tcpmux/+date"]
exec = ["/bin/date", "-u"]
user = "nobody"
`

func TestCommandLine(t *testing.T) {
	t.Parallel()
	needRoot(t)
	dir := tempDir(t)
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	good := file("good.toml", strings.ReplaceAll(dateTable, "%s", "1"))
	warned := file("warned.toml", "[service.\"tcpmux/+x\"]\nexec = [\"/nowhere/x\"]\nuser = \"nobody\"\n")
	bad := file("bad.toml", "[service.a]\nexec = [\"/bin/date\"]\nuzer = \"nobody\"\nlisten = [\"nowhere\"]\n")
	for _, c := range []struct {
		args           []string
		code           int
		stdout, stderr string // a part of it; empty: nothing at all
	}{
		{[]string{"tcpmuxd", "-V"}, 0, "tcpmuxd ", ""},
		{[]string{"tcpmuxd", "-h"}, 0, "usage: tcpmuxd", ""},
		{[]string{"tcpmuxd", "-t", "-c", good}, 0, "good.toml: ok", ""},
		{[]string{"tcpmuxd", "-t", "-c", warned}, 0, "1 warnings", "/nowhere/x"},
		{[]string{"tcpmuxd", "-t", "-c", bad}, 1, "", "bad.toml:3:"},
		{[]string{"tcpmuxd", "-t", "-c", bad}, 1, "", "bad.toml:4:"},
		{[]string{"tcpmuxd", "-c", bad}, 1, "", "bad.toml:4:"},
		{[]string{"tcpmuxd", "-t", "-c", dir + "/missing.toml"}, 1, "", "missing.toml"},
		{[]string{"tcpmuxd", "-t", "-c", dir}, 1, "", "not a regular file"},
		{[]string{"tcpmuxd", "-x"}, 64, "", "-x"},
		{[]string{"tcpmuxd", "-c"}, 64, "", "usage: tcpmuxd"},
		{[]string{"tcpmuxd", "now"}, 64, "", "unexpected argument \"now\""},
		{[]string{"tcpmux", "-V"}, 0, "tcpmux ", ""},
		{[]string{"tcpmux"}, 64, "", "no host"},
		{[]string{"tcpmuxctl", "-V"}, 0, "tcpmuxctl ", ""},
		{[]string{"tcpmuxctl", "check", good}, 0, "good.toml", ""},
		{[]string{"tcpmuxctl", "check", warned}, 0, "", "/nowhere/x"},
		{[]string{"tcpmuxctl", "check", good, bad}, 1, "", "bad.toml:3:"},
		{[]string{"tcpmuxctl", "fly"}, 64, "", "unknown command"},
	} {
		path := filepath.Join(filepath.Dir(programs.tcpmuxd), c.args[0])
		got := run(t, exec.Command(path, c.args[1:]...))
		if got.code != c.code {
			t.Errorf("%q: exit code %d, want %d", c.args, got.code, c.code)
		}
		for _, s := range []struct{ name, got, want string }{{"stdout", got.stdout, c.stdout}, {"stderr", got.stderr, c.stderr}} {
			if !strings.Contains(s.got, s.want) {
				t.Errorf("%q: %s is %q and has no %q", c.args, s.name, s.got, s.want)
			}
		}
		if c.code == 0 && c.stderr == "" && got.stderr != "" {
			t.Errorf("%q: stderr is %q", c.args, got.stderr)
		}
	}
}

// A port that is taken: nothing is served, and the row that cannot have it is
// named with its place.
func TestStartIsAllOrNothing(t *testing.T) {
	t.Parallel()
	taken, free := local(t), local(t)
	serve(t, jsonLog+"[service.first]\nlisten = [\""+taken+"\"]\nexec = [\"/bin/true\"]\nuser = \"nobody\"\n")
	d := launch(t, jsonLog+"[service.a]\nlisten = [\""+free+"\"]\nexec = [\"/bin/true\"]\nuser = \"nobody\"\n"+
		"[service.b]\nlisten = [\""+taken+"\"]\nexec = [\"/bin/true\"]\nuser = \"nobody\"\n", &how{})
	if code := d.wait(); code != 1 {
		t.Errorf("exit code %d, want 1", code)
	}
	e := d.waitFor("cannot serve")
	for _, want := range []string{"tcpmuxd.toml:8:", `row "b"`, "address already in use"} {
		if !strings.Contains(e.text("error"), want) {
			t.Errorf("the error is %q and has no %q", e.text("error"), want)
		}
	}
}

// A result is what a program that has ended has left.
type result struct {
	stdout, stderr string
	code           int // -1: ended by a signal
}

// run runs a program to its end; cmd may have been prepared.
func run(t testing.TB, cmd *exec.Cmd) result {
	t.Helper()
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(bound, func() { cmd.Process.Kill() })
	defer kill.Stop()
	cmd.Wait()
	return result{stdout.String(), stderr.String(), cmd.ProcessState.ExitCode()}
}

// find is the path of a program that a test cannot do without.
func find(t testing.TB, name string) string {
	t.Helper()
	for _, dir := range []string{"/usr/sbin", "/sbin", ""} {
		if path, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
			return path
		}
	}
	t.Fatalf("%s is not installed; contrib/ci/deps knows the package", name)
	return ""
}
