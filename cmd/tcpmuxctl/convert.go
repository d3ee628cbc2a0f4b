// The command convert: the TOML or the systemd units for a file that was written
// for another super-server.

package main

import (
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/front"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/units"
)

// A converter has what the command line says and where the report goes.
type converter struct {
	dir    string // where units go; empty: to standard output
	force  bool   // over those that are there
	stdout io.Writer
	stderr io.Writer
	code   int
}

// convert writes the files as one table. What could not be converted is an error,
// and the rest is written all the same.
func convert(args []string, stdout, stderr io.Writer) int {
	flags := newFlags("convert")
	c := &converter{stdout: stdout, stderr: stderr, code: exitOK}
	dialect := flags.String("dialect", "", "")
	to := flags.String("to", "toml", "")
	flags.StringVar(&c.dir, "o", "", "")
	flags.BoolVar(&c.force, "f", false, "")
	if code := parseFiles(flags, args, stdout, stderr); code >= 0 {
		return code
	}
	switch {
	case *to != "toml" && *to != "systemd":
		return misused(stderr, "convert: there is no form %q; write toml or systemd", *to)
	case *to == "toml" && (c.dir != "" || c.force):
		return misused(stderr, "convert: -o and -f are for units; write -to systemd")
	case c.force && c.dir == "":
		return misused(stderr, "convert: -f is about files; write -o DIRECTORY")
	}
	source, err := front.Source(*dialect, flags.Args()...)
	if err != nil {
		return misused(stderr, "convert: %v", err)
	}
	file := source(config.NewDisk())
	if *to == "systemd" {
		c.systemd(file)
	} else {
		c.toml(file)
	}
	return c.code
}

// fail reports errors.
func (c *converter) fail(problems []*config.Problem) {
	for _, p := range problems {
		c.failed("%v", p)
	}
}

func (c *converter) failed(format string, args ...any) {
	c.code = exitError
	fmt.Fprintf(c.stderr, "tcpmuxctl: error: "+format+"\n", args...)
}

func (c *converter) notes(notes []config.Note) {
	for _, n := range notes {
		fmt.Fprintf(c.stderr, "tcpmuxctl: %s: %v\n", n.Kind, n.Problem)
	}
}

// toml writes the table as it is, whatever this machine is like.
func (c *converter) toml(file *config.File) {
	c.fail(file.Problems)
	c.notes(file.Notes)
	odd, err := file.Write(c.stdout)
	c.fail(odd)
	if err != nil {
		c.failed("writing the table: %v", err)
	}
}

// systemd writes units for what this machine makes of the table, with systemd as
// root.
func (c *converter) systemd(file *config.File) {
	options := config.System(account.Open(account.System(), getent)).AsRoot()
	options.VanishedUsers = true // they may be there where the units are for
	out := units.Of(file, options)
	c.fail(out.Errors)
	c.notes(out.Notes)
	for _, w := range out.Warnings {
		fmt.Fprintf(c.stderr, "tcpmuxctl: warning: %v\n", w)
	}
	if c.dir != "" {
		c.install(out.Units)
		return
	}
	for i, u := range out.Units {
		gap := map[bool]string{true: "\n"}[i > 0]
		if _, err := fmt.Fprintf(c.stdout, "%s# %s\n%s", gap, u.Name, u.Text); err != nil {
			c.failed("writing the units: %v", err)
			return
		}
	}
}

// install writes each unit into a file, or none if one of them is there already.
func (c *converter) install(list []units.Unit) {
	if !c.force {
		there := false
		for _, u := range list {
			path := filepath.Join(c.dir, u.Name)
			if _, err := os.Lstat(path); err == nil {
				there = true
				c.failed("%s is there already; -f writes over it", path)
			}
		}
		if there {
			c.failed("no unit was written")
			return
		}
	}
	for _, u := range list {
		if err := writeUnit(filepath.Join(c.dir, u.Name), u.Text); err != nil {
			c.failed("%v", err)
			return
		}
	}
}

// writeUnit writes a file under another name and gives it its own: what reads it
// never sees half of it.
func writeUnit(path, text string) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".tcpmuxctl-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			os.Remove(f.Name())
		}
	}()
	_, err = f.WriteString(text)
	if err == nil {
		err = f.Chmod(0o644)
	}
	if err2 := f.Close(); err == nil {
		err = err2
	}
	if err == nil {
		err = os.Rename(f.Name(), path)
	}
	return err
}
