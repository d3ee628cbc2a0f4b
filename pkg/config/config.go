// Package config turns what an administrator wrote into the table: Load reads
// tcpmuxd.toml and what it includes into a File, Compile checks every word of
// it and resolves users, ports, durations and prefixes into a *service.Table.
//
// A File is only text with places: it knows no defaults, no users and no
// sockets. A front end for another way to write the same table (inetd.conf,
// xinetd.conf) fills a File and leaves everything else to Compile, so that
// there is one set of rules and one kind of message.
//
// Everything that is wrong is reported in one run, sorted by place, each with
// what to write instead. The package opens no socket, starts nothing, keeps
// nothing between two calls and never logs; the machine is reached through
// Options alone.
package config

import "fmt"

// A Pos is a place in a file. The zero Pos says that a value was not written.
type Pos struct {
	File string
	Line int32 // from 1
	Col  int32 // from 1, in characters; a tab is one
}

// IsSet reports whether p is a place at all.
func (p Pos) IsSet() bool { return p.Line > 0 }

func (p Pos) String() string { return fmt.Sprintf("%s:%d:%d", p.File, p.Line, p.Col) }

// A Value is something written at a place.
type Value[T any] struct {
	V   T
	Pos Pos // of the value; zero: not written
}

// IsSet reports whether the value was written.
func (v Value[T]) IsSet() bool { return v.Pos.IsSet() }

// The kinds of values a File is made of. Durations, rates, addresses, users
// and the like are still text here. An element of a List that is not set was
// none; it has been reported.
type (
	Bool   = Value[bool]
	Int    = Value[int64]
	String = Value[string]
	List   = Value[[]String]
	Scalar = Value[scalar]
	Number = Value[float64] // written as any number
)

// A scalar was written as a string or as a whole number.
type scalar string

// A File is a whole configuration as it was written: the main file and all the
// files it includes.
type File struct {
	Path     string   // the main file
	Paths    []string // every file that was read, in the order of reading
	Server   Server
	Sets     []*Set // in the order of reading
	Defaults Service
	Services []*Service // in the order of reading

	// Problems is what already the reading found: syntax, unknown keys, wrong
	// types. Compile reports them together with its own.
	Problems []*Problem

	// Comments are in the order of reading, for Write. Only front ends whose files
	// are converted have any.
	Comments []Comment

	// Notes is what the front end guessed, changed or lost.
	Notes []Note

	// SkipBad is for files of other super-servers, which serve what they can: what
	// is wrong with a row, or was with a line while reading (Problems with a
	// place), is a warning, and it is left out. No rows at all are no error, and the
	// table is Lenient.
	SkipBad bool
}

// Server is the [server] table.
type Server struct {
	Grace     String
	LogFormat String
	LogLevel  String
	Control   String
	HostsDir  String
	Scan      Scan
	Limits    ServerLimits

	// Bad is as in Service.
	Bad map[string]bool
}

// Scan is the table [server.scan].
type Scan struct {
	Pos        Pos
	Names      Int
	Within     String
	Hold       String
	Action     String
	TarpitMost Int
	Exempt     List
	Sources    Int
	NftSet     String
	NftSetV6   String
}

// A Set is a [set.NAME] table: prefixes that rows name as "@NAME".
type Set struct {
	Name     string
	Pos      Pos
	Prefixes List
	File     String
	Bad      bool // something was written in a way that could not be read
}

// ServerLimits is [server.limits]: those of Limits that can be of all rows
// together.
type ServerLimits struct{ Limits }

// A Service is one row, or [defaults], in words. The comment of a key is in
// etc/tcpmuxd.toml and tcpmuxd.toml(5), its bounds are in Compile.
type Service struct {
	ID  string // the row's key; empty for [defaults]
	Pos Pos    // of the key

	Enabled  Bool
	Name     String
	Socket   String
	Protocol String
	Wait     Bool

	Listen       List
	RPC          RPC
	Backlog      Int
	Keepalive    Keepalive
	Nodelay      Bool
	DeferAccept  String
	Reuseport    Bool
	Freebind     Bool
	BindToDevice String
	Rcvbuf       Int
	Sndbuf       Int
	Mark         Int
	TOS          Int
	TTL          Int
	Priority     Int
	Congestion   String
	Broadcast    Bool
	Transparent  Bool

	SocketMode      String
	SocketUser      String
	SocketGroup     String
	DirectoryMode   String
	PassCredentials Bool

	Exec    List
	Argv0   String
	User    String
	Group   String
	Groups  List
	Cwd     String
	Umask   String
	Env     Env
	EnvPass List
	EnvFile String
	Stdout  String
	Stderr  String

	Chroot      String
	Rlimits     Rlimits
	Nice        Int
	IOPrio      String
	OOMScoreAdj Int
	CPUs        List

	Builtin        String
	Ident          Ident
	Forward        List
	ConnectTimeout String
	Source         String
	SendProxy      String
	Idle           String
	Lifetime       String
	Help           String
	Timeout        String
	Hidden         Bool

	ProxyFrom    List
	ProxyTimeout String

	Access Access
	Limits Limits

	OnReload String
	OnStop   String

	// Unchecked says that a row that is disabled may be wrong: xinetd does not
	// look at a service that it does not run.
	Unchecked bool

	// Bad has the dotted keys that were written in a way that could not be
	// read, which has been reported: nobody should be told that they lack.
	Bad map[string]bool
}

// RPC is the table rpc. It is one value, as Keepalive is.
type RPC struct {
	Pos      Pos
	Program  Scalar
	Versions Scalar
}

// Keepalive is `keepalive = true`, false, or a table of its clocks. It is one
// value: a row takes it from [defaults] as a whole or not at all.
type Keepalive struct {
	Pos      Pos
	On       bool
	Idle     String
	Interval String
	Count    Int
}

// Env is the env table, in the order of writing.
type Env struct {
	Pos  Pos
	Vars []Var
}

// A Var is one environment variable; Pos is the place of its name.
type Var struct {
	Name  string
	Pos   Pos
	Value String
}

// Access is the access table.
type Access struct {
	Pos   Pos
	Allow List
	Deny  List
	UIDs  List
	GIDs  List

	Interfaces List
	Local      List
	Hours      List
	Timezone   String

	HostsAccess Bool
	HostsDaemon String
}

// Rlimits is the rlimits table.
type Rlimits struct {
	Pos        Pos
	As         Scalar
	Core       Scalar
	CPU        Scalar
	Data       Scalar
	Fsize      Scalar
	Locks      Scalar
	Memlock    Scalar
	Msgqueue   Scalar
	Nice       Scalar
	Nofile     Scalar
	Nproc      Scalar
	Rss        Scalar
	Rtprio     Scalar
	Rttime     Scalar
	Sigpending Scalar
	Stack      Scalar
}

// Limits is the limits table.
type Limits struct {
	Pos                Pos
	Instances          Int
	InstancesPerSource Int
	Rate               String
	Burst              Int
	RatePerSource      String
	BurstPerSource     Int
	SourcePrefixV4     Int
	SourcePrefixV6     Int
	Overflow           String
	OverflowWait       String
	Refusal            String
	RefusalFile        String
	Exceeded           String
	Suspend            String
	Shed               Shed
}

// Ident is the table ident, of builtin = "auth". It is one value, as Keepalive is.
type Ident struct {
	Pos      Pos
	Reply    String
	OS       String
	Fallback String
	Fakeid   String
	Noident  Bool
	Timeout  String
}

// Shed is the table limits.shed. It is one value, as Keepalive is.
type Shed struct {
	Pos        Pos
	Load       Number
	MemorySome Number
	MemoryFull Number
}
