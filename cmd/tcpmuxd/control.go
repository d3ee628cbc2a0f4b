package main

// The control socket: what tcpmuxctl(8) can ask of the running daemon.

import (
	"fmt"
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/control"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A controlSocket is the one of the running table.
type controlSocket struct {
	path   string // empty: none
	socket *listener.Listener
	server *net.UnixListener
	done   chan struct{}
}

// listenControl makes the socket what the table says. If it cannot be had, that is
// logged, and the next reload tries again: no service depends on it.
func (d *daemon) listenControl(path string) {
	if path == d.control.path && (path == "" || d.control.server != nil) {
		return
	}
	d.closeControl()
	d.control.path = path
	if path == "" {
		return
	}
	if err := d.openControl(); err != nil {
		d.log.Error("no control socket", "error", err.Error())
	}
}

func (d *daemon) openControl() error {
	c := &d.control
	// The listener package knows how to replace a socket that a daemon has left.
	ep := service.Endpoint{Network: service.UnixStream, Path: c.path}
	l, err := listener.Open(ep, &service.Service{ID: "control", Listen: []service.Endpoint{ep},
		Socket: service.Socket{TOS: -1, Mode: 0o600, UID: -1, GID: -1, DirectoryMode: 0o755}})
	if err != nil {
		return err
	}
	fd, err := unix.FcntlInt(uintptr(l.Fd()), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		l.Close()
		return os.NewSyscallError("fcntl", err)
	}
	f := os.NewFile(uintptr(fd), c.path)
	defer f.Close()
	n, err := net.FileListener(f)
	if err != nil {
		l.Close()
		return fmt.Errorf("listening on %s: %w", c.path, err)
	}
	c.socket, c.server, c.done = l, n.(*net.UnixListener), make(chan struct{})
	go func() {
		defer close(c.done)
		control.Serve(c.server, d.answer, func(err error) {
			d.log.Warn("control socket", "error", err.Error())
		})
	}()
	return nil
}

func (d *daemon) closeControl() {
	c := &d.control
	if c.server == nil {
		return
	}
	c.server.Close()
	<-c.done
	c.socket.Close()
	*c = controlSocket{}
}

// answer answers one question.
func (d *daemon) answer(words []string) (lines []string, err error) {
	switch {
	case words[0] == "bans" && len(words) == 1:
		for _, b := range d.supervisor.Bans() {
			lines = append(lines, fmt.Sprintf("%s %s %s %d", b.Source, time.Now().Add(b.Left).UTC().Format(time.RFC3339),
				b.Left.Round(time.Second), b.Refused))
		}
		return lines, nil
	case words[0] == "unban" && len(words) == 2:
		return nil, d.supervisor.Unban(words[1])
	}
	return nil, fmt.Errorf("%q is no question", words)
}
