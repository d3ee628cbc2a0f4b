package supervisor

// The tarpit: connections of sources that are held off, held open in silence so
// that a scanner waits. There are never more than the table says, they are the
// first to go when descriptors are short, and what their peers send stays in a
// buffer of the smallest size there is.

import (
	"sync"
	"sync/atomic"
	"time"
)

type tarpit struct {
	most atomic.Int32

	mu     sync.Mutex
	newest uint32
	conns  map[uint32]*tarred
	over   bool // the daemon stops
}

// A tarred is one connection in it.
type tarred struct {
	connection
	loop  *loop
	timer *time.Timer
}

// tarry holds a connection open until a moment, and reports false where there is
// no room: it is still the caller's then.
func (w *worker) tarry(c connection, until time.Duration) bool {
	s, p := w.s, &w.s.scanners.pit
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.over || len(p.conns) >= int(p.most.Load()) {
		return false
	}
	p.newest++
	id := p.newest // there are not 1<<32 of them at a time
	if err := w.loop.poll.addPeer(c.fd, tokenPit|uint64(id), false); err != nil {
		s.log.problem("cannot poll a connection", err)
		return false
	}
	shrink(c.fd)
	if p.conns == nil {
		p.conns = map[uint32]*tarred{}
	}
	p.conns[id] = &tarred{c, w.loop, time.AfterFunc(until-s.now(), func() { s.leavePit(id) })}
	return true
}

// pitEvent: something has happened to a connection in the tarpit. What its peer
// sends is not read.
func (s *Supervisor) pitEvent(ev event) {
	if ev.ended {
		s.leavePit(uint32(ev.token))
	}
}

// leavePit closes a connection in the tarpit, if it is there.
func (s *Supervisor) leavePit(id uint32) {
	p := &s.scanners.pit
	p.mu.Lock()
	x := p.conns[id]
	p.takeLocked(id)
	p.mu.Unlock()
	if x != nil {
		s.closeApart(x.connection)
	}
}

// takeLocked takes a connection out; it is the caller's.
func (p *tarpit) takeLocked(id uint32) {
	if x := p.conns[id]; x != nil {
		x.loop.poll.remove(x.fd)
		x.timer.Stop()
		delete(p.conns, id)
	}
}

// evictPit gives up one connection in the tarpit to have its descriptor.
func (s *Supervisor) evictPit() bool {
	p := &s.scanners.pit
	p.mu.Lock()
	for id, x := range p.conns {
		p.takeLocked(id)
		p.mu.Unlock()
		s.closeApart(x.connection)
		return true
	}
	p.mu.Unlock()
	return false
}

// emptyPit closes them all, and lets none in any more.
func (s *Supervisor) emptyPit() {
	p := &s.scanners.pit
	p.mu.Lock()
	p.over = true
	p.mu.Unlock()
	s.freePit()
}

// freePit closes them all, because some of them may be held off no longer. Those
// that are come back.
func (s *Supervisor) freePit() {
	for s.evictPit() {
	}
}
