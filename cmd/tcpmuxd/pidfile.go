package main

// The pid file: where scripts find the daemon, and what keeps a second one from
// being started. It is locked for as long as the daemon lives, so that one that an
// earlier daemon has left behind is in nobody's way.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A pidFile is open and locked.
type pidFile struct{ *os.File }

// Parts of the error when somebody has the lock.
var (
	errRuns = errors.New("the daemon runs already")
	errEnds = errors.New("a daemon starts or ends")
)

// ending is how long a daemon that ends may keep the one that is started in its place
// waiting: init scripts start it as soon as they have sent a signal.
const ending = 10 * time.Second

// openPidFile opens the file of a name, which need not be there, and empties it. The
// number is not in it before the daemon serves. A file with something else in it is
// left as it is: the name was meant for something else. One that is locked and has no
// number in it is that of a daemon which ends; it is waited for.
func openPidFile(name string) (*pidFile, error) {
	for end := time.Now().Add(ending); ; time.Sleep(10 * time.Millisecond) {
		p, err := tryPidFile(name)
		if !errors.Is(err, errEnds) || time.Now().After(end) {
			return p, err
		}
	}
}

// tryPidFile is one try. It fails with errEnds if another one may do.
func tryPidFile(name string) (p *pidFile, err error) {
	f, err := os.OpenFile(name, os.O_RDWR|os.O_CREATE|syscall.O_NONBLOCK, 0o644)
	if err != nil {
		return nil, err
	}
	defer func() {
		if p == nil {
			f.Close()
		}
	}()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is no regular file; write another name for the pid file", name)
	}
	locked := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	text, err := io.ReadAll(io.LimitReader(f, 64))
	if err != nil {
		return nil, err
	}
	text = bytes.TrimSpace(text)
	switch {
	case len(bytes.Trim(text, "0123456789")) > 0:
		return nil, fmt.Errorf("%s is no pid file, there is something else in it; write another name for the pid file", name)
	case errors.Is(locked, unix.EWOULDBLOCK) && len(text) == 0:
		return nil, fmt.Errorf("%s is locked: %w", name, errEnds)
	case errors.Is(locked, unix.EWOULDBLOCK):
		return nil, fmt.Errorf("%s is locked: %w, as process %s", name, errRuns, text)
	case locked != nil:
		return nil, fmt.Errorf("locking %s: %w", name, locked)
	}
	if there, err := os.Stat(name); err != nil || !os.SameFile(info, there) {
		return nil, fmt.Errorf("%s has just been removed: %w", name, errEnds)
	}
	if err = f.Truncate(0); err != nil {
		return nil, err
	}
	return &pidFile{f}, nil
}

// write puts the number of this process into the file.
func (p *pidFile) write() error {
	_, err := p.WriteAt([]byte(strconv.Itoa(os.Getpid())+"\n"), 0)
	return err
}

// remove takes the file away, if it is still there under its name.
func (p *pidFile) remove() error {
	defer p.Close()
	mine, err := p.Stat()
	if err != nil {
		return err
	}
	there, err := os.Lstat(p.Name())
	if err != nil || !os.SameFile(mine, there) {
		return nil // somebody has taken it away, or put another there
	}
	return os.Remove(p.Name())
}

// lockPidFile opens the pid file, if there is to be one. If nobody has asked for it
// the daemon does without where it cannot be made, unless a daemon runs already.
func (d *daemon) lockPidFile() (err error) {
	if d.pidFile == "" {
		return nil
	}
	d.pid, err = openPidFile(d.pidFile)
	if err != nil && !d.pidAsked && !errors.Is(err, errRuns) && !errors.Is(err, errEnds) {
		d.warn(fmt.Sprintf("there is no pid file: %v", err))
		return nil
	}
	return err
}

// announce tells whoever waits for it that the daemon serves: by the pid file, and
// who has started it by ending.
func (d *daemon) announce() {
	if d.pid != nil {
		if err := d.pid.write(); err != nil {
			d.log.Error("cannot write the pid file", "error", err.Error())
		}
	}
	if d.background {
		if err := detach(d.facility == "" && d.logFile == ""); err != nil {
			d.log.Error("cannot leave the terminal", "error", err.Error())
		}
	}
}

// retirePidFile comes first of all when the daemon ends: scripts look into the file to
// find out whether one runs, and start another.
func (d *daemon) retirePidFile() {
	if d.pid == nil {
		return
	}
	if err := d.pid.Truncate(0); err != nil {
		d.log.Error("cannot empty the pid file", "error", err.Error())
	}
}

// removePidFile comes after everything else, when there is no log any more.
func (d *daemon) removePidFile() {
	if d.pid == nil {
		return
	}
	if err := d.pid.remove(); err != nil {
		d.printErrors(fmt.Errorf("removing the pid file: %w", err))
	}
}
