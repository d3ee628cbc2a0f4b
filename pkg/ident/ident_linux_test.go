package ident

// Real connections, whose owners the kernel is asked for, and real homes.

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// bound is how long anything here may take.
const bound = 20 * time.Second

// needRoot fails: a test that was not run must not look like one that passed.
func needRoot(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the tests are other users now and then: run them as root")
	}
}

// stranger is the user of some connections; he has no entry in passwd(5).
const stranger = 54321

func ends(c net.Conn) (local, remote netip.AddrPort) {
	return netip.MustParseAddrPort(c.LocalAddr().String()), netip.MustParseAddrPort(c.RemoteAddr().String())
}

// connect has a process of another user connect to a listener, and returns the ends
// of that connection as the user's machine sees them.
func connect(t *testing.T, l net.Listener, uid uint32) (local, remote netip.AddrPort) {
	t.Helper()
	host, port, err := net.SplitHostPort(l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if host == "::" {
		host = "127.0.0.1"
	}
	cmd := exec.Command("/bin/bash", "-c", fmt.Sprintf("exec 3<>/dev/tcp/%s/%s; read <&3", host, port))
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uid, Gid: uid}, Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	l.(*net.TCPListener).SetDeadline(time.Now().Add(bound))
	c, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	theirs, ours := ends(c)
	return ours, theirs
}

func TestOwner(t *testing.T) {
	needRoot(t)
	testkit.Check(t)
	for _, at := range []string{"127.0.0.2:0", "[::1]:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			l, err := net.Listen("tcp", at)
			if err != nil {
				t.Fatal(err)
			}
			defer l.Close()
			local, remote := connect(t, l, stranger)
			if uid, err := owner(local, remote); uid != stranger || err != nil {
				t.Errorf("%v to %v is %d's, %v", local, remote, uid, err)
			}
			// The other end is this process's, and is another connection.
			if uid, err := owner(remote, local); uid != 0 || err != nil {
				t.Errorf("%v to %v is %d's, %v", remote, local, uid, err)
			}
			mapped := func(a netip.AddrPort) netip.AddrPort {
				return netip.AddrPortFrom(netip.AddrFrom16(a.Addr().As16()), a.Port())
			}
			if uid, err := owner(mapped(local), mapped(remote)); uid != stranger || err != nil {
				t.Errorf("mapped, it is %d's, %v", uid, err)
			}
			other := netip.MustParseAddr("127.0.0.3")
			if local.Addr().Is6() {
				other = netip.MustParseAddr("::2")
			}
			for _, x := range [][2]netip.AddrPort{
				{netip.AddrPortFrom(other, local.Port()), remote},
				{local, netip.AddrPortFrom(other, remote.Port())},
				{local, netip.AddrPortFrom(remote.Addr(), remote.Port()^1)},
				{netip.AddrPortFrom(local.Addr(), local.Port()^1), remote},
				{local, netip.MustParseAddrPort("[2001:db8::1]:80")},
				{remote, netip.AddrPortFrom(local.Addr(), local.Port()^1)}, // the kernel finds the listener
				{local, netip.AddrPort{}},
				{},
			} {
				if uid, err := owner(x[0], x[1]); err != errNoConnection {
					t.Errorf("%v to %v is %d's, %v", x[0], x[1], uid, err)
				}
			}
		})
	}
}

// A connection that no process has is not root's.
func TestNobodysConnections(t *testing.T) {
	testkit.Check(t)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	local, remote := ends(c)
	if uid, err := owner(local, remote); err != nil || int(uid) != os.Geteuid() {
		t.Errorf("ours is %d's, %v", uid, err)
	}
	if uid, err := owner(remote, local); err != errNoConnection {
		t.Errorf("one that is not accepted is %d's, %v", uid, err)
	}
	// Closed here, open there: the kernel keeps it for a while.
	c.Close()
	if uid, err := owner(local, remote); err != errNoConnection {
		t.Errorf("one that is closed is %d's, %v", uid, err)
	}
}

