// Who may come: prefixes for peers with an address, users and groups for peers on
// unix sockets. What cannot be judged on one of a row's sockets is an error.

package config

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func (r *row) access() {
	a := &r.text.Access
	for _, l := range []struct {
		key   string
		list  List
		write string
	}{
		{"access.allow", a.Allow, "would let everybody in; take it out, or write deny = [\"0.0.0.0/0\", \"::/0\"]"},
		{"access.interfaces", a.Interfaces, "would let everybody in; take it out, or write an interface's name such as \"eth0\""},
		{"access.local", a.Local, "would let everybody in; take it out, or write an address of this machine"},
	} {
		if l.list.IsSet() && len(l.list.V) == 0 {
			r.errorf(l.key, l.list.Pos, "an empty list %s", l.write)
		}
	}
	errors := len(r.c.errors)
	allow, deny := r.entries("access.allow", a.Allow), r.entries("access.deny", a.Deny)
	r.bothWays(allow, deny)
	r.svc.Access = r.rules(allow, deny, a.Allow.IsSet())
	if len(r.c.errors) == errors {
		r.shadowed(allow, deny)
	}
	if a.Local.IsSet() {
		locals, err := access.NewListed(r.prefixes("access.local", a.Local, nil), nil)
		if err != nil {
			r.errorf("access.local", a.Local.Pos, "%v", err)
		}
		r.svc.Locals = locals
	}
	r.interfaces()
	r.svc.Hours = r.hours()
	r.users()
}

// rules makes rules of two lists; listed says that the first is there, even if
// there is nothing in its sets. Where sets make a prefix stand in both it is
// denied. Rows with the same lists have the same rules.
func (r *row) rules(allow, deny []entry, listed bool) *access.Rules {
	if len(allow) == 0 && len(deny) == 0 && !listed {
		return nil
	}
	var key strings.Builder
	denied := make(map[netip.Prefix]bool)
	var out, in []netip.Prefix
	for _, e := range deny {
		key.WriteString(e.V + " ")
		for _, p := range e.prefixes {
			denied[p] = true
			out = append(out, p)
		}
	}
	fmt.Fprintf(&key, "| %v ", listed)
	for _, e := range allow {
		key.WriteString(e.V + " ")
		for _, p := range e.prefixes {
			if !denied[p] {
				in = append(in, p)
			}
		}
	}
	if rules, ok := r.c.rules[key.String()]; ok {
		return rules
	}
	rules, err := access.New(in, out)
	if listed {
		rules, err = access.NewListed(in, out)
	}
	if err != nil {
		r.errorf("access", r.text.Access.Pos, "%v", err)
	}
	r.c.rules[key.String()] = rules
	return rules
}

// bothWays reports prefixes that are written in both lists.
func (r *row) bothWays(allow, deny []entry) {
	allowed := make(map[netip.Prefix]Pos)
	for _, e := range allow {
		if _, ok := allowed[first(e)]; !ok && !e.set {
			allowed[first(e)] = e.Pos
		}
	}
	for _, e := range deny {
		if other, twice := allowed[first(e)]; twice && !e.set {
			r.errorf("access.deny", e.Pos, "%s stands in allow, too (%s); take one of them out", first(e), other)
		}
	}
}

// first is the prefix of an entry that is no set.
func first(e entry) (p netip.Prefix) {
	if !e.set {
		p = e.prefixes[0]
	}
	return p
}

// interfaces reads access.interfaces.
func (r *row) interfaces() {
	var list []string
	for _, s := range r.text.Access.Interfaces.V {
		switch {
		case !s.IsSet() || !r.plain("access.interfaces", s, maxDeviceName, "an interface's name such as \"eth0\""):
			continue
		case !validDevice(s.V):
			r.errorf("access.interfaces", s.Pos, "%s is no interface's name; write one such as \"eth0\" instead", clip(s.V))
			continue
		case r.c.o.Up != nil && !r.c.asked.isUp(r.c.o, netip.Addr{}, s.V):
			r.warnf("access.interfaces", s.Pos, "there is no interface %q; nobody comes in by it until there is", s.V)
		}
		list = append(list, s.V)
	}
	slices.Sort(list)
	r.svc.Interfaces = slices.Compact(list)
}

