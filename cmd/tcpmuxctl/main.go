// Command tcpmuxctl is the operator's tool. See tcpmuxctl(8).
//
// Its commands are a table; each is a function of its arguments that prints and
// returns an exit code. What a configuration means is package config's.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
)

// version is stamped by the Makefile.
var version = "devel"

// The exit codes, see tcpmuxctl(8).
const (
	exitOK    = 0
	exitError = 1  // a configuration has errors, or the daemon does not do it
	exitUsage = 64 // EX_USAGE
)

// A command is one word of the language. Adding one is adding a line to
// the table.
type command struct {
	name, args, help string // help may have lines, indented to its column
	run              func(args []string, out, err io.Writer) int
}

func commands() []command {
	return []command{
		{"check", "[-r] file ...", "report every error in configuration files; -r: for\n                                a daemon that root runs", check},
		{"convert", "[-to form] file ...", "write the TOML of an inetd.conf or xinetd.conf or,\n                                with -to systemd, units, into -o directory, over what\n                                is there with -f; and a report of what was guessed,\n                                changed or lost to standard error", convert},
		{"bans", "[-s socket]", "list the sources that the running daemon holds off", bans},
		{"unban", "[-s socket] source ...", "hold a source off no longer", unban},
	}
}

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

func run(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("tcpmuxctl")
	show := flags.Bool("V", false, "")
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage(stdout)
		return exitOK
	case err != nil:
		return misused(stderr, "%v", err)
	case *show:
		fmt.Fprintln(stdout, "tcpmuxctl", version)
		return exitOK
	case flags.NArg() == 0:
		return misused(stderr, "no command given")
	}
	for _, c := range commands() {
		if c.name == flags.Arg(0) {
			return c.run(flags.Args()[1:], stdout, stderr)
		}
	}
	return misused(stderr, "unknown command %q", flags.Arg(0))
}

func newFlags(name string) *flag.FlagSet {
	flags := flag.NewFlagSet(name, flag.ContinueOnError)
	flags.SetOutput(io.Discard) // messages have one form, see misused
	return flags
}

// parse reads the arguments of a command. The command is over, with that code, if
// it does not return -1.
func parse(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int) {
	switch err := flags.Parse(args); {
	case errors.Is(err, flag.ErrHelp):
		usage(stdout)
		return exitOK
	case err != nil:
		return misused(stderr, "%s: %v", flags.Name(), err)
	}
	return -1
}

// parseFiles is parse for a command that wants files.
func parseFiles(flags *flag.FlagSet, args []string, stdout, stderr io.Writer) (code int) {
	if code = parse(flags, args, stdout, stderr); code < 0 && flags.NArg() == 0 {
		return misused(stderr, "%s: no file given", flags.Name())
	}
	return code
}

func usage(w io.Writer) {
	fmt.Fprint(w, "usage: tcpmuxctl command [argument ...]\n       tcpmuxctl -V | -h\n\nLook after tcpmuxd. The commands are:\n\n")
	for _, c := range commands() {
		fmt.Fprintf(w, "  %-28s  %s\n", c.name+" "+c.args, c.help)
	}
	fmt.Fprint(w, "\n  -V, -h  print the version, print this\n")
}

// misused reports a command line that means nothing.
func misused(stderr io.Writer, format string, args ...any) int {
	fmt.Fprintf(stderr, "tcpmuxctl: error: "+format+"\n", args...)
	fmt.Fprintln(stderr, "tcpmuxctl: hint: tcpmuxctl -h explains the arguments")
	return exitUsage
}
