package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// This file counts system calls. perf counts them in the kernel, for the
// server's whole control group, and hardly slows it. A tracer would stop the
// server at each call, and one that is stopped so often finds less to do at a
// time, sleeps and wakes more, and makes calls that it otherwise would not.

// named are the calls that are counted by name, as far as this kernel has
// them. Not simply all: each tracepoint takes perf a moment to take out.
const named = `accept accept4 access arch_prctl bind brk capget capset chdir chroot clock_nanosleep clone clone3 close close_range
	connect dup dup2 dup3 epoll_ctl epoll_pwait epoll_wait execve execveat exit exit_group fcntl fork futex geteuid getpeername getpid getppid
	getsockname getsockopt gettid ioctl ioprio_set kill lseek madvise mmap mprotect munmap nanosleep newfstat newfstatat openat
	personality pidfd_open pipe2 poll ppoll prctl pread64 prlimit64 pselect6 read readv recvfrom recvmsg rt_sigaction rt_sigprocmask
	rt_sigreturn rt_sigtimedwait rt_tgsigqueueinfo sched_setaffinity sched_yield select sendmsg sendto set_robust_list set_tid_address
	setgid setgroups setpriority setregid setresgid setresuid setreuid setsid setsockopt setuid shutdown signalfd4 socket socketpair
	tgkill timer_settime umask uname unlink vfork wait4 waitid write writev`

// calls counts over conns connections, whatever is in flight.
func (r *running) calls(ctx context.Context, inFlight, conns int) (c Syscalls, err error) {
	c = Syscalls{Scenario: r.sc.name, Server: r.name, InFlight: inFlight}
	if r.group.path == "" {
		return c, fmt.Errorf("it needs a control group of version 2")
	}
	events := []string{allCalls}
	for name := range strings.FieldsSeq(named) {
		if _, err := os.Stat("/sys/kernel/tracing/events/syscalls/sys_enter_" + name); err == nil {
			events = append(events, oneCall+name)
		}
	}
	table := filepath.Join(r.task.dir, "perf")
	// It says on the second pipe that it has done what the first one told it to.
	control, told, err := os.Pipe()
	if err != nil {
		return c, err
	}
	defer control.Close()
	defer told.Close()
	answer, said, err := os.Pipe()
	if err != nil {
		return c, err
	}
	defer answer.Close()
	defer said.Close()
	perf := exec.Command("perf", "stat", "-x,", "-a", "-D", "-1", "--control", "fd:3,4", "-o", table,
		"-e", strings.Join(events, ","), "-G", strings.Repeat(filepath.Base(r.group.path)+",", len(events)-1)+filepath.Base(r.group.path))
	perf.ExtraFiles = []*os.File{control, said}
	var text strings.Builder
	perf.Stderr = &text
	perf.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := perf.Start(); err != nil {
		return c, err
	}
	ended := make(chan error, 1)
	go func() { ended <- perf.Wait() }()
	answer.SetReadDeadline(time.Now().Add(startTime))
	var s Sample
	if _, err = told.WriteString("enable\n"); err == nil {
		if _, err = answer.Read(make([]byte, 16)); err == nil {
			s, err = r.generate(ctx, inFlight, 20*time.Second, conns)
		}
	}
	perf.Process.Signal(os.Interrupt) // it writes its table
	select {
	case <-ended:
	case <-time.After(time.Minute):
		perf.Process.Kill()
		<-ended
	}
	if err != nil {
		return c, fmt.Errorf("perf: %w: %s", err, text.String())
	}
	f, err := os.Open(table)
	if err != nil {
		return c, fmt.Errorf("perf: %w: %s", err, text.String())
	}
	defer f.Close()
	c.Calls, c.Total, err = parsePerf(f, s.Done)
	return c, err
}
