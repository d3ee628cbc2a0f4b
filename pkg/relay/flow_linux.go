package relay

// What is done with bytes that have come.

import "golang.org/x/sys/unix"

const (
	// share is what is moved before it is another record's turn, and what a pipe
	// is made for: a system call costs the same for all that a socket holds.
	share = 256 << 10
	// copyShare is share where bytes go through this process.
	copyShare = 64 << 10
	// sinkSize is what is dropped at once. The kernel writes nothing there, so
	// that it costs addresses and no memory.
	sinkSize = 1 << 20
)

// forward moves what can be moved in the directions that a side is part of.
func (l *Loop) forward(r *record, s int) error {
	for i := range r.halves {
		h := &r.halves[i]
		if from, _ := r.ends(i); h.done || h.blocked == (from == s) {
			continue // it does not wait for this side
		}
		if err := l.pump(r, i); err != nil {
			// What the other direction still has may be the answer that
			// explains it.
			l.pump(r, 1-i)
			return err
		}
	}
	return nil
}

// pump moves a share of one direction, or less if somebody has to wait.
func (l *Loop) pump(r *record, i int) error {
	h := &r.halves[i]
	if h.done {
		return nil
	}
	from, to := r.ends(i)
	if err := l.once(r, h, from, to); err != nil || h.blocked || !h.ended {
		return err
	}
	if h.done = true; from != to {
		// An error here is reported of the socket as well.
		unix.Shutdown(int(r.sides[to].fd), unix.SHUT_WR)
	}
	return nil
}

// once moves up to a share. In h stands whether that was the end, and whether the
// receiver is in the way.
func (l *Loop) once(r *record, h *half, from, to int) error {
	if h.held == 0 && !h.ended {
		if !h.copies && !l.pipes.get(h) {
			h.copies = true // for want of descriptors
		}
		if h.copies {
			return l.copy(r, h, from, to)
		}
		n, err := splice(int(r.sides[from].fd), int(h.pipe.w), share)
		if n <= 0 {
			l.pipes.put(h)
		}
		switch {
		case err == unix.EAGAIN:
			return nil
		case err == unix.EINVAL:
			h.copies = true // not with this kind of socket
			return l.copy(r, h, from, to)
		case err != nil:
			return err
		case n == 0:
			h.ended = true
			return nil
		}
		r.read(from, n)
		r.moved = l.now
		h.held = int32(n)
	}
	for h.held > 0 {
		n, err := splice(int(h.pipe.r), int(r.sides[to].fd), int(h.held))
		if err == unix.EAGAIN {
			h.blocked = true
			return nil
		}
		if err != nil {
			return err
		}
		r.written(to, n)
		r.moved = l.now
		h.held -= int32(n)
	}
	h.blocked = false
	l.pipes.put(h)
	return nil
}

// copy is once without a pipe. What the receiver does not take stays where it
// is, in the sender's socket: it is only looked at, and taken when it has gone.
func (l *Loop) copy(r *record, h *half, from, to int) error {
	fd := int(r.sides[from].fd)
	n, err := peek(fd, l.buffer)
	switch {
	case err == unix.EAGAIN:
		h.blocked = false
		return nil
	case err != nil:
		return err
	case n == 0:
		h.ended, h.blocked = true, false
		return nil
	}
	sent, err := write(int(r.sides[to].fd), l.buffer[:n])
	if err != nil && err != unix.EAGAIN {
		return err
	}
	h.blocked = sent < n
	for left := sent; left > 0; {
		n, err := read(fd, l.buffer[:left])
		if err != nil {
			return err
		}
		if n == 0 {
			return unix.ECONNRESET // the bytes were there
		}
		left -= n
	}
	if sent > 0 {
		r.moved = l.now
		r.read(from, sent)
		r.written(to, sent)
	}
	return nil
}

// drop takes what has come and drops it, where it can in the kernel: tcp(7) has
// MSG_TRUNC for that.
func (l *Loop) drop(r *record) (n int, err error) {
	fd := int(r.sides[0].fd)
	if r.tcp {
		n, err = recvTrunc(fd, l.sink)
	} else {
		n, err = read(fd, l.buffer)
	}
	if n > 0 {
		r.moved = l.now
		r.in += uint64(n)
	}
	return n, err
}

func (l *Loop) discard(r *record) error {
	n, err := l.drop(r)
	if err == unix.EAGAIN {
		return nil
	}
	r.halves[0].done = err == nil && n == 0
	return err
}

// chargen sends a share of the pattern, and drops what has come. A peer that
// has ended its side may still want to read.
func (l *Loop) chargen(r *record, events uint32) error {
	if events&unix.EPOLLIN != 0 {
		n, err := l.drop(r)
		if err != nil && err != unix.EAGAIN {
			return err
		}
		r.halves[0].ended = err == nil && n == 0
	}
	n, err := write(int(r.sides[0].fd), r.plan.Pattern[r.at:])
	if err == unix.EAGAIN {
		return nil
	}
	if n > 0 {
		r.moved = l.now
		r.out += uint64(n)
		r.at = int32((int(r.at) + n) % len(r.plan.Pattern))
	}
	return err
}

// part sends the last that a peer gets, and waits until it closes: to close at once
// would destroy it.
func (l *Loop) part(r *record, words string, why Reason) {
	fd := int(r.sides[0].fd)
	if say(fd, words) != nil || unix.Shutdown(fd, unix.SHUT_WR) != nil {
		l.end(r, why, nil)
		return
	}
	r.lingering, r.moved, r.why = true, l.now, why
	l.wait(r)
}

// linger reads what a peer still says that has had its last words.
func (l *Loop) linger(r *record) {
	for r.drained < lingerBytes {
		n, err := read(int(r.sides[0].fd), l.buffer)
		if err == unix.EAGAIN {
			return
		}
		if n <= 0 || err != nil {
			break
		}
		r.drained += int32(n)
	}
	l.end(r, r.why, nil)
}
