//go:build amd64 || arm64

package spawn

// What is concluded from a kernel's release and settings.

import "testing"

func TestCopyReason(t *testing.T) {
	for _, c := range []struct {
		dumpable, release string
		copies            bool
	}{
		{"0", "5.10.0", false}, {"0", "", false}, {"1", "6.18.0", true}, {"1", "5.9", true},
		{"2", "5.15.0-105-generic", true}, {"2", "5.9", true}, {"2", "4.19.0", true},
		{"2", "5.16.0", false}, {"2", "6.1.0-28-cloud-arm64", false}, {"2", "6.18.44", false}, {"2", "10.0", false},
		{"2", "", true}, {"2", "x", true}, {"", "6.18", true}, {"3", "6.18", true},
	} {
		if why := copyReason(c.dumpable, c.release); (why != "") != c.copies {
			t.Errorf("suid_dumpable %q on %q: %q", c.dumpable, c.release, why)
		}
	}
}
