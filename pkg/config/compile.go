// From words to the table: what a row takes from [defaults], which keys mean
// anything for it, and what rows may not do to each other. The values of single
// keys are in values.go, listen.go, exec.go and limits.go.

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// muxPrefix begins the key of a row that is reached by name.
const muxPrefix = "tcpmux/"

// Compile makes the table of f. The error, if any, is a *multierror.Error that
// holds every single *Problem of the whole configuration, sorted by place; the
// table is nil then. Warnings are about what may come right without a change
// of the configuration; they are sorted, too, and there may be some beside an
// error. f is not changed and can be compiled again, for example when users
// have changed; o.Accounts is asked by one goroutine.
func Compile(f *File, o *Options) (t *service.Table, warnings []*Problem, err error) {
	c := &compiler{f: f, o: o, errors: slices.Clone(f.Problems), asked: newCache(), taken: taken{}, bursts: map[string]bool{}}
	t = &service.Table{Server: c.server()}
	c.defaults()
	c.rows(t)
	if err := join(tidy(c.errors, f.Paths)); err != nil {
		return nil, tidy(c.warnings, f.Paths), err
	}
	slices.SortFunc(t.Services, func(a, b *service.Service) int { return cmp.Compare(a.ID, b.ID) })
	return t, tidy(c.warnings, f.Paths), nil
}

type compiler struct {
	f        *File
	o        *Options
	errors   []*Problem
	warnings []*Problem
	asked    cache
	taken    taken
	bursts   map[string]bool // burst keys of [defaults] that some row has a rate for
}

// A row is one Service on its way into the table.
type row struct {
	c         *compiler
	text      Service         // with what it takes from [defaults]
	kind      kind            // all for [defaults] itself
	inherited map[string]bool // dotted keys that come from [defaults]
	disabled  bool
	implied   bool                      // nobody wrote it
	both      bool                      // runs two things: what follows from that is not said
	listen    []bound                   // where it listens, and where that is written
	heard     map[service.Endpoint]bool // the same, to find repetitions
	clashes   map[clash]bool            // what has been said of it
	svc       service.Service
}

// bad reports whether key was written, but so that it could not be read.
func (r *row) bad(key string) bool { return r.text.Bad[key] || r.c.f.Defaults.Bad[key] }

func (r *row) isDefaults() bool { return r.kind == all }

// problem makes a Problem of this row, or of [defaults] where key comes from
// there.
func (r *row) problem(key string, pos Pos, format string, args []any) *Problem {
	id := r.text.ID
	if r.isDefaults() || r.inherited[key] {
		id = "[defaults]"
	}
	text := fmt.Sprintf(format, args...)
	if r.implied && !r.inherited[key] {
		text += " (rows that are reached by name imply this one; write out [service.tcpmux] with builtin = \"tcpmux\" to change it)"
	}
	return &Problem{pos, id, key, text}
}

func (r *row) errorf(key string, pos Pos, format string, args ...any) {
	r.c.errors = append(r.c.errors, r.problem(key, pos, format, args))
}

func (r *row) warnf(key string, pos Pos, format string, args ...any) {
	if !r.disabled {
		r.c.warnings = append(r.c.warnings, r.problem(key, pos, format, args))
	}
}

func (c *compiler) server() service.Server {
	r := &row{c: c, text: Service{ID: "[server]"}}
	s := &c.f.Server
	return service.Server{
		Grace:     r.duration("grace", s.Grace, 0, 0, 24*time.Hour, 0),
		LogFormat: choose(r, "log_format", s.LogFormat, []choice[service.LogFormat]{{"text", service.LogText}, {"json", service.LogJSON}}),
		LogLevel: choose(r, "log_level", s.LogLevel, []choice[service.LogLevel]{{"info", service.LogInfo},
			{"debug", service.LogDebug}, {"warn", service.LogWarn}, {"error", service.LogError}}),
	}
}

// defaults checks the values in [defaults], also those that no row takes.
func (c *compiler) defaults() {
	r := &row{c: c, text: c.f.Defaults, kind: all}
	r.values()
}

