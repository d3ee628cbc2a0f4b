package supervisor

// Built-ins over datagrams. There is no instance: a datagram is judged, admitted
// and answered at once, by the worker that finds it.

import (
	"log/slog"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/builtin"
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

// answerAll answers a batch of datagrams. The socket is reported again if there
// are more.
func (w *worker) answerAll(l *socket, r *row) {
	fd, ok := l.Hold()
	if !ok {
		return
	}
	defer l.Release()
	if w.scratch.datagrams == nil {
		w.scratch.datagrams = builtin.NewDatagrams()
	}
	d, u, network := w.scratch.datagrams, l.unit, l.Endpoint.Network
	if network == service.UnixDgram {
		// Who may send is what the socket's mode says.
		why := w.mayAsk(l, r, service.Peer{Network: network}, limit.Source{})
		d.AnswerUnix(fd, r.Builtin, why == "", time.Now)
		return
	}
	n, err := d.Receive(fd)
	if err != nil {
		return // another worker was faster, or an answer did not arrive: over once reported
	}
	own := w.s.ports.Load()
	for i := range n {
		m := d.Message(i)
		peer := service.Peer{Network: network, Addr: m.Peer}
		if why := builtin.Judge(&m, *own); why != "" {
			w.s.log.refused(u, peer, refusal(why), slog.String("local", l.Endpoint.String()))
			continue
		}
		if why := w.mayAsk(l, r, peer, service.SourceOf(&r.Limits, peer)); why == "" {
			d.Answer(r.Builtin, m, network.V6(), time.Now)
		}
	}
	d.Send(fd) // an answer that cannot go is lost, like others on their way
}

// mayAsk asks access and the limits of rate, and logs a refusal.
func (w *worker) mayAsk(l *socket, r *row, peer service.Peer, source limit.Source) refusal {
	u, local := l.unit, slog.String("local", l.Endpoint.String())
	if r.Refuse != "" {
		w.s.log.refused(u, peer, refusedRow, local)
		return refusedRow
	}
	if peer.Network.IP() {
		if ok, rule := r.Check(peer); !ok {
			w.s.log.refused(u, peer, refusedAccess, slog.String("rule", rule), local)
			return refusedAccess
		}
	}
	u.mu.Lock()
	lease, why := u.book.Admit(w.s.now(), source)
	u.book.Release(&lease)
	u.mu.Unlock()
	if why == limit.OK {
		return ""
	}
	w.s.log.refused(u, peer, refusal(why.String()), local)
	return refusal(why.String())
}
