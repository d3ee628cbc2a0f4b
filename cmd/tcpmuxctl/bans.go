// The commands bans and unban: who the running daemon holds off.

package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strings"
	"text/tabwriter"

	"github.com/tcpmuxd/tcpmuxd/pkg/control"
)

// question parses the arguments of a command that asks the daemon.
func question(name string, args []string, stdout, stderr io.Writer) (path string, rest []string, code int) {
	flags := newFlags(name)
	flags.StringVar(&path, "s", control.DefaultPath, "")
	code = parse(flags, args, stdout, stderr)
	return path, flags.Args(), code
}

// bans lists the sources that are held off.
func bans(args []string, stdout, stderr io.Writer) int {
	path, rest, code := question("bans", args, stdout, stderr)
	switch {
	case code >= 0:
		return code
	case len(rest) > 0:
		return misused(stderr, "bans: unexpected argument %q", rest[0])
	}
	lines, err := control.Ask(path, "bans")
	if err != nil {
		return unanswered(stderr, err)
	}
	w := tabwriter.NewWriter(stdout, 0, 8, 2, ' ', 0)
	if len(lines) > 0 {
		fmt.Fprintln(w, "SOURCE\tUNTIL\tLEFT\tREFUSED")
	}
	for _, line := range lines {
		fmt.Fprintln(w, strings.Join(strings.Fields(line), "\t"))
	}
	if err := w.Flush(); err != nil {
		fmt.Fprintf(stderr, "tcpmuxctl: error: %v\n", err)
		return exitError
	}
	return exitOK
}

// unban ends the bans of sources.
func unban(args []string, stdout, stderr io.Writer) int {
	path, rest, code := question("unban", args, stdout, stderr)
	switch {
	case code >= 0:
		return code
	case len(rest) == 0:
		return misused(stderr, "unban: no source given")
	}
	code = exitOK
	for _, source := range rest {
		if strings.ContainsFunc(source, func(c rune) bool { return c <= ' ' }) {
			code = unanswered(stderr, fmt.Errorf("%q is no source", source))
			continue
		}
		if _, err := control.Ask(path, "unban", source); err != nil {
			code = unanswered(stderr, err)
		}
	}
	return code
}

// unanswered reports what the daemon has against a question, or why it does not
// answer.
func unanswered(stderr io.Writer, err error) int {
	fmt.Fprintf(stderr, "tcpmuxctl: error: %v\n", err)
	if refused(err) {
		fmt.Fprintf(stderr, "tcpmuxctl: hint: tcpmuxd answers root at the path that control in [server] says; -s names another than %s\n", control.DefaultPath)
	}
	return exitError
}

// refused reports whether nobody was there to be asked.
func refused(err error) bool {
	var op *net.OpError
	return errors.As(err, &op) && op.Op == "dial"
}
