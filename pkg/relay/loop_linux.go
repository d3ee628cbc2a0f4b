package relay

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// yieldEvery is short of the ten milliseconds after which the Go runtime takes
// a goroutine for one that does not let others run and signals its thread.
const yieldEvery = 5 * time.Millisecond

// A Loop serves connections. Serve is for one goroutine; everything else may be
// called by any.
type Loop struct {
	names *Names
	epoch time.Time
	poll  int
	wake  int // eventfd

	mu      sync.Mutex
	inbox   []Conn
	answers []answer
	cuts    map[uint64]bool
	cutAll  bool
	rung    bool // a name is known now
	closed  bool
	freed   bool        // wake is closed
	asleep  atomic.Bool // in epoll_wait, with an inbox that was empty before

	// Of Serve:
	now     time.Duration
	yielded time.Duration
	records []*record
	free    []int32
	gen     uint32
	naming  []*record // wait for a name
	clock   clock
	pipes   pipes
	buffer  []byte // for bytes that go through this process
	sink    []byte // for bytes that the kernel drops; never written to
	ended   []End
	events  [128]unix.EpollEvent
}

// tokenWake is the token of the eventfd; records begin with generation 1.
const tokenWake = 0

// NewLoop makes a Loop that asks names for the hosts of targets. It has two
// descriptors, and later those of its connections, until Serve says that it has
// ended.
func NewLoop(names *Names) (*Loop, error) {
	poll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		unix.Close(poll)
		return nil, os.NewSyscallError("eventfd", err)
	}
	// Edge-triggered: each write wakes once, and nobody has to read.
	if err := control(poll, unix.EPOLL_CTL_ADD, wake, unix.EPOLLIN|unix.EPOLLET, tokenWake); err != nil {
		unix.Close(poll)
		unix.Close(wake)
		return nil, err
	}
	return &Loop{
		names: names, epoch: time.Now(), poll: poll, wake: wake,
		buffer: make([]byte, copyShare), sink: make([]byte, sinkSize),
	}, nil
}

// Add takes a connection over: its descriptor belongs to the loop from now on
// and becomes non-blocking. The error is ErrClosed; the descriptor is the
// caller's then.
func (l *Loop) Add(c Conn) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return ErrClosed
	}
	l.inbox = append(l.inbox, c)
	l.wakeLocked()
	return nil
}

// Cut ends the connections with these numbers; of those that have ended already
// nothing is said.
func (l *Loop) Cut(ids ...uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.cuts == nil {
		l.cuts = map[uint64]bool{}
	}
	for _, id := range ids {
		l.cuts[id] = true
	}
	l.wakeLocked()
}

// CutAll ends all connections.
func (l *Loop) CutAll() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.cutAll = true
	l.wakeLocked()
}

// Close ends the loop and all its connections. What it holds is free when Serve
// has said so.
func (l *Loop) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.closed = true
	l.wakeLocked()
}

// ring has the loop look for names that are known now.
func (l *Loop) ring() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.rung = true
	l.wakeLocked()
}

func (l *Loop) wakeLocked() {
	if !l.freed && l.asleep.CompareAndSwap(true, false) {
		unix.Write(l.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	}
}

// Serve moves bytes until connections have ended, and returns them; the slice is
// good until the next call. It is to be called again until ok is false: then the
// loop was closed, these are the last ends, and everything is given back.
func (l *Loop) Serve() (ended []End, ok bool) {
	l.ended = l.ended[:0]
	for len(l.ended) == 0 {
		n, err := unix.EpollWait(l.poll, l.events[:], l.timeout())
		l.asleep.Store(false)
		l.now = time.Since(l.epoch)
		if err != nil && err != unix.EINTR {
			l.Close() // the set itself is broken
		}
		for i := range max(n, 0) {
			e := &l.events[i]
			l.event(uint64(uint32(e.Fd))|uint64(uint32(e.Pad))<<32, e.Events)
		}
		if !l.post() {
			l.release()
			return l.ended, false
		}
		l.expire()
		if l.now-l.yielded > yieldEvery {
			l.yielded = l.now
			runtime.Gosched()
		}
	}
	return l.ended, true
}

// timeout is how long to sleep, in milliseconds; negative for ever.
func (l *Loop) timeout() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.inbox) > 0 || len(l.answers) > 0 || len(l.cuts) > 0 || l.cutAll || l.rung || l.closed {
		return 0
	}
	l.asleep.Store(true)
	if len(l.clock) == 0 {
		return -1
	}
	// Rounded up: waking a moment too early would mean to spin.
	wait := l.clock[0].due - time.Since(l.epoch)
	return int(min(max(0, wait+time.Millisecond-1)/time.Millisecond, 1<<30))
}

