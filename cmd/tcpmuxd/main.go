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

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/front"
	"github.com/tcpmuxd/tcpmuxd/pkg/ident"
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
	os.Exit(run(os.Args, os.Stdout, os.Stderr))
}

// run reads the command line of whatever the daemon is called as, and does what it
// says.
func run(argv []string, stdout, stderr io.Writer) int {
	name, args := persona(argv)
	var c *call
	var err error
	words := xinetdUsage
	switch name {
	case "tcpmuxd":
		return asItself(args, stdout, stderr)
	case "xinetd":
		c, err = asXinetd(args)
	default:
		words = inetdUsage
		c, err = asInetd(name, args)
	}
	switch {
	case errors.Is(err, flag.ErrHelp):
		fmt.Fprintln(stdout, words)
		return exitOK
	case errors.Is(err, errVersion):
		fmt.Fprintln(stdout, name+": tcpmuxd", version)
		return exitOK
	case err != nil:
		fmt.Fprintf(stderr, "%s: error: %v\n%s\n", name, err, words)
		return exitUsage
	case c.background && !isBackground():
		return background(name, stderr)
	case c.background:
		nameProcess(name)
	}
	return newDaemon(c, stderr).serve()
}

func newDaemon(c *call, stderr io.Writer) *daemon {
	return &daemon{call: c, stderr: stderr, loaded: make(chan loaded, 1), setsChanged: make(chan struct{}, 1)}
}

// asItself is the daemon under its own name.
func asItself(args []string, stdout, stderr io.Writer) int {
	flags := flag.NewFlagSet("tcpmuxd", flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("c", defaultConfig, "")
	dialect := flags.String("dialect", "", "")
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
	if _, err := front.Source(*dialect, *file); err != nil {
		fmt.Fprintf(stderr, "tcpmuxd: error: %v\n%s\n", err, usage)
		return exitUsage
	}
	spawn.Use(*twin)
	d := newDaemon(&call{name: "tcpmuxd", files: []string{*file}, portable: *twin, open: func(files []string) config.Source {
		source, _ := front.Source(*dialect, files...) // the command line was right
		return source
	}}, stderr)
	if *test {
		return d.test(stdout)
	}
	return d.serve()
}

const usage = `usage: tcpmuxd [-c file] [-dialect name] [-t] [-portable-spawn]
       tcpmuxd -V | -h`

// test reads and compiles the configuration, and serves nothing.
func (d *daemon) test(stdout io.Writer) int {
	d.addresses = listener.Up
	d.manager.take()
	for _, err := range d.manager.problems {
		fmt.Fprintf(d.stderr, "tcpmuxd: warning: a passed socket is not used: %v\n", err)
	}
	l := d.load(fromDisk)
	for _, w := range l.Warnings {
		fmt.Fprintf(d.stderr, "tcpmuxd: warning: %v\n", w)
	}
	if l.Err != nil {
		d.printErrors(l.Err)
		return exitError
	}
	fmt.Fprintf(stdout, "%s: ok, %d rows, %d warnings\n", d.files[0], len(l.Table.Services), len(l.Warnings))
	return exitOK
}

// serve runs the daemon until a signal ends it.
func (d *daemon) serve() int {
	setCollector(readingHeap)
	// Apart, so that no number of SIGHUPs can push a SIGTERM out; two of those,
	// because the second one hurries.
	hup, term := make(chan os.Signal, 1), make(chan os.Signal, 2)
	signal.Notify(hup, syscall.SIGHUP)
	signal.Notify(term, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	// Caught and not ignored, because children inherit what is ignored.
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	usr1 := make(chan os.Signal, 1)
	signal.Notify(usr1, syscall.SIGUSR1)
	odd := make(chan os.Signal, 1)
	signal.Notify(odd, meaningless...)

	if err := d.leaveDirectory(); err != nil {
		d.printErrors(err)
		return exitSystem
	}
	if err := d.lockPidFile(); err != nil {
		d.printErrors(err)
		return exitError
	}
	defer d.removePidFile()
	d.manager.take()
	l := d.load(fromDisk)
	if l.Err != nil {
		d.printErrors(l.Err)
		return exitError
	}
	if err := d.startLog(l.Table.Server); err != nil {
		d.printErrors(err)
		return exitError
	}
	defer d.stopLog()
	d.manager.start(d.log)
	for _, w := range d.warnings {
		d.log.Warn("command line", "at", w)
	}
	d.logWarnings(l.Warnings)
	switch ok, why := spawn.Native(); {
	case d.portable:
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
	s.Identify(ident.New(func() *account.DB { return account.Open(account.System(), getent) }))
	s.Pass(d.manager.passed)
	if err := s.Apply(l.Table); err != nil {
		d.logErrors("cannot serve", err)
		d.manager.end(each(err)[0])
		return exitError
	}
	// Now, so that the stacks of all the threads that Run makes are not where the
	// table was read.
	setCollector(servingHeap)
	debug.FreeOSMemory()
	ended := make(chan error, 1)
	go func() { ended <- s.Run() }()
	d.running(l)
	d.log.Info("serving", "version", version, "file", d.files[0], "rows", len(l.Table.Services), "pid", os.Getpid())
	d.announce()
	defer d.closeControl()
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	d.manager.watchdog(ctx, s.Alive)
	status, stop := d.manager.statusTicks()
	defer stop()
	defer d.stopSets()
	accounts := d.watchAccounts(ctx)
	for {
		select {
		case <-hup:
			d.rotateLog()
			d.reload(fromDisk)
			d.passOn(syscall.SIGHUP)
		case <-usr1:
			d.dump()
		case sig := <-odd:
			d.log.Warn("signal without a meaning", "signal", sig.String())
		case <-status:
			d.manager.status(s.Instances())
		case <-accounts:
			d.reload(usersOnly)
		case <-d.setsChanged:
			d.reload(setsOnly)
		case l := <-d.loaded:
			d.apply(l)
		case sig := <-term:
			d.retirePidFile()
			d.log.Info("stopping", "signal", sig.String())
			if sig == syscall.SIGQUIT && d.quitLeaves {
				s.Leave()
			}
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

// How far the heap may grow over what is in use, in percent. A daemon of a few
// megabytes gains nothing from a large heap; reading a table makes more garbage than
// it leaves in use, and its collection, again and again, would take longer than to
// make it.
const (
	servingHeap = 50
	readingHeap = 400
)

// setCollector lets the heap grow so far, unless GOGC says how far.
func setCollector(percent int) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(percent)
	}
}

// leaveDirectory goes to the root directory, where children start unless their row
// says otherwise, so that the file system that the daemon was started in can be
// unmounted. The files are found again.
func (d *daemon) leaveDirectory() error {
	if err := d.absolute(); err != nil {
		return fmt.Errorf("finding the directory that the daemon was started in: %w", err)
	}
	return os.Chdir("/")
}

// printErrors writes each problem of a configuration on a line of its own.
func (d *daemon) printErrors(err error) {
	for _, e := range each(err) {
		fmt.Fprintf(d.stderr, "%s: error: %v\n", d.name, e)
	}
}

// each takes an error of several apart.
func each(err error) []error {
	if m := (*multierror.Error)(nil); errors.As(err, &m) {
		return m.Errors
	}
	return []error{err}
}
