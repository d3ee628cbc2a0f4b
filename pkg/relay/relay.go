// Package relay moves the bytes of connections that the daemon serves itself:
// the stream built-ins and the rows that forward.
//
// A connection has no goroutine and no buffer here. A Loop is one epoll set,
// served by one goroutine, with a small record for each connection; bytes go
// from socket to socket through pipes by splice(2), and a pipe is held only
// while somebody is slow to read what is in it. Names of targets are looked up
// in the background, see Names.
//
// The package admits nobody, counts no limits and writes no log: it takes a
// connection that may have its service, and says in the end what became of it.
package relay

import (
	"errors"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A Flow is what is done with the bytes of a connection.
type Flow uint8

// The flows.
const (
	Echo    Flow = iota // everything goes back, RFC 862
	Discard             // everything is dropped, RFC 863
	Chargen             // Pattern is sent for ever, what comes is dropped, RFC 864
	Forward             // a target is found, and both talk to each other
	Ask                 // the peer asks in one line, and has one answer
)

// A Plan is what the connections of a row have in common. It must not be
// changed once a connection has it.
type Plan struct {
	Flow    Flow
	Pattern []byte           // Chargen: sent again and again; not empty
	Forward *service.Forward // Forward: where to
	Prefix  string           // sent first; with Forward when a target has accepted
	// Refusal is sent when no target accepts; if it is empty the connection is
	// reset. With Ask it is sent when Lifetime is over before the answer has come.
	Refusal string
	MaxLine int // Ask: how long the question may be, in bytes without its end
	// Idle ends a connection on which no byte has moved for so long, Lifetime
	// one that has lasted so long. 0: never.
	Idle, Lifetime time.Duration
}

// A Conn is a connection to be served.
type Conn struct {
	ID   uint64 // the caller's; comes back in End
	FD   int    // a connected stream socket
	Plan *Plan
	Peer service.Peer
	// Ask, of that flow, is called with the question, without its line end, or with
	// the beginning of one that is too long. It must not wait. reply takes the answer
	// from any goroutine, once; one that comes too late is dropped.
	Ask func(question []byte, reply func(answer string))
}

// An End is what became of a connection. Its descriptor is closed.
type End struct {
	ID     uint64
	Reason Reason
	// In and Out count the bytes that were taken from the peer and given to it,
	// without Prefix and Refusal.
	In, Out uint64
	Target  string // Forward: who has accepted; empty if nobody has
	// Err says why targets did not accept, one after the other, also where a
	// later one did; or what else was in the way. nil: nothing.
	Err error
}

// A Reason is why a connection has ended, in a word for the log.
type Reason string

// The reasons. Echoed and forwarded connections that end before both sides have
// said all they had to say end by a reset, so that nobody takes a part for the
// whole.
const (
	Closed   Reason = "closed"   // in order: all that was said has been passed on
	Idle     Reason = "idle"     // Plan.Idle is over
	Lifetime Reason = "lifetime" // Plan.Lifetime is over
	Reset    Reason = "reset"    // one side has broken off
	Connect  Reason = "connect"  // no target has accepted
	Cut      Reason = "cut"      // by Cut or Close
	Failed   Reason = "failed"   // by an error on this side, see End.Err
)

// ErrClosed is the answer to Add after Close.
var ErrClosed = errors.New("the relay is closed")
