package ident

// What a user has to say of himself, in two files of his home.

import "bytes"

const (
	fakeidFile  = ".fakeid"
	noidentFile = ".noident"
	// fakeidMost is how much of a .fakeid is looked at, in bytes.
	fakeidMost = 256
	// fakeidName is how long a name in it may be.
	fakeidName = 64
)

// A home is what was found there.
type home struct {
	noident bool
	fakeid  string // empty: there is none
}

// fakeidIn is the name in the first line of a .fakeid; empty if there is none that
// a reply could have.
func fakeidIn(b []byte) string {
	b, _, _ = bytes.Cut(b, []byte{'\n'})
	name := string(bytes.TrimSpace(b))
	if len(name) > fakeidName || !ValidID(name) {
		return ""
	}
	return name
}
