// What builtin = "auth" tells of whose a connection is: the table ident.

package config

import (
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// What holds where nothing is written: nothing leaks, in the time that FreeBSD's
// inetd gives it.
const (
	defaultIdentOS      = "UNIX"
	defaultIdentTimeout = 10 * time.Second
	maxIdentTimeout     = time.Hour
	maxIdentOS          = 64
	maxIdentName        = 64
)

// ident reads the table ident.
func (r *row) ident() {
	s, own := &r.text.Ident, !r.inherited["ident"]
	if r.svc.Builtin != service.BuiltinAuth && !r.isDefaults() {
		if s.Pos.IsSet() && own && !r.both && r.kind&(builtinDirect|builtinMux) != 0 {
			r.errorf("ident", s.Pos, "only builtin = \"auth\" has it; take it out")
		}
		return
	}
	out := service.Ident{
		Reply: choose(r, "ident.reply", s.Reply, []choice[service.IdentReply]{{"hidden", service.IdentHidden},
			{"name", service.IdentName}, {"uid", service.IdentUID}, {"random", service.IdentRandom}}),
		OS:       r.identWord("ident.os", s.OS, defaultIdentOS, maxIdentOS),
		Fallback: r.identWord("ident.fallback", s.Fallback, "", maxIdentName),
		Fakeid: choose(r, "ident.fakeid", s.Fakeid, []choice[service.Fakeid]{{"off", service.FakeidOff},
			{"unused", service.FakeidUnused}, {"any", service.FakeidAny}}),
		Noident: s.Noident.V,
		Timeout: r.duration("ident.timeout", s.Timeout, defaultIdentTimeout, 100*time.Millisecond, maxIdentTimeout, 0),
	}
	if !out.Reply.Looks() && !r.bad("ident.reply") {
		// It would look as if these were heeded.
		for _, k := range []struct {
			key string
			on  bool
			pos Pos
		}{{"ident.fakeid", out.Fakeid != service.FakeidOff, s.Fakeid.Pos}, {"ident.noident", out.Noident, s.Noident.Pos}} {
			if k.on {
				r.errorf(k.key, k.pos, "nobody is looked up; write reply = \"name\" beside it, or take it out")
			}
		}
	}
	if out.Reply == service.IdentRandom && s.Fallback.IsSet() {
		r.errorf("ident.fallback", s.Fallback.Pos, "every answer is made up; write another reply beside it, or take it out")
	}
	if r.isDefaults() {
		return
	}
	r.svc.Ident = out
	if r.style == dgram {
		r.errorf("builtin", r.text.Builtin.Pos, "RFC 1413 is spoken over TCP; write socket = \"stream\" instead")
	}
}

// identWord reads what stands in a field of an answer.
func (r *row) identWord(key string, s String, def string, most int) string {
	if !s.IsSet() {
		return def
	}
	if s.V == "" || len(s.V) > most || strings.IndexFunc(s.V, func(c rune) bool { return c <= ' ' || c > '~' || c == ':' }) >= 0 {
		r.errorf(key, s.Pos, "%s cannot stand in an answer; write 1 to %d printable characters without blanks and colons instead", clip(s.V), most)
		return def
	}
	return s.V
}

// identEnds checks that the peers of the row have connections that can be found by
// their two ends, when it is known where it listens.
func (r *row) identEnds() {
	if r.svc.Builtin != service.BuiltinAuth || r.isDefaults() {
		return
	}
	for _, b := range r.listen {
		if !b.Network.TCP() && !b.Network.UDP() { // which has been said
			r.errorf("listen", b.pos, "RFC 1413 is about connections between two IP addresses; write a port, or take it out")
		}
	}
	if r.svc.ProxyFrom != nil {
		r.errorf("proxy_from", r.text.ProxyFrom.Pos, "a connection that comes through a load balancer ends there, and nobody can be told whose it is here; write proxy_from = [] in row %q", r.text.ID)
	}
}
