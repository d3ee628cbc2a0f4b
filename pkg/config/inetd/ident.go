// The options of FreeBSD's built-in auth: who is told whose a connection is.

package inetd

import (
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// identOptions are those of getopt(3); a colon stands behind those with a value.
const identOptions = "d:fFgino:rt:"

// An option is one of them as it was written.
type option struct {
	letter byte
	w      word // "-" and the letter, in the letter's place
	value  word
}

// ident reads the arguments of the service, of which the first is its name.
func (p *parser) ident(s *config.Service, e *entry) {
	if len(e.args) < 2 {
		return
	}
	set := map[byte]option{}
	var order []option
	for _, o := range p.options(s, e.args[1:]) {
		set[o.letter] = o
		order = append(order, o)
	}
	real, random := set['r'].letter != 0, set['g'].letter != 0
	for _, o := range order {
		switch {
		case set[o.letter] != o:
			p.note(config.Lost, s.ID, o.w, "is written again behind it, and the last one holds")
		case random && strings.IndexByte("dfFinr", o.letter) >= 0:
			p.note(config.Lost, s.ID, o.w, "means nothing beside -g, by which every answer is made up")
		case !real && strings.IndexByte("fFin", o.letter) >= 0:
			p.note(config.Lost, s.ID, o.w, "means nothing without -r, by which somebody is looked up")
		case o.letter == 'f' && set['F'].letter != 0:
			p.note(config.Lost, s.ID, o.w, "means nothing beside -F, which does not look whether there is such a user")
		default:
			p.identOption(s, o, set['i'].letter != 0)
		}
	}
}

// identOption makes a key of an option; numbers says that users are told by their
// numbers.
func (p *parser) identOption(s *config.Service, o option, numbers bool) {
	i := &s.Ident
	str := func(v string) config.String {
		if !i.Pos.IsSet() {
			i.Pos = p.at(o.w)
		}
		return config.String{V: v, Pos: p.at(o.w)}
	}
	switch o.letter {
	case 'r':
		if i.Reply = str("name"); numbers {
			i.Reply = str("uid")
		}
	case 'g':
		i.Reply = str("random")
	case 'd':
		i.Fallback = str(o.value.s)
	case 'o':
		i.OS = str(o.value.s)
	case 'f':
		i.Fakeid = str("unused")
	case 'F':
		i.Fakeid = str("any")
	case 'n':
		i.Noident = config.Bool{V: true, Pos: str("").Pos}
	case 't':
		if seconds, ok := identTime(o.value.s); ok {
			i.Timeout = str(seconds + "s")
		} else {
			p.note(config.Lost, s.ID, o.value, "is no number of seconds; write one from 1 to 3599, such as -t 30")
		}
	}
}

// identTime reads SECONDS or SECONDS.MICROSECONDS: behind the dot stands a number
// of microseconds, and no fraction.
func identTime(s string) (seconds string, ok bool) {
	whole, micro, _ := strings.Cut(s, ".")
	n, err := strconv.ParseUint(whole, 10, 31)
	if err != nil || n == 0 || n >= 3600 {
		return "", false
	}
	if micro == "" {
		return strconv.FormatUint(n, 10), true
	}
	m, err := strconv.ParseUint(micro, 10, 32)
	if err != nil || m >= 1e6 {
		return "", false
	}
	digits := strconv.FormatUint(m+1e6, 10)[1:]
	return strings.TrimSuffix(strconv.FormatUint(n, 10)+"."+strings.TrimRight(digits, "0"), "."), true
}

// options parts words as getopt(3) does.
func (p *parser) options(s *config.Service, words []word) (list []option) {
	for len(words) > 0 {
		w := words[0]
		words = words[1:]
		if len(w.s) < 2 || w.s[0] != '-' || w.s == "--" {
			p.note(config.Lost, s.ID, w, "is no option of the service")
			continue
		}
		for at := 1; at < len(w.s); at++ {
			o := option{letter: w.s[at], w: w.part(at, at+1)}
			o.w.s = "-" + o.w.s
			i := strings.IndexByte(identOptions, o.letter)
			if o.letter == ':' || i < 0 {
				p.note(config.Lost, s.ID, o.w, "is no option of the service")
				continue
			}
			if i+1 < len(identOptions) && identOptions[i+1] == ':' {
				switch {
				case at+1 < len(w.s):
					o.value = w.part(at+1, len(w.s))
				case len(words) > 0:
					o.value, words = words[0], words[1:]
				default:
					p.note(config.Lost, s.ID, o.w, "has no value behind it; write one or take it out")
					continue
				}
				list = append(list, o)
				break
			}
			list = append(list, o)
		}
	}
	return list
}
