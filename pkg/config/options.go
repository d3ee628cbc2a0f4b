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
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// Accounts tells who users, groups and services are; *account.DB does.
type Accounts interface {
	User(name string) (account.User, error)
	Group(name string) (uint32, error)
	Groups(u account.User) ([]uint32, error)    // supplementary groups
	Port(protocol, name string) (uint16, error) // of "tcp" or "udp"
	Program(name string) (uint32, error)        // of rpc(5)
}

// Options is the machine a table is compiled for. Tests make their own.
type Options struct {
	Accounts Accounts

	UID, GID uint32 // effective ids of the daemon; UID 0 is root

	// What the daemon may do, by capabilities(7).
	BindPrivileged bool // CAP_NET_BIND_SERVICE
	NetAdmin       bool // CAP_NET_ADMIN
	NetRaw         bool // CAP_NET_RAW
	SysChroot      bool // CAP_SYS_CHROOT
	SysAdmin       bool // CAP_SYS_ADMIN
	SysNice        bool // CAP_SYS_NICE
	SysResource    bool // CAP_SYS_RESOURCE

	UnprivilegedPort int // ports from here up need no right

	// What the daemon has itself, which its children cannot exceed without a
	// right, and what the machine has.
	HardLimits  []uint64 // by RLIMIT_* number; what is not there is unlimited
	MaxFiles    uint64   // fs.nr_open: nobody's RLIMIT_NOFILE is above it; 0: not known
	OOMScoreAdj int
	CPUs        []int // the processors there may be, sorted; nil: not known

	// What can be read of how busy the machine is.
	LoadAverage bool // /proc/loadavg
	Pressure    bool // /proc/pressure/memory

	// Native says that children are started by the spawn program. The portable
	// way gives a child neither limits and priorities nor an umask that is not
	// the daemon's 022.
	Native bool

	// Passed are the sockets that whoever started the daemon has opened for it,
	// the same at every Compile.
	Passed []service.Passed

	Environ []string // the daemon's own environment, for env_pass

	Program  func(path string) error // nil if it can be executed by somebody
	Dir      func(path string) error // nil if it is a directory
	ReadFile func(path string) ([]byte, error)
	ReadSet  func(path string) ([]byte, error) // ReadFile for files of sets, which may be longer
	// Zone reads the rules of a time zone, in the form of tzfile(5), by its name;
	// of the machine's own for "".
	Zone func(name string) ([]byte, error)

	// Host looks up the addresses of a host that a row listens on. Nil: nobody asks,
	// and no name has any.
	Host func(name string) ([]netip.Addr, error)

	// Up tells whether this machine has the address a now, on that interface
	// unless device is empty; for the zero Addr it tells whether there is such
	// an interface. Endpoints that are not up are warnings then. Nil: nobody
	// asks, because who goes on to listen will be told by the kernel.
	Up func(a netip.Addr, device string) bool

	// VanishedUsers makes unknown users and groups warnings, with
	// service.Service.Refuse set for the row; and files of sets that cannot be
	// read any more, where Reading.Compile goes on with what was in them. It is
	// for a table that runs already and is compiled again because passwd, group
	// or such a file has changed.
	VanishedUsers bool
}

// System are the options of the machine and process this runs in. Native is
// true, Up is nil and nothing is Passed: who starts children and makes sockets
// knows better.
func System(accounts Accounts) *Options {
	caps := capabilities("/proc/self/status")
	has := func(number int) bool { return caps&(1<<number) != 0 }
	nrOpen, _ := strconv.ParseUint(line("/proc/sys/fs/nr_open"), 10, 64)
	oom, _ := strconv.Atoi(line("/proc/self/oom_score_adj"))
	return &Options{
		Accounts:         accounts,
		UID:              uint32(os.Geteuid()),
		GID:              uint32(os.Getegid()),
		BindPrivileged:   has(capNetBindService),
		NetAdmin:         has(capNetAdmin),
		NetRaw:           has(capNetRaw),
		SysChroot:        has(capSysChroot),
		SysAdmin:         has(capSysAdmin),
		SysNice:          has(capSysNice),
		SysResource:      has(capSysResource),
		UnprivilegedPort: unprivilegedPort("/proc/sys/net/ipv4/ip_unprivileged_port_start"),
		HardLimits:       hardLimits("/proc/self/limits"),
		MaxFiles:         nrOpen,
		OOMScoreAdj:      oom,
		CPUs:             possibleCPUs("/sys/devices/system/cpu/possible"),
		LoadAverage:      line("/proc/loadavg") != "",
		Pressure:         line("/proc/pressure/memory") != "",
		Native:           true,
		Environ:          os.Environ(),
		Program:          program,
		Dir:              directory,
		ReadFile:         func(path string) ([]byte, error) { return readFile(path, maxEnvFile) },
		ReadSet:          func(path string) ([]byte, error) { return readFile(path, maxSetFile) },
		Zone:             readZone,
		Host:             lookupHost(),
	}
}

// AsRoot is o for a daemon that runs as root with all its rights, whoever asks.
func (o *Options) AsRoot() *Options {
	root := *o
	root.UID, root.GID = 0, 0
	for _, right := range []*bool{&root.BindPrivileged, &root.NetAdmin, &root.NetRaw, &root.SysChroot, &root.SysAdmin, &root.SysNice, &root.SysResource} {
		*right = true
	}
	return &root
}

// Capability numbers of capabilities(7), linux/capability.h.
const (
	capNetBindService = 10
	capNetAdmin       = 12
	capNetRaw         = 13
	capSysChroot      = 18
	capSysAdmin       = 21
	capSysNice        = 23
	capSysResource    = 24
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

// line is what a file of one line says; empty where there is none.
func line(path string) string {
	text, _ := os.ReadFile(path)
	return strings.TrimSpace(string(text))
}

// unprivilegedPort reads the sysctl of ip(7); 1024 where there is none.
func unprivilegedPort(path string) int {
	if n, err := strconv.Atoi(line(path)); err == nil {
		return n
	}
	return 1024
}

// hardLimits reads proc_pid_limits(5), one line each:
// "Max open files  1024  4096  files".
func hardLimits(path string) []uint64 {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	limits := make([]uint64, len(limitNames))
	for i, name := range limitNames {
		limits[i] = service.RlimInfinity
		_, rest, _ := strings.Cut(string(text), "\nMax "+name+" ")
		rest, _, _ = strings.Cut(rest, "\n")
		if f := strings.Fields(rest); len(f) >= 2 {
			if n, err := strconv.ParseUint(f[1], 10, 64); err == nil {
				limits[i] = n
			}
		}
	}
	return limits
}

// limitNames are what proc_pid_limits(5) calls the resources of rlimitKeys.
var limitNames = []string{"cpu time", "file size", "data size", "stack size", "core file size", "resident set", "processes", "open files",
	"locked memory", "address space", "file locks", "pending signals", "msgqueue size", "nice priority", "realtime priority", "realtime timeout"}

// possibleCPUs reads the processors there may be; nil where nobody says so.
func possibleCPUs(path string) []int {
	list, ok := parseCPUs(line(path))
	if !ok {
		return nil
	}
	return list
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
