// The keys there are: one table for each TOML table. The reading, the
// inheritance from [defaults], the messages and the test that looks for every
// key in the manual all go by these.

package config

import "fmt"

// A kind is what a row is. A key says for which kinds it means anything.
type kind uint8

const (
	direct  kind = 1 << iota // a program on its own sockets
	mux                      // a program reached by name: tcpmux/…
	builtin                  // the multiplexer itself

	programs = direct | mux
	sockets  = direct | builtin
	all      = direct | mux | builtin
)

func (k kind) String() string {
	switch k {
	case direct:
		return "a row with a program and sockets of its own"
	case mux:
		return "a row that is reached by name"
	case builtin:
		return "a multiplexer"
	}
	return "a row"
}

// A key of a table T: its name, the place it fills, an example of its value,
// and what it is for.
type key[T any] struct {
	name    string
	field   func(*T) any // a *Bool, *Int, *String, *List, *Keepalive, *Env, *Access or *Limits
	example string
	kinds   kind // service keys only
}

var serverKeys = []key[Server]{
	{name: "grace", field: func(s *Server) any { return &s.Grace }, example: `"30s"`},
	{name: "log_format", field: func(s *Server) any { return &s.LogFormat }, example: `"text"`},
	{name: "log_level", field: func(s *Server) any { return &s.LogLevel }, example: `"info"`},
}

// serviceKeys are the keys of a row and of [defaults].
var serviceKeys = []key[Service]{
	{"enabled", func(s *Service) any { return &s.Enabled }, `false`, all},
	{"name", func(s *Service) any { return &s.Name }, `"ftp"`, sockets},
	{"socket", func(s *Service) any { return &s.Socket }, `"stream"`, all},
	{"protocol", func(s *Service) any { return &s.Protocol }, `"tcp"`, sockets},
	{"wait", func(s *Service) any { return &s.Wait }, `false`, all},

	{"listen", func(s *Service) any { return &s.Listen }, `["192.0.2.1:21", "[2001:db8::1]:21"]`, sockets},
	{"backlog", func(s *Service) any { return &s.Backlog }, `128`, sockets},
	{"keepalive", func(s *Service) any { return &s.Keepalive }, `true`, sockets},
	{"nodelay", func(s *Service) any { return &s.Nodelay }, `true`, sockets},
	{"defer_accept", func(s *Service) any { return &s.DeferAccept }, `"30s"`, sockets},
	{"reuseport", func(s *Service) any { return &s.Reuseport }, `true`, sockets},
	{"freebind", func(s *Service) any { return &s.Freebind }, `true`, sockets},
	{"bind_to_device", func(s *Service) any { return &s.BindToDevice }, `"eth0"`, sockets},
	{"rcvbuf", func(s *Service) any { return &s.Rcvbuf }, `65536`, sockets},
	{"sndbuf", func(s *Service) any { return &s.Sndbuf }, `65536`, sockets},
	{"mark", func(s *Service) any { return &s.Mark }, `1`, sockets},
	{"tos", func(s *Service) any { return &s.TOS }, `0x10`, sockets},

	{"exec", func(s *Service) any { return &s.Exec }, `["/bin/date", "-u"]`, programs},
	{"argv0", func(s *Service) any { return &s.Argv0 }, `"date"`, programs},
	{"user", func(s *Service) any { return &s.User }, `"nobody"`, programs},
	{"group", func(s *Service) any { return &s.Group }, `"nogroup"`, programs},
	{"groups", func(s *Service) any { return &s.Groups }, `["adm"]`, programs},
	{"cwd", func(s *Service) any { return &s.Cwd }, `"/"`, programs},
	{"umask", func(s *Service) any { return &s.Umask }, `"022"`, programs},
	{"env", func(s *Service) any { return &s.Env }, `{ TZ = "UTC" }`, programs},
	{"env_pass", func(s *Service) any { return &s.EnvPass }, `["LANG"]`, programs},
	{"env_file", func(s *Service) any { return &s.EnvFile }, `"/etc/default/ftp"`, programs},

	{"builtin", func(s *Service) any { return &s.Builtin }, `"tcpmux"`, builtin},
	{"help", func(s *Service) any { return &s.Help }, `"allowed"`, builtin},
	{"timeout", func(s *Service) any { return &s.Timeout }, `"10s"`, builtin},
	{"hidden", func(s *Service) any { return &s.Hidden }, `true`, mux},

	{"access", func(s *Service) any { return &s.Access }, `{ allow = ["192.0.2.0/24"] }`, all},
	{"limits", func(s *Service) any { return &s.Limits }, `{ instances = 40 }`, all},

	{"on_reload", func(s *Service) any { return &s.OnReload }, `"finish"`, programs},
	{"on_stop", func(s *Service) any { return &s.OnStop }, `"leave"`, programs},
}

var keepaliveKeys = []key[Keepalive]{
	{name: "idle", field: func(k *Keepalive) any { return &k.Idle }, example: `"2h"`},
	{name: "interval", field: func(k *Keepalive) any { return &k.Interval }, example: `"75s"`},
	{name: "count", field: func(k *Keepalive) any { return &k.Count }, example: `9`},
}

var accessKeys = []key[Access]{
	{name: "allow", field: func(a *Access) any { return &a.Allow }, example: `["192.0.2.0/24"]`},
	{name: "deny", field: func(a *Access) any { return &a.Deny }, example: `["2001:db8::/32"]`},
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
}

// topKeys are the keys that stand above all tables, and the tables.
var topKeys = []string{"include", "server", "defaults", "service"}

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
	case find(limitsKeys, name) != nil:
		in = "limits"
	case find(accessKeys, name) != nil:
		in = "access"
	case find(keepaliveKeys, name) != nil:
		in = "keepalive"
	case find(serviceKeys, name) != nil:
		return "this is a key of a row; write it in [service.NAME] or [defaults]"
	case find(serverKeys, name) != nil:
		return "this is a key of the daemon; write it in [server]"
	default:
		return ""
	}
	return fmt.Sprintf("this is a key of %s; write %s.%s instead", in, in, name)
}
