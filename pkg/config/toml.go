// The front end for TOML: a text becomes a File. The library judges syntax and
// makes values, decoded into maps so that it never stops at a wrong type; the
// walk here goes in the order of the text and notes everything that does not
// fit. What values mean is not looked at.

package config

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/BurntSushi/toml"
)

// maxFile is how large a file may be, in bytes.
const maxFile = 16 << 20

// Parse reads one text; name is what its places are called by. It does not
// follow include: those are returned. Parse never fails: what is wrong with
// the text is in File.Problems.
func Parse(name, text string) (f *File, include []String) {
	f = &File{Path: name, Paths: []string{name}}
	r := &reader{f: f, name: name}
	return f, r.read(text, true)
}

// A reader puts one text into a File that may have rows of others already.
type reader struct {
	f    *File
	name string
	bad  map[string]bool // Service.Bad of the row that is being read
}

func (r *reader) report(pos Pos, row, key, format string, args ...any) {
	r.f.Problems = append(r.f.Problems, &Problem{pos, row, key, fmt.Sprintf(format, args...)})
}

// read adds text to the File; main says that [server] and [defaults] may stand
// in it.
func (r *reader) read(text string, main bool) []String {
	top := Pos{r.name, 1, 1}
	if len(text) > maxFile {
		r.report(top, "", "", "the file is longer than %d MiB", maxFile>>20)
		return nil
	}
	text = strings.TrimPrefix(text, "\ufeff")
	root, offset, scanErr := scan(r.name, text)
	if scanErr != nil {
		// The library finds the better words for it, but is not sent further
		// into a text that was not walked: it recurses without bound.
		text = text[:min(len(text), offset+256)]
	}
	values := make(map[string]any)
	err := guarded(func() error { return toml.Unmarshal([]byte(text), &values) })
	if err == nil && scanErr != nil {
		line := 1 + strings.Count(text[:offset], "\n")
		r.report(Pos{r.name, line, 1}, "", "", "%v", scanErr)
		return nil
	}
	if err != nil {
		r.syntax(err)
		return nil
	}
	return r.document(root, values, main)
}

// guarded runs the library, which panics where it believes a state impossible.
func guarded(decode func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("not TOML: %v", p)
		}
	}()
	return decode()
}

// syntax reports the one syntax error the library stops at.
func (r *reader) syntax(err error) {
	pos, text := Pos{r.name, 1, 1}, strings.TrimPrefix(err.Error(), "toml: ")
	var pe toml.ParseError
	if errors.As(err, &pe) {
		pos.Line, pos.Col = max(pe.Position.Line, 1), max(pe.Position.Col, 1)
		text = pe.Message
	}
	text = strings.TrimSuffix(strings.TrimSpace(strings.ReplaceAll(text, "\n", " ")), ".")
	switch {
	case strings.Contains(text, "cannot have leading zeroes"):
		text += `; write a umask as a string: umask = "022"`
	case strings.Contains(text, "to end table name, but got '/'"):
		text += `; write a key that has a slash in quotes: [service."tcpmux/NAME"]`
	}
	r.report(pos, "", "", "%s (nothing below this was read)", text)
}

func (r *reader) document(root *node, values map[string]any, main bool) (include []String) {
	for _, n := range root.kids {
		v := values[n.name]
		switch n.name {
		case "include":
			var l List
			r.list(n, v, "", "include", `["tcpmuxd.d/*.toml"]`, &l)
			include = l.V
		case "server", "defaults":
			t := r.table(n, v, "", n.name, "["+n.name+"]")
			switch {
			case t == nil:
			case !main:
				r.report(n.pos, "", n.name, "only the main file may have [%s]; move it there", n.name)
			case n.name == "server":
				fill(r, serverKeys, n, t, "[server]", "", &r.f.Server)
			default:
				r.f.Defaults.Pos = n.pos
				r.service(n, t, "[defaults]", &r.f.Defaults)
			}
		case "service":
			t := r.table(n, v, "", "service", "[service.NAME]")
			nameless := false
			for _, row := range n.kids {
				if t == nil {
					break
				}
				if v := t[row.name]; find(serviceKeys, row.name) == nil || isTable(v) {
					r.row(row, v)
				} else if !nameless { // once for all keys of it
					nameless = true
					r.report(row.pos, "", row.name, "this is a key of a row, and the row has no name; write [service.NAME] above it")
				}
			}
		default:
			r.unknown(n, "", "", topKeys)
		}
	}
	return include
}

