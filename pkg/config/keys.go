// The keys there are: one table for each TOML table. The reading, the
// inheritance from [defaults], the messages and the test that looks for every
// key in the manual all go by these.

package config

import (
	"fmt"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A kind is what a row is. A key says for which kinds it means anything.
type kind uint8

const (
	execDirect    kind = 1 << iota // a program on its own sockets
	execMux                        // a program reached by name: tcpmux/…
	multiplexer                    // builtin = "tcpmux"
	builtinDirect                  // any other built-in service on its own sockets
	builtinMux                     // … reached by name
	forwardDirect                  // a relay from its own sockets
	forwardMux                     // … reached by name

	programs = execDirect | execMux
	builtins = multiplexer | builtinDirect | builtinMux
	forwards = forwardDirect | forwardMux
	relays   = forwards | builtinDirect | builtinMux // what the daemon itself moves data for
	byName   = execMux | builtinMux | forwardMux
	sockets  = execDirect | multiplexer | builtinDirect | forwardDirect
	all      = sockets | byName
)

func (k kind) String() string {
	switch k {
	case execDirect:
		return "a row with a program and sockets of its own"
	case execMux:
		return "a row that is reached by name"
	case multiplexer:
		return "a multiplexer"
	case builtinDirect:
		return "a built-in service"
	case builtinMux:
		return "a built-in service that is reached by name"
	case forwardDirect:
		return "a row that forwards"
	case forwardMux:
		return "a row that forwards and is reached by name"
	}
	return "a row"
}

// A netset is a set of kinds of sockets, one bit for each service.Network. A
// key of a socket says for which it means anything.
type netset uint16

func netsetOf(list ...service.Network) (s netset) {
	for _, n := range list {
		s |= 1 << n
	}
	return s
}

var (
	tcpNets   = netsetOf(service.TCP4, service.TCP6)
	udpNets   = netsetOf(service.UDP4, service.UDP6)
	ipNets    = tcpNets | udpNets
	unixNets  = netsetOf(service.UnixStream, service.UnixDgram, service.UnixSeqpacket)
	vsockNets = netsetOf(service.VsockStream, service.VsockSeqpacket)
	allNets   = ipNets | unixNets | vsockNets
	connNets  = tcpNets | vsockNets | netsetOf(service.UnixStream, service.UnixSeqpacket)
)

// String names the set for a message, which says what a key means nothing for.
func (s netset) String() string {
	switch {
	case s&^tcpNets == 0:
		return "a TCP socket"
	case s&^udpNets == 0:
		return "a UDP socket"
	case s&^unixNets == 0:
		return "a unix socket"
	case s&^vsockNets == 0:
		return "a vsock socket"
	}
	return "sockets such as this row has"
}

// A key of a table T: its name, the place it fills, an example of its value,
// and what it is for.
type key[T any] struct {
	name    string
	field   func(*T) any // a *Bool, *Int, *String, *List, *Scalar, or one of the tables
	example string
	kinds   kind   // service keys only
	nets    netset // of these, those of a socket; 0: it is about no socket
}

var serverKeys = []key[Server]{
	{name: "grace", field: func(s *Server) any { return &s.Grace }, example: `"30s"`},
	{name: "log_format", field: func(s *Server) any { return &s.LogFormat }, example: `"text"`},
	{name: "log_level", field: func(s *Server) any { return &s.LogLevel }, example: `"info"`},
	{name: "control", field: func(s *Server) any { return &s.Control }, example: `"/run/tcpmuxd/control.sock"`},
	{name: "hosts_access_dir", field: func(s *Server) any { return &s.HostsDir }, example: `"/etc"`},
	{name: "scan", field: func(s *Server) any { return &s.Scan }, example: `{ names = 10 }`},
	{name: "limits", field: func(s *Server) any { return &s.Limits }, example: `{ instances = 1000 }`},
}

var scanKeys = []key[Scan]{
	{name: "names", field: func(s *Scan) any { return &s.Names }, example: `10`},
	{name: "within", field: func(s *Scan) any { return &s.Within }, example: `"60s"`},
	{name: "hold", field: func(s *Scan) any { return &s.Hold }, example: `"600s"`},
	{name: "action", field: func(s *Scan) any { return &s.Action }, example: `"refuse"`},
	{name: "tarpit_most", field: func(s *Scan) any { return &s.TarpitMost }, example: `64`},
	{name: "exempt", field: func(s *Scan) any { return &s.Exempt }, example: `["192.0.2.0/24"]`},
	{name: "sources", field: func(s *Scan) any { return &s.Sources }, example: `65536`},
	{name: "nft_set", field: func(s *Scan) any { return &s.NftSet }, example: `"inet filter tcpmuxd4"`},
	{name: "nft_set_v6", field: func(s *Scan) any { return &s.NftSetV6 }, example: `"inet filter tcpmuxd6"`},
}

// setKeys are the keys of a [set.NAME].
var setKeys = []key[Set]{
	{name: "prefixes", field: func(s *Set) any { return &s.Prefixes }, example: `["192.0.2.0/24"]`},
	{name: "file", field: func(s *Set) any { return &s.File }, example: `"/etc/tcpmuxd/office"`},
}

// serverLimitsKeys are those of limitsKeys that [server.limits] has.
var serverLimitsKeys = func() (keys []key[Limits]) {
	for _, k := range limitsKeys {
		switch k.name {
		case "overflow", "overflow_wait", "refusal", "refusal_file", "exceeded", "suspend", "shed":
		default:
			keys = append(keys, k)
		}
	}
	return keys
}()

// serviceKeys are the keys of a row and of [defaults].
var serviceKeys = []key[Service]{
	{"enabled", func(s *Service) any { return &s.Enabled }, `false`, all, 0},
	{"name", func(s *Service) any { return &s.Name }, `"ftp"`, sockets, 0},
	{"socket", func(s *Service) any { return &s.Socket }, `"stream"`, all, 0},
	{"protocol", func(s *Service) any { return &s.Protocol }, `"tcp"`, sockets, 0},
	{"wait", func(s *Service) any { return &s.Wait }, `false`, all, 0},

	{"listen", func(s *Service) any { return &s.Listen }, `["192.0.2.1:21", "[2001:db8::1]:21"]`, sockets, 0},
	{"rpc", func(s *Service) any { return &s.RPC }, `{ program = "rstatd", versions = "1-3" }`, execDirect | forwardDirect, ipNets},
	{"backlog", func(s *Service) any { return &s.Backlog }, `128`, sockets, connNets},
	{"keepalive", func(s *Service) any { return &s.Keepalive }, `true`, sockets, tcpNets},
	{"nodelay", func(s *Service) any { return &s.Nodelay }, `true`, sockets, tcpNets},
	{"defer_accept", func(s *Service) any { return &s.DeferAccept }, `"30s"`, sockets, tcpNets},
	{"congestion", func(s *Service) any { return &s.Congestion }, `"cubic"`, sockets, tcpNets},
	{"reuseport", func(s *Service) any { return &s.Reuseport }, `true`, sockets, ipNets},
	{"freebind", func(s *Service) any { return &s.Freebind }, `true`, sockets, ipNets},
	{"transparent", func(s *Service) any { return &s.Transparent }, `true`, sockets, ipNets},
	{"bind_to_device", func(s *Service) any { return &s.BindToDevice }, `"eth0"`, sockets, ipNets},
	{"broadcast", func(s *Service) any { return &s.Broadcast }, `true`, sockets, netsetOf(service.UDP4)},
	{"rcvbuf", func(s *Service) any { return &s.Rcvbuf }, `65536`, sockets, allNets},
	{"sndbuf", func(s *Service) any { return &s.Sndbuf }, `65536`, sockets, allNets},
	{"mark", func(s *Service) any { return &s.Mark }, `1`, sockets, ipNets},
	{"priority", func(s *Service) any { return &s.Priority }, `6`, sockets, ipNets},
	{"tos", func(s *Service) any { return &s.TOS }, `0x10`, sockets, ipNets},
	{"ttl", func(s *Service) any { return &s.TTL }, `64`, sockets, ipNets},
	{"socket_mode", func(s *Service) any { return &s.SocketMode }, `"0666"`, sockets, unixNets},
	{"socket_user", func(s *Service) any { return &s.SocketUser }, `"root"`, sockets, unixNets},
	{"socket_group", func(s *Service) any { return &s.SocketGroup }, `"adm"`, sockets, unixNets},
	{"directory_mode", func(s *Service) any { return &s.DirectoryMode }, `"0755"`, sockets, unixNets},
	{"pass_credentials", func(s *Service) any { return &s.PassCredentials }, `true`, sockets, unixNets},

	{"exec", func(s *Service) any { return &s.Exec }, `["/bin/date", "-u"]`, programs, 0},
	{"argv0", func(s *Service) any { return &s.Argv0 }, `"date"`, programs, 0},
	{"user", func(s *Service) any { return &s.User }, `"nobody"`, programs, 0},
	{"group", func(s *Service) any { return &s.Group }, `"nogroup"`, programs, 0},
	{"groups", func(s *Service) any { return &s.Groups }, `["adm"]`, programs, 0},
	{"cwd", func(s *Service) any { return &s.Cwd }, `"/"`, programs, 0},
	{"umask", func(s *Service) any { return &s.Umask }, `"022"`, programs, 0},
	{"env", func(s *Service) any { return &s.Env }, `{ TZ = "UTC" }`, programs, 0},
	{"env_pass", func(s *Service) any { return &s.EnvPass }, `["LANG"]`, programs, 0},
	{"env_file", func(s *Service) any { return &s.EnvFile }, `"/etc/default/ftp"`, programs, 0},
	{"stdout", func(s *Service) any { return &s.Stdout }, `"log"`, programs, 0},
	{"stderr", func(s *Service) any { return &s.Stderr }, `"log"`, programs, 0},
	{"chroot", func(s *Service) any { return &s.Chroot }, `"/srv/ftp"`, programs, 0},
	{"rlimits", func(s *Service) any { return &s.Rlimits }, `{ nofile = 1024 }`, programs, 0},
	{"nice", func(s *Service) any { return &s.Nice }, `10`, programs, 0},
	{"ioprio", func(s *Service) any { return &s.IOPrio }, `"best-effort:4"`, programs, 0},
	{"oom_score_adj", func(s *Service) any { return &s.OOMScoreAdj }, `500`, programs, 0},
	{"cpus", func(s *Service) any { return &s.CPUs }, `"0"`, programs, 0},

	{"builtin", func(s *Service) any { return &s.Builtin }, `"tcpmux"`, builtins, 0},
	{"ident", func(s *Service) any { return &s.Ident }, `{ reply = "name" }`, builtinDirect | builtinMux, 0},
	{"help", func(s *Service) any { return &s.Help }, `"allowed"`, multiplexer, 0},
	{"timeout", func(s *Service) any { return &s.Timeout }, `"10s"`, multiplexer, 0},
	{"forward", func(s *Service) any { return &s.Forward }, `["192.0.2.1:80", "db.example:5432"]`, forwards, 0},
	{"connect_timeout", func(s *Service) any { return &s.ConnectTimeout }, `"5s"`, forwards, 0},
	{"source", func(s *Service) any { return &s.Source }, `"transparent"`, forwards, 0},
	{"send_proxy", func(s *Service) any { return &s.SendProxy }, `"v2"`, forwards, 0},
	{"idle", func(s *Service) any { return &s.Idle }, `"1m"`, relays | execDirect, 0},
	{"lifetime", func(s *Service) any { return &s.Lifetime }, `"10m"`, relays, 0},
	{"hidden", func(s *Service) any { return &s.Hidden }, `true`, byName, 0},

	{"proxy_from", func(s *Service) any { return &s.ProxyFrom }, `["192.0.2.10"]`, sockets, tcpNets},
	{"proxy_timeout", func(s *Service) any { return &s.ProxyTimeout }, `"5s"`, sockets, tcpNets},

	{"access", func(s *Service) any { return &s.Access }, `{ allow = ["192.0.2.0/24"] }`, all, 0},
	{"limits", func(s *Service) any { return &s.Limits }, `{ instances = 40 }`, all, 0},

	{"on_reload", func(s *Service) any { return &s.OnReload }, `"finish"`, programs, 0},
	{"on_stop", func(s *Service) any { return &s.OnStop }, `"leave"`, programs, 0},
}

var rpcKeys = []key[RPC]{
	{name: "program", field: func(r *RPC) any { return &r.Program }, example: `"rstatd"`},
	{name: "versions", field: func(r *RPC) any { return &r.Versions }, example: `"1-3"`},
}

var keepaliveKeys = []key[Keepalive]{
	{name: "idle", field: func(k *Keepalive) any { return &k.Idle }, example: `"2h"`},
	{name: "interval", field: func(k *Keepalive) any { return &k.Interval }, example: `"75s"`},
	{name: "count", field: func(k *Keepalive) any { return &k.Count }, example: `9`},
}

var accessKeys = []key[Access]{
	{name: "allow", field: func(a *Access) any { return &a.Allow }, example: `["192.0.2.0/24"]`},
	{name: "deny", field: func(a *Access) any { return &a.Deny }, example: `["2001:db8::/32"]`},
	{name: "uids", field: func(a *Access) any { return &a.UIDs }, example: `["alice"]`},
	{name: "gids", field: func(a *Access) any { return &a.GIDs }, example: `["adm"]`},
	{name: "interfaces", field: func(a *Access) any { return &a.Interfaces }, example: `["eth0"]`},
	{name: "local", field: func(a *Access) any { return &a.Local }, example: `["192.0.2.1"]`},
	{name: "hours", field: func(a *Access) any { return &a.Hours }, example: `["mon-fri 08:00-18:00"]`},
	{name: "timezone", field: func(a *Access) any { return &a.Timezone }, example: `"Europe/Berlin"`},
	{name: "hosts_access", field: func(a *Access) any { return &a.HostsAccess }, example: `true`},
	{name: "hosts_daemon", field: func(a *Access) any { return &a.HostsDaemon }, example: `"in.ftpd"`},
}

// rlimitKeys are the resources of getrlimit(2), in the order of their numbers
// in linux/resource.h.
var rlimitKeys = []key[Rlimits]{
	{name: "cpu", field: func(r *Rlimits) any { return &r.CPU }, example: `"10m"`},
	{name: "fsize", field: func(r *Rlimits) any { return &r.Fsize }, example: `"1G"`},
	{name: "data", field: func(r *Rlimits) any { return &r.Data }, example: `"64M"`},
	{name: "stack", field: func(r *Rlimits) any { return &r.Stack }, example: `"8M"`},
	{name: "core", field: func(r *Rlimits) any { return &r.Core }, example: `0`},
	{name: "rss", field: func(r *Rlimits) any { return &r.Rss }, example: `"64M"`},
	{name: "nproc", field: func(r *Rlimits) any { return &r.Nproc }, example: `32`},
	{name: "nofile", field: func(r *Rlimits) any { return &r.Nofile }, example: `"256:1024"`},
	{name: "memlock", field: func(r *Rlimits) any { return &r.Memlock }, example: `"64K"`},
	{name: "as", field: func(r *Rlimits) any { return &r.As }, example: `"256M"`},
	{name: "locks", field: func(r *Rlimits) any { return &r.Locks }, example: `64`},
	{name: "sigpending", field: func(r *Rlimits) any { return &r.Sigpending }, example: `64`},
	{name: "msgqueue", field: func(r *Rlimits) any { return &r.Msgqueue }, example: `"64K"`},
	{name: "nice", field: func(r *Rlimits) any { return &r.Nice }, example: `20`},
	{name: "rtprio", field: func(r *Rlimits) any { return &r.Rtprio }, example: `0`},
	{name: "rttime", field: func(r *Rlimits) any { return &r.Rttime }, example: `"200ms"`},
}

var limitsKeys = []key[Limits]{
	{name: "instances", field: func(l *Limits) any { return &l.Instances }, example: `40`},
	{name: "instances_per_source", field: func(l *Limits) any { return &l.InstancesPerSource }, example: `4`},
	{name: "rate", field: func(l *Limits) any { return &l.Rate }, example: `"256/min"`},
	{name: "burst", field: func(l *Limits) any { return &l.Burst }, example: `64`},
	{name: "rate_per_source", field: func(l *Limits) any { return &l.RatePerSource }, example: `"60/min"`},
	{name: "burst_per_source", field: func(l *Limits) any { return &l.BurstPerSource }, example: `16`},
	{name: "source_prefix_v4", field: func(l *Limits) any { return &l.SourcePrefixV4 }, example: `24`},
	{name: "source_prefix_v6", field: func(l *Limits) any { return &l.SourcePrefixV6 }, example: `56`},
	{name: "overflow", field: func(l *Limits) any { return &l.Overflow }, example: `"queue"`},
	{name: "overflow_wait", field: func(l *Limits) any { return &l.OverflowWait }, example: `"5s"`},
	{name: "refusal", field: func(l *Limits) any { return &l.Refusal }, example: `"come again later"`},
	{name: "refusal_file", field: func(l *Limits) any { return &l.RefusalFile }, example: `"/etc/tcpmuxd/busy"`},
	{name: "exceeded", field: func(l *Limits) any { return &l.Exceeded }, example: `"suspend"`},
	{name: "suspend", field: func(l *Limits) any { return &l.Suspend }, example: `"10m"`},
	{name: "shed", field: func(l *Limits) any { return &l.Shed }, example: `{ load = 8.0 }`},
}

var identKeys = []key[Ident]{
	{name: "reply", field: func(i *Ident) any { return &i.Reply }, example: `"name"`},
	{name: "os", field: func(i *Ident) any { return &i.OS }, example: `"UNIX"`},
	{name: "fallback", field: func(i *Ident) any { return &i.Fallback }, example: `"nobody"`},
	{name: "fakeid", field: func(i *Ident) any { return &i.Fakeid }, example: `"unused"`},
	{name: "noident", field: func(i *Ident) any { return &i.Noident }, example: `true`},
	{name: "timeout", field: func(i *Ident) any { return &i.Timeout }, example: `"10s"`},
}

var shedKeys = []key[Shed]{
	{name: "load", field: func(s *Shed) any { return &s.Load }, example: `8.0`},
	{name: "memory_some", field: func(s *Shed) any { return &s.MemorySome }, example: `20`},
	{name: "memory_full", field: func(s *Shed) any { return &s.MemoryFull }, example: `5`},
}

// topKeys are the keys that stand above all tables, and the tables.
var topKeys = []string{"include", "server", "set", "defaults", "service"}

func names[T any](keys []key[T]) []string {
	out := make([]string, len(keys))
	for i, k := range keys {
		out[i] = k.name
	}
	return out
}

func find[T any](keys []key[T], name string) *key[T] {
	for i := range keys {
		if keys[i].name == name {
			return &keys[i]
		}
	}
	return nil
}

// elsewhere says where name would be a key: `instances = 4` in the row itself
// is answered by limits.instances.
func elsewhere(name string) string {
	in := ""
	switch {
	case find(serviceKeys, name) != nil:
		return "this is a key of a row; write it in [service.NAME] or [defaults]"
	case find(limitsKeys, name) != nil:
		in = "limits"
	case find(accessKeys, name) != nil:
		in = "access"
	case find(keepaliveKeys, name) != nil:
		in = "keepalive"
	case find(identKeys, name) != nil:
		in = "ident"
	case find(rlimitKeys, name) != nil:
		in = "rlimits"
	case find(rpcKeys, name) != nil:
		in = "rpc"
	case find(setKeys, name) != nil:
		return "this is a key of a set; write it in [set.NAME]"
	case find(scanKeys, name) != nil:
		in = "server.scan"
	case find(serverKeys, name) != nil:
		return "this is a key of the daemon; write it in [server]"
	default:
		return ""
	}
	return fmt.Sprintf("this is a key of %s; write %s.%s instead", in, in, name)
}
