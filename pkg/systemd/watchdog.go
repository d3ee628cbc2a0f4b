package systemd

// The watchdog, sd_watchdog_enabled(3).

import (
	"context"
	"os"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"
)

// Watchdog returns how often the manager wants to hear that the daemon is alive,
// 0 if it does not. The variables that say so are gone from the environment
// afterwards. An error is one in their text.
func Watchdog() (time.Duration, error) {
	if os.Getenv("WATCHDOG_USEC") == "0" { // it is off
		os.Unsetenv("WATCHDOG_USEC")
	}
	return daemon.SdWatchdogEnabled(true)
}

// Feed tells the manager twice in every interval that the daemon is alive, as
// long as check finds so, until ctx ends. check may take the time it is given
// and returns what is stuck; nothing is sent then, and check is asked again.
// After a whole interval without a word the manager does what its WatchdogSec=
// says, which is usually to kill the daemon and to start it again.
//
// problem is called with what is stuck, and with nil when that is over.
func (n *Notifier) Feed(ctx context.Context, interval time.Duration, check func(most time.Duration) error, problem func(error)) {
	if n == nil || interval <= 0 {
		return
	}
	tick := time.NewTicker(interval / 2)
	defer tick.Stop()
	stuck := false
	for {
		// No longer than until the next tick: what comes just before the end of
		// the interval may come too late.
		err := check(interval / 4)
		if ctx.Err() != nil {
			return
		}
		if err == nil {
			n.alive()
		}
		if err != nil || stuck {
			problem(err)
		}
		stuck = err != nil
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
