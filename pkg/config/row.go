// One row: what it is, what it takes from [defaults], and which keys mean
// nothing for it. Values are not looked at here.

package config

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
)

// row makes a row of s: what it is, and what it takes from [defaults].
func (c *compiler) row(s *Service, implied bool) *row {
	r := &row{c: c, from: s, text: s, implied: implied, svc: new(service.Service)}
	r.disabled = s.Enabled.IsSet() && !s.Enabled.V || !s.Enabled.IsSet() && c.f.Defaults.Enabled.IsSet() && !c.f.Defaults.Enabled.V
	r.svc.ID = s.ID
	r.svc.Origin = service.Place{File: s.Pos.File, Line: s.Pos.Line}
	r.identify()
	r.misplaced()
	r.inherit(&c.f.Defaults)
	if r.kind&byName == 0 && r.svc.Name == "" {
		r.svc.Name = cmp.Or(r.text.Name.V, s.ID)
	}
	if s.Name.IsSet() && !r.inherited["name"] {
		if bad := badName(s.Name.V); bad != "" {
			r.errorf("name", s.Name.Pos, "the name %s; write a name of letters, digits and .-_+", bad)
		}
	}
	r.kindOfSocket()
	return r
}

// writable is the words of the row, to be changed: what was read is left as it is. Of
// most rows nothing is changed, and four kilobytes need not be copied.
func (r *row) writable() *Service {
	if !r.copied {
		text := *r.text
		r.text, r.copied = &text, true
	}
	return r.text
}

// What a row runs.
type runs uint8

const (
	nothing runs = iota
	runsExec
	runsBuiltin
	runsForward
)

// runsOf is what s runs by its own words, and how many such words it has.
func runsOf(s *Service) (what runs, n int) {
	for _, w := range []struct {
		set  bool
		what runs
	}{{s.Forward.IsSet(), runsForward}, {s.Builtin.IsSet(), runsBuiltin}, {s.Exec.IsSet(), runsExec}} {
		if w.set {
			what = w.what
			n++
		}
	}
	return what, n
}

// identify finds out what kind of row this is, and whether its key is in order.
func (r *row) identify() {
	s, d := r.text, &r.c.f.Defaults
	name, isMux := strings.CutPrefix(s.ID, muxPrefix)
	if isMux {
		r.svc.Mux = true
		name, r.svc.Plus = strings.CutPrefix(name, "+")
		if err := tcpmux.ValidName(name); err != nil {
			r.errorf("", s.Pos, "%v; write [service.\"tcpmux/NAME\"] or [service.\"tcpmux/+NAME\"]", err)
		} else {
			r.svc.Name = strings.ToLower(name)
		}
	} else if len(s.ID) >= len(muxPrefix) && strings.EqualFold(s.ID[:len(muxPrefix)], muxPrefix) {
		r.errorf("", s.Pos, "%q is written in lower case; write [service.%q] instead", muxPrefix, muxPrefix+s.ID[len(muxPrefix):])
	} else if bad := badName(s.ID); bad != "" {
		r.errorf("", s.Pos, "the key %s; write a key of letters, digits and .-_+ and give the service's name by name = \"...\"", bad)
	}
	what, n := runsOf(s)
	word := s.Builtin.V
	if what == nothing {
		what, _ = runsOf(d)
		word = d.Builtin.V
	}
	direct := [...]kind{nothing: execDirect, runsExec: execDirect, runsBuiltin: builtinDirect, runsForward: forwardDirect}
	named := [...]kind{nothing: execMux, runsExec: execMux, runsBuiltin: builtinMux, runsForward: forwardMux}
	switch {
	case isMux && what == runsBuiltin && word == "tcpmux":
		if s.Builtin.IsSet() && n == 1 {
			r.errorf("builtin", s.Builtin.Pos, "a multiplexer is not reached by name; write exec = [\"/path/of/program\"] instead")
			r.both = true
		}
		what, r.kind = nothing, execMux
	case isMux:
		r.kind = named[what]
	case what == runsBuiltin && word == "tcpmux":
		r.kind = multiplexer
	default:
		r.kind = direct[what]
	}
	if what == runsBuiltin && !slices.ContainsFunc(builtinWords, func(c choice[service.Builtin]) bool { return c.word == word }) {
		r.both = true // and said with the values
	}
	switch {
	case n > 1:
		r.runsTwo(s)
	case r.bad("exec") || r.bad("builtin") || r.bad("forward") || r.both:
	case what == nothing:
		builtin := "tcpmux"
		if isMux {
			builtin = "echo"
		}
		r.errorf("", s.Pos, "the row runs nothing; write exec = [\"/path/of/program\"], builtin = %q or forward = \"ADDRESS:PORT\"", builtin)
	case r.kind == builtinMux && !r.svc.Plus && r.svc.Name != "" && word != "sensor":
		r.errorf("", s.Pos, "a built-in service does not answer \"+\" itself; write [service.\"tcpmux/+%s\"] instead", name)
	}
}

