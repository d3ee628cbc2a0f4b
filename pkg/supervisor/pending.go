package supervisor

// Pending connections: those whose PROXY header has not come; on the multiplexers
// negotiations whose line is not complete, and peers that wait for a place of their
// service, see line.go; and refusals whose last bytes are on their way. Each is a
// descriptor in a loop's epoll set and a record here.
//
// Whoever takes a record out of the table owns its descriptor, and takes it out
// of the epoll set first: afterwards it would report for ever and could not be
// removed.

import (
	"slices"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

const (
	// lingerTime and lingerBytes bound what is waited for and read after a
	// reply: closing while bytes of the peer are unread or under way would have
	// the kernel send a reset, which destroys the reply. lingerTime is also how
	// long a peer may read nothing of a reply that is larger than its window,
	// and lingerMost how long it may take over all of it.
	lingerTime  = 2 * time.Second
	lingerMost  = 30 * time.Second
	lingerBytes = 64 << 10

	// headersMost is how many connections of a row other than a multiplexer may
	// wait for their headers. The row's own limits are about peers, and nobody
	// knows yet who that is.
	headersMost = 1024
)

type pendingState uint8

const (
	pendingFree   pendingState = iota
	pendingHeader              // waits for the rest of the PROXY header
	pendingLine                // waits for the rest of the line
	pendingLinger              // the reply is sent or being sent; waits for the peer to close
	pendingWait                // waits for a place of a service
)

// How many lingering connections a row keeps that is no multiplexer, and of them
// of one source: those of a row that sends its refused peers a text.
const (
	tellMost      = 256
	tellPerSource = 16
)

// park puts a negotiation into the table.
func (s *Supervisor) park(l *loop, c connection, head []byte) {
	s.put(l, c, pendingLine, head)
}

func (s *Supervisor) put(l *loop, c connection, state pendingState, data []byte) {
	if state != pendingHeader {
		c.reserved = reservation{} // was given back, or there was none
	}
	s.pending.mu.Lock()
	if c.listener.unit.crowd.gone || state == pendingWait && c.waits.crowd.gone {
		s.pending.mu.Unlock()
		c.answered = state == pendingLinger
		s.drop(c, tcpmux.NotAvailable)
		return
	}
	old, crowded := s.pending.room(c, state)
	err := s.pending.insert(l, c, state, s.now(), data)
	s.pending.mu.Unlock()
	if crowded {
		s.evicted(old)
	}
	if err != nil {
		s.log.problem("cannot poll a connection", err)
		c.answered = true // it is not told
		s.drop(c, "")
	}
}

// asks is the row that a pending connection has asked for, as far as is known.
func (c connection) asks() *unit {
	if c.waits != nil {
		return c.waits
	}
	return c.listener.unit
}

// evicted ends a connection that had to make room.
func (s *Supervisor) evicted(c connection) {
	if !c.answered {
		s.log.refused(c.asks(), c.peer, refusedCrowded, c.local())
	}
	s.drop(c, tcpmux.Crowded)
}

// drop ends a connection that loses its place. What it has sent so far is read, so
// that the reply of a multiplexer is not destroyed by a reset, but there is no
// lingering for it: that would need the very place it has lost.
func (s *Supervisor) drop(c connection, line string) {
	s.returnPlace(c.listener.unit, c.reserved)
	if !c.answered && c.mux != nil {
		finish(c.fd, []byte(line), nil)
	}
	c.end()
}

// evictAny gives up one pending connection to have its descriptor.
func (s *Supervisor) evictAny() bool {
	s.pending.mu.Lock()
	for _, u := range s.pending.crowds {
		if i, ok := u.crowd.victim(); ok {
			c := s.pending.takeOut(i)
			s.pending.mu.Unlock()
			s.evicted(c)
			return true
		}
	}
	s.pending.mu.Unlock()
	return false
}

// peerEvent looks at a pending connection that its loop has reported.
func (w *worker) peerEvent(ev event) {
	t := &w.s.pending
	t.mu.Lock()
	i := t.get(ev.token)
	if i == 0 {
		t.mu.Unlock()
		return
	}
	p := &t.slots[i]
	if p.state == pendingLinger {
		unsent := len(p.data)
		var done bool
		if p.data, done = finish(int(p.fd), p.data, &p.drained); !done {
			if now := w.s.now(); len(p.data) < unsent && now-p.born < lingerMost-lingerTime {
				// It reads, however slowly: its time begins anew.
				t.unlink(i)
				p.since = now
				t.push(i)
			}
			t.mu.Unlock()
			return
		}
		c := t.takeOut(i)
		t.mu.Unlock()
		closeFd(c.fd)
		return
	}
	if p.state == pendingHeader {
		h, more, err := w.readHeader(int(p.fd), ev)
		if more {
			t.mu.Unlock()
			return
		}
		c := t.takeOut(i)
		t.mu.Unlock()
		w.introduced(c, h, err)
		return
	}
	if p.state == pendingWait {
		// What comes now is the service's, and so is an end in order.
		if !ev.broken {
			t.mu.Unlock()
			return
		}
		c := t.takeOut(i)
		t.mu.Unlock()
		w.s.log.refused(c.waits, c.peer, refusedGone, c.local())
		closeFd(c.fd)
		return
	}
	v, name, head := w.readLine(int(p.fd), p.data, ev)
	if v == lineMore {
		p.data = head
		t.mu.Unlock()
		return
	}
	c := t.takeOut(i)
	t.mu.Unlock()
	w.conclude(c, v, name)
}

// expirePending ends what has waited too long, and says how long a loop may
// sleep: negative for ever.
func (s *Supervisor) expirePending() time.Duration {
	if s.pending.count.Load() == 0 {
		return -1
	}
	var late [16]connection
	for {
		n, wait := s.overdue(late[:], s.now())
		if n == 0 {
			return wait
		}
		for _, c := range late[:n] {
			switch {
			case c.answered:
				c.end()
			case c.headless:
				s.headless(s.loops[0], c, errHeaderLate)
			case c.waits != nil:
				s.waitedInVain(c)
			default:
				s.log.refused(c.mux, c.peer, refusedTimeout, c.local())
				s.reply(s.loops[0], c, []byte(tcpmux.TimedOut))
			}
		}
	}
}

// overdue takes up to len(late) overdue connections out of the table.
func (s *Supervisor) overdue(late []connection, now time.Duration) (n int, wait time.Duration) {
	t := &s.pending
	t.mu.Lock()
	defer t.mu.Unlock()
	wait = -1
	for _, u := range t.crowds {
		// All of a queue wait equally long, so that its head is the next.
		for state, most := range [...]time.Duration{
			pendingHeader: u.row.Load().ProxyTimeout,
			pendingLine:   u.row.Load().Timeout,
			pendingLinger: lingerTime,
		} {
			q := &u.crowd.queues[state]
			for q.head != 0 && n < len(late) {
				left := t.slots[q.head].since + most - now
				if left > 0 {
					if wait < 0 || left < wait {
						wait = left
					}
					break
				}
				late[n] = t.takeOut(q.head)
				n++
			}
		}
	}
	m, wait := s.lateInLine(late[n:], now, wait)
	return n + m, wait
}

// refusePending ends all that is pending, or that of one row.
func (s *Supervisor) refusePending(of *unit) {
	for {
		c, ok := s.pending.any(of)
		if !ok {
			return
		}
		if !c.answered {
			s.log.refused(c.asks(), c.peer, refusedRow, c.local())
		}
		s.drop(c, tcpmux.NotAvailable)
	}
}

// dropPending ends all that is pending at a row that is gone. A
// worker may still have a connection of it in hand.
func (s *Supervisor) dropPending(u *unit) {
	t := &s.pending
	t.mu.Lock()
	u.crowd.gone = true
	t.mu.Unlock()
	s.refusePending(u)
	t.mu.Lock()
	defer t.mu.Unlock()
	t.crowds = slices.DeleteFunc(t.crowds, func(x *unit) bool { return x == u })
	u.crowd.crowd = nil
}
