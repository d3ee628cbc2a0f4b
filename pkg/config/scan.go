// Where every key and value of a TOML text stands. The library keeps these
// places to itself, has none for the elements of an array and wrong ones for
// arrays of tables, so the text is walked a second time for them.
//
// The scanner finds places and the shape of the nesting, nothing else: it does
// not judge syntax and makes no values. What the library accepts it must walk
// to the end (a fuzz target holds it to that).

package config

import (
	"errors"
	"strings"
	"unicode/utf8"

	"github.com/BurntSushi/toml"
)

// maxDepth bounds the nesting of tables, arrays and dotted keys. The table
// needs 4; the library recurses without bound.
const maxDepth = 32

var (
	errDepth  = errors.New("nested too deeply")
	errSyntax = errors.New("not TOML")
)

// A node is a key with what stands below it.
type node struct {
	name  string
	pos   Pos              // of the key; of the value for elements of an array
	val   Pos              // of the value; of the key for [tables]
	kids  []*node          // keys of a table, in the order of the text
	index map[string]*node // the same by name
	elems []*node          // elements of an array, or the tables of [[name]]
}

func (n *node) child(name string, pos Pos) *node {
	if c := n.index[name]; c != nil {
		return c
	}
	c := &node{name: name, pos: pos, val: pos}
	if n.index == nil {
		n.index = make(map[string]*node)
	}
	n.index[name] = c
	n.kids = append(n.kids, c)
	return c
}

type scanner struct {
	s, file string
	i       int // next byte
	line    int
	// col is the column of byte colAt; both only move forward, so that a long
	// line is counted once.
	col, colAt int
	depth      int
}

// scan returns the tree of text. On an error, text[:offset] is all that was
// understood.
func scan(file, text string) (root *node, offset int, err error) {
	sc := &scanner{s: text, file: file, line: 1, col: 1}
	root = &node{}
	err = sc.document(root)
	return root, sc.i, err
}

