// Package inetd reads inetd.conf as the inetds of FreeBSD, NetBSD (its
// key = value notation, too), OpenBSD and Debian, GNU inetutils and busybox read
// it, and makes a config.File of it.
//
// It translates words and knows nothing else: no users, no ports, no sockets.
// What the words come to is Compile's. Each line with a service becomes a row, or
// a Problem of the File that says why not; what was guessed, changed or lost on
// the way is in its Notes. The five are one grammar: where they read the same
// words differently, a Dialect says how, and what only some of them know is read
// from all, with a note.
//
// This file has what differs between them. It is data.
package inetd

import (
	"math/bits"
	"slices"
	"strings"
)

// A set is one of dialects, one bit each.
type set uint8

const (
	openbsd set = 1 << iota // the first is taken where nothing speaks for another
	freebsd
	netbsd
	gnu
	busybox

	every = openbsd | freebsd | netbsd | gnu | busybox
)

// A quoting is how words with blanks in them are written.
type quoting uint8

const (
	noQuotes    quoting = iota // a quote is a letter
	wholeQuotes                // '…' or "…" is a whole word
	innerQuotes                // quotes may stand anywhere in a word
	shellQuotes                // and a backslash takes its meaning from a letter
)

func (q quoting) String() string {
	return [...]string{"quotes are letters", "quotes enclose a word", "quotes may stand within a word", "quotes and backslashes as in a shell"}[q]
}

// A Dialect is how one inetd reads its file.
type Dialect struct {
	Name string // what it is called by: openbsd, freebsd, netbsd, gnu or busybox
	Of   string // whose it is, for a message

	set       set
	plain     string // what "tcp" is: "tcp4", or "tcp" for both families
	six       string // what "tcp6" is: "tcp6", or "tcp" for both families
	rate      int    // starts of a program a minute where nothing is written; 0: no limit
	most      int    // a row may not ask for more; 0: it may
	separates string // the user from the group, the first that is there
	argv      int    // how many arguments it passes; 0: all
	folds     bool   // a line that begins with a blank goes on with the one above
	joins     bool   // a backslash at the end of a line does so with the next
	path      bool   // a program without a slash is looked for in PATH
	hash      bool   // "#" begins a comment anywhere
	quoting   quoting
	unixMode  string // of a unix socket; empty: as the row's default
	lax       bool   // any word but "wait" is "nowait"
	implied   bool   // tcpmux/ rows make the multiplexer
	wraps     wrapping
}

// dialects are in the order of the bits.
var dialects = []*Dialect{
	{Name: "openbsd", Of: "OpenBSD's and Debian's", set: openbsd, plain: "tcp", six: "tcp6", rate: 256, separates: ".:", argv: 20, folds: true, lax: true, wraps: wrapsByL},
	{Name: "freebsd", Of: "FreeBSD's", set: freebsd, plain: "tcp4", six: "tcp6", rate: 256, separates: ":", argv: 20, folds: true, quoting: wholeQuotes, unixMode: "0200"},
	{Name: "netbsd", Of: "NetBSD's", set: netbsd, plain: "tcp4", six: "tcp6", rate: 40, separates: ":.", argv: 64, folds: true, quoting: innerQuotes, wraps: wrapsAll},
	{Name: "gnu", Of: "GNU inetutils'", set: gnu, plain: "tcp4", six: "tcp", rate: 1000, most: 1000, separates: ":.", quoting: shellQuotes, implied: true},
	{Name: "busybox", Of: "busybox'", set: busybox, plain: "tcp4", six: "tcp6", separates: ".:", argv: 20, joins: true, hash: true, path: true},
}

// Names are those that Named knows, the main one of each dialect first.
func Names() []string {
	var names []string
	for _, d := range dialects {
		names = append(names, d.Name)
	}
	return append(names, "debian", "inetutils")
}

// Named is the dialect of a name, nil if there is none such.
func Named(name string) *Dialect {
	switch name {
	case "debian":
		name = "openbsd"
	case "inetutils":
		name = "gnu"
	}
	if i := slices.IndexFunc(dialects, func(d *Dialect) bool { return d.Name == name }); i >= 0 {
		return dialects[i]
	}
	return nil
}

// first is the dialect of s that stands first in the list.
func (s set) first() *Dialect { return dialects[bits.TrailingZeros8(uint8(s))] }

// only reports whether s is one dialect.
func (s set) only() bool { return bits.OnesCount8(uint8(s)) == 1 }

// String lists names: "gnu and busybox".
func (s set) String() string {
	var names []string
	for _, d := range dialects {
		if s&d.set != 0 {
			names = append(names, d.Name)
		}
	}
	if n := len(names); n > 1 {
		return strings.Join(names[:n-1], ", ") + " and " + names[n-1]
	}
	return strings.Join(names, "")
}

// What only some dialects know. All of it is read from any of them.
const (
	knowHost     = every &^ freebsd        // ADDRESS:SERVICE, and ADDRESS: alone
	knowHosts    = openbsd | gnu | busybox // ADDRESS,ADDRESS:SERVICE
	knowUnix     = every &^ gnu            // /PATH
	knowOwner    = freebsd                 // :USER:GROUP:MODE:/PATH
	knowRPC      = every &^ gnu            // NAME/VERSION and rpc/tcp
	knowMux      = freebsd | netbsd | gnu  // tcpmux/NAME
	knowSeq      = every &^ openbsd        // seqpacket
	knowAccept   = netbsd                  // stream,MAX:FILTER
	knowFour     = every &^ busybox        // tcp4
	knowBoth     = openbsd | freebsd       // tcp46
	knowSixOnly  = gnu                     // tcp6only
	knowBuffers  = openbsd | netbsd        // tcp,sndbuf=64k
	knowMax      = every &^ freebsd        // nowait.40
	knowColonMax = netbsd                  // nowait:40
	knowLimits   = freebsd                 // nowait/10/60/5
	knowClass    = freebsd                 // USER/CLASS
	knowKeys     = netbsd                  // SERVICE on KEY = VALUE;
	knowInclude  = netbsd                  // .include
	knowPolicy   = freebsd | netbsd        // #@
	knowIdent    = freebsd                 // auth as a built-in service
)
