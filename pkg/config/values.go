// The values that more than one key has, and the keys that are nothing but
// such values.

package config

import (
	"fmt"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// values compiles every key of the row.
func (r *row) values() {
	s, v := r.text, r.svc
	v.Hidden = s.Hidden.V
	v.Builtin = choose(r, "builtin", s.Builtin, builtinWords)
	v.Help = choose(r, "help", s.Help, []choice[service.Help]{{"allowed", service.HelpAllowed}, {"all", service.HelpAll}, {"off", service.HelpOff}})
	timeout := r.duration("timeout", s.Timeout, 10*time.Second, 100*time.Millisecond, time.Hour, 0)
	if r.kind == multiplexer {
		v.Timeout = timeout
	}
	v.OnReload = choose(r, "on_reload", s.OnReload, []choice[service.OnReload]{{"finish", service.ReloadFinish}, {"end", service.ReloadEnd}})
	v.OnStop = choose(r, "on_stop", s.OnStop, []choice[service.OnStop]{{"leave", service.StopLeave}, {"term", service.StopTerm}, {"kill", service.StopKill}})
	r.access()
	r.sensor()
	r.ident()
	r.limits()
	r.clocks()
	if r.kind&sockets != 0 {
		r.endpoints()
	}
	if r.isDefaults() {
		r.socket() // a row does so when it is known where it listens
		r.proxies()
		r.rpc()
	}
	if r.kind&forwards != 0 {
		r.forward()
	}
	if r.kind&programs != 0 {
		r.exec()
	}
	r.hostsAccess() // which goes by the name of the program
}

var builtinWords = []choice[service.Builtin]{{"", service.BuiltinNone}, {"tcpmux", service.BuiltinTCPMUX},
	{"echo", service.BuiltinEcho}, {"discard", service.BuiltinDiscard}, {"chargen", service.BuiltinChargen},
	{"daytime", service.BuiltinDaytime}, {"time", service.BuiltinTime}, {"sensor", service.BuiltinSensor}, {"auth", service.BuiltinAuth}}

// The clocks of what runs in the daemon, and of sessions. A character generator
// never stops by itself, and its peer need not say anything: it has the shortest.
const (
	maxClock        = 8760 * time.Hour
	defaultIdle     = time.Minute
	defaultLifetime = 10 * time.Minute
	chargenLifetime = time.Minute
)

// clocks reads idle and lifetime.
func (r *row) clocks() {
	s, v := r.text, r.svc
	var idle, lifetime, least time.Duration
	b := v.Builtin
	switch {
	case r.isDefaults() || r.kind&forwards != 0:
	case r.session():
		idle, least = defaultIdle, time.Second
	case r.kind&(builtinDirect|builtinMux) != 0 && r.style == stream && (b == service.BuiltinEcho || b == service.BuiltinDiscard || b == service.BuiltinChargen):
		idle, lifetime, least = defaultIdle, defaultLifetime, time.Second
		if b == service.BuiltinChargen {
			lifetime = chargenLifetime
		}
	default:
		why := "only a session, of a row with datagrams and without wait, ends when its peer is silent; the program of this row ends by itself"
		if r.kind&(builtinDirect|builtinMux) != 0 {
			why = "it says one thing and is done"
		}
		if b == service.BuiltinSensor {
			why = "it serves nobody"
		}
		if b == service.BuiltinAuth {
			why = "it has ident.timeout for all"
		}
		if r.answers() {
			why = "each datagram is answered by itself"
		}
		for _, k := range []struct {
			key   string
			value String
		}{{"idle", s.Idle}, {"lifetime", s.Lifetime}} {
			if k.value.IsSet() && !r.inherited[k.key] && !r.both && r.kind&find(serviceKeys, k.key).kinds != 0 {
				r.errorf(k.key, k.value.Pos, "means nothing for this row: %s; take it out", why)
			}
		}
		return
	}
	v.Idle = r.duration("idle", s.Idle, idle, least, maxClock, 0)
	v.Lifetime = r.duration("lifetime", s.Lifetime, lifetime, least, maxClock, 0)
	if r.kind == execDirect {
		v.Lifetime = 0
	}
}

// A choice is a word and what it stands for.
type choice[T any] struct {
	word  string
	value T
}

// choose finds the word s among choices. The first is the default; an empty
// word is nothing one can write.
func choose[T any](r *row, key string, s String, choices []choice[T]) T {
	if !s.IsSet() {
		return choices[0].value
	}
	var words []string
	for _, c := range choices {
		if c.word == "" {
			continue
		}
		if c.word == s.V {
			return c.value
		}
		words = append(words, c.word)
	}
	r.errorf(key, s.Pos, "%s is none of its values; write %s instead", clip(s.V), either(words))
	return choices[0].value
}

// number returns i, or def if it was not written or is out of bounds.
func (r *row) number(key string, i Int, def, lo, hi int64) int64 {
	if !i.IsSet() {
		return def
	}
	if i.V < lo || i.V > hi {
		r.errorf(key, i.Pos, "%d is out of bounds; write a number from %d to %d instead", i.V, lo, hi)
		return def
	}
	return i.V
}

// duration reads "10s", "1m30s" and the like. With a unit the duration must be
// a whole number of it: the kernel takes only those.
func (r *row) duration(key string, s String, def, lo, hi, unit time.Duration) time.Duration {
	if !s.IsSet() {
		return def
	}
	d, err := time.ParseDuration(s.V)
	switch {
	case err != nil && strings.Trim(s.V, "0123456789") == "" && s.V != "":
		r.errorf(key, s.Pos, "%s has no unit; write \"%ss\" instead", clip(s.V), clipped(s.V))
	case err != nil:
		r.errorf(key, s.Pos, "%s is no duration; write one such as \"10s\", \"500ms\" or \"1m30s\" instead", clip(s.V))
	case d == 0 && s.V == "0":
		r.errorf(key, s.Pos, "\"0\" has no unit; write \"0s\" instead")
	case d < lo || d > hi:
		r.errorf(key, s.Pos, "%s is out of bounds; write a duration from \"%s\" to \"%s\" instead", clip(s.V), short(lo), short(hi))
	case unit != 0 && d%unit != 0:
		r.errorf(key, s.Pos, "the kernel counts whole seconds here; write \"%s\" instead", short((d + unit - 1).Truncate(unit)))
	default:
		return d
	}
	return def
}

// short writes a duration in its largest unit that is whole, down to seconds.
func short(d time.Duration) string {
	for _, u := range []struct {
		unit time.Duration
		name string
	}{{time.Hour, "h"}, {time.Minute, "m"}, {time.Second, "s"}} {
		if d >= u.unit && d%u.unit == 0 {
			return fmt.Sprintf("%d%s", d/u.unit, u.name)
		}
	}
	return d.String()
}

func clipped(s string) string { return s[:min(len(s), 60)] }

// plain checks that a string is not empty, not longer than max bytes and has
// no NUL in it, which the kernel would take for its end.
func (r *row) plain(key string, s String, max int, write string) bool {
	switch {
	case s.V == "":
		r.errorf(key, s.Pos, "an empty string; write %s instead", write)
	case len(s.V) > max:
		r.errorf(key, s.Pos, "a string of %d bytes; write %s of at most %d instead", len(s.V), write, max)
	case strings.ContainsRune(s.V, 0):
		r.errorf(key, s.Pos, "a string with a NUL in it; write %s without one instead", write)
	default:
		return true
	}
	return false
}
