package service

// What builtin = "auth" answers.

import "time"

// Ident is how the questions of RFC 1413 are answered, who owns a connection. The
// zero value tells nobody anything.
type Ident struct {
	Reply IdentReply
	// OS is the operating system that an answer names; "UNIX" is how most clients
	// are told that the name is one of a user (RFC 1413 section 4).
	OS string
	// Fallback is the user that is answered where there is nothing to tell; empty:
	// an error is.
	Fallback string
	Fakeid   Fakeid
	Noident  bool          // users who have ~/.noident are hidden
	Timeout  time.Duration // from the connection to the answer; more than 0 where there is a row
}

// IdentReply is what an answer has in it.
type IdentReply uint8

// The replies.
const (
	IdentHidden IdentReply = iota // HIDDEN-USER, and nothing is looked up
	IdentName                     // the user's name
	IdentUID                      // the user's number
	IdentRandom                   // a name made up for this answer; nothing is looked up
)

// Looks reports whether the owner of a connection is looked up at all.
func (r IdentReply) Looks() bool { return r == IdentName || r == IdentUID }

// Fakeid says whether the name in a user's ~/.fakeid is told instead of his own.
type Fakeid uint8

// The choices for Fakeid.
const (
	FakeidOff    Fakeid = iota
	FakeidUnused        // if no user is called so
	FakeidAny           // whatever it is
)
