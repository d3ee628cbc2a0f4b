package account

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	passwdText = `root:x:0:0:root:/root:/bin/bash
# a comment:x:1:1:::
alice:x:1000:1000:Alice,,,:/home/alice:/bin/zsh
bare:x:1001:1001:::
alice:x:2000:2000:second:/:/bin/false
1234:x:77:78:a name of digits:/:/bin/sh
+nis:x:5:5::/:/bin/sh
+::::::
short:x:5:5
toolong:x:5:5::/:/bin/sh:x
badid:x:-1:5::/:/bin/sh
minusone:x:4294967295:5::/:/bin/sh
highest:x:4294967294:5::/:/bin/sh
crlf:x:6:6::/home/crlf:/bin/sh` + "\r\n"
	groupText = `root:x:0:
adm:x:4:alice,root
ftp:x:50: alice , bob
alice:x:1000:
staff:x:4711:bob
+:::
bad:x:y:alice
`
	servicesText = `# comment
tcpmux 1/tcp # comment
ftp	21/tcp
time 37/udp timserver
time 37/tcp timserver
tftp 69/udp trivial
dual 1000/tcp
dual 1001/udp
www 81/tcp
http 80/tcp www www-http
zero 0/tcp
high 65536/tcp
sctp 9/sctp
noport
`
	rpcText = `# a comment
portmapper	100000	portmap sunrpc rpcbind
rstatd		100001	rstat rup perfmeter rstat_svc # the load
rstat		7
big		4294967295
bigger		4294967296
noprogram
`
)

