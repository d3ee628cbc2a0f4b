// Reading the daemon's log: its lines as events, and waiting for them.

package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// An event is a line of the log.
type event map[string]any

func (e event) text(key string) string { return fmt.Sprint(e[key]) }

func (e event) number(key string) int {
	n, _ := strconv.Atoi(e.text(key))
	return n
}

// has says whether e has all of these keys with these values: "reason", "rate".
func (e event) has(pairs []string) bool {
	for i := 0; i < len(pairs); i += 2 {
		if e.text(pairs[i]) != pairs[i+1] {
			return false
		}
	}
	return true
}

// A logReader takes the lines of a daemon apart while they come.
type logReader struct {
	mu    sync.Mutex
	lines []string
	list  []event
	byMsg map[string][]event
	other []string // lines that are no events
	more  chan struct{}
	done  chan struct{}
}

func readLog(r io.ReadCloser) *logReader {
	l := &logReader{byMsg: map[string][]event{}, more: make(chan struct{}), done: make(chan struct{})}
	go func() {
		defer close(l.done)
		defer r.Close()
		eachLine(r, l.add)
	}()
	return l
}

func eachLine(r io.Reader, f func(string)) {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		f(lines.Text())
	}
}

func (l *logReader) add(line string) {
	var e event
	d := json.NewDecoder(strings.NewReader(line))
	d.UseNumber()
	err := d.Decode(&e)
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	if err != nil {
		l.other = append(l.other, line)
	} else {
		l.list = append(l.list, e)
		l.byMsg[e.text("msg")] = append(l.byMsg[e.text("msg")], e)
	}
	close(l.more)
	l.more = make(chan struct{})
}

// drain waits until all that a daemon has written was read. Its children have
// the other end of the pipe no longer.
func (l *logReader) drain() {
	select {
	case <-l.done:
	case <-time.After(bound):
	}
}

func (l *logReader) all() []event {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.list)
}

func (l *logReader) words() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.Clip(l.other)
}

// tail is the last n lines.
func (l *logReader) tail(n int) string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Join(l.lines[max(0, len(l.lines)-n):], "\n")
}

// next is closed when there is more to read.
func (l *logReader) next() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.more
}

// events are the lines with this message and these values, so far.
func (d *daemon) events(msg string, pairs ...string) (found []event) {
	d.log.mu.Lock()
	defer d.log.mu.Unlock()
	if len(pairs) == 0 {
		return slices.Clip(d.log.byMsg[msg])
	}
	for _, e := range d.log.byMsg[msg] {
		if e.has(pairs) {
			found = append(found, e)
		}
	}
	return found
}

// waitFor returns the first such line.
func (d *daemon) waitFor(msg string, pairs ...string) event {
	d.Helper()
	return d.waitForN(1, msg, pairs...)[0]
}

// waitForN waits until there are n such lines.
func (d *daemon) waitForN(n int, msg string, pairs ...string) []event {
	d.Helper()
	late := time.After(bound)
	for {
		more := d.log.next()
		found := d.events(msg, pairs...)
		if len(found) >= n {
			return found
		}
		select {
		case <-more:
		case <-d.log.done:
			if found := d.events(msg, pairs...); len(found) >= n {
				return found
			}
			d.Fatalf("the log ends with %d of %d lines %q %q:\n%s", len(found), n, msg, pairs, d.log.tail(40))
		case <-late:
			d.Fatalf("%d of %d lines %q %q came:\n%s", len(found), n, msg, pairs, d.log.tail(40))
		}
	}
}
