package xinetd

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/inetd"
)

// TestCompat: which lines of an inetd.conf are served beside an xinetd.conf, and as
// what.
func TestCompat(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) string {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	path := write("xinetd.conf", `
defaults
{
	only_from = 10.0.0.0
}
service finger
{
	disable = yes
}
service amanda
{
	socket_type = stream
	wait        = no
	user        = root
	server      = /usr/lib/amanda/amandad
	only_form   = 10.1.0.0
}
service daytime
{
	type        = INTERNAL
	id          = daytime-stream
	socket_type = stream
	wait        = no
}
`)
	lines := write("inetd.conf", `finger stream tcp nowait nobody /usr/sbin/tcpd in.fingerd
amanda stream tcp nowait backup /usr/lib/amanda/amandad amandad
daytime stream tcp nowait root internal
daytime dgram udp wait root internal
ftp stream tcp nowait root /usr/sbin/tcpd in.ftpd
ssh stream
`)
	read := func(lines string) *config.File {
		return SourceCompat(path, inetd.Source(inetd.Named("debian"), lines))(config.NewDisk())
	}
	f := read(lines)
	var served, hidden []string
	for _, s := range f.Services {
		if s.Pos.File == lines {
			served = append(served, s.ID)
			if a := s.Access; !a.HostsAccess.IsSet() || a.HostsAccess.V || !a.Pos.IsSet() {
				t.Errorf("%s: hosts.allow is asked beside tcpd: %+v", s.ID, a)
			}
		}
	}
	for _, n := range f.Notes {
		if strings.Contains(n.Text, "hides this line") {
			hidden = append(hidden, n.Key)
		}
	}
	// amanda: of a service that is left out because of what would keep peers out.
	if !slices.Equal(served, []string{"daytime-udp", "ftp"}) || !slices.Equal(hidden, []string{"finger", "amanda", "daytime-stream"}) {
		t.Errorf("%q are served, %q hidden", served, hidden)
	}
	if !slices.ContainsFunc(f.Problems, func(p *config.Problem) bool { return p.File == lines && p.Line == 6 }) {
		t.Errorf("the broken line is not in %v", f.Problems)
	}
	if !slices.Contains(f.Paths, lines) || !f.SkipBad {
		t.Errorf("paths %q, SkipBad %v", f.Paths, f.SkipBad)
	}
	// There need not be one.
	f = read(filepath.Join(dir, "nonesuch"))
	if _, _, err := config.Compile(f, machineOfTests()); err != nil {
		t.Error(err)
	}
	if !slices.ContainsFunc(f.Notes, func(n config.Note) bool { return strings.Contains(n.Text, "nothing of it is served") }) {
		t.Errorf("nothing is said of a file that is not there: %v", f.Notes)
	}
}
