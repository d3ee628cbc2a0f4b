// Who may come: prefixes for peers with an address, users and groups for peers on
// unix sockets. What cannot be judged on one of a row's sockets is an error.

package config

import (
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func (r *row) access() {
	allowed := make(map[netip.Prefix]Pos)
	allow := r.prefixes("access.allow", r.text.Access.Allow, func(p netip.Prefix, pos Pos) bool {
		if _, ok := allowed[p]; !ok {
			allowed[p] = pos
		}
		return true
	})
	deny := r.prefixes("access.deny", r.text.Access.Deny, func(p netip.Prefix, pos Pos) bool {
		other, twice := allowed[p]
		if twice {
			r.errorf("access.deny", pos, "%s stands in allow, too (%s); take one of them out", p, other)
		}
		return !twice
	})
	if l := r.text.Access.Allow; l.IsSet() && len(l.V) == 0 {
		r.errorf("access.allow", l.Pos, "an empty list would let everybody in; take it out, or write deny = [\"0.0.0.0/0\", \"::/0\"]")
	}
	rules, err := access.New(allow, deny)
	if err != nil {
		r.errorf("access", r.text.Access.Pos, "%v", err)
	}
	r.svc.Access = rules
	r.users()
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

// prefixes reads a list of addresses and prefixes; keep may refuse one.
func (r *row) prefixes(key string, l List, keep func(netip.Prefix, Pos) bool) []netip.Prefix {
	var out []netip.Prefix
	for _, s := range l.V {
		if !s.IsSet() {
			continue
		}
		p, err := netip.ParsePrefix(s.V)
		if err != nil {
			var a netip.Addr
			if a, err = netip.ParseAddr(s.V); err == nil && a.Zone() == "" {
				p = netip.PrefixFrom(a, a.BitLen())
			}
		}
		if a := p.Addr(); a.Is4In6() && p.Bits() >= 96 {
			p = netip.PrefixFrom(a.Unmap(), p.Bits()-96)
		}
		switch {
		case !p.IsValid():
			r.errorf(key, s.Pos, "%s is no address or prefix; write one such as \"192.0.2.0/24\" or \"2001:db8::/32\" instead", clip(s.V))
		case p.Addr().Is4In6():
			r.errorf(key, s.Pos, "%s covers IPv4 and more; write \"0.0.0.0/0\" or \"::/0\" instead", clip(s.V))
		case p != p.Masked():
			r.errorf(key, s.Pos, "%s has bits after its %d; write \"%s\" for the network or \"%s\" for the host instead", clip(s.V), p.Bits(), p.Masked(), p.Addr())
		case keep(p, s.Pos):
			out = append(out, p)
		}
	}
	return out
}
