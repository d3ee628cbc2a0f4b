package main

// The command line of the inetds: the union of what FreeBSD's, NetBSD's, OpenBSD's,
// Debian's, GNU inetutils' and busybox' take, in the manner of getopt(3), options
// behind operands included. Where they differ the dialect decides.

import (
	"errors"
	"flag"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/inetd"
)

const (
	inetdConfig  = "/etc/inetd.conf"
	inetdDir     = "/etc/inetd.d" // GNU's
	inetdPidFile = "/var/run/inetd.pid"
	inetdUsage   = `usage: inetd [-dEefilWw] [-a address] [-C rate] [-c max] [-p[pidfile]] [-q length]
             [-R rate] [-s max] [--dialect=name] [--environment] [--resolve]
             [file | directory] ...
       inetd --version | --help`
)

// errVersion is asked for, as flag.ErrHelp is.
var errVersion = errors.New("version")

// An inetdLine is the command line of an inetd as it is read.
type inetdLine struct {
	*call
	dialect string
	flags   inetd.Flags
	backlog int
	debug   bool
	environ bool
	stderr  bool // the log goes there
	rest    []string
}

// asInetd reads the command line of an inetd.
func asInetd(name string, args []string) (*call, error) {
	l := &inetdLine{call: &call{name: name, background: true, pidFile: inetdPidFile}, dialect: inetds[name], rest: args}
	if err := l.read(); err != nil {
		return nil, err
	}
	if l.dialect != "" && inetd.Named(l.dialect) == nil {
		return nil, fmt.Errorf("there is no dialect %q; write %s", l.dialect, strings.Join(inetd.Names(), ", "))
	}
	if len(l.files) == 0 {
		l.files = []string{inetdConfig}
		if s, err := os.Stat(inetdDir); err == nil && s.IsDir() && (l.dialect == "" || inetd.Named(l.dialect).Name == "gnu") {
			l.files = append(l.files, inetdDir)
		}
	}
	l.background = l.background && !managed()
	if !l.stderr && l.background {
		l.facility = "daemon"
	}
	l.open = func(files []string) config.Source {
		source := inetd.SourceWith(inetd.Named(l.dialect), l.flags, files...)
		return func(d *config.Disk) *config.File {
			f := source(d)
			l.complete(f)
			return f
		}
	}
	return l.call, nil
}

// complete puts into a table what no row is asked about.
func (l *inetdLine) complete(f *config.File) {
	if l.debug {
		f.Server.LogLevel = config.String{V: "debug", Pos: flagsAt}
	}
	if l.backlog > 0 {
		f.Defaults.Backlog = config.Int{V: int64(l.backlog), Pos: flagsAt}
	}
	if l.environ {
		passAll(f)
	}
	if !f.Defaults.Pos.IsSet() {
		f.Defaults.Pos = flagsAt
	}
}

