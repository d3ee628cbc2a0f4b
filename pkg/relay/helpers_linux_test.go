package relay

import (
	"os"
	"strings"
	"testing"
)

// pipesOpen counts the pipes of this process.
func pipesOpen(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	pipes := map[string]bool{}
	for _, e := range entries {
		if to, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil && strings.HasPrefix(to, "pipe:") {
			pipes[to] = true
		}
	}
	return len(pipes)
}
