// The attributes there are, and the rules by which an entry may set them:
// xinetd's own, of which only what it disables a service for is an error.

package xinetd

import (
	"fmt"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// What a service is here. An attribute says what it is used for.
type kind uint8

const (
	program kind = 1 << iota
	relay        // redirect
	builtin      // type = INTERNAL
	mux          // the internal service tcpmux
	sensor       // flags = SENSOR
	anyKind = program | relay | builtin | mux | sensor
)

// An attribute is a word before an operator.
type attribute struct {
	name       string
	inService  bool
	inDefaults bool
	values     int  // how many exactly; anyNumber; some: at least one
	set        bool // its values add up: += and -= may be used, and it may stand there again
	uses       kind
}

const (
	anyNumber = -1
	some      = -2
)

// attributes are those of xinetd.conf(5), in its order as far as it has one. The
// manual tcpmuxd.toml(5) has a table with what has become of each.
var attributes = []attribute{
	{"id", true, false, 1, false, anyKind},
	{"type", true, false, some, false, anyKind},
	{"flags", true, false, some, false, anyKind},
	{"v6only", true, true, 1, false, anyKind},
	{"disable", true, false, 1, false, anyKind},
	{"socket_type", true, false, 1, false, anyKind},
	{"protocol", true, false, 1, false, anyKind},
	{"wait", true, false, 1, false, anyKind},
	{"user", true, false, 1, false, program},
	{"group", true, false, 1, false, program},
	{"groups", true, true, 1, false, program},
	{"instances", true, true, 1, false, anyKind &^ sensor},
	{"nice", true, false, 1, false, program},
	{"server", true, false, 1, false, program},
	{"server_args", true, false, some, false, program},
	{"libwrap", true, false, 1, false, anyKind},
	{"only_from", true, true, anyNumber, true, anyKind &^ sensor},
	{"no_access", true, true, anyNumber, true, anyKind &^ sensor},
	{"access_times", true, false, some, false, anyKind &^ sensor},
	{"log_type", true, true, some, false, anyKind},
	{"log_on_success", true, true, anyNumber, true, anyKind},
	{"log_on_failure", true, true, anyNumber, true, anyKind},
	{"rpc_version", true, false, 1, false, anyKind},
	{"rpc_number", true, false, 1, false, anyKind},
	{"env", true, false, anyNumber, true, program},
	{"passenv", true, true, anyNumber, true, program},
	{"port", true, false, 1, false, anyKind},
	{"redirect", true, false, 2, false, anyKind},
	{"bind", true, true, 1, false, anyKind},
	{"interface", true, true, 1, false, anyKind},
	{"banner", true, true, 1, false, anyKind},
	{"banner_success", true, true, 1, false, anyKind},
	{"banner_fail", true, true, 1, false, anyKind},
	{"per_source", true, true, 1, false, anyKind &^ sensor},
	{"cps", true, true, 2, false, anyKind &^ sensor},
	{"max_load", true, true, 1, false, anyKind &^ sensor},
	{"rlimit_as", true, false, 1, false, program},
	{"rlimit_cpu", true, false, 1, false, program},
	{"rlimit_data", true, false, 1, false, program},
	{"rlimit_files", true, false, 1, false, program},
	{"rlimit_rss", true, false, 1, false, program},
	{"rlimit_stack", true, false, 1, false, program},
	{"deny_time", true, false, 1, false, anyKind},
	{"umask", true, true, 1, false, program},
	{"mdns", true, true, 1, false, anyKind},
	{"enabled", false, true, anyNumber, true, anyKind},
	{"disabled", false, true, anyNumber, true, anyKind},
}

// byName are the attributes by their names.
var byName = func() map[string]*attribute {
	m := make(map[string]*attribute, len(attributes))
	for i := range attributes {
		m[attributes[i].name] = &attributes[i]
	}
	return m
}()

// guards are the attributes that keep peers out: one that is misspelt lets them in.
var guards = []string{"only_from", "no_access", "access_times", "disable", "disabled", "bind", "interface"}

// A scope is an entry with its attributes, on its way into a row.
type scope struct {
	l        *loader
	entry    *entry
	row      string     // its key in messages
	set      []assigned // in the order of the text
	problems []*config.Problem
	notes    []config.Note
	unserved bool // for a reason that has been noted
	silent   bool // all that could be said has been said
}

// An assigned is an attribute that is set. A service has few of them, so that they
// are looked through.
type assigned struct {
	*attribute
	lines []line
}

// newScope applies the rules to the lines of e; nil is an entry without any.
func (l *loader) newScope(e *entry, row string) *scope {
	s := &scope{l: l, entry: e, row: row}
	if e == nil {
		return s
	}
	s.set = make([]assigned, 0, min(len(e.lines), len(attributes)))
	for i := range e.lines {
		a := &e.lines[i]
		known := byName[a.name.V]
		switch {
		case known == nil:
			s.unknown(*a)
		case !s.accepts(a, known):
		default:
			if at := s.find(known.name); at != nil {
				at.lines = append(at.lines, *a)
			} else {
				s.set = append(s.set, assigned{known, e.lines[i : i+1 : i+1]})
			}
		}
	}
	return s
}

// find finds an attribute that is set; nil if it is not.
func (s *scope) find(name string) *assigned {
	for i := range s.set {
		if s.set[i].name == name {
			return &s.set[i]
		}
	}
	return nil
}

// accepts reports whether xinetd would look at the values of a line.
func (s *scope) accepts(a *line, known *attribute) bool {
	switch {
	case s.entry.kind == defaults && !known.inDefaults:
		s.lost(a.name, "is no attribute of the defaults, and is passed over as by xinetd; write it in the services")
	case s.entry.kind == service && !known.inService:
		s.lost(a.name, "is an attribute of the defaults alone, and is passed over as by xinetd; write it there")
	case !known.set && a.op != "=":
		s.lost(a.name, "cannot have the operator %s: the line is passed over, as by xinetd", a.op)
	case !known.set && s.isSet(known.name):
		s.lost(a.name, "is set already at %s: this line is passed over, as by xinetd", s.setAt(known.name))
	case known.values > 0 && len(a.values) != known.values:
		s.lost(a.name, "wants %s and has %s: the line is passed over, as by xinetd%s", count(known.values), count(len(a.values)), comment(*a))
	case known.values == some && len(a.values) == 0:
		s.wrong(a.name, "has no value; write one or take the line out")
	default:
		return true
	}
	return false
}

// isSet reports whether the attribute is set. The two words for one are one.
func (s *scope) isSet(name string) bool {
	return s.setAt(name).IsSet()
}

// setAt is where it is set.
func (s *scope) setAt(name string) config.Pos {
	lines := s.lines(name)
	if lines == nil && (name == "bind" || name == "interface") {
		lines = s.lines(map[string]string{"bind": "interface", "interface": "bind"}[name])
	}
	if lines == nil {
		return config.Pos{}
	}
	return lines[0].name.Pos
}

// lines are the lines of an attribute.
func (s *scope) lines(name string) []line {
	if a := s.find(name); a != nil {
		return a.lines
	}
	return nil
}

// unknown is about an attribute that xinetd does not know.
func (s *scope) unknown(a line) {
	word := a.name.V
	if near := nearest(word, guards); near != "" {
		s.wrong(a.name, "there is no such attribute, and xinetd passes it over; if %s is meant that would let in whoever should stay out: write %s, or take the line out", near, near)
		return
	}
	s.lost(a.name, "is no attribute of xinetd.conf(5): the line is passed over, as by xinetd%s", suggestion(word))
}

// suggestion is what the attribute might have been.
func suggestion(word string) string {
	for i := range attributes {
		if strings.EqualFold(attributes[i].name, word) {
			return fmt.Sprintf("; if %s is meant it has to be written so", attributes[i].name)
		}
	}
	return ""
}

// comment is a hint for who has written a comment behind the values.
func comment(a line) string {
	if slices.ContainsFunc(a.values, func(v config.String) bool { return strings.HasPrefix(v.V, "#") }) {
		return " (a comment needs a line of its own)"
	}
	return ""
}

func count(n int) string {
	if n == 1 {
		return "1 value"
	}
	return fmt.Sprintf("%d values", n)
}

// note notes what has become of a word. It is kept, as what is wrong, until it is
// known whether the service is disabled.
func (s *scope) note(k config.Kind, w config.String, format string, args ...any) {
	if !s.silent {
		s.notes = append(s.notes, newNote(k, s.row, w, format, args...))
	}
}

// changed notes what is not quite what the word means.
func (s *scope) changed(w config.String, format string, args ...any) {
	s.note(config.Changed, w, format, args...)
}

// lost notes a word without a counterpart.
func (s *scope) lost(w config.String, format string, args ...any) {
	s.note(config.Lost, w, format, args...)
}

// wrong reports a value, or an attribute, that xinetd would leave the service out
// for.
func (s *scope) wrong(w config.String, format string, args ...any) {
	s.wrongAt(w.Pos, w.V, format, args...)
}

// wrongAt is wrong for what is not there: key is the attribute that it is about.
func (s *scope) wrongAt(pos config.Pos, key, format string, args ...any) {
	if !s.silent {
		s.problems = append(s.problems, &config.Problem{Pos: pos, Row: s.row, Key: key, Text: fmt.Sprintf(format, args...)})
	}
}

// bad reports a value of an attribute.
func (s *scope) bad(a line, v config.String, format string, args ...any) {
	hint := ""
	if strings.HasPrefix(v.V, "#") {
		hint = comment(a)
	}
	s.wrongAt(v.Pos, a.name.V, "%s %s%s", clip(v.V), fmt.Sprintf(format, args...), hint)
}

// one is the line of an attribute that has one value, and the value.
func (s *scope) one(name string) (a line, v config.String, ok bool) {
	if lines := s.lines(name); lines != nil {
		return lines[0], lines[0].values[0], true
	}
	return line{}, config.String{}, false
}

// yes is the value of an attribute that is yes or no; no if it is not set.
func (s *scope) yes(name string) bool {
	a, v, ok := s.one(name)
	if ok && v.V != "yes" && v.V != "no" {
		s.bad(a, v, "is neither yes nor no; write one of them")
	}
	return v.V == "yes"
}

// has are the values of type or of flags, which have to be among words.
func (s *scope) has(name string, words ...string) map[string]config.String {
	var found map[string]config.String
	for _, a := range s.lines(name) {
		for _, v := range a.values {
			if !slices.Contains(words, v.V) {
				s.bad(a, v, "is none of the %s; write %s", map[string]string{"type": "types of a service", "flags": "flags"}[name], either(v.V, words))
				if strings.HasPrefix(v.V, "#") {
					break
				}
			}
			if _, twice := found[v.V]; !twice {
				if found == nil {
					found = make(map[string]config.String)
				}
				found[v.V] = v
			}
		}
	}
	return found
}

// either lists words, or is the one that s was most likely meant to be.
func either(s string, words []string) string {
	if w := nearest(s, words); w != "" {
		return w
	}
	return strings.Join(words[:len(words)-1], ", ") + " or " + words[len(words)-1]
}

// nearest is the word of words that differs from s in case alone, or in a letter or
// two; "" if there is none.
func nearest(s string, words []string) string {
	if len(s) > 32 {
		return ""
	}
	for _, w := range words {
		if strings.EqualFold(s, w) {
			return w
		}
	}
	for _, w := range words {
		if s != "" && len(w) > 3 && distance(strings.ToLower(s), strings.ToLower(w)) <= 1+len(w)/6 {
			return w
		}
	}
	return ""
}

// distance counts the insertions, deletions and substitutions that make b of a.
func distance(a, b string) int {
	last, row := make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d++
			}
			row[j+1] = min(d, last[j+1]+1, row[j]+1)
		}
		last, row = row, last
	}
	return last[len(b)]
}
