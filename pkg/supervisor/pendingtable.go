package supervisor

// The table of pending connections: records, who holds how many of them, and whose
// time is over next. What becomes of those that are taken out is in pending.go.

import (
	"sync"
	"sync/atomic"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

type pending struct {
	fd         int32
	next, prev int32 // in the queue of its state, oldest first; next also of free records
	gen        uint32
	state      pendingState
	drained    int32
	reserved   reservation
	mux        bool // the row of the listener is a multiplexer, which answers
	loop       *loop
	waits      *unit // pendingWait: the service
	listener   *socket
	born       time.Duration
	since      time.Duration // when its time began: born, or later for a reply that is being read
	peer       service.Peer
	data       []byte // pendingLine: head of the line, see readLine; pendingLinger: unsent rest
}

// unit is the row that the record counts for.
func (p *pending) unit() *unit { return p.listener.unit }

// A pendingCrowd is what the table keeps for one row.
type pendingCrowd struct {
	crowd  *limit.Crowd // nil until the first one
	queues [4]queue     // by pendingState
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
	s      *Supervisor
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
	u := c.listener.unit
	p := &t.slots[i]
	*p = pending{
		fd: int32(c.fd), gen: t.gen, state: state, loop: l, mux: c.mux != nil,
		listener: c.listener, reserved: c.reserved, born: now, since: now, peer: c.peer, data: data,
	}
	if state == pendingWait {
		p.waits = c.waits
		t.s.joinLocked(i, p.waits, c.peer)
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
		fd: int(p.fd), peer: p.peer, listener: p.listener, waits: p.waits,
		reserved: p.reserved,
		headless: p.state == pendingHeader,
		answered: p.state == pendingLinger,
		cut:      p.state == pendingLinger && len(p.data) > 0,
	}
	if p.mux {
		c.mux = p.unit()
	}
	t.forget(i)
	return c
}

func (t *pendingTable) forget(i int32) {
	p := &t.slots[i]
	p.unit().crowd.crowd.Remove(i)
	t.unlink(i)
	if p.waits != nil {
		t.s.partLocked(i, p.waits)
	}
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

// queue is where the record stands by its age.
func (p *pending) queue() *queue {
	if p.state == pendingWait {
		return &p.waits.line.age
	}
	return &p.unit().crowd.queues[p.state]
}

func (t *pendingTable) push(i int32) {
	p := &t.slots[i]
	q := p.queue()
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
	q := p.queue()
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

// room makes place for one more connection and returns the one that had to go for
// it, if any. A full table never stops the accept: the newcomer gets
// the place of the oldest one of whoever holds most.
func (t *pendingTable) room(c connection, state pendingState) (connection, bool) {
	u := c.listener.unit
	r := u.row.Load()
	limits := &r.Limits
	most, mostPerSource := limits.Instances, limits.InstancesPerSource
	if r.Builtin != service.BuiltinTCPMUX {
		if most, mostPerSource = tellMost, tellPerSource; r.ProxyFrom != nil {
			most = headersMost
		}
	}
	if state == pendingHeader {
		mostPerSource = 0 // it would be the proxy's
	}
	if u.crowd.crowd == nil {
		u.crowd.crowd = new(limit.Crowd)
		t.crowds = append(t.crowds, u)
	}
	src := service.SourceOf(limits, c.peer)
	var victim int32
	var full bool
	switch {
	case mostPerSource > 0 && u.crowd.crowd.CountSource(src) >= mostPerSource:
		victim, full = u.crowd.crowd.VictimOf(src)
	case most > 0 && u.crowd.crowd.Len() >= most:
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
	for _, u := range t.s.lines.units {
		for i := u.line.age.head; i != 0; i = t.slots[i].next {
			if of == nil || of == u || of == t.slots[i].unit() {
				return t.takeOut(i), true
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
