// A table row by row, its words beside what they mean: for who writes it in
// another form than TOML and has to know that no word was left out.

package config

import (
	"fmt"
	"iter"
	"slices"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A Row is a row of a File as it was compiled.
type Row struct {
	Text     *Service         // its words, with what it takes from [defaults]
	Service  *service.Service // what they mean; nil if Disabled
	Disabled bool
	row      *row
}

// Rows compiles f as Compile does and returns its rows, in their order, without the
// multiplexer that nobody has written. Beside rows there are only errors that
// SkipBad leaves out. The notes of f are not repeated.
func Rows(f *File, o *Options) (rows []Row, errs, warnings []*Problem) {
	g := *f
	g.Notes, g.Problems = nil, nil
	for _, p := range f.Problems {
		if f.SkipBad && p.IsSet() {
			errs = append(errs, p)
		} else {
			g.Problems = append(g.Problems, p)
		}
	}
	c := newCompiler(&g, o)
	c.complete = true
	_, left, warnings, err := c.run()
	errs = tidy(slices.Concat(errs, left, c.errors), f.Paths)
	if warnings = tidy(warnings, f.Paths); err != nil {
		return nil, errs, warnings
	}
	made := make(map[*Service]*row, len(c.made))
	for _, r := range c.made {
		made[r.from] = r
	}
	for _, s := range c.f.Services {
		switch r := made[s]; {
		case r == nil: // disabled, and not even looked at
			rows = append(rows, Row{Text: s, Disabled: true, row: &row{c: c, text: s}})
		case r.disabled:
			rows = append(rows, Row{Text: r.text, Disabled: true, row: r})
		default:
			rows = append(rows, Row{Text: r.text, Service: r.svc, row: r})
		}
	}
	return rows, errs, warnings
}

// Written yields the keys that the row has or takes from [defaults], in the order
// of Keys, each with its place; of a table within it all that are in it.
func (r *Row) Written() iter.Seq2[string, Pos] {
	return func(yield func(string, Pos) bool) { writtenIn(serviceKeys, r.Text, "", yield) }
}

// Note makes a note about a key of the row, or about [defaults] if the key comes
// from there.
func (r *Row) Note(k Kind, key string, pos Pos, format string, args ...any) Note {
	return Note{k, r.row.problem(key, pos, format, args)}
}

// ServerWritten is Written for [server].
func (f *File) ServerWritten() iter.Seq2[string, Pos] {
	return func(yield func(string, Pos) bool) { writtenIn(serverKeys, &f.Server, "", yield) }
}

// ServerNote makes a note about a key of [server].
func (f *File) ServerNote(k Kind, key string, pos Pos, format string, args ...any) Note {
	return Note{k, &Problem{pos, "[server]", key, fmt.Sprintf(format, args...)}}
}

// Keys are all keys that a row can have; those of access, limits and rlimits have
// the name of the table and a dot before them.
func Keys() []string { return keysOf(serviceKeys, new(Service), "") }

// ServerKeys are those of [server].
func ServerKeys() []string { return keysOf(serverKeys, new(Server), "") }

// tableOf is the table that a field is, nil if it is one value.
func tableOf(field any) (walk func(prefix string, do func(string, any) bool) bool) {
	switch v := field.(type) {
	case *Access:
		return func(p string, do func(string, any) bool) bool { return walkKeys(accessKeys, v, p, do) }
	case *Limits:
		return func(p string, do func(string, any) bool) bool { return walkKeys(limitsKeys, v, p, do) }
	case *ServerLimits:
		return func(p string, do func(string, any) bool) bool { return walkKeys(serverLimitsKeys, &v.Limits, p, do) }
	case *Rlimits:
		return func(p string, do func(string, any) bool) bool { return walkKeys(rlimitKeys, v, p, do) }
	case *Scan:
		return func(p string, do func(string, any) bool) bool { return walkKeys(scanKeys, v, p, do) }
	}
	return nil
}

// walkKeys gives do each key of v that is one value, with its field, until it
// returns false.
func walkKeys[T any](keys []key[T], v *T, prefix string, do func(string, any) bool) bool {
	for i := range keys {
		name, field := prefix+keys[i].name, keys[i].field(v)
		if walk := tableOf(field); walk != nil {
			if !walk(name+".", do) {
				return false
			}
		} else if !do(name, field) {
			return false
		}
	}
	return true
}

func writtenIn[T any](keys []key[T], v *T, prefix string, yield func(string, Pos) bool) {
	walkKeys(keys, v, prefix, func(name string, field any) bool {
		pos := written(field)
		if env, ok := field.(*Env); ok && !pos.IsSet() && len(env.Vars) > 0 {
			pos = env.Vars[0].Pos // they come from [defaults]
		}
		return !pos.IsSet() || yield(name, pos)
	})
}

func keysOf[T any](keys []key[T], v *T, prefix string) (names []string) {
	walkKeys(keys, v, prefix, func(name string, _ any) bool {
		names = append(names, name)
		return true
	})
	return slices.Clip(names)
}
