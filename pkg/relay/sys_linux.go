package relay

import (
	"os"

	"golang.org/x/sys/unix"
)

// control is epoll_ctl(2).
func control(poll, op, fd int, events uint32, token uint64) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	return os.NewSyscallError("epoll_ctl", unix.EpollCtl(poll, op, fd, &ev))
}

// unblock makes a socket non-blocking: it has no other status flag.
func unblock(fd int) { unix.FcntlInt(uintptr(fd), unix.F_SETFL, unix.O_RDWR|unix.O_NONBLOCK) }

// splice moves up to n bytes without waiting. 0 and no error is the end.
func splice(from, to, n int) (int, error) {
	for {
		got, err := unix.Splice(from, nil, to, nil, n, unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if err != unix.EINTR {
			return int(got), err
		}
	}
}

// peek copies what waits in a socket without taking it.
func peek(fd int, b []byte) (int, error) { return recv(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT) }

// recvTrunc has the kernel drop up to len(b) bytes of a TCP stream; b is not
// written to.
func recvTrunc(fd int, b []byte) (int, error) {
	return recv(fd, b, unix.MSG_TRUNC|unix.MSG_DONTWAIT)
}

func recv(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, flags)
		if err != unix.EINTR {
			return n, err
		}
	}
}

func read(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Read(fd, b)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// write writes what a non-blocking socket takes. The Go runtime ignores the
// SIGPIPE of a write after the end.
func write(fd int, b []byte) (int, error) {
	for {
		n, err := unix.Write(fd, b)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// say writes a short text that finds room in any socket's empty buffer.
func say(fd int, text string) error {
	if text == "" {
		return nil
	}
	n, err := write(fd, []byte(text))
	if err == nil && n < len(text) {
		err = unix.ENOBUFS
	}
	return err
}

// broken reports whether an error is of the network or of the other side.
func broken(err error) bool {
	switch err {
	case unix.ETIMEDOUT, unix.EHOSTUNREACH, unix.ENETUNREACH, unix.ECONNABORTED, unix.ENETDOWN,
		unix.ECONNREFUSED, unix.ENOTCONN, unix.EHOSTDOWN, unix.ENETRESET, unix.EPROTO:
		return true
	}
	return false
}

// pipes lends pipes. Those that come back empty are kept for the next one.
type pipes struct {
	spare []pipe
	none  bool // for tests: there are none
}

// sparePipes bounds what is kept.
const sparePipes = 16

// get gives h a pipe unless it has one, and reports whether it could.
func (p *pipes) get(h *half) bool {
	if h.pipe != (pipe{}) {
		return true
	}
	if n := len(p.spare); n > 0 {
		h.pipe = p.spare[n-1]
		p.spare = p.spare[:n-1]
		return true
	}
	var fds [2]int
	if p.none || unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK) != nil {
		return false
	}
	// Where that is more than the system allows, the pipe stays as it is.
	unix.FcntlInt(uintptr(fds[1]), unix.F_SETPIPE_SZ, share)
	h.pipe = pipe{int32(fds[0]), int32(fds[1])}
	return true
}

// put takes the pipe of h back.
func (p *pipes) put(h *half) {
	if h.pipe == (pipe{}) {
		return
	}
	if h.held == 0 && len(p.spare) < sparePipes {
		p.spare = append(p.spare, h.pipe)
	} else {
		h.pipe.close()
	}
	h.pipe = pipe{}
}

func (p *pipes) close() {
	for _, x := range p.spare {
		x.close()
	}
	p.spare = nil
}

func (x pipe) close() {
	unix.Close(int(x.r))
	unix.Close(int(x.w))
}
