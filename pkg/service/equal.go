package service

// Whether two rows are the same. A reload asks for each of them, so that this is
// written out; a test holds it to the fields there are.

import "slices"

// Equal reports whether two rows mean the same, so that a reload has nothing
// to do for them.
func (s *Service) Equal(t *Service) bool {
	return s == t || s.ID == t.ID && s.Name == t.Name &&
		s.Mux == t.Mux && s.Plus == t.Plus && s.Hidden == t.Hidden &&
		slices.Equal(s.Listen, t.Listen) && s.Socket == t.Socket && both(s.RPC, t.RPC, same) && s.Wait == t.Wait &&
		s.Builtin == t.Builtin && s.Help == t.Help && s.Timeout == t.Timeout && s.Ident == t.Ident &&
		both(s.Exec, t.Exec, (*Exec).equal) && both(s.Forward, t.Forward, (*Forward).equal) &&
		s.Idle == t.Idle && s.Lifetime == t.Lifetime &&
		s.ProxyFrom.Equal(t.ProxyFrom) && s.ProxyTimeout == t.ProxyTimeout &&
		s.Access.Equal(t.Access) && s.Users.Equal(t.Users) &&
		slices.Equal(s.Interfaces, t.Interfaces) && s.Locals.Equal(t.Locals) && s.Hours.Equal(t.Hours) && s.Hosts.Equal(t.Hosts) && s.Limits == t.Limits && s.Overflow == t.Overflow &&
		s.OverflowWait == t.OverflowWait && s.Refusal == t.Refusal && s.Suspend == t.Suspend && s.Shed == t.Shed &&
		s.OnReload == t.OnReload && s.OnStop == t.OnStop && s.Refuse == t.Refuse
}

func (e *Exec) equal(f *Exec) bool {
	return e.Path == f.Path && slices.Equal(e.Argv, f.Argv) &&
		both(e.Cred, f.Cred, (*Cred).equal) && slices.Equal(e.Env, f.Env) &&
		e.Dir == f.Dir && e.Umask == f.Umask && e.Chroot == f.Chroot &&
		e.Stdout == f.Stdout && e.Stderr == f.Stderr &&
		slices.Equal(e.Rlimits, f.Rlimits) && both(e.Nice, f.Nice, same) && both(e.IOPrio, f.IOPrio, same) &&
		both(e.OOMScoreAdj, f.OOMScoreAdj, same) && slices.Equal(e.CPUs, f.CPUs)
}

func (c *Cred) equal(d *Cred) bool {
	return c.User == d.User && c.UID == d.UID && c.GID == d.GID && slices.Equal(c.Groups, d.Groups)
}

func (f *Forward) equal(g *Forward) bool {
	return slices.Equal(f.Targets, g.Targets) && f.Timeout == g.Timeout && f.Transparent == g.Transparent &&
		f.SendProxy == g.SendProxy
}

// EqualButAccess reports whether nothing but who may come, how and when is
// different, and who may say for whom.
func (s *Service) EqualButAccess(t *Service) bool {
	u := *s
	u.Access, u.Users, u.Interfaces, u.Locals, u.Hours, u.Hosts = t.Access, t.Users, t.Interfaces, t.Locals, t.Hours, t.Hosts
	u.ProxyFrom, u.ProxyTimeout = t.ProxyFrom, t.ProxyTimeout
	return u.Equal(t)
}

// both reports whether two pointers are to the same, or to nothing.
func both[T any](a, b *T, equal func(a, b *T) bool) bool {
	return a == b || a != nil && b != nil && equal(a, b)
}

func same[T comparable](a, b *T) bool { return *a == *b }
