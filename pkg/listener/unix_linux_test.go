package listener

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

var unixKinds = []service.Network{service.UnixStream, service.UnixDgram, service.UnixSeqpacket}

// withUmask has the whole process have a umask until the test ends.
func withUmask(t *testing.T, mask int) {
	t.Helper()
	old := syscall.Umask(mask)
	t.Cleanup(func() { syscall.Umask(old) })
}

func status(t *testing.T, path string) (st unix.Stat_t) {
	t.Helper()
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	return st
}

// bareSocket is a socket at a path, bound by hand.
func bareSocket(t *testing.T, network service.Network, path string) int {
	t.Helper()
	fd, err := newSocket(network, true)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	return fd
}

func TestModeAndOwner(t *testing.T) {
	testkit.Check(t)
	for _, mask := range []int{0, 0o022, 0o077, 0o777} {
		t.Run(fmt.Sprintf("umask %03o", mask), func(t *testing.T) {
			dir := t.TempDir()
			withUmask(t, mask)
			for i, c := range []struct {
				mode     uint32
				uid, gid int
			}{
				{0o666, -1, -1}, {0o600, -1, -1}, {0o000, -1, -1}, {0o777, -1, -1},
				{0o660, 1234, 5678}, {0o606, -1, 5678}, {0o640, 1234, -1}, {0o666, 0, 0},
			} {
				s := plain()
				s.Mode, s.UID, s.GID = c.mode, c.uid, c.gid
				ep := service.Endpoint{Network: unixKinds[i%3], Path: fmt.Sprintf("%s/a/%d/b/socket", dir, i)}
				s.DirectoryMode = 0o751
				l := openRow(t, ep, row(s))
				st := status(t, ep.Path)
				if st.Mode != unix.S_IFSOCK|c.mode || int(st.Uid) != max(c.uid, 0) || int(st.Gid) != max(c.gid, 0) {
					t.Errorf("%+v: mode %o, user %d, group %d", c, st.Mode, st.Uid, st.Gid)
				}
				for d := filepath.Dir(ep.Path); d != dir; d = filepath.Dir(d) {
					if st := status(t, d); st.Mode != unix.S_IFDIR|0o751 {
						t.Errorf("directory %s has mode %o", d, st.Mode)
					}
				}
				// There and back.
				other := plain()
				other.Mode, other.UID, other.GID = 0o246, 77, 88
				if err := l.Retune(row(s), row(other)); err != nil {
					t.Fatal(err)
				}
				if st := status(t, ep.Path); st.Mode != unix.S_IFSOCK|0o246 || st.Uid != 77 || st.Gid != 88 {
					t.Errorf("after Retune: mode %o, user %d, group %d", st.Mode, st.Uid, st.Gid)
				}
				if err := l.Retune(row(other), row(s)); err != nil {
					t.Fatal(err)
				}
				if back := status(t, ep.Path); back.Mode != st.Mode || back.Uid != st.Uid || back.Gid != st.Gid {
					t.Errorf("after Retune back: mode %o, user %d, group %d", back.Mode, back.Uid, back.Gid)
				}
				l.Close()
			}
		})
	}
}

// At no moment has the file a bit that it is not to have, or may a user do what
// the row does not give: a watcher looks at it all the time.
func TestNeverWiderThanWanted(t *testing.T) {
	testkit.Check(t)
	withUmask(t, 0)
	path := t.TempDir() + "/socket"
	s := plain()
	s.Mode, s.UID, s.GID = 0o640, 1234, 5678
	stop := make(chan struct{})
	var watching sync.WaitGroup
	seen := map[string]bool{}
	watching.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			// stat(2) may read the owner before a change and the mode after it:
			// only what it says twice was there.
			var st, again unix.Stat_t
			if unix.Lstat(path, &st) == nil && unix.Lstat(path, &again) == nil && st == again {
				seen[fmt.Sprintf("%o %d:%d", st.Mode&0o7777, st.Uid, st.Gid)] = true
			}
		}
	})
	for range 300 {
		openRow(t, service.Endpoint{Network: service.UnixStream, Path: path}, row(s)).Close()
	}
	close(stop)
	watching.Wait()
	for what := range seen {
		switch what {
		case "0 0:0", "0 1234:5678", "640 1234:5678":
		default:
			t.Errorf("the file was %s for a moment", what)
		}
	}
}

