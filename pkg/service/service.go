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
	"fmt"
	"net/netip"
	"strconv"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/access/hosts"
	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// A Table is all rows and the daemon's own settings. It is never changed after
// config.Compile made it.
type Table struct {
	Server   Server
	Services []*Service // sorted by ID; disabled rows are not in it

	// Lenient has a socket whose address somebody else has opened as soon as that
	// is free; without it the table is not applied then.
	Lenient bool
}

// Server is the [server] part: the daemon itself.
type Server struct {
	Grace     time.Duration // how long a stopping daemon waits for instances; 0: not at all
	LogFormat LogFormat
	LogLevel  LogLevel

	// Control is the path of the socket that tcpmuxctl(8) talks to; empty: none.
	Control string
	Scan    *Scan // what is done about those who try names; nil: nothing
	// Limits are those of all rows together, and of each source over all of
	// them. The zero value limits nothing, and costs nothing.
	Limits limit.Limits
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

// A Service is one row. It runs exactly one of Exec, Builtin and Forward.
type Service struct {
	ID   string // the row's key, for example "ftp" or "tcpmux/+date"
	Name string // the service's name; for a mux row the name that is asked for, in lower case

	Mux  bool // reached by Name on every multiplexer, and in no other way; Listen is empty
	Plus bool // Mux only: tcpmuxd answers "+Go" itself
	// Hidden keeps a Mux row out of every HELP list.
	Hidden bool

	Listen []Endpoint // where the row listens; never empty unless Mux
	Socket Socket     // options of those listeners
	RPC    *RPC       // what it is registered as with rpcbind(8); nil: it is not

	// Wait hands the listening socket itself to the server, which accepts or
	// receives on it; Limits.Instances is how many servers share each socket.
	// Without it each connection, or each peer of a datagram socket, has an
	// instance of its own. Exec rows only.
	Wait bool

	Builtin Builtin       // BuiltinNone for an exec row
	Help    Help          // BuiltinTCPMUX only
	Timeout time.Duration // BuiltinTCPMUX only: for the whole negotiation

	Ident Ident // BuiltinAuth only

	Exec    *Exec    // nil for a row that runs in the daemon
	Forward *Forward // nil unless the row relays

	// Idle ends an instance whose peer has sent nothing for so long: relays,
	// stream built-ins and sessions of datagram rows. Lifetime ends a relay or
	// a stream built-in however busy it is. 0: never.
	Idle, Lifetime time.Duration

	// ProxyFrom are the sources of TCP connections that begin with a header of the
	// PROXY protocol, which says who the peer is; nil: none. Such a header has
	// ProxyTimeout to come, which is 0 without them.
	ProxyFrom    *access.Rules
	ProxyTimeout time.Duration

	Access *access.Rules // of peers with an IP address; nil: everybody
	Users  *access.Users // of peers on unix sockets; nil: everybody
	// How and when a peer has to come, whoever it is. Of another kind of socket
	// than IP nobody can tell how: where Interfaces or Locals is set, its peers
	// are refused.
	Interfaces []string      // by one of these interfaces, sorted; nil: by any
	Locals     *access.Rules // to one of these addresses of this machine; nil: to any
	Hours      *access.Hours // at these times; nil: at any
	// Hosts are the rules of hosts.allow and hosts.deny; nil: everybody. Those of
	// a Wait row are in Access.
	Hosts    *hosts.Daemon
	Limits   limit.Limits
	Overflow Overflow
	// OverflowWait is how long a peer waits for an instance to end: Mux rows
	// with OverflowQueue only, where it is more than 0.
	OverflowWait time.Duration
	// Refusal is what a peer over a limit is sent, all of it; empty for nothing
	// on a socket of the row's own, and for tcpmux.Busy on a multiplexer.
	Refusal string
	// Suspend is how long the row serves nobody once Limits.Rate is exceeded; 0:
	// only the excess is refused.
	Suspend time.Duration
	Shed    Shed

	OnReload OnReload
	OnStop   OnStop

	// Refuse, when not empty, says why this row refuses everybody for now: its
	// user has vanished. Listeners stay open. A program that is missing is not
	// noted here but found out at every start, so that it needs no reload.
	Refuse string

	// Origin is where the row stands in the configuration, for the log. It is
	// not compared by Equal.
	Origin Place
	// ListenOrigin is where each Endpoint of Listen is written, index by index;
	// for those nobody wrote it is the row. It is not compared by Equal.
	ListenOrigin []Place
}

// RPC is a program of Sun RPC and its versions, from Low to High, which are few.
type RPC struct{ Program, Low, High uint32 }

// Versions is "1-3", or "1" for a single one.
func (r *RPC) Versions() string {
	if r.Low == r.High {
		return strconv.FormatUint(uint64(r.Low), 10)
	}
	return fmt.Sprintf("%d-%d", r.Low, r.High)
}

// A Place is where something stands in the configuration.
type Place struct {
	File      string
	Line, Col int32 // Col is 0 where the line is enough
}

// String is "file:line:column", or "file:line".
func (p Place) String() string {
	if p.Col == 0 {
		return fmt.Sprintf("%s:%d", p.File, p.Line)
	}
	return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col)
}

