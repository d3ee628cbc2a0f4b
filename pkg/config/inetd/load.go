// Which files are read: those that are named, what is in directories among them,
// and what they include.

package inetd

import (
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// The bounds of .include: how deeply, and how many files.
const (
	maxDepth = 8
	maxFiles = 4096
)

// Parse reads one text, whose places are called by name, in dialect d, or in the
// one that it looks like if d is nil. It does not follow .include. It never
// fails: what is wrong is in File.Problems.
func Parse(name, text string, d *Dialect) *config.File {
	return parse([]source{{name, text}}, d, Flags{}, func(p *parser, pattern word) {
		p.refuse(pattern, "is not read: only a file can include another")
	})
}

// Source reads files, and those in directories among them, in dialect d, or in
// the one that they look like if d is nil. There is at least one path.
func Source(d *Dialect, paths ...string) config.Source { return SourceWith(d, Flags{}, paths...) }

// SourceWith is Source for an inetd whose command line says more.
func SourceWith(d *Dialect, flags Flags, paths ...string) config.Source {
	return func(disk *config.Disk) *config.File {
		var sources []source
		var problems []*config.Problem
		var notes []config.Note
		read := func(path string) {
			text, err := disk.Text(path)
			if err != nil {
				problems = append(problems, &config.Problem{Text: fmt.Sprintf("%s cannot be read: %v", path, err)})
				return
			}
			sources = append(sources, source{path, text})
		}
		for _, path := range paths {
			if !disk.IsDir(path) {
				read(path)
				continue
			}
			files, _ := disk.Glob(path, "*") // the pattern is right
			for _, f := range files {
				if !disk.IsDir(f) {
					read(f)
				}
			}
			hidden, _ := disk.Glob(path, ".*")
			for _, f := range hidden {
				if !disk.IsDir(f) {
					notes = append(notes, config.Note{Kind: config.Lost, Problem: &config.Problem{Pos: config.Pos{File: f, Line: 1, Col: 1}, Text: "hidden files are not read; call it otherwise if it is meant"}})
				}
			}
		}
		in := &includer{disk: disk}
		f := parse(sources, d, flags, in.include)
		f.Path = paths[0]
		f.Problems = append(problems, f.Problems...)
		f.Notes = append(notes, f.Notes...)
		return f
	}
}

// An includer reads files by the disk, for one File.
type includer struct {
	disk  *config.Disk
	files int
	stack []string // what is being read, without symbolic links
}

// include reads what a pattern names, sorted: NetBSD says that it is in no order.
func (in *includer) include(p *parser, pattern word) {
	names, err := in.disk.Glob(filepath.Dir(p.name), pattern.s)
	if err != nil {
		p.refuse(pattern, "%v", err)
		return
	}
	outer := p.name
	here, err := in.disk.Real(outer)
	if err != nil {
		here = outer
	}
	in.stack = append(in.stack, here)
	defer func() { in.stack = in.stack[:len(in.stack)-1] }()
	for _, name := range names {
		real, err := in.disk.Real(name)
		if err == nil && in.disk.IsDir(real) {
			continue
		}
		var text string
		if err == nil {
			text, err = in.disk.Text(name)
		}
		switch in.files++; {
		case err != nil:
			p.refuse(pattern, "%s cannot be read: %v", name, err)
		case slices.Contains(in.stack, real):
			p.refuse(pattern, "%s includes itself; take it out", name)
		case len(in.stack) > maxDepth:
			p.refuse(pattern, "files include each other more than %d deep; include %s from the main file instead", maxDepth, name)
		case in.files > maxFiles:
			p.refuse(pattern, "more than %d files are included; write fewer", maxFiles)
			return
		default:
			p.f.Paths = append(p.f.Paths, name)
			policy := p.policy
			p.text(name, text)
			p.policy = policy
		}
	}
}

// A source is a text and what it is called by.
type source struct{ name, text string }

// parse reads texts one after the other.
func parse(sources []source, d *Dialect, flags Flags, include func(*parser, word)) *config.File {
	p := &parser{f: &config.File{SkipBad: true}, d: d, flags: flags, host: word{flags.Host, 1, 1}, ids: make(map[string]int), once: make(map[string]bool), fours: make(map[string]bool), include: include}
	if d == nil {
		p.guess(sources)
	} else {
		p.could = d.set
	}
	for _, s := range sources {
		p.f.Paths = append(p.f.Paths, s.name)
		p.text(s.name, s.text)
	}
	if len(sources) > 0 {
		p.f.Path = sources[0].name
	}
	p.settle()
	p.report()
	if len(p.f.Services)+len(p.f.Problems) == 0 && len(p.f.Notes) == 1 {
		p.f.Notes = nil // there was nothing to guess for
	}
	return p.f
}

// guess finds the dialect of all texts.
func (p *parser) guess(sources []source) {
	g := newGuess()
	for _, s := range sources {
		g.look(s.name, s.text)
	}
	var why string
	main := ""
	if len(sources) > 0 {
		main = sources[0].name
	}
	if p.d, why, p.could = g.choose(main); main == "" {
		return
	}
	p.f.Notes = append(p.f.Notes, config.Note{Kind: config.Guessed, Problem: &config.Problem{Pos: config.Pos{File: main, Line: 1, Col: 1},
		Text: fmt.Sprintf("read as %s inetd.conf, %s; write --dialect=%s if that is right, or another", p.d.Of, why, p.d.Name)}})
}

// settle decides what depends on the whole of the file.
func (p *parser) settle() {
	for _, six := range p.sixes {
		text := "IPv4 comes here as well, as in Debian's inetutils-inetd; write tcp6only or udp6only if only IPv6 is meant"
		if p.fours[six.at] {
			six.s.Protocol.V += "6"
			text = "IPv6 alone comes here, as there is a line for IPv4"
		}
		p.notes(config.Guessed, six.s, six.s.Protocol.Pos, strings.TrimSuffix(six.s.Protocol.V, "6")+"6", text)
	}
	if p.muxer || p.d.implied || len(p.mux) == 0 {
		return
	}
	for _, s := range p.mux {
		if !s.Enabled.IsSet() {
			s.Enabled = config.Bool{V: false, Pos: s.Pos}
		}
	}
	s := p.mux[0]
	p.notes(config.Changed, s, s.Pos, s.ID, fmt.Sprintf("%s serves such names only beside a line `tcpmux stream tcp nowait root internal`, which is not there; the %d of them are disabled", p.d.Name, len(p.mux)))
}

// notes makes a note of a row that has been read.
func (p *parser) notes(k config.Kind, s *config.Service, at config.Pos, key, text string) {
	p.f.Notes = append(p.f.Notes, config.Note{Kind: k, Problem: &config.Problem{Pos: at, Row: s.ID, Key: clip(key), Text: text}})
}
