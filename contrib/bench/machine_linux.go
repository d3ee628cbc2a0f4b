package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// This file is what the harness asks of the kernel: a network of its own and
// accounts of CPU time and memory.

// tick is the unit of /proc/stat and /proc/PID/stat on every Linux port.
const tick = time.Second / 100

// enterNetwork moves the calling thread, which must be locked, into a new
// network namespace that has only lo, with room for many short connections.
// Processes started from this thread are in it.
func enterNetwork() error {
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		return fmt.Errorf("making a network namespace (run as root): %w", err)
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(s)
	lo, err := unix.NewIfreq("lo")
	if err != nil {
		return err
	}
	lo.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	if err := unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, lo); err != nil {
		return fmt.Errorf("bringing lo up: %w", err)
	}
	for name, value := range map[string]string{
		"core/somaxconn":           "65535",
		"ipv4/tcp_max_syn_backlog": "65535",
		"ipv4/ip_local_port_range": "16384 65535",
		"ipv4/tcp_tw_reuse":        "1",
	} {
		// /proc/sys/net is that of the namespace of the thread that opens it.
		if err := os.WriteFile("/proc/sys/net/"+name, []byte(value), 0); err != nil {
			fmt.Fprintf(os.Stderr, "bench: %v (going on without)\n", err)
		}
	}
	return nil
}

// A group is a control group for one server and its children; its CPU account
// is exact to the microsecond. Without cgroup v2, or without the right to make
// a group, path is "" and the ticks of /proc/PID/stat must do.
type group struct{ path string }

// newGroup needs no controller: cpu.stat is there without one, also on hosts
// that have the controllers in cgroup v1.
func newGroup(name string) group {
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		g := group{filepath.Join(root, name)}
		if _, err := os.Stat(filepath.Join(root, "cgroup.controllers")); err != nil || os.Mkdir(g.path, 0o755) != nil {
			continue
		}
		if _, err := g.cpu(0); err == nil {
			return g
		}
		os.Remove(g.path)
	}
	return group{}
}

// cpu is the CPU time used by the server and its children so far. Without a
// group that is the process pid and those of its children it has waited for.
func (g group) cpu(pid int) (time.Duration, error) {
	if g.path == "" {
		stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
		if err != nil {
			return 0, err
		}
		n, err := parseTreeTicks(string(stat))
		return time.Duration(n) * tick, err
	}
	stat, err := os.ReadFile(filepath.Join(g.path, "cpu.stat"))
	if err != nil {
		return 0, err
	}
	n, err := parseValue(string(stat), "usage_usec")
	return time.Duration(n) * time.Microsecond, err
}

// remove ends what is left in the group, all of it started by the server, and
// removes it.
func (g group) remove() error {
	if g.path == "" {
		return nil
	}
	for end := time.Now().Add(3 * time.Second); ; time.Sleep(2 * time.Millisecond) {
		err := os.Remove(g.path)
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if time.Now().After(end) {
			return err
		}
		procs, _ := os.ReadFile(filepath.Join(g.path, "cgroup.procs"))
		for word := range strings.FieldsSeq(string(procs)) {
			if pid, err := strconv.Atoi(word); err == nil {
				unix.Kill(pid, unix.SIGKILL)
			}
		}
	}
}

// pss is the proportional set size of one process in KiB.
func pss(pid int) (int64, error) {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", pid))
	if err != nil {
		return 0, err
	}
	return parseValue(string(text), "Pss")
}

// raiseDescriptors makes the limit on open files as high as it may be, for
// what is started from here, too.
func raiseDescriptors() error {
	var l unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &l); err != nil {
		return err
	}
	l.Cur = l.Max
	return unix.Setrlimit(unix.RLIMIT_NOFILE, &l)
}

// openAbove opens a file to read with a descriptor of at least lowest: what
// starts a process moves those below the place they are to have out of the way,
// and so needs twice as many.
func openAbove(name string, lowest int) (*os.File, error) {
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, lowest)
	if err != nil {
		return nil, fmt.Errorf("a descriptor above %d: %w", lowest, err)
	}
	return os.NewFile(uintptr(fd), name), nil
}

// descriptors is how many a process has open.
func descriptors(pid int) (int, error) {
	dir, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	return len(dir), err
}

// machineBusy is the CPU time all CPUs have spent, on whatever, so far.
func machineBusy() (time.Duration, error) {
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		return 0, err
	}
	n, err := parseCPULine(string(stat))
	return time.Duration(n) * tick, err
}

// awaitQuiet waits, at most a second, until the machine is nearly idle.
func awaitQuiet(ctx context.Context, cpus int) {
	const window = 100 * time.Millisecond
	for range 10 {
		before, err := machineBusy()
		select {
		case <-ctx.Done():
			return
		case <-time.After(window):
		}
		after, err2 := machineBusy()
		if err != nil || err2 != nil || float64(after-before) < disturbing*float64(window)*float64(cpus) {
			return
		}
	}
}
