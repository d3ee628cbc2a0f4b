package supervisor

import (
	"bytes"
	"errors"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A poller is one epoll set. Its methods may be called by any thread.
type poller struct{ fd int }

// An event is what a poller reports of one descriptor.
type event struct {
	token  uint64
	urgent bool // urgent data stands in the stream
	ended  bool // the peer has closed its side, or all of it
	broken bool // all of it, or by a reset
}

func newPoller() (poller, error) {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	return poller{fd}, os.NewSyscallError("epoll_create1", err)
}

func (p poller) close() { unix.Close(p.fd) }

// addListener watches a listening socket: level-triggered, and exclusive, so
// that a connection wakes one idle loop and not all of them.
func (p poller) addListener(fd int, token uint64) error {
	const events = unix.EPOLLIN | unix.EPOLLEXCLUSIVE
	err := p.ctl(unix.EPOLL_CTL_ADD, fd, token, events)
	if err == unix.EEXIST {
		// By the token that it had in another row, perhaps. What is exclusive
		// cannot be modified.
		p.remove(fd)
		err = p.ctl(unix.EPOLL_CTL_ADD, fd, token, events)
	}
	return os.NewSyscallError("epoll_ctl", err)
}

// addPeer watches a connection edge-triggered: a partial line must not be
// reported again and again. EPOLLPRI tells of urgent data, at which a peek ends.
func (p poller) addPeer(fd int, token uint64, writing bool) error {
	events := uint32(unix.EPOLLIN | unix.EPOLLPRI | unix.EPOLLRDHUP | unix.EPOLLET&0xffffffff)
	if writing {
		events |= unix.EPOLLOUT
	}
	return p.add(fd, token, events)
}

// addReader watches a socket that one reader reads.
func (p poller) addReader(fd int, token uint64) error { return p.add(fd, token, unix.EPOLLIN) }

// addWake watches an eventfd for all who wait.
func (p poller) addWake(fd int, token uint64) error { return p.add(fd, token, unix.EPOLLIN) }

func (p poller) add(fd int, token uint64, events uint32) error {
	err := p.ctl(unix.EPOLL_CTL_ADD, fd, token, events)
	if err == unix.EEXIST {
		return nil // it is what was wanted
	}
	return os.NewSyscallError("epoll_ctl", err)
}

func (p poller) ctl(op, fd int, token uint64, events uint32) error {
	ev := unix.EpollEvent{Events: events, Fd: int32(token), Pad: int32(token >> 32)}
	return unix.EpollCtl(p.fd, op, fd, &ev)
}

func (p poller) remove(fd int) { unix.EpollCtl(p.fd, unix.EPOLL_CTL_DEL, fd, nil) }

// An eventBuffer is where a loop's events land; next is the first that has not
// been looked at. It belongs to the loop and not to its worker, so that the
// worker that takes over a loop finds what its predecessor had not come to.
type eventBuffer struct {
	raw     [128]unix.EpollEvent
	next, n int
}

// pop takes the next event.
func (b *eventBuffer) pop() (event, bool) {
	if b.next == b.n {
		return event{}, false
	}
	e := &b.raw[b.next]
	b.next++
	return event{
		token:  uint64(uint32(e.Fd)) | uint64(uint32(e.Pad))<<32,
		urgent: e.Events&unix.EPOLLPRI != 0,
		ended:  e.Events&(unix.EPOLLRDHUP|unix.EPOLLHUP|unix.EPOLLERR) != 0,
		broken: e.Events&(unix.EPOLLHUP|unix.EPOLLERR) != 0,
	}, true
}

// wait fills the buffer; a negative timeout waits for ever.
func (p poller) wait(b *eventBuffer, timeout time.Duration) error {
	ms := -1
	if timeout >= 0 {
		// Rounded up: waking a moment too early would mean to spin.
		ms = int(min((timeout+time.Millisecond-1)/time.Millisecond, 1<<30))
	}
	n, err := unix.EpollWait(p.fd, b.raw[:], ms)
	b.next, b.n = 0, max(n, 0)
	if err == unix.EINTR {
		return nil
	}
	return os.NewSyscallError("epoll_wait", err)
}

// newWake makes an eventfd that is not set.
func newWake() (int, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	return fd, os.NewSyscallError("eventfd", err)
}

// wake sets it, for good.
func wake(fd int) { unix.Write(fd, []byte{1, 0, 0, 0, 0, 0, 0, 0}) }

// tellDestination has a UDP socket tell where each datagram was sent to.
func tellDestination(fd int, v6, dual bool) error {
	if v6 {
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_RECVPKTINFO, 1); err != nil {
			return os.NewSyscallError("setsockopt IPV6_RECVPKTINFO", err)
		}
	}
	if v6 && !dual {
		return nil
	}
	return os.NewSyscallError("setsockopt IP_PKTINFO", unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_PKTINFO, 1))
}

func closeFd(fd int) { unix.Close(fd) }

// shrink makes the buffer for what the peer sends as small as it can be.
func shrink(fd int) { unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, 1) }

// abortFd closes a connection with a reset, so that the peer cannot take what
// happened for an orderly end.
func abortFd(fd int) {
	unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(fd)
}

func again(err error) bool { return err == unix.EAGAIN }

