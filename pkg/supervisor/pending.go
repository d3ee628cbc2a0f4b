package supervisor

// Pending connections of the multiplexers: negotiations whose line is not
// complete, and refusals whose last bytes are on their way. Each is a
// descriptor in a loop's epoll set and a record here.
//
// Whoever takes a record out of the table owns its descriptor, and takes it out
// of the epoll set first: afterwards it would report for ever and could not be
// removed.

import (
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
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
)

type pendingState uint8

const (
	pendingFree   pendingState = iota
	pendingLine                // waits for the rest of the line
	pendingLinger              // the reply is sent or being sent; waits for the peer to close
)

type pending struct {
	fd         int32
	next, prev int32 // in the queue of its state, oldest first; next also of free records
	gen        uint32
	state      pendingState
	drained    int32
	loop       *loop
	mux        *unit
	listener   *socket
	born       time.Duration
	since      time.Duration // when its time began: born, or later for a reply that is being read
	peer       service.Peer
	data       []byte // pendingLine: head of the line, see readLine; pendingLinger: unsent rest
}

// A pendingCrowd is what the table keeps for one multiplexer.
type pendingCrowd struct {
	crowd  *limit.Crowd // nil until the first one
	queues [3]queue     // by pendingState
	gone   bool         // its row is: no record may come any more
}

type queue struct{ head, tail int32 }

type pendingTable struct {
	mu     sync.Mutex
	slots  []pending // slot 0 is not used: 0 means none in the lists
	free   int32
	gen    uint32 // of the newest record; makes its token unlike all before
	crowds []*unit
	count  atomic.Int32
}

func (t *pendingTable) init() { t.slots, t.free = make([]pending, 1), 0 }

func (t *pendingTable) tokenOf(i int32) uint64 {
	return tokenPeer | uint64(t.slots[i].gen&0x7fffffff)<<32 | uint64(uint32(i))
}

// get finds the record of a token, or 0 if it has been taken out since.
func (t *pendingTable) get(token uint64) int32 {
	i := int32(uint32(token))
	if int(i) >= len(t.slots) || t.slots[i].state == pendingFree || t.tokenOf(i) != token {
		return 0
	}
	return i
}

// insert makes a record and has its loop report on it. The caller holds mu and
// has made room.
func (t *pendingTable) insert(l *loop, c connection, state pendingState, now time.Duration, data []byte) error {
	i := t.free
	t.gen++
	if i != 0 {
		t.free = t.slots[i].next
	} else {
		t.slots = append(t.slots, pending{})
		i = int32(len(t.slots) - 1)
	}
	u := c.mux
	p := &t.slots[i]
	*p = pending{
		fd: int32(c.fd), gen: t.gen, state: state, loop: l, mux: u,
		listener: c.listener, born: now, since: now, peer: c.peer, data: data,
	}
	u.crowd.crowd.Add(i, service.SourceOf(&u.row.Load().Limits, c.peer))
	t.push(i)
	t.count.Add(1)
	if err := l.poll.addPeer(c.fd, t.tokenOf(i), state == pendingLinger && len(data) > 0); err != nil {
		t.forget(i)
		return err
	}
	return nil
}

// takeOut removes a record; its descriptor is the caller's.
func (t *pendingTable) takeOut(i int32) connection {
	p := &t.slots[i]
	p.loop.poll.remove(int(p.fd))
	c := connection{
		fd: int(p.fd), peer: p.peer, listener: p.listener, mux: p.mux,
		answered: p.state == pendingLinger,
		cut:      p.state == pendingLinger && len(p.data) > 0,
	}
	t.forget(i)
	return c
}

func (t *pendingTable) forget(i int32) {
	p := &t.slots[i]
	u := p.mux
	u.crowd.crowd.Remove(i)
	t.unlink(i)
	*p = pending{next: t.free}
	t.free = i
	if t.count.Add(-1) == 0 && len(t.slots) > keepSlots {
		// A flood is over: give its memory back.
		t.init()
		for _, u := range t.crowds {
			u.crowd.crowd = new(limit.Crowd)
		}
	}
}

// keepSlots is the number of records that are kept for the next flood.
const keepSlots = 1024

