package main

// The daemon's own life: loading and reloading a table, and its log.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"runtime/debug"
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
	*call
	stderr io.Writer
	pid    *pidFile // nil: there is none

	log    *slog.Logger
	level  slog.LevelVar
	format service.LogFormat
	writer *logs.Writer
	file   *logFile // what it writes to; nil if that is no file

	supervisor *supervisor.Supervisor
	manager    manager
	reading    *config.Reading // of the running table
	grace      time.Duration   // of the running table
	control    controlSocket

	addresses func(netip.Addr, string) bool // see config.Options.Up; nil in the running daemon, which finds out itself
	loading   bool                          // a load is under way and will come on loaded
	asked     [kinds]bool                   // what is to be loaded after it
	loaded    chan loaded

	sets        *watch // nil: there are none, or nobody could watch
	setsChanged chan struct{}
}

// What a load reads.
const (
	fromDisk  = iota // the file
	usersOnly        // the users of the running table; the file is not looked at
	setsOnly         // the same for the files of its sets
	kinds            // how many there are
)

// A loaded is what a load has come to.
type loaded struct {
	*config.Reading
	what  int
	began time.Time
}

// load reads and compiles the file, or compiles once more what was read then.
func (d *daemon) load(what int) loaded {
	l := loaded{what: what, began: time.Now()}
	// Users are looked up anew every time.
	options := config.System(account.Open(account.System(), getent))
	options.Native, _ = spawn.Native()
	options.Up = d.addresses
	options.Passed = d.manager.passed
	switch {
	case d.reading == nil:
		l.Reading = config.Read(d.open(d.files), options)
	case what == fromDisk:
		l.Reading = d.reading.Read(options)
	default:
		options.VanishedUsers = true
		l.Reading = d.reading.Compile(options)
	}
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
	switch {
	case d.asked[fromDisk]:
		what = fromDisk
		d.asked = [kinds]bool{} // it looks at the others as well
	case d.asked[usersOnly]:
		what = usersOnly
		d.asked[usersOnly] = false
	case d.asked[setsOnly]:
		what = setsOnly
		d.asked[setsOnly] = false
	default:
		return
	}
	d.loading = true
	if what == fromDisk {
		d.manager.notifier.Reloading()
	}
	go func() {
		var l loaded
		d.supervisor.Spare(func() { l = d.load(what) })
		d.loaded <- l
	}()
}

// apply makes what was loaded the running table, or says why that stays as it is.
func (d *daemon) apply(l loaded) {
	d.loading = false
	defer d.reloadAsked()
	if l.what == setsOnly {
		d.watchSets(l.SetFiles()) // a link may lead elsewhere now
		if l.Reading == d.reading {
			return // something else in their directories has changed
		}
	}
	if l.Reading != d.reading {
		// Reading leaves more behind than the table takes, which some later
		// collection would find, in the middle of something else.
		defer debug.FreeOSMemory()
	}
	d.logWarnings(l.Warnings)
	err := l.Err
	switch {
	case err != nil:
	case l.what == fromDisk:
		err = d.supervisor.Apply(l.Table)
	default:
		err = d.supervisor.Refresh(l.Table)
	}
	switch {
	case errors.Is(err, supervisor.ErrStopping):
	case err != nil && l.what == usersOnly:
		d.logErrors("users changed, but the table cannot be made again", err)
	case err != nil && l.what == setsOnly:
		d.logErrors("sets changed, but the table cannot be made again", err)
	case err != nil:
		d.logErrors("reload failed, the old table runs on", err)
		d.manager.reloadFailed()
	case l.what == usersOnly:
		d.reading = l.Reading
		d.log.Info("users read again")
	case l.what == setsOnly:
		d.reading = l.Reading
		d.log.Info("sets read again")
	default:
		d.running(l)
		d.level.Set(level(l.Table.Server))
		if l.Table.Server.LogFormat != d.format {
			d.log.Warn("log_format has changed: it takes effect when the daemon is started again")
		}
		d.log.Info("reloaded", "file", d.files[0], "rows", len(l.Table.Services), "took", time.Since(l.began).Round(time.Microsecond))
	}
}

// running notes that what was loaded is what runs.
func (d *daemon) running(l loaded) {
	d.reading, d.grace = l.Reading, l.Table.Server.Grace
	d.watchSets(l.SetFiles())
	d.listenControl(l.Table.Server.Control)
	d.manager.serving(len(l.Table.Services))
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
func (d *daemon) startLog(server service.Server) error {
	out, err := d.openLog(d.stderr)
	if err != nil {
		return fmt.Errorf("opening the log: %w", err)
	}
	d.file, _ = out.(*logFile)
	asJSON := server.LogFormat == service.LogJSON
	d.writer = logs.New(out, func(n uint64) []byte {
		var b bytes.Buffer
		h := slog.Handler(slog.NewTextHandler(&b, nil))
		if asJSON {
			h = slog.NewJSONHandler(&b, nil)
		}
		slog.New(h).Warn("log lines were dropped: whoever reads the log is too slow", "lines", n)
		return b.Bytes()
	})
	d.format = server.LogFormat
	d.level.Set(level(server))
	d.log = slog.New(logs.NewHandler(d.writer, asJSON, &d.level))
	return nil
}

// rotateLog opens the file of the log again.
func (d *daemon) rotateLog() {
	if d.file == nil {
		return
	}
	if err := d.file.reopen(); err != nil {
		d.log.Error("cannot open the log again", "error", err.Error())
	}
}

func (d *daemon) stopLog() { d.writer.Close(time.Second) }

// dump logs how things are, and writes it to where it is looked for.
func (d *daemon) dump() {
	var file bytes.Buffer
	lines := slog.New(slog.NewTextHandler(&file, nil))
	d.supervisor.Dump(func(msg string, attrs ...slog.Attr) {
		d.log.LogAttrs(context.Background(), slog.LevelInfo, msg, attrs...)
		lines.LogAttrs(context.Background(), slog.LevelInfo, msg, attrs...)
	})
	if d.dumpFile == "" {
		return
	}
	// Not to be read before all of it is there.
	err := os.WriteFile(d.dumpFile+".new", file.Bytes(), 0o600)
	if err == nil {
		err = os.Rename(d.dumpFile+".new", d.dumpFile)
	}
	if err != nil {
		d.log.Warn("cannot write the state to its file", "error", err.Error())
	}
}

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
