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
	Line int // from 1
	Col  int // from 1, in characters; a tab is one
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
)

// A scalar was written as a string or as a whole number.
type scalar string

// A File is a whole configuration as it was written: the main file and all the
// files it includes.
type File struct {
	Path     string   // the main file
	Paths    []string // every file that was read, in the order of reading
	Server   Server
	Defaults Service
	Services []*Service // in the order of reading

	// Problems is what already the reading found: syntax, unknown keys, wrong
	// types. Compile reports them together with its own.
	Problems []*Problem
}

// Server is the [server] table.
type Server struct {
	Grace     String
	LogFormat String
	LogLevel  String
}

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
	Forward        List
	ConnectTimeout String
	Source         String
	Idle           String
	Lifetime       String
	Help           String
	Timeout        String
	Hidden         Bool

	Access Access
	Limits Limits

	OnReload String
	OnStop   String

	// Bad has the dotted keys that were written in a way that could not be
	// read, which has been reported: nobody should be told that they lack.
	Bad map[string]bool
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
}
