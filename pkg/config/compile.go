// From words to the table: the order in which it is made, and what rows may not
// do to each other. What a row is stands in row.go, the values of its keys in
// the files called by them.

package config

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
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
	c := &compiler{f: f, o: o, passed: passedTo(o.Passed), errors: slices.Clone(f.Problems), asked: newCache(), taken: taken{}, bursts: map[string]bool{}}
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
	passed   []*passed
	taken    taken
	sockets  int             // of all rows so far
	bursts   map[string]bool // burst keys of [defaults] that some row has a rate for
}

// A row is one Service on its way into the table.
type row struct {
	c         *compiler
	text      Service         // with what it takes from [defaults]
	kind      kind            // all for [defaults] itself
	inherited map[string]bool // dotted keys that come from [defaults]
	disabled  bool
	implied   bool   // nobody wrote it
	both      bool   // what it runs is not clear: what follows from that is not said
	style     style  // of its sockets
	family    string // of its ports: a word of protocol
	own       bool   // protocol is the row's own, and right
	wait      bool
	passed    []*passed                 // sockets that are passed by its name
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
	r.kindOfSocket()
	r.values()
}

func (c *compiler) rows(t *service.Table) {
	var (
		rows     []*row
		first    = make(map[string]*row) // by ID
		mux      = make(map[string]*row) // by name
		every    []*row                  // with those that are there twice
		firstMux *row
		muxer    *row // any row with builtin = "tcpmux", disabled or not
		enabled  bool // one of them is enabled
	)
	for _, s := range c.f.Services {
		r := c.row(s, false)
		every = append(every, r)
		if o := first[s.ID]; o != nil {
			r.errorf("", s.Pos, "there is such a row already at %s; take one of them out or call it otherwise", o.text.Pos)
			continue
		}
		first[s.ID] = r
		rows = append(rows, r)
		if r.kind == multiplexer && (muxer == nil || !enabled) {
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
		r := c.row(s, true)
		rows, every = append(rows, r), append(every, r)
	case !enabled:
		firstMux.warnf("", firstMux.text.Pos, "cannot be reached: the multiplexer, row %q at %s, is disabled", muxer.text.ID, muxer.text.Pos)
	}
	c.passByName(rows)
	for _, r := range every {
		r.values()
	}
	c.passByAddress(rows)
	for _, r := range every {
		r.settle()
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
	c.notTaken()
}
