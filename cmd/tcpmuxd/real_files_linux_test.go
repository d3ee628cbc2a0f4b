// Real servers that hand out files: FTP, HTTP, SMB, Subversion, CVS and a disk.

package main_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

func TestFTP(t *testing.T) {
	t.Parallel()
	curl := find(t, "curl")
	servers := map[string]func(t *testing.T, dir string) (row string){
		"vsftpd": func(t *testing.T, dir string) string {
			return fmt.Sprintf("exec = [%q, %q]\nuser = \"root\"", peer(t, "vsftpd"), writeFile(t, dir+"/vsftpd.conf", 0o600, fmt.Sprintf(`
listen=NO
local_enable=NO
anonymous_enable=YES
anon_root=%s/files
ftp_username=daemon
secure_chroot_dir=%s
xferlog_enable=NO
`, dir, directory(t, 0o755, dir, "empty"))))
		},
		"proftpd": func(t *testing.T, dir string) string {
			return fmt.Sprintf("exec = [%q, \"-c\", %q]\nuser = \"root\"", peer(t, "proftpd"), writeFile(t, dir+"/proftpd.conf", 0o600, fmt.Sprintf(`
ServerType inetd
ServerName tcpmuxd.test
DefaultAddress 127.0.0.1
ModulePath %s/usr/lib/proftpd
User nobody
Group nogroup
ScoreboardFile none
SystemLog none
WtmpLog off
DelayEngine off
<Anonymous %s/files>
	User nobody
	Group nogroup
	UserAlias anonymous nobody
	RequireValidShell off
	AnonRequirePassword off
</Anonymous>
`, unpacked, dir)))
		},
	}
	for name, configure := range servers {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dir := tempDir(t)
			directory(t, 0o755, dir, "files")
			data := string(someBytes(megabyte))
			writeFile(t, dir+"/files/data", 0o644, data)
			d, ways := bothWays(t, name, configure(t, dir))
			for _, w := range ways {
				// --disable-epsv: the other mode is asked for in the second run.
				hasAll(t, w.name, must(t, exec.Command(curl, "-sS", "ftp://"+w.addr+"/")), "data", fmt.Sprint(megabyte))
				alike(t, w.name, must(t, exec.Command(curl, "-sS", "--disable-epsv", "ftp://"+w.addr+"/data")), data)
			}
			// vsftpd exits with 2 if the peer has gone when it says goodbye.
			d.endedBoth(name, 2)
		})
	}
}

func TestMicroHTTPD(t *testing.T) {
	t.Parallel()
	dir, curl := tempDir(t), find(t, "curl")
	data := string(someBytes(megabyte))
	writeFile(t, dir+"/data.html", 0o644, data)
	d, ways := bothWays(t, "http", fmt.Sprintf("exec = [%q, %q]\nuser = \"nobody\"", peer(t, "micro-httpd"), dir))
	for _, w := range ways {
		alike(t, w.name, must(t, exec.Command(curl, "-sS", "http://"+w.addr+"/data.html")), data)
		hasAll(t, w.name, must(t, exec.Command(curl, "-sS", "http://"+w.addr+"/")), "data.html")
		if r := run(t, exec.Command(curl, "-sSf", "http://"+w.addr+"/none")); r.code != 22 {
			t.Errorf("%s: a file that is not there: curl exits with %d, %s", w.name, r.code, r.stderr)
		}
	}
	for _, id := range []string{"http", "tcpmux/+http"} {
		d.waitForN(2, "end", "service", id, "status", "0")
		d.waitFor("end", "service", id, "status", "1") // the file that is not there
	}
}

// smbd, which has no flag for it, finds out that its descriptor 0 is a socket.
// At its end it sends SIGTERM to its whole process group, itself included: the
// daemon is not in it, because every program has a session of its own.
func TestSamba(t *testing.T) {
	t.Parallel()
	smbd, smbclient := find(t, "smbd"), find(t, "smbclient")
	dir := tempDir(t)
	data := string(someBytes(megabyte))
	writeFile(t, directory(t, 0o755, dir, "files")+"/data", 0o644, data)
	directory(t, 0o755, dir, "run")
	// Without "change notify" it does not depend on a process of its own that a
	// server for one connection has hardly started when it is needed.
	config := writeFile(t, dir+"/smb.conf", 0o644, fmt.Sprintf(`
[global]
server role = standalone server
map to guest = bad user
guest account = nobody
private dir = %[1]s/run
lock directory = %[1]s/run
state directory = %[1]s/run
cache directory = %[1]s/run
pid directory = %[1]s/run
ncalrpc dir = %[1]s/run/ncalrpc
log file = %[1]s/log
load printers = no
disable spoolss = yes
change notify = no
[files]
path = %[1]s/files
guest ok = yes
`, dir))
	d, ways := bothWays(t, "smb", fmt.Sprintf("exec = [%q, \"-s\", %q]\nuser = \"root\"", smbd, config))
	t.Cleanup(func() {
		if t.Failed() {
			text, _ := os.ReadFile(dir + "/log")
			t.Logf("smbd says:\n%s", text)
		}
	})
	for _, w := range ways {
		copied := filepath.Join(dir, w.name)
		must(t, exec.Command(smbclient, "-s", config, "-N", "-p", w.port, "//"+w.host+"/files", "-c", fmt.Sprintf("get data %q", copied)))
		alike(t, w.name, readFile(t, copied), data)
	}
	d.endedBoth("smb", 1, "signal", "SIGTERM")
}