// MarshalText is String, for what encodes a row.
func (p Place) MarshalText() ([]byte, error) { return []byte(p.String()), nil }

// Builtin names a service that runs inside the daemon.
type Builtin uint8

// The built-in services.
const (
	BuiltinNone    Builtin = iota
	BuiltinTCPMUX          // the multiplexer of RFC 1078
	BuiltinEcho            // RFC 862
	BuiltinDiscard         // RFC 863
	BuiltinChargen         // RFC 864
	BuiltinDaytime         // RFC 867
	BuiltinTime            // RFC 868
	BuiltinSensor          // serves nobody: who comes is a scanner
	BuiltinAuth            // RFC 1413
)

var builtinWords = [...]string{"none", "tcpmux", "echo", "discard", "chargen", "daytime", "time", "sensor", "auth"}

// String is the word of the configuration.
func (b Builtin) String() string { return builtinWords[b] }

// Forward is where a relay goes to.
type Forward struct {
	Targets []Target      // tried in this order; never empty
	Timeout time.Duration // for the connection to each of them
	// Transparent has the target see the peer's own address (IP_TRANSPARENT).
	Transparent bool
	SendProxy   SendProxy // what the target is told first
}

// SendProxy is the version of the PROXY protocol by which a target is told who
// the peer is.
type SendProxy uint8

// The versions.
const (
	SendNone SendProxy = iota // nothing is told
	SendV1                    // a line
	SendV2                    // binary
)

// A Target is one address to relay to: exactly one of Addr, Host and Path.
type Target struct {
	Addr netip.AddrPort // an IP address and a port
	Host string         // a name, looked up again from time to time
	Port uint16         // with Host
	Path string         // a unix stream socket; "@name" is abstract
}

// String is the target as the configuration writes it.
func (t Target) String() string {
	switch {
	case t.Path != "":
		return t.Path
	case t.Host != "":
		return t.Host + ":" + strconv.Itoa(int(t.Port))
	}
	return t.Addr.String()
}

// Help is what the HELP request lists.
type Help uint8

// The answers to HELP.
const (
	HelpAllowed Help = iota // the services this peer may have
	HelpAll                 // all services that are not hidden
	HelpOff                 // nothing: HELP is as unknown as any other name
)

// Overflow is what happens to a connection that is over a limit.
type Overflow uint8

// The ways to treat an excess.
const (
	OverflowRefuse Overflow = iota // close it, with a "-" line on the multiplexer
	// OverflowQueue is about instances only: a direct row leaves the connection
	// in the kernel's queue, a Mux row has it wait for OverflowWait.
	OverflowQueue
	OverflowReset // end it with a reset
)

// Shed says from when on a row starts nothing for the sake of others. A value is
// not asked for if it is 0; the row starts again when each is below four fifths.
type Shed struct {
	Load       float64 // of one minute, proc_loadavg(5)
	MemorySome float64 // percent of ten seconds: "some avg10" of /proc/pressure/memory
	MemoryFull float64 // the same of "full"
}

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
	TTL          int           // IP_TTL or IPV6_UNICAST_HOPS, 1 to 255; 0: not set
	Priority     int           // SO_PRIORITY; 0: none
	Congestion   string        // TCP_CONGESTION; empty: the kernel's
	Broadcast    bool          // SO_BROADCAST, datagrams
	Transparent  bool          // IP_TRANSPARENT
	PassCred     bool          // SO_PASSCRED, unix sockets

	// Of unix sockets in the file system.
	Mode          uint32 // of the socket's file
	UID, GID      int    // its owner and group; -1: the daemon's own
	DirectoryMode uint32 // of directories that are made for it
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
	Env    []string
	Dir    string // absolute, seen from Chroot; "/" unless the row says otherwise
	Umask  uint32 // 022 unless the row says otherwise
	Chroot string // absolute; empty: none. Path is seen from there.

	// What descriptors 1 and 2 are; 0 is always the socket.
	Stdout, Stderr Stdio

	Rlimits     []Rlimit // sorted by Resource, no resource twice
	Nice        *int     // -20 to 19; nil: the daemon's
	IOPrio      *IOPrio  // nil: the daemon's
	OOMScoreAdj *int     // -1000 to 1000; nil: the daemon's
	CPUs        []int    // the processors it may run on, sorted; empty: the daemon's
}

// Stdio is what a descriptor of a child is.
type Stdio uint8

// The choices for Stdio.
const (
	StdioSocket Stdio = iota // the connection, or the socket of a wait row
	StdioLog                 // lines go to the daemon's log
	StdioNull                // /dev/null
)

// An Rlimit is one limit of setrlimit(2). RlimInfinity is "unlimited".
type Rlimit struct {
	Resource   int // RLIMIT_* of linux/resource.h
	Soft, Hard uint64
}

// RlimInfinity is RLIM_INFINITY.
const RlimInfinity = ^uint64(0)

// IOPrio is a priority of ioprio_set(2).
type IOPrio struct {
	Class uint8 // 1 realtime, 2 best-effort, 3 idle
	Level uint8 // 0 to 7, 0 is the highest; always 0 for idle
}

// Cred is who a child is.
type Cred struct {
	User   string // as written, for the log
	UID    uint32
	GID    uint32
	Groups []uint32 // supplementary groups, sorted; GID need not be among them
}
