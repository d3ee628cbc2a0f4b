// The leak check: what is there before a test is compared with what is left
// after it. It does not know who made a thing, so it is not for tests that run
// in parallel with others.

package testkit

import (
	"fmt"
	"os"
	"runtime"
	"sort"
	"strings"
	"testing"
	"time"
)

// patience is how long a goroutine or descriptor may take to go away after the
// test has ended.
const patience = 3 * time.Second

// Check fails t if at its end, after all clean-up functions registered later,
// there is a goroutine or an open descriptor that was not there when Check was
// called, or a child that has exited and was not waited for. Goroutines and
// descriptors get 3 s to go away. Children that still run are not counted: some
// rows leave them running on purpose. Descriptors and children are looked at on
// Linux only.
//
// Call it first in a test, and not in one that calls t.Parallel.
func Check(t testing.TB) {
	t.Helper()
	openPoller()
	before := snapshot()
	t.Cleanup(func() {
		t.Helper()
		for _, leak := range before.leaks(patience) {
			t.Error(leak)
		}
		// Only now, when whoever reaps is gone, a dead child is a forgotten one.
		for _, zombie := range reapZombies() {
			t.Error(zombie)
		}
	})
}

// state is what can leak: goroutines by number, with their stacks, and
// descriptors, with what they are open on.
type state struct {
	goroutines map[string]string
	files      map[string]string
}

func snapshot() state {
	return state{goroutines: goroutines(), files: openFiles()}
}

// leaks describes what is there now and was not in s, as soon as there is
// nothing, and after patience at the latest.
func (s state) leaks(patience time.Duration) []string {
	deadline := time.Now().Add(patience)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		now := snapshot()
		found := added("leaked goroutine:", s.goroutines, now.goroutines)
		found = append(found, added("leaked descriptor", s.files, now.files)...)
		if len(found) == 0 || time.Now().After(deadline) {
			return found
		}
		if hasPooledPipe(now.files) {
			runtime.GC()
		}
		time.Sleep(wait)
	}
}

// hasPooledPipe reports whether both ends of a pipe are open here. Copying
// from one socket to another leaves such a pair in a pool of the standard
// library, for a garbage collection or two. Collecting only then, and not
// always, keeps a file that somebody forgot to close from being closed by its
// finalizer before it is found.
func hasPooledPipe(files map[string]string) bool {
	seen := make(map[string]bool)
	for _, target := range files {
		if strings.HasPrefix(target, "pipe:") {
			if seen[target] {
				return true
			}
			seen[target] = true
		}
	}
	return false
}

// added lists what after has and before has not. A goroutine's number is never
// used twice; a descriptor's is, so for those the value is compared as well.
func added(what string, before, after map[string]string) []string {
	var list []string
	for k, v := range after {
		old, ok := before[k]
		if ok && (old == v || strings.HasPrefix(k, "goroutine ")) {
			continue
		}
		list = append(list, fmt.Sprintf("%s %s: %s", what, k, v))
	}
	sort.Strings(list)
	return list
}

// goroutines returns the stacks of all goroutines, keyed "goroutine N".
func goroutines() map[string]string {
	buf := make([]byte, 64<<10)
	for {
		n := runtime.Stack(buf, true)
		if n < len(buf) {
			buf = buf[:n]
			break
		}
		buf = make([]byte, 2*len(buf))
	}
	m := make(map[string]string)
	for stack := range strings.SplitSeq(string(buf), "\n\n") {
		name, _, ok := strings.Cut(stack, " [")
		if !ok || lastsForEver(stack) {
			continue
		}
		m[name] = stack
	}
	return m
}

// lastsForEver reports whether the runtime or the standard library start this
// goroutine on first use and never end it.
func lastsForEver(stack string) bool {
	return strings.Contains(stack, "os/signal.signal_recv") ||
		strings.Contains(stack, "runtime.ensureSigM")
}

// openPoller makes the runtime open the descriptors of its network poller,
// which it does on first use and never takes back.
func openPoller() {
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	r.Close()
	w.Close()
}