func TestCommonMode(t *testing.T) {
	for mode, want := range map[uint32]uint32{0o666: 0o666, 0o660: 0, 0o606: 0, 0o644: 0o444, 0o777: 0o777, 0o712: 0, 0o247: 0, 0o732: 0o222, 0: 0} {
		if got := common(mode); got != want {
			t.Errorf("common to %o is %o, want %o", mode, got, want)
		}
	}
}

func TestDirectoriesThatAreThere(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	if err := os.Mkdir(dir+"/mine", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Chmod(dir+"/mine", 0o2710); err != nil {
		t.Fatal(err)
	}
	openRow(t, service.Endpoint{Network: service.UnixStream, Path: dir + "/mine/new/socket"}, row(plain()))
	if st := status(t, dir+"/mine"); st.Mode != unix.S_IFDIR|0o2710 {
		t.Errorf("a directory that was there has mode %o now", st.Mode)
	}
	// S_ISGID is handed on by the directory above, mkdir(2).
	if st := status(t, dir+"/mine/new"); st.Mode != unix.S_IFDIR|0o2755 {
		t.Errorf("the new directory has mode %o", st.Mode)
	}
}

// A living owner keeps its path, whatever it is, and does not notice the look.
func TestPathOfTheLiving(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	for i, owner := range unixKinds {
		for _, mode := range []string{"listens", "bound", "full"} {
			path := fmt.Sprintf("%s/%d-%s", dir, i, mode)
			fd := bareSocket(t, owner, path)
			if owner != service.UnixDgram && mode != "bound" {
				if err := unix.Listen(fd, 0); err != nil {
					t.Fatal(err)
				}
			}
			if mode == "full" {
				dial(t, service.Endpoint{Network: owner, Path: path})
			}
			before := status(t, path)
			for _, network := range unixKinds {
				l, err := Open(service.Endpoint{Network: network, Path: path}, row(plain()))
				if err == nil {
					l.Close()
					t.Fatalf("%s that %s: replaced", owner, mode)
				}
				if !errors.Is(err, unix.EADDRINUSE) || !strings.Contains(err.Error(), "a living process listens there") || !strings.Contains(err.Error(), path) {
					t.Errorf("%s that %s: %v", owner, mode, err)
				}
			}
			if status(t, path).Ino != before.Ino {
				t.Errorf("%s that %s: another file is there", owner, mode)
			}
			if mode == "listens" && readable(fd) {
				t.Errorf("%s: the owner has something to read", owner)
			}
			unix.Close(fd)
		}
	}
	// One that talks to one peer only refuses others.
	one, two := bareSocket(t, service.UnixDgram, dir+"/one"), bareSocket(t, service.UnixDgram, dir+"/two")
	defer unix.Close(one)
	defer unix.Close(two)
	if err := unix.Connect(one, &unix.SockaddrUnix{Name: dir + "/two"}); err != nil {
		t.Fatal(err)
	}
	if l, err := Open(service.Endpoint{Network: service.UnixStream, Path: dir + "/one"}, row(plain())); !errors.Is(err, unix.EADDRINUSE) {
		if err == nil {
			l.Close()
		}
		t.Errorf("a connected datagram socket: %v", err)
	}
}

func TestPathOfTheDead(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	for i, owner := range unixKinds {
		for j, network := range unixKinds {
			path := fmt.Sprintf("%s/%d-%d", dir, i, j)
			unix.Close(bareSocket(t, owner, path))
			dead := status(t, path)
			ep := service.Endpoint{Network: network, Path: path}
			l := openRow(t, ep, row(plain()))
			if st := status(t, path); st.Ino == dead.Ino && st.Ctim == dead.Ctim {
				t.Error("the dead socket's file is still there")
			}
			dial(t, ep)
			l.Close()
		}
	}
}

// What is no socket is named and left alone.
func TestPathOfSomethingElse(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	unix.Close(bareSocket(t, service.UnixStream, dir+"/dead"))
	for name, c := range map[string]struct {
		make func(path string) error
		want string
	}{
		"file":     {func(p string) error { return os.WriteFile(p, []byte("precious"), 0o600) }, "a file"},
		"dir":      {func(p string) error { return os.Mkdir(p, 0o700) }, "a directory"},
		"fifo":     {func(p string) error { return unix.Mkfifo(p, 0o600) }, "a FIFO"},
		"link":     {func(p string) error { return os.Symlink(dir+"/dead", p) }, "a symbolic link"},
		"dangling": {func(p string) error { return os.Symlink(dir+"/none", p) }, "a symbolic link"},
	} {
		path := filepath.Join(dir, name)
		if err := c.make(path); err != nil {
			t.Fatal(err)
		}
		before := status(t, path)
		l, err := Open(service.Endpoint{Network: service.UnixStream, Path: path}, row(plain()))
		if err == nil {
			l.Close()
			t.Fatalf("%s: replaced", name)
		}
		if !strings.Contains(err.Error(), c.want+" is in the way") {
			t.Errorf("%s: %v", name, err)
		}
		if status(t, path).Ino != before.Ino {
			t.Errorf("%s: another file is there", name)
		}
	}
	status(t, dir+"/dead")
	if _, err := os.Lstat(dir + "/none"); err == nil {
		t.Error("a symbolic link was followed")
	}
	// Directories may be behind links, as /var/run is.
	if err := os.Symlink(dir, dir+"/elsewhere"); err != nil {
		t.Fatal(err)
	}
	openRow(t, service.Endpoint{Network: service.UnixStream, Path: dir + "/elsewhere/socket"}, row(plain())).Close()
}

func TestUnixErrors(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	if err := os.WriteFile(dir+"/file", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	pad := func(prefix string, n int) string { return prefix + strings.Repeat("x", n-len(prefix)) }
	for _, c := range []struct{ path, want string }{
		{pad(dir+"/", 108), "the path has 108 bytes, and the kernel takes 107"},
		{pad("@", 108), "the path has 108 bytes, and the kernel takes 107"},
		{dir + "/a\x00b", "zero byte"},
		{"relative", "not absolute"},
		{dir + "/file/socket", "not a directory"},
	} {
		l, err := Open(service.Endpoint{Network: service.UnixStream, Path: c.path}, row(plain()))
		if err == nil {
			l.Close()
			t.Errorf("%q: no error", c.path)
		} else if !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q: %v, want %q", c.path, err, c.want)
		}
	}
	openRow(t, service.Endpoint{Network: service.UnixStream, Path: pad(dir+"/", 107)}, row(plain())).Close()
	openRow(t, service.Endpoint{Network: service.UnixStream, Path: pad("@", 107)}, row(plain())).Close()
}

// asNobody has the test run in a process of an ordinary user, in a directory
// that belongs to it. It reports whether this is that process; in the other one
// the test is over.
func asNobody(t *testing.T) bool {
	t.Helper()
	const mark = "TCPMUXD_TEST_AS_NOBODY"
	const nobody = 65534
	if os.Getenv(mark) == t.Name() {
		return true
	}
	dir, err := os.MkdirTemp("", "tcpmuxd-nobody-")
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd := exec.Command("/proc/self/fd/3", "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Env = append(os.Environ(), mark+"="+t.Name(), "TMPDIR="+dir)
	cmd.Dir = dir
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential: &syscall.Credential{Uid: nobody, Gid: nobody, Groups: []uint32{4711}}, Pdeathsig: syscall.SIGKILL,
	}
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("as an ordinary user: %v\n%s", err, out)
	}
	return false
}

