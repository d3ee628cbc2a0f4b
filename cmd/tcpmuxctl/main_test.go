package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// TestMain lets the test binary be the program, so that what is tested is what
// a user sees.
func TestMain(m *testing.M) {
	if os.Getenv("BE_TCPMUXCTL") != "" {
		main()
		panic("main returned")
	}
	os.Exit(m.Run())
}

// ctl runs the program in dir and returns what it wrote and its exit code.
func ctl(t *testing.T, dir string, args ...string) (stdout, stderr string, code int) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "BE_TCPMUXCTL=1")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const usageText = `usage: tcpmuxctl command [argument ...]
       tcpmuxctl -V | -h

The commands are:
  check [-r] file ...      report every error in configuration files
`

func TestTranscripts(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"good.toml": "[service.\"tcpmux/+a\"]\nexec = [\"/proc/self/exe\"]\nuser = \"root\"\n[service.off]\nenabled = false\nlisten = \"1\"\nexec = \"/x\"\nuser = \"root\"\n",
		"warn.toml": "[service.a]\nlisten = \"1000\"\nexec = \"/nonexistent/program\"\nuser = \"root\"\n",
		"bad.toml":  "[service.a]\nlisten = \"1000\"\nexec = \"program\"\nUser = \"root\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const hint = "tcpmuxctl: hint: tcpmuxctl -h lists the commands\n"
	const (
		warning = "tcpmuxctl: warning: warn.toml:3:8: row \"a\": exec: /nonexistent/program: no such file or directory; the row refuses until it is there\n"
		errs    = "tcpmuxctl: error: bad.toml:3:8: row \"a\": exec: \"program\" is a relative path; write one from the root such as \"/bin/date\" instead\n" +
			"tcpmuxctl: error: bad.toml:4:1: row \"a\": User: keys are written in lower case; write user instead\n"
	)
	for _, tt := range []struct {
		args           string
		stdout, stderr string
		code           int
	}{
		{"", "", "tcpmuxctl: error: no command given\n" + hint, 64},
		{"-h", usageText, "", 0},
		{"check -h", usageText, "", 0},
		{"-V", "tcpmuxctl devel\n", "", 0},
		{"-x", "", "tcpmuxctl: error: flag provided but not defined: -x\n" + hint, 64},
		{"frob", "", "tcpmuxctl: error: unknown command \"frob\"\n" + hint, 64},
		{"check", "", "tcpmuxctl: error: check: no file given\n" + hint, 64},
		{"check -x a", "", "tcpmuxctl: error: check: flag provided but not defined: -x\n" + hint, 64},
		{"check -r good.toml", "good.toml: ok, 2 rows, 0 warnings\n", "", 0},
		{"check -r warn.toml", "warn.toml: ok, 1 row, 1 warning\n", warning, 0},
		{"check -r bad.toml", "bad.toml: 2 errors, 0 warnings\n", errs, 1},
		{"check -r bad.toml good.toml warn.toml", "bad.toml: 2 errors, 0 warnings\ngood.toml: ok, 2 rows, 0 warnings\nwarn.toml: ok, 1 row, 1 warning\n", errs + warning, 1},
		{"check -r none.toml", "none.toml: 1 error, 0 warnings\n", "tcpmuxctl: error: none.toml cannot be read: no such file or directory\n", 1},
	} {
		stdout, stderr, code := ctl(t, dir, strings.Fields(tt.args)...)
		if stdout != tt.stdout || stderr != tt.stderr || code != tt.code {
			t.Errorf("tcpmuxctl %s\nexit %d, want %d\nstdout:\n%s\nwant:\n%s\nstderr:\n%s\nwant:\n%s", tt.args, code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
		}
	}
}

// TestRealUser compiles for whoever runs the tests, by the machine's own files.
func TestRealUser(t *testing.T) {
	dir := t.TempDir()
	text := fmt.Sprintf("[service.a]\nlisten = \"10000\"\nexec = \"/proc/self/exe\"\nuser = \"%d\"\n", os.Geteuid())
	if err := os.WriteFile(filepath.Join(dir, "a.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	if stdout, stderr, code := ctl(t, dir, "check", "a.toml"); code != 0 || stdout != "a.toml: ok, 1 row, 0 warnings\n" {
		t.Errorf("exit %d\n%s%s", code, stdout, stderr)
	}
}

// TestManual: every command and exit code is in the manual.
func TestManual(t *testing.T) {
	man, err := os.ReadFile("tcpmuxctl.8")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands() {
		if !strings.Contains(string(man), ".It Cm "+c.name) {
			t.Errorf("the command %s is not in it", c.name)
		}
	}
	for _, code := range []int{exitOK, exitError, exitUsage} {
		if !strings.Contains(string(man), fmt.Sprintf("\n.It %d\n", code)) {
			t.Errorf("the exit code %d is not in it", code)
		}
	}
}
