// Real servers and their own clients: what tcpmuxd is for. Each is reached by
// name on the multiplexer, through the built tcpmux, and on a port of its own.
// A program that is not installed is a failure and no reason to skip.

package main_test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// both is a table with one program on the multiplexer and on a port.
func both(mux, direct, name, row string) string {
	return fmt.Sprintf(jsonLog+`
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+%s"]
%s
[service.%s]
listen = [%q]
%s
`, mux, name, row, name, direct, row)
}

// someBytes are n bytes that no two tests have in common.
func someBytes(n int) []byte {
	b := make([]byte, n)
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rand.Uint32())
	}
	rand.NewChaCha8(seed).Read(b)
	return b
}

const megabyte = 1 << 20

// write makes a file; mode matters to sshd.
func writeFile(t *testing.T, path string, mode os.FileMode, text string) string {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), mode); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(path, mode); err != nil {
		t.Fatal(err)
	}
	return path
}

// must runs a program that has to succeed.
func must(t *testing.T, cmd *exec.Cmd) string {
	t.Helper()
	r := run(t, cmd)
	if r.code != 0 {
		t.Fatalf("%q: exit code %d\n%s%s", cmd.Args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

func TestDateAndCat(t *testing.T) {
	t.Parallel()
	mux, date, cat := local(t), local(t), local(t)
	serve(t, fmt.Sprintf(jsonLog+`
[defaults]
user = "nobody"
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+date"]
exec = ["/bin/date", "-u", "+%%Z"]
[service."tcpmux/+cat"]
exec = ["/bin/cat"]
[service.date]
listen = [%q]
exec = ["/bin/date", "-u", "+%%Z"]
[service.cat]
listen = [%q]
exec = ["/bin/cat"]
`, mux, date, cat))
	if got := must(t, exec.Command(programs.tcpmux, mux, "date")); got != "UTC\n" {
		t.Errorf("date by name says %q", got)
	}
	expect(t, "", date, "", "UTC\n")
	data := string(someBytes(megabyte))
	for _, c := range []struct{ addr, say, before string }{{mux, "CAT\r\n", replyGo}, {cat, "", ""}} {
		// Both ends of cat are busy at once: the answer is read while it is asked.
		conn := dial(t, "", c.addr)
		conn.Write([]byte(c.say))
		hear(t, conn, c.before)
		go func() {
			conn.Write([]byte(data))
			conn.CloseWrite()
		}()
		hearEnd(t, conn, data)
	}
	client := exec.Command(programs.tcpmux, mux, "cat")
	client.Stdin = strings.NewReader(data)
	if got := must(t, client); got != data {
		t.Errorf("cat by name returns %d bytes, and not the %d that were sent", len(got), len(data))
	}
}

func TestSSH(t *testing.T) {
	t.Parallel()
	sshd, ssh, keygen := find(t, "sshd"), find(t, "ssh"), find(t, "ssh-keygen")
	// sshd confines the part that speaks to strangers here, and does not
	// start without it. Debian makes it when its own service starts.
	if err := os.MkdirAll("/run/sshd", 0o755); err != nil {
		t.Fatal(err)
	}
	dir := tempDir(t)
	for _, key := range []string{"host", "user"} {
		must(t, exec.Command(keygen, "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", filepath.Join(dir, key)))
	}
	public := func(key string) string {
		text, err := os.ReadFile(filepath.Join(dir, key+".pub"))
		if err != nil {
			t.Fatal(err)
		}
		return string(text)
	}
	writeFile(t, dir+"/authorized", 0o600, public("user"))
	writeFile(t, dir+"/known", 0o600, "tcpmuxd.test "+public("host"))
	config := writeFile(t, dir+"/sshd_config", 0o600, fmt.Sprintf(`
HostKey %[1]s/host
AuthorizedKeysFile %[1]s/authorized
PermitRootLogin yes
PasswordAuthentication no
StrictModes no
UsePAM no
PidFile none
`, dir))
	mux, direct := local(t), local(t)
	serve(t, both(mux, direct, "ssh", fmt.Sprintf("exec = [%q, \"-i\", \"-E\", %q, \"-f\", %q]\nuser = \"root\"", sshd, dir+"/log", config)))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/log")
			t.Logf("sshd says:\n%s", text)
		}
	})
	_, port, _ := net.SplitHostPort(direct)
	for _, way := range []struct {
		name string
		args []string
	}{
		{"by name", []string{"-o", "ProxyCommand=" + programs.tcpmux + " " + mux + " ssh"}},
		{"by port", []string{"-p", port}},
	} {
		t.Run(way.name, func(t *testing.T) {
			command := func(remote string) *exec.Cmd {
				args := append([]string{
					"-F", "none", "-i", dir + "/user", "-l", "root", "-o", "BatchMode=yes", "-o", "LogLevel=ERROR",
					"-o", "IdentitiesOnly=yes", "-o", "StrictHostKeyChecking=yes", "-o", "HostKeyAlias=tcpmuxd.test",
					"-o", "UserKnownHostsFile=" + dir + "/known", "-o", "GlobalKnownHostsFile=none",
				}, way.args...)
				return exec.Command(ssh, append(args, "127.0.0.1", remote)...)
			}
			if got := must(t, command("echo from $((20 + 22)); id -u")); got != "from 42\n0\n" {
				t.Errorf("the command says %q", got)
			}
			if r := run(t, command("exit 7")); r.code != 7 {
				t.Errorf("exit code %d, want that of the command, 7: %s", r.code, r.stderr)
			}
			data := string(someBytes(megabyte))
			cat := command("cat")
			cat.Stdin = strings.NewReader(data)
			if got := must(t, cat); got != data {
				t.Errorf("%d bytes come back, and not the %d that were sent", len(got), len(data))
			}
		})
	}
}

