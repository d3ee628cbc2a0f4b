// Debian's packages with a line in inetd.conf: their own scripts write it by the real
// update-inetd, which starts the daemon by the real init script and sends it SIGHUP
// from then on. Nothing of the lines is changed, and each service is used by its
// client. Packages that leave the line to the administrator have the one of their
// manual.

package main_test

import (
	"bufio"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
)

// inetdLines are what an administrator adds by update-inetd: the line, and where it
// is from.
var inetdLines = []struct{ line, from string }{
	{`tftp\t\tdgram\tudp\twait\troot\t/usr/sbin/tcpd\t/usr/sbin/in.tftpd -s /srv/tftp`, "tftpd-hpa, before it had a server of its own"},
	{`ftp stream tcp nowait root /usr/sbin/tcpd /usr/sbin/vsftpd`, "vsftpd, INSTALL"},
	{`rsync   stream  tcp     nowait  root   /usr/bin/rsync rsyncd --daemon`, "rsyncd.conf(5)"},
	{`git stream tcp nowait nobody  /usr/bin/git git daemon --inetd --verbose --export-all /srv/git`, "git-daemon(1)"},
	{`2401  stream  tcp  nowait  root  /usr/bin/cvs cvs -f --allow-root=/srv/cvs pserver`, "the manual of cvs"},
}

// A packaged is a service of a package, and how its client finds that it is there.
type packaged struct {
	service string
	use     func(d *debian)
}

// client runs a client, whose output has this.
func (d *debian) client(has string, args ...string) {
	d.Helper()
	hasAll(d.T, fmt.Sprintf("%q", args), d.run(args...), has)
}

// ident asks whose the connection is by which it asks. A line may still be on its way
// into the daemon's table.
func (d *debian) ident(user string) {
	d.Helper()
	d.inside(func() {
		got := ""
		if !poll(bound, func() bool {
			c, err := connect("", "127.0.0.1:113")
			if err != nil {
				return false
			}
			defer c.Close()
			fmt.Fprintf(c, "%d , 113\r\n", c.LocalAddr().(*net.TCPAddr).Port)
			got, _ = bufio.NewReader(c).ReadString('\n')
			return strings.HasSuffix(got, ": USERID : UNIX : "+user+"\r\n")
		}) {
			d.Errorf("ident says %q, want %s", got, user)
		}
	})
}

// atHost is what asks the services of packages, once they run.
var atHost = []packaged{
	{"finger", func(d *debian) {
		d.client("Login: guest", "finger", "guest@localhost")
	}},
	{"ident", func(d *debian) {
		d.ident("root")
	}},
	{"www", func(d *debian) {
		d.client("from 127", "curl", "-sS", "http://127.0.0.1/page.html")
		d.client("from 127", "curl", "-sS", "http://[::1]/page.html")
	}},
	{"telnet", func(d *debian) {
		d.client("I am guest, 42", "expect", "-c", `
			set timeout 20
			proc want {pattern} {
				expect {
					-re $pattern {}
					default { puts "no $pattern"; exit 1 }
				}
			}
			spawn -noecho telnet localhost
			want {login: $}
			send "guest\r"
			want {Password: $}
			send "`+guestPassword+`\r"
			want {\$ $}
			send "echo I am \$(id -un), \$((40 + 2)); exit\r"
			expect eof`)
	}},
	{"ntalk", func(d *debian) {
		d.inside(func() {
			conn, err := net.Dial("udp4", "127.0.0.1:518")
			if err != nil {
				d.Fatal(err)
			}
			defer conn.Close()
			const notHere = 1
			if r := askTalk(d.T, conn, talkLookUp, 0, "b", "a"); r.Answer != notHere {
				d.Errorf("answer %d, want %d", r.Answer, notHere)
			}
		})
	}},
	{"amanda", func(d *debian) {
		d.client("", "setpriv", "--reuid", "backup", "--regid", "backup", "--init-groups",
			"/usr/sbin/amservice", "localhost", "bsdtcp", "noop")
	}},
	{"tftp", func(d *debian) {
		for _, host := range []string{"127.0.0.1", "::1"} {
			d.client("by tftp", "sh", "-c", `tftp -m binary `+host+` -c get file /run/got && cat /run/got`)
		}
	}},
	{"ftp", func(d *debian) {
		d.client("by ftp", "curl", "-sS", "ftp://127.0.0.1/file")
	}},
	{"rsync", func(d *debian) {
		d.client("by rsync", "sh", "-c", `rsync rsync://localhost/files/file /run/synced && cat /run/synced`)
	}},
	{"git", func(d *debian) {
		d.client("refs/heads/main", "git", "ls-remote", "git://localhost/srv/git/repo.git")
	}},
	{"2401", func(d *debian) {
		d.client("Server: Concurrent Versions System", "env", "CVS_PASSFILE=/root/.cvspass",
			"cvs", "-f", "-d", ":pserver:anonymous@localhost:/srv/cvs", "version")
	}},
	{"daytime", func(d *debian) {
		d.answers(13, ":")
	}},
}

