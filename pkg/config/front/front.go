// Package front finds out for which super-server a file was written, and has the
// front end for it read it. It decides by the name of the file and by what is in
// it, and nobody has to say more; who wants to can.
package front

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/inetd"
	"github.com/tcpmuxd/tcpmuxd/pkg/config/xinetd"
)

// Dialects are the words for what a file may be: toml, xinetd for an
// xinetd.conf(5), inetd for any inetd.conf(5), and the inetds one by one.
func Dialects() []string { return append([]string{"toml", "xinetd", "inetd"}, inetd.Names()...) }

// Source reads the files, of which there is at least one, as dialect says, one of
// Dialects; if it is empty, as what the first of them looks like. A directory is
// one of inetd files. The error says which words there are.
func Source(dialect string, paths ...string) (config.Source, error) {
	switch d := inetd.Named(dialect); {
	case d != nil:
		return inetd.Source(d, paths...), nil
	case dialect == "inetd":
		return inetd.Source(nil, paths...), nil
	case dialect == "toml":
		return alone(config.TOML, paths), nil
	case dialect == "xinetd":
		return alone(xinetd.Source, paths), nil
	case dialect != "":
		return nil, fmt.Errorf("there is no dialect %q; write %s", dialect, strings.Join(Dialects(), ", "))
	}
	return func(d *config.Disk) *config.File {
		switch {
		case isXinetd(d, paths[0]):
			return alone(xinetd.Source, paths)(d)
		case isInetd(d, paths[0]):
			return inetd.Source(nil, paths...)(d)
		}
		return alone(config.TOML, paths)(d)
	}, nil
}

// alone reads one file, which includes what others there are.
func alone(source func(path string) config.Source, paths []string) config.Source {
	return func(d *config.Disk) *config.File {
		f := source(paths[0])(d)
		for _, p := range paths[1:] {
			f.Problems = append(f.Problems, &config.Problem{Text: fmt.Sprintf("%s is a second file; include it from %s instead", p, paths[0])})
		}
		return f
	}
}

// isXinetd reports whether a file is an xinetd.conf(5).
func isXinetd(d *config.Disk, path string) bool {
	switch base := filepath.Base(path); {
	case strings.HasSuffix(base, ".toml"):
		return false
	case strings.Contains(base, "xinetd") || filepath.Base(filepath.Dir(path)) == "xinetd.d":
		return true
	}
	text, err := d.Text(path)
	return err == nil && xinetd.Is(text)
}

// isInetd reports whether path is an inetd.conf(5), or a directory of such, which its
// name has to say. The name counts first, so that a reload never takes a TOML file for
// another.
func isInetd(d *config.Disk, path string) bool {
	switch base := filepath.Base(path); {
	case strings.HasSuffix(base, ".toml"):
		return false
	case strings.Contains(base, "inetd"):
		return true
	}
	text, err := d.Text(path)
	return err == nil && inetd.Is(text)
}
