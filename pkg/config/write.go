// A File as TOML again, for files that were written for another super-server. The
// text says what the File says, in the order of its rows and with its comments;
// places are lost.

package config

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode/utf8"
)

// A Comment stands above a row.
type Comment struct {
	Row  int    // index in File.Services; their number for what stands below all
	Text string // with its "#"; empty for an empty line
}

// Comment adds a comment, or an empty line, below the rows there are.
func (f *File) Comment(text string) {
	n := len(f.Comments)
	if text == "" && n > 0 && f.Comments[n-1].Text == "" {
		return
	}
	f.Comments = append(f.Comments, Comment{len(f.Services), text})
}

// Write writes f, of which no two rows have one ID, as a TOML text without
// includes. Load makes a File of it that compiles to the same table. What cannot be
// written in TOML, which is nothing but UTF-8, is reported as Problems, and written
// with question marks.
func (f *File) Write(w io.Writer) ([]*Problem, error) {
	t := &writer{f: f}
	t.table("[server]")
	fields(t, serverKeys, &f.Server)
	t.drop("[server]\n")
	for _, set := range f.Sets {
		t.table("[set." + t.key(set.Name, set.Pos) + "]")
		fields(t, setKeys, set)
	}
	t.table("[defaults]")
	fields(t, serviceKeys, &f.Defaults)
	t.drop("[defaults]\n")
	comments := f.Comments
	for i, s := range f.Services {
		for len(comments) > 0 && comments[0].Row <= i {
			t.comment(comments[0].Text)
			comments = comments[1:]
		}
		t.row = s.ID
		before := t.b.Len()
		t.table("[service." + t.key(s.ID, s.Pos) + "]")
		fields(t, serviceKeys, s)
		if s.Unchecked {
			t.commentOut(before)
		}
		if t.b.Len() > 1<<16 {
			if _, err := io.WriteString(w, t.b.String()); err != nil {
				return t.problems, err
			}
			t.b.Reset()
		}
	}
	for _, c := range comments {
		t.comment(c.Text)
	}
	_, err := io.WriteString(w, t.b.String())
	return t.problems, err
}

type writer struct {
	f        *File
	b        strings.Builder
	row      string
	last     last // line
	problems []*Problem
}

// A last is what the last line is: there is an empty line between a table and what
// follows, but none between a comment and what it belongs to.
type last uint8

const (
	emptyLine last = iota // or there is none
	commentLine
	tableLine
)

// line writes a line of kind l.
func (t *writer) line(l last, text string) {
	if t.last == tableLine {
		t.b.WriteByte('\n')
	}
	t.b.WriteString(text + "\n")
	t.last = l
}

// table begins a table.
func (t *writer) table(head string) { t.line(tableLine, head) }

// drop takes the table out again that has just begun, if nothing is in it.
func (t *writer) drop(head string) {
	if s, ok := strings.CutSuffix(t.b.String(), head); ok {
		t.b.Reset()
		t.b.WriteString(s)
		t.last = emptyLine
	}
}

// commentOut makes comments of the lines from a place on: a row that is not checked
// may be wrong.
func (t *writer) commentOut(from int) {
	text := t.b.String()
	t.b.Reset()
	t.b.WriteString(text[:from])
	for line := range strings.Lines(text[from:]) {
		if line != "\n" {
			t.b.WriteByte('#')
		}
		t.b.WriteString(line)
	}
}

func (t *writer) comment(text string) {
	if text == "" {
		if t.last != emptyLine {
			t.b.WriteByte('\n')
			t.last = emptyLine
		}
		return
	}
	// A comment of TOML has neither control characters nor odd bytes.
	text = strings.ToValidUTF8(strings.TrimRight(text, " \t\r"), "?")
	t.line(commentLine, strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return '?'
		}
		return r
	}, text))
}

