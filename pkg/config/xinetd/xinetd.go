// Package xinetd reads the files of another super-server, xinetd.conf(5), into a
// config.File: Source follows include and includedir, Parse reads one text.
//
// It is the text half of running such a file as it is. What an attribute means
// there is said here in the keys of tcpmuxd.toml(5); whether their values are
// right, and which users, ports and programs there are, is left to
// config.Compile, whose errors name the lines of the original.
//
// What xinetd itself passes over with a warning is passed over here, with a note.
// What makes it leave out a service leaves out the row (File.SkipBad), and what
// makes it end, or would let in whom it keeps out, is an error. What has no
// counterpart is a note that says what follows from it; where the service could not
// be served as it was meant there is no row. Of a service that is disabled nothing
// is said: xinetd does not look at it.
//
// The package resolves no name, opens no socket and keeps nothing between two
// calls. Its functions may be called at the same time.
package xinetd

import "github.com/tcpmuxd/tcpmuxd/pkg/config"

// maxFile is how large a text may be, in bytes; it is that of tcpmuxd.toml(5).
const maxFile = 16 << 20

// Source reads the file at path and everything it includes. It never fails: what is
// wrong, an unreadable file too, is in File.Problems, and config.Compile makes a
// warning or an error of it.
func Source(path string) config.Source {
	return func(disk *config.Disk) *config.File {
		l := newLoader(disk, path)
		l.load(path, config.Pos{}, nil)
		return l.translate()
	}
}

// Parse reads one text; name is what its places are called by. What it includes is
// noted and not read.
func Parse(name, text string) *config.File {
	l := newLoader(nil, name)
	l.f.Paths = append(l.f.Paths, name)
	l.text(name, text, nil)
	return l.translate()
}
