package supervisor

// The last of a connection that the daemon itself ends: its reply, and a close that
// neither destroys it nor waits for the peer. One whose peer is still to be waited
// for goes into the pending table.

// closeApart closes a connection that gets nothing. On a unix socket a peer may
// have sent descriptors that nobody has taken, and close(2) then waits for as long
// as he has set SO_LINGER on one of them: no worker does.
func (s *Supervisor) closeApart(c connection) {
	if !c.peer.Network.Unix() {
		closeFd(c.fd)
		return
	}
	if s.closing.Add(1) > closingMost {
		defer s.closing.Add(-1)
		closeFd(c.fd)
		return
	}
	go func() {
		defer s.closing.Add(-1)
		closeFd(c.fd)
	}()
}

// closingMost bounds the threads that may stand in such a close.
const closingMost = 8

// end closes a connection that was pending. A reply that stays incomplete is
// ended by a reset: a list that just stops would look like a shorter one.
func (c connection) end() {
	if c.cut {
		abortFd(c.fd)
		return
	}
	closeFd(c.fd)
}

// reply sends the last bytes that a connection gets from the daemon and closes
// it so that they arrive.
func (s *Supervisor) reply(l *loop, c connection, b []byte) {
	rest, done := finish(c.fd, b, nil)
	if done {
		closeFd(c.fd)
		return
	}
	s.put(l, c, pendingLinger, rest)
}

// finish sends what is left of a reply, then reads until the peer closes. It
// reports true when nothing more is to be waited for.
func finish(fd int, rest []byte, drained *int32) ([]byte, bool) {
	if len(rest) > 0 {
		n, err := send(fd, rest)
		if err != nil && !again(err) {
			return nil, true
		}
		if rest = rest[n:]; len(rest) > 0 {
			return append([]byte(nil), rest...), false
		}
		if shutdownWrite(fd) != nil {
			return nil, true
		}
	}
	var none int32
	if drained == nil {
		drained = &none
	}
	var sink [2048]byte
	for *drained < lingerBytes {
		n, err := take(fd, sink[:])
		if err != nil {
			return nil, !again(err)
		}
		if n == 0 {
			return nil, true
		}
		*drained += int32(n)
	}
	return nil, true
}
