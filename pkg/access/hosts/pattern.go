package hosts

// Patterns: what a word of a list says of an address or a name.

import (
	"net/netip"
	"strconv"
	"strings"
)

type kind uint8

const (
	unknown    kind = iota // nobody can tell
	everybody              // ALL
	prefix                 // of addresses
	text                   // of an address as it is written
	textOrName             // of an address as it is written, or of what it is called
	several                // those in a file
)

// A pattern is for an address.
type pattern struct {
	kind   kind
	user   bool // what matches has to be asked who its user is
	prefix netip.Prefix
	text   string
	file   []pattern
}

func (p *pattern) match(w who) answer {
	m := p.matchHost(w)
	if p.user {
		m = min(m, open)
	}
	return m
}

func (p *pattern) matchHost(w who) answer {
	switch p.kind {
	case everybody:
		return yes
	case several:
		return match(&list[pattern]{any: p.file}, w)
	case unknown:
		return open
	}
	switch {
	case !w.region.IsValid():
		return open
	case p.kind == prefix:
		if p.prefix.Bits() <= w.region.Bits() && p.prefix.Contains(w.region.Addr()) {
			return yes
		}
		return no
	case w.text == "":
		return open
	case matchText(p.text, w.text):
		return yes
	case p.kind == textOrName:
		return open
	}
	return no
}

// prefixes puts those of a list into all.
func prefixes(l *list[pattern], all map[netip.Prefix]bool) {
	for ; l != nil; l = l.except {
		for i := range l.any {
			switch p := &l.any[i]; p.kind {
			case prefix:
				all[p.prefix] = true
			case several:
				prefixes(&list[pattern]{any: p.file}, all)
			}
		}
	}
}

// hasText reports whether a pattern of the list wants to see how an address is written.
func hasText(l *list[pattern]) bool {
	for ; l != nil; l = l.except {
		for i := range l.any {
			p := &l.any[i]
			if p.kind == text || p.kind == textOrName || p.kind == several && hasText(&list[pattern]{any: p.file}) {
				return true
			}
		}
	}
	return false
}

// matchText compares as hosts_access(5) does, whatever the case of letters: with
// wildcards, by the end after a dot, by the beginning before one, or all of it.
func matchText(pattern, s string) bool {
	pattern, s = strings.ToLower(pattern), strings.ToLower(s)
	switch {
	case strings.ContainsAny(pattern, "*?"):
		return wild(pattern, s)
	case strings.HasPrefix(pattern, "."):
		return len(s) > len(pattern) && strings.HasSuffix(s, pattern)
	case pattern == "all" || pattern == "known":
		return true
	case strings.HasSuffix(pattern, "."):
		return strings.HasPrefix(s, pattern)
	}
	return pattern == s
}

// wild matches "*" with anything and "?" with one byte. Of several "*" only the last
// that was met is ever tried again, so that the time is at most the product of the lengths.
func wild(pattern, s string) bool {
	star, from := -1, 0
	for i, k := 0, 0; k < len(s); {
		switch {
		case i < len(pattern) && pattern[i] == '*':
			star, from = i, k
			i++
		case i < len(pattern) && (pattern[i] == '?' || pattern[i] == s[k]):
			i, k = i+1, k+1
		case star >= 0:
			from++
			i, k = star+1, from
		default:
			return false
		}
		if k == len(s) {
			return strings.Trim(pattern[i:], "*") == ""
		}
	}
	return strings.Trim(pattern, "*") == ""
}

// client reads a word of a list of clients; if note is not empty it says why the
// pattern is not all that was written.
func (r *reader) client(word string) (p pattern, note string) {
	if i := strings.IndexByte(word[1:], '@'); i >= 0 && i+2 < len(word) {
		p, note = r.host(word[i+2:])
		if user := word[:i+1]; !strings.EqualFold(user, "ALL") && p.kind != unknown {
			p.user, note = true, "asks for the user, and no peer is asked who its user is (RFC 1413)"
		}
		return p, note
	}
	return r.host(word)
}

