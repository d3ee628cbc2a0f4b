package supervisor

// The excess: what becomes of a peer that is over a limit, as its row says.

import (
	"cmp"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// excess ends a connection for a limit. line is what the multiplexer answers if
// the row says nothing else.
func (w *worker) excess(c connection, u *unit, r *row, why refusal, line string) {
	w.s.log.refused(u, c.peer, why, c.local())
	w.s.returnPlace(c.listener.unit, c.reserved)
	w.s.turnAway(w.loop, c, r, line)
}

// turnAway is the end of a connection that is over a limit.
func (s *Supervisor) turnAway(l *loop, c connection, r *row, line string) {
	unix := c.peer.Network.Unix()
	switch {
	case r.Overflow == service.OverflowReset && !unix:
		abortFd(c.fd)
	case r.Overflow == service.OverflowReset:
		s.closeApart(c)
	case c.mux != nil:
		s.reply(l, c, []byte(cmp.Or(r.Refusal, line)))
	case r.Refusal == "":
		s.closeApart(c)
	case unix:
		// The peer has it whatever he has sent, and what he has sent may have
		// descriptors in it, which are not to be taken here.
		send(c.fd, []byte(r.Refusal))
		s.closeApart(c)
	default:
		s.reply(l, c, []byte(r.Refusal))
	}
}
