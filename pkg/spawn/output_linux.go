// A helper is held by its pidfd: where another thread reaps, its number may be
// another process's at any time.

package spawn

import (
	"syscall"

	"golang.org/x/sys/unix"
)

type handle struct {
	pid   int
	pidFD int // -1 before Linux 5.2
}

// attr says how the helper is started, so that stop works.
func (h *handle) attr() *syscall.SysProcAttr {
	h.pidFD = -1
	return &syscall.SysProcAttr{Setsid: true, PidFD: &h.pidFD}
}

// stop ends the helper and reaps it unless somebody else has.
func (h *handle) stop() {
	if h.pidFD < 0 {
		h.wait()
		return
	}
	defer unix.Close(h.pidFD)
	unix.PidfdSendSignal(h.pidFD, unix.SIGKILL, nil, 0)
	for {
		err := unix.Waitid(unix.P_PIDFD, h.pidFD, nil, unix.WEXITED, nil)
		switch err {
		case unix.EINTR:
		case unix.EINVAL: // Linux before 5.4
			h.wait()
			return
		default:
			return
		}
	}
}
