// The shape of a file: entries, and in them lines of an attribute, an operator
// and values. Which attributes there are is not looked at.
//
// There is no quoting and no escape in these files, and a comment has a line of
// its own: a "#" behind a value is one more value.

package xinetd

import (
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// What an entry is.
type kindOfEntry uint8

const (
	service kindOfEntry = iota
	defaults
	include
	includedir
)

// An entry is a service, the defaults, or what is included.
type entry struct {
	kind  kindOfEntry
	word  config.String // the first word
	name  config.String // of the service, the file or the directory
	lines []line

	comments []string // above it and in it
}

// A line is one assignment.
type line struct {
	name   config.String // of the attribute
	op     string        // =, += or -=
	values []config.String
}

// A reader takes the entries out of a text, one after the other.
type reader struct {
	l          *loader
	name, text string
	number     int32 // of the line that was read last

	comments []string        // since the last entry
	lines    []line          // of the entry that is being read
	words    []config.String // for the values of the next lines, made by the hundred
}

// next is the next line that is neither blank nor a comment, without the blanks
// around it; col is where it begins.
func (r *reader) next() (text string, col int, ok bool) {
	for r.text != "" {
		text, r.text, _ = strings.Cut(r.text, "\n")
		r.number++
		if r.number == 1 {
			text = strings.TrimPrefix(text, "\ufeff")
		}
		rest := strings.TrimLeft(text, blanks)
		if rest != "" && rest[0] == '#' {
			r.comments = append(r.comments, strings.TrimRight(rest, blanks))
		} else if rest != "" {
			return strings.TrimRight(rest, blanks), 1 + len(text) - len(rest), true
		}
	}
	return "", 0, false
}

// maxLine bounds the values of a line, in bytes: an argument list can be no longer.
const maxLine = 128 << 10

const blanks = " \t\r\v\f"

func (r *reader) pos(col int) config.Pos {
	return config.Pos{File: r.name, Line: r.number, Col: int32(col)}
}

// entry is the next entry; nil at the end. What is none is reported and passed
// over up to its end, as xinetd does.
func (r *reader) entry() *entry {
	for {
		text, col, ok := r.next()
		if !ok {
			return nil
		}
		words := r.split(text, col)
		e := &entry{word: words[0]}
		switch e.word.V {
		case "service":
			e.kind = service
		case "defaults":
			e.kind = defaults
		case "include":
			e.kind = include
		case "includedir":
			e.kind = includedir
		default:
			r.l.problem(e.word.Pos, "", "%s where an entry begins; write \"service NAME\", \"defaults\", \"include FILE\" or \"includedir DIRECTORY\", and the attributes between { and } on lines of their own", clip(e.word.V))
			if nearest(e.word.V, []string{"defaults"}) != "" {
				r.l.f.SkipBad = false // they keep peers out
			}
			r.skip(text)
			continue
		}
		if e.kind != defaults {
			if len(words) < 2 {
				r.l.problem(e.word.Pos, e.word.V, "there is no name behind it; write \"%s %s\"", e.word.V, map[kindOfEntry]string{service: "NAME", include: "FILE", includedir: "DIRECTORY"}[e.kind])
				r.skip(text)
				continue
			}
			e.name, words = words[1], words[1:]
		}
		extra := words[1:]
		if len(extra) == 1 && extra[0].V == "{" && e.kind <= defaults {
			r.l.problem(extra[0].Pos, e.word.V, "xinetd wants the { on a line of its own and leaves the entry out; write it there")
			if e.kind == defaults {
				r.l.f.SkipBad = false
			}
			r.skip("{")
			continue
		}
		if len(extra) > 0 {
			r.l.note(config.Lost, extra[0], "stands behind what belongs on this line, and is passed over as by xinetd")
		}
		if e.kind > defaults || r.body(e) {
			e.comments, r.comments = r.comments, nil
			return e
		}
		if e.kind == defaults {
			r.l.f.SkipBad = false
		}
	}
}

// body reads the lines of an entry between { and }.
func (r *reader) body(e *entry) bool {
	called := strings.TrimSpace(e.word.V + " " + e.name.V)
	before, number := r.text, r.number
	text, col, ok := r.next()
	if !ok || text != "{" {
		pos := e.word.Pos
		if ok {
			pos = r.pos(col)
		}
		r.l.problem(pos, e.word.V, "there is no { below %s; write one on a line of its own", clip(called))
		if ok && isEntry(text) {
			r.text, r.number = before, number // it may be a right one
		} else {
			r.skip(text)
		}
		return false
	}
	r.lines = r.lines[:0]
	for {
		before, number = r.text, r.number
		text, col, ok = r.next()
		switch {
		case !ok:
			r.l.problem(e.word.Pos, e.word.V, "there is no } that ends %s; write one on a line of its own", clip(called))
			return false
		case text == "}":
			e.lines = slices.Clone(r.lines)
			return true
		case isEntry(text):
			r.l.problem(r.pos(col), e.word.V, "%s has not ended yet; write } on a line of its own above this one", clip(called))
			r.text, r.number = before, number
			return false
		}
		l, wrong := r.assignment(text, col)
		if wrong != "" {
			r.l.problem(r.pos(col), e.word.V, "%s %s", clip(text), wrong)
			r.skip(text)
			return false
		}
		r.lines = append(r.lines, l)
	}
}

// isEntry reports whether a line begins an entry and can be nothing else.
func isEntry(text string) bool {
	if !strings.HasPrefix(text, "service") && !strings.HasPrefix(text, "include") && !strings.HasPrefix(text, "defaults") {
		return false // as most lines
	}
	words := strings.Fields(text)
	switch words[0] {
	case "service", "include", "includedir":
		return len(words) == 2 && words[1][0] != '=' && !strings.HasPrefix(words[1], "+=") && !strings.HasPrefix(words[1], "-=")
	case "defaults":
		return len(words) == 1
	}
	return false
}

// Is reports whether a text looks like an xinetd.conf(5): its first line that says
// anything begins an entry, and, unless that includes others, the next one is {.
func Is(text string) bool {
	r := &reader{text: text}
	first, _, ok := r.next()
	if !ok || !isEntry(first) {
		return false
	}
	second, _, _ := r.next()
	return strings.HasPrefix(first, "include") || second == "{"
}

// skip passes over the rest of an entry: up to the line that ends it, or before one
// that begins another. text is the line that was read last.
func (r *reader) skip(text string) {
	for text != "}" {
		before, number := r.text, r.number
		var ok bool
		if text, _, ok = r.next(); !ok {
			return
		}
		if isEntry(text) {
			r.text, r.number = before, number
			return
		}
	}
}

// assignment takes a line of an entry apart; wrong says what it lacks.
func (r *reader) assignment(text string, col int) (l line, wrong string) {
	end := strings.IndexAny(text, blanks+"=+-")
	if end < 0 {
		end = len(text)
	}
	l.name = config.String{V: text[:end], Pos: r.pos(col)}
	rest := strings.TrimLeft(text[end:], blanks)
	switch {
	case end == 0:
		return l, "has no attribute before its operator; write \"ATTRIBUTE = VALUE\""
	case strings.HasPrefix(rest, "="):
		l.op = "="
	case strings.HasPrefix(rest, "+="), strings.HasPrefix(rest, "-="):
		l.op = rest[:2]
	default:
		return l, "has no operator; write \"ATTRIBUTE = VALUE\", or += or -= instead of ="
	}
	values := rest[len(l.op):]
	if len(values) > maxLine {
		return l, fmt.Sprintf("has values of more than %d KiB; write several lines, or fewer of them", maxLine>>10)
	}
	l.values = r.split(values, col+columns(text[:len(text)-len(values)]))
	return l, ""
}

// split takes the words of a part of a line, which begins at column col.
func (r *reader) split(s string, col int) []config.String {
	start := len(r.words)
	if cap(r.words)-start < 8 {
		r.words, start = make([]config.String, 0, 256), 0
	}
	words := r.words
	for {
		rest := strings.TrimLeft(s, blanks)
		if rest == "" {
			break
		}
		col += len(s) - len(rest)
		end := strings.IndexAny(rest, blanks)
		if end < 0 {
			end = len(rest)
		}
		words = append(words, config.String{V: rest[:end], Pos: r.pos(col)})
		col += columns(rest[:end])
		s = rest[end:]
	}
	if len(words) <= cap(r.words) {
		r.words = words
	}
	return words[start:len(words):len(words)]
}

func columns(s string) int { return utf8.RuneCountInString(s) }

// clip quotes s for a message, at most some 60 bytes of it.
func clip(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q...", s[:60])
	}
	return fmt.Sprintf("%q", s)
}
