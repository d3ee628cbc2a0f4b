package supervisor

// Events: for each thing that can happen one function, which logs it. The
// words are those of tcpmuxd(8), section LOG.

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/logs"
	"github.com/tcpmuxd/tcpmuxd/pkg/relay"
	"github.com/tcpmuxd/tcpmuxd/pkg/rpcbind"
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
	refusedProxy   refusal = "proxy"   // no PROXY header, or a wrong one, from a source in proxy_from
	refusedGone    refusal = "gone"    // the peer left before it had its service
	refusedCrowded refusal = "crowded" // had to make room among the pending
	refusedRow     refusal = "row"     // the row cannot run, see the warning at its load, or is gone
	refusedBackoff refusal = "backoff" // children cannot be made, or do not reach their program
	refusedBanned  refusal = "banned"  // the source is held off
	refusedSensor  refusal = "sensor"  // the row only serves to catch scanners

	refusedShed   refusal = "shed"          // the machine is too busy, limits.shed
	refusedWaited refusal = "overflow_wait" // no instance has ended while the peer waited

	refusedSuspended refusal = "suspended" // the row's rate was exceeded, limits.exceeded
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
	log   *slog.Logger
	lines *logs.Handler // what log has; nil if it has another one

	counts map[refusal]*atomic.Uint64 // all there are; the map is never changed

	unregisterable atomic.Uint64 // what cannotRegister was about

	mu         sync.Mutex
	sampled    map[sampleKey]int
	shortageAt time.Time // when the last shortage was logged
}

type sampleKey struct {
	service, message, reason string
}

func newEvents(log *slog.Logger) *events {
	e := &events{log: log, sampled: map[sampleKey]int{}, counts: map[refusal]*atomic.Uint64{}}
	for _, why := range refusals {
		e.counts[why] = new(atomic.Uint64)
	}
	e.lines, _ = log.Handler().(*logs.Handler)
	return e
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
			var attrs []slog.Attr
			if k.service != "" { // else it is the daemon's own
				attrs = append(attrs, slog.String("service", k.service))
			}
			if k.reason != "" {
				attrs = append(attrs, slog.String("reason", k.reason))
			}
			e.warn(k.message, append(attrs, slog.Int("more", n-first), slog.Duration("within", sampleTime))...)
		}
	}
}

// emit goes to the handler directly: a Logger would look up its caller for each
// line, which nobody asks for. It keeps nothing of attrs.
func (e *events) emit(level slog.Level, msg string, attrs []slog.Attr) {
	if e.lines != nil {
		e.lines.Emit(level, msg, attrs)
		return
	}
	h := e.log.Handler()
	if !h.Enabled(context.Background(), level) {
		return
	}
	r := slog.NewRecord(time.Now(), level, msg, 0)
	r.AddAttrs(slices.Clone(attrs)...)
	h.Handle(context.Background(), r)
}

func (e *events) info(msg string, attrs ...slog.Attr)  { e.emit(slog.LevelInfo, msg, attrs) }
func (e *events) warn(msg string, attrs ...slog.Attr)  { e.emit(slog.LevelWarn, msg, attrs) }
func (e *events) error(msg string, attrs ...slog.Attr) { e.emit(slog.LevelError, msg, attrs) }

// appendPeer says who the peer is, and by whom it has come.
func appendPeer(a []slog.Attr, p *service.Peer) []slog.Attr {
	a = append(a, slog.Any("peer", peerText{p}))
	if p.Proxy != nil {
		a = append(a, slog.Any("proxy", proxyText{p.Proxy}))
	}
	return a
}

// A proxyText is who has brought a peer, as the log shows it.
type proxyText struct{ *service.Proxy }

func (p proxyText) LogValue() slog.Value                { return slog.StringValue(p.Addr.String()) }
func (p proxyText) AppendText(b []byte) ([]byte, error) { return p.Addr.AppendTo(b), nil }

// A peerText is a peer as the log shows it, made when it is written.
type peerText struct{ *service.Peer }

func (p peerText) LogValue() slog.Value                { return slog.StringValue(p.String()) }
func (p peerText) AppendText(b []byte) ([]byte, error) { return p.Append(b), nil }

// An endpointText is an address of this machine as the log shows it.
type endpointText struct{ *service.Endpoint }

func (ep endpointText) LogValue() slog.Value                { return slog.StringValue(ep.String()) }
func (ep endpointText) AppendText(b []byte) ([]byte, error) { return ep.Append(b), nil }

// attrsMost is more than any of the lines below has.
const attrsMost = 12

// started: a child runs its program.
func (e *events) started(pid int, in *instance) {
	var room [attrsMost]slog.Attr
	e.info("start", append(in.attrs(room[:0]), slog.Int("pid", pid))...)
}