// runsTwo reports all that the row runs but the first.
func (r *row) runsTwo(s *Service) {
	r.both = true
	first := ""
	for _, w := range []struct {
		key string
		pos Pos
	}{{"exec", s.Exec.Pos}, {"builtin", s.Builtin.Pos}, {"forward", s.Forward.Pos}} {
		switch {
		case !w.pos.IsSet():
		case first == "":
			first = w.key
		default:
			r.errorf(w.key, w.pos, "the row runs two things, %s and %s; write only one of them", first, w.key)
		}
	}
	if first == "exec" {
		r.writable().Builtin = String{}
	}
	r.writable().Forward = List{}
}

// badName says what is wrong with the key or the name of a row: both stand in
// the log and in the environment.
func badName(s string) string {
	switch {
	case s == "":
		return "is empty"
	case len(s) > tcpmux.MaxName:
		return fmt.Sprintf("is longer than %d bytes", tcpmux.MaxName)
	}
	for _, c := range s {
		if c <= ' ' || c > '~' || strings.ContainsRune("\"'\\/[]", c) {
			return fmt.Sprintf("has %q in it", c)
		}
	}
	return ""
}

// misplaced reports keys of the row's own that mean nothing for its kind. Those
// of [defaults] are simply not taken.
func (r *row) misplaced() {
	for i := range serviceKeys {
		k := &serviceKeys[i]
		if k.kinds&r.kind != 0 || r.both {
			continue
		}
		if pos := written(k.field(r.text)); pos.IsSet() {
			r.errorf(k.name, pos, "means nothing for %s; take it out", r.kind)
		}
	}
}

// written is the place of a field, zero if it was not written.
func written(field any) Pos {
	switch f := field.(type) {
	case *Bool:
		return f.Pos
	case *Int:
		return f.Pos
	case *String:
		return f.Pos
	case *List:
		return f.Pos
	case *Scalar:
		return f.Pos
	case *Keepalive:
		return f.Pos
	case *Env:
		return f.Pos
	case *Access:
		return f.Pos
	case *Limits:
		return f.Pos
	case *Shed:
		return f.Pos
	case *Ident:
		return f.Pos
	case *Rlimits:
		return f.Pos
	case *RPC:
		return f.Pos
	}
	return Pos{}
}

// forget makes a field what it is if nobody has written it.
func forget(field any) { reflect.ValueOf(field).Elem().SetZero() }