func (r *reader) row(n *node, v any) {
	t := r.table(n, v, n.name, "", "[service."+quoteKey(n.name)+"]")
	if t == nil {
		return
	}
	s := &Service{ID: n.name, Pos: n.pos}
	r.service(n, t, n.name, s)
	r.f.Services = append(r.f.Services, s)
}

func isTable(v any) bool {
	_, table := v.(map[string]any)
	_, tables := v.([]map[string]any)
	return table || tables
}

// service fills in a row or [defaults].
func (r *reader) service(n *node, t map[string]any, row string, s *Service) {
	r.bad = nil
	fill(r, serviceKeys, n, t, row, "", s)
	s.Bad = r.bad
}

func (r *reader) isBad(key string) {
	if r.bad == nil {
		r.bad = make(map[string]bool)
	}
	r.bad[key] = true
}

// table checks that v is a table; nil if it is not.
func (r *reader) table(n *node, v any, row, key, write string) map[string]any {
	switch t := v.(type) {
	case map[string]any:
		return t
	case []map[string]any:
		r.report(n.pos, row, key, "a list of tables; write %s instead, rows are told apart by their key", write)
	default:
		r.report(n.val, row, key, "%s where a table is wanted; write %s instead", describe(v), write)
	}
	return nil
}

// fill puts the keys of a table into dst. prefix is the table's own name within
// the row, "limits." for example.
func fill[T any](r *reader, keys []key[T], n *node, values map[string]any, row, prefix string, dst *T) {
	for _, kid := range n.kids {
		k := find(keys, kid.name)
		if k == nil {
			r.unknown(kid, row, prefix, names(keys))
			continue
		}
		r.value(kid, values[kid.name], row, prefix+k.name, k.example, k.field(dst))
	}
}

func (r *reader) unknown(n *node, row, prefix string, words []string) {
	hint := "there is no such key; tcpmuxd.toml(5) has them all"
	w := nearest(n.name, words)
	known := foreign{key: prefix + w}
	isKnown := false
	if row != "" && row != "[server]" && !strings.EqualFold(w, n.name) {
		if f, ok := knownAs(n.name, prefix); ok {
			known, isKnown, w = f, true, ""
		}
	}
	if isKnown || w != "" {
		r.isBad(known.key)
	}
	if isKnown {
		hint = fmt.Sprintf("unknown key; write %s instead", known.write)
	} else if w != "" && strings.EqualFold(w, n.name) {
		hint = fmt.Sprintf("keys are written in lower case; write %s instead", w)
	} else if e := elsewhere(n.name); e != "" && prefix == "" {
		hint = e
	} else if w != "" {
		hint = fmt.Sprintf("unknown key; write %s instead", w)
	} else if len(words) < 10 {
		hint = fmt.Sprintf("unknown key; the keys here are %s", strings.Join(words, ", "))
	}
	r.report(n.pos, row, prefix+quoteKey(n.name), "%s", hint)
}

// value puts v into the field dst points to, or reports why it does not fit.
func (r *reader) value(n *node, v any, row, key, example string, dst any) {
	wrong := func(want string) {
		r.isBad(key)
		write := example
		switch v := v.(type) {
		case int64:
			if strings.HasPrefix(example, `"`) && !octal[key] { // 0o22 arrives as 18
				write = suggest(v, example)
			}
		case string: // a number or a truth value in quotes
			if _, err := strconv.ParseUint(v, 10, 31); err == nil || v == "true" || v == "false" {
				write = v
			}
		}
		r.report(n.val, row, key, "%s where %s is wanted; write %s = %s instead", describe(v), want, key[strings.LastIndexByte(key, '.')+1:], write)
	}
	switch dst := dst.(type) {
	case *Bool:
		if b, ok := v.(bool); ok {
			*dst = Bool{b, n.val}
		} else {
			wrong("true or false")
		}
	case *Int:
		if i, ok := v.(int64); ok {
			*dst = Int{i, n.val}
		} else {
			wrong("a whole number")
		}
	case *String:
		if s, ok := v.(string); ok {
			*dst = String{s, n.val}
		} else {
			wrong("a string")
		}
	case *Scalar:
		switch v := v.(type) {
		case string:
			*dst = Scalar{scalar(v), n.val}
		case int64:
			*dst = Scalar{scalar(strconv.FormatInt(v, 10)), n.val}
		default:
			wrong("a number or a string")
		}
	case *List:
		r.list(n, v, row, key, example, dst)
	case *Keepalive:
		switch t := v.(type) {
		case bool:
			*dst = Keepalive{Pos: n.val, On: t}
		case map[string]any:
			*dst = Keepalive{Pos: n.val, On: true}
			fill(r, keepaliveKeys, n, t, row, key+".", dst)
		default:
			wrong("true, false or a table")
		}
	case *Env:
		t, ok := v.(map[string]any)
		if !ok {
			wrong("a table of NAME = value")
			return
		}
		dst.Pos = n.val
		for _, kid := range n.kids {
			if s, ok := t[kid.name].(string); ok {
				dst.Vars = append(dst.Vars, Var{kid.name, kid.pos, String{s, kid.val}})
			} else {
				r.report(kid.val, row, key+"."+quoteKey(kid.name), "%s where a string is wanted; write the value in quotes", describe(t[kid.name]))
			}
		}
	case *Access:
		subtable(r, accessKeys, n, v, row, key, dst, &dst.Pos, wrong)
	case *Limits:
		subtable(r, limitsKeys, n, v, row, key, dst, &dst.Pos, wrong)
	case *Rlimits:
		subtable(r, rlimitKeys, n, v, row, key, dst, &dst.Pos, wrong)
	}
}

