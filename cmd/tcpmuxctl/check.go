// The command check: what is wrong with a configuration, without a daemon.

package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/hashicorp/go-multierror"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/front"
	"github.com/tcpmuxd/tcpmuxd/pkg/listener"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// check compiles each file by itself, as tcpmuxd would at its start, and
// prints what it finds.
func check(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("check")
	asRoot := flags.Bool("r", false, "")
	dialect := flags.String("dialect", "", "")
	if code := parseFiles(flags, args, stdout, stderr); code >= 0 {
		return code
	}
	accounts := account.Open(account.System(), getent)
	options := config.System(accounts)
	options.Native, _ = spawn.Native()
	options.Up = listener.Up
	if *asRoot {
		options = options.AsRoot()
	}
	code, rights := exitOK, false
	for _, arg := range flags.Args() {
		source, err := front.Source(*dialect, arg)
		if err != nil {
			return misused(stderr, "check: %v", err)
		}
		file := source(config.NewDisk())
		file.SkipBad = false // which is for serving; here all of it counts
		table, warnings, err := config.Compile(file, options)
		for _, w := range warnings {
			fmt.Fprintf(stderr, "tcpmuxctl: warning: %v\n", w)
		}
		if err != nil {
			code = exitError
			all := problems(err)
			for _, e := range all {
				fmt.Fprintf(stderr, "tcpmuxctl: error: %v\n", e)
			}
			fmt.Fprintf(stdout, "%s: %s, %s\n", arg, count(len(all), "error"), count(len(warnings), "warning"))
			rights = rights || options.UID != 0 && needsRights(all, file, options)
			continue
		}
		fmt.Fprintf(stdout, "%s: ok, %s, %s\n", arg, count(len(table.Services), "row"), count(len(warnings), "warning"))
	}
	if rights {
		fmt.Fprintln(stderr, "tcpmuxctl: hint: check -r checks for a daemon that root runs")
	}
	return code
}

// needsRights reports whether one of these errors would be none for root.
func needsRights(errs []error, file *config.File, options *config.Options) bool {
	_, _, err := config.Compile(file, options.AsRoot())
	roots := make(map[string]bool)
	if err != nil {
		for _, e := range problems(err) {
			roots[e.Error()] = true
		}
	}
	return slices.ContainsFunc(errs, func(e error) bool { return !roots[e.Error()] })
}

// problems takes an error of several apart.
func problems(err error) []error {
	if m := (*multierror.Error)(nil); errors.As(err, &m) {
		return m.Errors
	}
	return []error{err}
}

func count(n int, what string) string {
	if n != 1 {
		what += "s"
	}
	return fmt.Sprintf("%d %s", n, what)
}

// getent asks getent(1) in the way tcpmuxd does.
func getent(ctx context.Context, args ...string) ([]byte, error) {
	return spawn.Output(ctx, "/usr/bin/getent", append([]string{"getent"}, args...), []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"})
}
