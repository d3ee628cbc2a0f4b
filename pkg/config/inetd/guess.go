// Which dialect a file is written in, by what only some inetds can read and by
// what is usual in whose files.

package inetd

import (
	"fmt"
	"math/bits"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// A sign speaks for some dialects.
type sign struct {
	of   set
	must bool   // the others cannot read it
	word string // what was found
	what string // what that is
	pos  config.Pos
}

// The weights of signs: what others cannot read, and what is usual.
const (
	mustWeight  = 4
	usualWeight = 1
)

// A guess is what is known of a text.
type guess struct {
	signs []sign // each kind once, in the order of the text
	seen  map[string]bool
	fits  set // what reads all of it

	six map[string]bool // names that have a line for IPv6
}

func newGuess() *guess {
	return &guess{seen: make(map[string]bool), fits: every, six: make(map[string]bool)}
}

// note adds a sign, of each kind one.
func (g *guess) note(s sign) {
	if g.seen[s.what] {
		return
	}
	g.seen[s.what] = true
	s.word = clip(s.word)
	g.signs = append(g.signs, s)
	if s.must {
		g.fits &= s.of
	}
}

// choose is the dialect that most speaks for, and why, in words; main is the file
// that need not be named.
func (g *guess) choose(main string) (d *Dialect, why string, could set) {
	var score [8]int
	best := openbsd
	for i, d := range dialects {
		for _, s := range g.signs {
			switch {
			case s.of&d.set == 0:
			case s.must:
				score[i] += mustWeight
			default:
				score[i] += usualWeight * 2 / bits.OnesCount8(uint8(s.of))
				score[i] += usualWeight
			}
		}
		fits, bestFits := g.fits == 0 || g.fits&d.set != 0, g.fits == 0 || g.fits&best != 0
		if fits && !bestFits || fits == bestFits && score[i] > score[bits.TrailingZeros8(uint8(best))] {
			best = d.set
		}
	}
	d = best.first()
	could = g.fits | d.set
	var for_, against []string
	for _, s := range g.signs {
		at := fmt.Sprintf("%s (%s, line %d)", s.word, s.what, s.pos.Line)
		if s.pos.File != main {
			at = fmt.Sprintf("%s (%s, %s line %d)", s.word, s.what, s.pos.File, s.pos.Line)
		}
		if s.of&d.set != 0 {
			for_ = append(for_, at)
		} else {
			against = append(against, at)
		}
	}
	switch {
	case len(g.signs) == 0:
		why = "nothing in it tells them apart"
	case len(for_) == 0:
		why = "nothing in it speaks for another one alone"
	default:
		why = "because of " + list(for_)
	}
	if len(against) > 0 {
		why += "; against it speak " + list(against)
	}
	return d, why, could
}

// list joins at most three, which is enough to judge by.
func list(words []string) string {
	if len(words) > 3 {
		words = append(words[:3:3], "more")
	}
	return strings.Join(words, ", ")
}

// comments are words of comments that tell whose file it is.
var comments = []struct {
	word string
	of   set
	what string
}{
	{"$FreeBSD", freebsd, "FreeBSD's mark"},
	{"$NetBSD", netbsd, "NetBSD's mark"},
	{"$OpenBSD", openbsd, "OpenBSD's mark"},
	{"$DragonFly", freebsd, "DragonFly's mark"},
	{"#:INTERNAL:", openbsd, "a heading of Debian's update-inetd"},
	{"#:STANDARD:", openbsd, "a heading of Debian's update-inetd"},
	{"#<off>#", openbsd, "a mark of Debian's update-inetd"},
	{"update-inetd", openbsd, "Debian's update-inetd"},
	{"inetutils", gnu, "a comment that names inetutils"},
	{"usybox", busybox, "a comment that names busybox"},
}

// comment looks at a line that begins with "#".
func (g *guess) comment(line string, at config.Pos) {
	if strings.HasPrefix(line, "#@") {
		g.note(sign{knowPolicy, false, "#@", "an IPsec policy", at})
	}
	for _, c := range comments {
		if strings.Contains(line, c.word) {
			g.note(sign{c.of, false, c.word, c.what, at})
		}
	}
}

// entry looks at the words of a service.
func (g *guess) entry(f []string, at config.Pos) {
	must := func(of set, word, what string) { g.note(sign{of, true, word, what, at}) }
	usual := func(of set, word, what string) { g.note(sign{of, false, word, what, at}) }
	name := f[0]
	host, rest := "", name
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		host, rest = name[:i], name[i+1:]
	}
	switch {
	case name == ".include":
		must(knowInclude, name, "including files")
		return
	case strings.HasPrefix(name, ":") && strings.Contains(name, "/"):
		must(knowOwner, name, "the owner of a unix socket")
	case strings.HasPrefix(rest, "/"):
		must(knowUnix, name, "a unix socket")
	case strings.HasPrefix(name, "tcpmux/"):
		must(knowMux, name, "a service of the multiplexer")
	case strings.Contains(host, ","):
		must(knowHosts, name, "a list of addresses")
	case host != "":
		must(knowHost, name, "an address of its own")
	}
	if len(f) > 1 && isSwitch(f[1]) {
		must(knowKeys, f[1], "key = value notation")
		return
	}
	if len(f) < 6 {
		return
	}
	typ, proto := f[1], f[2]
	if rest, ok := strings.CutPrefix(proto, "rpc/"); ok {
		must(knowRPC, proto, "a Sun RPC service")
		proto = rest
	}
	switch {
	case strings.ContainsAny(typ, ",:"):
		must(knowAccept, typ, "an accept filter")
	case typ == "seqpacket" || typ == "raw" || typ == "rdm":
		must(knowSeq, typ, "a type of socket")
	case strings.Contains(proto, ","):
		must(knowBuffers, proto, "sizes of buffers")
	case strings.HasSuffix(proto, "46"):
		must(knowBoth, proto, "both families on one socket")
	case strings.HasSuffix(proto, "4"):
		must(knowFour, proto, "IPv4 by name")
	case strings.HasSuffix(proto, "6"):
		g.six[name] = true
	case strings.HasSuffix(proto, "6only"):
		must(knowSixOnly, proto, "IPv6 alone by name")
	}
	switch i := strings.IndexAny(f[3], "./:"); {
	case i < 0:
	case f[3][i] == '/':
		must(knowLimits, f[3], "limits after a slash")
	case f[3][i] == ':':
		must(knowColonMax, f[3], "a rate after a colon")
	default:
		must(knowMax, f[3], "a rate after a dot")
	}
	switch {
	case strings.Contains(f[4], "/"):
		must(knowClass, f[4], "a login class")
	case strings.Contains(f[4], "."):
		usual(every&^freebsd, f[4], "a group after a dot")
	}
	switch prog := f[5]; {
	case prog == "internal" && (name == "auth" || name == "ident"):
		must(knowIdent, name, "ident built in")
	case prog == "internal":
	case strings.HasSuffix(prog, "/busybox"):
		usual(busybox, prog, "busybox as the program")
	case prog == "/usr/sbin/tcpd":
		usual(openbsd|gnu, prog, "where Linux has tcpd")
	case strings.HasPrefix(prog, "/usr/libexec/"):
		usual(freebsd|netbsd|openbsd, prog, "where the BSDs have their servers")
	case !strings.HasPrefix(prog, "/"):
		usual(busybox, prog, "a program without its path")
	}
}