// contents is what there is to be served.
const contents = `
	set -e
	useradd -m -s /bin/sh -c 'A Guest' -p '` + guestHash + `' guest
	mkdir -p /srv/tftp /srv/ftp /srv/files /srv/git /srv/cvs /var/www/html
	echo from 127 >/var/www/html/page.html
	echo by tftp >/srv/tftp/file
	echo by ftp >/srv/ftp/file
	echo by rsync >/srv/files/file
	printf '[files]\npath = /srv/files\n' >/etc/rsyncd.conf
	sed -i 's/^listen_ipv6=YES/listen_ipv6=NO/; s/^anonymous_enable=NO/anonymous_enable=YES/' /etc/vsftpd.conf
	git config --system safe.directory '*'
	git init -q -b main --bare /srv/git/repo.git
	git -C /srv/git/repo.git -c user.name=a -c user.email=a@test commit-tree -m first $(git -C /srv/git/repo.git hash-object -t tree -w /dev/null) |
		xargs git -C /srv/git/repo.git update-ref refs/heads/main
	cvs -f -d /srv/cvs init
	echo anonymous::nobody >/srv/cvs/CVSROOT/passwd
	echo SystemAuth=no >/srv/cvs/CVSROOT/config
	chown -R nobody /srv/cvs
	: >/root/.cvspass
`

// serves uses services, side by side; none named: all of them.
func (d *debian) serves(services ...string) {
	d.Helper()
	d.T.Run("clients", func(t *testing.T) {
		for _, s := range atHost {
			if len(services) > 0 && !slices.Contains(services, s.service) {
				continue
			}
			t.Run(s.service, func(t *testing.T) {
				t.Parallel()
				on := *d
				on.T = t
				s.use(&on)
			})
		}
	})
}

// allPackages are installed, in this order.
var allPackages = []string{"fingerd", "ident2", "micro-httpd", "inetutils-telnetd", "amanda-common", "talkd", "tftpd-hpa", "vsftpd"}

// installAll makes the machine serve all packages: with the first of them the daemon
// is started.
func (d *debian) installAll() {
	d.Helper()
	d.install(allPackages...)
	d.run("update-inetd", "--enable", "telnet")
	for _, l := range inetdLines {
		d.run("update-inetd", "--add", l.line)
	}
	d.edit("/etc/inetd.conf", "#daytime", "daytime")
}

// reloaded reloads the daemon, and waits until it serves every line there is.
func (d *debian) reloaded() {
	d.Helper()
	rows := 0
	for line := range strings.Lines(d.read("/etc/inetd.conf")) {
		if strings.TrimSpace(line) != "" && line[0] != '#' {
			rows++
		}
	}
	d.run("/etc/init.d/"+d.pkg, "reload")
	if !poll(bound, func() bool {
		return strings.Contains(d.read("/run/log"), fmt.Sprintf("msg=reloaded file=/etc/inetd.conf rows=%d", rows))
	}) {
		d.Fatalf("it does not serve %d rows", rows)
	}
}

// TestDebianPackages: openbsd-inetd, whose file is written by packages alone.
func TestDebianPackages(t *testing.T) {
	t.Parallel()
	d := newDebian(t, "openbsd-inetd")
	d.install("openbsd-inetd")
	if list := d.daemons(); len(list) > 0 {
		t.Errorf("without a service there is %q", list)
	}
	d.run("sh", "-c", contents)
	d.installAll()
	pid := d.serving()
	d.reloaded()
	d.serves()
	if now := d.serving(); now != pid {
		t.Errorf("another daemon serves: %s, not %s", now, pid)
	}
	// The wrapper of the lines is the real one, and obeyed.
	d.write("/etc/hosts.deny", "in.fingerd: ALL\n")
	d.inside(func() { dial(t, "", "127.0.0.1:79") })
	if !poll(bound, func() bool { return strings.Contains(d.read("/run/log"), "refused connect from 127.0.0.1") }) {
		t.Error("tcpd does not refuse whom hosts.deny keeps out")
	}
	// Another package for the same service replaces the line of the first one.
	d.install("nullidentd")
	d.ident("foobar")
	d.stops()
	// And the file by itself, under the daemon's own name.
	d.write("/etc/hosts.deny", "")
	direct := d.command(programs.checked, "-c", "/etc/inetd.conf")
	direct.Stderr = t.Output()
	if err := direct.Start(); err != nil {
		t.Fatal(err)
	}
	d.answers(13, ":")
	d.client("Login: guest", "finger", "guest@localhost")
	list := d.daemons()
	if len(list) != 1 {
		t.Fatalf("there is %q", list)
	}
	d.run("kill", list[0])
	if err := direct.Wait(); err != nil {
		t.Error(err)
	}
}

// TestDebianXinetd: xinetd.conf with the files that packages put into xinetd.d or have
// as examples for it, and the lines of other packages in inetd.conf, which Debian's
// xinetd reads, too.
func TestDebianXinetd(t *testing.T) {
	t.Parallel()
	d := newDebian(t, "xinetd")
	d.run("sh", "-c", contents)
	d.script("openbsd-inetd", "preinst", "install") // an inetd.conf to add to
	d.install("xinetd")
	d.serving() // the file of amanda-common is there
	d.install("amanda-common", "fingerd", "ident2", "micro-httpd")
	d.run("cp", "/usr/share/doc/fingerd/examples/finger.xinetd", "/etc/xinetd.d/finger")
	d.edit("/etc/xinetd.d/daytime", "= yes", "= no")
	d.service("reload", 0)
	d.answers(13, ":")
	d.serves("finger", "ident", "www", "amanda", "daytime")
	if log := d.read("/run/log"); !strings.Contains(log, "amanda: is the id of a service of xinetd") {
		t.Error("the log does not say that xinetd's service amanda hides the line of that name")
	}
	d.edit("/etc/xinetd.d/finger", "= no", "= yes")
	d.service("reload", 0)
	if !poll(bound, func() bool { return strings.Contains(d.ask(79, "guest\r\n"), "refused") }) {
		t.Errorf("a service that is disabled does not hide its line: %q", d.ask(79, "guest\r\n"))
	}
	d.stops()
}
