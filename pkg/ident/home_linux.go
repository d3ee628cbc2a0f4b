package ident

// A home is its user's: whatever name is in it, he may have made it a link to
// another's file, a FIFO, a terabyte, or a link to /proc. It is read with his
// rights, so that he learns by it nothing that he could not read himself.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"runtime"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

var errNotHis = errors.New("~/.fakeid is no regular file of his own")

// readHome looks for the files that s asks for.
func readHome(u account.User, s *service.Ident) (h home, err error) {
	apart(func() {
		if err = become(u); err == nil {
			h, err = look(u, s)
		}
	})
	return h, err
}

// apart runs f on a thread that ends with it, and that is not the first one, which
// cannot end and is the one that others see when they look at the process.
func apart(f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // and never unlocks it
		if unix.Gettid() != unix.Getpid() {
			f()
			return
		}
		apart(f) // on another, as this one is held
		runtime.UnlockOSThread()
	}()
	<-done
}

func look(u account.User, s *service.Ident) (h home, err error) {
	if s.Noident {
		var st unix.Stat_t
		switch err := unix.Lstat(path.Join(u.Home, noidentFile), &st); {
		case err == nil:
			h.noident = true
			return h, nil
		case !missing(err):
			return h, &os.PathError{Op: "lstat", Path: "~/" + noidentFile, Err: err}
		}
	}
	if s.Fakeid != service.FakeidOff {
		h.fakeid, err = readFakeid(path.Join(u.Home, fakeidFile), u.UID)
	}
	return h, err
}

func missing(err error) bool { return err == unix.ENOENT || err == unix.ENOTDIR }

// readFakeid reads a regular file of the user's own, or none.
func readFakeid(name string, uid uint32) (string, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_NOFOLLOW|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	if missing(err) {
		return "", nil
	}
	if err != nil {
		return "", &os.PathError{Op: "open", Path: "~/" + fakeidFile, Err: err}
	}
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return "", os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Uid != uid {
		return "", errNotHis
	}
	b, err := io.ReadAll(io.LimitReader(f, fakeidMost))
	if err != nil {
		return "", err
	}
	return fakeidIn(b), nil
}

// become gives the calling thread the rights of a user in the file system, and
// takes all others from it for good. Other threads see nothing of it, and that user
// can send it no signal. A daemon that is not root has no rights to lose, and reads
// what it can.
func become(u account.User) error {
	if os.Geteuid() == 0 {
		if err := unix.Setgroups(nil); err != nil {
			return os.NewSyscallError("setgroups", err)
		}
		unix.SetfsgidRetGid(int(u.GID))
		unix.SetfsuidRetUid(int(u.UID))
		// They do not say whether they have.
		gid, err := unix.SetfsgidRetGid(-1)
		if err == nil && gid != int(u.GID) {
			err = unix.EPERM
		}
		if err != nil {
			return fmt.Errorf("setfsgid: %w", err)
		}
		uid, err := unix.SetfsuidRetUid(-1)
		if err == nil && uid != int(u.UID) {
			err = unix.EPERM
		}
		if err != nil {
			return fmt.Errorf("setfsuid: %w", err)
		}
	}
	hdr := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var none [2]unix.CapUserData
	return os.NewSyscallError("capset", unix.Capset(&hdr, &none[0]))
}
