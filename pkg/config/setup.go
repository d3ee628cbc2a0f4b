// What is set up for a child besides who it is: its descriptors, limits,
// priorities and processors.

package config

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of nice(2), ioprio_set(2) and proc_pid_oom_score_adj(5).
const (
	minNice, maxNice = -20, 19
	ioLevels         = 8
	maxOOMScoreAdj   = 1000
	maxCPU           = 8191 // NR_CPUS is no more anywhere
)

// The classes of ioprio_set(2).
const (
	ioRealtime = 1 + iota
	ioBestEffort
	ioIdle
)

func (r *row) setup(e *service.Exec) {
	s, o := r.text, r.c.o
	stdio := []choice[service.Stdio]{{"socket", service.StdioSocket}, {"log", service.StdioLog}, {"null", service.StdioNull}}
	e.Stdout = choose(r, "stdout", s.Stdout, stdio)
	e.Stderr = service.StdioLog
	if s.Stderr.IsSet() {
		e.Stderr = choose(r, "stderr", s.Stderr, stdio)
	}
	e.Rlimits = r.rlimits()
	if s.Nice.IsSet() && r.native("nice", s.Nice.Pos) {
		n := int(r.number("nice", s.Nice, 0, minNice, maxNice))
		if n < 0 && !o.SysNice {
			r.errorf("nice", s.Nice.Pos, "less than 0 needs root or CAP_SYS_NICE; run tcpmuxd so or write a number from 0 to %d instead", maxNice)
		}
		e.Nice = &n
	}
	e.IOPrio = r.ioprio()
	if s.OOMScoreAdj.IsSet() && r.native("oom_score_adj", s.OOMScoreAdj.Pos) {
		n := int(r.number("oom_score_adj", s.OOMScoreAdj, 0, -maxOOMScoreAdj, maxOOMScoreAdj))
		if n < o.OOMScoreAdj && !o.SysResource {
			r.errorf("oom_score_adj", s.OOMScoreAdj.Pos, "less than tcpmuxd's own, %d, needs root or CAP_SYS_RESOURCE; run tcpmuxd so or write a higher number", o.OOMScoreAdj)
		}
		e.OOMScoreAdj = &n
	}
	e.CPUs = r.cpus()
}

// native reports whether the key can be had: the portable way of starting
// programs knows none of these.
func (r *row) native(key string, pos Pos) bool {
	if !r.c.o.Native {
		r.errorf(key, pos, "the portable way of starting programs, the only one here, cannot set it; take it out")
	}
	return r.c.o.Native
}

// What the number of a resource is of.
type unit uint8

const (
	plainUnit unit = iota
	bytesUnit
	secondsUnit
	microsUnit
)

// resources has the units of rlimitKeys, getrlimit(2).
var resources = map[string]unit{
	"cpu": secondsUnit, "fsize": bytesUnit, "data": bytesUnit, "stack": bytesUnit, "core": bytesUnit, "rss": bytesUnit,
	"memlock": bytesUnit, "as": bytesUnit, "msgqueue": bytesUnit, "rttime": microsUnit,
}

// rlimits reads the rlimits table.
func (r *row) rlimits() (out []service.Rlimit) {
	for i := range rlimitKeys {
		k := &rlimitKeys[i]
		v := k.field(&r.text.Rlimits).(*Scalar)
		if !v.IsSet() {
			continue
		}
		key := "rlimits." + k.name
		if !r.native(key, v.Pos) {
			continue
		}
		unit := resources[k.name]
		first, second, two := strings.Cut(string(v.V), ":")
		soft, ok := amount(first, unit)
		hard := soft
		if two && ok {
			hard, ok = amount(second, unit)
		}
		most := uint64(service.RlimInfinity)
		if i < len(r.c.o.HardLimits) {
			most = r.c.o.HardLimits[i]
		}
		switch {
		case !ok:
			r.errorf(key, v.Pos, "%s is no limit; write a number%s, \"SOFT:HARD\" or \"unlimited\" instead", clip(string(v.V)),
				[...]string{"", " of bytes such as 65536 or \"64K\"", " of seconds or a duration such as \"10m\"", " of microseconds or a duration such as \"200ms\""}[unit])
		case soft > hard:
			r.errorf(key, v.Pos, "the soft limit is above the hard one; write \"%s:%s\" instead", clipped(second), clipped(first))
		case k.name == "nofile" && r.c.o.MaxFiles > 0 && hard > r.c.o.MaxFiles:
			r.errorf(key, v.Pos, "more than fs.nr_open, %d, which nobody can have; write at most that", r.c.o.MaxFiles)
		case hard > most && !r.c.o.SysResource:
			r.errorf(key, v.Pos, "more than tcpmuxd's own hard limit, %d, needs root or CAP_SYS_RESOURCE; run tcpmuxd so or write at most %d", most, most)
		default:
			out = append(out, service.Rlimit{Resource: i, Soft: soft, Hard: hard})
		}
	}
	return out
}

