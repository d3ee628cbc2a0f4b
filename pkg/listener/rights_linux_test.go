package listener

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A peer can send descriptors to a program and to nobody else, where the kernel
// can keep them off.
func TestDescriptorsReachProgramsOnly(t *testing.T) {
	testkit.Check(t)
	ep := service.Endpoint{Network: service.UnixStream, Path: filepath.Join(t.TempDir(), "s")}
	builtin := &service.Service{Listen: []service.Endpoint{ep}, Builtin: service.BuiltinEcho, Socket: service.Socket{TOS: -1, UID: -1, GID: -1, Mode: 0o666}}
	program := *builtin
	program.Builtin, program.Exec = service.BuiltinNone, &service.Exec{}
	l, err := Open(ep, builtin)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	_, err = unix.GetsockoptInt(l.Fd(), unix.SOL_SOCKET, unix.SO_PASSRIGHTS)
	kept := err == nil // since Linux 6.16
	send := func() error {
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if err := unix.Connect(fd, &unix.SockaddrUnix{Name: ep.Path}); err != nil {
			t.Fatal(err)
		}
		err = unix.Sendmsg(fd, []byte("x"), unix.UnixRights(0), nil, 0)
		conn, _, errAccept := l.Accept()
		if errAccept != nil {
			t.Fatal(errAccept)
		}
		unix.Close(conn)
		return err
	}
	if err := send(); (err != nil) != kept {
		t.Errorf("a built-in: %v", err)
	}
	if err := l.Retune(builtin, &program); err != nil {
		t.Fatal(err)
	}
	if err := send(); err != nil {
		t.Errorf("a program: %v", err)
	}
}
