// One text, line by line: comments, directives, and which words are a service.
// What the words of a service mean is in service.go.

package inetd

import (
	"fmt"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// The bounds of what is read: rows, which have all the sockets that Compile takes
// if each is on both families, and
// the bytes of a word in a message.
const (
	maxRows = 1 << 15
	maxWord = 60
)

// A parser puts texts into a File.
type parser struct {
	f       *config.File
	d       *Dialect
	flags   Flags
	could   set // that read all of it: one, if the dialect was given
	name    string
	host    word              // the default address of the lines that follow
	ids     map[string]int    // of rows so far, and how often they were wanted
	doubts  [doubts]doubt     // what other dialects read differently
	once    map[string]bool   // notes that are made once a file
	spare   []config.Service  // for the next rows
	sixes   []six             // rows whose family depends on what else there is
	fours   map[string]bool   // where there are rows on IPv4
	mux     []*config.Service // rows that are reached by name
	muxer   bool              // there is the multiplexer
	tooMany bool
	policy  bool                          // an IPsec policy holds
	include func(p *parser, pattern word) // reads what .include names
}

func (p *parser) at(w word) config.Pos { return config.Pos{File: p.name, Line: w.line, Col: w.col} }

// note tells of w in the row id.
func (p *parser) note(k config.Kind, id string, w word, format string, args ...any) {
	p.f.Notes = append(p.f.Notes, config.Note{Kind: k, Problem: &config.Problem{Pos: p.at(w), Row: id, Key: clip(w.s), Text: fmt.Sprintf(format, args...)}})
}

// noteOnce is note for what would be said of every line.
func (p *parser) noteOnce(k config.Kind, id string, w word, text string) {
	if !p.once[text] {
		p.once[text] = true
		p.note(k, id, w, "%s", text)
	}
}

// refuse reports a line that becomes no row.
func (p *parser) refuse(w word, format string, args ...any) {
	p.f.Problems = append(p.f.Problems, &config.Problem{Pos: p.at(w), Key: clip(w.s), Text: fmt.Sprintf(format, args...)})
}

// foreign notes what the dialect does not know, and would refuse.
func (p *parser) foreign(knows set, id string, w word) {
	if p.d.set&knows == 0 {
		p.note(config.Changed, id, w, "%s does not know this and leaves the line out; here it is read as %s reads it", p.d.Name, knows.first().Name)
	}
}

// clip is a word for a message.
func clip(s string) string {
	if len(s) > maxWord {
		s = strings.ToValidUTF8(s[:maxWord], "") + "..."
	}
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, s)
}

// text reads one text.
func (p *parser) text(name, text string) {
	outer, host := p.name, p.host
	p.name = name
	l := &lines{text: strings.TrimPrefix(text, "\ufeff")}
	words := make([]word, 0, 32)
	for {
		line, ok := l.next()
		if !ok || p.tooMany {
			break
		}
		first := l.n
		for p.d.joins && strings.HasSuffix(line, `\`) && l.text != "" {
			more, _ := l.next()
			line = line[:len(line)-1] + " " + more
		}
		i := skipBlanks(line, 0)
		switch {
		case i == len(line):
			p.f.Comment("")
			continue
		case line[i] == '#':
			p.f.Comment(line[i:])
			p.comment(line[i:], i, first)
			continue
		}
		if isKeyed(line) {
			p.keyed(line, l)
			continue
		}
		refused := len(p.f.Problems)
		var bad, worse bool
		words, bad = p.words(words[:0], line, first, 1)
		words, worse = p.folded(words, l)
		bad = bad || worse
		if !bad && len(words) > 0 {
			p.entry(words)
		}
		if len(p.f.Problems) > refused {
			p.f.Comment("# not converted: " + line)
		}
	}
	if l.crs > 0 {
		p.note(config.Changed, "", word{"CR LF", l.crs, 1}, "the lines end as on Windows; the CR is not taken as part of the last word")
	}
	p.name, p.host = outer, host
}

// words splits a line, or the rest of one that begins in column col.
func (p *parser) words(dst []word, line string, n, col int32) (words []word, bad bool) {
	if i := strings.IndexByte(line, '#'); i >= 0 {
		w := word{"#", n, col + int32(i)}
		p.doubt(doubtHash, w)
		if p.d.hash {
			line = line[:i]
		}
	}
	if strings.HasSuffix(line, `\`) {
		p.doubt(doubtJoin, word{`\`, n, col + int32(len(line)) - 1})
	}
	words, quoted, err := split(dst, line, n, col, p.d.quoting)
	if err != nil {
		p.refuse(word{strings.TrimSpace(line), n, col}, "%v", err)
		return words, true
	}
	if quoted != "" {
		p.doubt(doubtQuotes, word{quoted, n, col})
	}
	return words, false
}

// folded adds the lines that begin with a blank to the words of the line above
// them, where the dialect does so. A comment is not taken for arguments, as the
// BSDs do.
func (p *parser) folded(words []word, l *lines) ([]word, bool) {
	bad := false
	for c := l.peek(); c == ' ' || c == '\t'; c = l.peek() {
		rest := *l
		line, _ := rest.next()
		i := skipBlanks(line, 0)
		if i == len(line) {
			*l = rest
			continue
		}
		w := word{strings.TrimSpace(line), rest.n, int32(i) + 1}
		if line[i] == '#' {
			if p.d.folds {
				p.noteOnce(config.Changed, "", w, "taken for a comment; "+p.d.Name+" takes what begins with a blank for arguments of the line above, whatever it is")
			}
			p.f.Comment(line[i:])
			*l = rest
			continue
		}
		p.doubt(doubtFold, w)
		if !p.d.folds {
			return words, bad
		}
		*l = rest
		var wrong bool
		words, wrong = p.words(words, line, l.n, 1)
		bad = bad || wrong
	}
	return words, bad
}

// comment looks at a comment for an IPsec policy.
func (p *parser) comment(line string, i int, n int32) {
	policy, ok := strings.CutPrefix(line, "#@")
	if !ok || i > 0 || p.d.set&knowPolicy == 0 {
		return
	}
	p.policy = strings.Trim(policy, " \t") != ""
	if p.policy {
		p.note(config.Lost, "", word{line, n, 1}, "tcpmuxd sets no IPsec policy on sockets; set it for the ports in the kernel (ip-xfrm(8), setkey(8))")
	}
}

// entry reads the words of a line: an address alone, .include, or a service.
func (p *parser) entry(words []word) {
	first := words[0]
	if first.s == ".include" {
		p.foreign(knowInclude, "", first)
		if len(words) < 2 {
			p.refuse(first, "names no file; write .include and a file or pattern, or take it out")
			return
		}
		p.include(p, word{strings.Trim(words[1].s, `"'`), words[1].line, words[1].col})
		return
	}
	if host, ok := strings.CutSuffix(first.s, ":"); ok && host != "" && !isOwned(host) {
		p.foreign(knowHost, "", first)
		if len(words) == 1 {
			p.host = first.part(0, len(host))
			if host == "*" {
				p.host = word{}
			}
			return
		}
		p.service(first.part(0, len(host)), words[1:])
		return
	}
	p.service(word{}, words)
}
