// The environment of a child. Nothing of the daemon's own gets into it unless
// the row names it.

package config

import (
	"errors"
	"maps"
	"slices"
	"strings"
	"syscall"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

// maxEnvFile is how large an env_file may be, in bytes.
const maxEnvFile = 1 << 20

// The PATH of a child: what login(1) gives.
const (
	rootPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
	userPath = "/usr/local/bin:/usr/bin:/bin"
)

// perConnection are the variables tcpmuxd sets for each connection: UCSPI's,
// s6-ipcserver's, systemd's, xinetd's and its own.
var perConnection = []string{
	"PROTO", "TCPREMOTEIP", "TCPREMOTEPORT", "TCPLOCALIP", "TCPLOCALPORT",
	"UDPREMOTEIP", "UDPREMOTEPORT", "UDPLOCALIP", "UDPLOCALPORT",
	"IPCREMOTEEUID", "IPCREMOTEEGID", "IPCREMOTEPID", "IPCLOCALPATH",
	"REMOTE_ADDR", "REMOTE_PORT", "REMOTE_HOST", "PROXY_ADDR", "PROXY_PORT", "TCPMUX_SERVICE",
}

// environment is the static environment of a child of u, sorted. What comes
// later in this order wins: the user's own, env_file, env_pass, env. Rows that
// have nothing but the user's own share it.
func (r *row) environment(u account.User) []string {
	s := r.text
	plain := !s.EnvFile.IsSet() && len(s.EnvPass.V) == 0 && len(s.Env.Vars) == 0
	if env := r.c.envs[u]; plain && env != nil {
		return env
	}
	path := userPath
	if u.UID == 0 && u.Name != "" {
		path = rootPath
	}
	env := map[string]string{"PATH": path, "USER": u.Name, "LOGNAME": u.Name, "HOME": u.Home, "SHELL": u.Shell}
	if s.EnvFile.IsSet() && r.absolute("env_file", s.EnvFile, "/etc/default/ftp") {
		r.envFile(env)
	}
	var own map[string]string
	for _, name := range s.EnvPass.V {
		if !name.IsSet() || !r.variable("env_pass", name.V, name.Pos) {
			continue
		}
		if own == nil {
			own = r.c.asked.environ(r.c.o.Environ)
		}
		if v, ok := own[name.V]; ok {
			env[name.V] = v
		}
	}
	for _, v := range s.Env.Vars {
		key := "env." + quoteKey(v.Name)
		if r.variable(key, v.Name, v.Pos) && (v.Value.V == "" || r.plain(key, v.Value, maxArg-len(v.Name)-1, "a value")) {
			env[v.Name] = v.Value.V
		}
	}
	out := make([]string, 0, len(env))
	for _, name := range slices.Sorted(maps.Keys(env)) {
		out = append(out, name+"="+env[name])
	}
	if plain {
		if r.c.envs == nil {
			r.c.envs = make(map[account.User][]string)
		}
		r.c.envs[u] = out
	}
	return out
}

// variable checks the name of a variable.
func (r *row) variable(key, name string, pos Pos) bool {
	switch {
	case slices.Contains(perConnection, name):
		r.errorf(key, pos, "%s is set by tcpmuxd for each connection; write another name", name)
	case !validVariable(name):
		r.errorf(key, pos, "%s is no name of a variable; write letters, digits and _, no digit first", clip(name))
	default:
		return true
	}
	return false
}

// CanPass reports whether a variable of the daemon's may be named in env_pass.
func CanPass(name string) bool { return validVariable(name) && !slices.Contains(perConnection, name) }

func validVariable(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '_' && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9' || i == 0) {
			return false
		}
	}
	return s != "" && len(s) < maxArg/2
}

// envFile reads NAME=value lines into env. Values are taken as they stand:
// there are no quotes and no expansion. Blank lines and those that begin with
// # are passed over.
func (r *row) envFile(env map[string]string) {
	file := r.text.EnvFile
	text, err := r.c.asked.file(r.c.o, file.V)
	if err != nil {
		advice := "write the path of a file of NAME=value lines"
		var errno syscall.Errno
		if errors.As(err, &errno) && (errno.Temporary() || errno == syscall.ENOMEM || errno == syscall.EIO) {
			advice = "nothing is wrong with the configuration, have it read again"
		}
		r.errorf("env_file", file.Pos, "reading %s: %v; %s", file.V, reason(err), advice)
		return
	}
	n := int32(0)
	for line := range strings.Lines(text) {
		n++
		line = strings.TrimRight(line, "\r\n")
		if strings.TrimSpace(line) == "" || line[0] == '#' {
			continue
		}
		pos := Pos{file.V, n, 1}
		name, value, ok := strings.Cut(line, "=")
		if !ok {
			r.errorf("env_file", pos, "%s has no \"=\"; write NAME=value", clip(line))
		} else if r.variable("env_file", name, pos) && (value == "" || r.plain("env_file", String{value, pos}, maxArg-len(name)-1, "a value")) {
			env[name] = value
		}
	}
}
