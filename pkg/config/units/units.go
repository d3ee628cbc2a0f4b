// Package units writes a table as unit files of systemd, for who moves on to it: a
// socket unit and a service unit for each row that runs a program or forwards
// connections.
//
// A word of a row that units have no counterpart for is a note, which says what
// follows; none is passed over. It starts nothing and writes no files.
package units

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A Unit is one unit file.
type Unit struct {
	Name string // of the file: "ftp.socket"
	Text string
}

// A Result is a table as units, and what is to be said about it.
type Result struct {
	Units    []Unit        // two for each row that has any, in the order of the rows
	Notes    []config.Note // those of the file first
	Errors   []*config.Problem
	Warnings []*config.Problem
}

// Of makes units of f, for the machine that o tells of. Where the whole table is in
// error there are none.
func Of(f *config.File, o *config.Options) *Result {
	rows, errs, warnings := config.Rows(f, o)
	out := &Result{Notes: slices.Clone(f.Notes), Errors: errs, Warnings: warnings}
	if rows == nil {
		return out
	}
	for key, pos := range f.ServerWritten() {
		if text := serverLost[key]; text != "" {
			out.Notes = append(out.Notes, f.ServerNote(config.Lost, key, pos, "%s", text))
		}
	}
	programs := false
	for i := range rows {
		r := &row{Row: rows[i], out: out, o: o, at: make(map[string]config.Pos), said: make(map[string]bool)}
		for key, pos := range r.Written() {
			r.at[key] = pos
		}
		programs = r.units() && r.Service.Exec != nil && !r.Service.Wait || programs
	}
	if programs {
		top := &config.Problem{Pos: config.Pos{File: f.Path, Line: 1, Col: 1}, Text: "programs find their peer in REMOTE_ADDR and REMOTE_PORT alone, and in no other of the variables that tcpmuxd sets"}
		out.Notes = append(out.Notes, config.Note{Kind: config.Changed, Problem: top})
	}
	out.Notes = once(out.Notes)
	return out
}

// once takes repetitions out: what [defaults] says is found once for each row.
func once(notes []config.Note) []config.Note {
	seen := make(map[config.Problem]bool, len(notes))
	return slices.DeleteFunc(notes, func(n config.Note) bool {
		was := seen[*n.Problem]
		seen[*n.Problem] = true
		return was
	})
}

// A row is a row on its way into units.
type row struct {
	config.Row
	out  *Result
	o    *config.Options
	at   map[string]config.Pos // the keys that are written
	said map[string]bool       // those that have a note
}

// note tells about a key, or about the row if nobody has written the key.
func (r *row) note(k config.Kind, key, format string, args ...any) {
	pos, ok := r.at[key]
	if !ok {
		pos = r.Text.Pos
	}
	r.said[key] = true
	r.out.Notes = append(r.out.Notes, r.Note(k, key, pos, format, args...))
}

// lost and changed tell about a key that is written.
func (r *row) lost(key, format string, args ...any) {
	if _, ok := r.at[key]; ok {
		r.note(config.Lost, key, format, args...)
	}
}

func (r *row) changed(key, format string, args ...any) {
	if _, ok := r.at[key]; ok {
		r.note(config.Changed, key, format, args...)
	}
}

// units makes the units of the row and reports whether there are any.
func (r *row) units() bool {
	if key, why := r.none(); why != "" {
		r.note(config.Lost, key, "%s; no units are written for the row", why)
		return false
	}
	s := r.Service
	name := escape(r.Text.ID)
	// A service that has its socket on its standard input can have only one.
	groups := [][]service.Endpoint{s.Listen}
	if s.Wait {
		groups = nil
		for _, e := range s.Listen {
			groups = append(groups, []service.Endpoint{e})
		}
	}
	r.named()
	accept := s.Exec != nil && !s.Wait
	socket, run := r.socket(accept), ""
	if s.Exec != nil {
		run = r.program(accept)
	} else {
		run = r.proxy()
	}
	for i, listen := range groups {
		unit := name
		if i > 0 {
			unit += fmt.Sprintf("-%d", i+1) // no key can be escaped to this
		}
		head := "# row \"" + r.Text.ID + "\", " + printable(fmt.Sprintf("%s:%d", r.Text.Pos.File, r.Text.Pos.Line)) + "\n[Unit]\nDescription=" + specifiers(r.Text.ID)
		template := map[bool]string{true: "@", false: ""}[accept]
		r.out.Units = append(r.out.Units,
			Unit{unit + ".socket", head + " socket\n\n[Socket]\n" + r.listen(listen) + socket + "\n[Install]\nWantedBy=sockets.target\n"},
			Unit{unit + template + ".service", head + "\n" + run})
	}
	for key := range r.Written() {
		if text := lost[key]; text != "" && !r.said[key] {
			r.lost(key, "%s", text)
		}
	}
	return true
}

// maxUnit is how long the name of a unit may be, with its suffix and a number
// (UNIT_NAME_MAX of systemd, and its NUL).
const maxUnit = 255 - len("-10000@.service")

// none says why there can be no units for the row, and which key is to blame; empty
// if there can be.
func (r *row) none() (key, why string) {
	s := r.Service
	switch {
	case r.Disabled:
		return "enabled", "the row is disabled"
	case s.Mux:
		return "", "nothing in systemd is reached by name (RFC 1078); let tcpmuxd serve it"
	case s.Builtin == service.BuiltinTCPMUX:
		return "builtin", "nothing in systemd speaks RFC 1078; let tcpmuxd serve it"
	case s.Builtin != service.BuiltinNone:
		return "builtin", "systemd has no services built in; let tcpmuxd serve it"
	case s.RPC != nil:
		return "rpc", "systemd registers nothing with rpcbind(8); let tcpmuxd serve it"
	case len(escape(r.Text.ID)) > maxUnit:
		return "", "the key is too long for the name of a unit; write a shorter one"
	}
	dgram := s.Listen[0].Network.Dgram()
	switch {
	case s.Forward != nil && dgram:
		return "forward", "systemd-socket-proxyd(8) forwards streams alone"
	case s.Exec != nil && dgram && !s.Wait:
		return "exec", "systemd has no session for each peer of a datagram socket; write wait = true if the program reads from the socket itself"
	}
	for _, e := range s.Listen {
		if e.Network.Unix() && !bare(e.Path) {
			return "listen", "a unit cannot have such a path"
		}
		if !device(e.Addr.Addr().Zone()) {
			return "listen", "systemd takes no such name of an interface"
		}
	}
	// systemd would pass over it and let in who comes by any other.
	if !device(s.Socket.BindToDevice) {
		return "bind_to_device", "systemd takes no such name of an interface"
	}
	if s.Exec == nil {
		return "", ""
	}
	for _, p := range []struct{ key, path string }{{"cwd", s.Exec.Dir}, {"chroot", s.Exec.Chroot}, {"env_file", r.Text.EnvFile.V}} {
		if p.path != "" && !bare(p.path) {
			return p.key, "a unit cannot have such a path"
		}
	}
	if strings.ContainsAny(s.Exec.Path, "\"'\\") || !bare(s.Exec.Path) {
		return "exec", "systemd runs no program that has a quote, a backslash or a control character in its path"
	}
	for _, a := range s.Exec.Argv {
		if !valid(a) {
			return "exec", "an argument is not UTF-8, as all of a unit must be"
		}
	}
	for _, v := range r.Text.Env.Vars {
		if !valid(v.Value.V) {
			return "env", "the value of " + v.Name + " is not UTF-8, as all of a unit must be"
		}
	}
	return "", ""
}
