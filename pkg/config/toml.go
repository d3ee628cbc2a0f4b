// The front end for TOML: a text becomes a File. The library judges syntax and
// makes values, decoded into maps so that it never stops at a wrong type; the
// walk here goes in the order of the text and notes everything that does not
// fit. What values mean is not looked at.

package config

import (
	"errors"
	"fmt"
	"slices"
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
	f     *File
	name  string
	bad   map[string]bool // Service.Bad of the row that is being read
	spare []Service       // for the next rows
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
	root, plain, offset, scanErr := scan(text)
	if plain {
		return r.document(root, main)
	}
	if scanErr != nil {
		// The library finds the better words for it, but is not sent further
		// into a text that was not walked: it recurses without bound.
		text = text[:min(len(text), offset+256)]
	}
	values := make(map[string]any)
	err := guarded(func() error { return toml.Unmarshal([]byte(text), &values) })
	if err == nil && scanErr != nil {
		line := 1 + int32(strings.Count(text[:offset], "\n"))
		r.report(Pos{r.name, line, 1}, "", "", "%v", scanErr)
		return nil
	}
	if err != nil {
		r.syntax(err)
		return nil
	}
	root.give(values)
	return r.document(root, main)
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
		pos.Line, pos.Col = int32(max(pe.Position.Line, 1)), int32(max(pe.Position.Col, 1))
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

// at is p in the file that is being read.
func (r *reader) at(p place) Pos { return Pos{r.name, p.Line, p.Col} }

func (r *reader) document(root *node, main bool) (include []String) {
	for _, n := range root.kids {
		switch n.name {
		case "include":
			var l List
			r.list(n, "", "include", `["tcpmuxd.d/*.toml"]`, &l)
			include = l.V
		case "server", "defaults":
			switch {
			case !r.table(n, "", n.name, "["+n.name+"]"):
			case !main:
				r.report(r.at(n.pos), "", n.name, "only the main file may have [%s]; move it there", n.name)
			case n.name == "server":
				r.bad = nil
				fill(r, serverKeys, n, "[server]", "", &r.f.Server)
				r.f.Server.Bad = r.bad
			default:
				r.f.Defaults.Pos = r.at(n.pos)
				r.service(n, "[defaults]", &r.f.Defaults)
			}
		case "set":
			if !r.table(n, "", "set", "[set.NAME]") {
				break
			}
			for _, set := range n.kids {
				row := "[set." + quoteKey(set.name) + "]"
				if r.table(set, row, "", "[set.NAME]") {
					s := &Set{Name: set.name, Pos: r.at(set.pos)}
					r.bad = nil
					fill(r, setKeys, set, row, "", s)
					s.Bad = r.bad != nil
					r.f.Sets = append(r.f.Sets, s)
				}
			}
		case "service":
			if !r.table(n, "", "service", "[service.NAME]") {
				break
			}
			r.f.Services = slices.Grow(r.f.Services, len(n.kids))
			nameless := false
			for i, row := range n.kids {
				if find(serviceKeys, row.name) == nil || isTable(row.v) {
					r.row(row, len(n.kids)-i)
				} else if !nameless { // once for all keys of it
					nameless = true
					r.report(r.at(row.pos), "", row.name, "this is a key of a row, and the row has no name; write [service.NAME] above it")
				}
			}
		default:
			r.unknown(n, "", "", topKeys)
		}
	}
	return include
}

// row reads a row; left is how many there are from it on.
func (r *reader) row(n *node, left int) {
	if !isTable(n.v) || len(n.elems) > 0 {
		r.table(n, n.name, "", "[service."+quoteKey(n.name)+"]")
		return
	}
	if len(r.spare) == 0 {
		r.spare = make([]Service, min(left, 64))
	}
	s := &r.spare[0]
	r.spare = r.spare[1:]
	s.ID, s.Pos = n.name, r.at(n.pos)
	r.service(n, n.name, s)
	r.f.Services = append(r.f.Services, s)
}

func isTable(v any) bool {
	_, table := v.(map[string]any)
	_, tables := v.([]map[string]any)
	return table || tables
}

// service fills in a row or [defaults].
func (r *reader) service(n *node, row string, s *Service) {
	r.bad = nil
	fill(r, serviceKeys, n, row, "", s)
	s.Bad = r.bad
}

func (r *reader) isBad(key string) {
	if r.bad == nil {
		r.bad = make(map[string]bool)
	}
	r.bad[key] = true
}

// table reports what is not a table, and whether it is one.
func (r *reader) table(n *node, row, key, write string) bool {
	switch v := n.v.(type) {
	case map[string]any:
		return true
	case []map[string]any:
		r.report(r.at(n.pos), row, key, "a list of tables; write %s instead, rows are told apart by their key", write)
	default:
		r.report(r.at(n.val), row, key, "%s where a table is wanted; write %s instead", describe(v), write)
	}
	return false
}

// fill puts the keys of a table into dst. prefix is the table's own name within
// the row, "limits." for example.
func fill[T any](r *reader, keys []key[T], n *node, row, prefix string, dst *T) {
	for _, kid := range n.kids {
		k := find(keys, kid.name)
		if k == nil {
			r.unknown(kid, row, prefix, names(keys))
			continue
		}
		r.value(kid, row, prefix+k.name, k.example, k.field(dst))
	}
}

func (r *reader) unknown(n *node, row, prefix string, words []string) {
	hint := "there is no such key; tcpmuxd.toml(5) has them all"
	w := nearest(n.name, words)
	known := foreign{key: prefix + w}
	isKnown := false
	if row != "" && row != "[server]" && !strings.HasPrefix(row, "[set.") && !strings.EqualFold(w, n.name) {
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
	} else if len(words) < 16 {
		hint = fmt.Sprintf("unknown key; the keys here are %s", strings.Join(words, ", "))
	}
	r.report(r.at(n.pos), row, prefix+quoteKey(n.name), "%s", hint)
}

// value puts v into the field dst points to, or reports why it does not fit.
func (r *reader) value(n *node, row, key, example string, dst any) {
	v, val := n.v, r.at(n.val)
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
		r.report(val, row, key, "%s where %s is wanted; write %s = %s instead", describe(v), want, key[strings.LastIndexByte(key, '.')+1:], write)
	}
	switch dst := dst.(type) {
	case *Bool:
		if b, ok := v.(bool); ok {
			*dst = Bool{b, val}
		} else {
			wrong("true or false")
		}
	case *Int:
		if i, ok := v.(int64); ok {
			*dst = Int{i, val}
		} else {
			wrong("a whole number")
		}
	case *String:
		if s, ok := v.(string); ok {
			*dst = String{s, val}
		} else {
			wrong("a string")
		}
	case *Scalar:
		switch v := v.(type) {
		case string:
			*dst = Scalar{scalar(v), val}
		case int64:
			*dst = Scalar{scalar(strconv.FormatInt(v, 10)), val}
		default:
			wrong("a number or a string")
		}
	case *List:
		r.list(n, row, key, example, dst)
	case *Keepalive:
		switch on := v.(type) {
		case bool:
			*dst = Keepalive{Pos: val, On: on}
		case map[string]any:
			*dst = Keepalive{Pos: val, On: true}
			fill(r, keepaliveKeys, n, row, key+".", dst)
		default:
			wrong("true, false or a table")
		}
	case *Env:
		if _, ok := v.(map[string]any); !ok {
			wrong("a table of NAME = value")
			return
		}
		dst.Pos = val
		for _, kid := range n.kids {
			if s, ok := kid.v.(string); ok {
				dst.Vars = append(dst.Vars, Var{kid.name, r.at(kid.pos), String{s, r.at(kid.val)}})
			} else {
				r.report(r.at(kid.val), row, key+"."+quoteKey(kid.name), "%s where a string is wanted; write the value in quotes", describe(kid.v))
			}
		}
	case *Number:
		switch v := v.(type) {
		case float64:
			*dst = Number{v, r.at(n.val)}
		case int64:
			*dst = Number{float64(v), r.at(n.val)}
		default:
			wrong("a number")
		}
	case *Shed:
		subtable(r, shedKeys, n, row, key, dst, &dst.Pos, wrong)
	case *Ident:
		subtable(r, identKeys, n, row, key, dst, &dst.Pos, wrong)
	case *ServerLimits:
		subtable(r, serverLimitsKeys, n, row, key, &dst.Limits, &dst.Pos, wrong)
	case *Access:
		subtable(r, accessKeys, n, row, key, dst, &dst.Pos, wrong)
	case *Limits:
		subtable(r, limitsKeys, n, row, key, dst, &dst.Pos, wrong)
	case *RPC:
		subtable(r, rpcKeys, n, row, key, dst, &dst.Pos, wrong)
	case *Rlimits:
		subtable(r, rlimitKeys, n, row, key, dst, &dst.Pos, wrong)
	case *Scan:
		subtable(r, scanKeys, n, row, key, dst, &dst.Pos, wrong)
	}
}

