package main

// The daemon's own life: loading and reloading a table, and its log.

import (
	"bytes"
	"context"
	"io"
	"log/slog"
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
	file       *config.File // of the running table
}

// load compiles a file, the one on disk where none is given.
func (d *daemon) load(file *config.File) (*config.File, *service.Table, []*config.Problem, error) {
	// Users are looked up anew every time.
	options := config.System(account.Open(account.System(), getent))
	if file == nil {
		file = config.Load(d.path)
	} else {
		options.VanishedUsers = true
	}
	table, warnings, err := config.Compile(file, options)
	return file, table, warnings, err
}

// getent asks getent(1) for users that are not in files.
func getent(ctx context.Context, args ...string) ([]byte, error) {
	return spawn.Output(ctx, "/usr/bin/getent", append([]string{"getent"}, args...), []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}

// reload makes the file on disk the running table, or says why it stays as it is.
func (d *daemon) reload() {
	began := time.Now()
	file, table, warnings, err := d.load(nil)
	d.logWarnings(warnings)
	if err == nil {
		err = d.supervisor.Apply(table)
	}
	if err != nil {
		d.logErrors("reload failed, the old table runs on", err)
		return
	}
	d.file = file
	d.level.Set(level(table.Server))
	if table.Server.LogFormat != d.format {
		d.log.Warn("log_format has changed: it takes effect when the daemon is started again")
	}
	d.log.Info("reloaded", "file", d.path, "rows", len(table.Services), "took", time.Since(began).Round(time.Microsecond))
}

// recompile resolves the users of the running table again. The text on disk
// is not looked at: what an administrator is editing takes effect when asked for.
func (d *daemon) recompile() {
	_, table, warnings, err := d.load(d.file)
	if err == nil {
		err = d.supervisor.Apply(table)
	}
	if err != nil {
		d.logErrors("users changed, but the table cannot be made again", err)
		return
	}
	d.logWarnings(warnings)
	d.log.Info("users read again")
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
