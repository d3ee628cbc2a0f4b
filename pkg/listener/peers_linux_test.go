package listener

import (
	"io"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

const connectTo = "TCPMUXD_TEST_CONNECT_TO"

// As a child of connectAs the test binary connects and waits for its end.
func init() {
	name := os.Getenv(connectTo)
	if name == "" {
		return
	}
	kind := unix.SOCK_STREAM
	if os.Getenv(connectTo+"_KIND") != "" {
		kind = unix.SOCK_SEQPACKET
	}
	fd, err := unix.Socket(unix.AF_UNIX, kind, 0)
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrUnix{Name: name})
	}
	if err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
	io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
}

// connectAs has a process with these credentials connect, and says which.
func connectAs(t *testing.T, l *Listener, c *syscall.Credential) int {
	t.Helper()
	// By a descriptor: others may not enter the directory that it is in.
	exe, err := os.Open("/proc/self/exe")
	if err != nil {
		t.Fatal(err)
	}
	defer exe.Close()
	cmd := exec.Command("/proc/self/fd/3")
	cmd.ExtraFiles = []*os.File{exe}
	cmd.Env = append(os.Environ(), connectTo+"="+l.Endpoint.Path)
	if l.Endpoint.Network == service.UnixSeqpacket {
		cmd.Env = append(cmd.Env, connectTo+"_KIND=seqpacket")
	}
	cmd.Dir = "/"
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: c, Pdeathsig: syscall.SIGKILL}
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the client: %v", err)
		}
	})
	return cmd.Process.Pid
}

func TestUnixPeers(t *testing.T) {
	testkit.Check(t)
	var many []uint32
	for g := range uint32(300) { // more than fit at the first try
		many = append(many, 1000+g)
	}
	name := "@tcpmuxd-test-peers-" + t.TempDir()[len(os.TempDir()):]
	for _, network := range []service.Network{service.UnixStream, service.UnixSeqpacket} {
		sv := row(plain())
		byGroup := row(plain())
		byGroup.Users = access.NewUsers(nil, []uint32{1005})
		byUser := row(plain())
		byUser.Users = access.NewUsers([]uint32{4711}, nil)
		l := openRow(t, service.Endpoint{Network: network, Path: name}, sv)
		now := sv
		for _, c := range []struct {
			cred   syscall.Credential
			row    *service.Service
			groups bool
		}{
			{syscall.Credential{Uid: 4711, Gid: 4712, Groups: []uint32{7, 1005}}, sv, false},
			{syscall.Credential{Uid: 4711, Gid: 4712, Groups: []uint32{7, 1005}}, byGroup, true},
			{syscall.Credential{Uid: 65534, Gid: 65534, Groups: []uint32{}}, byGroup, true},
			{syscall.Credential{Uid: 0, Gid: 4712, Groups: many}, byGroup, true},
			{syscall.Credential{Uid: 4711, Gid: 4712, Groups: many}, byUser, false},
		} {
			if err := l.Retune(now, c.row); err != nil {
				t.Fatal(err)
			}
			now = c.row
			pid := connectAs(t, l, &c.cred)
			_, peer := accept(t, l)
			if peer.Network != network || peer.UID != c.cred.Uid || peer.GID != c.cred.Gid || int(peer.PID) != pid {
				t.Errorf("peer is %+v, want %+v, process %d", peer, c.cred, pid)
			}
			want := c.cred.Groups
			if !c.groups {
				want = nil
			}
			if !slices.Equal(slices.Sorted(slices.Values(peer.Groups)), want) {
				t.Errorf("groups are %d, want %d", peer.Groups, want)
			}
		}
		l.Close()
	}
}