// peek copies what waits in the socket without taking it. 0 bytes and no error
// is the end of the stream.
func peek(fd int, b []byte) (int, error) {
	return recv(fd, b, unix.MSG_PEEK|unix.MSG_DONTWAIT)
}

// take reads bytes that a peek has shown.
func take(fd int, b []byte) (int, error) { return recv(fd, b, unix.MSG_DONTWAIT) }

func recv(fd int, b []byte, flags int) (int, error) {
	for {
		n, _, err := unix.Recvfrom(fd, b, flags)
		if err != unix.EINTR {
			return n, err
		}
	}
}

// send writes without waiting and without SIGPIPE.
func send(fd int, b []byte) (int, error) {
	for {
		n, err := unix.SendmsgN(fd, b, nil, nil, unix.MSG_DONTWAIT|unix.MSG_NOSIGNAL)
		if err != unix.EINTR {
			return max(n, 0), err
		}
	}
}

// shutdownWrite says that no more will be sent.
func shutdownWrite(fd int) error { return unix.Shutdown(fd, unix.SHUT_WR) }

// shortage reports whether an error of accept4(2) or of a session's sockets means
// that the process or the system is out of descriptors or memory.
func shortage(err error) bool {
	return errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) || errors.Is(err, unix.ENOBUFS) || errors.Is(err, unix.ENOMEM)
}

// scarce reports whether an error of clone(2) means that there are no processes
// or no memory to be had for now.
func scarce(errno syscall.Errno) bool { return errno == unix.EAGAIN || errno == unix.ENOMEM }

// ownShortage reports whether it is this process that has no descriptor left.
func ownShortage(err error) bool { return errors.Is(err, unix.EMFILE) }

// passing reports whether an error of accept4(2) concerns one connection only,
// accept(2) under "Error handling".
func passing(err error) bool {
	switch err {
	case unix.ECONNABORTED, unix.EPROTO, unix.ENOPROTOOPT, unix.ENETDOWN, unix.ENONET,
		unix.EHOSTDOWN, unix.EHOSTUNREACH, unix.EOPNOTSUPP, unix.ENETUNREACH, unix.ETIMEDOUT:
		return true
	}
	return false
}

// overrun reports whether a netlink socket has lost messages, netlink(7).
func overrun(err error) bool { return errors.Is(err, unix.ENOBUFS) }

// awaitChild waits until a child has ended, without reaping it, and reports
// false if there is no child to wait for.
func awaitChild() bool { return waitAny(unix.WEXITED | unix.WNOWAIT) }

// awaitable reports whether there is a child to wait for.
func awaitable() bool { return waitAny(unix.WEXITED | unix.WNOWAIT | unix.WNOHANG) }

func waitAny(options int) bool {
	for {
		err := unix.Waitid(unix.P_ALL, 0, nil, options, nil)
		if err != unix.EINTR {
			return err == nil
		}
	}
}

// forkNoExec is PF_FORKNOEXEC of the kernel's sched.h, in the flags of
// proc_pid_stat(5): forked, and no program executed since.
const forkNoExec = 0x40

// beforeProgram is the state of a child, the letter of proc_pid_stat(5), as long
// as it has not reached its program. It is 0 for one that has, or has ended: the
// thread that made it may not have noticed yet, on a busy machine for long.
func beforeProgram(pid int) byte {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return stopped(pid) // no descriptor is left, or no /proc is there
	}
	// The name of the program, in parentheses, may have any byte in it. After
	// it: state ppid pgrp session tty tpgid flags.
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 7 || f[0][0] == 'Z' || f[0][0] == 'X' {
		return 0
	}
	if flags, err := strconv.ParseUint(string(f[6]), 10, 64); err != nil || flags&forkNoExec == 0 {
		return 0
	}
	return f[0][0]
}

// parentOf is the parent of a process, 0 if that cannot be told.
func parentOf(pid int) int {
	b, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/stat")
	if err != nil {
		return 0
	}
	f := bytes.Fields(b[bytes.LastIndexByte(b, ')')+1:])
	if len(f) < 2 {
		return 0
	}
	parent, _ := strconv.Atoi(string(f[1]))
	return parent
}

// stopped returns 'T' for a child that a signal has stopped, else 0.
func stopped(pid int) byte {
	var info unix.Siginfo
	err := unix.Waitid(unix.P_PID, pid, &info, unix.WSTOPPED|unix.WNOHANG|unix.WNOWAIT, nil)
	if err == nil && info.Signo != 0 {
		return 'T'
	}
	return 0
}

// connOf gets the connection of a child that has not reached its program, so that
// its peer can be told that it will not. It is -1 if that is not allowed, or not
// possible.
func connOf(pid int) int {
	p, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	defer unix.Close(p)
	fd, err := unix.PidfdGetfd(p, 0, 0)
	if err != nil {
		return -1
	}
	return fd
}

// growTable makes room for n more descriptors at once. The table doubles by itself,
// but in a process with several threads the kernel waits for a grace period of RCU
// each time, which is some ten milliseconds. fd is any that is open.
func growTable(fd, n int) {
	if far, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, fd+n); err == nil {
		unix.Close(far)
	}
}

// openMost is how many descriptors this process may have.
func openMost() uint64 {
	var lim unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NOFILE, &lim) != nil {
		return 0
	}
	return lim.Cur
}