func (sc *scanner) document(root *node) error {
	table := root
	for {
		sc.blank()
		if sc.i >= len(sc.s) {
			return nil
		}
		var err error
		if sc.s[sc.i] == '[' {
			table, err = sc.header(root)
		} else {
			err = sc.pair(table)
		}
		if err != nil {
			return err
		}
	}
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (sc *scanner) header(root *node) (*node, error) {
	sc.i++
	array := sc.peek() == '['
	if array {
		sc.i++
	}
	path, err := sc.path()
	if err != nil {
		return nil, err
	}
	n := root
	for i, p := range path {
		n = n.child(p.name, p.pos)
		if i == len(path)-1 {
			if len(n.elems) == 0 {
				n.pos, n.val = p.pos, p.pos // where it is opened by name says more than where it was implied
			}
			if array {
				n.elems = append(n.elems, &node{pos: p.pos, val: p.pos})
			}
		}
		if len(n.elems) > 0 {
			n = n.elems[len(n.elems)-1]
		}
	}
	for range 2 {
		if sc.peek() == ']' {
			sc.i++
		}
	}
	return n, nil
}

// pair reads key = value into table.
func (sc *scanner) pair(table *node) error {
	path, err := sc.path()
	if err != nil {
		return err
	}
	n := table
	for _, p := range path {
		n = n.child(p.name, p.pos)
	}
	if sc.peek() != '=' {
		return errSyntax
	}
	sc.i++
	sc.depth += len(path) - 1
	err = sc.value(n)
	sc.depth -= len(path) - 1
	return err
}

// value reads one value into n.
func (sc *scanner) value(n *node) error {
	sc.space()
	n.val = sc.place()
	switch sc.peek() {
	case '"', '\'':
		return sc.quoted()
	case '[':
		return sc.nest(']', func() error {
			e := &node{pos: sc.place()}
			n.elems = append(n.elems, e)
			return sc.value(e)
		})
	case '{':
		return sc.nest('}', func() error { return sc.pair(n) })
	}
	start := sc.i
	for sc.i < len(sc.s) && !strings.ContainsRune(",]}#\r\n", rune(sc.s[sc.i])) {
		sc.i++
	}
	if sc.i == start {
		return errSyntax
	}
	return nil
}

// nest reads what stands between two brackets, item by item.
func (sc *scanner) nest(end byte, item func() error) error {
	if sc.depth++; sc.depth > maxDepth {
		return errDepth
	}
	sc.i++
	for {
		sc.blank()
		if sc.i >= len(sc.s) {
			return errSyntax
		}
		if sc.s[sc.i] == end {
			sc.i++
			sc.depth--
			return nil
		}
		if err := item(); err != nil {
			return err
		}
		if sc.blank(); sc.peek() == ',' {
			sc.i++
		} else if sc.peek() != end {
			return errSyntax
		}
	}
}

type part struct {
	name string
	pos  Pos
}

// path reads a dotted key up to what follows it.
func (sc *scanner) path() ([]part, error) {
	var path []part
	for {
		sc.space()
		pos, start := sc.place(), sc.i
		name := ""
		if c := sc.peek(); c == '"' || c == '\'' {
			if err := sc.quoted(); err != nil {
				return nil, err
			}
			name = sc.s[start+1 : sc.i-1]
			if c == '"' && strings.Contains(name, `\`) {
				name = unescape(sc.s[start:sc.i])
			}
		} else {
			for sc.i < len(sc.s) && !strings.ContainsRune(" \t.=[]{},#\"'\r\n", rune(sc.s[sc.i])) {
				sc.i++
			}
			if name = sc.s[start:sc.i]; name == "" {
				return nil, errSyntax
			}
		}
		if path = append(path, part{name, pos}); len(path) > maxDepth {
			return nil, errDepth
		}
		sc.space()
		if sc.peek() != '.' {
			return path, nil
		}
		sc.i++
	}
}

// quoted skips a string of any of the four sorts.
func (sc *scanner) quoted() error {
	q := sc.s[sc.i]
	long := strings.Repeat(string(q), 3)
	if !strings.HasPrefix(sc.s[sc.i:], long) {
		for sc.i++; sc.i < len(sc.s); sc.i++ {
			switch c := sc.s[sc.i]; {
			case c == q:
				sc.i++
				return nil
			case c == '\n':
				return errSyntax
			case c == '\\' && q == '"':
				sc.i++
			}
		}
		sc.i = len(sc.s)
		return errSyntax
	}
	for sc.i += 3; sc.i < len(sc.s); sc.i++ {
		switch c := sc.s[sc.i]; {
		case c == q && strings.HasPrefix(sc.s[sc.i:], long):
			// Up to two quotes may stand right before the closing three.
			for n := 0; n < 2 && strings.HasPrefix(sc.s[sc.i+1:], long); n++ {
				sc.i++
			}
			sc.i += 3
			return nil
		case c == '\n':
			sc.newline()
		case c == '\\' && q == '"':
			if sc.i++; sc.peek() == '\n' {
				sc.newline()
			}
		}
	}
	sc.i = len(sc.s)
	return errSyntax
}

// unescape gives the value of a quoted key; the library knows how.
func unescape(quoted string) string {
	var v struct{ K string }
	if err := guarded(func() error { return toml.Unmarshal([]byte("K="+quoted), &v) }); err != nil {
		return quoted
	}
	return v.K
}

func (sc *scanner) peek() byte {
	if sc.i < len(sc.s) {
		return sc.s[sc.i]
	}
	return 0
}

// space skips blanks within a line.
func (sc *scanner) space() {
	for sc.peek() == ' ' || sc.peek() == '\t' {
		sc.i++
	}
}

// blank skips blanks, line ends and comments.
func (sc *scanner) blank() {
	for sc.i < len(sc.s) {
		switch sc.s[sc.i] {
		case ' ', '\t', '\r':
		case '\n':
			sc.newline()
		case '#':
			for sc.i < len(sc.s) && sc.s[sc.i] != '\n' {
				sc.i++
			}
			continue
		default:
			return
		}
		sc.i++
	}
}

// newline notes that the byte at i ends a line.
func (sc *scanner) newline() {
	sc.line++
	sc.col, sc.colAt = 1, sc.i+1
}

// place is where the next byte stands.
func (sc *scanner) place() Pos {
	sc.col += utf8.RuneCountInString(sc.s[sc.colAt:sc.i])
	sc.colAt = sc.i
	return Pos{sc.file, sc.line, sc.col}
}
