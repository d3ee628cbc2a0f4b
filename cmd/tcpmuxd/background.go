package main

// The daemon in the background, as inetds are: in a session of its own, while the
// program that was called ends as soon as it serves, or with its errors.
//
// A Go program has threads before it has a main, so it cannot fork and go on. It
// executes itself once more instead, before it has opened or begun anything.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// stageEnv is set for the second one.
const stageEnv = "TCPMUXD_BACKGROUND"

// ready is what the second one says to the first: a byte on its standard output.
const ready = "\n"

// isBackground reports whether this is the second one, once: programs that it
// starts are not to know.
func isBackground() bool {
	is := os.Getenv(stageEnv) != ""
	os.Unsetenv(stageEnv)
	return is
}

// background starts this program again and waits until it serves, or has ended. It
// returns what this one has to exit with.
func background(name string, stderr io.Writer) int {
	code, err := startAgain()
	if err != nil {
		fmt.Fprintf(stderr, "%s: error: going into the background: %v\n", name, err)
	}
	return code
}

func startAgain() (int, error) {
	program, err := os.Executable()
	if err != nil {
		return exitSystem, err
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		return exitSystem, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return exitSystem, err
	}
	defer r.Close()
	pid, err := syscall.ForkExec(program, os.Args, &syscall.ProcAttr{
		Env:   append(os.Environ(), stageEnv+"=1"),
		Files: []uintptr{null.Fd(), w.Fd(), uintptr(syscall.Stderr)},
		Sys:   &syscall.SysProcAttr{Setsid: true},
	})
	w.Close()
	if err != nil {
		return exitSystem, fmt.Errorf("starting %s again: %w", program, err)
	}
	if n, _ := r.Read(make([]byte, len(ready))); n > 0 {
		return exitOK, nil
	}
	var status syscall.WaitStatus
	for {
		_, err := syscall.Wait4(pid, &status, 0, nil)
		switch {
		case errors.Is(err, syscall.EINTR):
		case err != nil:
			return exitSystem, fmt.Errorf("waiting for process %d: %w", pid, err)
		case status.Signaled():
			return exitSystem, fmt.Errorf("process %d has ended by %v", pid, status.Signal())
		case status.ExitStatus() == exitOK:
			return exitOK, nil // a signal ended it while it started
		default:
			return status.ExitStatus(), nil // it has said why
		}
	}
}

// detach tells who waits in background that this process serves, and gives up what
// it has of the terminal: standard error, too, unless the log goes there.
func detach(keepStderr bool) error {
	if _, err := os.Stdout.WriteString(ready); err != nil {
		return fmt.Errorf("saying that the daemon serves: %w", err)
	}
	null, err := os.OpenFile(os.DevNull, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer null.Close()
	fds := []int{syscall.Stdout, syscall.Stderr}
	if keepStderr {
		fds = fds[:1]
	}
	for _, fd := range fds {
		if err := unix.Dup2(int(null.Fd()), fd); err != nil {
			return fmt.Errorf("giving up descriptor %d: %w", fd, err)
		}
	}
	return nil
}

// nameProcess has ps(1) and pidof(8) show what the daemon is called as, which the
// second start would hide. Where there is no such file they show the program.
func nameProcess(name string) {
	if f, err := os.OpenFile("/proc/self/comm", os.O_WRONLY, 0); err == nil {
		defer f.Close()
		f.WriteString(name)
	}
}
