// Command tcpmuxd is the super-server. See tcpmuxd(8).
//
// This package reads the command line, joins the two halves of the program,
// text and sockets, and turns signals into calls. What a table means and how it
// is run is decided elsewhere.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"

	"github.com/hashicorp/go-multierror"

	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
	"github.com/tcpmuxd/tcpmuxd/pkg/supervisor"
)

// version is stamped by the Makefile.
var version = "devel"

// Exit codes, see tcpmuxd(8).
const (
	exitOK     = 0
	exitError  = 1 // the configuration has errors, or the daemon cannot run
	exitUsage  = 64
	exitSystem = 71
)

const defaultConfig = "/etc/tcpmuxd.toml"

func main() {
	// First of all: it looks at what this process has inherited, before
	// anything else opens a descriptor or touches a signal.
	if err := spawn.Init(); err != nil {
		fmt.Fprintf(os.Stderr, "tcpmuxd: error: %v\n", err)
		os.Exit(exitSystem)
	}
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

func run(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tcpmuxd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("c", defaultConfig, "")
	test := flags.Bool("t", false, "")
	show := flags.Bool("V", false, "")
	twin := flags.Bool("portable-spawn", false, "")
	err := flags.Parse(args)
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, usage)
		return exitOK
	case err == nil && flags.NArg() > 0:
		err = fmt.Errorf("unexpected argument %q", flags.Arg(0))
		fallthrough
	case err != nil:
		fmt.Fprintf(stderr, "tcpmuxd: error: %v\n%s\n", err, usage)
		return exitUsage
	case *show:
		fmt.Fprintln(stdout, "tcpmuxd", version)
		return exitOK
	}
	spawn.Use(*twin)
	d := &daemon{path: *file, stderr: stderr, loaded: make(chan loaded, 1)}
	if *test {
		return d.test(stdout)
	}
	return d.serve(*twin)
}

const usage = `usage: tcpmuxd [-c file] [-t] [-portable-spawn]
       tcpmuxd -V | -h`

// test reads and compiles the configuration, and serves nothing.
func (d *daemon) test(stdout io.Writer) int {
	d.addresses = listener.Up
	d.manager.take()
	for _, err := range d.manager.problems {
		fmt.Fprintf(d.stderr, "tcpmuxd: warning: a passed socket is not used: %v\n", err)
	}
	l := d.load(nil)
	for _, w := range l.warnings {
		fmt.Fprintf(d.stderr, "tcpmuxd: warning: %v\n", w)
	}
	if l.err != nil {
		printErrors(d.stderr, l.err)
		return exitError
	}
	fmt.Fprintf(stdout, "%s: ok, %d rows, %d warnings\n", d.path, len(l.table.Services), len(l.warnings))
	return exitOK
}

// serve runs the daemon in the foreground until a signal ends it.
func (d *daemon) serve(portable bool) int {
	// A daemon of a few megabytes gains nothing from a large heap.
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(50)
	}
	// Apart, so that no number of SIGHUPs can push a SIGTERM out; two of those,
	// because the second one hurries.
	hup, term := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	// Caught and not ignored, because children inherit what is ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	odd := make(chan os.Signal, 1)
	signal.Notify(odd, meaningless...)

	d.manager.take()
	l := d.load(nil)
	if l.err != nil {
		printErrors(d.stderr, l.err)
		return exitError
	}
	d.startLog(l.table.Server)
	defer d.stopLog()
	d.manager.start(d.log)
	d.logWarnings(l.warnings)
	switch ok, why := spawn.Native(); {
	case portable:
		d.log.Info("children are started the portable way")
	case why != "":
		d.log.Warn("spawning is not what it could be", "native", ok, "reason", why)
	}
	s, err := supervisor.New(d.log)
	if err != nil {
		d.log.Error("cannot start", "error", err.Error())
		d.manager.end(err)
		return exitSystem
	}
	d.supervisor = s
	s.Pass(d.manager.passed)
	if err := s.Apply(l.table); err != nil {
		d.logErrors("cannot serve", err)
		d.manager.end(each(err)[0])
		return exitError
	}
	ended := make(chan error, 1)
	go func() { ended <- s.Run() }()
	d.log.Info("serving", "version", version, "file", d.path, "rows", len(l.table.Services), "pid", os.Getpid())
	d.running(l)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.manager.watchdog(ctx, d.log, s.Alive)
	status, stop := d.manager.statusTicks()
	defer stop()
	accounts := d.watchAccounts(ctx)
	for {
		select {
		case <-hup:
			d.reload(fromDisk)
			d.passOn(syscall.SIGHUP)
		case sig := <-odd:
			d.log.Warn("signal without a meaning", "signal", sig.String())
		case <-status:
			d.manager.status(s.Instances())
		case <-accounts:
			d.reload(usersOnly)
		case l := <-d.loaded:
			d.apply(l)
		case sig := <-term:
			d.log.Info("stopping", "signal", sig.String())
			d.manager.stopping(s.Instances(), d.grace)
			s.Stop(term)
		case err := <-ended:
			d.manager.end(err)
			if err != nil {
				d.log.Error("ended", "error", err.Error())
				return exitSystem
			}
			d.log.Info("stopped")
			return exitOK
		}
	}
}

// printErrors writes each problem of a configuration on a line of its own.
func printErrors(w io.Writer, err error) {
	for _, e := range each(err) {
		fmt.Fprintf(w, "tcpmuxd: error: %v\n", e)
	}
}

// each takes an error of several apart.
func each(err error) []error {
	if m := (*multierror.Error)(nil); errors.As(err, &m) {
		return m.Errors
	}
	return []error{err}
}
