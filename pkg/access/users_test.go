package access

import (
	"slices"
	"testing"
)

func TestUsers(t *testing.T) {
	if NewUsers(nil, nil) != nil || NewUsers([]uint32{}, []uint32{}) != nil {
		t.Error("nobody is named, and not everybody is let in")
	}
	if u := NewUsers([]uint32{7, 0, 7}, []uint32{5, 4, 5}); !slices.Equal(u.UIDs, []uint32{0, 7}) || !slices.Equal(u.GIDs, []uint32{4, 5}) {
		t.Errorf("%+v", u)
	}
	both := NewUsers([]uint32{1000, 0}, []uint32{50, 4})
	users, groups := NewUsers([]uint32{1000}, nil), NewUsers(nil, []uint32{50})
	for _, tt := range []struct {
		desc     string
		u        *Users
		uid, gid uint32
		groups   []uint32
		want     bool
	}{
		{"everybody", nil, 1, 1, nil, true},
		{"by user", both, 1000, 1, nil, true},
		{"root is a user like any other", users, 0, 0, nil, false},
		{"root where it is named", both, 0, 0, nil, true},
		{"by group", both, 1, 50, nil, true},
		{"by a supplementary group", both, 1, 1, []uint32{9, 4}, true},
		{"by none", both, 1, 1, []uint32{9, 51}, false},
		{"a group of a user's number", users, 1, 1000, []uint32{1000}, false},
		{"a user of a group's number", groups, 50, 1, nil, false},
		{"groups alone", groups, 1, 1, []uint32{50}, true},
	} {
		if got := tt.u.Allows(tt.uid, tt.gid, tt.groups); got != tt.want {
			t.Errorf("%s: %v", tt.desc, got)
		}
	}
}
