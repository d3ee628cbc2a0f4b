package main

// The command line of xinetd(8): long options with one dash.

import (
	"errors"
	"flag"
	"fmt"
	"io"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/inetd"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/xinetd"
	"github.com/tcpmuxd/tcpmuxd/pkg/logs"
)

const (
	xinetdConfig = "/etc/xinetd.conf"
	xinetdDump   = "/var/run/xinetd.dump" // which Debian's init script shows
	xinetdUsage  = `usage: xinetd [-d] [-f file] [-filelog file | -syslog facility] [-pidfile file]
              [-dontfork] [-stayalive] [-limit number] [-logprocs number]
              [-inetd_compat [-inetd_ipv6]] [-cc seconds]
       xinetd -version | -h`
)

// asXinetd reads the command line of xinetd.
func asXinetd(args []string) (*call, error) {
	c := &call{name: "xinetd", background: true, quitLeaves: true, dumpFile: xinetdDump}
	flags := flag.NewFlagSet(c.name, flag.ContinueOnError)
	flags.SetOutput(io.Discard)
	file := flags.String("f", xinetdConfig, "")
	flags.StringVar(&c.logFile, "filelog", "", "")
	flags.StringVar(&c.facility, "syslog", "", "")
	flags.StringVar(&c.pidFile, "pidfile", "", "")
	debug := flags.Bool("d", false, "")
	stay := flags.Bool("dontfork", false, "")
	flags.Bool("stayalive", false, "") // it stays in any case
	limit := flags.Int("limit", 0, "")
	logprocs := flags.Int("logprocs", 0, "")
	compat := flags.Bool("inetd_compat", false, "")
	six := flags.Bool("inetd_ipv6", false, "")
	check := flags.Int("cc", 0, "")
	version := flags.Bool("version", false, "")
	switch err := flags.Parse(args); {
	case err != nil:
		return nil, err
	case *version:
		return nil, errVersion
	case flags.NArg() > 0:
		return nil, fmt.Errorf("unexpected argument %q", flags.Arg(0))
	case c.logFile != "" && c.facility != "":
		return nil, errors.New("-filelog and -syslog: the log goes to one of them")
	case *limit < 0 || *limit > maxCount:
		return nil, fmt.Errorf("-limit %d: write a number from 1 to %d", *limit, maxCount)
	}
	if c.facility != "" {
		if _, err := logs.NewSyslog(c.facility, c.name); err != nil {
			return nil, fmt.Errorf("-syslog: %w", err)
		}
	}
	c.pidAsked = c.pidFile != ""
	c.background = !*debug && !*stay && !managed()
	if !*debug && c.logFile == "" && c.facility == "" {
		c.facility = "daemon"
	}
	if *logprocs != 0 {
		c.warn("-logprocs limits processes that ask who a peer is: there are none, nobody is asked")
	}
	if *check != 0 {
		c.warn("-cc asks for checks of the daemon by itself from time to time: there are none to be asked for")
	}
	var dialect *inetd.Dialect // of the inetd.conf; nil: guessed
	if *six {
		dialect = inetd.Named("debian") // a plain tcp is of both families
	}
	c.files = []string{*file}
	if *compat {
		c.files = append(c.files, inetdConfig)
	}
	c.open = func(files []string) config.Source {
		return func(d *config.Disk) *config.File {
			source := xinetd.Source(files[0])
			if *compat {
				source = xinetd.SourceCompat(files[0], inetd.Source(dialect, files[1:]...))
			}
			f := source(d)
			if *debug {
				f.Server.LogLevel = config.String{V: "debug", Pos: flagsAt}
			}
			if *limit > 0 {
				f.Server.Limits.Pos = flagsAt
				f.Server.Limits.Instances = config.Int{V: int64(*limit), Pos: flagsAt}
			}
			// It ends its servers when it is ended; SIGQUIT leaves them.
			f.Defaults.OnStop = config.String{V: "term", Pos: flagsAt}
			if !f.Defaults.Pos.IsSet() {
				f.Defaults.Pos = flagsAt
			}
			return f
		}
	}
	return c, nil
}
