package supervisor

// What children write where their row says "log". All children of a row have one
// end of a pair of datagram sockets, whose other end is read here: a running
// child costs nothing, each write is a message of its own, and the kernel says
// who has sent it. A child that outlives the daemon gets an error from its next
// write and no signal, as with a pipe or a stream it would.

import (
	"bytes"
	"os"
	"slices"
	"sync"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const (
	// outputMax is the longest message that is read; the rest of a longer one is
	// lost, and the line says so.
	outputMax = 8 << 10
	// outputPatience is how long the kernel holds a writer whose message finds the
	// queue full. The daemon reads at once and never waits for whoever reads its
	// log; only if it stands still is a line lost, and not the child held.
	outputPatience = 20 * time.Millisecond
	// outputBatch is how many messages of one row are read before the others'.
	outputBatch = 64
	// partTime is how long the beginning of a line waits for its end: many
	// programs write one line with several calls. partsMost is how many
	// beginnings wait at a time.
	partTime  = 20 * time.Millisecond
	partsMost = 64
)

// A part is the beginning of a line.
type part struct {
	from  *output
	pid   int
	own   bool
	line  []byte
	since time.Duration
}

// An output is the log of a row's children.
type output struct {
	unit    *unit
	send    int // the children's end
	receive int
}

type outputs struct {
	mu    sync.Mutex
	poll  poller
	next  uint32
	open  map[uint32]*output // by epoll token
	ended recent
	// reading is being read from. That is done without the lock: a message may
	// have descriptors, and to close the last one of a file can take long.
	reading *output
}

// recent are the pids of children that have ended last: lines of theirs may
// still be unread.
type recent struct {
	mu   sync.Mutex
	pids [256]int
	next int
}

func (r *recent) add(pid int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.pids[r.next%len(r.pids)] = pid
	r.next++
}

func (r *recent) has(pid int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.pids {
		if p == pid && p != 0 {
			return true
		}
	}
	return false
}

func (o *outputs) init(wakeFd int) (err error) {
	o.open = map[uint32]*output{}
	if o.poll, err = newPoller(); err != nil {
		return err
	}
	return o.poll.addWake(wakeFd, tokenWake)
}

// logging reports whether something of the row's children goes to the log.
func logging(e *service.Exec) bool {
	return e.Stdout == service.StdioLog || e.Stderr == service.StdioLog
}

// readyOutput gives a row's program the log it needs, before its first start.
func (s *Supervisor) readyOutput(u *unit, r *row) error {
	if r.logs.Load() || !logging(r.Exec) {
		return nil
	}
	o := &s.outputs
	o.mu.Lock()
	defer o.mu.Unlock()
	if r.logs.Load() {
		return nil
	}
	send, err := s.outputLocked(u)
	if err != nil {
		return err
	}
	r.program.SetLog(send)
	r.logs.Store(true)
	return nil
}

// outputLocked is the children's end of a unit's log, made when it is first
// needed.
func (s *Supervisor) outputLocked(u *unit) (int, error) {
	o := &s.outputs
	if u.output != nil {
		return u.output.send, nil
	}
	send, receive, err := outputPair(outputPatience)
	if err != nil {
		s.Spare(func() { send, receive, err = outputPair(outputPatience) })
	}
	if err != nil {
		return -1, err
	}
	o.next++
	if err = o.poll.addReader(receive, uint64(o.next)); err != nil {
		closeFd(send)
		closeFd(receive)
		return -1, err
	}
	u.output = &output{unit: u, send: send, receive: receive}
	o.open[o.next] = u.output
	return send, nil
}

// dropOutput ends the log of a unit that nothing starts children of any more.
func (s *Supervisor) dropOutput(u *unit) {
	o := &s.outputs
	o.mu.Lock()
	defer o.mu.Unlock()
	if u.output == nil {
		return
	}
	for token, x := range o.open {
		if x == u.output {
			delete(o.open, token)
		}
	}
	o.poll.remove(u.output.receive)
	if o.reading != u.output { // else the reader closes it
		closeFd(u.output.receive)
	}
	closeFd(u.output.send)
	u.output = nil
}

// readOutputs logs what children write until Run is over.
func (s *Supervisor) readOutputs() {
	o := &s.outputs
	var events eventBuffer
	r := outputReader{s: s, buf: make([]byte, outputMax)}
	defer r.flush(0)
	for {
		wait := time.Duration(-1)
		if len(r.parts) > 0 {
			wait = partTime
		}
		if err := o.poll.wait(&events, wait); err != nil {
			s.log.problem("cannot wait for the output of children", err)
			time.Sleep(backoffMax)
		}
		for {
			ev, ok := events.pop()
			if !ok {
				break
			}
			if ev.token == tokenWake {
				// The daemon stops; what has been written is still read.
				for _, x := range o.all() {
					r.read(x)
				}
				return
			}
			o.mu.Lock()
			x := o.open[uint32(ev.token)]
			o.mu.Unlock()
			if x != nil {
				r.read(x)
			}
		}
		r.flush(partTime)
	}
}

func (o *outputs) all() []*output {
	o.mu.Lock()
	defer o.mu.Unlock()
	var list []*output
	for _, x := range o.open {
		list = append(list, x)
	}
	return list
}

// An outputReader puts lines together again. It is one goroutine's.
type outputReader struct {
	s     *Supervisor
	buf   []byte
	parts []part // the oldest first
}

// read logs a batch of what the children of one row have written.
func (r *outputReader) read(x *output) {
	for range outputBatch {
		if !r.s.outputs.begin(x) {
			return
		}
		n, pid, cut, err := receiveOutput(x.receive, r.buf)
		r.s.outputs.end(x)
		if err != nil {
			return // nothing waits
		}
		r.message(x, pid, r.buf[:n], cut)
	}
}

// message takes one write of a child.
func (r *outputReader) message(x *output, pid int, text []byte, cut bool) {
	var p part
	if i := slices.IndexFunc(r.parts, func(p part) bool { return p.from == x && p.pid == pid }); i >= 0 {
		p = r.parts[i]
		r.parts = slices.Delete(r.parts, i, i+1)
	} else {
		p = part{from: x, pid: pid, own: r.s.isInstance(pid), since: r.s.now()}
	}
	for line := range bytes.Lines(text) {
		whole := bytes.HasSuffix(line, []byte("\n"))
		p.line = append(p.line, line...)
		if !whole && !cut && len(p.line) < outputMax {
			if len(r.parts) == partsMost {
				r.log(r.parts[0], false)
				r.parts = slices.Delete(r.parts, 0, 1)
			}
			r.parts = append(r.parts, p)
			return
		}
		r.log(p, cut && !whole)
		p.line, p.since = nil, r.s.now()
	}
}

func (r *outputReader) log(p part, cut bool) {
	if line := bytes.TrimRight(p.line, "\r\n"); len(line) > 0 {
		r.s.log.output(p.from.unit, p.pid, p.own, line, cut)
	}
}

// flush logs what has waited for its end for too long.
func (r *outputReader) flush(most time.Duration) {
	now := r.s.now()
	for len(r.parts) > 0 && now-r.parts[0].since >= most {
		r.log(r.parts[0], false)
		r.parts = slices.Delete(r.parts, 0, 1)
	}
}

// begin reports whether x is still open, and keeps it so until end.
func (o *outputs) begin(x *output) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if x.unit.output != x {
		return false
	}
	o.reading = x
	return true
}

func (o *outputs) end(x *output) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.reading = nil
	if x.unit.output != x {
		closeFd(x.receive)
	}
}

// isInstance reports whether a process is an instance, or was one just now, and
// not a child of one.
func (s *Supervisor) isInstance(pid int) bool {
	if s.outputs.ended.has(pid) {
		return true
	}
	known, starting := s.reaper.knows(pid)
	if known || !starting {
		return known
	}
	// It may be the child of a start whose record comes in a moment.
	return parentOf(pid) == os.Getpid()
}