// amount reads one number of a limit in the kernel's unit.
func amount(s string, u unit) (uint64, bool) {
	if s == "unlimited" {
		return service.RlimInfinity, true
	}
	if isDigits(s) {
		n, err := strconv.ParseUint(s, 10, 64)
		return n, err == nil
	}
	switch u {
	case bytesUnit:
		if s == "" {
			return 0, false
		}
		shift := map[byte]uint{'K': 10, 'M': 20, 'G': 30, 'T': 40}[s[len(s)-1]]
		number := s[:len(s)-1]
		if shift == 0 || !isDigits(number) {
			return 0, false
		}
		n, err := strconv.ParseUint(number, 10, 64)
		return n << shift, err == nil && n < 1<<(64-shift)
	case secondsUnit, microsUnit:
		of := map[unit]time.Duration{secondsUnit: time.Second, microsUnit: time.Microsecond}[u]
		d, err := time.ParseDuration(s)
		return uint64(d / of), err == nil && d >= 0 && d%of == 0
	}
	return 0, false
}

// ioprio reads "CLASS:LEVEL" or "idle".
func (r *row) ioprio() *service.IOPrio {
	s := r.text.IOPrio
	if !s.IsSet() || !r.native("ioprio", s.Pos) {
		return nil
	}
	class, level, two := strings.Cut(s.V, ":")
	p := &service.IOPrio{Class: map[string]uint8{"realtime": ioRealtime, "best-effort": ioBestEffort, "idle": ioIdle}[class]}
	n, err := strconv.ParseUint(level, 10, 8)
	switch {
	case p.Class == 0 || two && (p.Class == ioIdle || err != nil || n >= ioLevels) || !two && p.Class != ioIdle:
		r.errorf("ioprio", s.Pos, "%s is no priority; write \"best-effort:0\" to \"best-effort:7\", \"realtime:0\" to \"realtime:7\" or \"idle\" instead", clip(s.V))
		return nil
	case p.Class == ioRealtime && !r.c.o.SysNice && !r.c.o.SysAdmin:
		r.errorf("ioprio", s.Pos, "realtime needs root, CAP_SYS_NICE or CAP_SYS_ADMIN; run tcpmuxd so or write \"best-effort:%d\" instead", n)
	}
	p.Level = uint8(n)
	return p
}

// cpus reads a list of processors and ranges of them.
func (r *row) cpus() []int {
	l := r.text.CPUs
	if !l.IsSet() {
		return nil
	}
	if !r.native("cpus", l.Pos) {
		return nil
	}
	var out []int
	for _, s := range l.V {
		if !s.IsSet() {
			continue
		}
		list, ok := parseCPUs(s.V)
		if !ok {
			r.errorf("cpus", s.Pos, "%s is no list of processors; write one such as \"0-3,7\" instead", clip(s.V))
			continue
		}
		for _, n := range list {
			if all := r.c.o.CPUs; all != nil && !slices.Contains(all, n) {
				r.errorf("cpus", s.Pos, "this machine has no processor %d; write some of \"%s\" instead", n, formatCPUs(all))
				break
			}
		}
		out = append(out, list...)
	}
	if len(l.V) == 0 {
		r.errorf("cpus", l.Pos, "an empty list; write processors such as \"0-3,7\"")
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// parseCPUs reads "0-3,7", the format of cpuset(7).
func parseCPUs(s string) (out []int, ok bool) {
	for part := range strings.SplitSeq(strings.TrimSpace(s), ",") {
		first, last, two := strings.Cut(strings.TrimSpace(part), "-")
		if !two {
			last = first
		}
		lo, err1 := strconv.ParseUint(first, 10, 16)
		hi, err2 := strconv.ParseUint(last, 10, 16)
		if cmp.Or(err1, err2) != nil || lo > hi || hi > maxCPU {
			return nil, false
		}
		for n := lo; n <= hi; n++ {
			out = append(out, int(n))
		}
	}
	return out, true
}

// formatCPUs writes a sorted list as parseCPUs reads it.
func formatCPUs(list []int) string {
	var b strings.Builder
	for i := 0; i < len(list); {
		j := i
		for j+1 < len(list) && list[j+1] == list[j]+1 {
			j++
		}
		if b.Len() > 0 {
			b.WriteByte(',')
		}
		fmt.Fprint(&b, list[i])
		if j > i {
			fmt.Fprintf(&b, "-%d", list[j])
		}
		i = j + 1
	}
	return b.String()
}