// Without any right the daemon has to find its file by the path.
func TestPathsOfAnOrdinaryUser(t *testing.T) {
	if !asNobody(t) {
		return
	}
	testkit.Check(t)
	dir := t.TempDir()
	withUmask(t, 0o077)
	ep := service.Endpoint{Network: service.UnixStream, Path: dir + "/a/b/socket"}
	unixRow := func(mode uint32, uid, gid int) *service.Service {
		s := plain()
		s.Mode, s.UID, s.GID = mode, uid, gid
		return row(s)
	}
	l := openRow(t, ep, unixRow(0o664, -1, 4711)) // a group it is in
	if st := status(t, ep.Path); st.Mode != unix.S_IFSOCK|0o664 || st.Uid != 65534 || st.Gid != 4711 {
		t.Errorf("mode %o, user %d, group %d", st.Mode, st.Uid, st.Gid)
	}
	if st := status(t, dir+"/a/b"); st.Mode != unix.S_IFDIR|0o755 {
		t.Errorf("the directory has mode %o", st.Mode)
	}
	if err := l.Retune(unixRow(0o664, -1, 4711), unixRow(0o620, -1, -1)); err != nil {
		t.Fatal(err)
	}
	if st := status(t, ep.Path); st.Mode != unix.S_IFSOCK|0o620 || st.Gid != 65534 {
		t.Errorf("after Retune: mode %o, group %d", st.Mode, st.Gid)
	}
	// What cannot be done leaves all as it was.
	if err := l.Retune(unixRow(0o620, -1, -1), unixRow(0o666, 0, -1)); !errors.Is(err, unix.EPERM) {
		t.Errorf("giving the socket to root: %v", err)
	}
	if st := status(t, ep.Path); st.Mode != unix.S_IFSOCK|0o620 || st.Uid != 65534 {
		t.Errorf("after an error: mode %o, user %d", st.Mode, st.Uid)
	}
	if err := os.Rename(ep.Path, ep.Path+"-away"); err != nil {
		t.Fatal(err)
	}
	other := bareSocket(t, service.UnixStream, ep.Path)
	defer unix.Close(other)
	if err := l.Retune(unixRow(0o620, -1, -1), unixRow(0o666, -1, -1)); !errors.Is(err, errReplaced) {
		t.Errorf("another file is at the path: %v", err)
	}
	l.Close()
	status(t, ep.Path)

	// A failure after bind leaves no file.
	ep.Path = dir + "/failure"
	if l, err := Open(ep, unixRow(0o666, 0, -1)); !errors.Is(err, unix.EPERM) || !strings.Contains(err.Error(), "giving the socket to user 0") {
		if err == nil {
			l.Close()
		}
		t.Errorf("giving a new socket to root: %v", err)
	}
	if _, err := os.Lstat(ep.Path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a failure leaves %v", err)
	}
	if err := os.Mkdir(dir+"/closed", 0o500); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"/closed/socket", "/closed/a/socket", "/root/none/socket"} {
		if strings.HasPrefix(path, "/closed") {
			path = dir + path
		}
		if l, err := Open(service.Endpoint{Network: service.UnixStream, Path: path}, row(plain())); !errors.Is(err, unix.EACCES) {
			if err == nil {
				l.Close()
			}
			t.Errorf("%s: %v, want EACCES", path, err)
		}
	}
}

