package main

// The daemon's own life: loading and reloading a table, and its log.

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/netip"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/logs"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/supervisor"
)

type daemon struct {
	path   string
	stderr io.Writer

	log    *slog.Logger
	level  slog.LevelVar
	format service.LogFormat
	writer *logs.Writer

	supervisor *supervisor.Supervisor
	manager    manager
	file       *config.File  // of the running table
	grace      time.Duration // of the running table

	addresses func(netip.Addr, string) bool // see config.Options.Up; nil in the running daemon, which finds out itself
	loading   bool                          // a load is under way and will come on loaded
	asked     [2]bool                       // what is to be loaded after it
	loaded    chan loaded
}

// What a load reads.
const (
	fromDisk  = iota // the file
	usersOnly        // the users of the running table; the file is not looked at
)

// A loaded is what a load has come to.
type loaded struct {
	what     int
	began    time.Time
	file     *config.File
	table    *service.Table
	warnings []*config.Problem
	err      error
}

// load compiles a file, the one on disk where none is given.
func (d *daemon) load(file *config.File) loaded {
	l := loaded{what: fromDisk, began: time.Now(), file: file}
	// Users are looked up anew every time.
	options := config.System(account.Open(account.System(), getent))
	options.Native, _ = spawn.Native()
	options.Up = d.addresses
	options.Passed = d.manager.passed
	if file == nil {
		l.file = config.Load(d.path)
	} else {
		l.what = usersOnly
		options.VanishedUsers = true
	}
	l.table, l.warnings, l.err = config.Compile(l.file, options)
	return l
}

// getent asks getent(1) for users that are not in files.
func getent(ctx context.Context, args ...string) ([]byte, error) {
	return spawn.Output(ctx, "/usr/bin/getent", append([]string{"getent"}, args...), []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// reload begins to load, or does so again after the load under way. It goes on
// beside the signals: a file system or a name service may make it wait.
func (d *daemon) reload(what int) {
	d.asked[what] = true
	if d.loading {
		return
	}
	var file *config.File
	switch {
	case d.asked[fromDisk]:
		d.asked = [2]bool{} // it looks the users up as well
	case d.asked[usersOnly]:
		d.asked[usersOnly] = false
		file = d.file
	default:
		return
	}
	d.loading = true
	if file == nil {
		d.manager.notifier.Reloading()
	}
	go func() {
		var l loaded
		d.supervisor.Spare(func() { l = d.load(file) })
		d.loaded <- l
	}()
}

// apply makes what was loaded the running table, or says why that stays as it is.
func (d *daemon) apply(l loaded) {
	d.loading = false
	defer d.reloadAsked()
	d.logWarnings(l.warnings)
	err := l.err
	if err == nil {
		err = d.supervisor.Apply(l.table)
	}
	switch {
	case errors.Is(err, supervisor.ErrStopping):
	case err != nil && l.what == usersOnly:
		d.logErrors("users changed, but the table cannot be made again", err)
	case err != nil:
		d.logErrors("reload failed, the old table runs on", err)
		d.manager.reloadFailed()
	case l.what == usersOnly:
		d.log.Info("users read again")
	default:
		d.running(l)
		d.level.Set(level(l.table.Server))
		if l.table.Server.LogFormat != d.format {
			d.log.Warn("log_format has changed: it takes effect when the daemon is started again")
		}
		d.log.Info("reloaded", "file", d.path, "rows", len(l.table.Services), "took", time.Since(l.began).Round(time.Microsecond))
	}
}

// running notes that what was loaded is what runs.
func (d *daemon) running(l loaded) {
	d.file, d.grace = l.file, l.table.Server.Grace
	d.manager.serving(len(l.table.Services))
	d.manager.status(d.supervisor.Instances())
}

// reloadAsked does what was asked for during a load.
func (d *daemon) reloadAsked() {
	for what, asked := range d.asked {
		if asked {
			d.reload(what)
			return
		}
	}
}

// settle is how long the account files have to be quiet: tools rename several
// of them one after the other.
const settle = 200 * time.Millisecond

// watchAccounts tells when the files that users come from have changed.
func (d *daemon) watchAccounts(ctx context.Context) <-chan struct{} {
	changed := make(chan struct{})
	watcher, err := fsnotify.NewWatcher()
	if err != nil {
		d.log.Warn("changes of users are seen at a reload only", "error", err.Error())
		return changed
	}
	files := account.System().Watch()
	// The directories, because the files are replaced and not written to.
	for _, f := range files {
		if err := watcher.Add(filepath.Dir(f)); err != nil {
			d.log.Warn("changes of users are seen at a reload only", "error", err.Error())
		}
	}
	go func() {
		defer watcher.Close()
		quiet := time.NewTimer(time.Hour)
		quiet.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case ev := <-watcher.Events:
				if slices.Contains(files, ev.Name) {
					quiet.Reset(settle)
				}
			case <-watcher.Errors:
				quiet.Reset(settle) // events were lost; this may be one of them
			case <-quiet.C:
				select {
				case changed <- struct{}{}:
				case <-ctx.Done():
					return
				}
			}
		}
	}()
	return changed
}

// startLog has everything from here on logged as the table says.
func (d *daemon) startLog(server service.Server) {
	handler := func(w io.Writer) slog.Handler {
		o := &slog.HandlerOptions{Level: &d.level}
		if server.LogFormat == service.LogJSON {
			return slog.NewJSONHandler(w, o)
		}
		return slog.NewTextHandler(w, o)
	}
	d.writer = logs.New(d.stderr, func(n uint64) []byte {
		var b bytes.Buffer
		slog.New(handler(&b)).Warn("log lines were dropped: whoever reads the log is too slow", "lines", n)
		return b.Bytes()
	})
	d.format = server.LogFormat
	d.level.Set(level(server))
	d.log = slog.New(handler(d.writer))
}

func (d *daemon) stopLog() { d.writer.Close(time.Second) }

func level(server service.Server) slog.Level {
	switch server.LogLevel {
	case service.LogDebug:
		return slog.LevelDebug
	case service.LogWarn:
		return slog.LevelWarn
	case service.LogError:
		return slog.LevelError
	}
	return slog.LevelInfo
}

func (d *daemon) logWarnings(warnings []*config.Problem) {
	for _, w := range warnings {
		d.log.Warn("configuration", "at", w.Error())
	}
}

func (d *daemon) logErrors(msg string, err error) {
	for _, e := range each(err) {
		d.log.Error(msg, "error", e.Error())
	}
}