// users makes a DB of a passwd of two users; alice has a home.
func users(t *testing.T, home string) func() *account.DB {
	t.Helper()
	f := account.Files{Passwd: filepath.Join(t.TempDir(), "passwd")}
	text := fmt.Sprintf("root:x:0:0::/root:/bin/sh\nalice:x:%d:%d::%s:/bin/sh\nbob:x:7:7::/nowhere:/bin/sh\n", stranger, stranger, home)
	if err := os.WriteFile(f.Passwd, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return func() *account.DB { return account.Open(f, nil) }
}

// an Answerer for whom every connection is one user's.
func ownedBy(t *testing.T, uid uint32, home string) *Answerer {
	a := New(users(t, home))
	a.owner = func(netip.AddrPort, netip.AddrPort) (uint32, error) { return uid, nil }
	return a
}

var question = Question{Query: Query{6193, 23}, Local: netip.MustParseAddrPort("127.0.0.1:113"), Remote: netip.MustParseAddrPort("127.0.0.1:9999")}

func answerOf(t *testing.T, a *Answerer, s service.Ident) (string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	s.OS = "UNIX"
	reply, err := a.Answer(ctx, &s, question)
	text, ok := strings.CutPrefix(reply, "6193, 23 : ")
	if !ok || !strings.HasSuffix(text, "\r\n") {
		t.Errorf("the reply is %q", reply)
	}
	return strings.TrimSuffix(text, "\r\n"), err
}

func TestAnswers(t *testing.T) {
	testkit.Check(t)
	none, broken := errNoConnection, errors.New("broken")
	for _, test := range []struct {
		s     service.Ident
		uid   uint32
		owner error
		want  string
		err   error
	}{
		{service.Ident{Reply: service.IdentName}, stranger, nil, "USERID : UNIX : alice", nil},
		{service.Ident{Reply: service.IdentUID}, stranger, nil, "USERID : UNIX : 54321", nil},
		{service.Ident{Reply: service.IdentName}, 4711, nil, "ERROR : NO-USER", nil},
		{service.Ident{Reply: service.IdentName, Fallback: "x"}, 4711, nil, "USERID : UNIX : x", nil},
		{service.Ident{Reply: service.IdentUID}, 4711, nil, "USERID : UNIX : 4711", nil},
		{service.Ident{Reply: service.IdentUID, Noident: true, Fakeid: service.FakeidAny}, 4711, nil, "USERID : UNIX : 4711", nil},
		{service.Ident{Reply: service.IdentName}, 0, none, "ERROR : NO-USER", nil},
		{service.Ident{Reply: service.IdentName, Fallback: "x"}, 0, none, "USERID : UNIX : x", nil},
		{service.Ident{Reply: service.IdentName}, 0, broken, "ERROR : UNKNOWN-ERROR", broken},
		{service.Ident{Reply: service.IdentName, Fallback: "x"}, 0, broken, "USERID : UNIX : x", broken},
	} {
		a := ownedBy(t, test.uid, "/nowhere")
		a.owner = func(local, _ netip.AddrPort) (uint32, error) {
			if test.owner == none && local.Port() == 113 {
				return 0, nil // the connection that asks
			}
			return test.uid, test.owner
		}
		if got, err := answerOf(t, a, test.s); got != test.want || !errors.Is(err, test.err) {
			t.Errorf("%+v of %d, %v: %q, %v; want %q", test.s, test.uid, test.owner, got, err, test.want)
		}
	}
	// A kernel that tells of nothing is no reason to say that there is no user.
	deaf := ownedBy(t, 0, "/nowhere")
	deaf.owner = func(netip.AddrPort, netip.AddrPort) (uint32, error) { return 0, errNoConnection }
	if got, err := answerOf(t, deaf, service.Ident{Reply: service.IdentName}); got != "ERROR : UNKNOWN-ERROR" || !errors.Is(err, errDeaf) {
		t.Errorf("%q, %v", got, err)
	}
}

// Those that hang hold no more than their places, and nobody waits longer than he
// was told to.
func TestAnswersInTime(t *testing.T) {
	testkit.Check(t)
	a := New(nil)
	release := make(chan struct{})
	a.owner = func(netip.AddrPort, netip.AddrPort) (uint32, error) { <-release; return 0, errors.New("late") }
	s := service.Ident{Reply: service.IdentName}
	replies := make(chan string)
	for range lookups + 3 {
		go func() {
			ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
			defer cancel()
			reply, _ := a.Answer(ctx, &s, question)
			replies <- reply
		}()
	}
	for range lookups + 3 {
		select {
		case reply := <-replies:
			if reply != "6193, 23 : ERROR : UNKNOWN-ERROR\r\n" {
				t.Errorf("%q", reply)
			}
		case <-time.After(bound):
			t.Fatal("somebody still waits")
		}
	}
	close(release)
}

func TestHomes(t *testing.T) {
	needRoot(t)
	testkit.Check(t)
	secret := filepath.Join(t.TempDir(), "secret")
	for path := filepath.Dir(secret); path != os.TempDir() && path != "/"; path = filepath.Dir(path) {
		if err := os.Chmod(path, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(secret, []byte("rootpassword\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	write := func(text string) func(string) error {
		return func(p string) error { return os.WriteFile(p, []byte(text), 0o600) }
	}
	link := func(to string) func(string) error { return func(p string) error { return os.Symlink(to, p) } }
	name, uid := service.IdentName, service.IdentUID
	for what, test := range map[string]struct {
		s       service.Ident
		fakeid  func(path string) error
		noident func(path string) error
		his     bool // chown to him
		want    string
		err     bool
	}{
		"nothing is there": {service.Ident{Reply: name, Fakeid: service.FakeidUnused, Noident: true}, nil, nil, true, "USERID : UNIX : alice", false},
		"fakeid":           {service.Ident{Reply: name, Fakeid: service.FakeidUnused}, write(" mallory\t\nbob\n"), nil, true, "USERID : UNIX : mallory", false},
		"not enabled":      {service.Ident{Reply: name}, write("mallory\n"), write(""), true, "USERID : UNIX : alice", false},
		"another user":     {service.Ident{Reply: name, Fakeid: service.FakeidUnused}, write("bob"), nil, true, "USERID : UNIX : alice", false},
		"any name":         {service.Ident{Reply: name, Fakeid: service.FakeidAny}, write("bob"), nil, true, "USERID : UNIX : bob", false},
		"another's number": {service.Ident{Reply: uid, Fakeid: service.FakeidUnused}, write("7"), nil, true, "USERID : UNIX : 54321", false},
		"nobody's number":  {service.Ident{Reply: uid, Fakeid: service.FakeidUnused}, write("8"), nil, true, "USERID : UNIX : 8", false},
		"noident":          {service.Ident{Reply: name, Noident: true, Fallback: "x"}, nil, write(""), true, "ERROR : HIDDEN-USER", false},
		"noident is first": {service.Ident{Reply: name, Noident: true, Fakeid: service.FakeidAny}, write("bob"), link("/nowhere"), true, "ERROR : HIDDEN-USER", false},
		"empty":            {service.Ident{Reply: name, Fakeid: service.FakeidAny}, write(""), nil, true, "USERID : UNIX : alice", false},
		"two words":        {service.Ident{Reply: name, Fakeid: service.FakeidAny}, write("a b\n"), nil, true, "USERID : UNIX : alice", false},
		"a long name":      {service.Ident{Reply: name, Fakeid: service.FakeidAny}, write(strings.Repeat("x", 65)), nil, true, "USERID : UNIX : alice", false},
		"a link":           {service.Ident{Reply: name, Fakeid: service.FakeidAny}, link(secret), nil, true, "ERROR : HIDDEN-USER", true},
		"a hard link":      {service.Ident{Reply: name, Fakeid: service.FakeidAny}, func(p string) error { return os.Link(secret, p) }, nil, false, "ERROR : HIDDEN-USER", true},
		"root's":           {service.Ident{Reply: name, Fakeid: service.FakeidAny}, write("mallory"), nil, false, "ERROR : HIDDEN-USER", true},
		"a directory":      {service.Ident{Reply: name, Fakeid: service.FakeidAny}, func(p string) error { return os.Mkdir(p, 0o700) }, nil, true, "ERROR : HIDDEN-USER", true},
		"a FIFO":           {service.Ident{Reply: name, Fakeid: service.FakeidAny}, func(p string) error { return unix.Mkfifo(p, 0o600) }, nil, true, "ERROR : HIDDEN-USER", true},
		"a socket": {service.Ident{Reply: name, Fakeid: service.FakeidAny}, func(p string) error {
			l, err := net.ListenUnix("unix", &net.UnixAddr{Name: p})
			if err == nil {
				l.SetUnlinkOnClose(false)
				l.Close()
			}
			return err
		}, nil, true, "ERROR : HIDDEN-USER", true},
		"a terabyte": {service.Ident{Reply: name, Fakeid: service.FakeidAny}, func(p string) error {
			if err := os.WriteFile(p, nil, 0o600); err != nil {
				return err
			}
			return os.Truncate(p, 1<<40)
		}, nil, true, "USERID : UNIX : alice", false},
	} {
		t.Run(what, func(t *testing.T) {
			home, err := os.MkdirTemp(filepath.Dir(secret), "home")
			if err != nil {
				t.Fatal(err)
			}
			for file, make := range map[string]func(string) error{".fakeid": test.fakeid, ".noident": test.noident} {
				if make == nil {
					continue
				}
				if err := make(filepath.Join(home, file)); err != nil {
					t.Fatal(err)
				}
				if test.his {
					if err := os.Lchown(filepath.Join(home, file), stranger, stranger); err != nil {
						t.Fatal(err)
					}
				}
			}
			if err := os.Chown(home, stranger, stranger); err != nil {
				t.Fatal(err)
			}
			got, err := answerOf(t, ownedBy(t, stranger, home), test.s)
			if got != test.want || (err != nil) != test.err {
				t.Errorf("%q, %v; want %q", got, err, test.want)
			}
		})
	}
	// What he may not enter himself is not entered for him.
	shut := t.TempDir()
	if err := os.Chmod(shut, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, s := range []service.Ident{{Reply: name, Noident: true}, {Reply: name, Fakeid: service.FakeidAny}} {
		if got, err := answerOf(t, ownedBy(t, stranger, shut), s); got != "ERROR : HIDDEN-USER" || !errors.Is(err, os.ErrPermission) {
			t.Errorf("%q, %v", got, err)
		}
	}
}

// Only the thread that looks into a home has its user's rights.
func TestOthersKeepTheirRights(t *testing.T) {
	needRoot(t)
	testkit.Check(t)
	home := t.TempDir()
	main, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	for range 50 {
		if got, _ := answerOf(t, ownedBy(t, stranger, home), service.Ident{Reply: service.IdentName, Noident: true}); !strings.HasPrefix(got, "ERROR : HIDDEN") && !strings.HasSuffix(got, "alice") {
			t.Fatal(got)
		}
	}
	tasks, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(tasks) == 0 {
		t.Fatal(err)
	}
	for end := time.Now().Add(bound); ; time.Sleep(time.Millisecond) {
		odd := ""
		tasks, _ = filepath.Glob("/proc/self/task/*/status")
		for _, path := range tasks {
			b, err := os.ReadFile(path)
			if err != nil {
				continue // it has ended
			}
			for line := range strings.Lines(string(b)) {
				if (strings.HasPrefix(line, "Uid:") || strings.HasPrefix(line, "Gid:") || strings.HasPrefix(line, "Groups:") || strings.HasPrefix(line, "CapEff:")) && !strings.Contains(string(main), line) {
					odd = path + ": " + line
				}
			}
		}
		if odd == "" {
			break
		}
		if time.Now().After(end) {
			t.Fatal(odd)
		}
	}
}
