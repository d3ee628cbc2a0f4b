// NetBSD's key = value notation:
//
//	[ADDRESS:]SERVICE on|off KEY = VALUE…, KEY = VALUE… ;
//
// It has no lines: a comment may stand anywhere, and several services in a line.

package inetd

import (
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// isKeyed reports whether a service begins so.
func isKeyed(line string) bool {
	i := skipBlanks(line, 0)
	for i < len(line) && !isBlank(line[i]) {
		i++
	}
	i = skipBlanks(line, i)
	j := i
	for j < len(line) && !isBlank(line[j]) && line[j] != ';' && line[j] != '#' {
		j++
	}
	return isSwitch(line[i:j])
}

// A scanner goes through services in this notation.
type scanner struct {
	l       *lines
	line    string
	n       int32 // of line
	i       int   // the next byte
	counted int   // where col is
	col     int32
}

// here is the place of the next byte.
func (sc *scanner) here() (line, col int32) {
	sc.col += int32(utf8.RuneCountInString(sc.line[sc.counted:sc.i]))
	sc.counted = sc.i
	return sc.n, sc.col
}

// skip goes to the next word or sign; false: there is none.
func (sc *scanner) skip() bool {
	for {
		sc.i = skipBlanks(sc.line, sc.i)
		if sc.i < len(sc.line) && sc.line[sc.i] != '#' {
			return true
		}
		line, ok := sc.l.next()
		if !ok {
			sc.i = len(sc.line)
			return false
		}
		sc.line, sc.n, sc.i, sc.counted, sc.col = line, sc.l.n, 0, 0, 1
	}
}

// token is a word, or one of the signs = , and ; as a word with that sign.
func (sc *scanner) token() (w word, sign byte, err error) {
	if !sc.skip() {
		return word{"", sc.n, sc.col}, 0, fmt.Errorf("the service has no end; write a semicolon behind it")
	}
	w.line, w.col = sc.here()
	switch c := sc.line[sc.i]; c {
	case '=', ',', ';':
		sc.i++
		w.s = string(c)
		return w, c, nil
	case '"', '\'':
		w.s, err = sc.quoted(c)
		return w, 'w', err
	}
	begin := sc.i
	for sc.i < len(sc.line) && !isBlank(sc.line[sc.i]) && !strings.ContainsRune("=,;\"'#", rune(sc.line[sc.i])) {
		sc.i++
	}
	w.s = sc.line[begin:sc.i]
	return w, 'w', nil
}

// quoted reads what is in quotes, on one line.
func (sc *scanner) quoted(quote byte) (string, error) {
	var b strings.Builder
	var bad error // in it; the quote is read to its end all the same
	for sc.i++; sc.i < len(sc.line); sc.i++ {
		switch c := sc.line[sc.i]; {
		case c == quote:
			sc.i++
			return b.String(), bad
		case c != '\\':
			b.WriteByte(c)
		case sc.i+1 == len(sc.line):
		default:
			sc.i++
			switch c := sc.line[sc.i]; c {
			case 'n':
				b.WriteByte('\n')
			case 't':
				b.WriteByte('\t')
			case 'r':
				b.WriteByte('\r')
			case '\\', '\'', '"':
				b.WriteByte(c)
			case 'x':
				n, err := strconv.ParseUint(sc.line[min(sc.i+1, len(sc.line)):min(sc.i+3, len(sc.line))], 16, 8)
				if err != nil {
					bad = fmt.Errorf(`\x has no two digits behind it; write \xHH`)
					continue
				}
				b.WriteByte(byte(n))
				sc.i += 2
			default:
				bad = fmt.Errorf(`there is no \%c; write \\ for a backslash`, c)
			}
		}
	}
	return "", fmt.Errorf("the quote %c has no end in its line; write it twice", quote)
}

// resume goes behind the next semicolon, or to the next line with which a service
// begins, after a mistake.
func (sc *scanner) resume() {
	for {
		n := sc.n
		if !sc.skip() || sc.n != n && isKeyed(sc.line) {
			return
		}
		if _, sign, _ := sc.token(); sign == ';' {
			return
		}
	}
}

// keyed reads the services of a line that begins with one in this notation, and of
// the lines these go on in.
func (p *parser) keyed(line string, l *lines) {
	sc := &scanner{l: l, line: line, n: l.n, col: 1}
	for {
		p.definition(sc)
		sc.i = skipBlanks(sc.line, sc.i)
		rest := sc.line[sc.i:]
		if rest == "" || rest[0] == '#' {
			return
		}
		if !isKeyed(rest) {
			n, col := sc.here()
			if words, bad := p.words(nil, rest, n, col); !bad && len(words) > 0 {
				p.entry(words)
			}
			return
		}
	}
}

// definition reads one service.
func (p *parser) definition(sc *scanner) {
	sc.i = skipBlanks(sc.line, sc.i)
	n, col := sc.here()
	begin := sc.i
	for sc.i < len(sc.line) && !isBlank(sc.line[sc.i]) {
		sc.i++
	}
	name := word{sc.line[begin:sc.i], n, col}
	fail := func(w word, err error) {
		if sc.n != n && isKeyed(sc.line) { // the next service has begun
			p.refuse(name, "the service has no end; write a semicolon behind it")
			sc.i, sc.counted, sc.col = 0, 0, 1
			return
		}
		p.refuse(w, "%v", err)
		sc.resume()
	}
	on, _, err := sc.token() // isKeyed has seen it
	if err != nil {
		fail(name, err)
		return
	}
	e := &entry{name: name, keyed: true}
	e.host, e.name = address(name)
	e.only(knowKeys, on)
	for {
		key, sign, err := sc.token()
		switch {
		case err != nil:
			fail(key, err)
			return
		case sign == ';':
			p.complete(e, on)
			return
		case sign == ',':
			continue
		case sign == '=':
			fail(key, fmt.Errorf("stands without a key; write KEY = VALUE"))
			return
		}
		if eq, sign, err := sc.token(); err != nil || sign != '=' {
			fail(key, fmt.Errorf("has no value, but %q behind it; write KEY = VALUE, and a comma between two of them", clip(eq.s)))
			return
		}
		var values []word
		end := false
		for !end {
			v, sign, err := sc.token()
			switch {
			case err != nil:
				fail(v, err)
				return
			case sign == '=':
				fail(v, fmt.Errorf("there is no comma before the next key; write one"))
				return
			case sign == ',':
				end = true
			case sign == ';':
				sc.i-- // the end of all
				end = true
			default:
				values = append(values, v)
			}
		}
		if !p.pair(e, key, values) {
			sc.resume()
			return
		}
	}
}

// pair puts the values of a key into e.
func (p *parser) pair(e *entry, key word, values []word) bool {
	one := map[string]*word{
		"bind": &e.host, "socktype": &e.typ, "accept_max": &e.acceptMax, "acceptfilter": &e.filter, "protocol": &e.proto,
		"sndbuf": &e.sndbuf, "recvbuf": &e.rcvbuf, "wait": &e.wait, "service_max": &e.perMinute, "ip_max": &e.ipPerMinute,
		"user": &e.user, "group": &e.group, "exec": &e.program,
	}[key.s]
	switch {
	case key.s == "args":
		e.args = values
	case key.s == "ipsec":
		if len(values) > 0 {
			p.note(config.Lost, "", values[0], "tcpmuxd sets no IPsec policy on sockets; set it for the port in the kernel (ip-xfrm(8), setkey(8))")
		}
	case one == nil:
		p.refuse(key, "is no key; write one of bind, socktype, accept_max, acceptfilter, protocol, sndbuf, recvbuf, wait, service_max, ip_max, user, group, exec, args and ipsec")
		return false
	case len(values) != 1:
		p.refuse(key, "has %d values; write one", len(values))
		return false
	default:
		*one = values[0]
	}
	return true
}

// complete fills in what follows from the rest, and makes a row of it.
func (p *parser) complete(e *entry, on word) {
	if e.proto.s == "" {
		p.refuse(e.name, "has no protocol; write protocol = tcp4, tcp6, udp4, udp6 or unix")
		return
	}
	if e.typ.s == "" {
		switch proto := strings.TrimPrefix(e.proto.s, "rpc/"); {
		case strings.HasPrefix(proto, "tcp"):
			e.typ = word{"stream", e.proto.line, e.proto.col}
		case strings.HasPrefix(proto, "udp"):
			e.typ = word{"dgram", e.proto.line, e.proto.col}
		default:
			p.refuse(e.name, "has no type of socket; write socktype = stream or dgram")
			return
		}
	}
	if (e.proto.s == "tcp" || e.proto.s == "udp") && !p.bound(e) {
		p.refuse(e.proto, "needs bind = ADDRESS to tell the family by; write %s4 or %s6", e.proto.s, e.proto.s)
		return
	}
	if e.program.s == "" {
		e.program = word{"internal", e.name.line, e.name.col}
	}
	switch {
	case e.wait.s == "yes":
		e.wait.s = "wait"
	case e.wait.s == "no" || e.wait.s == "" && e.program.s == "internal":
		e.wait.s = "nowait"
	default:
		w := e.wait
		if w.s == "" {
			w = e.name
		}
		p.refuse(w, "needs to say who accepts; write wait = yes or wait = no")
		return
	}
	if e.wait.line == 0 {
		e.wait.line, e.wait.col = e.name.line, e.name.col
	}
	if s := p.row(e); s != nil && on.s == "off" {
		s.Enabled = p.yes(false, on)
	}
}
