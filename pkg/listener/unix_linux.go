package listener

// The names of unix sockets: unix(7). Everything about a file is done to its
// inode, and the path is looked at again afterwards. The umask is never changed:
// it is that of all threads, and of children that are just being made.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const (
	// maxPath is the length of sun_path without the NUL.
	maxPath = 107
	// siocUnixFile is SIOCUNIXFILE of linux/un.h: a descriptor of the file that a
	// socket is bound to. It needs CAP_NET_ADMIN.
	siocUnixFile = 0x89e0
	modeBits     = 0o7777
)

// bindPath gives a unix socket its name. If that is a file, it belongs to whom s
// says, and at no moment has anybody more rights on it than s gives.
func (l *Listener) bindPath(s service.Socket) (err error) {
	name := l.Endpoint.Path
	if len(name) > maxPath {
		return fmt.Errorf("the path has %d bytes, and the kernel takes %d", len(name), maxPath)
	}
	if strings.IndexByte(name, 0) >= 0 {
		return errors.New("the path has a zero byte")
	}
	if strings.HasPrefix(name, "@") {
		return l.bindName(name)
	}
	if !filepath.IsAbs(name) {
		return errors.New("the path is not absolute")
	}
	if err := makeDirectories(filepath.Dir(name), s.DirectoryMode); err != nil {
		return err
	}
	if err := removeStale(name); err != nil {
		return err
	}
	// bind(2) makes the file with the mode of the socket, without the bits of the
	// umask. Until it has its owner, everybody gets what everybody may have.
	mode := s.Mode
	if s.UID >= 0 || s.GID >= 0 {
		mode = common(mode)
	}
	if err := unix.Fchmod(l.fd, mode); err != nil {
		return os.NewSyscallError("fchmod", err)
	}
	if err := l.bindName(name); err != nil {
		return err
	}
	defer func() {
		if err != nil && l.file.ino == 0 {
			forget(name)
		}
	}()
	f, st, err := l.openFile()
	if err != nil {
		return err
	}
	defer unix.Close(f)
	l.file = file{dev: uint64(st.Dev), ino: st.Ino, uid: int(st.Uid), gid: int(st.Gid)}
	return l.dress(f, st, s)
}

func (l *Listener) bindName(name string) error {
	err := unix.Bind(l.fd, &unix.SockaddrUnix{Name: name})
	if err == unix.EADDRINUSE {
		return fmt.Errorf("%w: %w", errLiving, err)
	}
	return os.NewSyscallError("bind", err)
}

var errLiving = errors.New("a living process listens there")

// removeStale makes room for a socket: a file that is a socket which nobody is
// bound to any more is removed, and anything else is an error. Between the last
// look and unlink(2) another process could still put something else at the path,
// one that may write to its directory: there is no system call for both.
func removeStale(path string) error {
	// The descriptor keeps the number of the inode from being given again.
	f, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.ENOENT {
		return nil
	}
	if err != nil {
		return os.NewSyscallError("open", err)
	}
	defer unix.Close(f)
	var st unix.Stat_t
	if err := unix.Fstat(f, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return fmt.Errorf("%s is in the way, and only a socket would be replaced", kindOf(&st))
	}
	// A datagram socket connects to one of its own kind without being noticed,
	// and to no other; in any case it finds out whether somebody is there.
	probe, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return os.NewSyscallError("socket", err)
	}
	defer unix.Close(probe)
	switch err := unix.Connect(probe, &unix.SockaddrUnix{Name: path}); err {
	case unix.ECONNREFUSED:
	case nil, unix.EPROTOTYPE, unix.EAGAIN, unix.EPERM: // EPERM: it has a peer
		return fmt.Errorf("%w: %w", errLiving, unix.EADDRINUSE)
	default:
		return fmt.Errorf("cannot find out whether a process listens there: %w", os.NewSyscallError("connect", err))
	}
	if !isAt(path, uint64(st.Dev), st.Ino) {
		return errors.New("another process is just changing the path")
	}
	if err := unix.Unlink(path); err != nil && err != unix.ENOENT {
		return fmt.Errorf("removing the socket of a process that has ended: %w", os.NewSyscallError("unlink", err))
	}
	return nil
}

// isAt reports whether an inode is what a path leads to, links not followed.
func isAt(path string, dev, ino uint64) bool {
	var st unix.Stat_t
	return unix.Lstat(path, &st) == nil && uint64(st.Dev) == dev && st.Ino == ino
}

