// What Compile wants to know of the machine.

package config

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
)

// Accounts tells who users, groups and services are; *account.DB does.
type Accounts interface {
	User(name string) (account.User, error)
	Group(name string) (uint32, error)
	Groups(u account.User) ([]uint32, error) // supplementary groups
	Port(name string) (uint16, error)        // of TCP
}

// Options is the machine a table is compiled for. Tests make their own.
type Options struct {
	Accounts Accounts

	UID, GID uint32 // effective ids of the daemon; UID 0 is root

	BindPrivileged   bool // CAP_NET_BIND_SERVICE
	UnprivilegedPort int  // ports from here up need no right
	Mark             bool // CAP_NET_ADMIN or CAP_NET_RAW, for SO_MARK

	// Native says that children are started by the spawn program. The portable
	// way cannot give a child an umask that is not the daemon's 022.
	Native bool

	Environ []string // the daemon's own environment, for env_pass

	Program  func(path string) error // nil if it can be executed by somebody
	Dir      func(path string) error // nil if it is a directory
	ReadFile func(path string) ([]byte, error)

	// Up tells whether this machine has the address a now, on that interface
	// unless device is empty; for the zero Addr it tells whether there is such
	// an interface. Endpoints that are not up are warnings then. Nil: nobody
	// asks, because who goes on to listen will be told by the kernel.
	Up func(a netip.Addr, device string) bool

	// VanishedUsers makes unknown users and groups warnings, with
	// service.Service.Refuse set for the row. It is for a table that runs
	// already and is compiled again because passwd or group has changed.
	VanishedUsers bool
}

// System are the options of the machine and process this runs in. Native is
// true and Up is nil: who starts children and makes sockets knows better.
func System(accounts Accounts) *Options {
	caps := capabilities("/proc/self/status")
	return &Options{
		Accounts:         accounts,
		UID:              uint32(os.Geteuid()),
		GID:              uint32(os.Getegid()),
		BindPrivileged:   caps&(1<<capNetBindService) != 0,
		UnprivilegedPort: unprivilegedPort("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
		Mark:             caps&(1<<capNetAdmin|1<<capNetRaw) != 0,
		Native:           true,
		Environ:          os.Environ(),
		Program:          program,
		Dir:              directory,
		ReadFile:         func(path string) ([]byte, error) { return readFile(path, maxEnvFile) },
	}
}

// AsRoot is o for a daemon that runs as root with all its rights, whoever asks.
func (o *Options) AsRoot() *Options {
	root := *o
	root.UID, root.GID, root.BindPrivileged, root.Mark = 0, 0, true, true
	return &root
}

// Capability numbers of capabilities(7), linux/capability.h.
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capNetRaw         = 13
)

// capabilities reads the effective set from proc_pid_status(5). Where there is
// none, root has all and others have none.
func capabilities(path string) uint64 {
	text, err := os.ReadFile(path)
	if err == nil {
		for line := range strings.Lines(string(text)) {
			if hex, ok := strings.CutPrefix(line, "CapEff:"); ok {
				if n, err := strconv.ParseUint(strings.TrimSpace(hex), 16, 64); err == nil {
					return n
				}
			}
		}
	}
	if os.Geteuid() == 0 {
		return ^uint64(0)
	}
	return 0
}

// unprivilegedPort reads the sysctl of ip(7); 1024 where there is none.
func unprivilegedPort(path string) int {
	if text, err := os.ReadFile(path); err == nil {
		if n, err := strconv.Atoi(strings.TrimSpace(string(text))); err == nil {
			return n
		}
	}
	return 1024
}

func program(path string) error {
	fi, err := os.Stat(path)
	switch {
	case err != nil:
		return reason(err)
	case !fi.Mode().IsRegular():
		return errors.New("not a regular file")
	case fi.Mode()&0o111 == 0:
		return errors.New("not executable")
	}
	return nil
}

func directory(path string) error {
	fi, err := os.Stat(path)
	if err == nil && !fi.IsDir() {
		err = errors.New("not a directory")
	}
	return reason(err)
}

// reason strips the operation and the path off an error of package os: the
// message names the path already.
func reason(err error) error {
	var pe *os.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}

// lookupError tells the two ways a lookup fails apart, in words.
func lookupError(err error) string {
	if errors.Is(err, account.ErrUnknown) {
		return "is unknown"
	}
	return fmt.Sprintf("cannot be looked up: %v", err)
}
