//go:build !linux

package spawn

import "syscall"

type handle struct{ pid int }

// attr says how the helper is started, so that stop works.
func (h *handle) attr() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setsid: true} }

// stop ends the helper and reaps it unless somebody else has. The number is the
// helper's unless another thread has reaped it within the last microseconds and
// the system has used it again: systems without a pidfd have nothing better.
func (h *handle) stop() {
	syscall.Kill(h.pid, syscall.SIGKILL)
	h.wait()
}
