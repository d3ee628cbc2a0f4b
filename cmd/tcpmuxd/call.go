package main

// As what the daemon is called: as itself, as an inetd or as xinetd. A command line
// of any of them comes to a call, and what is done then knows no flags.

import (
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/logs"
)

// A call is what a command line asks for.
type call struct {
	name  string // what the daemon is called, in its messages and by syslogd
	files []string
	open  func(files []string) config.Source // what to read, and how

	background bool   // in a session of its own, once it serves
	pidFile    string // empty: none
	pidAsked   bool   // the daemon does not run without it
	facility   string // of syslog(3), where the log goes; empty: not there
	logFile    string // where the log goes otherwise; empty: standard error
	dumpFile   string // where SIGUSR1 writes to besides the log; empty: nowhere
	quitLeaves bool   // SIGQUIT leaves instances running, whatever their rows say
	portable   bool   // see -portable-spawn

	warnings []string // what follows from flags that have no counterpart
}

// warn notes what follows from a flag.
func (c *call) warn(text string) { c.warnings = append(c.warnings, text) }

// inetds are the names of programs that are inetds, with the dialect of those that
// have only one.
var inetds = map[string]string{"inetd": "", "openbsd-inetd": "openbsd", "inetutils-inetd": "gnu"}

// persona is what the daemon is called by its name, or else by its first argument,
// with the arguments that are left.
func persona(argv []string) (name string, args []string) {
	known := func(s string) bool { _, ok := inetds[s]; return ok || s == "xinetd" }
	if len(argv) == 0 {
		return "tcpmuxd", nil
	}
	switch base := filepath.Base(argv[0]); {
	case known(base):
		return base, argv[1:]
	case len(argv) > 1 && known(argv[1]):
		return argv[1], argv[2:]
	}
	return "tcpmuxd", argv[1:]
}

// managed reports whether a service manager waits to be told that the daemon serves.
// It wants to hear that of the process that it has started: Debian's unit for inetd
// has no -i.
func managed() bool { return os.Getenv("NOTIFY_SOCKET") != "" }

// flagsAt is where the command line puts something into a table.
var flagsAt = config.Pos{File: "the command line", Line: 1, Col: 1}

// passAll has programs get the environment of the daemon, but for what its service
// manager has meant for the daemon alone.
func passAll(f *config.File) {
	pass := config.List{Pos: flagsAt}
	for _, v := range os.Environ() {
		name, _, _ := strings.Cut(v, "=")
		its := slices.ContainsFunc([]string{"LISTEN_", "NOTIFY_", "WATCHDOG_"}, func(p string) bool { return strings.HasPrefix(name, p) })
		if config.CanPass(name) && !its {
			pass.V = append(pass.V, config.String{V: name, Pos: flagsAt})
		}
	}
	if pass.V != nil {
		f.Defaults.EnvPass = pass
	}
}

// openLog opens where the log goes.
func (c *call) openLog(stderr io.Writer) (io.Writer, error) {
	switch {
	case c.facility != "":
		return logs.NewSyslog(c.facility, c.name)
	case c.logFile != "":
		return openLogFile(c.logFile)
	}
	return stderr, nil
}

// absolute makes the names of files independent of the directory.
func (c *call) absolute() error {
	files := []*string{}
	for i := range c.files {
		files = append(files, &c.files[i])
	}
	for _, f := range append(files, &c.pidFile, &c.logFile) {
		if *f == "" {
			continue
		}
		abs, err := filepath.Abs(*f)
		if err != nil {
			return err
		}
		*f = abs
	}
	return nil
}