// fields writes what is set of v, one key a line.
func fields[T any](t *writer, keys []key[T], v *T) {
	for i := range keys {
		if text, ok := t.value(keys[i].field(v), keys[i].name); ok {
			t.b.WriteString(keys[i].name + " = " + text + "\n")
		}
	}
}

// inline is a table within a line.
func inline[T any](t *writer, keys []key[T], v *T) string {
	var parts []string
	for i := range keys {
		if text, ok := t.value(keys[i].field(v), keys[i].name); ok {
			parts = append(parts, keys[i].name+" = "+text)
		}
	}
	if parts == nil {
		return "{}"
	}
	return "{ " + strings.Join(parts, ", ") + " }"
}

// value is a field in TOML, if it is set.
func (t *writer) value(field any, name string) (string, bool) {
	switch v := field.(type) {
	case *Bool:
		return fmt.Sprint(v.V), v.IsSet()
	case *Int:
		return fmt.Sprint(v.V), v.IsSet()
	case *String:
		return t.string(v.V, v.Pos, name), v.IsSet()
	case *Scalar:
		if digits := strings.TrimPrefix(string(v.V), "-"); isDigits(digits) && len(digits) < 19 && (digits[0] != '0' || v.V == "0") {
			return string(v.V), v.IsSet()
		}
		return t.string(string(v.V), v.Pos, name), v.IsSet()
	case *List:
		words := make([]string, 0, len(v.V))
		for _, s := range v.V {
			words = append(words, t.string(s.V, s.Pos, name))
		}
		return "[" + strings.Join(words, ", ") + "]", v.IsSet()
	case *Env:
		words := make([]string, 0, len(v.Vars))
		for _, e := range v.Vars {
			words = append(words, t.key(e.Name, e.Pos)+" = "+t.string(e.Value.V, e.Pos, name))
		}
		return "{ " + strings.Join(words, ", ") + " }", v.Pos.IsSet()
	case *Keepalive:
		if !v.Idle.IsSet() && !v.Interval.IsSet() && !v.Count.IsSet() {
			return fmt.Sprint(v.On), v.Pos.IsSet()
		}
		return inline(t, keepaliveKeys, v), v.Pos.IsSet()
	case *Access:
		return inline(t, accessKeys, v), v.Pos.IsSet()
	case *RPC:
		return inline(t, rpcKeys, v), v.Pos.IsSet()
	case *Limits:
		return inline(t, limitsKeys, v), v.Pos.IsSet()
	case *Rlimits:
		return inline(t, rlimitKeys, v), v.Pos.IsSet()
	case *Number:
		return strconv.FormatFloat(v.V, 'f', -1, 64), v.IsSet()
	case *Shed:
		return inline(t, shedKeys, v), v.Pos.IsSet()
	case *Ident:
		return inline(t, identKeys, v), v.Pos.IsSet()
	case *Scan:
		return inline(t, scanKeys, v), v.Pos.IsSet()
	case *ServerLimits:
		return inline(t, serverLimitsKeys, &v.Limits), v.Pos.IsSet()
	}
	return "", false
}

// string is s as a string of TOML.
func (t *writer) string(s string, pos Pos, key string) string {
	if !utf8.ValidString(s) {
		t.problems = append(t.problems, &Problem{pos, t.row, key, fmt.Sprintf("%s is not UTF-8, as all of TOML must be; it is written with ? for what is not", clip(s))})
		s = strings.ToValidUTF8(s, "?")
	}
	return tomlString(s)
}

// tomlString writes a basic string, toml.io/en/v1.0.0#string.
func tomlString(s string) string {
	var b strings.Builder
	b.WriteByte('"')
	for _, r := range s {
		switch {
		case r == '"' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r == '\t':
			b.WriteString(`\t`)
		case r == '\n':
			b.WriteString(`\n`)
		case r == '\r':
			b.WriteString(`\r`)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04X`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// key is s as a key of TOML, bare if it may be.
func (t *writer) key(s string, pos Pos) string {
	if isBare(s) {
		return s
	}
	return t.string(s, pos, "")
}
