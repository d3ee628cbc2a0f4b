// What of access.allow and access.deny decides about nobody: an administrator who
// writes it means something else. Files of sets may change at any time, so that
// nothing is said of them, nor of what would be otherwise without them.

package config

import (
	"fmt"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

// shadowed warns of entries that could be taken out and nobody would notice. What
// comes from [defaults] may decide in another row.
func (r *row) shadowed(allow, deny []entry) {
	const allowKey, denyKey = "access.allow", "access.deny"
	if (len(allow) == 0 || r.inherited[allowKey]) && (len(deny) == 0 || r.inherited[denyKey]) {
		return
	}
	allow, someAllowed := fixed(allow)
	deny, someDenied := fixed(deny)
	idle := make(map[netip.Prefix]access.Idle)
	for i := range r.rules(allow, deny, r.text.Access.Allow.IsSet()).Idle() {
		files := someAllowed
		if i.Verdict == access.Allow {
			files = someDenied
		}
		if i.Reason == access.AllReplaced || !files {
			idle[i.Prefix] = i
		}
	}
	denied := make(map[netip.Prefix]entry)
	for _, e := range deny {
		for _, p := range e.prefixes {
			denied[p] = e
		}
	}
	r.shadowedIn(denyKey, deny, idle, nil)
	r.shadowedIn(allowKey, allow, idle, denied)
}

// shadowedIn warns of entries of one list; denied is what the other one takes from
// it.
func (r *row) shadowedIn(key string, list []entry, idle map[netip.Prefix]access.Idle, denied map[netip.Prefix]entry) {
	if r.inherited[key] {
		return
	}
	seen := make(map[netip.Prefix]entry)
	for _, e := range list {
		why := ""
		for _, p := range e.prefixes {
			if other, twice := seen[p]; twice {
				why = "it stands in the list already, " + told(other)
			} else if other, both := denied[p]; both {
				why = "it is denied as well, " + told(other)
			} else if i, is := idle[p]; is {
				why = because(i)
			} else {
				why = ""
				break
			}
		}
		for _, p := range e.prefixes {
			if _, twice := seen[p]; !twice {
				seen[p] = e
			}
		}
		if why != "" && len(e.prefixes) > 1 {
			why = "other rules decide about all that is in it"
		}
		if why != "" {
			r.warnf(key, e.Pos, "%s changes nothing: %s; take it out", e.V, why)
		}
	}
}

// fixed are the entries that only a change of the configuration changes; files
// says that there are others.
func fixed(list []entry) (own []entry, files bool) {
	for _, e := range list {
		if e.file {
			files = true
		} else {
			own = append(own, e)
		}
	}
	return own, files
}

func told(e entry) string { return fmt.Sprintf("by %s (%s)", e.V, e.Pos) }

func because(i access.Idle) string {
	switch {
	case i.Reason == access.AllReplaced:
		return "more specific rules cover all of it"
	case i.Reason == access.SameAs && i.Verdict == access.Allow:
		return fmt.Sprintf("%s lets these peers in", i.By)
	case i.Reason == access.SameAs:
		return fmt.Sprintf("%s keeps these peers out", i.By)
	}
	return "access.allow does not let these peers in"
}
