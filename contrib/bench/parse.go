package main

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file reads what the load generators, perf and the kernel print.

// parseLoad reads the line that c/load.c, stream.c and udp.c print; scale of
// what they count are one unit.
func parseLoad(line string, scale float64) (s Sample, err error) {
	var elapsed, cpu, p50, p99, longest int64
	_, err = fmt.Sscan(line, &s.Done, &s.Wrong, &s.Failed, &elapsed, &cpu, &p50, &p99, &longest)
	if err != nil || elapsed <= 0 {
		return s, fmt.Errorf("load generator said %q", line)
	}
	s.elapsed, s.loadCPU = time.Duration(elapsed), time.Duration(cpu)
	s.Rate = float64(s.Done) / scale / s.elapsed.Seconds()
	s.P50, s.P99, s.Max = float64(p50)/1e6, float64(p99)/1e6, float64(longest)/1e6
	s.LoadCPU = perUnit(s.loadCPU, float64(s.Done)/scale)
	return s, nil
}

// parseCPULine reads the first line of /proc/stat (proc_stat(5)) and returns
// the ticks that all CPUs spent otherwise than idle, stolen ones included.
// Guest time is part of user time already.
func parseCPULine(stat string) (busy int64, err error) {
	line, _, _ := strings.Cut(stat, "\n")
	f := strings.Fields(line)
	if len(f) < 9 || f[0] != "cpu" {
		return 0, fmt.Errorf("/proc/stat begins with %q", line)
	}
	for i, word := range f[1:9] { // user nice system idle iowait irq softirq steal
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("/proc/stat begins with %q", line)
		}
		if i != 3 && i != 4 {
			busy += n
		}
	}
	return busy, nil
}

// parseTreeTicks reads /proc/PID/stat and returns the ticks of the process
// and of the children it has waited for.
func parseTreeTicks(stat string) (ticks int64, err error) {
	f := strings.Fields(stat[strings.LastIndexByte(stat, ')')+1:]) // the name may hold spaces and brackets
	if len(f) < 15 {
		return 0, fmt.Errorf("no CPU times in %q", stat)
	}
	for _, word := range f[11:15] { // utime stime cutime cstime
		n, err := strconv.ParseInt(word, 10, 64)
		if err != nil {
			return 0, fmt.Errorf("no CPU times in %q", stat)
		}
		ticks += n
	}
	return ticks, nil
}

// parseValue finds "key value" or "key: value" at the start of a line, as in
// smaps_rollup (KiB) and cpu.stat (microseconds).
func parseValue(text, key string) (int64, error) {
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) >= 2 && strings.TrimSuffix(f[0], ":") == key {
			return strconv.ParseInt(f[1], 10, 64)
		}
	}
	return 0, fmt.Errorf("no %s", key)
}

// A Call is how often one system call was made.
type Call struct {
	Name    string  `json:"name"`
	PerConn float64 `json:"per_conn"`
}

// Syscalls is what was counted of one server and its children.
type Syscalls struct {
	Scenario string  `json:"scenario"`
	Server   string  `json:"server"`
	InFlight int     `json:"in_flight"`
	Total    float64 `json:"per_conn"`
	Calls    []Call  `json:"calls"`
}

// The tracepoints of perf: of all system calls together and of single ones.
const (
	allCalls = "raw_syscalls:sys_enter"
	oneCall  = "syscalls:sys_enter_"
)

// parsePerf reads what perf stat -x, has counted over conns connections, most
// frequent call first. The end of a process is not one of the calls that
// matter; those that perf was not told to count by name are "other".
func parsePerf(r io.Reader, conns int64) (calls []Call, total float64, err error) {
	if conns <= 0 {
		return nil, 0, fmt.Errorf("no connection was served under perf")
	}
	in := bufio.NewScanner(r)
	all, named := 0.0, 0.0
	for in.Scan() {
		f := strings.Split(in.Text(), ",") // count, unit, event, ...
		if len(f) < 3 || !strings.Contains(f[2], "sys_enter") {
			continue
		}
		n, err := strconv.ParseInt(f[0], 10, 64)
		if err != nil {
			return nil, 0, fmt.Errorf("perf could not count %s: %s", f[2], f[0])
		}
		each := float64(n) / float64(conns)
		if f[2] == allCalls {
			all = each
			continue
		}
		named += each
		name := strings.TrimPrefix(f[2], oneCall)
		if n > 0 && name != "exit" && name != "exit_group" {
			calls = append(calls, Call{name, each})
			total += each
		}
	}
	if all == 0 {
		return nil, 0, fmt.Errorf("no system calls in what perf has counted")
	}
	if other := all - named; other > 0 {
		calls = append(calls, Call{"other", other})
		total += other
	}
	slices.SortStableFunc(calls, func(a, b Call) int {
		return cmp.Or(cmp.Compare(b.PerConn, a.PerConn), strings.Compare(a.Name, b.Name))
	})
	return calls, total, in.Err()
}
