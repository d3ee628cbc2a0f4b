// Package logs writes log lines without ever making the one who logs wait.
//
// A log that nobody reads, a pipe to a stopped program, a full disk on NFS,
// would otherwise stop the daemon at its next line. Lines that find no room are
// dropped and counted, and the count is logged as soon as there is room again.
// What is in a line, and when there is one, is decided elsewhere; Handler makes
// those that come often without memory of their own, log/slog the others.
package logs

import (
	"io"
	"sync"
	"time"
)

// gather is how long the goroutine lets lines come together after a write: on a
// busy daemon one write then carries many lines, and one wake-up.
const gather = 10 * time.Millisecond

// idleNaps is how many of those it goes on for without a line, before it has to be
// woken for the next one.
const idleNaps = 1

// Room is how many bytes of lines may wait to be written.
const Room = 1 << 20

// A Writer passes lines on to another writer from a goroutine of its own. It
// may be used concurrently; each Write is one line or several whole ones.
type Writer struct {
	out     io.Writer
	dropped func(n uint64) []byte

	mu     sync.Mutex
	wait   []byte // lines to write
	lost   uint64
	closed bool
	line   line // memory for one

	more chan struct{}
	done chan struct{}
}

// New starts a Writer to out. After lines were dropped, dropped makes the line
// that says how many.
func New(out io.Writer, dropped func(n uint64) []byte) *Writer {
	w := &Writer{out: out, dropped: dropped, line: newLine(), more: make(chan struct{}, 1), done: make(chan struct{})}
	go w.run()
	return w
}

// Write takes lines, or drops them. It never waits and never fails: there is
// nobody to tell.
func (w *Writer) Write(lines []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.takeLocked(lines)
	return len(lines), nil
}

func (w *Writer) takeLocked(lines []byte) {
	if w.closed {
		w.lost++
		return
	}
	if len(w.wait)+len(lines) > Room {
		w.lost++
	} else {
		w.wait = append(w.wait, lines...)
	}
	select {
	case w.more <- struct{}{}:
	default:
	}
}

// Close writes what waits, for at most the given time, and reports whether all
// of it was written. Lines that come later are dropped.
func (w *Writer) Close(most time.Duration) bool {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.more)
	}
	w.mu.Unlock()
	select {
	case <-w.done:
		return true
	case <-time.After(most):
		return false
	}
}

func (w *Writer) run() {
	defer close(w.done)
	var lines []byte
	for range w.more {
		for idle := 0; idle <= idleNaps; time.Sleep(gather) {
			w.mu.Lock()
			lines, w.wait = w.wait, lines[:0]
			lost, closed := w.lost, w.closed
			w.lost = 0
			w.mu.Unlock()
			if lost > 0 {
				lines = append(lines, w.dropped(lost)...)
			}
			if len(lines) > 0 {
				// A failure cannot be logged; the next line may fare better.
				w.out.Write(lines)
				idle = 0
			} else if idle++; closed {
				break
			}
		}
	}
}
