package filter

// The filter that an earlier daemon has put on a socket. The kernel does not say
// which program a socket has. But the map of maps bears the SO_COOKIE of the
// socket it was made for, which no other socket ever has, and it lives as long
// as a program that looks rules up in it: while no process has one, that is the
// program on the socket.

import (
	"errors"
	"fmt"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
)

// errHidden is what to do about EPERM of a search.
var errHidden = errors.New("the kernel shows it only to root, or CAP_SYS_ADMIN, in the first user namespace")

func find(fd int) (_ *Filter, err error) {
	cookie, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_COOKIE)
	if err != nil {
		return nil, os.NewSyscallError("getsockopt SO_COOKIE", err)
	}
	// Of a program in eBPF, and of no other, the text is not to be had.
	if _, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_GET_FILTER); err != unix.EACCES {
		return nil, ErrNotFound
	}
	f := &Filter{outer: -1, program: -1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	var id uint32
	if f.outer, id, err = findMap(outer(cookie)); err != nil {
		return nil, err
	}
	// The same instructions for the same map have the same tag.
	if f.program, err = loadProgram(f.outer); err != nil {
		return nil, explain(err)
	}
	own, err := kernel.ProgInfo(f.program)
	if err != nil {
		return nil, os.NewSyscallError("bpf (program)", err)
	}
	theirs := 0
	err = each(kernel.NextProg, kernel.ProgByID, func(fd int) error {
		p, err := kernel.ProgInfo(fd)
		if p.ID != own.ID && p.Type == own.Type && p.Tag == own.Tag && slices.Equal(p.Maps, []uint32{id}) {
			theirs++
		}
		return err
	})
	if err == nil && theirs == 0 {
		err = ErrNotFound
	}
	return f, err
}

// findMap opens the one map that is like want. Before Linux 5.8 sockets of two
// network namespaces may have the same cookie: then nobody can tell.
func findMap(want kernel.Map) (found int, id uint32, err error) {
	found = -1
	err = each(kernel.NextMap, kernel.MapByID, func(fd int) error {
		m, n, err := kernel.MapInfo(fd)
		if err != nil || m != want {
			return err
		}
		if found >= 0 {
			return ErrNotFound
		}
		id = n
		found, err = unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		return os.NewSyscallError("fcntl", err)
	})
	if err == nil && found < 0 {
		err = ErrNotFound
	}
	return found, id, err
}

// each calls look for all maps or all programs of the machine.
func each(next func(uint32) (uint32, error), open func(uint32) (int, error), look func(fd int) error) error {
	for id := uint32(0); ; {
		var err error
		switch id, err = next(id); err {
		case nil:
		case unix.ENOENT:
			return nil
		case unix.EPERM:
			return fmt.Errorf("%w: %w", err, errHidden)
		default:
			return os.NewSyscallError("bpf (next)", err)
		}
		fd, err := open(id)
		switch err {
		case nil:
		case unix.ENOENT, unix.EPERM, unix.EACCES: // it has gone, or is hidden from us
			continue
		default:
			return os.NewSyscallError("bpf (by id)", err)
		}
		err = look(fd)
		unix.Close(fd)
		if err != nil {
			return err
		}
	}
}
