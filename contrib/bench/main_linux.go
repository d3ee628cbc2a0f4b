package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file is the command line and the order of the rounds.

type options struct {
	tcpmuxd, json, servers, scenarios string
	rounds, tries, threads            int
	sample                            time.Duration
	full, calls, attack               bool
}

// The thread that main runs on is the one that enters the namespace.
func init() { runtime.LockOSThread() }

func main() {
	var o options
	flag.StringVar(&o.tcpmuxd, "tcpmuxd", "bin/tcpmuxd", "the `program` to measure; without it its column is left out")
	flag.StringVar(&o.json, "json", "", "also write everything to this `file`, every sample included")
	flag.StringVar(&o.servers, "servers", "", "only these, a comma-separated `list`")
	flag.StringVar(&o.scenarios, "scenarios", "", "only these, a comma-separated `list`, of "+names())
	flag.BoolVar(&o.full, "full", false, "all scenarios and system calls, and what is not measured is named among the bars")
	flag.BoolVar(&o.attack, "attack", false, "attack servers instead, and see what an honest user notices")
	flag.BoolVar(&o.calls, "calls", false, "count system calls, too")
	flag.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	flag.DurationVar(&o.sample, "sample", 400*time.Millisecond, "`length` of a sample")
	flag.IntVar(&o.tries, "tries", 4, "at most this `number` of tries of a disturbed sample")
	flag.IntVar(&o.threads, "threads", 1, "`number` of threads of the load generator")
	flag.Parse()
	if flag.NArg() > 0 || o.rounds < 1 || o.tries < 1 || o.threads < 1 || o.sample <= 0 {
		flag.Usage()
		os.Exit(2)
	}
	ctx, cancel := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer cancel()
	if err := run(ctx, o); err != nil {
		fmt.Fprintf(os.Stderr, "bench: %v\n", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, o options) (err error) {
	dir, err := os.MkdirTemp("", "tcpmuxd-bench.")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	// The children run as root but a peer's own user must reach the files.
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	if err := compile(dir); err != nil {
		return err
	}
	b := &bench{dir: dir, commands: map[string][]string{}, threads: o.threads, cpus: runtime.NumCPU(), perSample: o.tries, length: o.sample}
	report := &Report{Machine: machine(), Programs: map[string]string{}}
	used, err := b.find(o, report)
	if err != nil {
		return err
	}
	if err := enterNetwork(); err != nil {
		return err
	}
	if err := raiseDescriptors(); err != nil {
		return err
	}
	// A server that forks, and children that outlive theirs, must remain ours to wait for.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	report.Settings = fmt.Sprintf("%d rounds, %v a sample", o.rounds, o.sample)
	if err := b.measure(ctx, o, used, report); err != nil {
		return err
	}
	if (o.calls || o.full) && !o.attack {
		if err := b.count(ctx, o, used, report); err != nil {
			return err
		}
	}
	judged := bars
	if o.attack {
		judged = attackBars
	}
	report.Bars = report.judge(judged, isPeer)
	if !o.full {
		report.Bars = slices.DeleteFunc(report.Bars, func(v Verdict) bool { return v.Missing })
	}
	if o.json != "" {
		if err := report.writeJSON(o.json); err != nil {
			return err
		}
	}
	return report.text(os.Stdout)
}

// find returns the servers that can be run; a notice names each other one.
func (b *bench) find(o options, report *Report) (used []*server, err error) {
	cache, err := cacheDir()
	if err != nil {
		return nil, err
	}
	for _, s := range servers {
		if !listed(o.servers, s.name) {
			continue
		}
		switch {
		case s.name == ceilingName:
			b.commands[s.name] = []string{filepath.Join(b.dir, "ceiling")}
		case s.pkg == "":
			path, err := filepath.Abs(o.tcpmuxd)
			if err == nil {
				_, err = os.Stat(path)
			}
			if err != nil {
				report.notice(fmt.Sprintf("%s is left out: %v", s.name, err))
				continue
			}
			out, _ := exec.Command(path, "-V").Output()
			report.Programs[s.name] = strings.TrimPrefix(strings.TrimSpace(string(out)), s.name+" ")
			b.commands[s.name] = []string{path}
		default:
			command, version, err := peer(cache, s)
			if err != nil {
				report.notice(fmt.Sprintf("%s is left out: %v", s.name, err))
				continue
			}
			b.commands[s.name], report.Programs[s.name] = command, version
		}
		used = append(used, s)
	}
	if len(used) == 0 {
		return nil, fmt.Errorf("no server to measure")
	}
	return used, nil
}

func listed(list, name string) bool {
	return list == "" || slices.Contains(strings.Split(list, ","), name)
}

// wanted says whether a scenario is to be measured.
func (o options) wanted(sc scenario) bool {
	if o.scenarios != "" {
		return listed(o.scenarios, sc.name)
	}
	if o.attack || sc.attack {
		return o.attack && sc.attack
	}
	return o.full || sc.quick
}

func names() string {
	var all []string
	for _, sc := range scenarios {
		all = append(all, sc.name)
	}
	return strings.Join(all, ", ")
}

// isPeer says whether a server is neither ours nor the ceiling.
func isPeer(name string) bool {
	return slices.ContainsFunc(servers, func(s *server) bool { return s.name == name && s.pkg != "" })
}

// each calls f for every scenario, condition and server, beginning with
// another one of a scenario's in every round, so that none is always measured
// in the same place.
func each(o options, used []*server, round int, f func(*server, scenario, variant) error) error {
	for _, sc := range scenarios {
		if !o.wanted(sc) {
			continue
		}
		type column struct {
			*server
			variant
		}
		var columns []column
		for _, v := range sc.conditions() {
			for _, s := range used {
				if s.runs(sc) {
					columns = append(columns, column{s, v})
				}
			}
		}
		for i := range columns {
			c := columns[(i+round)%len(columns)]
			if err := f(c.server, sc, c.variant); err != nil {
				return err
			}
		}
	}
	return nil
}

// measure runs all rounds. A server that does not start, or dies, is left out
// of that round and named in a notice; the others go on.
func (b *bench) measure(ctx context.Context, o options, used []*server, report *Report) error {
	var figures []Figure
	for round := range o.rounds {
		b.retries = 8 // in this round: the whole time must stay bounded on a busy machine
		if o.full || o.attack {
			b.retries = 24
		}
		fmt.Fprintf(os.Stderr, "bench: round %d of %d\n", round+1, o.rounds)
		err := each(o, used, round, func(s *server, sc scenario, v variant) error {
			if sc.attack {
				if s.name != oursName && (round > 0 || v.ours) { // bars are not about them, and it takes long
					return nil
				}
				fmt.Fprintf(os.Stderr, "bench: %s (%s): %s\n", sc.name, v.name, s.name)
			}
			samples, more, err := b.one(ctx, s, sc, v, o.sample)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				report.notice(fmt.Sprintf("round %d: %v", round+1, err))
				return nil
			}
			for i := range samples {
				samples[i].Round = round + 1
			}
			report.Samples, figures = append(report.Samples, samples...), append(figures, more...)
			return nil
		})
		if err != nil {
			return err
		}
	}
	inTableOrder(used, report.Samples, func(s Sample) (string, string, string) { return s.Scenario, s.Variant, s.Server })
	inTableOrder(used, figures, func(f Figure) (string, string, string) { return f.Scenario, f.Variant, f.Server })
	for _, sc := range scenarios {
		if o.wanted(sc) {
			report.Scenarios = append(report.Scenarios, About{sc.name, sc.title, sc.load.unit})
		}
	}
	report.Rows, report.Figures = sumUp(report.Samples, isPeer), merge(figures)
	return nil
}

// count makes the system call tables, of the scenarios whose child makes no
// more calls than one write.
func (b *bench) count(ctx context.Context, o options, used []*server, report *Report) error {
	fmt.Fprintln(os.Stderr, "bench: system calls")
	return each(o, used, 0, func(s *server, sc scenario, v variant) error {
		if sc.child != "tiny" || len(sc.variants) > 0 {
			return nil
		}
		r, err := b.start(ctx, s, sc, v)
		if err != nil {
			report.notice(err.Error())
			return nil
		}
		defer r.stop()
		calls, err := r.calls(ctx, 8, 2000)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			report.notice(fmt.Sprintf("system calls of %s: %v", s.name, err))
			return nil
		}
		report.Syscalls = append(report.Syscalls, calls)
		return nil
	})
}

func (r *Report) notice(text string) {
	r.Notices = append(r.Notices, text)
	fmt.Fprintf(os.Stderr, "bench: notice: %s\n", text)
}

// inTableOrder undoes the rotation of the rounds.
func inTableOrder[T any](used []*server, v []T, of func(T) (scenario, variant, server string)) {
	place := func(x T) [3]int {
		title, condition, name := of(x)
		i := slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == title })
		return [3]int{i, slices.IndexFunc(scenarios[i].variants, func(v variant) bool { return v.name == condition }),
			slices.IndexFunc(used, func(s *server) bool { return s.name == name })}
	}
	slices.SortStableFunc(v, func(a, b T) int {
		x, y := place(a), place(b)
		return slices.Compare(x[:], y[:])
	})
}

// machine says what the figures were measured on.
func machine() string {
	var u unix.Utsname
	unix.Uname(&u)
	cpu := runtime.GOARCH
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == "model name" {
			cpu = strings.TrimSpace(value)
			break
		}
	}
	return fmt.Sprintf("%d × %s, Linux %s, %s", runtime.NumCPU(), cpu, unix.ByteSliceToString(u.Release[:]), time.Now().Format("2 Jan 2006 15:04"))
}
