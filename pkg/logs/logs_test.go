package logs

import (
	"bytes"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func dropped(n uint64) []byte { return fmt.Appendf(nil, "dropped %d\n", n) }

// A stuck is a writer whose Write blocks until it is let go, as a pipe does
// that nobody reads.
type stuck struct {
	free chan struct{}

	mu  sync.Mutex
	got bytes.Buffer
	n   int // writes
}

func newStuck() *stuck { return &stuck{free: make(chan struct{})} }

func (s *stuck) Write(b []byte) (int, error) {
	<-s.free
	s.mu.Lock()
	defer s.mu.Unlock()
	s.n++
	return s.got.Write(b)
}

func (s *stuck) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.got.String()
}

func TestLinesArriveInOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		close(out.free)
		w := New(out, dropped)
		var want strings.Builder
		for i := range 1000 {
			line := fmt.Sprintf("line %d\n", i)
			want.WriteString(line)
			if n, err := w.Write([]byte(line)); n != len(line) || err != nil {
				t.Fatalf("Write: %d, %v", n, err)
			}
		}
		if !w.Close(time.Hour) {
			t.Fatal("Close did not write all")
		}
		if got := out.String(); got != want.String() {
			t.Errorf("%d bytes arrived, want %d in order", len(got), want.Len())
		}
	})
}

// A line does not wait for the next one.
func TestALineIsWrittenByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		close(out.free)
		w := New(out, dropped)
		for range 3 {
			w.Write([]byte("one\n"))
			time.Sleep(gather)
			synctest.Wait()
			if got := out.String(); got != "one\n" {
				t.Fatalf("%q was written", got)
			}
			out.got.Reset()
		}
		w.Close(time.Hour)
	})
}

// The caller of Write may use its memory again at once; slog does.
func TestWriteKeepsNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		w := New(out, dropped)
		line := []byte("right\n")
		w.Write(line)
		copy(line, "wrong\n")
		close(out.free)
		w.Close(time.Hour)
		if got := out.String(); got != "right\n" {
			t.Errorf("%q was written", got)
		}
	})
}

// In the bubble, time stands still while a goroutine can run: if Write waited
// for the stuck one, the test would end in a deadlock or take fake time.
func TestABlockedOutputNeverBlocksWrite(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		w := New(out, dropped)
		line := []byte(strings.Repeat("x", 99) + "\n")
		begin := time.Now()
		const lines = 3 * Room / 100
		for range lines {
			w.Write(line)
		}
		if took := time.Since(begin); took != 0 {
			t.Errorf("writing took %v", took)
		}
		w.mu.Lock()
		size, lost := len(w.wait), w.lost
		w.mu.Unlock()
		if size > Room {
			t.Errorf("%d bytes wait, more than %d", size, Room)
		}
		if lost == 0 {
			t.Error("nothing was dropped")
		}

		close(out.free)
		if !w.Close(time.Hour) {
			t.Fatal("Close did not write all")
		}
		got := out.String()
		said := fmt.Sprintf("dropped %d\n", lost)
		if n := strings.Count(got, said); n != 1 {
			t.Errorf("the loss of %d is told %d times", lost, n)
		}
		if kept := strings.Count(got, string(line)); uint64(kept)+lost != lines {
			t.Errorf("%d lines written and %d dropped, of %d", kept, lost, lines)
		}
	})
}

// Lines and losses take turns; each loss is told once and none is forgotten.
func TestDropsAreToldAsSoonAsThereIsRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		gate := make(chan struct{})
		var got []string
		w := New(writerFunc(func(b []byte) (int, error) {
			<-gate
			got = append(got, string(b))
			return len(b), nil
		}), dropped)
		w.Write([]byte("first\n"))
		synctest.Wait() // the goroutine holds the first and stands at the gate
		big := bytes.Repeat([]byte("y"), Room)
		w.Write(big)
		w.Write([]byte("lost\n"))
		w.Write([]byte("lost\n"))
		gate <- struct{}{}
		gate <- struct{}{}
		time.Sleep(gather)
		synctest.Wait()
		if len(got) != 2 || got[0] != "first\n" || got[1] != string(big)+"dropped 2\n" {
			t.Fatalf("%d writes, the last ends in %q", len(got), tail(got))
		}
		w.Write([]byte("after\n"))
		gate <- struct{}{}
		time.Sleep(gather)
		synctest.Wait()
		if tail(got) != "after\n" {
			t.Errorf("the last write is %q", tail(got))
		}
		w.Close(time.Hour)
	})
}

