// How a text falls into entries and an entry into words. What the words mean is
// not looked at.

package inetd

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

// A word is one with its place.
type word struct {
	s         string
	line, col int32 // from 1; col in characters
}

// part is what stands of w from byte i to j.
func (w word) part(i, j int) word {
	return word{w.s[i:j], w.line, w.col + int32(utf8.RuneCountInString(w.s[:i]))}
}

// cut parts w at the first of the bytes of seps, as strings.Cut does.
func (w word) cut(seps string) (before, after word, sep byte) {
	i := strings.IndexAny(w.s, seps)
	if i < 0 {
		return w, word{"", w.line, w.col}, 0
	}
	return w.part(0, i), w.part(i+1, len(w.s)), w.s[i]
}

// A lines gives a text line by line.
type lines struct {
	text string
	n    int32 // of the last line that was given
	crs  int32 // the first line that ends with CR LF; 0: none
}

func (l *lines) next() (line string, ok bool) {
	if l.text == "" {
		return "", false
	}
	if i := strings.IndexByte(l.text, '\n'); i >= 0 {
		line, l.text = l.text[:i], l.text[i+1:]
	} else {
		line, l.text = l.text, ""
	}
	l.n++
	if n := len(line); n > 0 && line[n-1] == '\r' {
		line = line[:n-1]
		if l.crs == 0 {
			l.crs = l.n
		}
	}
	return line, true
}

// peek reports the first byte of the next line, 0 at the end of the text.
func (l *lines) peek() byte {
	if l.text == "" {
		return 0
	}
	return l.text[0]
}

func isBlank(c byte) bool { return c == ' ' || c == '\t' || c == '\v' || c == '\f' }

func skipBlanks(s string, i int) int {
	for i < len(s) && isBlank(s[i]) {
		i++
	}
	return i
}

// split appends the words of a line, which begins in column col, to dst. quoted is the first word with a quote
// in it, empty if there is none.
func split(dst []word, line string, n, col int32, q quoting) (words []word, quoted string, err error) {
	counted := 0 // where col is
	for i := skipBlanks(line, 0); i < len(line); i = skipBlanks(line, i) {
		col += int32(utf8.RuneCountInString(line[counted:i]))
		counted = i
		s, end, quotes, err := next(line, i, q)
		if err != nil {
			return dst, quoted, err
		}
		if quotes && quoted == "" {
			quoted = line[i:end]
		}
		dst = append(dst, word{s, n, col})
		i = end
	}
	return dst, quoted, nil
}

// next is the word that begins at i, and where it ends.
func next(line string, i int, q quoting) (s string, end int, quotes bool, err error) {
	j := i
	for j < len(line) && !isBlank(line[j]) && line[j] != '"' && line[j] != '\'' && line[j] != '\\' {
		j++
	}
	if j == len(line) || isBlank(line[j]) {
		return line[i:j], j, false, nil
	}
	// There is a quote or a backslash in it.
	if q == noQuotes || q == wholeQuotes && j > i || q == wholeQuotes && line[j] == '\\' {
		for j = i; j < len(line) && !isBlank(line[j]); j++ {
			quotes = quotes || line[j] == '"' || line[j] == '\''
		}
		return line[i:j], j, quotes, nil
	}
	var b strings.Builder
	b.WriteString(line[i:j])
	for open := byte(0); ; j++ {
		switch {
		case j == len(line) && open != 0:
			return "", j, true, fmt.Errorf("the quote %c has no end; write it twice", open)
		case j == len(line) || open == 0 && isBlank(line[j]):
			return b.String(), j, quotes, nil
		case open != 0 && line[j] == open:
			open = 0
			if q == wholeQuotes {
				return b.String(), j + 1, true, nil
			}
		case open == 0 && (line[j] == '"' || line[j] == '\''):
			open, quotes = line[j], true
		case line[j] == '\\' && q == shellQuotes && open != '\'' && j+1 < len(line):
			j++
			quotes = true
			b.WriteByte(line[j])
		default:
			b.WriteByte(line[j])
		}
	}
}
