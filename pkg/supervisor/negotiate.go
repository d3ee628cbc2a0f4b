package supervisor

// The multiplexer's exchange of RFC 1078. The line waits in the kernel: it is
// peeked until it is complete and then taken, to the byte, so that whatever the
// client sent after it is the service's.

import (
	"log/slog"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// A verdict is what a look at a connection has shown.
type verdict uint8

const (
	lineMore    verdict = iota // the line is not complete
	lineName                   // the name was taken
	lineGone                   // the peer ended before its line did
	lineTooLong                // no line within tcpmux.MaxLine
	lineBad                    // a byte that no name has
)

// readLine looks for a complete line and takes it. head is what was taken
// before of a line that is not complete, which is only done where urgent data
// stands in it: a peek never sees beyond the mark. The name is in the worker's
// scratch; head grows only with lineMore.
func (w *worker) readLine(fd int, head []byte, ev event) (v verdict, name, newHead []byte) {
	for {
		line := append(w.scratch.line[:0], head...)
		n, err := peek(fd, w.scratch.line[len(head):tcpmux.MaxLine])
		if err != nil {
			if again(err) && !ev.ended {
				return lineMore, nil, head
			}
			return lineGone, nil, head
		}
		if n == 0 {
			return lineGone, nil, head
		}
		line = line[:len(head)+n]
		name, size, state := tcpmux.Scan(line)
		switch state {
		case tcpmux.Line:
			w.scratch.name = tcpmux.Fold(w.scratch.name[:0], name)
			// The name is safe in its own buffer: take over the line's.
			got, err := take(fd, w.scratch.line[:size-len(head)])
			if err != nil || got != size-len(head) {
				return lineGone, nil, head
			}
			return lineName, w.scratch.name, head
		case tcpmux.TooLong:
			return lineTooLong, nil, head
		case tcpmux.BadByte:
			return lineBad, nil, head
		}
		if !ev.urgent {
			if ev.ended {
				return lineGone, nil, head
			}
			return lineMore, nil, head
		}
		// The mark is next: go beyond it by taking what stands before.
		if got, err := take(fd, w.scratch.line[len(head):len(head)+n]); err != nil || got != n {
			return lineGone, nil, head
		}
		head = append([]byte(nil), line...)
	}
}

// negotiate looks at a new connection once; most clients have sent their line
// already. Otherwise it waits in the table, without a process or a goroutine.
func (w *worker) negotiate(c connection) {
	v, name, _ := w.readLine(c.fd, nil, event{})
	if v == lineMore {
		w.s.park(w.loop, c, nil)
		return
	}
	w.conclude(c, v, name)
}

// conclude ends a negotiation.
func (w *worker) conclude(c connection, v verdict, name []byte) {
	switch v {
	case lineName:
		w.ask(c, name)
	case lineTooLong:
		w.refuse(c, c.mux, refusedName, tcpmux.NameTooLong)
	case lineBad:
		w.refuse(c, c.mux, refusedName, tcpmux.BadName)
	default:
		w.s.log.refused(c.mux, c.peer, refusedGone, c.local())
		closeFd(c.fd)
	}
}

// ask looks the name up and goes on with the service. Only mux rows can be
// found (CVE-2012-0862).
func (w *worker) ask(c connection, name []byte) {
	if until := w.s.bannedUntil(&c.peer); until != 0 { // since it has connected
		w.holdOff(c, c.mux, until)
		return
	}
	live := w.s.live.Load()
	if tcpmux.IsHelp(name) {
		w.help(c, live)
		return
	}
	u := live.mux[string(name)]
	if u == nil {
		w.unknown(c, live, name)
		return
	}
	w.enter(u, u.row.Load(), c)
}

// help answers HELP with one name a line. RFC 1078 wants no "+" before it.
func (w *worker) help(c connection, live *live) {
	mode := c.mux.row.Load().Help
	if mode == service.HelpOff {
		w.unknown(c, live, w.scratch.name)
		return
	}
	if why := w.s.passHelp(&c.peer); why != limit.OK {
		w.excess(c, c.mux, c.mux.row.Load(), refusal(why.String()), tcpmux.Busy)
		return
	}
	until, tell := w.s.asked(c.mux, &c.peer, helpName)
	if until != 0 {
		w.holdOff(c, c.mux, until)
		return
	}
	var names []string
	for _, u := range live.help {
		r := u.row.Load()
		if mode == service.HelpAll || r.Refuse == "" && allowed(r, c) {
			names = append(names, r.Name)
		}
	}
	w.s.reply(w.loop, c, tcpmux.AppendHelp(nil, names))
	tell()
	w.s.log.helped(c.mux, c.peer, len(names))
}

func allowed(r *row, c connection) bool {
	ok, _ := r.may(c.peer, c.way())
	return ok
}

// refuse ends a connection that gets nothing. On the multiplexer the peer is
// told so in one line; on a direct port the connection is closed.
func (w *worker) refuse(c connection, u *unit, why refusal, line string, more ...slog.Attr) {
	w.s.log.refused(u, c.peer, why, append(more, c.local())...)
	w.dismiss(c, line)
}

// unknown refuses a name that no row has, in the same words as a row that is
// denied or closed.
func (w *worker) unknown(c connection, live *live, name []byte) {
	if live.decoy != nil {
		allowed(live.decoy.row.Load(), c) // takes as long as to find that he is denied
	}
	w.hide(c, c.mux, refusedUnknown, name, slog.Any("name", nameText(name)))
}

// dismiss is the end of a refusal.
func (w *worker) dismiss(c connection, line string) {
	w.s.returnPlace(c.listener.unit, c.reserved)
	if c.mux == nil {
		w.s.closeApart(c)
		return
	}
	w.s.reply(w.loop, c, []byte(line))
}
