// Real servers that know users: a login on a terminal, mail in and out, finger,
// ident, and a screen. What they read of the system is an /etc of the test's
// own, with a user of its own.

package main_test

import (
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// The user of the private system. The hash is what openssl passwd -6 makes of
// the password.
const (
	guestPassword = "open sesame"
	guestHash     = "$6$tcpmuxdtest$LqH0Gcs46Cz0H8A0I1eAhACujGc11oYNBZAqbORVMTpDC2dLb.EAspdj8NS7LBf18K.x3uPdhltsocMtcYO3R."
	guestID       = 31001
)

// privateSystem makes what a server of users looks at: accounts, with a guest
// who has a password; a PAM that asks for no more than that; mail boxes; logs.
// It returns the directory that stands for /, and the command that runs a daemon
// with it.
func privateSystem(t *testing.T) (root string, wrap []string) {
	t.Helper()
	etc, _ := privateEtc(t)
	root = filepath.Dir(etc)
	home := directory(t, 0o700, root, "home")
	if err := os.Chown(home, guestID, guestID); err != nil {
		t.Fatal(err)
	}
	add := func(name, text string) { writeFile(t, etc+"/"+name, 0o644, readFile(t, etc+"/"+name)+text) }
	add("passwd", fmt.Sprintf("guest:x:%d:%[1]d:A Guest,Room 7:%s:/bin/sh\n", guestID, home)+
		"popa3d:x:31002:31002::/var/lib/popa3d:/usr/sbin/nologin\nDebian-exim:x:31003:31003::/var/spool/exim4:/usr/sbin/nologin\n")
	add("group", fmt.Sprintf("guest:x:%d:\npopa3d:x:31002:\nDebian-exim:x:31003:\n", guestID))
	writeFile(t, etc+"/shadow", 0o600, "guest:"+guestHash+":20000:0:99999:7:::\n")
	writeFile(t, etc+"/hosts", 0o644, "127.0.0.1 tcpmuxd.test\n")
	writeFile(t, etc+"/login.defs", 0o644, "")
	directory(t, 0o755, etc, "pam.d")
	writeFile(t, etc+"/pam.d/other", 0o644, "auth required pam_unix.so nodelay\naccount required pam_unix.so\nsession required pam_permit.so\n")
	// What is written there is written here. popa3d confines itself to the
	// directory below var/lib.
	directory(t, 0o755, root, "var")
	for _, name := range []string{"run", "var/lib", "var/log", "var/mail"} {
		directory(t, 0o755, root, name)
	}
	directory(t, 0o755, root, "var/lib/popa3d")
	return root, []string{find(t, "unshare"), "--mount", "--propagation", "private", "/bin/sh", "-c",
		`for dir in etc run var/lib var/log var/mail; do mount --bind "$0/$dir" "/$dir" || exit; done; exec "$@"`, root}
}

// privateNetwork is the command that runs a daemon in a network of its own, where
// the ports that some clients insist on are free.
func privateNetwork(t *testing.T) (wrap []string) {
	t.Helper()
	return []string{find(t, "unshare"), "--net", "/bin/sh", "-c", `"$0" link set lo up && exec "$@"`, find(t, "ip")}
}

// A login on a terminal, as somebody would who has only telnet.
func TestTelnet(t *testing.T) {
	t.Parallel()
	expect, telnet := find(t, "expect"), find(t, "telnet")
	_, wrap := privateSystem(t)
	d, ways := bothWaysAs(t, "telnet", fmt.Sprintf("exec = [%q]\nuser = \"root\"", peer(t, "telnetd")), &how{wrap: wrap})
	script := writeFile(t, tempDir(t)+"/script", 0o644, `
set timeout 20
proc want {pattern} {
	expect {
		-re $pattern {}
		timeout { puts "\nno $pattern came"; exit 1 }
		eof { puts "\nthe end came, and not $pattern"; exit 1 }
	}
}
lassign $argv telnet host port password
spawn -noecho $telnet $host $port
want {login: $}
send "guest\r"
want {Password: $}
send "wrong\r"
want {Login incorrect}
want {login: $}
send "guest\r"
want {Password: $}
send "$password\r"
want {\$ $}
send "tty; echo I am \$(id -un), \$((40 + 2))\r"
want {/dev/pts/[0-9]+\r\n}
want {I am guest, 42\r\n}
# The terminal turns a character into a signal. The server throws away what it has
# not sent yet, which may be the prompt: another line brings another one, of the
# shell and not of cat.
send "cat\r"
want {cat\r\n}
send "here\r"
want {here\r\nhere\r\n}
send "\x03"
set timeout 1
set tries 20
expect {
	-re {\$ $} {}
	timeout {
		if {[incr tries -1] == 0} { puts "\ncat lives on"; exit 1 }
		send "\r"
		exp_continue
	}
	eof { puts "\nthe end came"; exit 1 }
}
set timeout 20
send "exit\r"
expect eof
`)
	for _, w := range ways {
		out := must(t, exec.Command(expect, "-f", script, telnet, w.host, w.port, guestPassword))
		if strings.Contains(out, guestPassword) {
			t.Errorf("%s: the password is shown: %q", w.name, out)
		}
	}
	d.endedBoth("telnet", 1)
}

func TestPOP3(t *testing.T) {
	t.Parallel()
	curl := find(t, "curl")
	root, wrap := privateSystem(t)
	d, ways := bothWaysAs(t, "pop3", fmt.Sprintf("exec = [%q]\nuser = \"root\"", peer(t, "popa3d")), &how{wrap: wrap})
	for _, w := range ways {
		box := writeFile(t, root+"/var/mail/guest", 0o600, "From a@test Mon Nov 23 00:00:00 2026\nSubject: by any name\n\nHello, "+w.name+"\n")
		if err := os.Chown(box, guestID, guestID); err != nil {
			t.Fatal(err)
		}
		command := func(path string, args ...string) *exec.Cmd {
			return exec.Command(curl, append([]string{"-sS", "--user", "guest:" + guestPassword, "pop3://" + w.addr + path}, args...)...)
		}
		hasAll(t, w.name, must(t, command("/1")), "Subject: by any name", "Hello, "+w.name)
		if r := run(t, exec.Command(curl, "-sS", "--user", "guest:wrong", "pop3://"+w.addr+"/1")); r.code != 67 {
			t.Errorf("%s: with a wrong password curl exits with %d, want 67", w.name, r.code)
		}
		must(t, command("/1", "--request", "DELE", "--head"))
		alike(t, w.name+": what is left", readFile(t, box), "")
	}
	d.endedBoth("pop3", 3)
}

// exim takes a mail as an inetd server and delivers it itself.
func TestSMTP(t *testing.T) {
	t.Parallel()
	curl, exim := find(t, "curl"), peer(t, "exim4")
	root, wrap := privateSystem(t)
	boxes := directory(t, 0o777, root, "boxes")
	directory(t, 0o755, root, "etc/exim4")
	directory(t, 0o777, root, "spool")
	writeFile(t, root+"/etc/exim4/exim4.conf", 0o644, fmt.Sprintf(`
exim_path = %[2]s
primary_hostname = tcpmuxd.test
spool_directory = %[1]s/spool
log_file_path = %[1]s/spool/%%slog
host_lookup =
rfc1413_query_timeout = 0s
tls_advertise_hosts =
keep_environment =
acl_smtp_rcpt = rcpt
acl_smtp_data = data
begin acl
rcpt:
	accept domains = tcpmuxd.test
	deny message = not here
data:
	accept
begin routers
all:
	driver = accept
	transport = box
begin transports
box:
	driver = appendfile
	file = %[3]s/guest
	user = nobody
	group = nogroup
`, root, exim, boxes))
	t.Cleanup(func() {
		if t.Failed() {
			for _, name := range []string{"main", "reject", "panic"} {
				text, _ := os.ReadFile(root + "/spool/" + name + "log")
				t.Logf("exim's %slog:\n%s", name, text)
			}
		}
	})
	d, ways := bothWaysAs(t, "smtp", fmt.Sprintf("exec = [%q, \"-bs\", \"-odf\"]\nuser = \"root\"", exim), &how{wrap: wrap})
	for _, w := range ways {
		mail := writeFile(t, filepath.Join(root, "mail"), 0o644, "Subject: test\r\n\r\nHello, "+w.name+"\r\n")
		command := func(to string) *exec.Cmd {
			return exec.Command(curl, "-sS", "smtp://"+w.addr+"/client.test", "--mail-from", "a@client.test", "--mail-rcpt", to, "--upload-file", mail)
		}
		must(t, command("guest@tcpmuxd.test"))
		box := func() string {
			text, _ := os.ReadFile(boxes + "/guest")
			return string(text)
		}
		poll(bound, func() bool { return strings.Contains(box(), "Hello, "+w.name) })
		hasAll(t, w.name, box(), "From a@client.test", "(helo=client.test)", "with esmtp", "Hello, "+w.name)
		if r := run(t, command("guest@elsewhere.test")); r.code != 55 {
			t.Errorf("%s: a mail for elsewhere: curl exits with %d, want 55: %s", w.name, r.code, r.stderr)
		}
	}
	d.endedBoth("smtp", 2, "status", "0")
}

// The client of finger has no flag for the port, and the server none for where
// its users are.
func TestFinger(t *testing.T) {
	t.Parallel()
	finger := find(t, "finger")
	_, wrap := privateSystem(t)
	row := fmt.Sprintf("exec = [%q]\nuser = \"nobody\"", peer(t, "in.fingerd"))
	d := serveAs(t, both("127.0.0.1:1", "127.0.0.1:79", "finger", row), &how{wrap: append(privateNetwork(t), wrap...)})
	inNetworkOf(t, d.pid, func() {
		hasAll(t, "by port", run(t, exec.Command(finger, "guest@127.0.0.1")).stdout, "Login: guest", "Name: A Guest", "Office: Room 7")
		client := exec.Command(programs.tcpmux, "127.0.0.1", "finger")
		client.Stdin = strings.NewReader("guest\r\n")
		hasAll(t, "by name", run(t, client).stdout, "Login: guest", "Name: A Guest", "Office: Room 7")
	})
	d.endedBoth("finger", 1, "status", "0")
}

// ident tells whose a connection is; here it is one of the test's own.
func TestIdent(t *testing.T) {
	t.Parallel()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := dial(t, "", l.Addr().String())
	ports := fmt.Sprintf("%d , %d", c.LocalAddr().(*net.TCPAddr).Port, c.RemoteAddr().(*net.TCPAddr).Port)
	d, ways := bothWays(t, "auth", fmt.Sprintf("exec = [%q]\nuser = \"root\"", peer(t, "ident2")))
	for _, w := range ways {
		q := dial(t, "", w.addr)
		io.WriteString(q, ports+"\r\n")
		hear(t, q, ports+" : USERID : UNIX : root\r\n")
		q.Close()
	}
	d.endedBoth("auth", 1)
}

// A screen for each connection, as a display manager's inetd row has it. What
// the X server has to say goes to stderr, which must not be the connection.
func TestXvnc(t *testing.T) {
	t.Parallel()
	d, ways := bothWays(t, "vnc", fmt.Sprintf(`exec = [%q, "-inetd", "-SecurityTypes", "None", "-geometry", "80x60", "-depth", "24", "-nolisten", "tcp", "-nolisten", "unix"]
user = "nobody"`, find(t, "Xvnc")))
	for _, w := range ways {
		c := dial(t, "", w.addr)
		hear(t, c, "RFB 003.008\n")
		io.WriteString(c, "RFB 003.008\n")
		hear(t, c, "\x01\x01") // one way to prove who one is: none
		io.WriteString(c, "\x01")
		hear(t, c, "\x00\x00\x00\x00")
		io.WriteString(c, "\x01") // shared
		var screen struct {
			Width, Height uint16
			Format        [16]byte
			Name          uint32
		}
		if err := binary.Read(c, binary.BigEndian, &screen); err != nil || screen.Width != 80 || screen.Height != 60 {
			t.Fatalf("%s: the screen is %d x %d, %v; want 80 x 60", w.name, screen.Width, screen.Height, err)
		}
		if _, err := io.CopyN(io.Discard, c, int64(screen.Name)); err != nil {
			t.Fatal(err)
		}
		// The whole screen, as it comes: a header, one rectangle, raw pixels.
		c.Write([]byte{3, 0, 0, 0, 0, 0, 0, 80, 0, 60})
		pixels := make([]byte, 4+12+80*60*4)
		if n, err := io.ReadFull(c, pixels); err != nil {
			t.Errorf("%s: %d bytes of the picture, %v; want %d", w.name, n, err, len(pixels))
		}
		hearsPicture := string(pixels[:4]) == "\x00\x00\x00\x01" && binary.BigEndian.Uint16(pixels[8:]) == 80
		if !hearsPicture {
			t.Errorf("%s: the picture begins with %x", w.name, pixels[:16])
		}
		c.Close()
	}
	d.endedBoth("vnc", 1)
}
