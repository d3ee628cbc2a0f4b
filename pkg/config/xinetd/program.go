// What a service runs, and as whom: server, redirect and the internal services, the
// user, the environment and the limits of the process.

package xinetd

import (
	"path"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// program fills in what runs.
func (s *svc) program() {
	switch s.kind {
	case mux, builtin:
		s.out.Builtin = s.name
		if s.kind == mux {
			s.changed(s.name, "answers HELP with the services that the asking peer may have; xinetd lists all of them")
		}
		if s.is("NAMEINARGS") {
			s.wrong(s.flags["NAMEINARGS"], "is for programs, and the service is internal; take it out")
		}
		if w, ok := s.flags["LABELED"]; ok {
			s.wrong(w, "is for programs, and the service is internal; take it out")
		}
	case sensor: // with the others
	case relay:
		s.redirect()
	default:
		s.server()
		s.identity()
		s.environment()
		s.process()
	}
}

// server reads server and server_args.
func (s *svc) server() {
	_, server, ok := s.one("server")
	if !ok {
		s.wrongAt(s.name.Pos, "server", "there is none; write server = /path/of/program")
	}
	var args []config.String
	if lines := s.lines("server_args"); lines != nil {
		args = lines[0].values
	}
	argv0 := config.String{V: path.Base(server.V), Pos: server.Pos}
	if w, ok := s.flags["NAMEINARGS"]; ok {
		if len(args) == 0 {
			s.wrong(w, "wants the program's own name in server_args, and there is none; write it as the first of them")
		} else {
			argv0, args = args[0], args[1:]
		}
	}
	if !ok {
		return
	}
	s.out.Exec = config.List{V: append([]config.String{server}, args...), Pos: server.Pos}
	s.out.Argv0 = argv0
	if w, ok := s.flags["LABELED"]; ok {
		s.lost(w, "is lost: the program is not moved to the peer's SELinux level, it runs in the context that the policy gives it")
	}
}

// redirect reads redirect.
func (s *svc) redirect() {
	a := s.lines("redirect")[0]
	host, port := a.values[0], a.values[1]
	if strings.Contains(host.V, ":") {
		host.V = "[" + host.V + "]"
	}
	if strings.Contains(port.V, ":") {
		s.bad(a, port, "is no port; write a number from 1 to 65535, or a name of services(5)")
	}
	s.out.Forward = config.List{V: []config.String{{V: host.V + ":" + port.V, Pos: host.Pos}}, Pos: host.Pos}
	if w, ok := s.flags["NAMEINARGS"]; ok {
		s.wrong(w, "is for programs, and the service is redirected; take it out")
	}
	if !s.isSet("user") {
		s.wrongAt(s.name.Pos, "user", "there is none, and xinetd leaves the service out; write user = nobody")
	}
}

// identity reads user, group and groups.
func (s *svc) identity() {
	_, user, ok := s.one("user")
	if !ok {
		s.wrongAt(s.name.Pos, "user", "there is none; write user = root if root is meant, else a user with fewer rights such as nobody")
	}
	s.out.User = user
	if _, group, ok := s.one("group"); ok {
		s.out.Group = group
	} else if isNumber(user.V) {
		s.out.Group = user
		s.changed(user, "is a number, and is the number of the group, too, as for xinetd")
	}
	if a, v, ok := s.one("groups"); ok {
		s.out.Groups = s.groups(a, v)
	} else if a, v, ok := s.t.defaults.one("groups"); ok && v.V == "yes" {
		s.out.Groups = s.groups(a, v)
	} else {
		s.out.Groups = config.List{Pos: s.t.pos}
	}
}

// groups is the list for groups = yes or no: all that the user is in, which is what
// is not written, or none.
func (s *svc) groups(a line, v config.String) config.List {
	switch v.V {
	case "yes":
		return config.List{}
	case "no":
	default:
		s.bad(a, v, "is neither yes nor no; write one of them")
	}
	return config.List{Pos: v.Pos}
}

// environment reads env and passenv.
func (s *svc) environment() {
	var vars ordered[string, config.Var]
	for _, a := range s.lines("env") {
		switch a.op {
		case "-=":
			s.wrong(a.name, "cannot have the operator -=; write the variables that are meant with =")
			continue
		case "=":
			vars = ordered[string, config.Var]{}
		}
		s.out.Env.Pos = a.name.Pos
		for _, v := range a.values {
			name, value, ok := strings.Cut(v.V, "=")
			if !ok {
				s.bad(a, v, "has no =; write NAME=VALUE")
				if strings.HasPrefix(v.V, "#") {
					break
				}
				continue
			}
			at := v.Pos
			at.Col += int32(columns(name) + 1)
			vars.put(name, config.Var{Name: name, Pos: v.Pos, Value: config.String{V: value, Pos: at}})
		}
	}
	s.out.Env.Vars = vars.list()
	if s.isSet("passenv") {
		s.out.EnvPass = fold(fold(config.List{}, s.t.defaults.lines("passenv"), true), s.lines("passenv"), false)
	}
}

// fold makes a list of words of lines: = sets it, += adds and -= takes away. In the
// defaults = adds, too.
func fold(list config.List, lines []line, inDefaults bool) config.List {
	if lines == nil {
		return list
	}
	var words ordered[string, config.String]
	for _, v := range list.V {
		words.put(v.V, v)
	}
	for _, a := range lines {
		list.Pos = a.name.Pos
		if a.op == "=" && !inDefaults {
			words = ordered[string, config.String]{}
		}
		for _, v := range a.values {
			if a.op == "-=" {
				words.drop(v.V)
			} else {
				words.put(v.V, v)
			}
		}
	}
	list.V = words.list()
	return list
}

// process reads nice, umask and the limits of the process.
func (s *svc) process() {
	if a, v, ok := s.one("nice"); ok {
		n, err := strconv.ParseInt(v.V, 10, 32)
		if err != nil {
			s.bad(a, v, "is no number; write one from -20 to 19")
		}
		s.out.Nice = config.Int{V: n, Pos: v.Pos}
	}
	s.out.Umask = s.umask()
	r := &s.out.Rlimits
	limit(s, "rlimit_as", &r.As)
	limit(s, "rlimit_cpu", &r.CPU)
	limit(s, "rlimit_data", &r.Data)
	limit(s, "rlimit_files", &r.Nofile)
	limit(s, "rlimit_rss", &r.Rss)
	limit(s, "rlimit_stack", &r.Stack)
}

// umask reads umask, which is octal whether it begins with a 0 or not.
func (s *scope) umask() config.String {
	a, v, ok := s.one("umask")
	if !ok {
		return config.String{}
	}
	if n, err := strconv.ParseUint(v.V, 8, 32); err != nil || n > 0o777 {
		s.bad(a, v, "is no umask; write an octal number from 000 to 777")
		return config.String{}
	}
	return v
}

// limit reads a limit, which is the soft one and the hard one. Only those of
// memory have a K or an M behind the number.
func limit[T ~string](s *svc, name string, out *config.Value[T]) {
	a, v, ok := s.one(name)
	if !ok {
		return
	}
	if !s.out.Rlimits.Pos.IsSet() {
		s.out.Rlimits.Pos = v.Pos
	}
	out.Pos = v.Pos
	number, unit := strings.TrimRight(v.V, "kKmM"), ""
	if len(number) == len(v.V)-1 && name != "rlimit_cpu" {
		unit = strings.ToUpper(v.V[len(number):])
	}
	n, err := strconv.ParseUint(number, 10, 63)
	switch {
	case v.V == "UNLIMITED":
		out.V = "unlimited"
	case err != nil || number+unit != strings.ToUpper(v.V):
		s.bad(a, v, "is no limit; write a number, of bytes also as in 64K or 64M, or UNLIMITED")
		out.Pos = config.Pos{}
	case n == 0:
		s.lost(v, "is no limit for xinetd, and %s is passed over", name)
		out.Pos = config.Pos{}
	default:
		out.V = T(strconv.FormatUint(n, 10) + unit)
		if name == "rlimit_files" && unit != "" {
			out.V = T(strconv.FormatUint(n*map[string]uint64{"K": 1 << 10, "M": 1 << 20}[unit], 10))
		}
	}
}