// makeDirectories makes those that are missing. They have exactly the mode that
// is wanted, whatever the umask, and never more.
func makeDirectories(dir string, mode uint32) error {
	var st unix.Stat_t
	switch err := unix.Stat(dir, &st); err {
	case nil:
		return nil // bind(2) finds out if it is none
	case unix.ENOENT:
	default:
		return fmt.Errorf("directory %s: %w", dir, os.NewSyscallError("stat", err))
	}
	if err := makeDirectories(filepath.Dir(dir), mode); err != nil {
		return err
	}
	switch err := unix.Mkdir(dir, mode); err {
	case nil:
	case unix.EEXIST: // another process was faster
		return nil
	default:
		return fmt.Errorf("making directory %s: %w", dir, os.NewSyscallError("mkdir", err))
	}
	f, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err == unix.EACCES { // the umask, or the mode, keeps us out: only a path does then
		f, err = unix.Open(dir, unix.O_PATH|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	}
	if err != nil {
		return fmt.Errorf("opening directory %s: %w", dir, os.NewSyscallError("open", err))
	}
	defer unix.Close(f)
	if err := unix.Fstat(f, &st); err != nil {
		return os.NewSyscallError("fstat", err)
	}
	if int(st.Uid) != os.Geteuid() {
		return fmt.Errorf("directory %s was replaced by that of another user", dir)
	}
	// S_ISGID came from the directory above, for the groups of what is in it.
	if err := chmod(f, mode|st.Mode&unix.S_ISGID); err != nil {
		return fmt.Errorf("directory %s: %w", dir, err)
	}
	return nil
}

// openFile opens the file of the socket, for nothing but its inode.
func (l *Listener) openFile() (f int, st *unix.Stat_t, err error) {
	st = new(unix.Stat_t)
	if f, err = unix.IoctlRetInt(l.fd, siocUnixFile); err != nil {
		// Without the right to ask, it is what is at the path, if that is ours.
		f, err = unix.Open(l.Endpoint.Path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
		if err != nil {
			return -1, nil, os.NewSyscallError("open", err)
		}
		if err = unix.Fstat(f, st); err == nil && (st.Mode&unix.S_IFMT != unix.S_IFSOCK || l.file.ino == 0 && int(st.Uid) != os.Geteuid()) {
			err = errReplaced
		}
	} else {
		err = os.NewSyscallError("fstat", unix.Fstat(f, st))
	}
	if err == nil && l.file.ino != 0 && (l.file.ino != st.Ino || l.file.dev != uint64(st.Dev)) {
		err = errReplaced
	}
	if err != nil {
		unix.Close(f)
		return -1, nil, err
	}
	return f, st, nil
}

var errReplaced = errors.New("another process has removed or replaced the socket's file")

// dress gives the file its owner, group and mode, in an order that gives nobody
// more than the old or the new mode does.
func (l *Listener) dress(f int, st *unix.Stat_t, s service.Socket) error {
	uid, gid := s.UID, s.GID
	if uid < 0 {
		uid = l.file.uid
	}
	if gid < 0 {
		gid = l.file.gid
	}
	if int(st.Uid) != uid || int(st.Gid) != gid {
		if err := chmod(f, common(st.Mode)&common(s.Mode)); err != nil {
			return err
		}
		if err := unix.Fchownat(f, "", uid, gid, unix.AT_EMPTY_PATH); err != nil {
			return fmt.Errorf("giving the socket to user %d and group %d: %w", uid, gid, os.NewSyscallError("fchownat", err))
		}
	}
	if err := chmod(f, s.Mode); err != nil {
		return err
	}
	if !isAt(l.Endpoint.Path, l.file.dev, l.file.ino) {
		return errReplaced
	}
	return nil
}

// redress changes owner and mode of the socket's file from those of was to
// those of s.
func (l *Listener) redress(was, s service.Socket) error {
	if l.file.ino == 0 || was.Mode == s.Mode && was.UID == s.UID && was.GID == s.GID {
		return nil
	}
	f, st, err := l.openFile()
	if err != nil {
		return err
	}
	defer unix.Close(f)
	return l.dress(f, st, s)
}

// common is the mode that gives everybody what mode gives to all of owner, group
// and others.
func common(mode uint32) uint32 {
	m := mode & (mode >> 3) & (mode >> 6) & 7
	return m<<6 | m<<3 | m
}

// chmod changes the mode of what an O_PATH descriptor is of: fchmodat2(2), or
// before Linux 6.6 by way of /proc.
func chmod(f int, mode uint32) error {
	mode &= modeBits
	if unix.Fchmodat(f, "", mode, unix.AT_EMPTY_PATH) == nil {
		return nil
	}
	return os.NewSyscallError("chmod", unix.Chmod("/proc/self/fd/"+strconv.Itoa(f), mode))
}

// unlink removes the socket's file, if it still is at the path. Its inode has
// this number for as long as the socket is open.
func (l *Listener) unlink() {
	if l.file.ino != 0 && isAt(l.Endpoint.Path, l.file.dev, l.file.ino) {
		unix.Unlink(l.Endpoint.Path)
	}
}

// forget removes a file that was just made and could not be looked at.
func forget(path string) {
	var st unix.Stat_t
	if unix.Lstat(path, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFSOCK && int(st.Uid) == os.Geteuid() {
		unix.Unlink(path)
	}
}
