// A Debian to install packages in: their files are where dpkg puts them, their
// scripts run as dpkg runs them, ports and paths are their own, and the program
// of the super-server, of all that, is tcpmuxd. What the tests of it show stands
// in debian_*_linux_test.go.

package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// A debian is a few namespaces: files, network, processes. They go with their first
// process, which waits for the end of its standard input.
type debian struct {
	*testing.T
	pid  int    // of the first process
	pkg  string // of the super-server
	exec string // where that package has its program
}

// inetdPrograms are the packages with a super-server, of which Debian lets one be
// installed at a time.
var inetdPrograms = map[string]string{
	"openbsd-inetd":   "/usr/sbin/inetd",
	"inetutils-inetd": "/usr/sbin/inetutils-inetd",
	"xinetd":          "/usr/sbin/xinetd",
}

// machineScript makes the machine, in namespaces that are there: its root is this
// machine's, with what is written to it in memory, and with the files of the unpacked
// packages. $0 is where those are, $1 an empty directory, $2 what shall be the program
// $3, and the rest is to be removed. Of services that packages would start, only a
// super-server is.
const machineScript = `
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs $1
cd $1
mkdir upper work root
mount -t overlay overlay -o lowerdir=/,upperdir=upper,workdir=work root
cd root
for dir in etc usr var; do cp -a $0/$dir .; done
cp -a $0/lib usr
mount -t proc proc proc
mount -t tmpfs tmpfs run
mount -t tmpfs tmpfs dev
mkdir run/lock dev/pts dev/shm
for file in null zero full random urandom tty; do
	: >dev/$file
	mount --bind /dev/$file dev/$file
done
mount -t devpts -o newinstance,ptmxmode=0666,mode=620,gid=5 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mkdir -p .${2%/*}
mount --bind ${2%/*} .${2%/*}
mkdir old
pivot_root . old
umount -l /old
rmdir /old
printf '127.0.0.1 localhost\n::1 localhost\n' >/etc/hosts
: >/etc/resolv.conf
ip link set lo up
ip address add 192.0.2.1/32 dev lo # without one that is not of loopback some resolve no name
ln -sf "$2" "$3"
shift 3
rm -rf "$@"
printf '#!/bin/sh\ncase $1 in *inetd) exit 104 ;; esac\nexit 101\n' >/usr/sbin/policy-rc.d
chmod 755 /usr/sbin/policy-rc.d
exec perl -e '
	use Socket;
	$SIG{CHLD} = "IGNORE"; # whoever is left to it is gone when it ends
	umask 0;
	socket(LOG, AF_UNIX, SOCK_DGRAM, 0) && bind(LOG, sockaddr_un("/dev/log")) && open(FILE, ">/run/log") or die $!;
	syswrite STDOUT, "ready\n";
	vec($both, fileno STDIN, 1) = vec($both, fileno LOG, 1) = 1;
	while (select($r = $both, undef, undef, undef) != 0 && !vec($r, fileno STDIN, 1)) {
		syswrite FILE, "$line\n" if defined recv LOG, $line, 65536, 0;
	}'
`

// newDebian boots a machine on which the files of a super-server's package are, and
// those of all others that contrib/ci/deps has unpacked.
func newDebian(t *testing.T, pkg string) *debian {
	t.Helper()
	needRoot(t)
	d := &debian{T: t, pkg: pkg, exec: inetdPrograms[pkg]}
	args := []string{"-c", machineScript, unpacked, t.TempDir(), programs.checked, d.exec}
	for other, program := range inetdPrograms {
		if other != pkg {
			args = append(args, program, "/etc/init.d/"+other, "/etc/"+other+".conf", "/etc/"+other+".d")
		}
	}
	cmd := exec.Command("/bin/sh", args...)
	cmd.Env = d.environ()
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNS | syscall.CLONE_NEWNET | syscall.CLONE_NEWPID}
	cmd.Stderr = t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the log of the machine:\n%s", d.read("/run/log"))
		}
		for _, name := range d.glob("/run/race.*") {
			t.Errorf("%s:\n%s", name, d.read(name))
		}
		in.Close()
		cmd.Wait()
	})
	d.pid = cmd.Process.Pid
	if line, err := bufio.NewReader(out).ReadString('\n'); line != "ready\n" {
		t.Fatalf("the machine does not come up: %q, %v", line, err)
	}
	return d
}

