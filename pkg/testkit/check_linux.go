// Descriptors and children as Linux shows them.

package testkit

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// openFiles returns the open descriptors, each with what it is open on.
func openFiles() map[string]string {
	m := make(map[string]string)
	const dir = "/proc/self/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return m
	}
	for _, e := range entries {
		// The descriptor of ReadDir itself is closed by now and cannot be read.
		if target, err := os.Readlink(dir + "/" + e.Name()); err == nil {
			m[e.Name()] = target
		}
	}
	return m
}

// reapZombies waits for every child that has exited, and describes each.
func reapZombies() []string {
	var list []string
	for {
		var status syscall.WaitStatus
		// WALL: also children whose end sends no SIGCHLD.
		pid, err := syscall.Wait4(-1, &status, syscall.WNOHANG|syscall.WALL, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil || pid <= 0: // ECHILD: no child at all; 0: none that has exited
			return list
		default:
			list = append(list, fmt.Sprintf("zombie: child %d was not waited for (status %#x)", pid, uint32(status)))
		}
	}
}
