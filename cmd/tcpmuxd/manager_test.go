package main

import (
	"os"
	"slices"
	"strings"
	"testing"
)

// TestEnvironmentStays: what a service manager says to the daemon is out of the
// environment before a table is made of that. Otherwise the first reload would
// find another one, and do all its work for nothing.
func TestEnvironmentStays(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/nowhere/notify")
	t.Setenv("WATCHDOG_USEC", "4000000")
	t.Setenv("LISTEN_FDNAMES", "ftp")
	var m manager
	m.take()
	defer m.end(nil)
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		if slices.Contains([]string{"NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES"}, name) {
			t.Errorf("%s is left", v)
		}
	}
	if m.notifier == nil || m.interval == 0 || m.badWatch != nil {
		t.Errorf("notifier %v, watchdog %v, %v", m.notifier, m.interval, m.badWatch)
	}
}
