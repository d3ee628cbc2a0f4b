// The service unit: what is started, as whom and with which set-up.

package units

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// program is the service unit of a row with a program, from behind its description.
func (r *row) program(accept bool) string {
	var s section
	e := r.Service.Exec
	if accept {
		s.set("CollectMode", "inactive-or-failed") // failed ones would count as connections
	} else {
		s.set("StartLimitIntervalSec", "0") // it may end and be started as often as it likes
	}
	s.WriteString("\n[Service]\n")
	s.set("ExecStart", command(e.Path, e.Argv))
	stdio := [...]string{service.StdioSocket: "socket", service.StdioLog: "journal", service.StdioNull: "null"}
	s.set("StandardInput", "socket")
	s.set("StandardOutput", stdio[e.Stdout])
	s.set("StandardError", stdio[e.Stderr])
	s.set("KillMode", "process") // what the program leaves behind lives on, as under inetd
	r.identity(&s)
	if _, ok := r.at["umask"]; ok {
		s.set("UMask", fmt.Sprintf("%04o", e.Umask))
	}
	if _, ok := r.at["cwd"]; ok {
		s.set("WorkingDirectory", specifiers(e.Dir))
	}
	if e.Chroot != "" {
		s.set("RootDirectory", specifiers(e.Chroot))
	}
	r.environment(&s)
	for _, l := range e.Rlimits {
		s.set("Limit"+resources[l.Resource], bound(l))
	}
	if e.Nice != nil {
		s.number("Nice", *e.Nice)
	}
	if p := e.IOPrio; p != nil {
		s.set("IOSchedulingClass", [...]string{"none", "realtime", "best-effort", "idle"}[p.Class])
		if p.Class != 3 {
			s.number("IOSchedulingPriority", int(p.Level))
		}
	}
	if e.OOMScoreAdj != nil {
		s.number("OOMScoreAdjust", *e.OOMScoreAdj)
	}
	if len(e.CPUs) > 0 {
		words := make([]string, len(e.CPUs))
		for i, n := range e.CPUs {
			words[i] = strconv.Itoa(n)
		}
		s.set("CPUAffinity", strings.Join(words, " "))
	}
	if r.Service.OnReload == service.ReloadEnd {
		r.lost("on_reload", "a change of the units leaves services running")
	}
	if r.Service.OnStop != service.StopLeave {
		r.lost("on_stop", "services run on when the socket unit is stopped; stop them by themselves")
	}
	return s.String()
}

// command is a program and its arguments. What is its name to it has to be told
// apart where it is not its path, or has a dollar sign in it.
func command(path string, argv []string) string {
	words := []string{word(path)}
	if argv[0] != path || strings.Contains(path, "$") {
		words = []string{word("@" + path), argument(argv[0])}
	}
	for _, a := range argv[1:] {
		words = append(words, argument(a))
	}
	return strings.Join(words, " ")
}

// resources are what systemd.exec(5) calls them, by their number in Linux.
var resources = [...]string{"CPU", "FSIZE", "DATA", "STACK", "CORE", "RSS", "NPROC", "NOFILE", "MEMLOCK", "AS", "LOCKS", "SIGPENDING", "MSGQUEUE", "NICE", "RTPRIO", "RTTIME"}

func bound(l service.Rlimit) string {
	one := func(n uint64) string {
		if n == service.RlimInfinity {
			return "infinity"
		}
		return strconv.FormatUint(n, 10)
	}
	if l.Soft == l.Hard {
		return one(l.Soft)
	}
	return one(l.Soft) + ":" + one(l.Hard)
}

// identity is who it runs as.
func (r *row) identity(s *section) {
	t := r.Text
	if t.User.IsSet() {
		s.set("User", specifiers(t.User.V))
	}
	if t.Group.IsSet() {
		s.set("Group", specifiers(t.Group.V))
	}
	if !t.Groups.IsSet() {
		return
	}
	words := make([]string, len(t.Groups.V))
	for i, g := range t.Groups.V {
		words[i] = word(g.V)
	}
	if len(words) > 0 {
		s.set("SupplementaryGroups", strings.Join(words, " "))
	}
	if own, known := r.ownGroups(); !known || len(own) > 0 {
		which := "the groups that the user is in"
		if known {
			which = "the groups " + strings.Join(own, ", ")
		}
		r.note(config.Changed, "groups", "systemd gives the program %s as well, whatever groups are written", which)
	}
}

// ownGroups are the groups that the user is in, on this machine, and that the row
// does not give it. They are known if the user is.
func (r *row) ownGroups() (own []string, known bool) {
	cred := r.Service.Exec.Cred
	if cred == nil {
		return nil, false
	}
	u, err := r.o.Accounts.User(cred.User)
	if err != nil {
		return nil, false
	}
	gids, err := r.o.Accounts.Groups(u)
	if err != nil {
		return nil, false
	}
	for _, g := range gids {
		if g != cred.GID && !slices.Contains(cred.Groups, g) {
			own = append(own, strconv.FormatUint(uint64(g), 10))
		}
	}
	return own, true
}

// environment is what there is besides systemd's own variables of a user.
func (r *row) environment(s *section) {
	t := r.Text
	var words []string
	path := false // somebody says what it is
	for _, v := range t.Env.Vars {
		words = append(words, word(v.Name+"="+v.Value.V))
		path = path || v.Name == "PATH"
	}
	var pass []string
	for _, name := range t.EnvPass.V {
		pass = append(pass, name.V)
		path = path || name.V == "PATH"
	}
	if !path {
		for _, v := range r.Service.Exec.Env {
			if strings.HasPrefix(v, "PATH=") {
				words = append(words, word(v))
			}
		}
	}
	if words != nil {
		s.set("Environment", strings.Join(words, " "))
	}
	if pass != nil {
		s.set("PassEnvironment", strings.Join(pass, " "))
		r.changed("env_pass", "they are taken from the environment of systemd, which has few; see systemctl set-environment")
	}
	if t.EnvFile.IsSet() {
		s.set("EnvironmentFile", specifiers(t.EnvFile.V))
		r.changed("env_file", "systemd knows quotes, backslashes and wildcards in it (systemd.exec(5)), and what is in it wins over env and env_pass")
	}
}

// proxyd forwards connections.
const proxyd = "/usr/lib/systemd/systemd-socket-proxyd"

// proxy is the service unit of a row that forwards, from behind its description.
func (r *row) proxy() string {
	var s section
	s.set("StartLimitIntervalSec", "0")
	s.WriteString("\n[Service]\n")
	most := unlimited
	if n := r.Service.Limits.Instances; n > 0 {
		most = n
	}
	f := r.Service.Forward
	t := f.Targets[0]
	to := t.String()
	if t.Addr.IsValid() {
		// It takes what is behind the last colon, and knows no brackets.
		to = fmt.Sprintf("%s:%d", t.Addr.Addr(), t.Addr.Port())
	}
	s.set("ExecStart", command(proxyd, []string{proxyd, fmt.Sprintf("--connections-max=%d", most), to}))
	if t.Path == "" {
		s.yes("DynamicUser", true) // a unix socket may be one that only root can use
	}
	if len(f.Targets) > 1 {
		r.changed("forward", "systemd-socket-proxyd(8) has one target: nobody goes to %s if it does not answer", f.Targets[1])
	}
	return s.String()
}