// post looks at what others have left for the loop, and reports false if it is
// to end.
func (l *Loop) post() bool {
	l.mu.Lock()
	inbox, answers, cuts, all, rung, closed := l.inbox, l.answers, l.cuts, l.cutAll, l.rung, l.closed
	l.inbox, l.answers, l.cuts, l.cutAll, l.rung = nil, nil, nil, false, false
	l.mu.Unlock()
	for _, c := range inbox {
		l.take(c)
	}
	for _, a := range answers {
		l.tell(a)
	}
	if rung {
		waiting := l.naming
		l.naming = nil
		for _, r := range waiting {
			if !r.gone && r.dial != nil && r.dial.places == nil {
				l.seek(r)
			}
		}
	}
	if all || closed || len(cuts) > 0 {
		for _, r := range l.records {
			if r != nil && (all || closed || cuts[r.id]) {
				l.end(r, Cut, nil)
			}
		}
	}
	return !closed
}

// take makes the record of a connection.
func (l *Loop) take(c Conn) {
	l.gen++
	if l.gen == 0 {
		l.gen = 1
	}
	r := &record{
		id: c.ID, plan: c.Plan, gen: l.gen, born: l.now, moved: l.now, tcp: c.Peer.Network.TCP(), ask: c.Ask,
		sides: [2]side{{fd: int32(c.FD)}, {fd: -1}},
	}
	if n := len(l.free); n > 0 {
		r.index = l.free[n-1]
		l.free = l.free[:n-1]
		l.records[r.index] = r
	} else {
		r.index = int32(len(l.records))
		l.records = append(l.records, r)
	}
	unblock(c.FD)
	if r.plan.Flow == Forward {
		r.dial = &dial{peer: c.Peer.Addr, header: headerFor(&c)}
		l.seek(r)
		return
	}
	l.begin(r)
}

// begin sends the prefix and starts the flow.
func (l *Loop) begin(r *record) {
	if err := say(int(r.sides[0].fd), r.plan.Prefix); err != nil {
		l.fail(r, err)
		return
	}
	r.moved = l.now
	l.settle(r)
	l.schedule(r)
}

// find is the record of a token, and which side of it; nil if it has ended since,
// or it is the eventfd's.
func (l *Loop) find(token uint64) (r *record, side int) {
	i := uint32(token) >> 1
	if token == tokenWake || int(i) >= len(l.records) {
		return nil, 0
	}
	if r = l.records[i]; r == nil || r.gen != uint32(token>>32) {
		return nil, 0
	}
	return r, int(token & 1)
}

// event looks at a record that the kernel has reported.
func (l *Loop) event(token uint64, events uint32) {
	r, s := l.find(token)
	if r == nil {
		return
	}
	var err error
	switch {
	case r.dial != nil:
		l.dialed(r, s, events)
		return
	case r.lingering:
		l.linger(r)
		return
	case r.plan.Flow == Discard:
		err = l.discard(r)
	case r.plan.Flow == Chargen:
		err = l.chargen(r, events)
	case r.plan.Flow == Echo:
		err = l.pump(r, 0)
	case r.plan.Flow == Ask:
		err = l.question(r)
	default:
		err = l.forward(r, s)
	}
	if err == nil && events&unix.EPOLLERR != 0 {
		err = unix.ECONNRESET
	}
	if err != nil {
		l.fail(r, err)
		return
	}
	l.settle(r)
}

// settle has the kernel report what the record waits for now, or ends it if that
// is nothing.
func (l *Loop) settle(r *record) {
	if r.halves[0].done && (r.plan.Flow != Forward || r.halves[1].done) {
		l.end(r, Closed, nil)
		return
	}
	if err := l.watch(r); err != nil {
		l.end(r, Failed, err)
	}
}

// watch enters both sides with what they wait for into the epoll set.
func (l *Loop) watch(r *record) error {
	for s := range r.sides {
		side := &r.sides[s]
		if side.fd < 0 {
			continue
		}
		events := r.wants(s)
		if side.watched && side.events == events {
			continue
		}
		op := unix.EPOLL_CTL_MOD
		if !side.watched {
			op = unix.EPOLL_CTL_ADD
		}
		if err := control(l.poll, op, int(side.fd), events, r.token(s)); err != nil {
			return err
		}
		side.watched, side.events = true, events
	}
	return nil
}

