// Package supervisor runs a table: it accepts, gates, negotiates, looks up,
// admits, starts and reaps.
//
// A connection goes one way through it, and every step calls down and returns:
//
//	loop.go       accept: one epoll set and one worker per processor
//	header.go     who the peer is, if a load balancer has to say so
//	gate.go       access and limits of the listener's own row
//	negotiate.go  the multiplexer: one line is peeked, then taken
//	start.go      look up, admit, hand the socket to a child
//	house.go      the books of all rows together
//	line.go       who waits for a place; excess.go who gets none
//	relays.go     or to the daemon itself; answers.go for datagrams
//	starts.go     children on their way to their program
//	reap.go       the end: one place that waits for children
//
// Two kinds of rows have no connections to accept: wait.go hands out listening
// sockets, sessions.go makes a socket for each peer of a datagram socket.
//
// Beside it stand pending.go, where a negotiation waits, output.go, which logs
// what children write, scan.go, which knows who is not let in at all, and rpc.go,
// which tells rpcbind where rows are.
//
// The table itself comes from outside, checked; apply.go makes a new one the
// running one, and addresses.go opens what it listens on. Nothing here reads a
// configuration or a user. A running child costs one record, that of a session a
// descriptor besides, as does a pending negotiation: none has a goroutine.
package supervisor

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/ident"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// maxLoops bounds the loops on large machines: beyond it the kernel's own
// locks are what limits starting processes.
const maxLoops = 8

// lastStart is how long Run waits for starts that were under way at the end.
const lastStart = time.Second

// lastReap is how long Run waits for the reaper, which may have found no more
// than that children live on.
const lastReap = 100 * time.Millisecond

// A Supervisor runs one table at a time. Apply, Stop and Run may be called
// from different goroutines; Apply by one at a time.
type Supervisor struct {
	log   *events
	epoch time.Time // now() counts from here

	loops   []*loop
	live    atomic.Pointer[live] // what the running table means
	units   map[string]*unit     // under applyMu: all units, also of removed rows with instances
	applyMu sync.Mutex
	// Under applyMu: addressesChanged comes for an address that is held, or that
	// others have.
	awaiting, awaitingOthers bool
	judging                  *time.Timer // under applyMu: comes when hours begin or end

	tokens   tokenMap // listener by epoll token
	pending  pendingTable
	house    house   // limits of all rows together
	lines    lines   // who waits for an instance to end
	shedder  shedder // who starts nothing because the machine is busy
	reaper   reaper
	relays   relays
	ident    *ident.Answerer               // nil: nobody looks up whose a connection is
	ports    atomic.Pointer[builtin.Ports] // of datagram built-ins
	aparts   atomic.Int32                  // starts that other goroutines stand still for
	forking  backoff                       // after clone failed for want of memory or processes
	short    atomic.Int64                  // when the last accept failed for want of descriptors
	sparing  atomic.Int64                  // until when Spare needs them: no accept
	closing  atomic.Int32                  // closes under way, see closeApart
	served   atomic.Int64                  // when a server of a wait row has started last
	queued   atomic.Int32                  // rows whose peers wait in the kernel's queue for an instance to end
	reserve  reserve                       // descriptors that are kept back
	outputs  outputs                       // what children write to the log
	scanners scanners                      // sources that try names
	rpc      registrar                     // what rpcbind is told
	passed   []service.Passed

	wakeFd   int
	stopping atomic.Bool // no new connections
	leaves   atomic.Bool // see Leave
	stopped  atomic.Bool // the workers end
	ended    atomic.Bool // Run is over
	workers  sync.WaitGroup
	helpers  sync.WaitGroup
	halted   chan struct{} // closed when the workers end
	quit     chan struct{} // closed when they have ended
}

// live is everything a connection needs from the running table. It is replaced
// as a whole, never changed.
type live struct {
	table *service.Table
	mux   map[string]*unit // by folded name
	help  []*unit          // sorted by name, without hidden ones
	// decoy is asked about the peer where there is no such name: the row with the
	// most kinds of rules, so that the answer takes as long as that of a denied
	// name; nil: none has any.
	decoy *unit
}

