package relay

// Questions of one line. What has come of a line is kept with the record; the
// answer is somebody else's, who may take his time.

import (
	"bytes"

	"golang.org/x/sys/unix"
)

// An answer is what a record has asked for, on its way to the loop.
type answer struct {
	token uint64
	text  string
}

// question reads what has come of the line, and asks when it is whole or too long.
func (l *Loop) question(r *record) error {
	if r.asked {
		return nil // what comes now is nobody's
	}
	n, err := read(int(r.sides[0].fd), l.buffer[:r.plan.MaxLine+2-len(r.line)])
	switch {
	case err == unix.EAGAIN:
		return nil
	case err != nil:
		return err
	case n == 0:
		r.halves[0].done = true // without a question there is no answer
		return nil
	}
	r.in += uint64(n)
	r.line = append(r.line, l.buffer[:n]...)
	i := bytes.IndexByte(r.line, '\n')
	if i < 0 && len(r.line) < r.plan.MaxLine+2 {
		return nil
	}
	line := r.line
	if i >= 0 {
		line = bytes.TrimSuffix(line[:i], []byte{'\r'})
	}
	r.line, r.asked = nil, true
	token := r.token(0)
	r.ask(line, func(text string) { l.answer(token, text) })
	return nil
}

// answer leaves an answer for the loop. It may be called by any goroutine, also
// when the loop has ended.
func (l *Loop) answer(token uint64, text string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.answers = append(l.answers, answer{token, text})
	l.wakeLocked()
}

// tell gives a record its answer, if it is still there.
func (l *Loop) tell(a answer) {
	r, _ := l.find(a.token)
	if r == nil || !r.asked || r.lingering {
		return
	}
	r.out += uint64(len(a.text))
	l.part(r, a.text, Closed)
}
