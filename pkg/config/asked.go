// Answers of Options that many rows want: each question is asked once.

package config

import (
	"net/netip"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

// A memo remembers what a function said, its errors too, so that a thousand
// rows of one user are one question.
type memo[T any] map[string]said[T]

type said[T any] struct {
	v   T
	err error
}

func (m memo[T]) ask(k string, f func(string) (T, error)) (T, error) {
	s, ok := m[k]
	if !ok {
		s.v, s.err = f(k)
		m[k] = s
	}
	return s.v, s.err
}

type cache struct {
	users    memo[account.User]
	gids     memo[uint32]
	members  memo[[]uint32]
	ports    memo[uint16]
	programs memo[struct{}]
	dirs     memo[struct{}]
	files    memo[string]
	up       map[address]bool
	env      map[string]string
}

type address struct {
	addr   netip.Addr
	device string
}

func newCache() cache {
	return cache{memo[account.User]{}, memo[uint32]{}, memo[[]uint32]{}, memo[uint16]{},
		memo[struct{}]{}, memo[struct{}]{}, memo[string]{},
		map[address]bool{}, nil}
}

func (c *cache) user(a Accounts, name string) (account.User, error) { return c.users.ask(name, a.User) }
func (c *cache) group(a Accounts, name string) (uint32, error)      { return c.gids.ask(name, a.Group) }

func (c *cache) port(a Accounts, protocol, name string) (uint16, error) {
	return c.ports.ask(protocol+" "+name, func(string) (uint16, error) { return a.Port(protocol, name) })
}

func (c *cache) groups(a Accounts, u account.User) ([]uint32, error) {
	return c.members.ask(u.Name, func(string) ([]uint32, error) { return a.Groups(u) })
}

func (c *cache) program(o *Options, path string) error {
	_, err := c.programs.ask(path, func(p string) (struct{}, error) { return struct{}{}, o.Program(p) })
	return err
}

func (c *cache) dir(o *Options, path string) error {
	_, err := c.dirs.ask(path, func(p string) (struct{}, error) { return struct{}{}, o.Dir(p) })
	return err
}

func (c *cache) file(o *Options, path string) (string, error) {
	return c.files.ask(path, func(p string) (string, error) {
		b, err := o.ReadFile(p)
		return string(b), err
	})
}

func (c *cache) isUp(o *Options, a netip.Addr, device string) bool {
	k := address{a, device}
	up, ok := c.up[k]
	if !ok {
		up = o.Up(a, device)
		c.up[k] = up
	}
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
