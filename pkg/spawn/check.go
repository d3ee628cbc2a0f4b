// What the daemon itself can see of a program before its child exists: for the
// twin, and for kernels that cannot be asked (AT_EXECVE_CHECK).

package spawn

import (
	"errors"
	"os"
	"strings"
	"syscall"
)

// checkFile says what the parent can know: whether path, seen from root (empty:
// the daemon's), is a file that somebody may execute. Whether the user of the row
// may is only seen by the child.
func checkFile(root, path string) syscall.Errno {
	mode, err := fileMode(root, path)
	if err != nil {
		errno := syscall.EIO
		errors.As(err, &errno)
		return errno
	}
	if mode&syscall.S_IFMT != syscall.S_IFREG || mode&0o111 == 0 {
		return syscall.EACCES // as execve(2) says in both cases
	}
	return 0
}

// fileMode is st_mode of path as seen from root.
func fileMode(root, path string) (uint32, error) {
	if root != "" {
		var err error
		if path, err = below(root, path); err != nil {
			return 0, err
		}
	}
	var st syscall.Stat_t
	for {
		if err := syscall.Stat(path, &st); err != syscall.EINTR {
			return uint32(st.Mode), err
		}
	}
}

// maxLinks is how many symbolic links a path may lead over, as in the kernel.
const maxLinks = 40

// below returns where a process with another root directory would find path.
// Symbolic links are followed as that process would: they do not lead out. What
// it returns can have become another file by the time that somebody uses it, so
// nothing may depend on it but what the peer is told.
func below(root, path string) (string, error) {
	found := "" // without links, below root
	for links := 0; path != ""; {
		var name string
		name, path, _ = strings.Cut(path, "/")
		switch name {
		case "", ".":
			continue
		case "..":
			found = found[:max(0, strings.LastIndexByte(found, '/'))]
			continue
		}
		target, err := os.Readlink(root + found + "/" + name)
		switch {
		case errors.Is(err, syscall.EINVAL): // not a link
			found += "/" + name
			continue
		case err != nil:
			return "", err
		}
		if links++; links > maxLinks {
			return "", syscall.ELOOP
		}
		if strings.HasPrefix(target, "/") {
			found = ""
		}
		path = target + "/" + path
	}
	return root + found, nil
}
