// Where every key and value of a TOML text stands. The library keeps these
// places to itself, has none for the elements of an array and wrong ones for
// arrays of tables, so the text is walked a second time for them.
//
// The scanner finds places and the shape of the nesting. It does not judge
// syntax: what the library accepts it must walk to the end. Of a text that is
// plain all through (plain.go), as nearly all are, it makes the values, too, and
// the library is not asked; of any other it makes none. A fuzz target holds it to
// both.

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
	name   string
	pos    place            // of the key; of the value for elements of an array
	val    place            // of the value; of the key for [tables]
	origin                  // how the text came to it
	v      any              // what the library makes of it; of tables and arrays only the type counts
	kids   []*node          // keys of a table, in the order of the text
	index  map[string]*node // the same by name, once there are many
	elems  []*node          // elements of an array, or the tables of [[name]]
}

// A place is a Pos in the file that is being read.
type place struct{ Line, Col int32 }

// IsSet reports whether p is a place at all.
func (p place) IsSet() bool { return p.Line > 0 }

// few is how many keys of a table are looked through rather than indexed.
const few = 8

// get finds a key of a table, nil if it has none of that name.
func (n *node) get(name string) *node {
	if n.index != nil {
		return n.index[name]
	}
	for _, c := range n.kids {
		if c.name == name {
			return c
		}
	}
	return nil
}

// child finds a key of a table or makes it.
func (sc *scanner) child(n *node, p part) (c *node, fresh bool) {
	if c := n.get(p.name); c != nil {
		return c, false
	}
	c = sc.node(node{name: p.name, pos: p.pos, val: p.pos})
	n.kids = append(n.kids, c)
	switch {
	case n.index != nil:
		n.index[p.name] = c
	case len(n.kids) > few:
		n.index = make(map[string]*node)
		for _, c := range n.kids {
			n.index[c.name] = c
		}
	}
	return c, true
}

// node makes a node. They are made by the hundred: a table has many, and all of
// them are dropped together.
func (sc *scanner) node(n node) *node {
	if len(sc.spare) == 0 {
		sc.made = min(2*sc.made+8, 256)
		sc.spare = make([]node, sc.made)
	}
	c := &sc.spare[0]
	sc.spare = sc.spare[1:]
	*c = n
	return c
}

type scanner struct {
	s    string
	i    int // next byte
	line int
	// col is the column of byte colAt; both only move forward, so that a long
	// line is counted once.
	col, colAt int
	depth      int
	odd        bool // the text is not plain
	parts      []part
	spare      []node
	made       int // of spare, last time
}

// scan returns the tree of text, with its values if the text is plain. On an
// error, text[:offset] is all that was understood.
func scan(text string) (root *node, plain bool, offset int, err error) {
	sc := &scanner{s: text, line: 1, col: 1, odd: !utf8.ValidString(text)}
	root = &node{v: aTable}
	err = sc.document(root)
	return root, err == nil && !sc.odd, sc.i, err
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
		sc.lineEnd()
	}
}

// header reads [a.b] or [[a.b]] and returns the table it opens.
func (sc *scanner) header(root *node) (*node, error) {
	sc.i++
	array := sc.peek() == '['
	if array {
		sc.i++
		sc.odd = true
	}
	sc.tight()
	path, err := sc.path()
	if err != nil {
		return nil, err
	}
	n := root
	for i, p := range path {
		var fresh bool
		n, fresh = sc.child(n, p)
		sc.opened(n, fresh, i == len(path)-1)
		if i == len(path)-1 {
			if len(n.elems) == 0 {
				n.pos, n.val = p.pos, p.pos // where it is opened by name says more than where it was implied
			}
			if array {
				n.elems = append(n.elems, sc.node(node{pos: p.pos, val: p.pos}))
			}
		}
		if len(n.elems) > 0 {
			n = n.elems[len(n.elems)-1]
		}
	}
	sc.closed()
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
	n, dots := table, len(path)-1
	for i, p := range path {
		var fresh bool
		n, fresh = sc.child(n, p)
		sc.key(n, fresh, i == dots)
	}
	if sc.peek() != '=' {
		return errSyntax
	}
	sc.i++
	sc.depth += dots
	err = sc.value(n)
	sc.depth -= dots
	return err
}

