package hosts

// From the text of the two files to rules. What tcp_wrappers would pass over with a
// line in the log is open here.

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io/fs"
	"path/filepath"
	"strings"
)

// The names of the files, in the order in which they are read.
var names = [2]string{"hosts.allow", "hosts.deny"}

// The bounds of files of patterns, which may name others.
const (
	maxDepth    = 4
	maxPatterns = 1 << 16 // of one rule's files
)

// seed makes sums that no file can be made for.
var seed = maphash.MakeSeed()

type reader struct {
	read     func(path string) ([]byte, error)
	path     string // of the file that is read
	sum      maphash.Hash
	depth    int
	patterns int // from files, in this line
}

// Read reads hosts.allow and hosts.deny of dir by read, and the files that they
// name. A file that is not there has no rules; one that cannot be read refuses
// everybody, with a note. read may be called again for the same path.
func Read(dir string, read func(path string) ([]byte, error)) *Rules {
	r := &reader{read: read}
	r.sum.SetSeed(seed)
	rules := new(Rules)
	for i, name := range names {
		r.path = filepath.Join(dir, name)
		text, err := r.text(r.path)
		switch {
		case errors.Is(err, fs.ErrNotExist):
		case err != nil:
			refused := &rule{file: name, line: 1, daemons: list[daemon]{any: []daemon{{name: "ALL"}}}, clients: list[pattern]{any: []pattern{{kind: everybody}}}}
			refused.note(r, fmt.Sprintf("cannot be read, so that everybody is refused: %v", cause(err)))
			rules.rules = append([]*rule{refused}, rules.rules...) // before those that allow
		default:
			rules.rules = append(rules.rules, r.lines(string(text), name, i == 0)...)
		}
	}
	rules.sum = r.sum.Sum64()
	return rules
}

// text reads a file, and adds what came of it to the sum.
func (r *reader) text(path string) ([]byte, error) {
	text, err := r.read(path)
	fmt.Fprintf(&r.sum, "%q %d %v\n", path, len(text), err)
	r.sum.Write(text)
	return text, err
}

// cause is err without the path that it names.
func cause(err error) error {
	if e := (*fs.PathError)(nil); errors.As(err, &e) {
		return e.Err
	}
	return err
}

func (ru *rule) note(r *reader, text string) {
	ru.notes = append(ru.notes, Note{r.path, ru.line, text})
}

// lines reads one of the two files.
func (r *reader) lines(text, name string, allow bool) (rules []*rule) {
	n := 0
	for len(text) > 0 {
		first := n + 1
		var b strings.Builder
		for {
			line, rest, more := strings.Cut(text, "\n")
			text = rest
			n++
			joined, goesOn := strings.CutSuffix(line, `\`)
			if !goesOn || !more {
				b.WriteString(line)
				break
			}
			b.WriteString(joined)
		}
		line := b.String()
		if strings.HasPrefix(line, "#") || strings.TrimSpace(line) == "" {
			continue
		}
		rules = append(rules, r.line(line, &rule{file: name, line: first, allow: allow}))
	}
	return rules
}

// line reads a rule.
func (r *reader) line(line string, ru *rule) *rule {
	r.patterns = 0
	daemons, rest, ok := cut(line)
	clients, options, _ := cut(rest)
	type said struct{ word, note string }
	var opens []said
	ru.daemons = parseList(words(daemons), func(w string) daemon {
		name, host, at := w, "", false
		if i := strings.IndexByte(w[1:], '@'); i >= 0 {
			name, host, at = w[:i+1], w[i+2:], true
		}
		if w[0] == '#' {
			ru.note(r, "a comment begins at the very beginning of a line; this is a rule")
		}
		if !at {
			return daemon{name: name}
		}
		p, note := pattern{}, "has no address after its @"
		if host != "" {
			p, note = r.host(host)
		}
		if note != "" {
			opens = append(opens, said{w, note})
		}
		return daemon{name: name, host: &p}
	})
	ru.clients = parseList(words(clients), func(w string) pattern {
		p, note := r.client(w)
		if note != "" {
			opens = append(opens, said{w, note})
		}
		return p
	})
	switch {
	case !ok:
		ru.clients.any = []pattern{{}}
		opens = append(opens, said{strings.TrimSpace(line), "has no colon after its daemons"})
	case len(ru.clients.any) == 0:
		ru.note(r, "there are no clients, so that the rule is about nobody")
	}
	ru.options(r, options)
	follows := "where that decides, the rule allows nobody"
	if !ru.allow {
		follows = "where that decides, the rule denies"
	}
	for _, o := range opens {
		ru.note(r, fmt.Sprintf("%s %s; %s", clip(o.word), o.note, follows))
	}
	return ru
}

// parseList reads words with EXCEPT between lists; the last one binds first.
func parseList[T any](words []string, parse func(string) T) (l list[T]) {
	last := &l
	for _, w := range words {
		if strings.EqualFold(w, "EXCEPT") {
			last.except = new(list[T])
			last = last.except
			continue
		}
		last.any = append(last.any, parse(w))
	}
	return l
}

// cut cuts at the first colon that is in no brackets.
func cut(s string) (before, after string, found bool) {
	for i := 0; i < len(s); i++ {
		switch s[i] {
		case ':':
			return s[:i], s[i+1:], true
		case '[':
			if n := strings.IndexByte(s[i:], ']'); n > 0 {
				i += n
			}
		}
	}
	return s, "", false
}

// file reads a file of patterns.
func (r *reader) file(path string) (pattern, string) {
	if r.depth == maxDepth {
		return pattern{}, "is named by too many files, one by the other, and is not read"
	}
	text, err := r.text(path)
	if err != nil {
		return pattern{}, fmt.Sprintf("cannot be read: %v", cause(err))
	}
	r.depth++
	defer func() { r.depth-- }()
	p := pattern{kind: several}
	note := ""
	for _, w := range strings.Fields(string(text)) {
		if r.patterns++; r.patterns > maxPatterns {
			p.file = append(p.file, pattern{})
			return p, fmt.Sprintf("has too many patterns, and what follows the first %d is not read", maxPatterns)
		}
		q, n := r.host(w)
		if n != "" && note == "" {
			note = fmt.Sprintf("has such as %s: it %s", clip(w), n)
		}
		p.file = append(p.file, q)
	}
	return p, note
}

func clip(s string) string {
	if len(s) > 60 {
		s = s[:60] + "..."
	}
	return fmt.Sprintf("%q", s)
}
