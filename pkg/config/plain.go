// What makes a text plain: a part of TOML that is read in one way only, and that
// nearly every table keeps to. Its values are made here and not by the library,
// which takes more than half of the time that a table of thousands of rows is read
// in. Whatever is beyond it, mistakes of any kind among that, marks the text as odd
// as a whole, and the library judges it and makes all its values. So there is
// no error here, and where there is doubt, it is odd.
//
// Plain are: keys that are bare, or quoted without escapes; strings on one line
// without escapes; whole decimal numbers, true and false; arrays of these, also on
// several lines; tables within a line; [tables] that are opened once, after the
// tables around them; comments. Not plain are carriage returns and tables in
// arrays.

package config

import (
	"strconv"
	"strings"
)

// The values of nodes that are told by their type only.
var (
	aTable any = map[string]any(nil)
	aList  any = []any(nil)
)

// An origin is how a text came to a node.
type origin uint8

const (
	byValue  origin = iota // key = value, or an element
	byHeader               // [key], or on the way to [key.key]
	byDots                 // on the way to key.key = value
)

// opened judges one part of a header, the last of which opens its table.
func (sc *scanner) opened(n *node, fresh, last bool) {
	switch {
	case fresh:
		n.origin, n.v = byHeader, aTable
	case last || n.origin != byHeader:
		sc.odd = true
	}
}

// key judges one part of a key, the last of which gets the value.
func (sc *scanner) key(n *node, fresh, last bool) {
	switch {
	case fresh && !last:
		n.origin, n.v = byDots, aTable
	case fresh:
	case last || n.origin != byDots:
		sc.odd = true
	}
}

// tight marks blanks at the next byte as odd.
func (sc *scanner) tight() {
	if c := sc.peek(); c == ' ' || c == '\t' {
		sc.odd = true
	}
}

// closed judges what stands before the end of a header, which has been read, and
// that it ends.
func (sc *scanner) closed() {
	if rest := sc.s[sc.i:]; !strings.HasPrefix(rest, "]") || strings.HasPrefix(rest, "]]") || sc.s[sc.i-1] == ' ' || sc.s[sc.i-1] == '\t' {
		sc.odd = true
	}
}

// lineEnd judges what follows a header or a value.
func (sc *scanner) lineEnd() {
	sc.space()
	if c := sc.peek(); c != '\n' && c != '#' && sc.i < len(sc.s) {
		sc.odd = true
	}
}

// element judges an element of an array by its first byte.
func (sc *scanner) element() {
	if sc.peek() == '{' {
		sc.odd = true
	}
}

// word makes the value of what is not in quotes.
func (sc *scanner) word(s string) any {
	s = strings.TrimRight(s, " \t")
	switch s {
	case "true":
		return true
	case "false":
		return false
	}
	digits := strings.TrimPrefix(s, "-")
	if isDigits(digits) && len(digits) < 19 && (digits[0] != '0' || s == "0") {
		if n, err := strconv.ParseInt(s, 10, 64); err == nil {
			return n
		}
	}
	sc.odd = true
	return nil
}

func isBare(s string) bool {
	for i := range len(s) {
		if c := s[i]; c != '_' && c != '-' && (c < '0' || c > '9') && (c < 'A' || c > 'Z') && (c < 'a' || c > 'z') {
			return false
		}
	}
	return s != ""
}

// isControl reports a byte that TOML lets stand neither in a comment nor in a
// string of one line.
func isControl(c byte) bool { return c < ' ' && c != '\t' || c == 0x7f }

// give puts what the library has made of a text into the tree of it.
func (n *node) give(v any) {
	n.v = v
	switch v := v.(type) {
	case map[string]any:
		for _, c := range n.kids {
			c.give(v[c.name])
		}
	case []any:
		for i, e := range v {
			if i == len(n.elems) {
				n.elems = append(n.elems, &node{val: n.val})
			}
			n.elems[i].give(e)
		}
		n.elems = n.elems[:len(v)]
	}
}