func (c *compiler) rows(t *service.Table) {
	var (
		rows     []*row
		first    = make(map[string]*row) // by ID
		mux      = make(map[string]*row) // by name
		firstMux *row
		muxer    *row // any row with builtin = "tcpmux", disabled or not
		enabled  bool // one of them is enabled
	)
	for _, s := range c.f.Services {
		r := c.row(s, false)
		if o := first[s.ID]; o != nil {
			r.errorf("", s.Pos, "there is such a row already at %s; take one of them out or call it otherwise", o.text.Pos)
			continue
		}
		first[s.ID] = r
		rows = append(rows, r)
		if r.kind == builtin && (muxer == nil || !enabled) {
			muxer, enabled = r, !r.disabled
		}
		if r.disabled {
			continue
		}
		if r.svc.Mux && r.svc.Name != "" {
			if o := mux[r.svc.Name]; o != nil {
				r.errorf("", s.Pos, "row %q at %s answers to this name already; take one of them out", o.text.ID, o.text.Pos)
				continue
			}
			mux[r.svc.Name] = r
			if firstMux == nil {
				firstMux = r
			}
		}
	}
	switch {
	case firstMux == nil:
	case muxer == nil:
		if o := first["tcpmux"]; o != nil {
			o.errorf("", o.text.Pos, "rows are reached by name, so this is the name of the multiplexer; write builtin = \"tcpmux\" in it, or call it otherwise")
			break
		}
		s := &Service{ID: "tcpmux", Pos: firstMux.text.Pos}
		s.Enabled, s.Builtin = Bool{true, s.Pos}, String{"tcpmux", s.Pos}
		rows = append(rows, c.row(s, true))
	case !enabled:
		firstMux.warnf("", firstMux.text.Pos, "cannot be reached: the multiplexer, row %q at %s, is disabled", muxer.text.ID, muxer.text.Pos)
	}
	for _, r := range rows {
		if r.disabled {
			continue
		}
		for _, b := range r.listen {
			c.taken.take(r, b)
		}
		svc := r.svc // a copy, so that the table does not hold on to the text
		t.Services = append(t.Services, &svc)
	}
	c.idleBursts()
	switch top := (Pos{c.f.Path, 1, 1}); {
	case len(c.errors) > 0:
	case len(c.f.Services) == 0:
		c.errors = append(c.errors, &Problem{Pos: top, Text: "there is no row in it; write at least one [service.NAME]"})
	case len(t.Services) == 0:
		c.warnings = append(c.warnings, &Problem{Pos: top, Text: "every row is disabled, so nothing is served; take enabled = false out of one"})
	}
}

// row checks one row by itself.
func (c *compiler) row(s *Service, implied bool) *row {
	r := &row{c: c, text: *s, implied: implied, inherited: make(map[string]bool)}
	r.disabled = s.Enabled.IsSet() && !s.Enabled.V || !s.Enabled.IsSet() && c.f.Defaults.Enabled.IsSet() && !c.f.Defaults.Enabled.V
	r.svc.ID = s.ID
	r.svc.Origin = fmt.Sprintf("%s:%d", s.Pos.File, s.Pos.Line)
	r.identify()
	r.misplaced()
	r.inherit(&c.f.Defaults)
	if r.kind != mux && r.svc.Name == "" {
		r.svc.Name = cmp.Or(r.text.Name.V, s.ID)
	}
	if s.Name.IsSet() {
		if bad := badName(s.Name.V); bad != "" {
			r.errorf("name", s.Name.Pos, "the name %s; write a name of letters, digits and .-_+", bad)
		}
	}
	r.values()
	return r
}

// identify finds out what kind of row this is, and whether its key is in order.
func (r *row) identify() {
	s, d := &r.text, &r.c.f.Defaults
	name, isMux := strings.CutPrefix(s.ID, muxPrefix)
	switch {
	case isMux:
		r.kind = mux
		r.svc.Mux = true
		name, r.svc.Plus = strings.CutPrefix(name, "+")
		if err := tcpmux.ValidName(name); err != nil {
			r.errorf("", s.Pos, "%v; write [service.\"tcpmux/NAME\"] or [service.\"tcpmux/+NAME\"]", err)
		} else {
			r.svc.Name = strings.ToLower(name)
		}
	case s.Exec.IsSet():
		r.kind = direct
	case s.Builtin.IsSet():
		r.kind = builtin
	case d.Exec.IsSet():
		r.kind = direct
	case d.Builtin.IsSet():
		r.kind = builtin
	default:
		r.kind = direct
	}
	if !isMux {
		if len(s.ID) >= len(muxPrefix) && strings.EqualFold(s.ID[:len(muxPrefix)], muxPrefix) {
			r.errorf("", s.Pos, "%q is written in lower case; write [service.%q] instead", muxPrefix, muxPrefix+s.ID[len(muxPrefix):])
		} else if bad := badName(s.ID); bad != "" {
			r.errorf("", s.Pos, "the key %s; write a key of letters, digits and .-_+ and give the service's name by name = \"...\"", bad)
		}
	}
	switch {
	case s.Exec.IsSet() && s.Builtin.IsSet():
		r.errorf("builtin", s.Builtin.Pos, "the row runs two things, exec and builtin; write only one of them")
		r.text.Builtin, r.both = String{}, true
	case isMux && s.Builtin.IsSet():
		r.errorf("builtin", s.Builtin.Pos, "a row that is reached by name runs a program; write exec = [\"/path/of/program\"] instead")
		r.text.Builtin, r.both = String{}, true
	case r.bad("exec") || r.bad("builtin"):
	case !s.Exec.IsSet() && !s.Builtin.IsSet() && !d.Exec.IsSet() && (isMux || !d.Builtin.IsSet()):
		r.errorf("", s.Pos, "the row runs nothing; write exec = [\"/path/of/program\"]%s", map[bool]string{false: " or builtin = \"tcpmux\""}[isMux])
	}
}

