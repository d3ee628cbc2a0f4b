// Package ident answers the question of RFC 1413: who owns the connection between
// these two ports.
//
// It tells nobody of connections but his own: the two addresses are those of the
// connection that asks. Who owns it the kernel is asked by inet_diag, for exactly
// this connection; /proc is not read. What a user has to say of it, ~/.fakeid and
// ~/.noident, is read with the rights of that user.
//
// The package accepts no connection and reads none: a line comes in, a reply goes
// out. It decides nothing that the row has not said, and never logs.
package ident

import (
	"bytes"
	"fmt"
)

// MaxLine is how long a question may be, in bytes without its end. RFC 1413 allows
// any number of blanks; a client that needs so many is none.
const MaxLine = 256

// MaxID is how long a user's name may be, in bytes (RFC 1413 section 6, octet-string).
const MaxID = 512

// The errors of RFC 1413, section 4.
const (
	InvalidPort  = "INVALID-PORT"  // what was asked are no two ports
	NoUser       = "NO-USER"       // there is no such connection, or it is nobody's
	HiddenUser   = "HIDDEN-USER"   // it is not told
	UnknownError = "UNKNOWN-ERROR" // anything else
)

// TimedOut is the reply where there was no whole question in time.
var TimedOut = Query{}.Error(UnknownError)

// A Query is a question: two ports, of this machine and of the one that asks. In
// one that is not valid there are the numbers that it had, which a reply repeats,
// or zeros.
type Query struct{ Server, Client uint32 }

// Parse reads a question, without or with the end of its line, and reports whether
// both are ports. Blanks may stand anywhere but in a number.
func Parse(line []byte) (q Query, ok bool) {
	a, b, found := bytes.Cut(bytes.TrimRight(line, "\r\n"), []byte{','})
	server, ok1 := number(a)
	client, ok2 := number(b)
	if !found || !ok1 || !ok2 {
		return Query{}, false
	}
	return Query{server, client}, isPort(server) && isPort(client)
}

// number reads one of one to five digits.
func number(b []byte) (n uint32, ok bool) {
	b = bytes.Trim(b, " \t")
	if len(b) == 0 || len(b) > 5 {
		return 0, false
	}
	for _, c := range b {
		if c < '0' || c > '9' {
			return 0, false
		}
		n = 10*n + uint32(c-'0')
	}
	return n, true
}

func isPort(n uint32) bool { return n > 0 && n < 1<<16 }

// Error is the reply that there is nothing to tell, for one of the reasons above.
func (q Query) Error(why string) string {
	return fmt.Sprintf("%d, %d : ERROR : %s\r\n", q.Server, q.Client, why)
}

// User is the reply that a connection is somebody's. A name that nobody can be
// told is UnknownError.
func (q Query) User(os, id string) string {
	if !ValidID(id) {
		return q.Error(UnknownError)
	}
	return fmt.Sprintf("%d, %d : USERID : %s : %s\r\n", q.Server, q.Client, os, id)
}

// ValidID reports whether a reply can name a user so: printable characters of ASCII
// or bytes of another set, no blank, no colon, which ends a field for some clients.
func ValidID(id string) bool {
	if id == "" || len(id) > MaxID {
		return false
	}
	for i := range len(id) {
		if c := id[i]; c <= ' ' || c == ':' || c == 0x7f {
			return false
		}
	}
	return true
}