func (r *record) token(s int) uint64 {
	return uint64(r.gen)<<32 | uint64(r.index)<<1 | uint64(s)
}

// wants is what a side waits for. The set is level-triggered, so that a record
// that has had its share is reported again, after others. Only where it waits
// for nothing it is edge-triggered: errors and hang-ups are always reported, and
// should be once.
func (r *record) wants(s int) uint32 {
	var events uint32
	switch {
	case r.dial != nil:
		if s == 1 {
			events = unix.EPOLLOUT
		}
	case r.lingering || r.plan.Flow == Discard:
		events = unix.EPOLLIN
	case r.plan.Flow == Chargen:
		if events = unix.EPOLLOUT; !r.halves[0].ended {
			events |= unix.EPOLLIN
		}
	case r.plan.Flow == Ask:
		if !r.asked {
			events = unix.EPOLLIN
		}
	default:
		for i := range r.halves {
			h := &r.halves[i]
			from, to := r.ends(i)
			if from == s && !h.ended && !h.blocked {
				events |= unix.EPOLLIN
			}
			if to == s && h.blocked {
				events |= unix.EPOLLOUT
			}
			if r.plan.Flow == Echo {
				break
			}
		}
	}
	if events == 0 {
		events = unix.EPOLLET & 0xffffffff
	}
	return events
}

// schedule enters a record into the clock, after a change of what its time is.
func (l *Loop) schedule(r *record) {
	if r.gone {
		return
	}
	if at, _, ok := r.deadline(); ok {
		l.clock.set(r, at)
	} else {
		l.clock.drop(r)
	}
}

// expire looks at the records whose time is over.
func (l *Loop) expire() {
	for len(l.clock) > 0 && l.clock[0].due <= l.now {
		r := l.clock[0]
		at, why, ok := r.deadline()
		switch {
		case !ok || at > l.now:
			l.schedule(r)
		case r.dial != nil && why == Connect:
			l.overdue(r)
		case r.plan.Flow == Ask && !r.lingering:
			l.part(r, r.plan.Refusal, why)
		default:
			l.end(r, why, nil)
		}
	}
}

// fail ends a record by an error.
func (l *Loop) fail(r *record, err error) {
	switch {
	case r.plan.Flow == Chargen && (err == unix.ECONNRESET || err == unix.EPIPE):
		l.end(r, Closed, nil) // nobody ends it in any other way
	case err == unix.ECONNRESET || err == unix.EPIPE:
		l.end(r, Reset, nil)
	case broken(err):
		l.end(r, Reset, err)
	default:
		l.end(r, Failed, err)
	}
}

// end closes what a record has and notes what became of it.
func (l *Loop) end(r *record, why Reason, err error) {
	if err == nil {
		err = r.err
	}
	if err == nil && r.dial != nil {
		err = r.dial.errors()
	}
	e := End{ID: r.id, Reason: why, In: r.in, Out: r.out, Err: err}
	if r.target > 0 {
		e.Target = r.plan.Forward.Targets[r.target-1].String()
	}
	l.ended = append(l.ended, e)
	// Only what is passed on can be taken for the whole.
	reset := why != Closed && !r.lingering && (r.plan.Flow == Forward || r.plan.Flow == Echo)
	for s := range r.sides {
		l.closeSide(&r.sides[s], reset)
	}
	for i := range r.halves {
		l.pipes.put(&r.halves[i])
	}
	l.clock.drop(r)
	l.records[r.index] = nil
	l.free = append(l.free, r.index)
	r.gone, r.dial = true, nil
	if len(l.free) == len(l.records) && len(l.records) > keepRecords {
		l.records, l.free = nil, nil // a flood is over: give its memory back
	}
}

// keepRecords is the number of places that are kept for the next flood.
const keepRecords = 1024

// closeSide closes a socket. It leaves the epoll set first: a child that is just
// being made may have a copy of the descriptor for a moment.
func (l *Loop) closeSide(s *side, reset bool) {
	if s.fd < 0 {
		return
	}
	if s.watched {
		unix.EpollCtl(l.poll, unix.EPOLL_CTL_DEL, int(s.fd), nil)
	}
	if reset {
		unix.SetsockoptLinger(int(s.fd), unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	}
	unix.Close(int(s.fd))
	*s = side{fd: -1}
}

// release gives back what NewLoop has opened.
func (l *Loop) release() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.freed {
		return
	}
	l.freed = true
	l.pipes.close()
	unix.Close(l.poll)
	unix.Close(l.wake)
}