// ended: a child was reaped.
func (e *events) ended(pid int, in *instance, x exit) {
	how := slog.Int("status", x.status.ExitStatus())
	if x.status.Signaled() {
		how = slog.String("signal", unix.SignalName(x.status.Signal()))
	}
	var room [attrsMost]slog.Attr
	attrs := append(in.attrs(room[:0]), slog.Int("pid", pid), how)
	if in.session != nil && in.session.idled.Load() {
		attrs = append(attrs, slog.String("reason", string(relay.Idle)))
	}
	cpu := time.Duration(x.usage.Utime.Nano() + x.usage.Stime.Nano())
	e.info("end", append(attrs,
		slog.Duration("duration", (x.at-in.start).Round(time.Microsecond)),
		slog.Duration("cpu", cpu), slog.Int64("maxrss_kb", x.usage.Maxrss))...)
}

// attrs say whose instance it is, after what is in a. A server of a wait row has no
// peer.
func (in *instance) attrs(a []slog.Attr) []slog.Attr {
	a = append(a, slog.String("service", in.unit.id))
	if in.turn == nil {
		a = appendPeer(a, &in.peer)
	}
	return append(a, slog.Any("local", endpointText{&in.local}))
}

// localOf is the address that a peer has connected to, looked up if it is logged.
type localOf struct {
	listener *socket
	fd       int
}

func (c localOf) LogValue() slog.Value {
	return slog.StringValue(c.listener.Local(c.fd).String())
}

// refused: a peer gets nothing. Counted, and sampled.
func (e *events) refused(u *unit, peer service.Peer, why refusal, more ...slog.Attr) {
	if n := e.counts[why]; n != nil {
		n.Add(1)
	}
	if e.sample(sampleKey{u.id, "refuse", string(why)}) {
		p := peer // in memory of its own only if it is logged
		attrs := append(appendPeer([]slog.Attr{slog.String("service", u.id)}, &p), slog.String("reason", string(why)))
		e.warn("refuse", append(attrs, more...)...)
	}
}

// A nameText is a name as the log shows it, made when it is written.
type nameText []byte

func (n nameText) LogValue() slog.Value                { return slog.StringValue(string(n)) }
func (n nameText) AppendText(b []byte) ([]byte, error) { return append(b, n...), nil }

// helped: HELP was answered. Sampled.
func (e *events) helped(u *unit, peer service.Peer, n int) {
	if e.sample(sampleKey{u.id, "help", ""}) {
		attrs := appendPeer([]slog.Attr{slog.String("service", u.id)}, &peer)
		e.info("help", append(attrs, slog.Int("names", n))...)
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
		attrs = appendPeer(attrs, peer)
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
		e.warn("back off", append(in.attrs(nil), slog.Int("pid", pid), slog.String("reason", why), slog.Duration("for", rest))...)
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
	case errors.Is(err, errHeld), isTaken(err):
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

// hours: those of a row have begun, or are over until next; zero: for ever.
func (e *events) hours(u *unit, open bool, next time.Time) {
	attrs := []slog.Attr{slog.String("service", u.id)}
	if !next.IsZero() {
		attrs = append(attrs, slog.Time("until", next))
	}
	if open {
		e.info("row opens", attrs...)
	} else {
		e.info("row closes", attrs...)
	}
}

// registered: rpcbind knows a socket of a row.
func (e *events) registered(u *unit, b binding) { e.info("register", b.attrs(u)...) }

// unregistered: it does so no longer.
func (e *events) unregistered(u *unit, b binding) { e.info("unregister", b.attrs(u)...) }

// cannotRegister: nobody who asks rpcbind finds a row. It is tried again.
func (e *events) cannotRegister(u *unit, b binding, err error) {
	e.unregisterable.Add(1)
	hint := "start rpcbind and reload; it is tried again besides"
	if errors.Is(err, rpcbind.ErrRefused) {
		hint = "rpcinfo -p shows what is registered; end it, or take it out by rpcinfo -d, and reload"
	}
	e.error("cannot register", append(b.attrs(u), slog.String("error", err.Error()), slog.String("hint", hint))...)
}

// cannotUnregister: rpcbind may send peers to a socket that is not there any more.
func (e *events) cannotUnregister(u *unit, b binding, err error) {
	e.warn("cannot unregister", append(b.attrs(u), slog.String("error", err.Error()))...)
}

// attrs say what rpcbind is told, and of which row.
func (b binding) attrs(u *unit) []slog.Attr {
	return []slog.Attr{slog.String("service", u.id), slog.String("local", b.addr.String()), slog.String("netid", b.netid),
		slog.Uint64("program", uint64(b.Program)), slog.String("versions", b.Versions())}
}

// draining: the daemon stops and waits for instances.
func (e *events) draining(n int, grace time.Duration) {
	e.info("drain", slog.Int("instances", n), slog.Duration("grace", grace))
}

// left: an instance outlives the daemon.
func (e *events) left(pid int, in *instance) {
	e.info("leave", append(in.attrs(nil), slog.Int("pid", pid))...)
}

// problem: something of the daemon's own failed that no row is to blame for.
func (e *events) problem(msg string, err error) {
	if e.sample(sampleKey{"", msg, ""}) {
		e.error(msg, slog.String("error", err.Error()))
	}
}
