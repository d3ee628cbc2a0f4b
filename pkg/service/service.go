// Package service is the table: what every row means once its text has been
// read, checked and resolved.
//
// The text half of the program ends here and the socket half begins here; the
// two never import each other. A Table is a value: immutable, comparable row
// by row, with no string left to parse, and without any descriptor, counter or
// lock. What a row says in words is config's; what runs for a row is
// supervisor's.
package service

import (
	"net/netip"
	"reflect"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// A Table is all rows and the daemon's own settings. It is never changed after
// config.Compile made it.
type Table struct {
	Server   Server
	Services []*Service // sorted by ID; disabled rows are not in it
}

// Server is the [server] part: the daemon itself.
type Server struct {
	Grace     time.Duration // how long a stopping daemon waits for instances; 0: not at all
	LogFormat LogFormat
	LogLevel  LogLevel
}

// LogFormat is how log lines are written.
type LogFormat uint8

// The log formats.
const (
	LogText LogFormat = iota // key=value
	LogJSON
)

// LogLevel is the least important line that is written.
type LogLevel uint8

// The log levels. Starts and ends of instances are Info.
const (
	LogInfo LogLevel = iota
	LogDebug
	LogWarn
	LogError
)

// A Service is one row. It runs exactly one of Exec and Builtin.
type Service struct {
	ID   string // the row's key, for example "ftp" or "tcpmux/+date"
	Name string // the service's name; for a mux row the name that is asked for, in lower case

	Mux  bool // reached by Name on every multiplexer, and in no other way; Listen is empty
	Plus bool // Mux only: tcpmuxd answers "+Go" itself
	// Hidden keeps a Mux row out of every HELP list.
	Hidden bool

	Listen []Endpoint // where the row listens; never empty unless Mux
	Socket Socket     // options of those listeners

	Builtin Builtin       // BuiltinNone for an exec row
	Help    Help          // BuiltinTCPMUX only
	Timeout time.Duration // BuiltinTCPMUX only: for the whole negotiation

	Exec *Exec // nil for a builtin row

	Access   *access.Rules // nil: everybody
	Limits   limit.Limits
	Overflow Overflow

	OnReload OnReload
	OnStop   OnStop

	// Refuse, when not empty, says why this row refuses everybody for now: its
	// user has vanished. Listeners stay open. A program that is missing is not
	// noted here but found out at every start, so that it needs no reload.
	Refuse string

	// Origin is where the row stands in the configuration, "file:line", for
	// the log. It is not compared by Equal.
	Origin string
	// ListenOrigin is where each Endpoint of Listen is written,
	// "file:line:column", index by index; for those nobody wrote it is the
	// row. It is not compared by Equal.
	ListenOrigin []string
}

// Equal reports whether two rows mean the same, so that a reload has nothing
// to do for them.
func (s *Service) Equal(t *Service) bool {
	a, b := *s, *t
	a.Origin, b.Origin = "", ""
	a.ListenOrigin, b.ListenOrigin = nil, nil
	a.Access, b.Access = nil, nil
	return s.Access.Equal(t.Access) && reflect.DeepEqual(&a, &b)
}

// Builtin names a service that runs inside the daemon.
type Builtin uint8

// The built-in services.
const (
	BuiltinNone   Builtin = iota
	BuiltinTCPMUX         // the multiplexer of RFC 1078
)

// Help is what the HELP request lists.
type Help uint8

// The answers to HELP.
const (
	HelpAllowed Help = iota // the services this peer may have
	HelpAll                 // all services that are not hidden
	HelpOff                 // nothing: HELP is as unknown as any other name
)

// Overflow is what happens to a connection that finds all instances taken.
type Overflow uint8

// The ways to treat an excess.
const (
	OverflowRefuse Overflow = iota // close it, with a "-" line on the multiplexer
	OverflowQueue                  // direct rows only: leave it in the kernel's queue
)

// OnReload is what happens to running instances of a row that a reload has
// changed or removed.
type OnReload uint8

// The choices for OnReload.
const (
	ReloadFinish OnReload = iota // they finish under the row they started with
	ReloadEnd                    // SIGTERM, and SIGKILL after [server] grace (5 s where that is 0)
)

// OnStop is what happens to instances that outlive the grace of a stopping
// daemon.
type OnStop uint8

// The choices for OnStop.
const (
	StopLeave OnStop = iota // they live on, as under inetd
	StopTerm                // SIGTERM
	StopKill                // SIGKILL
)

// An Endpoint is one address to listen on.
type Endpoint struct {
	Network Network
	Addr    netip.AddrPort // never v4-mapped; the zone is an interface's name
}

// Network is the kind of a listening socket.
type Network uint8

// The kinds of listening sockets. A row with protocol "tcp" has an Endpoint of
// each family: a child of a v4 peer then has a v4 socket, which is what
// programs older than IPv6 expect.
const (
	TCP4 Network = iota
	TCP6         // IPV6_V6ONLY is always set
)

func (n Network) String() string {
	if n == TCP6 {
		return "tcp6"
	}
	return "tcp4"
}

// Socket holds the options of a listener. The kernel hands them on to the
// accepted socket, so that they cost a connection nothing. The zero value is
// the kernel's own default everywhere, which is what inetd's children have
// always had.
type Socket struct {
	Backlog      int // 0: the kernel's maximum (net.core.somaxconn)
	Keepalive    Keepalive
	Nodelay      bool          // TCP_NODELAY
	DeferAccept  time.Duration // TCP_DEFER_ACCEPT, whole seconds; 0: off
	ReusePort    bool          // SO_REUSEPORT
	Freebind     bool          // IP_FREEBIND
	BindToDevice string        // SO_BINDTODEVICE
	Rcvbuf       int           // SO_RCVBUF, bytes as asked for (the kernel doubles them)
	Sndbuf       int           // SO_SNDBUF
	Mark         uint32        // SO_MARK; 0: none
	TOS          int           // IP_TOS or IPV6_TCLASS; -1: not set
}

// Keepalive is SO_KEEPALIVE with its three clocks; a zero clock is the kernel's
// default.
type Keepalive struct {
	On       bool
	Idle     time.Duration // TCP_KEEPIDLE, whole seconds
	Interval time.Duration // TCP_KEEPINTVL, whole seconds
	Count    int           // TCP_KEEPCNT
}

// Exec is the child of a row.
type Exec struct {
	Path string   // absolute
	Argv []string // argv[0] included

	// Cred is nil when the child keeps the daemon's own identity, which is
	// so only where the daemon does not run as root.
	Cred *Cred
	// Env is the whole static environment, "NAME=value", sorted; the peer's
	// variables come on top of it for each connection.
	Env   []string
	Dir   string // absolute; "/" unless the row says otherwise
	Umask uint32 // 022 unless the row says otherwise
}

// Cred is who a child is.
type Cred struct {
	User   string // as written, for the log
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups, sorted; GID need not be among them
}
