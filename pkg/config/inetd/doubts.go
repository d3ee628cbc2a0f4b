// What the dialects read differently, for a file whose dialect was guessed: the
// report says what is at stake.

package inetd

import (
	"fmt"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// The kinds of doubt.
const (
	doubtPlain = iota
	doubtSix
	doubtRate
	doubtGroup
	doubtLax
	doubtFold
	doubtJoin
	doubtQuotes
	doubtHash
	doubtMode
	doubts
)

// A doubt is where it came up first, and how often it did.
type doubt struct {
	pos config.Pos
	w   word
	n   int
}

// readings say what a dialect makes of a word.
var readings = [doubts]func(d *Dialect, w string) string{
	doubtPlain: func(d *Dialect, w string) string { return family(d.plain) },
	doubtSix:   func(d *Dialect, w string) string { return family(d.six) },
	doubtRate: func(d *Dialect, w string) string {
		if d.rate == 0 {
			return "as many starts as there are peers"
		}
		return fmt.Sprintf("%d starts a minute", d.rate)
	},
	doubtGroup: func(d *Dialect, w string) string {
		user, group := d.userGroup(w)
		if group == "" {
			return "a user"
		}
		return fmt.Sprintf("user %s and group %s", user, group)
	},
	doubtLax: func(d *Dialect, w string) string {
		if d.lax {
			return "nowait"
		}
		return "an error"
	},
	doubtFold: func(d *Dialect, w string) string {
		if d.folds {
			return "goes on with the line above"
		}
		return "a line of its own"
	},
	doubtJoin: func(d *Dialect, w string) string {
		if d.joins {
			return "the next line goes on with this one"
		}
		return "a letter"
	},
	doubtQuotes: func(d *Dialect, w string) string { return d.quoting.String() },
	doubtHash: func(d *Dialect, w string) string {
		if d.hash {
			return "begins a comment"
		}
		return "a letter"
	},
	doubtMode: func(d *Dialect, w string) string {
		if d.unixMode == "" {
			return "everybody may connect"
		}
		return "mode " + d.unixMode
	},
}

func family(word string) string {
	switch {
	case strings.HasSuffix(word, "4"):
		return "IPv4 alone"
	case strings.HasSuffix(word, "6"):
		return "IPv6 alone"
	}
	return "IPv4 and IPv6"
}

// userGroup parts the user from the group.
func (d *Dialect) userGroup(s string) (user, group string) {
	for i := range len(d.separates) {
		if user, group, ok := strings.Cut(s, d.separates[i:i+1]); ok {
			return user, group
		}
	}
	return s, ""
}

// doubt notes that dialects read w differently.
func (p *parser) doubt(kind int, w word) {
	d := &p.doubts[kind]
	if d.n == 0 {
		d.pos, d.w = p.at(w), w
	}
	d.n++
}

// report makes notes of the doubts that the dialects which could read the file do
// not agree on.
func (p *parser) report() {
	for kind, d := range p.doubts {
		if d.n == 0 {
			continue
		}
		read := readings[kind]
		mine := read(p.d, d.w.s)
		var other []string
		for left := p.could &^ p.d.set; left != 0; {
			reading := read(left.first(), d.w.s)
			same := set(0)
			for _, o := range dialects {
				if left&o.set != 0 && read(o, d.w.s) == reading {
					same |= o.set
				}
			}
			left &^= same
			if reading != mine {
				other = append(other, fmt.Sprintf("%s to %s", reading, same))
			}
		}
		if other == nil {
			continue
		}
		times := ""
		if d.n > 1 {
			times = fmt.Sprintf(", in %d lines", d.n)
		}
		p.f.Notes = append(p.f.Notes, config.Note{Kind: config.Guessed, Problem: &config.Problem{Pos: d.pos, Key: clip(d.w.s),
			Text: fmt.Sprintf("%s to %s; %s%s", mine, p.d.Name, strings.Join(other, ", "), times)}})
	}
}
