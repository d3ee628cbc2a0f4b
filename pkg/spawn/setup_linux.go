//go:build amd64 || arm64

// The steps that give a child its limits, priorities, processors and root
// directory. The daemon's rights are needed for most of them.

package spawn

import (
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// addOOM writes the score by which the kernel finds a victim when memory is
// short. It comes before the limits, one of which may leave no descriptor to
// write with, and before chroot, because there may be no /proc.
func (n *program) addOOM(score *int) {
	if score == nil {
		return
	}
	// A child has 0, 1 and 2 at this point and nothing else (headClose), so what
	// it opens is 3. That it shares memory with the daemon would make the score
	// the daemon's; only children of vfork the kernel leaves alone.
	const fd = 3
	n.wait()
	text := strconv.Itoa(*score)
	n.add("oom", unix.SYS_OPENAT, atFDCWD, n.string("/proc/self/oom_score_adj"), unix.O_WRONLY|unix.O_CLOEXEC)
	n.add("oom", unix.SYS_WRITE, fd, n.string(text), uintptr(len(text)))
	n.add("oom", unix.SYS_CLOSE, fd)
}

// addRlimits sets the limits of the row. Where it says nothing about descriptors
// the original soft limit is put back, and the hard one stays what it is.
func (n *program) addRlimits(c *compiler, list []Rlimit) {
	nofile := false
	for _, l := range list {
		n.addRlimit("rlimit", l.Resource, &unix.Rlimit{Cur: l.Soft, Max: l.Hard})
		nofile = nofile || l.Resource == rlimitNofile
	}
	if nofile {
		return
	}
	if c.original != nil {
		n.addRlimit("nofile", rlimitNofile, c.original)
	}
}

func (n *program) addRlimit(step string, resource int, lim *unix.Rlimit) {
	n.pins = append(n.pins, lim)
	n.add(step, unix.SYS_PRLIMIT64, 0, uintptr(resource), uintptr(unsafe.Pointer(lim)), 0)
}

// addPriorities is about the processor and the disk.
func (n *program) addPriorities(a *Attr) {
	if a.Nice != nil {
		n.add("nice", unix.SYS_SETPRIORITY, unix.PRIO_PROCESS, 0, uintptr(*a.Nice))
	}
	if p := a.IOPrio; p != nil {
		const whoProcess, classShift = 1, 13 // IOPRIO_WHO_PROCESS, IOPRIO_CLASS_SHIFT
		n.add("ioprio", unix.SYS_IOPRIO_SET, whoProcess, 0, uintptr(p.Class)<<classShift|uintptr(p.Level))
	}
	if len(a.CPUs) > 0 {
		var mask []uint64 // as long as it has to be; the kernel takes the rest as 0
		for _, c := range a.CPUs {
			for len(mask) <= c/64 {
				mask = append(mask, 0)
			}
			mask[c/64] |= 1 << (c % 64)
		}
		n.pins = append(n.pins, mask)
		n.add("affinity", unix.SYS_SCHED_SETAFFINITY, 0, uintptr(8*len(mask)), uintptr(unsafe.Pointer(&mask[0])))
	}
}

// addChroot leaves no way back: the working directory goes along.
func (n *program) addChroot(root string) {
	if root == "" {
		return
	}
	n.add("chroot", unix.SYS_CHROOT, n.string(root))
	n.add("chroot", unix.SYS_CHDIR, n.string("/"))
}