// New makes a supervisor that serves nothing yet. Call Apply, then Run.
// spawn.Init must have been called.
func New(log *slog.Logger) (*Supervisor, error) {
	s := &Supervisor{
		epoch:  time.Now(),
		units:  map[string]*unit{},
		halted: make(chan struct{}),
		quit:   make(chan struct{}),
	}
	s.log = newEvents(log)
	s.live.Store(&live{table: &service.Table{}})
	s.reaper.init()
	s.scanners.writer.init()
	s.rpc.init()
	s.shedder.init(s.log, s.quit, &s.helpers)
	s.pending.s = s
	s.pending.init()
	var err error
	if s.wakeFd, err = newWake(); err != nil {
		return nil, fmt.Errorf("making a wake-up descriptor: %w", err)
	}
	if err := s.outputs.init(s.wakeFd); err != nil {
		return nil, errors.Join(err, s.close())
	}
	for range min(runtime.GOMAXPROCS(0), maxLoops) {
		l, err := newLoop(s.wakeFd)
		if err != nil {
			return nil, errors.Join(err, s.close())
		}
		s.loops = append(s.loops, l)
	}
	s.reserve.init(openMost())
	return s, nil
}

// Pass tells of the sockets that the daemon was given; Apply takes those that a
// row listens on. They stay the caller's, and open. It is called before Apply.
func (s *Supervisor) Pass(sockets []service.Passed) { s.passed = sockets }

// Spare runs f, which opens files and may start a program, with the descriptors
// that are kept back for it. If there was a lack of them just now, nothing is
// accepted meanwhile, for shortTime at most.
func (s *Supervisor) Spare(f func()) {
	now := s.now()
	if at := s.short.Load(); at != 0 && now-time.Duration(at) < shortTime {
		s.sparing.Store(int64(now + shortTime))
		defer s.sparing.Store(0)
	}
	s.reserve.release()
	defer s.reserve.fill()
	f()
}

// shortTime is how long a lack of descriptors is taken to last.
const shortTime = 2 * time.Second

// now is the monotonic time since the supervisor was made.
func (s *Supervisor) now() time.Duration { return time.Since(s.epoch) }

// Run serves until Stop has been called and its grace is over. It starts the
// workers and the reaper, and returns when all of them have ended.
func (s *Supervisor) Run() error {
	// The loops and the reaper keep their Ps while they are in system calls. As
	// long as some are free besides, the runtime has no reason to take them
	// away, and nobody else waits for one.
	if os.Getenv("GOMAXPROCS") == "" {
		defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(len(s.loops) + 4))
	}
	makeThreads(3*len(s.loops) + s.heldThreads() + otherThreads)

	var strangers chan os.Signal
	if first() {
		strangers = make(chan os.Signal, 1)
		signal.Notify(strangers, syscall.SIGCHLD)
		defer signal.Stop(strangers)
	} else if err := spawn.QuietChildren(); err != nil {
		s.log.problem("cannot silence SIGCHLD", err)
	}
	reaped := make(chan struct{})
	go func() {
		defer close(reaped)
		s.reapLoop(strangers)
	}()
	s.helpers.Go(s.readOutputs)
	s.helpers.Go(s.writeBans)
	s.helpers.Go(s.tellRpcbind)
	addresses, err := watchAddresses(s.addressesChanged)
	if err != nil {
		s.log.problem("cannot watch the addresses of this machine", err)
	}
	s.addressesChanged() // since Apply, before anybody watched
	for _, l := range s.loops {
		s.workers.Go(s.newWorker(l).serve)
	}
	if !s.waitWorkers() {
		// A file system holds a child, and its worker with it.
		s.log.flush()
		return nil
	}
	if addresses != nil {
		addresses.Close()
	}
	close(s.quit)
	s.helpers.Wait()
	select {
	case <-reaped:
	case <-time.After(lastReap):
		// It waits for a child that lives on, and ends with it.
	}
	s.ended.Store(true)
	s.refusePending(nil)
	s.emptyPit()
	s.dropSessions()
	s.log.flush()
	return s.close()
}

// waitWorkers waits until Stop has ended the workers, and reports false if one
// does not come back from a start.
func (s *Supervisor) waitWorkers() bool {
	<-s.halted
	done := make(chan struct{})
	go func() {
		s.workers.Wait()
		close(done)
	}()
	select {
	case <-done:
		return true
	case <-time.After(lastStart):
		return false
	}
}

