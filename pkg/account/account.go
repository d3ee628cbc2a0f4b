// Package account answers who a user, a group, a service name and a program of RPC
// are: from passwd(5), group(5), services(5) and rpc(5), and from getent(1) where nsswitch.conf(5)
// names more sources than files.
//
// A DB is a snapshot: it reads each file once, when it is first asked, and asks
// getent once for each name. Whoever wants newer answers makes a new DB. The
// package starts no program itself (getent is a function that is handed in),
// watches nothing and checks no password.
package account

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
)

// ErrUnknown is in every error that says that there is no such name, and in no
// error that says that a source could not be asked.
var ErrUnknown = errors.New("unknown")

// MaxID is the highest user or group id; the next one is -1, which the set*id
// calls take for "unchanged".
const MaxID = 1<<32 - 2

// getentTimeout bounds one question to getent: a directory server that does
// not answer must not hold up a reload for long.
const getentTimeout = 10 * time.Second

// A User is an entry of passwd.
type User struct {
	Name  string
	UID   uint32
	GID   uint32 // the primary group; meaningless if Bare
	Home  string
	Shell string
	// Bare says that there is no entry, only the number that was asked for:
	// no primary group is known.
	Bare bool
}

// Files are the paths of what a DB reads.
type Files struct {
	Passwd   string
	Group    string
	Services string
	RPC      string
	NSSwitch string
}

// System is where these files are.
func System() Files {
	return Files{"/etc/passwd", "/etc/group", "/etc/services", "/etc/rpc", "/etc/nsswitch.conf"}
}

// Watch lists the files whose change can change an answer about users and
// groups.
func (f Files) Watch() []string { return []string{f.Passwd, f.Group, f.NSSwitch} }

// Getent runs getent(1) with args and returns what it printed. The exit status
// is of no interest: nothing printed means that there is no such entry. The
// error says that it could not be run or did not end in time.
type Getent func(ctx context.Context, args ...string) ([]byte, error)

// A DB answers from one set of files. It is not safe for concurrent use.
type DB struct {
	files  Files
	getent Getent

	nss      map[string][]string // nil: not read yet
	passwd   table[User]
	group    table[group]
	services map[string]*table[uint16] // by protocol
	programs table[uint32]
	asked    map[string]answer
}

type group struct {
	gid     uint32
	members []string
}

type answer struct {
	out []byte
	err error
}

// Open makes a DB over files. A nil getent is never asked: files are all there
// is then.
func Open(files Files, getent Getent) *DB {
	return &DB{files: files, getent: getent, services: make(map[string]*table[uint16]), asked: make(map[string]answer)}
}

// User looks up a user by name or, if no user is called so, by number. A
// number without an entry is a user, too: a Bare one.
func (db *DB) User(name string) (User, error) {
	if err := checkName(name); err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	u, err := find(db, "passwd", &db.passwd, db.files.Passwd, parsePasswd, name, name)
	if id, ok := number(name); ok && errors.Is(err, ErrUnknown) {
		u, err = findUID(db, id)
		if errors.Is(err, ErrUnknown) {
			return User{Name: name, UID: id, Home: "/", Shell: "/bin/sh", Bare: true}, nil
		}
	}
	if err != nil {
		return User{}, fmt.Errorf("user %q: %w", name, err)
	}
	return u, nil
}

// UID looks up the user who has a number: the first of them in passwd(5).
func (db *DB) UID(id uint32) (User, error) {
	err := db.passwd.load(db.files.Passwd, parsePasswd)
	if err == nil {
		var u User
		if u, err = findUID(db, id); err == nil {
			return u, nil
		}
	}
	return User{}, fmt.Errorf("user %d: %w", id, err)
}

// Group looks up a group's id by name or, if no group is called so, takes a
// number for itself.
func (db *DB) Group(name string) (uint32, error) {
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	g, err := find(db, "group", &db.group, db.files.Group, parseGroup, name, name)
	if id, ok := number(name); ok && errors.Is(err, ErrUnknown) {
		return id, nil
	}
	if err != nil {
		return 0, fmt.Errorf("group %q: %w", name, err)
	}
	return g.gid, nil
}

// Groups lists the groups u is a member of by group(5), sorted, without the
// primary group unless it is named there, too. All sources are asked and
// taken together, as initgroups(3) does.
func (db *DB) Groups(u User) ([]uint32, error) {
	if u.Bare {
		return nil, nil
	}
	if err := db.group.load(db.files.Group, parseGroup); err != nil {
		return nil, err
	}
	var gids []uint32
	for _, g := range db.group.byName {
		if slices.Contains(g.members, u.Name) {
			gids = append(gids, g.gid)
		}
	}
	line := "initgroups"
	if len(db.sources(line)) == 0 {
		line = "group"
	}
	if db.getent != nil && more(db.sources(line)) {
		out, err := db.ask("initgroups", u.Name)
		if err != nil {
			return nil, fmt.Errorf("groups of %q: %w", u.Name, err)
		}
		// "name gid gid ...". Not every getent knows this database; one that
		// does not prints nothing.
		if f := strings.Fields(string(out)); len(f) > 1 && f[0] == u.Name {
			for _, s := range f[1:] {
				if id, ok := number(s); ok {
					gids = append(gids, id)
				}
			}
		}
	}
	slices.Sort(gids)
	return slices.Compact(gids), nil
}

// Port looks up the port of a service name or alias for a protocol, "tcp" or
// "udp".
func (db *DB) Port(protocol, name string) (uint16, error) {
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("service %q: %w", name, err)
	}
	t := db.services[protocol]
	if t == nil {
		t = new(table[uint16])
		db.services[protocol] = t
	}
	p, err := find(db, "services", t, db.files.Services, parseServices(protocol), name, name+"/"+protocol)
	if err != nil {
		return 0, fmt.Errorf("service %q: %w", name, err)
	}
	return p, nil
}

// Program looks up the number of a program of Sun RPC by its name or alias.
func (db *DB) Program(name string) (uint32, error) {
	if err := checkName(name); err != nil {
		return 0, fmt.Errorf("RPC program %q: %w", name, err)
	}
	n, err := find(db, "rpc", &db.programs, db.files.RPC, parseRPC, name, name)
	if err != nil {
		return 0, fmt.Errorf("RPC program %q: %w", name, err)
	}
	return n, nil
}

// checkName refuses what can be no name, before getent sees it: it would take
// a leading dash for an option.
func checkName(s string) error {
	if s == "" || len(s) > 256 || s[0] == '-' || s[0] == '+' {
		return fmt.Errorf("not a name: %w", ErrUnknown)
	}
	for i := range len(s) {
		if s[i] <= ' ' || s[i] == 0x7f || s[i] == ':' || s[i] == ',' || s[i] == '#' || s[i] == '/' {
			return fmt.Errorf("not a name: %w", ErrUnknown)
		}
	}
	return nil
}

// number reads a decimal id.
func number(s string) (uint32, bool) {
	if s == "" || s[0] < '0' || s[0] > '9' {
		return 0, false // ParseUint takes a sign
	}
	n, err := strconv.ParseUint(s, 10, 32)
	return uint32(n), err == nil && n <= MaxID
}
