// What is wrong, and how it is said. Nothing here knows what a row means.

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/hashicorp/go-multierror"
)

// A Problem is one thing that is wrong at one place. Its text says what to
// write instead.
type Problem struct {
	Pos
	Row  string // id of the row, "[server]", "[set.NAME]" or "[defaults]"; empty at top level
	Key  string // dotted for keys in a table of the row: "limits.rate"; may be empty
	Text string
}

// Error is the problem in one line: file:line:column: row "x": key: text.
func (p *Problem) Error() string {
	var b strings.Builder
	if p.File != "" {
		b.WriteString(p.File)
		if p.Line > 0 {
			fmt.Fprintf(&b, ":%d:%d", p.Line, p.Col)
		}
		b.WriteString(": ")
	}
	switch p.Row {
	case "":
	case "[server]", "[defaults]":
		b.WriteString(p.Row + ": ")
	default:
		if strings.HasPrefix(p.Row, "[set.") {
			b.WriteString(p.Row + ": ")
			break
		}
		fmt.Fprintf(&b, "row %q: ", p.Row)
	}
	if p.Key != "" {
		b.WriteString(p.Key + ": ")
	}
	b.WriteString(p.Text)
	return b.String()
}

// tidy sorts problems by place, files in the order of reading, and drops
// repetitions: a bad value in [defaults] is found once for each row.
func tidy(ps []*Problem, files []string) []*Problem {
	rank := make(map[string]int, len(files))
	for i, f := range files {
		rank[f] = i
	}
	order := func(f string) int {
		if i, ok := rank[f]; ok {
			return i
		}
		return len(files)
	}
	slices.SortFunc(ps, func(a, b *Problem) int {
		return cmp.Or(
			cmp.Compare(order(a.File), order(b.File)), cmp.Compare(a.File, b.File),
			cmp.Compare(a.Line, b.Line), cmp.Compare(a.Col, b.Col),
			cmp.Compare(a.Row, b.Row), cmp.Compare(a.Key, b.Key), cmp.Compare(a.Text, b.Text))
	})
	return slices.CompactFunc(ps, func(a, b *Problem) bool { return *a == *b })
}

// join makes one error of problems that tidy has sorted; nil if there are none.
// Each of the errors in it is a *Problem.
func join(ps []*Problem) error {
	if len(ps) == 0 {
		return nil
	}
	all := &multierror.Error{Errors: make([]error, len(ps)), ErrorFormat: lines}
	for i, p := range ps {
		all.Errors[i] = p
	}
	return all.ErrorOrNil()
}

// lines writes one problem a line, no heading and no blank line at the end.
func lines(errs []error) string {
	var b strings.Builder
	for i, err := range errs {
		if i > 0 {
			b.WriteByte('\n')
		}
		b.WriteString(err.Error())
	}
	return b.String()
}

// nearest is the word of words that s was most likely meant to be, or "" if
// none is close. A difference in case alone is always close.
func nearest(s string, words []string) string {
	if len(s) > 64 {
		return ""
	}
	low := strings.ToLower(s)
	best, bestDist := "", max(1, len(s)/3)+1
	for _, w := range words {
		if strings.EqualFold(s, w) {
			return w
		}
		// The lengths alone bound the distance from below.
		if d := len(w) - len(s); d >= bestDist || -d >= bestDist {
			continue
		}
		if d := distance(low, w); d < bestDist && d < len(w) {
			best, bestDist = w, d
		}
	}
	return best
}

// distance counts the insertions, deletions, substitutions and swaps of
// neighbours that make b of a (Levenshtein's with Damerau's swaps).
func distance(a, b string) int {
	before, last, row := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		row[0] = i + 1
		for j := range len(b) {
			d := last[j]
			if a[i] != b[j] {
				d++
			}
			d = min(d, last[j+1]+1, row[j]+1)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				d = min(d, before[j-1]+1)
			}
			row[j+1] = d
		}
		before, last, row = last, row, before
	}
	return last[len(b)]
}

// clip quotes s for a message, at most some 60 bytes of it.
func clip(s string) string {
	if len(s) > 60 {
		return fmt.Sprintf("%q...", s[:60])
	}
	return fmt.Sprintf("%q", s)
}

// either lists words as in `"a", "b" or "c"`.
func either(words []string) string {
	var b strings.Builder
	for i, w := range words {
		switch {
		case i == 0:
		case i == len(words)-1:
			b.WriteString(" or ")
		default:
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "%q", w)
	}
	return b.String()
}
