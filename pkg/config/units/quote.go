// How words are written in unit files: systemd.syntax(7), systemd.unit(5) on
// specifiers, systemd.service(5) on command lines.

package units

import (
	"fmt"
	"strings"
	"unicode/utf8"
)

const letters = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789"

// escape makes a part of a unit's name of a key, as systemd-escape(1) does.
func escape(s string) string {
	var b strings.Builder
	for i := range len(s) {
		switch c := s[i]; {
		case c == '/':
			b.WriteByte('-')
		case strings.IndexByte(letters+":_", c) >= 0, c == '.' && i > 0:
			b.WriteByte(c)
		default:
			fmt.Fprintf(&b, `\x%02x`, c)
		}
	}
	return b.String()
}

// specifiers keeps percent signs from being some.
func specifiers(s string) string { return strings.ReplaceAll(s, "%", "%%") }

// argument is a word of a command line: a dollar sign is no variable.
func argument(s string) string { return word(strings.ReplaceAll(s, "$", "$$")) }

// word is s as one of several words of a line, in quotes if need be.
func word(s string) string {
	s = specifiers(s)
	if s != "" && strings.Trim(s, letters+"_-+=:,./@%$") == "" {
		return s
	}
	var b strings.Builder
	b.WriteByte('"')
	for i := range len(s) {
		switch c := s[i]; {
		case c == '"' || c == '\\':
			b.WriteByte('\\')
			b.WriteByte(c)
		case c < ' ' || c == 0x7f:
			fmt.Fprintf(&b, `\x%02x`, c)
		default:
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// bare reports whether s can be a value that is not split into words, where there
// are no quotes.
func bare(s string) bool {
	return valid(s) && s == strings.TrimSpace(s) && !strings.HasSuffix(s, `\`) && printable(s) == s
}

func valid(s string) bool { return utf8.ValidString(s) && strings.IndexByte(s, 0) < 0 }

// printable is s with question marks for what a line cannot have.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' || r == 0x7f {
			return '?'
		}
		return r
	}, strings.ToValidUTF8(s, "?"))
}

// device reports whether a unit can have the name of an interface, or none. It is
// stricter than systemd, which takes no "%" and no number.
func device(name string) bool {
	if strings.Trim(name, "0123456789") == "" {
		return name == ""
	}
	return strings.Trim(name, letters+"._-@") == ""
}
