// Running a helper program for its output. The daemon asks getent(1) for users
// that are not in files; that is all this is for.

package spawn

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"syscall"
	"time"
)

const (
	outputMax  = 1 << 20          // bytes that Output returns at most
	outputTime = 10 * time.Second // how long a helper may take if the context does not say
)

// Output runs the program at path and returns what it writes to its standard
// output. Its standard input is /dev/null, its standard error the daemon's, its
// environment env and nothing else, its identity the daemon's.
//
// The exit status is not looked at, so it does not matter who gets it: Output may
// be called while another thread waits for any child, which then may or may not
// see a child that it does not know. It leaves no zombie if nobody waits either.
// When it returns the program has ended; one that closes its output and runs on
// is killed.
//
// It is an error if ctx ends first (or 10 s pass, if it has no deadline), and if
// there is more than 1 MiB.
func Output(ctx context.Context, path string, argv, env []string) ([]byte, error) {
	out, err := output(ctx, path, argv, env)
	if err != nil {
		return nil, fmt.Errorf("running %s: %w", path, err)
	}
	return out, nil
}

func output(ctx context.Context, path string, argv, env []string) ([]byte, error) {
	if _, ok := ctx.Deadline(); !ok {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, outputTime)
		defer cancel()
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	r, err := startHelper(path, argv, env)
	if err != nil {
		return nil, err
	}
	defer r.stop()
	defer r.Close()
	// The deadline of the pipe is what ends a read, whatever has ended the context.
	stop := context.AfterFunc(ctx, func() { r.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	out, err := io.ReadAll(io.LimitReader(r, outputMax+1))
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, context.Cause(ctx)
	case err != nil:
		return nil, err
	case len(out) > outputMax:
		return nil, fmt.Errorf("more than %d bytes of output", outputMax)
	}
	return out, nil
}

// A helper is a program that runs, and the end of the pipe it writes to.
type helper struct {
	*os.File
	handle
}

func startHelper(path string, argv, env []string) (*helper, error) {
	null, err := os.OpenFile(os.DevNull, os.O_RDONLY, 0)
	if err != nil {
		return nil, err
	}
	defer null.Close()
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	defer w.Close()
	fd := w.Fd()
	// The pipe is non-blocking for our end's deadlines; a program does not expect it.
	if err := syscall.SetNonblock(int(fd), false); err != nil {
		r.Close()
		return nil, err
	}
	h := &helper{File: r}
	attr := syscall.ProcAttr{
		Env:   env,
		Files: []uintptr{null.Fd(), fd, 2},
		Sys:   h.attr(),
	}
	if h.pid, err = syscall.ForkExec(path, argv, &attr); err != nil {
		r.Close()
		return nil, err
	}
	return h, nil
}

// wait reaps the child if nobody else has: ECHILD says that somebody was faster.
func (h *handle) wait() {
	for {
		if _, err := syscall.Wait4(h.pid, nil, 0, nil); err != syscall.EINTR {
			return
		}
	}
}