// host reads a pattern for an address.
func (r *reader) host(word string) (p pattern, note string) {
	switch {
	case strings.EqualFold(word, "ALL"):
		return pattern{kind: everybody}, ""
	case word[0] == '@':
		return pattern{}, "is a netgroup, and those are not looked up"
	case word[0] == '/':
		return r.file(word)
	case word[0] == '[':
		return bracketed(word)
	case strings.Contains(word, "/"):
		return masked(word)
	case strings.Trim(word, "0123456789.") == "":
		return address(word), ""
	}
	for _, name := range []string{"KNOWN", "UNKNOWN", "LOCAL", "PARANOID"} {
		if strings.EqualFold(word, name) {
			return pattern{}, "is about a host's name, and names are not looked up"
		}
	}
	if strings.ContainsAny(word, "*?") {
		switch {
		case strings.Trim(word, "*") == "":
			return pattern{kind: everybody}, ""
		case strings.Trim(word, "0123456789.*?") == "" && strings.ContainsAny(word, "0123456789"):
			return pattern{kind: text, text: word}, ""
		}
		return pattern{kind: textOrName, text: word}, "may be a host's name, and names are not looked up"
	}
	return pattern{}, "is a host's name, and names are not looked up"
}

// address reads digits and dots: an address, its beginning or its end.
func address(word string) pattern {
	if a, err := netip.ParseAddr(word); err == nil {
		return pattern{kind: prefix, prefix: netip.PrefixFrom(a, 32)}
	}
	beginning, isBeginning := strings.CutSuffix(word, ".")
	if n := strings.Count(word, "."); isBeginning && n <= 3 {
		if a, err := netip.ParseAddr(beginning + strings.Repeat(".0", 4-n)); err == nil {
			return pattern{kind: prefix, prefix: netip.PrefixFrom(a, 8*n)}
		}
	}
	return pattern{kind: text, text: word}
}

// masked reads net/mask and net/len of IPv4.
func masked(word string) (p pattern, note string) {
	net, mask, _ := strings.Cut(word, "/")
	a, err := netip.ParseAddr(net)
	bits, ok := maskBits(mask)
	switch {
	case err != nil || !a.Is4() || !ok:
		return pattern{}, "is no network; write one such as 192.0.2.0/255.255.255.0 or [2001:db8::]/32"
	}
	q := netip.PrefixFrom(a, bits)
	if q != q.Masked() {
		return pattern{}, "has bits after its mask, so that no address is like it; write " + q.Masked().String()
	}
	return pattern{kind: prefix, prefix: q}, ""
}

func maskBits(s string) (int, bool) {
	if n, err := strconv.ParseUint(s, 10, 8); err == nil {
		return int(n), n <= 32
	}
	m, err := netip.ParseAddr(s)
	if err != nil || !m.Is4() {
		return 0, false
	}
	n, ended := 0, false
	for _, b := range m.As4() {
		for bit := byte(0x80); bit != 0; bit >>= 1 {
			switch {
			case b&bit == 0:
				ended = true
			case ended:
				return 0, false
			default:
				n++
			}
		}
	}
	return n, true
}

// bracketed reads [v6] and [v6]/len.
func bracketed(word string) (p pattern, note string) {
	inside, after, closed := strings.Cut(word[1:], "]")
	a, err := netip.ParseAddr(inside)
	bits := uint64(128)
	if after != "" {
		var wrong error
		length, slash := strings.CutPrefix(after, "/")
		if bits, wrong = strconv.ParseUint(length, 10, 8); wrong != nil || !slash {
			closed = false
		}
	}
	if err != nil || !closed || !a.Is6() || a.Zone() != "" || bits > 128 {
		return pattern{}, "is no IPv6 network; write one such as [2001:db8::]/32"
	}
	if a.Is4In6() {
		if bits < 96 {
			return pattern{}, "covers IPv4 and more; write 0.0.0.0/0 or [::]/0"
		}
		a, bits = a.Unmap(), bits-96
	}
	return pattern{kind: prefix, prefix: netip.PrefixFrom(a, int(bits)).Masked()}, ""
}
