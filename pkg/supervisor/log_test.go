package supervisor

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/logs"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// A lineList keeps messages with their attributes as text.
type lineList struct {
	mu    sync.Mutex
	lines []string
}

func (l *lineList) Enabled(context.Context, slog.Level) bool { return true }
func (l *lineList) WithAttrs([]slog.Attr) slog.Handler       { return l }
func (l *lineList) WithGroup(string) slog.Handler            { return l }

func (l *lineList) Handle(_ context.Context, r slog.Record) error {
	line := r.Message
	r.Attrs(func(a slog.Attr) bool {
		line += " " + a.String()
		return true
	})
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, line)
	return nil
}

// take returns what has been logged since the last take.
func (l *lineList) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	lines := l.lines
	l.lines = nil
	return lines
}

var somebody = service.Peer{Addr: netip.MustParseAddrPort("192.0.2.1:1234")}

// A flood of refusals is a few lines and a number.
func TestRefusalsAreSampled(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		e := newEvents(slog.New(&got))
		a, b := &unit{id: "a"}, &unit{id: "b"}
		for range 1000 {
			e.refused(a, somebody, refusedAccess)
		}
		e.refused(a, somebody, refusedTimeout) // another reason is another event
		e.refused(b, somebody, refusedAccess)  // and another row too
		if n := len(got.take()); n != sampleFirst+2 {
			t.Errorf("%d lines, want %d", n, sampleFirst+2)
		}
		time.Sleep(sampleTime - time.Millisecond)
		e.refused(a, somebody, refusedAccess)
		if lines := got.take(); len(lines) != 0 {
			t.Errorf("within the time: %q", lines)
		}
		time.Sleep(time.Millisecond)
		synctest.Wait()
		want := fmt.Sprintf("refuse service=a reason=access more=%d within=10s", 1001-sampleFirst)
		if lines := got.take(); len(lines) != 1 || lines[0] != want {
			t.Errorf("after it: %q, want %q", lines, want)
		}
		// It begins anew.
		e.refused(a, somebody, refusedAccess)
		if n := len(got.take()); n != 1 {
			t.Errorf("%d lines, want 1", n)
		}
		// Where nothing was held back, nothing is said.
		time.Sleep(sampleTime)
		synctest.Wait()
		if lines := got.take(); len(lines) != 0 {
			t.Errorf("%q", lines)
		}
	})
}

// What is held back at the end is told then, and once.
func TestFlush(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		e := newEvents(slog.New(&got))
		for range sampleFirst + 3 {
			e.refused(&unit{id: "a"}, somebody, refusedGone)
		}
		got.take()
		e.flush()
		if lines := got.take(); len(lines) != 1 || lines[0] != "refuse service=a reason=gone more=3 within=10s" {
			t.Errorf("%q", lines)
		}
		time.Sleep(2 * sampleTime)
		synctest.Wait()
		if lines := got.take(); len(lines) != 0 {
			t.Errorf("again: %q", lines)
		}
		for range sampleFirst + 1 { // no row is to blame for it
			e.problem("it failed", io.EOF)
		}
		got.take()
		e.flush()
		if lines := got.take(); len(lines) != 1 || lines[0] != "it failed more=1 within=10s" {
			t.Errorf("%q", lines)
		}
	})
}

// Every event that a peer can cause is sampled, under names that a peer cannot
// make more of.
func TestAFloodCannotFloodTheLog(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		e := newEvents(slog.New(&got))
		u := &unit{id: "tcpmux"}
		for i := range 5000 {
			peer := service.Peer{Addr: netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), uint16(i))}
			e.refused(u, peer, refusedUnknown)
			e.refused(u, peer, refusedUnknown, slog.Any("name", nameText(fmt.Appendf(nil, "name%d", i))))
			e.helped(u, peer, i)
			e.startFailed(u, &peer, &spawn.Error{Step: "check"})
			e.startFailed(u, &peer, errors.New("something else"))
			e.held(u, time.Duration(i))
			e.shortage(u, errors.New("too many open files"))
			e.acceptFailed(u, errors.New("no route"))
			e.problem("cannot poll a connection", fmt.Errorf("error %d", i))
		}
		if n := len(got.take()); n > 9*sampleFirst {
			t.Errorf("%d lines", n)
		}
		e.mu.Lock()
		if n := len(e.sampled); n > 9 {
			t.Errorf("%d kinds of events are counted", n)
		}
		e.mu.Unlock()
		time.Sleep(sampleTime)
		synctest.Wait()
		if n := len(got.take()); n > 9 {
			t.Errorf("%d lines of what was held back", n)
		}
	})
}

func TestShortageIsLoggedOnceASecond(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		e := newEvents(slog.New(&got))
		for range 100 {
			e.shortage(&unit{id: "a"}, errors.New("too many open files"))
			e.shortage(&unit{id: "b"}, errors.New("too many open files"))
			time.Sleep(time.Second / 10)
		}
		if n := len(got.take()); n != 10 {
			t.Errorf("%d lines in 10 s, want 10", n)
		}
	})
}

func TestBackoff(t *testing.T) {
	var b backoff
	now := time.Second
	for _, want := range []time.Duration{50, 100, 200, 400, 800, 1000, 1000} {
		want *= time.Millisecond
		if b.active(now) {
			t.Fatalf("at %v it is active before it failed", now)
		}
		if d := b.failed(now, backoffMin, backoffMax); d != want {
			t.Errorf("the wait is %v, want %v", d, want)
		}
		if !b.active(now + want - 1) {
			t.Error("it is over too soon")
		}
		// A failure within the wait is of a start that began before it.
		if d := b.failed(now+want/2, backoffMin, backoffMax); d != want-want/2 {
			t.Errorf("a failure within the wait makes it %v, want %v", d, want-want/2)
		}
		now += want
	}
	b.worked()
	if d := b.failed(now, backoffMin, backoffMax); d != backoffMin {
		t.Errorf("after a success the wait is %v, want %v", d, backoffMin)
	}
}

// The lines of a connection cost no memory.
func TestLinesOfConnectionsDoNotAllocate(t *testing.T) {
	w := logs.New(io.Discard, func(uint64) []byte { return nil })
	defer w.Close(time.Minute)
	e := newEvents(slog.New(logs.NewHandler(w, false, slog.LevelInfo)))
	defer e.flush()
	in := &instance{
		unit:  &unit{id: "row"},
		peer:  service.Peer{Addr: netip.MustParseAddrPort("[2001:db8::1]:12345")},
		local: service.Endpoint{Addr: netip.MustParseAddrPort("192.0.2.1:1")},
	}
	for range 2 * sampleFirst {
		e.refused(in.unit, in.peer, refusedAccess)
	}
	for name, f := range map[string]func(){
		"start":                          func() { e.started(12345, in) },
		"end":                            func() { e.ended(12345, in, exit{at: 1234567}) },
		"end of a built-in":              func() { e.answered(in, 1234567) },
		"a refusal that is only counted": func() { e.refused(in.unit, in.peer, refusedAccess) },
	} {
		if n := testing.AllocsPerRun(1000, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}