// What somebody else has put at the path is not ours to remove or to change.
func TestPathTakenOver(t *testing.T) {
	testkit.Check(t)
	dir := t.TempDir()
	ep := service.Endpoint{Network: service.UnixStream, Path: dir + "/socket"}
	l := openRow(t, ep, row(plain()))
	if err := os.Rename(ep.Path, dir+"/away"); err != nil {
		t.Fatal(err)
	}
	other := bareSocket(t, service.UnixStream, ep.Path)
	defer unix.Close(other)
	before := status(t, ep.Path)
	s := plain()
	s.Mode = 0
	if err := l.Retune(row(plain()), row(s)); err == nil || !strings.Contains(err.Error(), "removed or replaced") {
		t.Errorf("Retune: %v", err)
	}
	if after := status(t, ep.Path); after.Mode != before.Mode {
		t.Errorf("the mode of another file is %o now", after.Mode)
	}
	// What needs no path still works.
	s = plain()
	s.PassCred = true
	if err := l.Retune(row(plain()), row(s)); err != nil {
		t.Error(err)
	}
	l.Close()
	if status(t, ep.Path).Ino != before.Ino {
		t.Error("another file was removed")
	}
	if st := status(t, dir+"/away"); st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		t.Error("a renamed socket was removed")
	}
}

func TestAbandonLeavesThePath(t *testing.T) {
	testkit.Check(t)
	ep := service.Endpoint{Network: service.UnixStream, Path: t.TempDir() + "/socket"}
	l := openRow(t, ep, row(plain()))
	server, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	l.Abandon()
	if again, err := Open(ep, row(plain())); !errors.Is(err, unix.EADDRINUSE) {
		if err == nil {
			again.Close()
		}
		t.Errorf("while a server has it: %v", err)
	}
	unix.Close(server)
	openRow(t, ep, row(plain())).Close()
}
