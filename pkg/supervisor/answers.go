package supervisor

// Built-ins over datagrams. There is no instance: datagrams are judged, admitted
// and answered at once, a batch at a time, by the one worker that looks at their
// socket: two would come in each other's way in the kernel and in the books.

import (
	"log/slog"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// portsOf are the ports of a table's datagram built-ins, which are not answered.
func portsOf(t *service.Table) *builtin.Ports {
	ports := builtin.Ports{}
	for _, sv := range t.Services {
		if sv.Builtin == service.BuiltinNone {
			continue
		}
		for _, ep := range sv.Listen {
			if ep.Network.UDP() {
				ports[ep.Addr.Port()] = true
			}
		}
	}
	return &ports
}

// answersBatch is how many batches of one socket a worker answers before it looks
// at others.
const answersBatch = 4

// answers is memory for a batch of datagrams that are asked about together.
type answers struct {
	*builtin.Datagrams
	asked [builtin.Batch]asked
}

// asked is what has become of one datagram.
type asked struct {
	message kernel.Message
	source  limit.Source
	why     refusal // empty: it may be answered
	rule    string  // of refusedAccess
}

// sameWay reports whether a datagram has come from the same peer as another one and
// in the same way, so that what is judged of both is the same.
func (a *asked) sameWay(b *asked) bool {
	m, n := &a.message, &b.message
	return m.Peer == n.Peer && m.Scope == n.Scope && m.To == n.To && m.Local == n.Local && m.Interface == n.Interface
}

// answerAll answers batches of datagrams. The socket is reported again if there
// are more.
func (w *worker) answerAll(l *socket, r *row) {
	fd, ok := l.Hold()
	if !ok {
		return
	}
	defer l.Release()
	if w.scratch.answers == nil {
		w.scratch.answers = &answers{Datagrams: builtin.NewDatagrams()}
	}
	if l.Endpoint.Network == service.UnixDgram {
		w.answerUnix(l, r, fd)
		return
	}
	for range answersBatch {
		n, err := w.scratch.answers.Receive(fd)
		if err != nil {
			return // there is none, or an answer did not arrive: over once reported
		}
		w.answerBatch(l, r, fd, n)
		w.yield()
		if n < builtin.Batch {
			return
		}
	}
}

// answerUnix answers one datagram. Who may send it is what the socket's mode says.
func (w *worker) answerUnix(l *socket, r *row, fd int) {
	a := [1]asked{}
	w.judge(l, r, &a[0])
	w.admitAll(l.unit, a[:])
	w.scratch.answers.AnswerUnix(fd, r.Builtin, a[0].why == "", time.Now)
	if a[0].why != "" {
		w.refuseDatagram(l, &a[0])
	}
}

// answerBatch answers n datagrams that were received: each one that may be, in
// the order in which they came.
func (w *worker) answerBatch(l *socket, r *row, fd, n int) {
	d, v6 := w.scratch.answers, l.Endpoint.Network.V6()
	all, own := d.asked[:n], *w.s.ports.Load()
	for i := range all {
		a := &all[i]
		a.message = d.Message(i)
		if i > 0 && a.sameWay(&all[i-1]) {
			a.why, a.rule, a.source = all[i-1].why, all[i-1].rule, all[i-1].source
			continue
		}
		a.rule = ""
		a.why = refusal(builtin.Judge(&a.message, own))
		if a.why == "" {
			w.judge(l, r, a)
		}
	}
	w.admitAll(l.unit, all)
	for i := range all {
		if a := &all[i]; a.why == "" {
			d.Answer(r.Builtin, &a.message, v6, time.Now)
		} else {
			w.refuseDatagram(l, a)
		}
	}
	d.Send(fd) // an answer that cannot go is lost, like others on their way
}

// judge asks what does not change: the row, and access.
func (w *worker) judge(l *socket, r *row, a *asked) {
	if r.Refuse != "" {
		a.why = refusedRow
		return
	}
	peer := service.Peer{Network: l.Endpoint.Network, Addr: a.message.Peer}
	if w.s.bannedUntil(&peer) != 0 {
		a.why = refusedBanned
		return
	}
	ok, rule := r.may(peer, way{l, -1, a.message.Local, a.message.Interface})
	if !ok {
		a.why, a.rule = refusedAccess, rule
		return
	}
	if w.s.suspendedFor(l.unit) > 0 {
		a.why = refusedSuspended
		return
	}
	if l.unit.sheds.Load() {
		a.why = refusedShed
		return
	}
	a.source = service.SourceOf(&r.Limits, peer)
}

// admitAll asks the limits of rate, for all datagrams that nothing else is in the
// way of, one after the other.
func (w *worker) admitAll(u *unit, all []asked) {
	if w.admitBatch(u, all) {
		w.s.exceeded(u, limit.OverRate)
	}
}

// admitBatch does so in one transaction, and reports whether the row's own rate was
// exceeded.
func (w *worker) admitBatch(u *unit, all []asked) (over bool) {
	now, h := w.s.now(), &w.s.house
	u.mu.Lock()
	defer u.mu.Unlock()
	house := h.on.Load()
	if house {
		h.mu.Lock()
		defer h.mu.Unlock()
	}
	for i := range all {
		a := &all[i]
		if a.why != "" {
			continue
		}
		var why limit.Reason
		if house {
			why = h.passLocked(now, u, a)
		} else {
			var lease limit.Lease
			lease, why = u.book.Admit(now, a.source)
			u.book.Release(&lease)
		}
		if why != limit.OK {
			over = over || why == limit.OverRate
			a.why = refusal(why.String())
		}
	}
	return over
}

// refuseDatagram logs a refusal.
func (w *worker) refuseDatagram(l *socket, a *asked) {
	peer := service.Peer{Network: l.Endpoint.Network, Addr: a.message.Peer}
	at := slog.String("local", l.Endpoint.String())
	if a.rule != "" {
		w.s.log.refused(l.unit, peer, a.why, slog.String("rule", a.rule), at)
		return
	}
	w.s.log.refused(l.unit, peer, a.why, at)
}
