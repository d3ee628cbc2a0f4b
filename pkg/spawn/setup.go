// What a child is given besides its identity: limits, priorities, processors,
// and what its descriptors 1 and 2 are. This file has the types and their
// bounds; the steps are in setup_linux.go.

package spawn

import "fmt"

// Stdio is what descriptor 1 or 2 of a child is.
type Stdio uint8

// The choices for Stdio.
const (
	Socket Stdio = iota // the same as descriptor 0
	Log                 // what Program.SetLog was given
	Null                // /dev/null, open for reading and writing
)

// An Rlimit is a limit of setrlimit(2).
type Rlimit struct {
	Resource   int    // RLIMIT_* as Linux numbers them, 0 to 15
	Soft, Hard uint64 // ^uint64(0) is no limit; Soft is not more than Hard
}

// The numbers are the same on amd64 and arm64, which are all that have the spawn
// program.
const (
	rlimits      = 16 // RLIM_NLIMITS
	rlimitNofile = 7  // RLIMIT_NOFILE
)

// An IOPrio is a priority of ioprio_set(2).
type IOPrio struct {
	Class uint8 // 1 realtime, 2 best-effort, 3 idle
	Level uint8 // 0 to 7, 0 is the highest; 0 for idle, which has no levels
}

const (
	ioprioIdle = 3
	maxCPUs    = 8192 // NR_CPUS of the largest kernel
)

// checkSetup finds what no kernel would take.
func (a *Attr) checkSetup() error {
	if a.Stdout > Null || a.Stderr > Null {
		return fmt.Errorf("stdio %d, %d: not known", a.Stdout, a.Stderr)
	}
	var given [rlimits]bool
	for _, l := range a.Rlimits {
		switch {
		case l.Resource < 0 || l.Resource >= rlimits:
			return fmt.Errorf("rlimit %d: not known", l.Resource)
		case given[l.Resource]:
			return fmt.Errorf("rlimit %d: given twice", l.Resource)
		case l.Soft > l.Hard:
			return fmt.Errorf("rlimit %d: the soft limit %d is more than the hard one %d", l.Resource, l.Soft, l.Hard)
		}
		given[l.Resource] = true
	}
	if n := a.Nice; n != nil && (*n < -20 || *n > 19) {
		return fmt.Errorf("nice %d: not within -20 and 19", *n)
	}
	if p := a.IOPrio; p != nil && (p.Class < 1 || p.Class > ioprioIdle || p.Level > 7 || p.Class == ioprioIdle && p.Level > 0) {
		return fmt.Errorf("ioprio class %d, level %d: not known", p.Class, p.Level)
	}
	if n := a.OOMScoreAdj; n != nil && (*n < -1000 || *n > 1000) {
		return fmt.Errorf("oom_score_adj %d: not within -1000 and 1000", *n)
	}
	for _, c := range a.CPUs {
		if c < 0 || c >= maxCPUs {
			return fmt.Errorf("processor %d: not within 0 and %d", c, maxCPUs-1)
		}
	}
	return nil
}

// noLog is the descriptor of a Program that has none yet.
const noLog = -1

// SetLog says what Log is for p: a descriptor that stays the caller's, and open
// as long as p is started. Children get the same open file, with its O_NONBLOCK.
//
// It is called once, before the first Start of a p that has Log; without it such
// a Start fails in step "log".
func (p *Program) SetLog(fd int) { p.log = fd }

// logs reports whether children of p need the log.
func (p *Program) logs() bool { return p.attr.Stdout == Log || p.attr.Stderr == Log }
