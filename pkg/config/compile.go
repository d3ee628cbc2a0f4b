// From words to the table: the order in which it is made, and what rows may not
// do to each other. What a row is stands in row.go, the values of its keys in
// the files called by them.

package config

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/access/hosts"
	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// muxPrefix begins the key of a row that is reached by name.
const muxPrefix = "tcpmux/"

// Compile makes the table of f. The error, if any, is a *multierror.Error that
// holds every single *Problem of the whole configuration, sorted by place; the
// table is nil then. Warnings are about what may come right without a change
// of the configuration; they are sorted, too, and there may be some beside an
// error. f can be compiled again afterwards, for example when users have changed,
// but not at the same time; o.Accounts is asked by one goroutine.
func Compile(f *File, o *Options) (t *service.Table, warnings []*Problem, err error) {
	return newCompiler(f, o).compile()
}

func newCompiler(f *File, o *Options) *compiler {
	c := &compiler{f: f, o: o, passed: passedTo(o.Passed), asked: newCache(), taken: taken{map[door]*holder{}, map[spot]*[2]*holder{}}, inherits: inherits(&f.Defaults), bursts: map[string]bool{}, rpcs: map[registered]*row{},
		sets: map[string]*set{}, known: map[string][]netip.Prefix{}, names: map[string][]netip.Addr{}, rules: map[string]*access.Rules{}, hosts: hostsFiles{daemons: map[string]*hostsDaemon{}, noted: map[hosts.Note]bool{}}}
	for _, n := range f.Notes {
		c.warnings = append(c.warnings, n.Problem)
	}
	for _, p := range f.Problems {
		if f.SkipBad && p.IsSet() {
			c.warnings = append(c.warnings, leftOut([]*Problem{p})...)
		} else {
			c.errors = append(c.errors, p)
		}
	}
	return c
}

func (c *compiler) compile() (*service.Table, []*Problem, error) {
	t, left, warnings, err := c.run()
	return t, tidy(append(left, warnings...), c.f.Paths), err
}

// run makes the table, if need be without rows that have errors, which are left.
// Without them others may have errors that they kept from showing, and so on.
func (c *compiler) run() (t *service.Table, left, warnings []*Problem, err error) {
	for {
		t, warnings, err = c.table()
		f, more := c.leaveOut()
		if err == nil || f == nil {
			return t, left, warnings, err
		}
		left = append(left, more...)
		asked, known, names, complete := c.asked, c.known, c.names, c.complete
		*c = *newCompiler(f, c.o)
		c.asked, c.known, c.names, c.complete = asked, known, names, complete
	}
}

func (c *compiler) table() (*service.Table, []*Problem, error) {
	c.readSets()
	c.hostsDir()
	t := &service.Table{Server: c.server(), Lenient: c.f.SkipBad}
	c.defaults()
	c.rows(t)
	if err := join(tidy(c.errors, c.f.Paths)); err != nil {
		return nil, c.warnings, err
	}
	slices.SortFunc(t.Services, func(a, b *service.Service) int { return cmp.Compare(a.ID, b.ID) })
	return t, c.warnings, nil
}

type compiler struct {
	f        *File
	o        *Options
	errors   []*Problem
	wrong    map[*Service][]*Problem // those of errors that are a row's own, if SkipBad
	warnings []*Problem
	asked    cache
	passed   []*passed
	sets     map[string]*set
	known    map[string][]netip.Prefix // of set files: what Reading.Compile may go on with
	names    map[string][]netip.Addr   // of hosts: what a reload may go on with
	rules    map[string]*access.Rules  // by the text of both lists: rows share them
	made     []*row                    // of the table, in the order of the file
	complete bool                      // the words of rows are to stay complete
	hosts    hostsFiles
	taken    taken
	rpcs     map[registered]*row // who has a version of a program first
	sockets  int                 // of all rows so far
	inherits []key[Service]      // what [defaults] has
	envs     map[account.User][]string
	creds    map[string][]*service.Cred // by user
	bursts   map[string]bool            // burst keys of [defaults] that some row has a rate for
}