// isSwitch reports a word that begins NetBSD's key = value notation.
func isSwitch(s string) bool { return s == "on" || s == "off" }

// look goes through a text. Key = value entries are only looked at where they
// begin.
func (g *guess) look(name, text string) {
	g.lines(name, text, func(f []string, at config.Pos) { g.entry(f, at) })
	if len(g.six) == 0 {
		return
	}
	// Both families in lines of their own: then tcp is not both.
	g.lines(name, text, func(f []string, at config.Pos) {
		if len(f) > 2 && (f[2] == "tcp" || f[2] == "udp") && g.six[f[0]] {
			g.note(sign{every &^ openbsd, false, f[0], "a line for each family", at})
		}
	})
}

// lines gives do the first words of every line, at most 6, that is no comment.
func (g *guess) lines(name, text string, do func(f []string, at config.Pos)) {
	l := lines{text: text}
	fields := make([]string, 0, 6)
	for {
		line, ok := l.next()
		if !ok {
			return
		}
		at := config.Pos{File: name, Line: l.n, Col: 1}
		if strings.HasPrefix(line, "#") {
			g.comment(line, at)
			continue
		}
		fields = fields[:0]
		for f := range strings.FieldsSeq(line) {
			if fields = append(fields, f); len(fields) == 6 {
				break // the rest are a program's
			}
		}
		if len(fields) > 0 && fields[0][0] != '#' {
			do(fields, at)
		}
	}
}

// Is reports whether a text looks like an inetd.conf(5), by its first line that is
// no comment.
func Is(text string) bool {
	l := lines{text: strings.TrimPrefix(text, "\ufeff")}
	for {
		line, ok := l.next()
		if !ok {
			return false
		}
		f := strings.Fields(line)
		switch {
		case len(f) == 0 || f[0][0] == '#':
		case f[0] == ".include" || len(f) == 1 && len(f[0]) > 1 && strings.HasSuffix(f[0], ":"):
			return true
		case len(f) > 1 && isSwitch(f[1]):
			return true
		default:
			if len(f) < 6 {
				return false
			}
			typ, _, _ := strings.Cut(f[1], ",")
			typ, _, _ = strings.Cut(typ, ":")
			switch typ {
			case "stream", "dgram", "seqpacket", "raw", "rdm", "tli":
				return true
			}
			return false
		}
	}
}
