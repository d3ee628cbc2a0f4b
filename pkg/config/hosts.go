// access.hosts_access: the rules of hosts.allow and hosts.deny for the daemon that a
// row is.

package config

import (
	"path"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/access/hosts"
)

// defaultHostsDir is where tcp_wrappers looks.
const defaultHostsDir = "/etc"

// maxDaemonName is how long a daemon's name may be.
const maxDaemonName = 255

// hostsFiles are the two files, once a row has asked for them.
type hostsFiles struct {
	dir     string
	rules   *hosts.Rules
	daemons map[string]*hostsDaemon
	noted   map[hosts.Note]bool // which need be said once, however many rows there are
}

// A hostsDaemon is what the files say of a daemon, for all rows that are it.
type hostsDaemon struct {
	daemon *hosts.Daemon
	notes  []hosts.Note
	packet *access.Rules // the same, for who sees packets only; nil: everybody
	exact  bool          // packet is all that daemon is
}

// hostsDir reads hosts_access_dir.
func (c *compiler) hostsDir() {
	r := &row{c: c, text: &Service{ID: "[server]", Bad: c.f.Server.Bad}}
	c.hosts.dir = defaultHostsDir
	if s := c.f.Server.HostsDir; s.IsSet() && r.absolute("hosts_access_dir", s, defaultHostsDir) {
		c.hosts.dir = path.Clean(s.V)
	}
}

// hostsAccess reads access.hosts_access and access.hosts_daemon.
func (r *row) hostsAccess() {
	a := &r.text.Access
	name := a.HostsDaemon
	if name.IsSet() && !r.plain("access.hosts_daemon", name, maxDaemonName, "the name of a daemon such as \"in.ftpd\"") {
		return
	}
	if r.isDefaults() {
		return
	}
	if !a.HostsAccess.V {
		if name.IsSet() && !a.HostsAccess.IsSet() && !r.inherited["access.hosts_daemon"] && !r.bad("access.hosts_access") {
			r.errorf("access.hosts_daemon", name.Pos, "means nothing without access.hosts_access; write access.hosts_access = true as well, or take it out")
		}
		return
	}
	if !name.IsSet() {
		name.V = r.svc.Name
		if r.svc.Exec != nil && len(r.svc.Exec.Argv) > 0 {
			name.V = path.Base(r.svc.Exec.Argv[0])
		}
	}
	d := r.c.hostsOf(name.V)
	if !r.disabled {
		for _, n := range d.notes {
			if !r.c.hosts.noted[n] {
				r.c.hosts.noted[n] = true
				r.c.warnings = append(r.c.warnings, &Problem{Pos{n.File, int32(n.Line), 1}, r.text.ID, "access.hosts_access", n.Text})
			}
		}
	}
	if !r.wait {
		r.svc.Hosts = d.daemon
		return
	}
	r.svc.Access = access.Both(r.svc.Access, d.packet)
	if !d.exact {
		r.warnf("access.hosts_access", a.HostsAccess.Pos, "row %q has wait = true, so the kernel judges its peers, which goes by prefixes: patterns of hosts.allow and hosts.deny for %q that are others, with \"*\", \"?\" or DAEMON@ADDRESS, allow nobody and deny everybody; write them as NET/LENGTH", r.text.ID, name.V)
	}
}

// hostsOf is what the files say of a daemon.
func (c *compiler) hostsOf(name string) *hostsDaemon {
	h := &c.hosts
	if d := h.daemons[name]; d != nil {
		return d
	}
	if h.rules == nil {
		h.rules = hosts.Read(h.dir, func(path string) ([]byte, error) {
			text, err := c.asked.hosts.ask(path, c.o.hostsFile)
			return []byte(text), err
		})
	}
	d := new(hostsDaemon)
	d.daemon, d.notes = h.rules.For(name)
	allow, deny, exact := d.daemon.Prefixes()
	d.exact = exact
	h.daemons[name] = d
	if len(deny) == 0 {
		return d
	}
	var err error
	if d.packet, err = access.NewListed(allow, deny); err != nil {
		panic("config: prefixes that were right are not: " + err.Error()) // each is in one list
	}
	return d
}

// hostsFile reads one of the files, or one that they name.
func (o *Options) hostsFile(path string) (string, error) {
	text, err := o.ReadSet(path)
	return string(text), err
}
