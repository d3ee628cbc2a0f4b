// What others said: the machine about users, programs and the like, the file
// system about files. Each question is asked once, and kept with its answer, so
// that it can be asked again whether anything has changed.

package config

import (
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

// A memo remembers what a function said, its errors too, so that a thousand
// rows of one user are one question.
type memo[K comparable, T any] map[K]said[T]

type said[T any] struct {
	v   T
	err error
}

func (m memo[K, T]) ask(k K, f func(K) (T, error)) (T, error) {
	s, ok := m[k]
	if !ok {
		s.v, s.err = f(k)
		m[k] = s
	}
	return s.v, s.err
}

// holds asks everything again, and reports whether all answers are what they
// were.
func (m memo[K, T]) holds(f func(K) (T, error), equal func(a, b T) bool) bool {
	for k, was := range m {
		v, err := f(k)
		if (err == nil) != (was.err == nil) || err == nil && !equal(v, was.v) || err != nil && err.Error() != was.err.Error() {
			return false
		}
	}
	return true
}

func same[T comparable](a, b T) bool { return a == b }

// A cache has the answers of Options.
type cache struct {
	users    memo[string, account.User]
	gids     memo[string, uint32]
	members  memo[account.User, []uint32]
	ports    memo[portName, uint16]
	rpcs     memo[string, uint32]
	programs memo[string, struct{}]
	dirs     memo[string, struct{}]
	files    memo[string, string]
	sets     memo[string, *setFile]
	hosts    memo[string, string] // of hosts.allow and hosts.deny, and what they name
	zones    memo[string, zone]
	names    memo[string, []netip.Addr] // of hosts
	up       memo[address, bool]
	env      map[string]string
}

type portName struct{ protocol, name string }

type address struct {
	addr   netip.Addr
	device string
}

func newCache() cache {
	return cache{
		users: memo[string, account.User]{}, gids: memo[string, uint32]{}, members: memo[account.User, []uint32]{},
		ports: memo[portName, uint16]{}, rpcs: memo[string, uint32]{}, programs: memo[string, struct{}]{}, dirs: memo[string, struct{}]{},
		files: memo[string, string]{}, sets: memo[string, *setFile]{}, hosts: memo[string, string]{}, zones: memo[string, zone]{}, names: memo[string, []netip.Addr]{}, up: memo[address, bool]{},
	}
}

// hold reports whether o answers everything as was answered here.
func (c *cache) hold(o *Options) bool {
	return c.users.holds(o.Accounts.User, same) && c.gids.holds(o.Accounts.Group, same) &&
		c.members.holds(o.Accounts.Groups, slices.Equal) && c.ports.holds(o.port, same) && c.rpcs.holds(o.Accounts.Program, same) &&
		c.programs.holds(o.program, same) && c.dirs.holds(o.dir, same) &&
		c.files.holds(o.file, same) && c.sets.holds(o.setFile, sameSetFile) && c.hosts.holds(o.hostsFile, same) && c.zones.holds(o.zone, sameZone) && c.up.holds(o.isUp, same) &&
		(o.VanishedUsers || c.names.holds(o.host, slices.Equal))
}

func (o *Options) port(p portName) (uint16, error)       { return o.Accounts.Port(p.protocol, p.name) }
func (o *Options) program(path string) (struct{}, error) { return struct{}{}, o.Program(path) }
func (o *Options) dir(path string) (struct{}, error)     { return struct{}{}, o.Dir(path) }
func (o *Options) isUp(a address) (bool, error)          { return o.Up(a.addr, a.device), nil }

func (o *Options) file(path string) (string, error) {
	b, err := o.ReadFile(path)
	return string(b), err
}

func (c *cache) user(a Accounts, name string) (account.User, error) { return c.users.ask(name, a.User) }
func (c *cache) group(a Accounts, name string) (uint32, error)      { return c.gids.ask(name, a.Group) }

func (c *cache) port(o *Options, protocol, name string) (uint16, error) {
	return c.ports.ask(portName{protocol, name}, o.port)
}

func (c *cache) groups(a Accounts, u account.User) ([]uint32, error) {
	return c.members.ask(u, a.Groups)
}

func (c *cache) program(o *Options, path string) error {
	_, err := c.programs.ask(path, o.program)
	return err
}

func (c *cache) dir(o *Options, path string) error {
	_, err := c.dirs.ask(path, o.dir)
	return err
}

func (c *cache) file(o *Options, path string) (string, error) { return c.files.ask(path, o.file) }

func (c *cache) isUp(o *Options, a netip.Addr, device string) bool {
	up, _ := c.up.ask(address{a, device}, o.isUp)
	return up
}

// environ is the daemon's environment by name; the first of a name counts, as
// in getenv(3).
func (c *cache) environ(list []string) map[string]string {
	if c.env == nil {
		c.env = make(map[string]string, len(list))
		for _, e := range list {
			name, value, ok := strings.Cut(e, "=")
			if _, twice := c.env[name]; ok && !twice {
				c.env[name] = value
			}
		}
	}
	return c.env
}

// A Disk is how a front end reads files. It keeps what the file system said, so
// that a Reading can ask again whether anything has changed. It is for one
// goroutine.
type Disk struct {
	real     memo[string, string] // of a path, without symbolic links
	texts    memo[string, string]
	patterns memo[pattern, []string]
	kinds    memo[string, bool] // of a path: whether it is a directory
}

// A pattern stands in a file of dir.
type pattern struct{ dir, pattern string }

// NewDisk makes a Disk that knows nothing yet.
func NewDisk() *Disk {
	return &Disk{real: memo[string, string]{}, texts: memo[string, string]{}, patterns: memo[pattern, []string]{}, kinds: memo[string, bool]{}}
}

// Text is what is in a regular file of at most 16 MiB. The error does not name it.
func (d *Disk) Text(path string) (string, error) {
	text, err := d.texts.ask(path, readText)
	return text, reason(err)
}

// Real is path without symbolic links. The error does not name it.
func (d *Disk) Real(path string) (string, error) {
	real, err := d.real.ask(path, filepath.EvalSymlinks)
	return real, reason(err)
}

// Glob lists, sorted, the files that a pattern of a file in dir names, as the key
// include has it: a wildcard does not match a leading dot, and a plain name is
// itself, whether there is such a file or not.
func (d *Disk) Glob(dir, glob string) ([]string, error) {
	return d.patterns.ask(pattern{dir, glob}, expand)
}

// IsDir reports whether path is a directory; what is not there is none.
func (d *Disk) IsDir(path string) bool {
	is, _ := d.kinds.ask(path, isDir)
	return is
}

func isDir(path string) (bool, error) {
	fi, err := os.Stat(path)
	return err == nil && fi.IsDir(), nil
}

func (d *Disk) hold() bool {
	return d.real.holds(filepath.EvalSymlinks, same) && d.kinds.holds(isDir, same) &&
		d.patterns.holds(expand, slices.Equal) && d.texts.holds(readText, same)
}

func readText(path string) (string, error) {
	b, err := readFile(path, maxFile)
	return string(b), err
}
