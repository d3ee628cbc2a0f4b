package access

import "slices"

// Users are the users and groups that may have a service over a unix socket. A
// nil *Users lets everybody in. It is immutable and safe for concurrent use.
type Users struct {
	UIDs, GIDs []uint32 // sorted; a peer that is in either is let in
}

// NewUsers makes Users of the given numbers, in any order and with repetitions.
// With both lists empty the result is nil, which lets everybody in.
func NewUsers(uids, gids []uint32) *Users {
	if len(uids) == 0 && len(gids) == 0 {
		return nil
	}
	tidy := func(list []uint32) []uint32 {
		return slices.Compact(slices.Sorted(slices.Values(list)))
	}
	return &Users{UIDs: tidy(uids), GIDs: tidy(gids)}
}

// Allows reports whether a peer with that user, group and supplementary groups
// is let in.
func (u *Users) Allows(uid, gid uint32, groups []uint32) bool {
	if u == nil {
		return true
	}
	has := func(list []uint32, n uint32) bool {
		_, ok := slices.BinarySearch(list, n)
		return ok
	}
	return has(u.UIDs, uid) || has(u.GIDs, gid) ||
		slices.ContainsFunc(groups, func(g uint32) bool { return has(u.GIDs, g) })
}

// Equal reports whether both let in the same peers.
func (u *Users) Equal(v *Users) bool {
	if u == nil || v == nil {
		return u == v
	}
	return slices.Equal(u.UIDs, v.UIDs) && slices.Equal(u.GIDs, v.GIDs)
}
