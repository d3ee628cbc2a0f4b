// Bench is the project's own benchmark: it sets tcpmuxd beside Debian's
// super-servers and beside small C programs that do nothing but accept,
// (negotiate,) spawn and reap, and prints how they compare. README.md says
// what is measured and how far the figures may be trusted.
//
// It is not part of the daemon and nothing of the daemon is linked into it:
// tcpmuxd is started as an operator would start it.
package main

import (
	"bufio"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

// This file holds what can be computed without a machine to measure on: the
// statistics, and the readers of what load, strace and the kernel print.

const ceilingName = "ceiling"

// A Spread is the middle and the ends of one figure over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spread is the zero Spread for no values. The median of an even number of
// values is the mean of the two in the middle.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// A Sample is one run of the load generator against one server.
type Sample struct {
	Scenario  string  `json:"scenario"`
	Server    string  `json:"server"`
	InFlight  int     `json:"in_flight"`
	Round     int     `json:"round"`
	Conns     int64   `json:"conns"`  // answered as expected
	Wrong     int64   `json:"wrong"`  // answered otherwise
	Failed    int64   `json:"failed"` // no orderly end of file
	Rate      float64 `json:"rate"`   // conns per second
	P50       float64 `json:"p50_ms"` // connect to end of file
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	CPU       float64 `json:"cpu_us_per_conn"`      // of the server and its children
	LoadCPU   float64 `json:"load_cpu_us_per_conn"` // of the load generator
	Others    float64 `json:"others_share"`         // of the machine's CPU time, taken by anyone else
	Disturbed bool    `json:"disturbed"`            // Others was too large in every try
	loadCPU   time.Duration
	elapsed   time.Duration
}

// parseLoad reads the line that c/load.c prints.
func parseLoad(line string) (s Sample, err error) {
	var elapsed, cpu, p50, p99, longest int64
	_, err = fmt.Sscan(line, &s.Conns, &s.Wrong, &s.Failed, &elapsed, &cpu, &p50, &p99, &longest)
	if err != nil || elapsed <= 0 {
		return s, fmt.Errorf("load generator said %q", line)
	}
	s.elapsed, s.loadCPU = time.Duration(elapsed), time.Duration(cpu)
	s.Rate = float64(s.Conns) / s.elapsed.Seconds()
	s.P50, s.P99, s.Max = float64(p50)/1e6, float64(p99)/1e6, float64(longest)/1e6
	s.LoadCPU = perConn(s.loadCPU, s.Conns)
	return s, nil
}

// perConn is in microseconds.
func perConn(d time.Duration, conns int64) float64 {
	if conns == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1e3 / float64(conns)
}

// Memory is the proportional set size of a server's main process, in KiB,
// before the first load and after the last of one start.
type Memory struct {
	Scenario string `json:"scenario"`
	Server   string `json:"server"`
	Idle     int64  `json:"idle_kib"`
	Loaded   int64  `json:"loaded_kib"`
}

// A Row sums up all rounds of one server at one number in flight. Ratios are
// of medians; 0 where there is nothing to compare with.
type Row struct {
	Scenario  string  `json:"scenario"`
	Server    string  `json:"server"`
	InFlight  int     `json:"in_flight"`
	Rate      Spread  `json:"rate"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_us_per_conn"`
	BestPeer  float64 `json:"of_best_peer"`
	Ceiling   float64 `json:"of_ceiling"`
	Clean     int     `json:"clean_samples"`
	Disturbed int     `json:"disturbed_samples"`
	Wrong     int64   `json:"wrong"`
	Failed    int64   `json:"failed"`
}

// sumUp makes one Row of the samples of every scenario, server and number in
// flight, in the order of their first sample. Disturbed samples count only
// where there is no clean one.
func sumUp(samples []Sample, isPeer func(server string) bool) []Row {
	type key struct {
		scenario, server string
		inFlight         int
	}
	var order []key
	groups := map[key][]Sample{}
	for _, s := range samples {
		k := key{s.Scenario, s.Server, s.InFlight}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], s)
	}
	rows := make([]Row, 0, len(order))
	best, ceilings := map[key]float64{}, map[key]float64{}
	for _, k := range order {
		r := Row{Scenario: k.scenario, Server: k.server, InFlight: k.inFlight}
		for _, s := range groups[k] {
			r.Wrong += s.Wrong
			r.Failed += s.Failed
			if s.Disturbed {
				r.Disturbed++
			} else {
				r.Clean++
			}
		}
		used := slices.DeleteFunc(slices.Clone(groups[k]), func(s Sample) bool { return s.Disturbed && r.Clean > 0 })
		middle := func(of func(Sample) float64) Spread {
			var v []float64
			for _, s := range used {
				v = append(v, of(s))
			}
			return spread(v)
		}
		r.Rate = middle(func(s Sample) float64 { return s.Rate })
		r.P50 = middle(func(s Sample) float64 { return s.P50 }).Median
		r.P99 = middle(func(s Sample) float64 { return s.P99 }).Median
		r.CPU = middle(func(s Sample) float64 { return s.CPU }).Median
		rows = append(rows, r)

		k.server = ""
		if isPeer(r.Server) {
			best[k] = max(best[k], r.Rate.Median)
		} else if r.Server == ceilingName {
			ceilings[k] = r.Rate.Median
		}
	}
	for i := range rows {
		k := key{rows[i].Scenario, "", rows[i].InFlight}
		if best[k] > 0 {
			rows[i].BestPeer = rows[i].Rate.Median / best[k]
		}
		if ceilings[k] > 0 {
			rows[i].Ceiling = rows[i].Rate.Median / ceilings[k]
		}
	}
	return rows
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

// parseStrace reads the table of strace -c, most frequent call first.
func parseStrace(r io.Reader, conns int64) (calls []Call, total float64, err error) {
	if conns <= 0 {
		return nil, 0, fmt.Errorf("no connection was served under strace")
	}
	in := bufio.NewScanner(r)
	for in.Scan() {
		f := strings.Fields(in.Text()) // % time, seconds, usecs/call, calls, [errors,] name
		if len(f) < 5 || f[len(f)-1] == "total" {
			continue
		}
		n, err := strconv.ParseInt(f[3], 10, 64)
		if err != nil {
			continue // heading and rules
		}
		c := Call{f[len(f)-1], float64(n) / float64(conns)}
		calls = append(calls, c)
		total += c.PerConn
	}
	if len(calls) == 0 {
		return nil, 0, fmt.Errorf("no system calls in the table of strace")
	}
	slices.SortStableFunc(calls, func(a, b Call) int {
		if a.PerConn != b.PerConn {
			if a.PerConn > b.PerConn {
				return -1
			}
			return 1
		}
		return strings.Compare(a.Name, b.Name)
	})
	return calls, total, in.Err()
}

// middleMemory makes one Memory of those of all rounds, which must be in
// order of scenario and server.
func middleMemory(all []Memory) (middle []Memory) {
	for len(all) > 0 {
		m := all[0]
		var idle, loaded []float64
		for len(all) > 0 && all[0].Scenario == m.Scenario && all[0].Server == m.Server {
			idle, loaded = append(idle, float64(all[0].Idle)), append(loaded, float64(all[0].Loaded))
			all = all[1:]
		}
		m.Idle, m.Loaded = int64(spread(idle).Median), int64(spread(loaded).Median)
		middle = append(middle, m)
	}
	return middle
}