// read takes the arguments one by one.
func (l *inetdLine) read() error {
	for len(l.rest) > 0 {
		a := l.rest[0]
		l.rest = l.rest[1:]
		var err error
		switch {
		case a == "--":
			l.files = append(l.files, l.rest...)
			return nil
		case strings.HasPrefix(a, "--"):
			name, value, has := strings.Cut(a[2:], "=")
			err = l.long(name, value, has)
		case len(a) > 1 && a[0] == '-':
			err = l.bundle(a[1:])
		default:
			l.files = append(l.files, a)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// value is what is written behind an option, or the next argument.
func (l *inetdLine) value(option, behind string) (string, error) {
	if behind != "" {
		return behind, nil
	}
	if len(l.rest) == 0 {
		return "", fmt.Errorf("%s needs a value", option)
	}
	v := l.rest[0]
	l.rest = l.rest[1:]
	return v, nil
}

// bundle reads options of one letter: -dlR10.
func (l *inetdLine) bundle(letters string) error {
	for letters != "" {
		c := letters[0]
		letters = letters[1:]
		option := "-" + string(rune(c))
		switch {
		case strings.IndexByte("acCRsq", c) >= 0:
			v, err := l.value(option, letters)
			if err != nil {
				return err
			}
			return l.set(option, v)
		case c == 'p':
			// GNU's has its file right behind it or none, FreeBSD's may have it apart.
			if letters == "" && len(l.rest) > 0 && !strings.HasPrefix(l.rest[0], "-") && !l.isGNU() {
				letters, l.rest = l.rest[0], l.rest[1:]
			}
			l.pid(letters)
			return nil
		}
		if err := l.letter(option); err != nil {
			return err
		}
	}
	return nil
}

func (l *inetdLine) isGNU() bool {
	d := inetd.Named(l.dialect)
	return d != nil && d.Name == "gnu"
}

// pid takes the name of the pid file; empty: the usual one.
func (l *inetdLine) pid(file string) {
	if file != "" {
		l.pidFile = file
	}
	l.pidAsked = true
}

// letter reads an option without a value.
func (l *inetdLine) letter(option string) error {
	switch option {
	case "-d":
		l.debug, l.background = true, false
	case "-f", "-i":
		l.background = false
	case "-e":
		l.stderr = true
	case "-E":
		l.environ = true
	case "-l":
		l.flags.L = true // connections are logged in any case
	case "-w":
		l.flags.WrapPrograms = true
	case "-W":
		l.flags.WrapBuiltins = true
	case "-h", "-?":
		return flag.ErrHelp
	case "-V":
		return errVersion
	default:
		return fmt.Errorf("there is no option %s", option)
	}
	return nil
}

// longs are the options of GNU's, and ours.
var longs = []string{"debug", "dialect", "environment", "foreground", "help", "pidfile", "rate", "resolve", "usage", "version"}

// long reads one of them, or as much of one as tells it from the others.
func (l *inetdLine) long(name, value string, has bool) error {
	option := "--" + name
	var meant []string
	for _, word := range longs {
		if word == name {
			meant = []string{word}
			break
		}
		if strings.HasPrefix(word, name) {
			meant = append(meant, word)
		}
	}
	switch {
	case len(meant) > 1:
		return fmt.Errorf("%s is one of --%s; write it out", option, strings.Join(meant, ", --"))
	case len(meant) == 1:
		name = meant[0]
		option = "--" + name
	}
	switch name {
	case "rate", "dialect":
		if !has {
			var err error
			if value, err = l.value(option, ""); err != nil {
				return err
			}
		}
		if name == "dialect" {
			l.dialect = value
			return nil
		}
		return l.set(option, value)
	case "pidfile":
		l.pid(value)
		return nil
	}
	if has {
		return fmt.Errorf("%s has no value", option)
	}
	switch name {
	case "debug":
		return l.letter("-d")
	case "foreground":
		return l.letter("-f")
	case "environment": // every program has these variables
	case "resolve":
		l.warn("--resolve asks for names of peers: no name is looked up, and TCPREMOTEHOST and TCPLOCALHOST are not set")
	case "help", "usage":
		return flag.ErrHelp
	case "version":
		return errVersion
	default:
		return fmt.Errorf("there is no option %s", option)
	}
	return nil
}

// maxCount is the largest number that an option takes.
const maxCount = 1_000_000

// set takes the value of an option that has one.
func (l *inetdLine) set(option, v string) error {
	if option == "-a" {
		if _, err := netip.ParseAddr(v); err != nil && strings.ContainsAny(v, ":[]/@*, ") {
			return fmt.Errorf("-a %s: write an address or the name of a host", v)
		}
		l.flags.Host = v
		return nil
	}
	n, err := strconv.ParseUint(v, 10, 31)
	if err != nil || n > maxCount {
		return fmt.Errorf("%s %s: write a number from 0 to %d", option, v, maxCount)
	}
	count := inetd.CountOf(int(n))
	switch option {
	case "-R", "--rate":
		l.flags.Rate = count
	case "-c":
		l.flags.Instances = count
	case "-C":
		l.flags.RatePerSource = count
	case "-s":
		l.flags.InstancesPerSource = count
	case "-q":
		l.backlog = int(n)
	}
	return nil
}
