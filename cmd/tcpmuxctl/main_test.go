package main

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
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
	cmd.Dir, cmd.Env = dir, append(os.Environ(), "BE_TCPMUXCTL=1", "GORACE=atexit_sleep_ms=0")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
		t.Fatal(err)
	}
	return out.String(), errs.String(), cmd.ProcessState.ExitCode()
}

const usageText = `usage: tcpmuxctl command [argument ...]
       tcpmuxctl -V | -h

Look after tcpmuxd. The commands are:

  check [-r] file ...  report every error in configuration files; -r: for
                       a daemon that root runs

  -V, -h  print the version, print this
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
	const hint = "tcpmuxctl: hint: tcpmuxctl -h explains the arguments\n"
	const (
		warning = "tcpmuxctl: warning: warn.toml:3:8: row \"a\": exec: /nonexistent/program: no such file or directory; the row refuses until it is there\n"
		errs    = "tcpmuxctl: error: bad.toml:3:8: row \"a\": exec: \"program\" is a relative path; write the whole path, such as \"/bin/date\", instead\n" +
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

// TestHintForRoot: an ordinary user who checks root's table is told how.
func TestHintForRoot(t *testing.T) {
	dir, err := os.MkdirTemp("", "tcpmuxctl")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	const row = "[service.a]\nlisten = \"10000\"\nexec = \"/proc/self/exe\"\n"
	self, err := os.ReadFile("/proc/self/exe") // where it is, others may not look
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"ctl": string(self), "root.toml": row + "user = \"root\"\n", "groups.toml": row + "groups = [\"0\"]\n", "other.toml": row + "cwd = \"x\"\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	const hint = "tcpmuxctl: hint: check -r checks for a daemon that root runs\n"
	for args, want := range map[string]bool{
		"root.toml": true, "groups.toml": true, "other.toml": false, "none.toml": false, "root.toml other.toml": true,
		"-r root.toml": false, "-r other.toml": false,
	} {
		cmd := exec.Command(filepath.Join(dir, "ctl"), append([]string{"check"}, strings.Fields(args)...)...)
		cmd.Dir, cmd.Env = dir, append(os.Environ(), "BE_TCPMUXCTL=1", "GORACE=atexit_sleep_ms=0")
		if os.Geteuid() == 0 {
			cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		}
		var errs bytes.Buffer
		cmd.Stderr = &errs
		if err := cmd.Run(); err != nil && cmd.ProcessState == nil {
			t.Fatal(err)
		}
		if code := cmd.ProcessState.ExitCode(); code != 1 && args != "-r root.toml" {
			t.Errorf("check %s: exit %d", args, code)
		}
		if got := strings.Count(errs.String(), hint); got > 1 || (got == 1) != want || want && !strings.HasSuffix(errs.String(), hint) {
			t.Errorf("check %s:\n%s", args, &errs)
		}
	}
}

// TestAddress: check asks this machine.
func TestAddress(t *testing.T) {
	dir := t.TempDir()
	text := "[defaults]\nuser = \"root\"\nexec = \"/proc/self/exe\"\n[service.a]\nlisten = [\"127.0.0.1:10000\", \"203.0.113.1:10001\"]\n" +
		"[service.b]\nlisten = \"10002\"\nbind_to_device = \"tcpmuxd-none\"\n"
	if err := os.WriteFile(filepath.Join(dir, "a.toml"), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	want := "tcpmuxctl: warning: a.toml:5:30: row \"a\": listen: 203.0.113.1 is not up on this machine; the row listens there as soon as it is\n" +
		"tcpmuxctl: warning: a.toml:8:18: row \"b\": bind_to_device: there is no interface \"tcpmuxd-none\"; the row listens as soon as there is\n"
	stdout, stderr, code := ctl(t, dir, "check", "-r", "a.toml")
	if code != 0 || stderr != want || stdout != "a.toml: ok, 2 rows, 2 warnings\n" {
		t.Errorf("exit %d\n%s%swant:\n%s", code, stdout, stderr, want)
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