// badName says what is wrong with the key or the name of a row: both stand in
// the log and in the environment.
func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > tcpmux.MaxName:
		return fmt.Sprintf("is longer than %d bytes", tcpmux.MaxName)
	}
	for _, c := range s {
		if c <= ' ' || c > '~' || strings.ContainsRune("\"'\\/[]", c) {
			return fmt.Sprintf("has %q in it", c)
		}
	}
	return ""
}

// misplaced reports keys of the row's own that mean nothing for its kind. Those
// of [defaults] are simply not taken.
func (r *row) misplaced() {
	for i := range serviceKeys {
		k := &serviceKeys[i]
		if k.kinds&r.kind != 0 || r.both {
			continue
		}
		if pos := written(k.field(&r.text)); pos.IsSet() {
			r.errorf(k.name, pos, "means nothing for %s; take it out", r.kind)
		}
	}
}

// written is the place of a field, zero if it was not written.
func written(field any) Pos {
	switch f := field.(type) {
	case *Bool:
		return f.Pos
	case *Int:
		return f.Pos
	case *String:
		return f.Pos
	case *List:
		return f.Pos
	case *Keepalive:
		return f.Pos
	case *Env:
		return f.Pos
	case *Access:
		return f.Pos
	case *Limits:
		return f.Pos
	}
	return Pos{}
}

// inherit takes from d what the row does not say itself. The tables access,
// limits and env are taken key by key, everything else as a whole.
func (r *row) inherit(d *Service) {
	for i := range serviceKeys {
		if k := &serviceKeys[i]; k.kinds&r.kind != 0 {
			r.take(k.name, k.field(&r.text), k.field(d))
		}
	}
}

func (r *row) take(key string, dst, src any) {
	switch dst := dst.(type) {
	case *Bool:
		takeValue(r, key, dst, src.(*Bool))
	case *Int:
		takeValue(r, key, dst, src.(*Int))
	case *String:
		takeValue(r, key, dst, src.(*String))
	case *List:
		takeValue(r, key, dst, src.(*List))
	case *Keepalive:
		if src := src.(*Keepalive); !dst.Pos.IsSet() && src.Pos.IsSet() {
			*dst = *src
			for _, k := range keepaliveKeys {
				r.inherited[key+"."+k.name] = true
			}
		}
	case *Env:
		own := make(map[string]bool, len(dst.Vars))
		for _, v := range dst.Vars {
			own[v.Name] = true
		}
		dst.Vars = slices.Clip(dst.Vars)
		for _, v := range src.(*Env).Vars {
			if !own[v.Name] {
				dst.Vars = append(dst.Vars, v)
				r.inherited[key+"."+quoteKey(v.Name)] = true
			}
		}
	case *Access:
		for i := range accessKeys {
			k := &accessKeys[i]
			r.take(key+"."+k.name, k.field(dst), k.field(src.(*Access)))
		}
	case *Limits:
		for i := range limitsKeys {
			k := &limitsKeys[i]
			r.take(key+"."+k.name, k.field(dst), k.field(src.(*Limits)))
		}
	}
}

func takeValue[T any](r *row, key string, dst, src *Value[T]) {
	if !dst.IsSet() && src.IsSet() {
		*dst = *src
		r.inherited[key] = true
	}
}
