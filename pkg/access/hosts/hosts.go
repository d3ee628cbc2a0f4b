// Package hosts decides by tcp_wrappers' files, hosts.allow and hosts.deny, whether
// a peer may have a daemon: hosts_access(5) and hosts_options(5).
//
// The rules are read in their order, those of hosts.allow first, and the first that
// matches decides; whom none matches is let in. Nobody is asked what an address is
// called or who its user is, and no command is run. What could only be told so is
// neither true nor false here but open, and is decided against the peer: a rule
// that is open does not allow, and does deny. So nobody is let in whom tcp_wrappers
// would keep out; the opposite there may be, and a Note says where.
//
// The package opens no sockets and no files, counts and logs nothing, and changes
// nothing of a process: of options other than allow and deny a Note says what
// becomes of them.
package hosts

import (
	"fmt"
	"net/netip"
	"strings"
)

// Rules are what is in both files. They are not changed once they are read, and
// safe for concurrent use. Those of no files let everybody in.
type Rules struct {
	rules []*rule
	sum   uint64 // of all that was read
}

// A rule is a line of one of the files.
type rule struct {
	daemons list[daemon]
	clients list[pattern]
	allow   bool
	file    string // without its directory
	line    int
	notes   []Note
}

// A Note says what is not done as a line has it, and what follows from it.
type Note struct {
	File string // with its directory
	Line int
	Text string
}

// A Daemon is the rules for one daemon. It is not changed once it is made, and safe
// for concurrent use. A nil *Daemon lets everybody in.
type Daemon struct {
	name  string
	rules []ruled
	local bool // some rule has the address a peer has come to
	texts bool // some pattern is compared with an address as it is written
	sum   uint64
}

// A ruled is a rule for one daemon.
type ruled struct {
	local   *list[pattern] // what a peer has to have come to; nil: anything
	clients *list[pattern]
	allow   bool
	where   string
}

// For is what the rules say of the daemon of this name, with the notes on the lines
// that are about it.
func (r *Rules) For(name string) (*Daemon, []Note) {
	d := &Daemon{name: name, sum: r.sum}
	var notes []Note
	for _, rule := range r.rules {
		local, ends := of(&rule.daemons, name)
		if !ends && match(local, who{}) == no {
			continue
		}
		c := ruled{clients: &rule.clients, allow: rule.allow, where: fmt.Sprintf("%s:%d %s", rule.file, rule.line, name)}
		if ends {
			c.local, d.local = local, true
			d.texts = d.texts || hasText(local)
		}
		d.texts = d.texts || hasText(&rule.clients)
		d.rules = append(d.rules, c)
		notes = append(notes, rule.notes...)
	}
	return d, notes
}

// NeedsLocal reports whether Check wants to know which address a peer has come to.
func (d *Daemon) NeedsLocal() bool { return d != nil && d.local }

// Equal reports whether both are the rules of the same files for the same daemon.
func (d *Daemon) Equal(e *Daemon) bool {
	return d == e || d != nil && e != nil && d.name == e.name && d.sum == e.sum
}

// Check says whether the peer at a may have the daemon at local; if not, rule is
// the file, line and daemon that decided it: "hosts.deny:3 in.ftpd". A v4-mapped
// address is a v4 address, and a zone is of no account. Of an address that is not
// valid nothing is known: only ALL matches it for certain.
//
// Check looks at one rule after the other, and allocates nothing unless a pattern
// has to be compared with the text of an address.
func (d *Daemon) Check(a, local netip.Addr) (ok bool, rule string) {
	if d == nil || len(d.rules) == 0 {
		return true, ""
	}
	return d.decide(exactly(a, d.texts), exactly(local, d.texts && d.local))
}

func (d *Daemon) decide(peer, local who) (ok bool, rule string) {
	for i := range d.rules {
		r := &d.rules[i]
		m := yes
		if r.local != nil {
			m = match(r.local, local)
		}
		if m = min(m, match(r.clients, peer)); m == yes && r.allow {
			return true, ""
		} else if m != no && !r.allow {
			return false, r.where
		}
	}
	return true, ""
}

// Prefixes are prefixes to let in and to keep out, the most specific of which
// decides as Check does; 0.0.0.0/0 and ::/0 are always among them. They are for
// somebody who knows no more of a packet than where it comes from. Where that is
// not all that a rule asks, it is open, and exact is false.
func (d *Daemon) Prefixes() (allow, deny []netip.Prefix, exact bool) {
	all := map[netip.Prefix]bool{netip.PrefixFrom(netip.IPv4Unspecified(), 0): true, netip.PrefixFrom(netip.IPv6Unspecified(), 0): true}
	if d != nil {
		for _, r := range d.rules {
			prefixes(r.clients, all)
		}
	}
	// Between a prefix and those within it all addresses are within the same
	// prefixes, so that one answer is right for all of them.
	for p := range all {
		if ok := d == nil; ok {
			allow = append(allow, p)
		} else if ok, _ = d.decide(who{region: p}, who{}); ok {
			allow = append(allow, p)
		} else {
			deny = append(deny, p)
		}
	}
	return allow, deny, d == nil || !d.local && !d.texts
}

// An answer is what is known of whether something matches. They have the order of
// Kleene's logic: "and" is the lesser, "or" the greater.
type answer int8

const (
	no answer = iota
	open
	yes
)

// A who is what is known of an address: that it is in region, and not in a smaller
// prefix that some rule has; and how it is written, if it is one address.
type who struct {
	region netip.Prefix // not valid: nothing is known
	text   string
}

// exactly is one address; its text is made only where somebody wants it.
func exactly(a netip.Addr, text bool) who {
	if !a.IsValid() {
		return who{}
	}
	a = a.Unmap().WithZone("")
	w := who{region: netip.PrefixFrom(a, a.BitLen())}
	if text {
		w.text = a.String()
	}
	return w
}

// A list is patterns of which one has to match, while those after EXCEPT do not.
type list[T any] struct {
	any    []T
	except *list[T]
}

func match(l *list[pattern], w who) answer {
	m := no
	for i := range l.any {
		if m = max(m, l.any[i].match(w)); m == yes {
			break
		}
	}
	if l.except != nil && m != no {
		m = min(m, yes-match(l.except, w))
	}
	return m
}

// A daemon is a pattern for the name of a daemon and, if host is not nil, one for
// the address where it is asked for.
type daemon struct {
	name string
	host *pattern
}

// of is the list as it is for the daemon of a name: what is left to ask is where a
// peer has come to, if ends is true, and else nothing.
func of(l *list[daemon], name string) (local *list[pattern], ends bool) {
	local = new(list[pattern])
	for _, d := range l.any {
		switch {
		case !matchText(d.name, name):
		case d.host != nil:
			local.any = append(local.any, *d.host)
			ends = true
		default:
			local.any = append(local.any, pattern{kind: everybody})
		}
	}
	if l.except != nil {
		var e bool
		local.except, e = of(l.except, name)
		ends = ends || e
	}
	return local, ends
}

// words cuts a list as hosts_access(5) has it.
func words(s string) []string {
	return strings.FieldsFunc(s, func(r rune) bool { return strings.ContainsRune(" ,\t\r\n", r) })
}