// inherit takes from d what the row does not say itself. The tables access,
// limits, rlimits and env are taken key by key, everything else as a whole. The
// words of the row are made complete where they are, because a copy of them all
// would be most of the memory that a large table takes; see disinherit. Only whoever
// wants complete words afterwards gets copies.
func (r *row) inherit(d *Service) {
	for i := range r.c.inherits {
		k := &r.c.inherits[i]
		if k.kinds&r.kind == 0 {
			continue
		}
		if r.inherited == nil {
			r.inherited = make(map[string]bool, len(r.c.inherits))
		}
		dst := k.field(r.text)
		if _, list := dst.(*Env); list || r.c.complete {
			dst = k.field(r.writable())
		}
		r.take(k.name, dst, k.field(d))
	}
}

// disinherit makes the words of the row what they were when they were read.
func (r *row) disinherit() {
	if len(r.inherited) == 0 {
		return
	}
	for i := range r.c.inherits {
		if k := &r.c.inherits[i]; r.inherited[k.name] {
			forget(k.field(r.from))
		}
	}
}

// inherits are the keys that d has, with dotted ones for those of its tables.
func inherits(d *Service) (list []key[Service]) {
	for _, k := range serviceKeys {
		field := k.field(d)
		if !written(field).IsSet() {
			continue
		}
		switch field.(type) {
		case *Access:
			list = appendDotted(list, d, k, accessKeys)
		case *Limits:
			list = appendDotted(list, d, k, limitsKeys)
		case *Rlimits:
			list = appendDotted(list, d, k, rlimitKeys)
		default:
			list = append(list, k)
		}
	}
	return list
}

// appendDotted appends those of keys that the table of d has which is called k.
func appendDotted[T any](list []key[Service], d *Service, k key[Service], keys []key[T]) []key[Service] {
	for _, sub := range keys {
		dotted := key[Service]{name: k.name + "." + sub.name, kinds: k.kinds}
		dotted.field = func(s *Service) any { return sub.field(k.field(s).(*T)) }
		if written(dotted.field(d)).IsSet() {
			list = append(list, dotted)
		}
	}
	return list
}

func (r *row) take(key string, dst, src any) {
	switch dst := dst.(type) {
	case *Bool:
		takeValue(r, key, dst, src.(*Bool))
	case *Int:
		takeValue(r, key, dst, src.(*Int))
	case *String:
		takeValue(r, key, dst, src.(*String))
	case *List:
		takeValue(r, key, dst, src.(*List))
	case *Scalar:
		takeValue(r, key, dst, src.(*Scalar))
	case *Keepalive:
		if src := src.(*Keepalive); !dst.Pos.IsSet() && src.Pos.IsSet() {
			*dst = *src
			r.inherited[key] = true
			for _, k := range keepaliveKeys {
				r.inherited[key+"."+k.name] = true
			}
		}
	case *Shed:
		if src := src.(*Shed); !dst.Pos.IsSet() && src.Pos.IsSet() {
			*dst = *src
			r.inherited[key] = true
			for _, k := range shedKeys {
				r.inherited[key+"."+k.name] = true
			}
		}
	case *Ident:
		if src := src.(*Ident); !dst.Pos.IsSet() && src.Pos.IsSet() {
			*dst = *src
			r.inherited[key] = true
			for _, k := range identKeys {
				r.inherited[key+"."+k.name] = true
			}
		}
	case *RPC:
		if src := src.(*RPC); !dst.Pos.IsSet() && src.Pos.IsSet() {
			*dst = *src
			r.inherited[key] = true
			for _, k := range rpcKeys {
				r.inherited[key+"."+k.name] = true
			}
		}
	case *Env:
		own := make(map[string]bool, len(dst.Vars))
		for _, v := range dst.Vars {
			own[v.Name] = true
		}
		dst.Vars = slices.Clip(dst.Vars)
		for _, v := range src.(*Env).Vars {
			if !own[v.Name] {
				dst.Vars = append(dst.Vars, v)
				r.inherited[key+"."+quoteKey(v.Name)] = true
			}
		}
	}
}

func takeValue[T any](r *row, key string, dst, src *Value[T]) {
	if !dst.IsSet() && src.IsSet() {
		*dst = *src
		r.inherited[key] = true
	}
}