func TestGitClone(t *testing.T) {
	t.Parallel()
	git := find(t, "git")
	dir := tempDir(t)
	writeFile(t, dir+"/config", 0o644, "[safe]\n\tdirectory = *\n[user]\n\tname = A\n\temail = a@test\n[init]\n\tdefaultBranch = main\n")
	env := []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "GIT_CONFIG_GLOBAL=" + dir + "/config", "GIT_CONFIG_NOSYSTEM=1"}
	command := func(args ...string) *exec.Cmd {
		cmd := exec.Command(git, args...)
		cmd.Env = env
		return cmd
	}
	data := someBytes(megabyte)
	writeFile(t, dir+"/data", 0o644, string(data))
	must(t, command("init", "-q", dir+"/tree"))
	must(t, exec.Command("cp", dir+"/data", dir+"/tree/data"))
	must(t, command("-C", dir+"/tree", "add", "data"))
	must(t, command("-C", dir+"/tree", "commit", "-q", "-m", "data"))
	must(t, command("clone", "-q", "--bare", dir+"/tree", dir+"/repo.git"))

	mux, direct := local(t), local(t)
	serve(t, both(mux, direct, "git", fmt.Sprintf(`exec = [%q, "daemon", "--inetd", "--export-all", "--base-path=%s"]
user = "nobody"
env = { GIT_CONFIG_GLOBAL = "%s/config" }`, git, dir, dir)))
	// git gives the proxy the host and the port of the URL.
	proxy := writeFile(t, dir+"/proxy", 0o755, fmt.Sprintf("#!/bin/sh\nexec %s %s git\n", programs.tcpmux, mux))
	for name, url := range map[string][]string{
		"name": {"-c", "core.gitProxy=" + proxy, "clone", "-q", "git://tcpmuxd.test/repo.git"},
		"port": {"clone", "-q", "git://" + direct + "/repo.git"},
	} {
		copied := filepath.Join(dir, name)
		must(t, command(append(url, copied)...))
		if got, err := os.ReadFile(copied + "/data"); err != nil || !bytes.Equal(got, data) {
			t.Errorf("cloned by %s: %d bytes, %v; want the %d that were committed", name, len(got), err, len(data))
		}
	}
}

func TestRsync(t *testing.T) {
	t.Parallel()
	rsync := find(t, "rsync")
	dir := tempDir(t)
	for _, d := range []string{"served", "client"} {
		if err := os.Mkdir(filepath.Join(dir, d), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chown(dir+"/served", 65534, 65534); err != nil {
		t.Fatal(err)
	}
	config := writeFile(t, dir+"/rsyncd.conf", 0o644, fmt.Sprintf(
		"use chroot = no\nlog file = /dev/null\n[files]\npath = %s/served\nread only = no\n", dir))
	mux, direct := local(t), local(t)
	serve(t, both(mux, direct, "rsync", fmt.Sprintf("exec = [%q, \"--daemon\", \"--config=%s\"]\nuser = \"nobody\"", rsync, config)))
	for _, way := range []struct {
		name, host string
		env        []string
	}{
		{"name", "tcpmuxd.test", []string{"RSYNC_CONNECT_PROG=" + programs.tcpmux + " " + mux + " rsync"}},
		{"port", direct, nil},
	} {
		command := func(from, to string) {
			cmd := exec.Command(rsync, "--checksum", from, to)
			cmd.Env = append([]string{"PATH=/usr/bin:/bin", "HOME=" + dir}, way.env...)
			must(t, cmd)
		}
		data := someBytes(megabyte)
		there := "rsync://" + way.host + "/files/" + way.name
		up := writeFile(t, filepath.Join(dir, "client", way.name+".up"), 0o644, string(data))
		down := filepath.Join(dir, "client", way.name+".down")
		command(up, there)
		command(there, down)
		if got, err := os.ReadFile(down); err != nil || !bytes.Equal(got, data) {
			t.Errorf("by %s: %d bytes come back, %v; want the %d that were sent", way.name, len(got), err, len(data))
		}
	}
}