func TestSubversion(t *testing.T) {
	t.Parallel()
	svn, svnserve, svnadmin := find(t, "svn"), find(t, "svnserve"), find(t, "svnadmin")
	dir := tempDir(t)
	must(t, exec.Command(svnadmin, "create", dir+"/repo"))
	must(t, exec.Command("chown", "-R", "nobody", dir+"/repo"))
	writeFile(t, dir+"/repo/conf/svnserve.conf", 0o644, "[general]\nanon-access = write\n")
	data := string(someBytes(megabyte))
	writeFile(t, dir+"/data", 0o644, data)
	d, ways := bothWays(t, "svn", fmt.Sprintf("exec = [%q, \"-i\", \"-r\", %q]\nuser = \"nobody\"", svnserve, dir))
	for i, w := range ways {
		command := func(args ...string) *exec.Cmd {
			return exec.Command(svn, append([]string{"--non-interactive", "--config-dir", dir + "/client"}, args...)...)
		}
		url := fmt.Sprintf("svn://%s/repo/data%d", w.addr, i)
		must(t, command("import", "-q", "-m", "data", dir+"/data", url))
		alike(t, w.name, must(t, command("cat", url)), data)
	}
	for _, id := range []string{"svn", "tcpmux/+svn"} {
		n := len(d.events("start", "service", id))
		if n < 2 {
			t.Errorf("%s was started %d times", id, n)
		}
		d.ended(id, n, "status", "0")
	}
}

func TestCVS(t *testing.T) {
	t.Parallel()
	cvs := find(t, "cvs")
	dir := tempDir(t)
	repo := directory(t, 0o755, dir, "repo")
	must(t, exec.Command(cvs, "-f", "-d", repo, "init"))
	writeFile(t, repo+"/CVSROOT/passwd", 0o644, "anonymous::nobody\n")
	writeFile(t, repo+"/CVSROOT/config", 0o644, "SystemAuth=no\n")
	directory(t, 0o755, repo, "module")
	must(t, exec.Command("chown", "-R", "nobody", repo))
	writeFile(t, dir+"/pass", 0o600, "")
	// It becomes the user of CVSROOT/passwd itself.
	d, ways := bothWays(t, "cvspserver", fmt.Sprintf("exec = [%q, \"-f\", \"--allow-root=%s\", \"pserver\"]\nuser = \"root\"", cvs, repo))
	command := func(w way, in string, args ...string) {
		t.Helper()
		root := fmt.Sprintf(":pserver:anonymous:@%s:%s%s", w.host, w.port, repo)
		cmd := exec.Command(cvs, append([]string{"-f", "-Q", "-d", root}, args...)...)
		cmd.Dir, cmd.Env = in, []string{"PATH=/usr/bin:/bin", "HOME=" + dir, "CVS_PASSFILE=" + dir + "/pass", "LOGNAME=anonymous"}
		must(t, cmd)
	}
	// By port in, by name out: cvs waits for the clock after each command.
	data := string(someBytes(megabyte))
	command(ways[0], dir, "checkout", "-d", "in", "module")
	writeFile(t, dir+"/in/data", 0o644, data)
	command(ways[0], dir+"/in", "add", "-kb", "data")
	command(ways[0], dir+"/in", "commit", "-m", "data", "data")
	command(ways[1], dir, "checkout", "-d", "out", "module")
	alike(t, "what comes out", readFile(t, dir+"/out/data"), data)
	d.ended("cvspserver", 3, "status", "0")
	d.ended("tcpmux/+cvspserver", 1, "status", "0")
}

func TestNBD(t *testing.T) {
	t.Parallel()
	nbdkit, nbdinfo, nbdcopy := find(t, "nbdkit"), find(t, "nbdinfo"), find(t, "nbdcopy")
	dir := tempDir(t)
	data := string(someBytes(megabyte))
	disk := writeFile(t, dir+"/disk", 0o644, data)
	d, ways := bothWays(t, "nbd", fmt.Sprintf("exec = [%q, \"--single\", \"--readonly\", \"file\", %q]\nuser = \"nobody\"", nbdkit, disk))
	for _, w := range ways {
		url := "nbd://" + w.addr + "/"
		alike(t, w.name, must(t, exec.Command(nbdinfo, "--size", url)), fmt.Sprintln(megabyte))
		copied := filepath.Join(dir, w.name)
		// One connection: that is what --single has.
		must(t, exec.Command(nbdcopy, "--connections=1", url, copied))
		alike(t, w.name, readFile(t, copied), data)
	}
	d.endedBoth("nbd", 2, "status", "0")
}
