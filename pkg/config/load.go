// Reading files: the main one and, where it includes them, others. This is the
// only place that opens a file by a name from the configuration, except for
// env_file.

package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// The bounds of include: how deeply files may include each other, and how many
// there may be.
const (
	maxIncludeDepth = 8
	maxFiles        = 4096
)

// Load reads the file at path and everything it includes. It never fails: what
// is wrong, an unreadable file too, is in File.Problems, and Compile makes an
// error of it.
func Load(path string) *File { return TOML(path)(NewDisk()) }

// TOML reads the file at path and everything it includes, as Load does.
func TOML(path string) Source { return func(d *Disk) *File { return load(path, d) } }

// load is Load with what d knows already of the file system.
func load(path string, d *Disk) *File {
	f := &File{Path: path}
	l := &loader{f, NewIncludes(f, d)}
	l.load(path, Pos{}, nil)
	return f
}

type loader struct {
	f        *File
	includes *Includes
}

// Includes reads files that include others, each of them once.
type Includes struct {
	f    *File
	disk *Disk
	seen map[string]bool // by real path
}

// NewIncludes reads files by d, and enters their names in f.
func NewIncludes(f *File, d *Disk) *Includes {
	return &Includes{f: f, disk: d, seen: make(map[string]bool)}
}

// Read is the text of a file. outer is what includes it, from the main file on, and
// inner the same for what it includes itself. It reports a file that was read before
// with twice, and no text. The error is what to tell whoever includes it.
func (in *Includes) Read(path string, outer []string) (text string, inner []string, twice bool, err error) {
	real, err := in.disk.Real(path)
	switch {
	case err != nil:
		return "", nil, false, fmt.Errorf("%s cannot be read: %v", path, err)
	case slices.Contains(outer, real):
		return "", nil, false, fmt.Errorf("%s includes itself; take it out", path)
	case in.seen[real]:
		return "", nil, true, nil
	case len(outer) > maxIncludeDepth:
		return "", nil, false, fmt.Errorf("files include each other more than %d deep; include %s from the main file instead", maxIncludeDepth, path)
	case len(in.seen) >= maxFiles:
		return "", nil, false, fmt.Errorf("more than %d files are included; write fewer", maxFiles)
	}
	in.seen[real] = true
	in.f.Paths = append(in.f.Paths, path)
	if text, err = in.disk.Text(path); err != nil {
		return "", nil, false, fmt.Errorf("%s cannot be read: %v", path, err)
	}
	return text, append(slices.Clip(outer), real), false, nil
}

// load reads one file; from is where it is included, outer what includes it.
func (l *loader) load(path string, from Pos, outer []string) {
	text, inner, twice, err := l.includes.Read(path, outer)
	switch {
	case err != nil:
		p := &Problem{Pos: from, Key: "include", Text: err.Error()}
		if !from.IsSet() {
			p.Key = ""
		}
		l.f.Problems = append(l.f.Problems, p)
		return
	case twice:
		return // by a second pattern that matches it
	}
	r := &reader{f: l.f, name: path}
	for _, p := range r.read(text, len(outer) == 0) {
		files, err := l.includes.disk.Glob(filepath.Dir(path), p.V)
		if err != nil {
			l.f.Problems = append(l.f.Problems, &Problem{Pos: p.Pos, Key: "include", Text: err.Error()})
		}
		for _, name := range files {
			l.load(name, p.Pos, inner)
		}
	}
}

// expand lists the files that a pattern names, sorted. A pattern is relative to
// the directory of the file it stands in. As in the shell, a wildcard does not
// match a leading dot: editors put their scratch files there. A pattern may
// match nothing; a plain name must exist.
func expand(p pattern) ([]string, error) {
	dir, pattern := p.dir, p.pattern
	switch {
	case pattern == "":
		return nil, fmt.Errorf("an empty name; write a file or a pattern such as \"tcpmuxd.d/*.toml\"")
	case strings.ContainsRune(pattern, 0):
		return nil, fmt.Errorf("%s has a NUL in it; write a file's name", clip(pattern))
	}
	full := pattern
	if !filepath.IsAbs(full) {
		full = filepath.Join(dir, pattern)
	}
	if !strings.ContainsAny(pattern, `*?[`) {
		return []string{full}, nil
	}
	names, err := filepath.Glob(full)
	if err != nil {
		return nil, fmt.Errorf("%s is no pattern: %v; write one such as \"tcpmuxd.d/*.toml\"", clip(pattern), err)
	}
	if !strings.HasPrefix(filepath.Base(pattern), ".") {
		names = slices.DeleteFunc(names, func(n string) bool { return strings.HasPrefix(filepath.Base(n), ".") })
	}
	slices.Sort(names)
	return names, nil
}

// readFile reads a regular file of at most limit bytes; anything else might
// never end, or hold up a reload.
func readFile(path string, limit int64) ([]byte, error) {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return nil, err
	case !fi.Mode().IsRegular():
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	// As a file is most often: read at once, with a byte of room for its end.
	b := bytes.NewBuffer(make([]byte, 0, min(fi.Size(), limit)+bytes.MinRead))
	_, err = b.ReadFrom(io.LimitReader(f, limit+1))
	if err == nil && int64(b.Len()) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return b.Bytes(), err
}