func tail(list []string) string {
	if len(list) == 0 {
		return ""
	}
	s := list[len(list)-1]
	return s[max(0, len(s)-40):]
}

type writerFunc func([]byte) (int, error)

func (f writerFunc) Write(b []byte) (int, error) { return f(b) }

func TestALineLargerThanTheRoomIsDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		close(out.free)
		w := New(out, dropped)
		w.Write(make([]byte, Room+1))
		w.Write([]byte("small\n"))
		w.Close(time.Hour)
		if got := out.String(); strings.Count(got, "dropped 1\n") != 1 || strings.Count(got, "small\n") != 1 || len(got) > 100 {
			t.Errorf("%d bytes were written: %.100q", len(got), got)
		}
	})
}

func TestCloseIsBounded(t *testing.T) {
	testkit.Check(t)
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		w := New(out, dropped)
		w.Write([]byte("never read\n"))
		begin := time.Now()
		if w.Close(time.Second) {
			t.Error("Close says that all was written")
		}
		if took := time.Since(begin); took != time.Second {
			t.Errorf("Close took %v, want 1s", took)
		}
		// A second one has the same bound, and Write is still harmless.
		w.Write([]byte("late\n"))
		if w.Close(time.Second) {
			t.Error("a second Close says that all was written")
		}
		close(out.free)
		if !w.Close(time.Second) {
			t.Error("Close says that not all was written, and it was")
		}
	})
}

func TestLinesAfterCloseAreDropped(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		close(out.free)
		w := New(out, dropped)
		if !w.Close(time.Second) {
			t.Fatal("Close")
		}
		if n, err := w.Write([]byte("late\n")); n != 5 || err != nil {
			t.Errorf("Write after Close: %d, %v", n, err)
		}
		synctest.Wait()
		if out.String() != "" {
			t.Errorf("%q was written after Close", out.String())
		}
	})
}

// An output that fails is tried again with the next line: a full disk has room
// again some day.
func TestAnOutputThatFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		fail := true
		var got []string
		w := New(writerFunc(func(b []byte) (int, error) {
			if fail {
				return 0, errors.New("no space left on device")
			}
			got = append(got, string(b))
			return len(b), nil
		}), dropped)
		w.Write([]byte("one\n"))
		time.Sleep(gather)
		synctest.Wait()
		fail = false
		w.Write([]byte("two\n"))
		if !w.Close(time.Second) || len(got) != 1 || got[0] != "two\n" {
			t.Errorf("%q was written", got)
		}
	})
}

// A busy daemon writes many lines at once, not one by one.
func TestLinesAreGathered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := newStuck()
		close(out.free)
		w := New(out, dropped)
		for range 100 {
			for range 10 {
				w.Write([]byte("line\n"))
			}
			time.Sleep(gather / 10)
		}
		w.Close(time.Hour)
		if out.n > 15 {
			t.Errorf("%d writes for 100 bursts in 10 times of gathering", out.n)
		}
		if n := strings.Count(out.String(), "line\n"); n != 1000 {
			t.Errorf("%d of 1000 lines were written", n)
		}
	})
}

// With real goroutines, for the race detector: nothing is lost or torn, and
// what is dropped is counted.
func TestConcurrentWrites(t *testing.T) {
	testkit.Check(t)
	var mu sync.Mutex
	var out bytes.Buffer
	var lost uint64
	w := New(writerFunc(func(b []byte) (int, error) {
		mu.Lock()
		defer mu.Unlock()
		return out.Write(b)
	}), func(n uint64) []byte {
		mu.Lock()
		defer mu.Unlock()
		lost += n
		return nil
	})
	const writers, each = 8, 5000
	var all sync.WaitGroup
	for i := range writers {
		line := []byte(strings.Repeat(string(rune('a'+i)), 60) + "\n")
		all.Go(func() {
			for range each {
				w.Write(line)
			}
		})
	}
	all.Wait()
	if !w.Close(10 * time.Second) {
		t.Fatal("Close did not write all")
	}
	got := 0
	for line := range strings.Lines(out.String()) {
		got++
		if len(line) != 61 || strings.Trim(line, line[:1]+"\n") != "" {
			t.Fatalf("a torn line: %q", line)
		}
	}
	if uint64(got)+lost != writers*each {
		t.Errorf("%d lines written and %d dropped, of %d", got, lost, writers*each)
	}
}
