package main

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file measures what is no rate: memory of what is held, and the table's
// start and reload.

// perChild is what a live child costs the server's own process, from the
// difference between many and more of them.
func perChild(ctx context.Context, r *running) ([]Figure, error) {
	return r.growth(ctx, perChildName, 1000, 4000, len("ok\n"), "")
}

// perNegotiation is the same for peers that have not said a name.
func perNegotiation(ctx context.Context, r *running) ([]Figure, error) {
	text := ""
	if r.task.variant.name == oneByte {
		text = muxName[:1]
	}
	return r.growth(ctx, perNegotiationName, 2000, 8000, 0, text)
}

func (r *running) growth(ctx context.Context, name string, few, many, answer int, text string) ([]Figure, error) {
	var size [2]int64
	for i, more := range []int{few, many - few} {
		if err := r.hold(ctx, more, answer, text); err != nil {
			return nil, err
		}
		var err error
		if size[i], err = pss(r.process.Pid); err != nil {
			return nil, err
		}
	}
	return []Figure{single(name, "B", float64(size[1]-size[0])*1024/float64(many-few))}, nil
}

// reloads is the CPU time of a reload, of the same file and of one with a
// changed row in the middle.
func reloads(ctx context.Context, r *running) (figures []Figure, err error) {
	for _, name := range []string{reloadSame, reloadChanged} {
		r.task.changed = name == reloadChanged
		if _, err := r.command(); err != nil {
			return nil, err
		}
		if err := r.rest(ctx); err != nil {
			return nil, err
		}
		before, err := r.group.cpu(r.process.Pid)
		if err != nil {
			return nil, err
		}
		if err := r.process.Signal(syscall.SIGHUP); err != nil {
			return nil, err
		}
		if err := r.rest(ctx); err != nil {
			return nil, err
		}
		after, err := r.group.cpu(r.process.Pid)
		if err != nil {
			return nil, err
		}
		figures = append(figures, single(name, "ms CPU", (after-before).Seconds()*1e3))
	}
	// Whether it still serves is not taken for granted.
	return figures, awaitAnswer(ctx, r.task.port, time.Now().Add(startTime))
}

// awaitAnswer tries until a connection is answered by the child. It makes its
// own system calls: its thread is the one in the namespace, and a process for
// each try would be slower than what is measured.
func awaitAnswer(ctx context.Context, port int, end time.Time) error {
	for ; time.Now().Before(end) && ctx.Err() == nil; time.Sleep(500 * time.Microsecond) {
		answer, err := ask(port)
		if err == nil && answer == "ok\n" {
			return nil
		}
	}
	return fmt.Errorf("port %d is not served", port)
}

func ask(port int) (string, error) {
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(s)
	unix.SetsockoptLinger(s, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.SetsockoptTimeval(s, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 1})
	if err := unix.Connect(s, &unix.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return "", err
	}
	var b [64]byte
	n, err := unix.Read(s, b[:])
	return string(b[:max(n, 0)]), err
}

// A notify is where a server says READY=1 (sd_notify(3)).
type notify struct {
	path string
	conn *net.UnixConn
	at   chan time.Time
}

func listenNotify(path string) (*notify, error) {
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		return nil, err
	}
	n := &notify{path, conn, make(chan time.Time, 1)}
	go n.read()
	return n, nil
}

func (n *notify) read() {
	var b [4096]byte
	for {
		count, err := n.conn.Read(b[:])
		if err != nil {
			return
		}
		if strings.Contains("\n"+string(b[:count])+"\n", "\nREADY=1\n") {
			select {
			case n.at <- time.Now():
			default: // a reload has said it before
			}
		}
	}
}

func (n *notify) await(atMost time.Duration) (time.Time, error) {
	select {
	case at := <-n.at:
		return at, nil
	case <-time.After(atMost):
		return time.Time{}, fmt.Errorf("READY=1 was not said within %v", atMost)
	}
}

func (n *notify) close() { n.conn.Close() }
