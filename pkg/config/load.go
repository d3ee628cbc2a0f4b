// Reading files: the main one and, where it includes them, others. This is the
// only place that opens a file by a name from the configuration, except for
// env_file.

package config

import (
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
func Load(path string) *File {
	f := &File{Path: path}
	l := &loader{f: f, seen: make(map[string]bool)}
	l.load(path, Pos{}, nil)
	return f
}

type loader struct {
	f    *File
	seen map[string]bool // by real path
}

// load reads one file; from is where it is included, stack what includes it.
func (l *loader) load(path string, from Pos, stack []string) {
	fail := func(format string, args ...any) {
		p := &Problem{Pos: from, Key: "include", Text: fmt.Sprintf(format, args...)}
		if !from.IsSet() {
			p.Pos, p.Key = Pos{}, ""
		}
		l.f.Problems = append(l.f.Problems, p)
	}
	real, err := filepath.EvalSymlinks(path)
	if err != nil {
		fail("%s cannot be read: %v", path, reason(err))
		return
	}
	switch {
	case slices.Contains(stack, real):
		fail("%s includes itself; take it out of the list", path)
		return
	case l.seen[real]:
		return // a second pattern that matches it
	case len(stack) > maxIncludeDepth:
		fail("files include each other more than %d deep; include %s from the main file instead", maxIncludeDepth, path)
		return
	case len(l.seen) >= maxFiles:
		fail("more than %d files are included; write fewer", maxFiles)
		return
	}
	l.seen[real] = true
	l.f.Paths = append(l.f.Paths, path)
	text, err := readFile(path, maxFile)
	if err != nil {
		fail("%s cannot be read: %v", path, reason(err))
		return
	}
	r := &reader{f: l.f, name: path}
	for _, pattern := range r.read(string(text), len(stack) == 0) {
		files, err := expand(filepath.Dir(path), pattern.V)
		if err != nil {
			l.f.Problems = append(l.f.Problems, &Problem{Pos: pattern.Pos, Key: "include", Text: err.Error()})
		}
		for _, name := range files {
			l.load(name, pattern.Pos, append(slices.Clip(stack), real))
		}
	}
}

// expand lists the files that pattern names, sorted. A pattern is relative to
// the directory of the file it stands in. As in the shell, a wildcard does not
// match a leading dot: editors put their scratch files there. A pattern may
// match nothing; a plain name must exist.
func expand(dir, pattern string) ([]string, error) {
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
	if fi, err := os.Stat(path); err != nil {
		return nil, err
	} else if !fi.Mode().IsRegular() {
		return nil, errors.New("not a regular file")
	}
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err == nil && int64(len(b)) > limit {
		err = fmt.Errorf("longer than %d bytes", limit)
	}
	return b, err
}
