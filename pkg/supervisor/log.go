package supervisor

// Events: for each thing that can happen one function, which logs it. The
// words are those of tcpmuxd(8), section LOG.

import (
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/relay"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// A refusal is why a peer got nothing; the reasons of package limit are
// refusals as well.
type refusal string

const (
	refusedAccess  refusal = "access"  // access.allow or access.deny
	refusedUnknown refusal = "unknown" // no such name on the multiplexer
	refusedName    refusal = "name"    // not a name: too long, or a control byte
	refusedTimeout refusal = "timeout" // no complete name in time
	refusedGone    refusal = "gone"    // the peer left before it had its service
	refusedCrowded refusal = "crowded" // had to make room among the pending
	refusedRow     refusal = "row"     // the row cannot run, see the warning at its load
	refusedBackoff refusal = "backoff" // children cannot be made, or do not reach their program
)

const (
	// sampleFirst events of a kind are logged one by one, in every sampleTime;
	// the rest is counted and logged as one line, so that a flood of peers
	// cannot flood the log.
	sampleFirst = 5
	sampleTime  = 10 * time.Second

	// outputFirst is how many lines of a row's children are logged in every
	// sampleTime: what they write may be what a peer has them write.
	outputFirst = 10_000

	shortageEvery = time.Second
)

type events struct {
	log *slog.Logger

	mu         sync.Mutex
	sampled    map[sampleKey]int
	shortageAt time.Time // when the last shortage was logged
}

type sampleKey struct {
	service, message, reason string
}

func newEvents(log *slog.Logger) *events {
	return &events{log: log, sampled: map[sampleKey]int{}}
}

// sample says whether an event is one of the first of its kind.
func (e *events) sample(k sampleKey) bool { return e.count(k) <= k.first() }

// first is how many events of a kind are logged one by one.
func (k sampleKey) first() int {
	if k.message == "output" {
		return outputFirst
	}
	return sampleFirst
}

// count notes an event, and says how many of its kind there have been.
func (e *events) count(k sampleKey) int {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.sampled) == 0 {
		time.AfterFunc(sampleTime, e.flush)
	}
	e.sampled[k]++
	return e.sampled[k]
}

// flush logs what sample has held back.
func (e *events) flush() {
	e.mu.Lock()
	sampled := e.sampled
	e.sampled = map[sampleKey]int{}
	e.mu.Unlock()
	for k, n := range sampled {
		if first := k.first(); n > first {
			e.warn(k.message, slog.String("service", k.service), slog.String("reason", k.reason),
				slog.Int("more", n-first), slog.Duration("within", sampleTime))
		}
	}
}

// emit goes to the handler directly: a Logger would look up its caller for each
// line, which nobody asks for.
func (e *events) emit(level slog.Level, msg string, attrs []slog.Attr) {
	h := e.log.Handler()
	if !h.Enabled(context.Background(), level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, msg, 0)
	r.AddAttrs(attrs...)
	h.Handle(context.Background(), r)
}

func (e *events) info(msg string, attrs ...slog.Attr)  { e.emit(slog.LevelInfo, msg, attrs) }
func (e *events) warn(msg string, attrs ...slog.Attr)  { e.emit(slog.LevelWarn, msg, attrs) }
func (e *events) error(msg string, attrs ...slog.Attr) { e.emit(slog.LevelError, msg, attrs) }

func peerAttr(p service.Peer) slog.Attr { return slog.String("peer", p.String()) }

// started: a child runs its program.
func (e *events) started(pid int, in *instance) {
	e.info("start", append(in.attrs(), slog.Int("pid", pid))...)
}

// ended: a child was reaped.
func (e *events) ended(pid int, in *instance, x exit) {
	how := slog.Int("status", x.status.ExitStatus())
	if x.status.Signaled() {
		how = slog.String("signal", unix.SignalName(x.status.Signal()))
	}
	attrs := append(in.attrs(), slog.Int("pid", pid), how)
	if in.session != nil && in.session.idled.Load() {
		attrs = append(attrs, slog.String("reason", string(relay.Idle)))
	}
	cpu := time.Duration(x.usage.Utime.Nano() + x.usage.Stime.Nano())
	e.info("end", append(attrs,
		slog.Duration("duration", (x.at-in.start).Round(time.Microsecond)),
		slog.Duration("cpu", cpu), slog.Int64("maxrss_kb", x.usage.Maxrss))...)
}