// value reads one value into n.
func (sc *scanner) value(n *node) error {
	sc.space()
	n.val = sc.place()
	switch sc.peek() {
	case '"', '\'':
		start := sc.i
		err := sc.quoted()
		if err == nil && !sc.odd {
			n.v = sc.s[start+1 : sc.i-1]
		}
		return err
	case '[':
		n.v = aList
		return sc.nest(']', func() error {
			e := sc.node(node{pos: sc.place()})
			n.elems = append(n.elems, e)
			sc.element()
			return sc.value(e)
		})
	case '{':
		n.v = aTable
		return sc.nest('}', func() error { return sc.pair(n) })
	}
	start := sc.i
	for sc.i < len(sc.s) && !endsWord[sc.s[sc.i]] {
		sc.i++
	}
	if sc.i == start {
		return errSyntax
	}
	n.v = sc.word(sc.s[start:sc.i])
	return nil
}

// nest reads what stands between two brackets, item by item.
func (sc *scanner) nest(end byte, item func() error) error {
	if sc.depth++; sc.depth > maxDepth {
		return errDepth
	}
	sc.i++
	line, more := sc.line, false
	for {
		sc.blank()
		if sc.i >= len(sc.s) {
			return errSyntax
		}
		if end == '}' && (sc.line != line || more && sc.s[sc.i] == end) {
			sc.odd = true // not in every TOML
		}
		if sc.s[sc.i] == end {
			sc.i++
			sc.depth--
			return nil
		}
		if err := item(); err != nil {
			return err
		}
		sc.blank()
		if more = sc.peek() == ','; more {
			sc.i++
		} else if sc.peek() != end {
			return errSyntax
		}
	}
}

// The bytes that end a bare key, and a value that is not in quotes.
var (
	endsKey  = bytesOf(" \t.=[]{},#\"'\r\n")
	endsWord = bytesOf(",]}#\r\n")
)

func bytesOf(s string) (set [256]bool) {
	for i := range len(s) {
		set[s[i]] = true
	}
	return set
}

type part struct {
	name string
	pos  place
}

// path reads a dotted key up to what follows it. The next one is read into the
// same memory.
func (sc *scanner) path() ([]part, error) {
	path := sc.parts[:0]
	defer func() { sc.parts = path }()
	for {
		if len(path) > 0 {
			sc.tight()
		}
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
			sc.odd = sc.odd || name == ""
		} else {
			for sc.i < len(sc.s) && !endsKey[sc.s[sc.i]] {
				sc.i++
			}
			if name = sc.s[start:sc.i]; name == "" {
				return nil, errSyntax
			}
			sc.odd = sc.odd || !isBare(name)
		}
		if path = append(path, part{name, pos}); len(path) > maxDepth {
			return nil, errDepth
		}
		end := sc.i
		sc.space()
		if sc.peek() != '.' {
			return path, nil
		}
		sc.odd = sc.odd || sc.i != end
		sc.i++
	}
}

// quoted skips a string of any of the four sorts.
func (sc *scanner) quoted() error {
	q := sc.s[sc.i]
	long := `"""`
	if q == '\'' {
		long = "'''"
	}
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
				sc.odd = true
			case isControl(c):
				sc.odd = true
			}
		}
		sc.i = len(sc.s)
		return errSyntax
	}
	sc.odd = true
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
		case ' ', '\t':
		case '\r':
			sc.odd = true
		case '\n':
			sc.newline()
		case '#':
			for sc.i < len(sc.s) && sc.s[sc.i] != '\n' {
				sc.odd = sc.odd || isControl(sc.s[sc.i])
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
func (sc *scanner) place() place {
	sc.col += utf8.RuneCountInString(sc.s[sc.colAt:sc.i])
	sc.colAt = sc.i
	return place{int32(sc.line), int32(sc.col)} // maxFile is far below what these hold
}
