// Which files are read, in which order: include, and includedir with the names
// that it skips. Nothing here knows what an attribute means.

package xinetd

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// A loader collects the entries of all files.
type loader struct {
	f        *config.File
	disk     *config.Disk // nil: what is included is not read
	includes *config.Includes

	comments []string // below the last entry of a file
	defaults *entry   // the first that there is
	services []*entry

	ids map[string]bool // of the services, once they are translated
}

func newLoader(disk *config.Disk, path string) *loader {
	f := &config.File{Path: path, SkipBad: true}
	return &loader{f: f, disk: disk, includes: config.NewIncludes(f, disk)}
}

// note notes what has become of a word that is of no service.
func (l *loader) note(k config.Kind, w config.String, format string, args ...any) {
	l.f.Notes = append(l.f.Notes, newNote(k, "", w, format, args...))
}

func newNote(k config.Kind, row string, w config.String, format string, args ...any) config.Note {
	return config.Note{Kind: k, Problem: &config.Problem{Pos: w.Pos, Row: row, Key: w.V, Text: fmt.Sprintf(format, args...)}}
}

// problem reports what is wrong outside of the attributes.
func (l *loader) problem(pos config.Pos, key, format string, args ...any) {
	l.f.Problems = append(l.f.Problems, &config.Problem{Pos: pos, Key: key, Text: fmt.Sprintf(format, args...)})
}

// load reads one file; from is where it is included, outer what includes it.
func (l *loader) load(path string, from config.Pos, outer []string) {
	text, inner, twice, err := l.includes.Read(path, outer)
	switch {
	case err != nil:
		key := ""
		if from.IsSet() {
			key = "include"
		}
		l.problem(from, key, "%v", err)
		if l.defaults == nil {
			l.f.SkipBad = false // they may have been there
		}
	case twice:
		l.note(config.Changed, config.String{V: path, Pos: from}, "is read already, and is not read again; xinetd would have each of its services twice")
	default:
		l.text(path, text, inner)
	}
}

// text takes the entries of one file.
func (l *loader) text(name, text string, stack []string) {
	if len(text) > maxFile {
		l.problem(config.Pos{File: name, Line: 1, Col: 1}, "", "the file is longer than %d MiB", maxFile>>20)
		return
	}
	r := &reader{name: name, text: text, l: l}
	for e := r.entry(); e != nil; e = r.entry() {
		if e.kind > defaults { // it has no place of its own
			r.comments, e.comments = e.comments, nil
		}
		switch {
		case e.kind == service:
			l.services = append(l.services, e)
		case e.kind == defaults && l.defaults != nil:
			l.problem(e.word.Pos, "defaults", "there are defaults already at %s, and xinetd ignores these; write one of them", l.defaults.word.Pos)
			l.f.SkipBad = false
		case e.kind == defaults:
			if len(l.services) > 0 {
				l.note(config.Changed, e.word, "stand below services: xinetd would not give these their only_from, no_access, passenv and banners; here they hold for all services")
			}
			l.defaults = e
		case l.disk == nil:
			l.note(config.Lost, e.name, "is not read: this is one text by itself")
		case e.kind == include:
			l.load(l.relative(e), e.name.Pos, stack)
		case e.kind == includedir:
			l.directory(e, stack)
		}
	}
	l.comments = append(l.comments, r.comments...)
}

// relative is the path of what e includes.
func (l *loader) relative(e *entry) string {
	if filepath.IsAbs(e.name.V) {
		return e.name.V
	}
	path := filepath.Join(filepath.Dir(e.name.Pos.File), e.name.V)
	l.note(config.Guessed, e.name, "is taken as %s, relative to the file it stands in; for xinetd it is relative to wherever that was started", path)
	return path
}

// directory reads the files of a directory, but for those that xinetd skips. Hidden
// ones have a dot in their names and are nobody's service.
func (l *loader) directory(e *entry, stack []string) {
	dir := l.relative(e)
	if !l.disk.IsDir(dir) {
		l.note(config.Lost, e.name, "is no directory; no service comes from it")
		return
	}
	paths, _ := l.disk.Glob(dir, "*") // the pattern is right
	for _, path := range paths {
		name := filepath.Base(path)
		word := config.String{V: path, Pos: e.name.Pos}
		switch {
		case strings.Contains(name, "."):
			l.note(config.Lost, word, "has a dot in its name: xinetd skips it, and so is done here; rename it if it is meant to be read")
		case strings.HasSuffix(name, "~"):
			l.note(config.Lost, word, "ends in \"~\": xinetd skips it, and so is done here")
		case l.disk.IsDir(path):
			l.note(config.Lost, word, "is a directory: xinetd skips it, and so is done here")
		default:
			l.load(path, e.name.Pos, stack)
		}
	}
}
