package main

// What passes between the daemon and whoever started it: a service manager such
// as systemd(1), or a container.

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"strings"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/systemd"
)

const (
	// statusEvery is how often the status line is looked at, where there is
	// somebody to show it.
	statusEvery = 5 * time.Second
	// stopMargin is what stopping may take besides the grace.
	stopMargin = 10 * time.Second
	// lastNews is how long the end of the daemon waits for its last message to
	// be taken.
	lastNews = time.Second
)

// A manager is who started the daemon, as far as it is known.
type manager struct {
	passed   []service.Passed
	problems []error // what was passed and is no use
	ignored  string  // why all of it was not for this process

	log      *slog.Logger      // from start on, before which nobody is told anything
	notifier *systemd.Notifier // nil: nobody wants to know
	interval time.Duration     // of the watchdog; 0: there is none
	badWatch error             // what is wrong with it
	rows     int
	failed   bool // the last reload
}

// take finds out what the daemon was passed, and takes it out of the environment,
// which is from now on what it is at every reload: a table is made of it, too.
// There is no log yet.
func (m *manager) take() {
	m.passed, m.ignored, m.problems = systemd.Take(systemd.Find{
		Now:     spawn.Inherited,
		Inspect: listener.Inspect,
		Close:   syscall.Close,
	})
	m.notifier = systemd.NewNotifier(func(err error) {
		m.log.Warn("the service manager is not told", "error", err.Error())
	})
	m.interval, m.badWatch = systemd.Watchdog()
}

// start tells the log what take has found.
func (m *manager) start(log *slog.Logger) {
	m.log = log
	for _, err := range m.problems {
		log.Warn("a passed socket is not used", "error", err.Error())
	}
	if m.ignored != "" {
		log.Debug("passed sockets are not for this process", "reason", m.ignored)
	}
}

// watchdog has the manager fed in the background until ctx ends.
func (m *manager) watchdog(ctx context.Context, alive func(most time.Duration) error) {
	if m.badWatch != nil {
		m.log.Warn("the watchdog is off", "error", m.badWatch.Error())
	}
	if m.notifier == nil || m.interval <= 0 {
		return
	}
	go m.notifier.Feed(ctx, m.interval, alive, func(err error) {
		if err != nil {
			m.log.Error("the watchdog is not fed", "error", strings.ReplaceAll(err.Error(), "\n", "; "))
		} else {
			m.log.Info("the watchdog is fed again")
		}
	})
}

// serving says what is served now.
func (m *manager) serving(rows int) {
	m.rows, m.failed = rows, false
	m.notifier.Ready()
}

// reloadFailed says that the old table is served.
func (m *manager) reloadFailed() {
	m.failed = true
	m.notifier.Ready()
}

// status says how many instances there are.
func (m *manager) status(instances int) {
	line := fmt.Sprintf("serving %s, %s", count(m.rows, "row"), count(instances, "instance"))
	if m.failed {
		line += "; the last reload failed, see the log"
	}
	m.notifier.Status(line)
}

// stopping says that the end begins.
func (m *manager) stopping(instances int, grace time.Duration) {
	m.notifier.Stopping(grace + stopMargin)
	m.notifier.Status(fmt.Sprintf("stopping, %s left", count(instances, "instance")))
}

// end says why the daemon ends, if err is not nil.
func (m *manager) end(err error) {
	if err != nil {
		m.notifier.Status(err.Error())
	}
	m.notifier.Close(lastNews)
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// statusTicks ticks where somebody sees the status.
func (m *manager) statusTicks() (ticks <-chan time.Time, stop func()) {
	if m.notifier == nil {
		return nil, func() {}
	}
	t := time.NewTicker(statusEvery)
	return t.C, t.Stop
}

// meaningless are signals that other super-servers have a use for. Go drops what
// nobody has asked for, and the first process of a container loses them in any
// case; so they are caught, for the log to say that nothing was done.
var meaningless = []os.Signal{syscall.SIGUSR2, syscall.SIGALRM}

// passOn gives a signal that is not only for the first process of a container to
// those others that can do something with it.
func (d *daemon) passOn(sig syscall.Signal) {
	if os.Getpid() != 1 {
		return
	}
	if n := d.supervisor.SignalServers(sig); n > 0 {
		d.log.Info("signal passed on", "signal", sig.String(), "servers", n)
	}
}
