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

  check [-r] file ...           report every error in configuration files; -r: for
                                a daemon that root runs
  convert [-to form] file ...   write the TOML of an inetd.conf or xinetd.conf or,
                                with -to systemd, units, into -o directory, over what
                                is there with -f; and a report of what was guessed,
                                changed or lost to standard error
  bans [-s socket]              list the sources that the running daemon holds off
  unban [-s socket] source ...  hold a source off no longer

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
	const there = "tcpmuxctl: hint: tcpmuxd answers root at the path that control in [server] says; -s names another than /run/tcpmuxd/control.sock\n"
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
		{"bans x", "", "tcpmuxctl: error: bans: unexpected argument \"x\"\n" + hint, 64},
		{"bans -s none", "", "tcpmuxctl: error: dial unix none: connect: no such file or directory\n" + there, 1},
		{"unban", "", "tcpmuxctl: error: unban: no source given\n" + hint, 64},
		{"unban -h", usageText, "", 0},
		{"unban -x", "", "tcpmuxctl: error: unban: flag provided but not defined: -x\n" + hint, 64},
		{"unban -s none 192.0.2.1", "", "tcpmuxctl: error: dial unix none: connect: no such file or directory\n" + there, 1},
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

// TestConvert: the TOML to standard output, what there is to say of it to standard
// error; and check says of the file what it says of the table.
func TestConvert(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"inetd.conf":  "# one\nftp\tstream\ttcp\tnowait\troot\t/usr/sbin/ftpd\tftpd -l\nbad\n",
		"inetd.d/two": "*:8080 stream tcp nowait www.www /bin/w w\n",
		"a.toml":      "[service.a]\nlisten = \"1000\"\nexec = \"/bin/a\"\nuser = \"root\"\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	const one = `# one
[service.ftp]
protocol = "tcp"
exec = ["/usr/sbin/ftpd", "-l"]
argv0 = "ftpd"
user = "root"
limits = { rate = "256/min" }

# not converted: bad
`
	const two = `[service.8080]
protocol = "tcp4"
listen = ["8080"]
exec = ["/bin/w"]
argv0 = "w"
user = "www"
group = "www"
limits = { rate = "1000/min" }
`
	const bad = "tcpmuxctl: error: inetd.conf:3:1: bad: the line has 1 of at least 6 columns; write NAME stream|dgram PROTOCOL wait|nowait USER PROGRAM ARGUMENTS\n"
	const hint = "tcpmuxctl: hint: tcpmuxctl -h explains the arguments\n"
	for _, tt := range []struct {
		args           string
		stdout, stderr string
		code           int
	}{
		{"convert", "", "tcpmuxctl: error: convert: no file given\n" + hint, 64},
		{"convert -dialect frob x", "", "tcpmuxctl: error: convert: there is no dialect \"frob\"; write toml, xinetd, inetd, openbsd, freebsd, netbsd, gnu, busybox, debian, inetutils\n" + hint, 64},
		{"check -dialect frob x", "", "tcpmuxctl: error: check: there is no dialect \"frob\"; write toml, xinetd, inetd, openbsd, freebsd, netbsd, gnu, busybox, debian, inetutils\n" + hint, 64},
		{"convert -dialect debian inetd.conf", one, bad, 1},
		{"convert -dialect gnu inetd.d", two, "", 0},
		{"convert a.toml", "[service.a]\nlisten = [\"1000\"]\nexec = [\"/bin/a\"]\nuser = \"root\"\n", "", 0},
		{"convert none", "", "tcpmuxctl: error: none cannot be read: no such file or directory\n", 1},
		{"check -r -dialect debian inetd.conf", "inetd.conf: 1 error, 1 warning\n",
			"tcpmuxctl: warning: inetd.conf:2:28: row \"ftp\": exec: /usr/sbin/ftpd: no such file or directory; the row refuses until it is there\n" + bad, 1},
	} {
		stdout, stderr, code := ctl(t, dir, strings.Fields(tt.args)...)
		if stdout != tt.stdout || stderr != tt.stderr || code != tt.code {
			t.Errorf("tcpmuxctl %s\nexit %d, want %d\nstdout:\n%s\nwant:\n%s\nstderr:\n%s\nwant:\n%s", tt.args, code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
		}
	}
	if _, stderr, code := ctl(t, dir, "convert", "inetd.conf", "inetd.d"); code != 1 || !strings.Contains(stderr, "tcpmuxctl: guessed: inetd.conf:1:1: read as OpenBSD's and Debian's inetd.conf, because of *:8080 (an address of its own, inetd.d/two line 1)") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
}

// TestConvertToUnits: to standard output with their names, or into files, over none
// that is there.
func TestConvertToUnits(t *testing.T) {
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "a.toml"), []byte("[service.a-b]\nlisten = \"1000\"\nexec = [\"/bin/cat\", \"$1\"]\nuser = \"root\"\nlimits = { refusal = \"no\" }\n[service.echo]\nbuiltin = \"echo\"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	const socket = `# row "a-b", a.toml:1
[Unit]
Description=a-b socket

[Socket]
ListenStream=0.0.0.0:1000
ListenStream=[::]:1000
BindIPv6Only=ipv6-only
Accept=yes
MaxConnections=256
MaxConnectionsPerSource=64
TriggerLimitIntervalSec=0

[Install]
WantedBy=sockets.target
`
	const program = `# row "a-b", a.toml:1
[Unit]
Description=a-b
CollectMode=inactive-or-failed

[Service]
ExecStart=/bin/cat $$1
StandardInput=socket
StandardOutput=socket
StandardError=journal
KillMode=process
User=root
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
`
	const report = `tcpmuxctl: lost: a.toml:5:22: row "a-b": limits.refusal: systemd says nothing to who is refused
tcpmuxctl: lost: a.toml:7:11: row "echo": builtin: systemd has no services built in; let tcpmuxd serve it; no units are written for the row
tcpmuxctl: changed: a.toml:1:1: programs find their peer in REMOTE_ADDR and REMOTE_PORT alone, and in no other of the variables that tcpmuxd sets
`
	const hint = "tcpmuxctl: hint: tcpmuxctl -h explains the arguments\n"
	const s, p = `a\x2db.socket`, `a\x2db@.service`
	for _, tt := range []struct {
		args           string
		stdout, stderr string
		code           int
	}{
		{"convert --to systemd a.toml", "# " + s + "\n" + socket + "\n# " + p + "\n" + program, report, 0},
		{"convert -to systemd -o . a.toml", "", report, 0},
		{"convert -to systemd -o . a.toml", "", report + "tcpmuxctl: error: " + s + " is there already; -f writes over it\ntcpmuxctl: error: " + p + " is there already; -f writes over it\ntcpmuxctl: error: no unit was written\n", 1},
		{"convert -to systemd -f -o . a.toml", "", report, 0},
		{"convert -to upstart a.toml", "", "tcpmuxctl: error: convert: there is no form \"upstart\"; write toml or systemd\n" + hint, 64},
		{"convert -o . a.toml", "", "tcpmuxctl: error: convert: -o and -f are for units; write -to systemd\n" + hint, 64},
		{"convert -to systemd -f a.toml", "", "tcpmuxctl: error: convert: -f is about files; write -o DIRECTORY\n" + hint, 64},
		{"convert -to systemd none.toml", "", "tcpmuxctl: error: none.toml cannot be read: no such file or directory\n", 1},
	} {
		stdout, stderr, code := ctl(t, dir, strings.Fields(tt.args)...)
		if stdout != tt.stdout || stderr != tt.stderr || code != tt.code {
			t.Errorf("tcpmuxctl %s\nexit %d, want %d\nstdout:\n%s\nwant:\n%s\nstderr:\n%s\nwant:\n%s", tt.args, code, tt.code, stdout, tt.stdout, stderr, tt.stderr)
		}
	}
	for name, want := range map[string]string{s: socket, p: program} {
		if got, err := os.ReadFile(filepath.Join(dir, name)); string(got) != want {
			t.Errorf("%s: %v\n%s", name, err, got)
		}
	}
	if _, stderr, code := ctl(t, dir, "convert", "-to", "systemd", "-o", "nonesuch", "a.toml"); code != 1 || !strings.Contains(stderr, "no such file or directory") {
		t.Errorf("exit %d\n%s", code, stderr)
	}
	left, _ := filepath.Glob(filepath.Join(dir, ".tcpmuxctl-*"))
	if len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}