// open makes a DB over files with these texts; nss "" is no file.
func open(t *testing.T, nss string, getent Getent) *DB {
	t.Helper()
	dir := t.TempDir()
	f := Files{filepath.Join(dir, "passwd"), filepath.Join(dir, "group"), filepath.Join(dir, "services"), filepath.Join(dir, "rpc"), filepath.Join(dir, "nsswitch.conf")}
	for path, text := range map[string]string{f.Passwd: passwdText, f.Group: groupText, f.Services: servicesText, f.RPC: rpcText, f.NSSwitch: nss} {
		if text == "" {
			continue
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return Open(f, getent)
}

func TestFiles(t *testing.T) {
	db := open(t, "", func(context.Context, ...string) ([]byte, error) {
		t.Error("getent was asked")
		return nil, nil
	})
	for name, want := range map[string]User{
		"root":       {Name: "root", Home: "/root", Shell: "/bin/bash"},
		"alice":      {Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/zsh"},
		"1000":       {Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/zsh"},
		"bare":       {Name: "bare", UID: 1001, GID: 1001, Home: "/", Shell: "/bin/sh"},
		"1234":       {Name: "1234", UID: 77, GID: 78, Home: "/", Shell: "/bin/sh"},
		"4711":       {Name: "4711", UID: 4711, Home: "/", Shell: "/bin/sh", Bare: true},
		"highest":    {Name: "highest", UID: 4294967294, GID: 5, Home: "/", Shell: "/bin/sh"},
		"4294967294": {Name: "highest", UID: 4294967294, GID: 5, Home: "/", Shell: "/bin/sh"},
		"crlf":       {Name: "crlf", UID: 6, GID: 6, Home: "/home/crlf", Shell: "/bin/sh"},
	} {
		if got, err := db.User(name); err != nil || got != want {
			t.Errorf("User(%q) = %+v, %v", name, got, err)
		}
	}
	for name, want := range map[string]uint32{"adm": 4, "1234": 1234, "4294967294": 4294967294} {
		if got, err := db.Group(name); err != nil || got != want {
			t.Errorf("Group(%q) = %d, %v", name, got, err)
		}
	}
	for name, want := range map[string]uint16{"ftp": 21, "time": 37, "timserver": 37, "www": 81, "www-http": 80, "dual": 1000} {
		if got, err := db.Port("tcp", name); err != nil || got != want {
			t.Errorf("Port(%q) = %d, %v", name, got, err)
		}
	}
	for name, want := range map[string]uint32{"rstatd": 100001, "rstat_svc": 100001, "rstat": 100001, "sunrpc": 100000, "big": 4294967295} {
		if got, err := db.Program(name); err != nil || got != want {
			t.Errorf("Program(%q) = %d, %v", name, got, err)
		}
	}
	for _, name := range []string{"bigger", "noprogram", "100001", "", "-x", "load"} {
		if n, err := db.Program(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("Program(%q) = %d, %v", name, n, err)
		}
	}
	for name, want := range map[string]uint16{"tftp": 69, "trivial": 69, "timserver": 37, "dual": 1001} {
		if got, err := db.Port("udp", name); err != nil || got != want {
			t.Errorf("Port(%q) = %d, %v of UDP", name, got, err)
		}
	}
	for protocol, name := range map[string]string{"tcp": "tftp", "udp": "ftp"} {
		if p, err := db.Port(protocol, name); !errors.Is(err, ErrUnknown) {
			t.Errorf("Port(%q, %q) = %v, %v", protocol, name, p, err)
		}
	}
	for _, name := range []string{"", "nosuch", "+nis", "+", "-x", "short", "toolong", "badid", "minusone", "4294967295", "-1", "+1",
		"a:b", "a b", "a\nb", "a\x00b", "#", "0x10", "1e3", strings.Repeat("x", 300)} {
		if u, err := db.User(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("User(%q) = %+v, %v", name, u, err)
		}
		if g, err := db.Group(name); !errors.Is(err, ErrUnknown) {
			t.Errorf("Group(%q) = %v, %v", name, g, err)
		}
	}
	for _, name := range []string{"", "zero", "high", "sctp", "noport", "21", "comment", "ftp/tcp"} {
		if p, err := db.Port("tcp", name); !errors.Is(err, ErrUnknown) {
			t.Errorf("Port(%q) = %v, %v", name, p, err)
		}
	}
	for name, want := range map[string][]uint32{"alice": {4, 50}, "root": {4}, "bare": nil, "4711": nil} {
		u, _ := db.User(name)
		if got, err := db.Groups(u); err != nil || !slices.Equal(got, want) {
			t.Errorf("Groups(%q) = %v, %v", name, got, err)
		}
	}
}

// A fakeNSS answers as getent(1) does and counts the questions.
type fakeNSS struct {
	answers map[string]string
	err     error
	asked   []string
}

func (f *fakeNSS) getent(ctx context.Context, args ...string) ([]byte, error) {
	q := strings.Join(args, " ")
	f.asked = append(f.asked, q)
	if d, ok := ctx.Deadline(); !ok || time.Until(d) > getentTimeout {
		return nil, errors.New("no deadline")
	}
	return []byte(f.answers[q]), f.err
}

var directory = map[string]string{
	"passwd carol":      "carol:*:5000:5000:Carol:/home/carol:/bin/sh\n",
	"passwd 5000":       "carol:*:5000:5000:Carol:/home/carol:/bin/sh\n",
	"passwd alice":      "alice:*:9000:9000:another:/:/bin/sh\n",
	"passwd dave":       "dave@example.com:*:5001:5001::/:/bin/sh\n",
	"group wheel":       "wheel:*:6000:carol\n",
	"initgroups alice":  "alice                4 6000 6000\n",
	"services ldap/tcp": "ldap                  389/tcp\n",
	"services ntp/udp":  "ntp                   123/udp\n",
	"services odd/udp":  "odd                   700/tcp\n",
}

func TestGetentAfterFiles(t *testing.T) {
	nss := &fakeNSS{answers: directory}
	db := open(t, "passwd: files [NOTFOUND=continue] sss # comment\ngroup:files systemd\nservices: files sss\n", nss.getent)
	for name, want := range map[string]uint32{"alice": 1000, "carol": 5000, "5000": 5000, "dave": 5001, "4711": 4711} {
		u, err := db.User(name)
		if err != nil || u.UID != want || u.Bare != (name == "4711") {
			t.Errorf("User(%q) = %+v, %v", name, u, err)
		}
	}
	if _, err := db.User("nosuch"); !errors.Is(err, ErrUnknown) {
		t.Errorf("nosuch: %v", err)
	}
	if g, err := db.Group("wheel"); err != nil || g != 6000 {
		t.Errorf("wheel: %d, %v", g, err)
	}
	if p, err := db.Port("tcp", "ldap"); err != nil || p != 389 {
		t.Errorf("ldap: %d, %v", p, err)
	}
	if p, err := db.Port("udp", "ntp"); err != nil || p != 123 {
		t.Errorf("ntp: %d, %v", p, err)
	}
	for protocol, name := range map[string]string{"udp": "ldap", "tcp": "ntp"} {
		if p, err := db.Port(protocol, name); !errors.Is(err, ErrUnknown) {
			t.Errorf("%s of %s: %d, %v", name, protocol, p, err)
		}
	}
	if p, err := db.Port("udp", "odd"); !errors.Is(err, ErrUnknown) {
		t.Errorf("an entry of another protocol was taken: %d, %v", p, err)
	}
	alice, _ := db.User("alice")
	if g, err := db.Groups(alice); err != nil || !slices.Equal(g, []uint32{4, 50, 6000}) {
		t.Errorf("groups of alice: %v, %v", g, err)
	}
	carol, _ := db.User("carol")
	if g, err := db.Groups(carol); err != nil || len(g) != 0 {
		t.Errorf("groups of carol: %v, %v", g, err)
	}
	if slices.Contains(nss.asked, "passwd alice") {
		t.Error("getent was asked for a user that files have")
	}
	n := len(nss.asked)
	for range 3 {
		db.User("carol")
		db.User("nosuch")
		db.Groups(alice)
	}
	if len(nss.asked) != n {
		t.Errorf("asked again: %q", nss.asked[n:])
	}
	if _, err := db.User("-evil"); err == nil || slices.Contains(nss.asked, "passwd -evil") {
		t.Error("an option was passed to getent")
	}
}

func TestGetentBeforeFiles(t *testing.T) {
	nss := &fakeNSS{answers: directory}
	db := open(t, "passwd: sss files\ngroup: files\ninitgroups: sss\n", nss.getent)
	if u, err := db.User("alice"); err != nil || u.UID != 9000 {
		t.Errorf("alice %+v, %v", u, err)
	}
	if u, err := db.User("root"); err != nil || u.UID != 0 {
		t.Errorf("root %+v, %v", u, err)
	}
	if g, err := db.Groups(User{Name: "alice"}); err != nil || !slices.Equal(g, []uint32{4, 50, 6000}) {
		t.Errorf("groups %v, %v", g, err)
	}
}

// TestGetentFails: what files know stays known; what they do not know is not
// unknown then, it could not be asked.
func TestGetentFails(t *testing.T) {
	broken := errors.New("broken")
	nss := &fakeNSS{err: broken}
	db := open(t, "passwd: sss files\ngroup: files sss\n", nss.getent)
	if u, err := db.User("alice"); err != nil || u.UID != 1000 {
		t.Errorf("alice %+v, %v", u, err)
	}
	for _, name := range []string{"carol", "4711"} {
		if u, err := db.User(name); !errors.Is(err, broken) || errors.Is(err, ErrUnknown) {
			t.Errorf("%s: %+v, %v", name, u, err)
		}
	}
	if _, err := db.Group("wheel"); !errors.Is(err, broken) {
		t.Errorf("wheel: %v", err)
	}
	if _, err := db.Groups(User{Name: "alice"}); !errors.Is(err, broken) {
		t.Errorf("groups: %v", err)
	}
}

// TestNoGetent: a machine that names other sources but has no getent has files.
func TestNoGetent(t *testing.T) {
	nss := &fakeNSS{err: &os.PathError{Op: "exec", Path: "/usr/bin/getent", Err: syscall.ENOENT}}
	db := open(t, "passwd: files systemd\ngroup: files systemd\n", nss.getent)
	u, err := db.User("alice")
	if g, err2 := db.Groups(u); err != nil || err2 != nil || !slices.Equal(g, []uint32{4, 50}) {
		t.Errorf("%+v, %v, %v, %v", u, g, err, err2)
	}
	if _, err := db.User("carol"); !errors.Is(err, ErrUnknown) {
		t.Errorf("carol: %v", err)
	}
}

func TestSnapshot(t *testing.T) {
	db := open(t, "", nil)
	if _, err := db.User("alice"); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(db.files.Passwd, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	if _, err := db.User("root"); err != nil {
		t.Errorf("the answer changed: %v", err)
	}
	if _, err := Open(db.files, nil).User("root"); !errors.Is(err, ErrUnknown) {
		t.Errorf("a new DB still knows root: %v", err)
	}
}

func TestNoFiles(t *testing.T) {
	dir := t.TempDir()
	db := Open(Files{dir + "/p", dir + "/g", dir + "/s", dir + "/r", dir + "/n"}, nil)
	if u, err := db.User("4711"); err != nil || !u.Bare {
		t.Errorf("4711: %+v, %v", u, err)
	}
	if _, err := db.User("root"); !errors.Is(err, ErrUnknown) {
		t.Errorf("root: %v", err)
	}
	// A file that cannot be read is no empty file.
	db = Open(Files{dir, dir, dir, dir, dir}, nil)
	if _, err := db.User("root"); err == nil || errors.Is(err, ErrUnknown) {
		t.Errorf("root, from a directory: %v", err)
	}
	if _, err := db.Groups(User{Name: "root"}); err == nil {
		t.Error("groups from a directory")
	}
}

func TestWatch(t *testing.T) {
	if got := System().Watch(); !slices.Equal(got, []string{"/etc/passwd", "/etc/group", "/etc/nsswitch.conf"}) {
		t.Errorf("%q", got)
	}
}

// FuzzParse: nothing in these files makes a parser panic, and what it yields
// has a name that can be asked for.
func FuzzParse(f *testing.F) {
	f.Add(passwdText)
	f.Add(groupText)
	f.Add(servicesText)
	f.Add("passwd: files [!UNAVAIL=return] sss\ngroup : [ a = b files ] db\n:\n")
	f.Fuzz(func(t *testing.T, text string) {
		parsePasswd(text, func(name string, u User) {
			if name == "" || name != u.Name || u.Home == "" || u.Shell == "" || u.UID > MaxID {
				t.Fatalf("%q %+v", name, u)
			}
		})
		parseGroup(text, func(name string, g group) {
			if name == "" || g.gid > MaxID || slices.Contains(g.members, "") {
				t.Fatalf("%q %+v", name, g)
			}
		})
		parseServices("udp")(text, func(name string, port uint16) {
			if name == "" || port == 0 {
				t.Fatalf("%q %d", name, port)
			}
		})
		nss := make(map[string][]string)
		parseNSSwitch(text, nss)
		for _, list := range nss {
			if slices.ContainsFunc(list, func(s string) bool { return s == "" || s[0] == '[' }) {
				t.Fatalf("%q", nss)
			}
		}
	})
}
