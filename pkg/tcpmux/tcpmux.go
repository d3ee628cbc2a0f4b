// Package tcpmux is RFC 1078, the TCP port service multiplexer, as pure
// functions over bytes: the service's half, the client's half, and nothing
// else.
//
// A client sends one line, the name of a service. The answer is one line that
// begins with "+" or "-"; after a "+" the connection is the service's. The
// reserved name HELP is answered by a list of names, and no "+" before it.
//
// Where the RFC is silent this package decides so:
//
//   - the line ends with CRLF; a bare LF is taken too, a CR that no LF follows
//     is an error, and nothing else ends it, least of all the end of the stream;
//   - a name has at most [MaxName] bytes, and each of them is printable ASCII;
//   - blanks are part of the name, upper and lower case are the same (RFC 1078);
//   - an empty line is a line: it asks for a service that does not exist.
//
// The package reads no socket, has no clock and looks nothing up. It never
// asks for a byte beyond the line, because that byte belongs to the service:
// give Scan what a peek has returned and consume exactly as many bytes as it
// says.
package tcpmux

import (
	"errors"
	"fmt"
	"strings"
)

// MaxName is the longest name in bytes, its terminator not counted. inetd's
// own limit is the same.
const MaxName = 256

// MaxLine is the longest line in bytes: a name and its CRLF. A peek of MaxLine
// bytes is always enough for Scan to decide.
const MaxLine = MaxName + 2

// The lines that a multiplexer answers. Clients compare the first two byte by
// byte: they are what inetd has always sent.
const (
	Go           = "+Go\r\n"
	NotAvailable = "-Service not available\r\n"

	NameTooLong = "-Service name too long\r\n"
	BadName     = "-Service name has a bad character\r\n"
	TimedOut    = "-Timed out waiting for the service name\r\n"
	Busy        = "-Too many connections\r\n"         // a limit of the service that was asked for
	Crowded     = "-Too many pending connections\r\n" // a limit of the multiplexer itself
)

// State is how far a scan has come.
type State uint8

// The states of a scan. All but More are final: more bytes change nothing.
const (
	More    State = iota // no terminator yet
	Line                 // a whole line is there
	TooLong              // too many bytes without a terminator
	BadByte              // a byte that cannot be in the line
)

func (s State) String() string {
	switch s {
	case More:
		return "more"
	case Line:
		return "line"
	case TooLong:
		return "too long"
	case BadByte:
		return "bad byte"
	}
	return fmt.Sprintf("State(%d)", uint8(s))
}

// Scan looks for the line that asks for a service at the start of b, which is
// all that has arrived on the connection so far.
//
// If the state is Line, name is the part of b before the terminator, as the
// peer wrote it (it may be empty), and n is the number of bytes of the line
// with its terminator, at most MaxLine. In the other states name is nil and n
// is 0. Scan keeps nothing, allocates nothing, and its answer for b and for
// any longer input that begins with b is the same unless it is More.
func Scan(b []byte) (name []byte, n int, st State) {
	for i, c := range b {
		switch {
		case c == '\n':
			return b[:i:i], i + 1, Line
		case c == '\r':
			if i+1 == len(b) {
				return nil, 0, More // the LF may be in the next segment
			}
			if b[i+1] == '\n' {
				return b[:i:i], i + 2, Line
			}
			return nil, 0, BadByte
		case i == MaxName:
			return nil, 0, TooLong
		case !printable(c):
			return nil, 0, BadByte
		}
	}
	return nil, 0, More
}

// printable reports whether a byte may be in a name.
func printable(c byte) bool { return 0x20 <= c && c <= 0x7e }

// Fold appends name to dst in lower case, ASCII only, and returns the result:
// the form in which names are compared (RFC 1078: "never case sensitive"). It
// does not allocate if dst has room for MaxName bytes. dst and name may be the
// same memory, as in Fold(b[:0], b).
func Fold(dst, name []byte) []byte {
	for _, c := range name {
		dst = append(dst, lower(c))
	}
	return dst
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// IsHelp reports whether name, in any case, is the reserved name HELP.
func IsHelp(name []byte) bool {
	return len(name) == 4 &&
		lower(name[0]) == 'h' && lower(name[1]) == 'e' && lower(name[2]) == 'l' && lower(name[3]) == 'p'
}

// AppendHelp appends the answer to HELP to dst: one name per line, in the
// order given, each with a CRLF. RFC 1078 knows no "+" line before it and no
// mark after it; closing the connection ends the list.
func AppendHelp(dst []byte, names []string) []byte {
	for _, name := range names {
		dst = append(dst, name...)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// ValidName returns an error that says why s cannot be what a row of the table
// is called on the multiplexer, or nil. A name is 1 to MaxName bytes of
// printable ASCII; it neither begins nor ends with a blank, which nobody would
// see; it is not HELP in any case, which is reserved (RFC 1078); and it begins
// with neither "+" nor "-", because a HELP list that began with such a name
// would read like a reply.
func ValidName(s string) error {
	if err := wireName(s); err != nil {
		return err
	}
	switch {
	case s[0] == ' ' || s[len(s)-1] == ' ':
		return errors.New("name begins or ends with a blank")
	case s[0] == '+' || s[0] == '-':
		return fmt.Errorf("name begins with %q, which begins a reply", s[0])
	case strings.EqualFold(s, "help"):
		return errors.New("name help is reserved")
	}
	return nil
}

// wireName says what is wrong with s as a name on the wire.
func wireName(s string) error {
	if s == "" {
		return errors.New("name is empty")
	}
	if len(s) > MaxName {
		return fmt.Errorf("name has %d bytes, more than %d", len(s), MaxName)
	}
	for i := range len(s) {
		if !printable(s[i]) {
			return fmt.Errorf("name has a bad character %q at byte %d: only printable ASCII can be asked for", s[i], i+1)
		}
	}
	return nil
}