func (t *pendingTable) push(i int32) {
	p := &t.slots[i]
	q := &p.mux.crowd.queues[p.state]
	p.next, p.prev = 0, q.tail
	if q.tail != 0 {
		t.slots[q.tail].next = i
	} else {
		q.head = i
	}
	q.tail = i
}

func (t *pendingTable) unlink(i int32) {
	p := &t.slots[i]
	q := &p.mux.crowd.queues[p.state]
	if p.prev != 0 {
		t.slots[p.prev].next = p.next
	} else {
		q.head = p.next
	}
	if p.next != 0 {
		t.slots[p.next].prev = p.prev
	} else {
		q.tail = p.prev
	}
}

// room makes place for one more of a peer and returns the connection that had
// to go for it, if any. A full table never stops the accept: the newcomer gets
// the place of the oldest one of whoever holds most.
func (t *pendingTable) room(u *unit, p service.Peer) (connection, bool) {
	limits := &u.row.Load().Limits
	if u.crowd.crowd == nil {
		u.crowd.crowd = new(limit.Crowd)
		t.crowds = append(t.crowds, u)
	}
	src := service.SourceOf(limits, p)
	var victim int32
	var full bool
	switch {
	case limits.InstancesPerSource > 0 && u.crowd.crowd.CountSource(src) >= limits.InstancesPerSource:
		victim, full = u.crowd.crowd.VictimOf(src)
	case limits.Instances > 0 && u.crowd.crowd.Len() >= limits.Instances:
		victim, full = u.crowd.victim()
	}
	if !full {
		return connection{}, false
	}
	return t.takeOut(victim), true
}

// victim is the record that can be missed most: the oldest that has had its
// reply, else the oldest negotiation of whoever holds most.
func (c *pendingCrowd) victim() (int32, bool) {
	if i := c.queues[pendingLinger].head; i != 0 {
		return i, true
	}
	if c.crowd == nil {
		return 0, false
	}
	return c.crowd.Victim()
}

// park puts a negotiation into the table.
func (s *Supervisor) park(l *loop, c connection, head []byte) {
	s.put(l, c, pendingLine, head)
}

func (s *Supervisor) put(l *loop, c connection, state pendingState, data []byte) {
	s.pending.mu.Lock()
	if c.mux.crowd.gone {
		s.pending.mu.Unlock()
		if state == pendingLine {
			finish(c.fd, []byte(tcpmux.NotAvailable), nil)
		}
		closeFd(c.fd)
		return
	}
	old, crowded := s.pending.room(c.mux, c.peer)
	err := s.pending.insert(l, c, state, s.now(), data)
	s.pending.mu.Unlock()
	if crowded {
		s.evicted(old)
	}
	if err != nil {
		s.log.problem("cannot poll a connection", err)
		closeFd(c.fd)
	}
}

// evicted ends a connection that had to make room. What it has sent so far is
// read, so that the reply is not destroyed by a reset, but there is no lingering
// for it: that would need the very place it has lost.
func (s *Supervisor) evicted(c connection) {
	if !c.answered {
		s.log.refused(c.mux, c.peer, refusedCrowded, c.local())
		finish(c.fd, []byte(tcpmux.Crowded), nil)
	}
	c.end()
}

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
			if c.answered {
				c.end()
				continue
			}
			s.log.refused(c.mux, c.peer, refusedTimeout, c.local())
			s.reply(s.loops[0], c, []byte(tcpmux.TimedOut))
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
	return n, wait
}

// refusePending ends all negotiations, or those of one multiplexer.
func (s *Supervisor) refusePending(of *unit) {
	for {
		c, ok := s.pending.any(of)
		if !ok {
			return
		}
		if !c.answered {
			finish(c.fd, []byte(tcpmux.NotAvailable), nil)
		}
		c.end()
	}
}

// any takes out one record of a unit, or of all where u is nil.
func (t *pendingTable) any(of *unit) (connection, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for _, u := range t.crowds {
		if of != nil && u != of {
			continue
		}
		for _, q := range u.crowd.queues {
			if q.head != 0 {
				return t.takeOut(q.head), true
			}
		}
	}
	return connection{}, false
}

// welcome says that a unit is in the running table: records of it may come.
func (t *pendingTable) welcome(u *unit) {
	t.mu.Lock()
	defer t.mu.Unlock()
	u.crowd.gone = false
}

// dropPending ends all that is pending at a multiplexer whose row is gone. A
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