// subtable puts a table within a row into dst, and its place into pos.
func subtable[T any](r *reader, keys []key[T], n *node, row, name string, dst *T, pos *Pos, wrong func(string)) {
	if _, ok := n.v.(map[string]any); !ok {
		wrong("a table")
		return
	}
	*pos = r.at(n.val)
	fill(r, keys, n, row, name+".", dst)
}

// octal are keys whose numbers are octal, bare the lists whose strings may be
// numbers alone.
var (
	octal = map[string]bool{"umask": true, "socket_mode": true, "directory_mode": true}
	bare  = map[string]bool{"listen": true, "groups": true, "access.uids": true, "access.gids": true, "cpus": true}
)

// list takes a list of strings, or a string alone for a list of one.
func (r *reader) list(n *node, row, key, example string, dst *List) {
	v, val := n.v, r.at(n.val)
	switch l := v.(type) {
	case string:
		*dst = List{[]String{{l, val}}, val}
	case []any:
		*dst = List{make([]String, 0, len(n.elems)), val}
		for _, e := range n.elems {
			pos := r.at(e.val)
			if s, ok := e.v.(string); ok {
				dst.V = append(dst.V, String{s, pos})
			} else {
				dst.V = append(dst.V, String{})
				r.report(pos, row, key, "%s where a string is wanted; write it in quotes", describe(e.v))
			}
		}
	default:
		r.isBad(key)
		if i, ok := v.(int64); ok && key == "listen" && (i < 1 || i > 65535) {
			r.report(val, row, key, "port %d is out of bounds; write listen = \"PORT\" with a port from 1 to 65535 instead", i)
			return
		} else if ok && bare[key] {
			example = fmt.Sprintf(`"%d"`, i)
		}
		r.report(val, row, key, "%s where a list of strings is wanted; write %s = %s instead", describe(v), key[strings.LastIndexByte(key, '.')+1:], example)
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
