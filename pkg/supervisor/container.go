package supervisor

// The first process of a container, pid_namespaces(7). The kernel gives it
// everybody's orphans to reap (see reapLoop), and kills all others when it ends.
// So it is the one who tells them before, and who passes on what the container
// is told.

import (
	"log/slog"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// lastWords is how long the rest of a container has between SIGTERM and the end.
// What stops containers usually waits ten seconds in all.
const lastWords = 5 * time.Second

// first reports whether this is the first process of a container.
func first() bool { return os.Getpid() == 1 }

// endContainer tells all other processes to end, and waits until they have, for
// lastWords at most, or until somebody is in a hurry. Instances that on_stop
// leaves alone are among them: nothing can outlive a container. The reaper
// still runs, so their ends are logged.
func (s *Supervisor) endContainer(hurry <-chan os.Signal) {
	if syscall.Kill(-1, syscall.SIGTERM) != nil {
		return // there are none
	}
	s.log.info("ending the container", slog.Duration("wait", lastWords))
	if othersGone(lastWords, hurry) {
		return
	}
	s.log.warn("what is left in the container is killed")
	syscall.Kill(-1, syscall.SIGKILL)
	othersGone(lastStart, nil)
}

// othersGone waits until there is no other process in the container, and reports
// false if somebody is in a hurry before, or most is over.
func othersGone(most time.Duration, hurry <-chan os.Signal) bool {
	end := time.NewTimer(most)
	defer end.Stop()
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if syscall.Kill(-1, 0) != nil {
			return true
		}
		select {
		case sig := <-hurry:
			if sig != syscall.SIGHUP {
				return false
			}
		case <-end.C:
			return false
		case <-time.After(wait):
		}
	}
}

// SignalServers sends a signal to the servers of wait rows, which are daemons as
// much as this one, if they have a handler for it: to the others it could only
// be their end. It returns how many got it. Children of connections get nothing.
func (s *Supervisor) SignalServers(sig syscall.Signal) (told int) {
	var servers []int
	s.reaper.each(func(pid int, in *instance) {
		if in.turn != nil {
			servers = append(servers, pid)
		}
	})
	for _, pid := range servers {
		if !catches(pid, sig) {
			continue
		}
		// Under the reaper's lock, so that the pid is still the server's.
		s.reaper.each(func(p int, in *instance) {
			if p == pid && in.turn != nil && syscall.Kill(pid, sig) == nil {
				told++
			}
		})
	}
	return told
}

// catches reports whether a process has a handler for a signal, by the mask
// SigCgt of proc_pid_status(5).
func catches(pid int, sig syscall.Signal) bool {
	text, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
	if err != nil {
		return false
	}
	_, after, _ := strings.Cut(string(text), "\nSigCgt:")
	line, _, _ := strings.Cut(after, "\n")
	mask, err := strconv.ParseUint(strings.TrimSpace(line), 16, 64)
	return err == nil && mask>>(sig-1)&1 != 0
}
