package config

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

// changing is a machine that can be changed between two readings.
type changing struct {
	users  map[string]account.User
	groups map[string]uint32
	member []uint32
	ports  map[string]uint16

	programs map[string]uint32
}

func (c *changing) User(name string) (account.User, error) {
	if u, ok := c.users[name]; ok {
		return u, nil
	}
	return account.User{}, account.ErrUnknown
}

func (c *changing) Group(name string) (uint32, error) {
	if g, ok := c.groups[name]; ok {
		return g, nil
	}
	return 0, account.ErrUnknown
}

func (c *changing) Groups(account.User) ([]uint32, error) { return c.member, nil }

func (c *changing) Port(_, name string) (uint16, error) {
	if p, ok := c.ports[name]; ok {
		return p, nil
	}
	return 0, account.ErrUnknown
}

func (c *changing) Program(name string) (uint32, error) {
	if n, ok := c.programs[name]; ok {
		return n, nil
	}
	return 0, account.ErrUnknown
}

// A machine is what a reading of machineText asks.
type machine struct {
	accounts changing
	o        *Options
	path     string
	missing  string // a program or directory that is not there
	envFile  string
}

const machineText = `include = "d/*.toml"
[service.ftp]
exec = "/bin/a"
user = "alice"
socket_group = "adm"
listen = ["/run/x", "21"]
[service.tftp]
exec = "/bin/b"
user = "alice"
cwd = "/srv"
env_file = "/etc/default/x"
listen = "named"
[service.rup]
exec = "/bin/c"
user = "alice"
rpc = { program = "rstatd", versions = "1" }
`

func newMachine(t *testing.T) *machine {
	m := &machine{path: write(t, "m.toml", machineText, "d/a.toml", "[service.a]\nexec = \"/bin/a\"\nuser = \"alice\"\nlisten = \"2001\"\n"), envFile: "A=1"}
	m.accounts = changing{
		users:  map[string]account.User{"alice": {Name: "alice", UID: 1000, GID: 1000, Home: "/home/alice", Shell: "/bin/sh"}},
		groups: map[string]uint32{"adm": 4}, member: []uint32{50}, ports: map[string]uint16{"named": 99}, programs: map[string]uint32{"rstatd": 100001},
	}
	m.o = asRoot()
	there := func(path string) error {
		if path == m.missing {
			return errors.New("no such file")
		}
		return nil
	}
	m.o.Accounts, m.o.Program, m.o.Dir = &m.accounts, there, there
	m.o.ReadFile = func(string) ([]byte, error) { return []byte(m.envFile), nil }
	return m
}

// TestReadAgain: what has not changed is not made again, and whatever a table
// comes from is noticed when it changes, each by itself.
func TestReadAgain(t *testing.T) {
	put := func(m *machine, name, text string) {
		if err := os.WriteFile(filepath.Join(filepath.Dir(m.path), name), []byte(text), 0o644); err != nil {
			panic(err)
		}
	}
	onDisk := map[string]func(m *machine){
		"the text":            func(m *machine) { put(m, "m.toml", strings.Replace(machineText, "\"21\"", "\"22\"", 1)) },
		"an included text":    func(m *machine) { put(m, "d/a.toml", "") },
		"another included":    func(m *machine) { put(m, "d/b.toml", "") },
		"an included is gone": func(m *machine) { os.Remove(filepath.Join(filepath.Dir(m.path), "d/a.toml")) },
		"a link": func(m *machine) {
			dir := filepath.Dir(m.path)
			os.Rename(filepath.Join(dir, "d/a.toml"), filepath.Join(dir, "a.toml"))
			os.Symlink("../a.toml", filepath.Join(dir, "d/a.toml"))
		},
	}
	answers := map[string]func(m *machine){
		"a uid": func(m *machine) {
			m.accounts.users["alice"] = account.User{Name: "alice", UID: 1001, GID: 1000, Home: "/home/alice", Shell: "/bin/sh"}
		},
		"a home": func(m *machine) {
			m.accounts.users["alice"] = account.User{Name: "alice", UID: 1000, GID: 1000, Home: "/srv/alice", Shell: "/bin/sh"}
		},
		"a user":      func(m *machine) { delete(m.accounts.users, "alice") },
		"a group":     func(m *machine) { m.accounts.groups["adm"] = 5 },
		"the groups":  func(m *machine) { m.accounts.member = []uint32{50, 51} },
		"a port":      func(m *machine) { m.accounts.ports["named"] = 98 },
		"a number":    func(m *machine) { m.accounts.programs["rstatd"] = 100099 },
		"a program":   func(m *machine) { m.missing = "/bin/b" },
		"a directory": func(m *machine) { m.missing = "/srv" },
		"an env_file": func(m *machine) { m.envFile = "A=2" },
		"a right":     func(m *machine) { m.o.SysNice = false },
		"a variable":  func(m *machine) { m.o.Environ = append(slices.Clone(m.o.Environ), "X=y") },
	}
	check := func(name string, change func(*machine), disk bool) {
		t.Run(name, func(t *testing.T) {
			m := newMachine(t)
			r := Read(TOML(m.path), m.o)
			if r.Err != nil {
				t.Fatal(r.Err)
			}
			if r.Read(m.o) != r || r.Compile(m.o) != r {
				t.Fatal("it was made again, and nothing has changed")
			}
			before := dump(r.Table, r.Warnings, r.Err)
			change(m)
			compiled := r.Compile(m.o)
			if (compiled == r) != disk {
				t.Errorf("compiled again: %v", compiled != r)
			}
			if disk && dump(newReading(r.source, r.disk, m.o, nil, nil).Table, nil, nil) != before {
				t.Error("what was read then is not what was read")
			}
			again := r.Read(m.o)
			if again == r {
				t.Error("it is the same when it is read again")
			}
			fresh := Read(TOML(m.path), m.o)
			if got, want := dump(again.Table, again.Warnings, again.Err), dump(fresh.Table, fresh.Warnings, fresh.Err); got != want {
				t.Errorf("read again:\n%s\nanew:\n%s", got, want)
			}
			if dump(r.Table, r.Warnings, r.Err) != before {
				t.Error("the first reading has changed")
			}
		})
	}
	for name, change := range onDisk {
		check(name, change, true)
	}
	for name, change := range answers {
		check(name, change, false)
	}
}

// TestVanishedIsNotRight: a table that runs on although a user has vanished is
// not what the same text makes when it is read again.
func TestVanishedIsNotRight(t *testing.T) {
	m := newMachine(t)
	r := Read(TOML(m.path), m.o)
	delete(m.accounts.users, "alice")
	m.o.VanishedUsers = true
	runs := r.Compile(m.o)
	if runs == r || runs.Err != nil || runs.Table.Services[0].Refuse == "" {
		t.Fatalf("the user is gone: %v, %v", runs.Table, runs.Err)
	}
	if runs.Compile(m.o) != runs {
		t.Error("nothing has changed since")
	}
	m.o.VanishedUsers = false
	if again := runs.Read(m.o); again.Err == nil {
		t.Error("the user is still gone, and it is no error")
	}
}

// TestReadAgainAfterAnError: what is wrong is said every time.
func TestReadAgainAfterAnError(t *testing.T) {
	m := newMachine(t)
	m.accounts.users = nil
	r := Read(TOML(m.path), m.o)
	again := r.Read(m.o)
	if r.Err == nil || again.Err == nil || again.Err.Error() != r.Err.Error() {
		t.Errorf("first %v, then %v", r.Err, again.Err)
	}
}