// close gives back what New has opened.
func (s *Supervisor) close() error {
	for _, l := range s.loops {
		l.pulse.close()
		l.poll.close()
	}
	for _, u := range s.units {
		s.dropOutput(u)
	}
	s.relays.close()
	s.outputs.poll.close()
	closeFd(s.wakeFd)
	s.reserve.release()
	if s.scanners.kernel != nil {
		s.scanners.kernel.Close()
	}
	return nil
}

// Leave has Stop leave every instance running, whatever its row says. It may be
// called at any time before.
func (s *Supervisor) Leave() { s.leaves.Store(true) }

// Stop ends the service: no new connection is accepted, pending negotiations
// are refused, running instances get the grace of the table, which a signal on
// hurry other than SIGHUP cuts short. Then what outlives it is treated as its
// row says, and Run returns. Stop blocks until all that is done.
func (s *Supervisor) Stop(hurry <-chan os.Signal) {
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	if s.stopping.Swap(true) {
		return
	}
	table := s.live.Load().table
	for _, u := range s.units {
		s.closeListeners(u, nil, nil)
	}
	s.rpc.want(nil, false)
	s.live.Store(&live{table: table})
	s.refusePending(nil)
	s.emptyPit()
	// A child that is being made now is an instance like any other: its peer
	// may have read "+Go" already. One that is held is not waited for.
	select {
	case <-s.reaper.last():
	case <-time.After(reachProgram):
	}
	s.relays.last()
	if n := s.reaper.count() + s.relays.count(); n > 0 && table.Server.Grace > 0 {
		s.log.draining(n, table.Server.Grace)
		grace := time.NewTimer(table.Server.Grace)
		defer grace.Stop()
		children, relayed := s.reaper.empty(), s.relays.empty()
		for waiting := true; waiting && (children != nil || relayed != nil); {
			select {
			case <-children:
				children = nil
			case <-relayed:
				relayed = nil
			case <-grace.C:
				waiting = false
			case sig := <-hurry:
				waiting = sig == syscall.SIGHUP
			}
		}
	}
	s.relays.close()
	stay := 0
	s.reaper.each(func(pid int, in *instance) {
		stay++
		onStop := in.unit.row.Load().OnStop
		if s.leaves.Load() {
			onStop = service.StopLeave
		}
		switch onStop {
		case service.StopTerm:
			syscall.Kill(-pid, syscall.SIGTERM)
		case service.StopKill:
			syscall.Kill(-pid, syscall.SIGKILL)
			stay--
		case service.StopLeave:
			if !first() {
				s.log.left(pid, in)
			}
		}
	})
	// The ends that this makes belong into the log.
	for end := s.now() + lastStart; s.reaper.count() > stay && s.now() < end; {
		time.Sleep(time.Millisecond)
	}
	if first() {
		s.endContainer(hurry)
	}
	s.halt()
}

// halt ends the workers.
func (s *Supervisor) halt() {
	if !s.stopped.Swap(true) {
		close(s.halted)
		wake(s.wakeFd)
	}
}

// compileProgram turns an exec row into the system calls of its child.
func compileProgram(c *spawn.Compiler, sv *service.Service) (*spawn.Program, error) {
	e := sv.Exec
	var refusal string
	if sv.Mux {
		refusal = tcpmux.NotAvailable
	}
	a := spawn.Attr{
		Refusal: refusal,
		Path:    e.Path, Argv: e.Argv, Env: e.Env, Dir: e.Dir, Umask: e.Umask, Go: sv.Plus, Chroot: e.Chroot,
		Stdout: spawn.Stdio(e.Stdout), Stderr: spawn.Stdio(e.Stderr),
		Nice: e.Nice, OOMScoreAdj: e.OOMScoreAdj, CPUs: e.CPUs,
	}
	for _, l := range e.Rlimits {
		a.Rlimits = append(a.Rlimits, spawn.Rlimit(l))
	}
	if e.IOPrio != nil {
		a.IOPrio = (*spawn.IOPrio)(e.IOPrio)
	}
	if e.Cred != nil {
		a.Cred = &spawn.Cred{UID: e.Cred.UID, GID: e.Cred.GID, Groups: e.Cred.Groups}
	}
	return c.Compile(&a)
}