// subtable puts a table within a row into dst, and its place into pos.
func subtable[T any](r *reader, keys []key[T], n *node, v any, row, name string, dst *T, pos *Pos, wrong func(string)) {
	t, ok := v.(map[string]any)
	if !ok {
		wrong("a table")
		return
	}
	*pos = n.val
	fill(r, keys, n, t, row, name+".", dst)
}

// octal are keys whose numbers are octal, bare the lists whose strings may be
// numbers alone.
var (
	octal = map[string]bool{"umask": true, "socket_mode": true, "directory_mode": true}
	bare  = map[string]bool{"listen": true, "groups": true, "access.uids": true, "access.gids": true, "cpus": true}
)

// list takes a list of strings, or a string alone for a list of one.
func (r *reader) list(n *node, v any, row, key, example string, dst *List) {
	switch l := v.(type) {
	case string:
		*dst = List{[]String{{l, n.val}}, n.val}
	case []any:
		*dst = List{make([]String, 0, len(l)), n.val}
		for i, e := range l {
			pos := n.val
			if i < len(n.elems) {
				pos = n.elems[i].val
			}
			if s, ok := e.(string); ok {
				dst.V = append(dst.V, String{s, pos})
			} else {
				dst.V = append(dst.V, String{})
				r.report(pos, row, key, "%s where a string is wanted; write it in quotes", describe(e))
			}
		}
	default:
		r.isBad(key)
		if i, ok := v.(int64); ok && key == "listen" && (i < 1 || i > 65535) {
			r.report(n.val, row, key, "port %d is out of bounds; write listen = \"PORT\" with a port from 1 to 65535 instead", i)
			return
		} else if ok && bare[key] {
			example = fmt.Sprintf(`"%d"`, i)
		}
		r.report(n.val, row, key, "%s where a list of strings is wanted; write %s = %s instead", describe(v), key[strings.LastIndexByte(key, '.')+1:], example)
	}
}

// describe names the TOML type of v, with its value if that is short.
func describe(v any) string {
	switch v := v.(type) {
	case string:
		return "the string " + clip(v)
	case int64:
		return fmt.Sprintf("the bare number %d", v)
	case float64:
		return "the number " + strconv.FormatFloat(v, 'g', -1, 64)
	case bool:
		return fmt.Sprintf("%v", v)
	case time.Time:
		return "a date"
	case []any:
		return "a list"
	case []map[string]any:
		return "a list of tables"
	case map[string]any:
		return "a table"
	}
	return "nothing"
}

// suggest makes a string of a bare number by the look of the example: a
// duration and a rate get the unit that they lack.
func suggest(i int64, example string) string {
	switch {
	case strings.HasSuffix(example, `/min"`):
		return fmt.Sprintf(`"%d/min"`, i)
	case strings.HasSuffix(example, `s"`) || strings.HasSuffix(example, `h"`):
		return fmt.Sprintf(`"%ds"`, i)
	}
	return fmt.Sprintf(`"%d"`, i)
}

// quoteKey writes a key as TOML wants it.
func quoteKey(s string) string {
	for _, c := range s {
		if c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return strconv.Quote(s)
		}
	}
	if s == "" {
		return `""`
	}
	return s
}