// users reads access.uids and access.gids.
func (r *row) users() {
	a := &r.text.Access
	var uids, gids []uint32
	for _, u := range a.UIDs.V {
		if !u.IsSet() {
			continue
		}
		if user, err := r.c.asked.user(r.c.o.Accounts, u.V); err != nil {
			r.vanished("access.uids", u, err, "the name of a user or a number")
		} else {
			uids = append(uids, user.UID)
		}
	}
	for _, g := range a.GIDs.V {
		if !g.IsSet() {
			continue
		}
		if gid, err := r.c.asked.group(r.c.o.Accounts, g.V); err != nil {
			r.vanished("access.gids", g, err, "the name of a group or a number")
		} else {
			gids = append(gids, gid)
		}
	}
	for _, l := range []struct {
		key  string
		list List
	}{{"access.uids", a.UIDs}, {"access.gids", a.GIDs}} {
		if l.list.IsSet() && len(l.list.V) == 0 {
			r.errorf(l.key, l.list.Pos, "an empty list would let everybody in; take it out, or write \"root\"")
		}
	}
	r.svc.Users = access.NewUsers(uids, gids)
	if r.svc.Users == nil && (a.UIDs.IsSet() || a.GIDs.IsSet()) {
		r.svc.Users = &access.Users{} // all have vanished: nobody
	}
}

// judgesWays is judges for how and when a peer has to come.
func (r *row) judgesWays() {
	a := &r.text.Access
	for _, b := range r.listen {
		if b.Network.IP() {
			continue
		}
		for _, l := range []struct {
			key, what string
			list      List
		}{{"access.interfaces", "interface", a.Interfaces}, {"access.local", "address", a.Local}} {
			if l.list.IsSet() {
				r.errorf(l.key, l.list.Pos, "peers on %s come to no %s; take one of the two out, or make two rows", b.Endpoint, l.what)
			}
		}
		if a.Hours.IsSet() && r.wait {
			r.errorf("access.hours", a.Hours.Pos, "row %q has wait = true, so its program takes the peers of %s, and the kernel judges by the clock only what has an address; take it out", r.text.ID, b.Endpoint)
		}
		if a.HostsAccess.V && r.wait {
			r.errorf("access.hosts_access", a.HostsAccess.Pos, "row %q has wait = true, so its program takes the peers of %s, and nobody can judge them before; write access.hosts_access = false in the row", r.text.ID, b.Endpoint)
		}
		return // one socket is enough
	}
}

// judges checks that the row's access can judge the peers of each of its
// sockets. A peer that nothing judges would be let in or kept out against what
// was meant.
func (r *row) judges() {
	a := &r.text.Access
	ip, ipKey := a.Allow, "access.allow"
	if !ip.IsSet() {
		ip, ipKey = a.Deny, "access.deny"
	}
	users, usersKey := a.UIDs, "access.uids"
	if !users.IsSet() {
		users, usersKey = a.GIDs, "access.gids"
	}
	r.judgesWays()
	if !ip.IsSet() && !users.IsSet() {
		return
	}
	for _, b := range r.listen {
		switch n := b.Network; {
		case n.Vsock():
			key, pos := ipKey, ip.Pos
			if !ip.IsSet() {
				key, pos = usersKey, users.Pos
			}
			r.errorf(key, pos, "says nothing of machines, and row %q listens on %s; take one of the two out", r.text.ID, b.Endpoint)
		case n.Unix() && !users.IsSet():
			r.errorf(ipKey, ip.Pos, "says nothing of users, and row %q listens on %s; write access.uids or access.gids as well", r.text.ID, b.Endpoint)
		case n == service.UnixDgram:
			r.errorf(usersKey, users.Pos, "nobody is known to be the peer of datagrams on %s; take it out, and say by socket_mode and socket_group who may write", b.Endpoint)
		case n.Unix() && r.wait:
			r.errorf(usersKey, users.Pos, "row %q has wait = true, so its program accepts the peers of %s and nobody can judge them before; take it out, and say by socket_mode and socket_group who may connect", r.text.ID, b.Endpoint)
		case n.IP() && !ip.IsSet():
			r.errorf(usersKey, users.Pos, "says nothing of addresses, and row %q listens on %s; write access.allow as well", r.text.ID, b.Endpoint)
		default:
			continue
		}
		return // one socket is enough
	}
}
