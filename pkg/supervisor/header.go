package supervisor

// PROXY headers: a connection from a load balancer says first who its peer is.
// The header is peeked until it is whole and then taken, to the byte; it waits as
// a negotiation does, without a process or a goroutine. Until it has come nobody
// is asked for access or limits, because nobody knows of whom.

import (
	"errors"
	"log/slog"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// What is wrong with a header that did not come, for the log.
var (
	errHeaderGone    = errors.New("the connection ended before a byte of its header")
	errHeaderCut     = errors.New("the connection ended within its header")
	errHeaderLate    = errors.New("no whole header in time")
	errHeaderMissing = errors.New("it does not begin with a header")
	errHeaderUrgent  = errors.New("urgent data in the header")
	errHeaderStale   = errors.New("a reload has taken proxy_from out of the row")
)

// proxied reports whether a connection has to begin with a header.
func proxied(r *row, p *service.Peer) bool {
	if !p.Network.TCP() {
		return false
	}
	v, _ := r.ProxyFrom.Check(p.Addr.Addr())
	return v == access.Allow
}

// awaitHeader looks for the header of a new connection, which usually has come
// with it, and else has it wait in the table.
func (w *worker) awaitHeader(r *row, c connection) {
	if r.Builtin == service.BuiltinTCPMUX {
		c.mux = c.listener.unit // it answers in a line
	}
	h, more, err := w.readHeader(c.fd, event{})
	if more {
		w.s.put(w.loop, c, pendingHeader, nil)
		return
	}
	w.introduced(c, h, err)
}

// readHeader looks for a whole header and takes it, and nothing of what comes
// after it. more says that there is not enough of it yet.
func (w *worker) readHeader(fd int, ev event) (h proxy.Header, more bool, err error) {
	b := w.scratch.header[:]
	n, err := peek(fd, b)
	switch {
	case err != nil && again(err) && !ev.ended:
		return h, true, nil
	case err != nil || n == 0:
		return h, false, errHeaderGone
	}
	size, state := proxy.Scan(b[:n])
	switch {
	case state == proxy.Bad:
		return h, false, errHeaderMissing
	case state == proxy.More && ev.urgent:
		// A peek never sees beyond the mark, and no proxy sets one here.
		return h, false, errHeaderUrgent
	case state == proxy.More && ev.ended:
		return h, false, errHeaderCut
	case state == proxy.More:
		return h, true, nil
	}
	if h, err = w.scratch.proxy.Parse(b[:size]); err != nil {
		return h, false, err
	}
	if got, err := take(fd, b[:size]); err != nil || got != size {
		return h, false, errHeaderGone
	}
	return h, false, nil
}

// introduced goes on with a connection whose header has come; err says what was
// wrong with it.
func (w *worker) introduced(c connection, h proxy.Header, err error) {
	c.headless = false
	u := c.listener.unit
	r := u.row.Load()
	if err == nil && r.ProxyFrom == nil {
		err = errHeaderStale
	}
	if err != nil {
		w.s.headless(w.loop, c, err)
		return
	}
	if h.Source.IsValid() {
		c.peer.Proxy = &service.Proxy{Addr: c.peer.Addr, Local: h.Destination}
		c.peer.Addr = h.Source
	}
	w.proceed(u, r, c)
}

// headless refuses a connection that has no header. One that has sent nothing at
// all was a look whether somebody listens.
func (s *Supervisor) headless(l *loop, c connection, err error) {
	c.headless = false
	why := refusedProxy
	if err == errHeaderGone {
		why = refusedGone
	}
	s.log.refused(c.listener.unit, c.peer, why, slog.String("error", err.Error()), c.local())
	s.returnPlace(c.listener.unit, c.reserved)
	c.reserved = reservation{}
	if c.mux == nil || why == refusedGone {
		closeFd(c.fd)
		return
	}
	s.reply(l, c, []byte(tcpmux.NotAvailable))
}