// attrs say whose instance it is. A server of a wait row has no peer.
func (in *instance) attrs() []slog.Attr {
	a := make([]slog.Attr, 0, 8)
	a = append(a, slog.String("service", in.unit.id))
	if in.turn == nil {
		a = append(a, peerAttr(in.peer))
	}
	return append(a, slog.String("local", in.local.String()))
}

// localOf is the address that a peer has connected to, looked up if it is logged.
type localOf struct{ connection }

func (c localOf) LogValue() slog.Value {
	return slog.StringValue(c.listener.Local(c.fd).String())
}

// refused: a peer gets nothing. Sampled.
func (e *events) refused(u *unit, peer service.Peer, why refusal, more ...slog.Attr) {
	if e.sample(sampleKey{u.id, "refuse", string(why)}) {
		e.warn("refuse", append([]slog.Attr{slog.String("service", u.id), peerAttr(peer),
			slog.String("reason", string(why))}, more...)...)
	}
}

// unknown: a peer has asked the multiplexer for a name that no row has. Sampled.
func (e *events) unknown(u *unit, peer service.Peer, name []byte, more ...slog.Attr) {
	e.refused(u, peer, refusedUnknown, append(more, slog.String("name", string(name)))...)
}

// helped: HELP was answered. Sampled.
func (e *events) helped(u *unit, peer service.Peer, n int) {
	if e.sample(sampleKey{u.id, "help", ""}) {
		e.info("help", slog.String("service", u.id), peerAttr(peer), slog.Int("names", n))
	}
}

// startFailed: a child did not come to its program; peer is nil for a server of a
// wait row. Sampled.
func (e *events) startFailed(u *unit, peer *service.Peer, err error, more ...slog.Attr) {
	reason, text, hint := "start", err.Error(), ""
	var se *spawn.Error
	if errors.As(err, &se) {
		reason = se.Step
		if se.Errno != 0 {
			text = se.Errno.Error() // the step stands in reason
		}
		hint = hintOf(se)
	}
	if !e.sample(sampleKey{u.id, "cannot start", reason}) {
		return
	}
	attrs := append([]slog.Attr{slog.String("service", u.id),
		slog.String("reason", reason), slog.String("error", text)}, more...)
	if peer != nil {
		attrs = append(attrs, peerAttr(*peer))
	}
	if hint != "" {
		attrs = append(attrs, slog.String("hint", hint))
	}
	e.error("cannot start", attrs...)
}

// hintOf says what an operator can do about a failed start, where the error
// alone misleads.
func hintOf(e *spawn.Error) string {
	switch {
	case e.Step == "exec" && e.Errno == syscall.ENOENT && e.Replied:
		return "the program is there, but not the interpreter or loader that it names"
	case e.Step == "exec" && e.Errno == syscall.ENOEXEC:
		return "a script has to begin with #! and its interpreter"
	case e.Step == "log" && (e.Errno == syscall.EMFILE || e.Errno == syscall.EBADF):
		return "the limit on open files, ulimit -n or LimitNOFILE=, leaves no room for what children write to the log"
	case e.Step == "clone" && e.Errno == syscall.EAGAIN:
		return "the limit on processes is reached: ulimit -u, TasksMax= or pids.max"
	}
	return ""
}

// held: a child stands still before its program; another worker serves on. Sampled.
func (e *events) held(u *unit, age time.Duration) {
	if e.sample(sampleKey{u.id, "child is held before its program", ""}) {
		e.warn("child is held before its program", slog.String("service", u.id), slog.Duration("for", age))
	}
}

// backOff: a row starts nothing for a while.
func (e *events) backOff(u *unit, d time.Duration) {
	e.error("back off", slog.String("service", u.id), slog.Duration("for", d),
		slog.String("hint", "somebody, or a file system, holds its children before they reach their program"))
}

// deferred: what has come to a wait row stays in its socket for now. Sampled.
func (e *events) deferred(u *unit, ep service.Endpoint, why refusal) {
	if e.sample(sampleKey{u.id, "defer", string(why)}) {
		e.warn("defer", slog.String("service", u.id), slog.String("local", ep.String()), slog.String("reason", string(why)))
	}
}