func (d *debian) environ() []string {
	return []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C", "DEBIAN_FRONTEND=noninteractive",
		"GORACE=atexit_sleep_ms=0 exitcode=66 log_path=/run/race"}
}

// path is where a file of the machine is found from outside.
func (d *debian) path(name string) string { return fmt.Sprintf("/proc/%d/root%s", d.pid, name) }

// read is the text of a file, or nothing.
func (d *debian) read(name string) string {
	text, _ := os.ReadFile(d.path(name))
	return string(text)
}

func (d *debian) glob(pattern string) (names []string) {
	paths, _ := filepath.Glob(d.path(pattern))
	for _, p := range paths {
		names = append(names, strings.TrimPrefix(p, d.path("")))
	}
	return names
}

func (d *debian) write(name, text string) {
	d.Helper()
	if err := os.MkdirAll(filepath.Dir(d.path(name)), 0o755); err != nil {
		d.Fatal(err)
	}
	writeFile(d.T, d.path(name), 0o644, text)
}

// edit replaces what has to be in a file, as an administrator does.
func (d *debian) edit(name, old, with string) {
	d.Helper()
	text := d.read(name)
	if !strings.Contains(text, old) {
		d.Fatalf("%s has no %q:\n%s", name, old, text)
	}
	d.write(name, strings.ReplaceAll(text, old, with))
}

// command is a program of the machine, to be run there by root.
func (d *debian) command(args ...string) *exec.Cmd {
	// It ends by itself if it hangs: without nsenter nobody would reap it.
	cmd := exec.Command("nsenter", append([]string{"-t", fmt.Sprint(d.pid), "-m", "-n", "-p", "--", "timeout", "-k1", "25"}, args...)...)
	cmd.Env = d.environ()
	cmd.Dir = "/"
	cmd.WaitDelay = bound // for what is started and has not left the terminal yet
	return cmd
}

// run runs a program that has to succeed, and returns what it has written.
func (d *debian) run(args ...string) string {
	d.Helper()
	r := d.try(args...)
	if r.code != 0 {
		d.Fatalf("%q: exit code %d\n%s%s", args, r.code, r.stdout, r.stderr)
	}
	return r.stdout
}

// try runs a program.
func (d *debian) try(args ...string) result {
	d.Helper()
	return run(d.T, d.command(args...))
}

// script runs a maintainer's script as dpkg does.
func (d *debian) script(pkg, script string, args ...string) string {
	d.Helper()
	name := "/var/lib/dpkg/info/" + pkg + "." + script
	if d.read(name) == "" {
		d.Fatalf("there is no %s: contrib/ci/deps check unpacks it", name)
	}
	return d.run(append([]string{"env", "DPKG_MAINTSCRIPT_PACKAGE=" + pkg, "DPKG_MAINTSCRIPT_NAME=" + script, name}, args...)...)
}

// install does what remains to be done for packages that are unpacked.
func (d *debian) install(packages ...string) {
	d.Helper()
	for _, pkg := range packages {
		if d.read("/var/lib/dpkg/info/"+pkg+".preinst") != "" {
			d.script(pkg, "preinst", "install")
		}
		d.script(pkg, "postinst", "configure", "")
	}
}

// pidFile is where the daemon writes its number.
func (d *debian) pidFile() string {
	if d.pkg == "xinetd" {
		return "/run/xinetd.pid"
	}
	return "/run/inetd.pid"
}

// serving is the number of the daemon, inside, once it serves.
func (d *debian) serving() (pid string) {
	d.Helper()
	if !poll(bound, func() bool {
		pid = strings.TrimSpace(d.read(d.pidFile()))
		return pid != "" && d.read("/proc/"+pid+"/stat") != ""
	}) {
		d.Fatalf("the daemon does not come up: its pid file has %q", pid)
	}
	return pid
}

// daemons are those of the machine, by number.
func (d *debian) daemons() (list []string) {
	for _, dir := range d.glob("/proc/[1-9]*") {
		if exe, err := os.Readlink(d.path(dir + "/exe")); err == nil && exe == programs.checked {
			list = append(list, filepath.Base(dir))
		}
	}
	slices.Sort(list)
	return list
}

// inside runs f in the network of the machine.
func (d *debian) inside(f func()) {
	d.Helper()
	inNetworkOf(d.T, d.pid, f)
}