// A row is one Service on its way into the table.
type row struct {
	c         *compiler
	from      *Service        // as it was read
	text      *Service        // with what it takes from [defaults]; see writable
	copied    bool            // text is the row's own
	kind      kind            // all for [defaults] itself
	inherited map[string]bool // dotted keys that come from [defaults]
	disabled  bool
	implied   bool   // nobody wrote it
	both      bool   // what it runs is not clear: what follows from that is not said
	style     style  // of its sockets
	family    string // of its ports: a word of protocol
	own       bool   // protocol is the row's own, and right
	wait      bool
	passed    []*passed      // sockets that are passed by its name
	listen    []bound        // where it listens, and where that is written
	heard     heard          // the same, to find repetitions
	clashes   map[clash]bool // what has been said of it
	svc       *service.Service
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
	r.fault(r.problem(key, pos, format, args))
}

// fault adds an error.
func (r *row) fault(p *Problem) {
	r.c.errors = append(r.c.errors, p)
	if r.c.f.SkipBad && r.from != nil && p.Row == r.text.ID {
		if r.c.wrong == nil {
			r.c.wrong = make(map[*Service][]*Problem)
		}
		r.c.wrong[r.from] = append(r.c.wrong[r.from], p)
	}
}

func (r *row) warnf(key string, pos Pos, format string, args ...any) {
	if !r.disabled {
		r.c.warnings = append(r.c.warnings, r.problem(key, pos, format, args))
	}
}

func (c *compiler) server() service.Server {
	r := &row{c: c, text: &Service{ID: "[server]", Bad: c.f.Server.Bad}}
	s := &c.f.Server
	return service.Server{
		Grace:     r.duration("grace", s.Grace, 0, 0, 24*time.Hour, 0),
		LogFormat: choose(r, "log_format", s.LogFormat, []choice[service.LogFormat]{{"text", service.LogText}, {"json", service.LogJSON}}),
		LogLevel: choose(r, "log_level", s.LogLevel, []choice[service.LogLevel]{{"info", service.LogInfo},
			{"debug", service.LogDebug}, {"warn", service.LogWarn}, {"error", service.LogError}}),
		Control: r.control(),
		Scan:    r.scanners(),
		Limits:  r.serverLimits(&s.Limits.Limits),
	}
}

// defaults checks the values in [defaults], also those that no row takes.
func (c *compiler) defaults() {
	r := &row{c: c, text: &c.f.Defaults, kind: all, svc: new(service.Service)}
	r.kindOfSocket()
	r.values()
}

func (c *compiler) rows(t *service.Table) {
	var (
		n        = len(c.f.Services) + 1
		rows     = make([]*row, 0, n)
		first    = make(map[string]*row, n) // by ID
		mux      = make(map[string]*row)    // by name
		every    = make([]*row, 0, n)       // with those that are there twice
		firstMux *row
		muxer    *row // any row with builtin = "tcpmux", disabled or not
		enabled  bool // one of them is enabled
	)
	for _, s := range c.f.Services {
		if s.Unchecked && s.Enabled.IsSet() && !s.Enabled.V {
			continue
		}
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
	c.made = rows
	t.Services = make([]*service.Service, 0, len(rows))
	for _, r := range rows {
		if r.disabled {
			continue
		}
		for _, b := range r.listen {
			c.taken.take(r, b)
		}
		c.register(r)
		t.Services = append(t.Services, r.svc)
	}
	for _, r := range every {
		r.disinherit()
	}
	c.idleBursts()
	switch top := (Pos{c.f.Path, 1, 1}); {
	case len(c.errors) > 0:
	case len(c.f.Services) == 0 && c.f.SkipBad:
		c.warnings = append(c.warnings, &Problem{Pos: top, Text: "there is no row in it that can be served, so nothing is"})
	case len(c.f.Services) == 0:
		c.errors = append(c.errors, &Problem{Pos: top, Text: "there is no row in it; write at least one [service.NAME]"})
	case len(t.Services) == 0:
		c.warnings = append(c.warnings, &Problem{Pos: top, Text: "every row is disabled, so nothing is served; take enabled = false out of one"})
	}
	c.notTaken()
}
