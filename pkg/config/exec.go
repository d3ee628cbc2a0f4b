// The child of a row: its program, who it is, and where it stands.

package config

import (
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The kernel's bounds: PATH_MAX, MAX_ARG_STRLEN and NGROUPS_MAX (execve(2),
// setgroups(2)).
const (
	maxPath   = 4095
	maxArg    = 128<<10 - 1
	maxGroups = 65536
)

// defaultUmask is the daemon's own, which spawn sets at its start.
const defaultUmask = 0o022

// nobody is who a row's child would be whose user has vanished. The row is
// refused; this is only so that it can never be the daemon's own identity.
const nobody = 65534

func (r *row) exec() {
	s := r.text
	e := &service.Exec{Dir: "/", Umask: defaultUmask}
	r.chroot(e)
	r.program(e)
	if s.Cwd.IsSet() && r.absolute("cwd", s.Cwd, "/var/empty") {
		e.Dir = path.Clean(s.Cwd.V)
		if err := r.c.asked.dir(r.c.o, below(e, e.Dir)); err != nil && !r.isDefaults() {
			r.warnf("cwd", s.Cwd.Pos, "%s: %v; the row refuses until it is there", below(e, e.Dir), err)
		}
	}
	if s.Umask.IsSet() {
		n, err := strconv.ParseUint(s.Umask.V, 8, 32)
		if err != nil || n > 0o777 {
			r.errorf("umask", s.Umask.Pos, "%s is no umask; write an octal number from \"000\" to \"777\" instead", clip(s.Umask.V))
		}
		e.Umask = uint32(n)
		if err == nil && n <= 0o777 && n != defaultUmask && !r.c.o.Native {
			r.errorf("umask", s.Umask.Pos, "the portable way of starting programs, the only one here, knows no umask but the daemon's own; write umask = \"022\" or take it out")
		}
	}
	r.setup(e)
	u := r.identity(e)
	e.Env = r.environment(u)
	if !r.isDefaults() && s.Exec.IsSet() {
		r.svc.Exec = e
	}
}

// chroot fills in where the child's root is.
func (r *row) chroot(e *service.Exec) {
	s := r.text.Chroot
	if !s.IsSet() || !r.absolute("chroot", s, "/srv/ftp") {
		return
	}
	if !r.c.o.SysChroot {
		r.errorf("chroot", s.Pos, "needs root or CAP_SYS_CHROOT; run tcpmuxd so or take it out")
	}
	dir := path.Clean(s.V)
	if dir == "/" {
		return
	}
	e.Chroot = dir
	if err := r.c.asked.dir(r.c.o, dir); err != nil && !r.isDefaults() {
		r.warnf("chroot", s.Pos, "%s: %v; the row refuses until it is there", dir, err)
	}
}

// below is the path p of the child's as the daemon sees it. Links in it that
// are absolute lead elsewhere for the child, which a warning at most is wrong by.
func below(e *service.Exec, p string) string {
	if e.Chroot == "" {
		return p
	}
	return e.Chroot + p
}

// program fills in path and arguments.
func (r *row) program(e *service.Exec) {
	s := r.text
	if !s.Exec.IsSet() {
		return
	}
	if len(s.Exec.V) == 0 {
		r.errorf("exec", s.Exec.Pos, "an empty list; write the program's path and its arguments")
		return
	}
	e.Argv = make([]string, 1, len(s.Exec.V)) // the first comes last
	for i, a := range s.Exec.V {
		if i == 0 || !a.IsSet() {
			continue
		}
		if a.V == "" || r.plain("exec", a, maxArg, "an argument") {
			e.Argv = append(e.Argv, a.V)
		}
	}
	p := s.Exec.V[0]
	if p.IsSet() && r.absolute("exec", p, "/bin/date") {
		e.Path = p.V
		err := r.c.asked.program(r.c.o, below(e, e.Path))
		var words []string
		if err != nil {
			words = strings.Fields(p.V)
		}
		switch {
		case err == nil:
		case len(words) > 1 && r.c.asked.program(r.c.o, below(e, words[0])) == nil:
			for _, a := range s.Exec.V[1:] {
				words = append(words, a.V)
			}
			r.errorf("exec", p.Pos, "%s: %v; arguments are strings of their own: write exec = [%s] instead", clip(e.Path), err, quotedList(words))
		case !r.isDefaults():
			r.warnf("exec", p.Pos, "%s: %v; the row refuses until it is there", below(e, e.Path), err)
		}
	}
	argv0 := e.Path
	if s.Argv0.IsSet() && (s.Argv0.V == "" || r.plain("argv0", s.Argv0, maxArg, "a name")) {
		argv0 = s.Argv0.V
	}
	e.Argv[0] = argv0
}

// quotedList writes the elements of a list, not more than a message can bear.
func quotedList(words []string) string {
	var b strings.Builder
	for i, w := range words {
		if i > 0 {
			b.WriteString(", ")
		}
		if b.Len() > 200 {
			b.WriteString("...")
			break
		}
		b.WriteString(clip(w))
	}
	return b.String()
}

// absolute checks a path.
func (r *row) absolute(key string, s String, example string) bool {
	if !r.plain(key, s, maxPath, "a path such as \""+example+"\"") {
		return false
	}
	if s.V[0] != '/' {
		r.errorf(key, s.Pos, "%s is a relative path; write the whole path, such as %q, instead", clip(s.V), example)
		return false
	}
	return true
}

// identity fills in who the child is and returns the user its environment is
// made for.
func (r *row) identity(e *service.Exec) account.User {
	if r.c.o.UID != 0 {
		return r.ownIdentity()
	}
	s := r.text
	if !s.User.IsSet() {
		if !r.isDefaults() && s.Exec.IsSet() && !r.bad("user") && !r.both {
			r.errorf("user", s.Pos, "there is none, here or in [defaults]; write user = \"root\" if root is meant, else a user with fewer rights such as \"nobody\"")
		}
		if !s.Group.IsSet() && !s.Groups.IsSet() {
			return account.User{}
		}
	}
	cred := &service.Cred{User: s.User.V, UID: nobody, GID: nobody}
	var u account.User
	known := false
	if s.User.IsSet() {
		var err error
		if u, err = r.c.asked.user(r.c.o.Accounts, s.User.V); err != nil {
			r.vanished("user", s.User, err, r.userAndGroup())
		} else {
			known, cred.UID, cred.GID = true, u.UID, u.GID
		}
	}
	switch {
	case s.Group.IsSet():
		if gid, err := r.c.asked.group(r.c.o.Accounts, s.Group.V); err != nil {
			r.vanished("group", s.Group, err, "the name of a group or a number")
		} else {
			cred.GID = gid
		}
	case known && u.Bare:
		cred.GID = nobody
		if !r.isDefaults() {
			r.errorf("user", s.User.Pos, "%s has no entry in passwd, so its group is not known; write group = \"GROUP\" beside it", clip(s.User.V))
		}
	}
	if s.Groups.IsSet() {
		for _, g := range s.Groups.V {
			if !g.IsSet() {
				continue
			}
			if gid, err := r.c.asked.group(r.c.o.Accounts, g.V); err != nil {
				r.vanished("groups", g, err, "the name of a group or a number")
			} else {
				cred.Groups = append(cred.Groups, gid)
			}
		}
	} else if known {
		gids, err := r.c.asked.groups(r.c.o.Accounts, u)
		if err != nil {
			r.vanished("user", s.User, err, "groups = [...] to do without")
		}
		cred.Groups = append(slices.Clone(gids), cred.GID) // as initgroups(3) does
	}
	slices.Sort(cred.Groups)
	cred.Groups = slices.Clip(slices.Compact(cred.Groups))
	e.Cred = r.c.cred(cred)
	if len(cred.Groups) > maxGroups {
		r.errorf("groups", s.Groups.Pos, "%d groups; write at most %d", len(cred.Groups), maxGroups)
	}
	return u
}

// cred is cred, or the same one of another row.
func (c *compiler) cred(cred *service.Cred) *service.Cred {
	for _, d := range c.creds[cred.User] {
		if d.UID == cred.UID && d.GID == cred.GID && slices.Equal(d.Groups, cred.Groups) {
			return d
		}
	}
	if c.creds == nil {
		c.creds = make(map[string][]*service.Cred)
	}
	c.creds[cred.User] = append(c.creds[cred.User], cred)
	return cred
}

// ownIdentity is for a daemon that is not root: its children are who it is,
// and a row may at most say so.
func (r *row) ownIdentity() account.User {
	s, o := r.text, r.c.o
	own := strconv.FormatUint(uint64(o.UID), 10)
	me, err := r.c.asked.user(o.Accounts, own)
	if err != nil {
		me = account.User{Name: own, UID: o.UID, Home: "/", Shell: "/bin/sh", Bare: true}
	}
	if s.User.IsSet() {
		if u, err := r.c.asked.user(o.Accounts, s.User.V); err != nil {
			r.vanished("user", s.User, err, r.userAndGroup())
		} else if u.UID != o.UID {
			r.errorf("user", s.User.Pos, "only root can run programs as %s; take it out, or start tcpmuxd as root", clip(s.User.V))
		} else {
			me = u
		}
	}
	if s.Group.IsSet() {
		if gid, err := r.c.asked.group(o.Accounts, s.Group.V); err != nil {
			r.vanished("group", s.Group, err, "the name of a group or a number")
		} else if gid != o.GID {
			r.errorf("group", s.Group.Pos, "only root can run programs with group %s; take it out, or start tcpmuxd as root", clip(s.Group.V))
		}
	}
	switch {
	case !s.Groups.IsSet():
	case len(s.Groups.V) == 0:
		r.warnf("groups", s.Groups.Pos, "only root can take groups away; the program keeps those of tcpmuxd")
	default:
		r.errorf("groups", s.Groups.Pos, "only root can set groups; take it out, or start tcpmuxd as root")
	}
	return me
}

// userAndGroup says what to write for a user that is unknown: inetd.conf(5) has
// its group behind it.
func (r *row) userAndGroup() string {
	name := r.text.User.V
	if i := strings.LastIndexAny(name, ".:"); i > 0 && i < len(name)-1 {
		_, noUser := r.c.asked.user(r.c.o.Accounts, name[:i])
		_, noGroup := r.c.asked.group(r.c.o.Accounts, name[i+1:])
		if noUser == nil && noGroup == nil {
			return fmt.Sprintf("user = %q and group = %q", name[:i], name[i+1:])
		}
	}
	return "the name of a user or a number"
}

// vanished reports a user or group that could not be looked up: an error, or
// only a warning and a row that refuses, as Options say.
func (r *row) vanished(key string, s String, err error, write string) {
	text := clip(s.V) + " " + lookupError(err)
	if r.c.o.VanishedUsers {
		r.warnf(key, s.Pos, "%s; the row refuses until it is known", text)
		if r.svc.Refuse == "" {
			r.svc.Refuse = strings.TrimSuffix(key, "s") + " " + text
		}
		return
	}
	r.errorf(key, s.Pos, "%s; write %s instead", text, write)
}
