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

const warmUp = 100 * time.Millisecond

type options struct {
	tcpmuxd, json, servers, scenarios string
	rounds, tries, threads, strace    int
	sample                            time.Duration
}

// The thread that main runs on is the one that enters the namespace.
func init() { runtime.LockOSThread() }

func main() {
	var o options
	flag.StringVar(&o.tcpmuxd, "tcpmuxd", "bin/tcpmuxd", "the `program` to measure; without it its column is left out")
	flag.StringVar(&o.json, "json", "", "also write everything to this `file`, every sample included")
	flag.StringVar(&o.servers, "servers", "", "only these, a comma-separated `list`")
	flag.StringVar(&o.scenarios, "scenarios", "", "only these, a comma-separated `list` of direct, dynamic, tcpmux")
	flag.IntVar(&o.rounds, "rounds", 5, "`number` of rounds")
	flag.DurationVar(&o.sample, "sample", 400*time.Millisecond, "`length` of a sample")
	flag.IntVar(&o.tries, "tries", 4, "at most this `number` of tries of a disturbed sample")
	flag.IntVar(&o.threads, "threads", 1, "`number` of threads of the load generator")
	flag.IntVar(&o.strace, "strace", 0, "count system calls over this `number` of connections instead of measuring time")
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
	b := &bench{dir: dir, commands: map[string][]string{}, threads: o.threads, cpus: runtime.NumCPU(), perSample: o.tries}
	report := &Report{Machine: machine(), Programs: map[string]string{}}
	used, err := b.find(o, report)
	if err != nil {
		return err
	}
	for _, n := range report.Notices {
		fmt.Fprintf(os.Stderr, "bench: notice: %s\n", n)
	}
	if err := enterNetwork(); err != nil {
		return err
	}
	// A server that forks, and children that outlive theirs, must remain ours to wait for.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	if o.strace > 0 {
		report.Settings = fmt.Sprintf("system calls over %d connections, 2 in flight, child's own write included", o.strace)
		err = b.count(ctx, o, used, report)
	} else {
		report.Settings = fmt.Sprintf("%d rounds, %v a sample", o.rounds, o.sample)
		err = b.measure(ctx, o, used, report)
	}
	if err != nil {
		return err
	}
	if o.json != "" {
		if err := report.writeJSON(o.json); err != nil {
			return err
		}
	}
	return report.text(os.Stdout, func(name string) string {
		for _, sc := range scenarios {
			if sc.name == name {
				return sc.title
			}
		}
		return name
	})
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
				report.Notices = append(report.Notices, fmt.Sprintf("%s is left out: %v", s.name, err))
				continue
			}
			out, _ := exec.Command(path, "-V").Output()
			report.Programs[s.name] = strings.TrimPrefix(strings.TrimSpace(string(out)), s.name+" ")
			b.commands[s.name] = []string{path}
		default:
			command, version, err := peer(cache, s)
			if err != nil {
				report.Notices = append(report.Notices, fmt.Sprintf("%s is left out: %v", s.name, err))
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

// each calls f for every scenario and server, beginning with another server
// in every round, so that none is always measured in the same place.
func each(o options, used []*server, round int, f func(*server, scenario) error) error {
	for _, sc := range scenarios {
		if !listed(o.scenarios, sc.name) {
			continue
		}
		for i := range used {
			if s := used[(i+round)%len(used)]; s.runs(sc) {
				if err := f(s, sc); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// measure runs all rounds. A server that does not start, or dies, is left out
// of that round and named in a notice; the others go on.
func (b *bench) measure(ctx context.Context, o options, used []*server, report *Report) error {
	var samples []Sample
	var memory []Memory
	for round := range o.rounds {
		b.retries = 8 // in this round: the whole time must stay bounded on a busy machine
		fmt.Fprintf(os.Stderr, "bench: round %d of %d\n", round+1, o.rounds)
		err := each(o, used, round, func(s *server, sc scenario) error {
			got, m, err := b.one(ctx, s, sc, o.sample)
			if ctx.Err() != nil {
				return ctx.Err()
			}
			if err != nil {
				report.Notices = append(report.Notices, fmt.Sprintf("round %d: %v", round+1, err))
				fmt.Fprintf(os.Stderr, "bench: notice: %v\n", err)
				return nil
			}
			for i := range got {
				got[i].Round = round + 1
			}
			samples, memory = append(samples, got...), append(memory, m)
			return nil
		})
		if err != nil {
			return err
		}
	}
	inTableOrder(used, samples, func(s Sample) (string, string) { return s.Scenario, s.Server })
	inTableOrder(used, memory, func(m Memory) (string, string) { return m.Scenario, m.Server })
	report.Samples = samples
	report.Rows = sumUp(samples, func(name string) bool {
		return slices.ContainsFunc(servers, func(s *server) bool { return s.name == name && s.pkg != "" })
	})
	report.Memory = middleMemory(memory)
	return nil
}

// one starts a server, warms it up, takes a sample at each number in flight
// and ends it.
func (b *bench) one(ctx context.Context, s *server, sc scenario, d time.Duration) (samples []Sample, m Memory, err error) {
	r, err := b.start(ctx, s, sc)
	if err != nil {
		return nil, m, err
	}
	defer r.stop()
	m = Memory{Scenario: sc.name, Server: s.name}
	if m.Idle, err = pss(r.process.Pid); err != nil {
		return nil, m, fmt.Errorf("memory of %s: %w", s.name, err)
	}
	if _, err := r.load(ctx, 8, warmUp, 1<<30); err != nil {
		return nil, m, err
	}
	for _, inFlight := range sc.inFlight {
		got, err := r.sample(ctx, inFlight, d)
		if err != nil {
			return nil, m, err
		}
		samples = append(samples, got)
	}
	if m.Loaded, err = pss(r.process.Pid); err != nil {
		return nil, m, fmt.Errorf("memory of %s: %w", s.name, err)
	}
	return samples, m, nil
}

// count makes the system call tables.
func (b *bench) count(ctx context.Context, o options, used []*server, report *Report) error {
	return each(o, used, 0, func(s *server, sc scenario) error {
		if sc.child != "tiny" { // the loader's calls would be counted as the server's
			return nil
		}
		r, err := b.start(ctx, s, sc)
		if err != nil {
			return err
		}
		defer r.stop()
		if _, err := r.load(ctx, 2, time.Second, 20); err != nil {
			return err
		}
		calls, total, err := r.strace(ctx, o.strace)
		if err != nil {
			return fmt.Errorf("tracing %s: %w", s.name, err)
		}
		report.Syscalls = append(report.Syscalls, Syscalls{sc.name, s.name, total, calls})
		return nil
	})
}

// inTableOrder undoes the rotation of the rounds.
func inTableOrder[T any](used []*server, v []T, of func(T) (scenario, server string)) {
	place := func(x T) int {
		name, srv := of(x)
		return len(used)*slices.IndexFunc(scenarios, func(s scenario) bool { return s.name == name }) +
			slices.IndexFunc(used, func(s *server) bool { return s.name == srv })
	}
	slices.SortStableFunc(v, func(a, b T) int { return place(a) - place(b) })
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