// serverFailed: a server of a wait row does not do its work; the next one is not
// started before a rest. Sampled.
func (e *events) serverFailed(in *instance, pid int, rest time.Duration, why string) {
	if e.sample(sampleKey{in.unit.id, "back off", why}) {
		e.warn("back off", append(in.attrs(), slog.Int("pid", pid), slog.String("reason", why), slog.Duration("for", rest))...)
	}
}

// output: a child has written a line to its log, or, if it is not an instance, a
// descendant of one has. Sampled, far more generously than the rest.
func (e *events) output(u *unit, pid int, instance bool, line []byte, cut bool) {
	if !e.sample(sampleKey{u.id, "output", ""}) {
		return
	}
	attrs := []slog.Attr{slog.String("service", u.id), slog.Int("pid", pid)}
	if !instance {
		attrs = append(attrs, slog.Bool("descendant", true))
	}
	attrs = append(attrs, slog.String("line", string(line)))
	if cut {
		attrs = append(attrs, slog.Bool("cut", true))
	}
	e.info("output", attrs...)
}

// shortage: accept4 failed for want of descriptors or memory. At most one line
// a second, for all rows together: it lasts, and concerns them all.
func (e *events) shortage(u *unit, err error) {
	e.mu.Lock()
	quiet := !e.shortageAt.IsZero() && time.Since(e.shortageAt) < shortageEvery
	if !quiet {
		e.shortageAt = time.Now()
	}
	e.mu.Unlock()
	if !quiet {
		e.error("out of descriptors", slog.String("service", u.id), slog.String("error", err.Error()),
			slog.String("hint", "raise the limit on open files, ulimit -n or LimitNOFILE="))
	}
}

// acceptFailed: accept4 failed as it should not. Sampled.
func (e *events) acceptFailed(u *unit, err error) {
	if e.sample(sampleKey{u.id, "cannot accept", err.Error()}) {
		e.error("cannot accept", slog.String("service", u.id), slog.String("error", err.Error()))
	}
}

// notUp: an address is not there yet; it is tried again when addresses change,
// or, if an instance holds it, when that has ended. A socket with a locked filter must be opened anew by whoever passes it.
func (e *events) notUp(u *unit, ep service.Endpoint, err error) {
	attrs := []slog.Attr{slog.String("service", u.id), slog.String("local", ep.String()), slog.String("error", err.Error())}
	switch {
	case errors.Is(err, listener.ErrLocked):
		e.error("passed socket is not served", attrs...)
	case errors.Is(err, errHeld):
		e.warn("address is not free", attrs...)
	default:
		e.warn("address is not up", attrs...)
	}
}

// listening: a row listens on a socket, its own or one that was another row's.
func (e *events) listening(u *unit, ep service.Endpoint, from string) {
	attrs := []slog.Attr{slog.String("service", u.id), slog.String("local", ep.String()),
		slog.String("network", ep.Network.String())}
	if from != "" {
		attrs = append(attrs, slog.String("from", from))
	}
	e.info("listen", attrs...)
}

// closed: a row does not listen on a socket any more.
func (e *events) closed(u *unit, ep service.Endpoint) {
	e.info("close", slog.String("service", u.id), slog.String("local", ep.String()),
		slog.String("network", ep.Network.String()))
}

// refusing: a row cannot run for now.
func (e *events) refusing(u *unit, why string) {
	e.warn("row refuses", slog.String("service", u.id), slog.String("reason", why))
}

// servesAgain: a row can run that could not.
func (e *events) servesAgain(u *unit) {
	e.info("row serves again", slog.String("service", u.id))
}

// draining: the daemon stops and waits for instances.
func (e *events) draining(n int, grace time.Duration) {
	e.info("drain", slog.Int("instances", n), slog.Duration("grace", grace))
}

// left: an instance outlives the daemon.
func (e *events) left(pid int, in *instance) {
	e.info("leave", append(in.attrs(), slog.Int("pid", pid))...)
}

// problem: something of the daemon's own failed that no row is to blame for.
func (e *events) problem(msg string, err error) {
	if e.sample(sampleKey{"", msg, ""}) {
		e.error(msg, slog.String("error", err.Error()))
	}
}
