// What xinetd serves besides when it is called with -inetd_compat, which is how
// Debian calls it: the lines of an inetd.conf.

package xinetd

import (
	"cmp"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// SourceCompat is Source with the rows of an inetd.conf, which more reads; the
// defaults hold for them, too. As Debian's README of xinetd has it, a service of
// xinetd hides the line with its id, also one that is disabled: packages have both.
// hosts_access(5) is not asked for these rows, whose lines ask it by tcpd(8).
func SourceCompat(path string, more config.Source) config.Source {
	return func(disk *config.Disk) *config.File {
		l := newLoader(disk, path)
		l.load(path, config.Pos{}, nil)
		f := l.translate()
		from := more(disk)
		f.Paths = append(f.Paths, from.Paths...)
		f.Notes = append(f.Notes, from.Notes...)
		for _, p := range from.Problems {
			if !p.IsSet() { // there need not be such a file
				f.Notes = append(f.Notes, config.Note{Kind: config.Lost, Problem: &config.Problem{Pos: config.Pos{File: from.Path, Line: 1, Col: 1}, Text: p.Text + "; nothing of it is served"}})
				continue
			}
			f.Problems = append(f.Problems, p)
		}
		for _, s := range from.Services {
			if id := compatID(s); l.ids[id] {
				f.Notes = append(f.Notes, config.Note{Kind: config.Lost, Problem: &config.Problem{Pos: s.Pos, Row: s.ID, Key: id,
					Text: "is the id of a service of xinetd, which hides this line, also if it is disabled; take one of the two out"}})
				continue
			}
			if a := &s.Access; f.Defaults.Access.HostsAccess.IsSet() && !a.HostsAccess.IsSet() {
				a.HostsAccess = config.Bool{V: false, Pos: s.Pos}
				a.Pos = cmp.Or(a.Pos, s.Pos)
			}
			f.Services = append(f.Services, s)
		}
		return f
	}
}

// compatID is the id that the service of a line has under xinetd.
func compatID(s *config.Service) string {
	name := cmp.Or(s.Name.V, s.ID)
	switch {
	case !s.Builtin.IsSet():
		return name
	case strings.HasPrefix(s.Protocol.V, "udp"):
		return name + "-dgram"
	}
	return name + "-stream"
}
