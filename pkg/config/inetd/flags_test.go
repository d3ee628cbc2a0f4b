package inetd

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// TestFlags: what the command line says holds where a line does not say it.
func TestFlags(t *testing.T) {
	path := filepath.Join(t.TempDir(), "inetd.conf")
	if err := os.WriteFile(path, []byte(`a stream tcp nowait root /bin/a a
b stream tcp nowait/7/8/9 root /bin/b b
c dgram udp wait root /bin/c c
echo stream tcp nowait root internal
d stream tcp nowait.9 root /bin/d d
`), 0o644); err != nil {
		t.Fatal(err)
	}
	f := SourceWith(Named("freebsd"), Flags{Host: "127.0.0.1", Rate: CountOf(0), Instances: CountOf(1), RatePerSource: CountOf(2), InstancesPerSource: CountOf(3)}, path)(config.NewDisk())
	if len(f.Services) != 5 || len(f.Problems) > 0 {
		t.Fatalf("%d rows, %v", len(f.Services), f.Problems)
	}
	for i, want := range []struct {
		listen              string
		instances           int64
		rate, each          string
		instancesPerSourceN int64
	}{
		{"127.0.0.1:a", 1, "", "2/min", 3},
		{"127.0.0.1:b", 7, "", "8/min", 9},
		{"127.0.0.1:c", 0, "", "", 0},
		{"127.0.0.1:echo", 0, "", "", 0},
		{"127.0.0.1:d", 1, "9/min", "2/min", 3},
	} {
		s := f.Services[i]
		l := s.Limits
		if len(s.Listen.V) != 1 || s.Listen.V[0].V != want.listen || l.Instances.V != want.instances || l.Rate.V != want.rate || l.RatePerSource.V != want.each || l.InstancesPerSource.V != want.instancesPerSourceN {
			t.Errorf("%s: %v, %+v", s.ID, s.Listen.V, l)
		}
	}
	for dialect, want := range map[string][3]string{ // without flags, with -l, with -w
		"freebsd": {"", "", "abcd"}, "netbsd": {"ad", "ad", "abcd"}, "openbsd": {"", "ad", "abcd"}, "gnu": {"", "", "abcd"},
	} {
		for i, flags := range []Flags{{}, {L: true}, {WrapPrograms: true}} {
			wrapped := ""
			text := "a stream tcp nowait root /bin/a a\nb stream tcp wait root /bin/b b\nc dgram udp wait root /bin/c c\necho stream tcp nowait root internal\nd stream tcp nowait root /bin/d d\n"
			if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
			for _, s := range SourceWith(Named(dialect), flags, path)(config.NewDisk()).Services {
				if s.Access.HostsAccess.V {
					wrapped += s.ID
				}
			}
			if wrapped != want[i] {
				t.Errorf("%s %+v: %q asks tcp_wrappers, want %q", dialect, flags, wrapped, want[i])
			}
		}
	}
	f = SourceWith(Named("freebsd"), Flags{WrapBuiltins: true}, path)(config.NewDisk())
	if !f.Services[3].Access.HostsAccess.V || f.Services[0].Access.HostsAccess.V {
		t.Error("-W is about what is built in")
	}
	f = SourceWith(Named("freebsd"), Flags{Rate: CountOf(5)}, path)(config.NewDisk())
	if r := f.Services[0].Limits.Rate.V; r != "5/min" {
		t.Errorf("rate %q", r)
	}
}
