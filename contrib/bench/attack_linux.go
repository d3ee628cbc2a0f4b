package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// This file attacks a running server while an honest user asks it.
// attacks_linux.go is the table of what is done, and how servers are set up for it.

const (
	honestSource = "127.0.0.2"
	honestRate   = 80.0 // a second
	attackRate   = 5000.0
	pairs        = 3 // samples of peace, and as many of war, by turns; in a siege one less

	// Attackers share the machine with the server, which those from outside would
	// not: they give way.
	attackerNice = 10
	attackLead   = 300 * time.Millisecond // before the honest user begins to ask

	siegeSource = "127.1.0.1" // and those after it
	siegeCount  = 9000
	siegeTime   = 10 * time.Second // to open them
	siegeAgain  = 1000             // a second of those that have ended
	dripEvery   = 5 * time.Second
	settleTime  = time.Second
)

// An asking is one run of c/ask.c.
type asking struct {
	source  string
	sources int
	rate    float64
	d       time.Duration
	count   int // at most
	most    int // in flight
	request string
	want    string // the right answer; "" where none is
}

func (a asking) args(port int) []string {
	args := []string{addr, fmt.Sprint(port), a.source, fmt.Sprint(a.sources), fmt.Sprint(a.rate), fmt.Sprint(a.d.Seconds()),
		fmt.Sprint(a.count), fmt.Sprint(a.most)}
	if a.request != "" {
		args = append(args, a.request)
	}
	return args
}

// honest is a user who asks at a moderate rate, whatever happens to him. A
// disturbed sample is repeated, as sample does.
func (r *running) honest(ctx context.Context, during func() error) (best Sample, err error) {
	a := asking{source: honestSource, sources: 1, rate: honestRate, d: r.length, count: 1 << 20, most: 4096, want: "ok\n"}
	if r.sc.work == mux {
		a.request, a.want = muxName, r.ack+a.want
	}
	for try := 1; ; try++ {
		if err := during(); err != nil {
			return best, err
		}
		s, err := r.accounted(func() (Sample, error) {
			c := exec.CommandContext(ctx, filepath.Join(r.bench.dir, "ask"), a.args(r.task.port)...)
			c.Stdin = strings.NewReader(a.want)
			c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
			out, err := c.Output()
			if err != nil {
				return Sample{}, fmt.Errorf("the honest user: %w", err)
			}
			return parseLoad(string(out), 1)
		})
		if err != nil {
			return s, err
		}
		if try == 1 || s.Others < best.Others {
			best = s
		}
		if best.Others <= disturbing || try >= r.perSample || r.retries == 0 || ctx.Err() != nil {
			return best, nil
		}
		r.retries--
		awaitQuiet(ctx, r.cpus)
	}
}

// aggressor starts a program of c/ that gives way to the server.
func (r *running) aggressor(program string, args ...string) (*helper, error) {
	h, err := r.help(program, args...)
	if err != nil {
		return nil, err
	}
	return h, unix.Setpriority(unix.PRIO_PROCESS, h.cmd.Process.Pid, attackerNice)
}

// A flood is an attack by connections that end; each begins anew, from a source
// that has not attacked before.
type flood struct {
	asking
	began                   int
	tried, served, answered []float64 // connections in a second, those that were served, those that got any answer
	most                    float64   // answers that one attack got
}

// wage attacks once, and has the honest user ask meanwhile.
func (f *flood) wage(ctx context.Context, r *running) (Sample, error) {
	var h *helper
	finish := func() error {
		if h == nil {
			return nil
		}
		line, err := h.out.ReadString('\n')
		if err != nil {
			return fmt.Errorf("the attacker: %w", err)
		}
		h = nil
		s, err := parseLoad(line, 1)
		if err != nil {
			return err
		}
		d := f.d.Seconds()
		f.tried = append(f.tried, float64(s.Done+s.Wrong+s.Failed)/d)
		f.served, f.answered = append(f.served, float64(s.Done)/d), append(f.answered, float64(s.Done+s.Wrong)/d)
		f.most = max(f.most, float64(s.Done+s.Wrong))
		return nil
	}
	s, err := r.honest(ctx, func() (err error) {
		if err := finish(); err != nil {
			return err
		}
		f.began++
		a := f.asking
		a.source, a.d = fmt.Sprintf("127.2.0.%d", f.began), attackLead+r.length
		f.d = a.d
		if h, err = r.aggressor("ask", a.args(r.task.port)...); err != nil {
			return err
		}
		if a.request == muxName {
			a.want = r.ack + a.want
		}
		if _, err := io.WriteString(h.stdin, a.want); err != nil {
			return err
		}
		if err := h.stdin.Close(); err != nil { // it begins when it has read what to expect
			return err
		}
		time.Sleep(attackLead)
		return nil
	})
	if err != nil {
		return s, err
	}
	return s, finish()
}

// flooded measures the honest user without and with a flood.
func flooded(f flood) func(context.Context, *running) ([]Figure, error) {
	return func(ctx context.Context, r *running) ([]Figure, error) {
		f := f
		var peace, war []Sample
		for range pairs {
			s, err := r.honest(ctx, func() error { return nil })
			if err != nil {
				return nil, err
			}
			peace = append(peace, s)
			if s, err = f.wage(ctx, r); err != nil {
				return nil, err
			}
			war = append(war, s)
		}
		figures := comparison(peace, war)
		return append(figures, single("attacks", "/s", spread(f.tried).Median), single("answered", "/s", spread(f.answered).Median),
			single("served", "/s", spread(f.served).Median), single(mostShownName, "", f.most)), nil
	}
}

// besieged measures the honest user, the rate of spawns and memory without and
// with many connections that do not say what they want.
func besieged(ctx context.Context, r *running) ([]Figure, error) {
	v := r.task.variant
	var peace, war []Sample
	var rates [2][]float64
	times := 1 // for those that have a process for each connection it takes long enough
	if r.name == oursName {
		times = pairs - 1
	}
	measure := func(i int, into *[]Sample) error {
		for range times {
			s, err := r.honest(ctx, func() error { return nil })
			if err != nil {
				return err
			}
			*into = append(*into, s)
			if s, err = r.sample(ctx, 8, r.length/3); err != nil {
				return err
			}
			rates[i] = append(rates[i], s.Rate)
		}
		return nil
	}
	if err := measure(0, &peace); err != nil {
		return nil, err
	}
	before, err := r.memory()
	if err != nil {
		return nil, err
	}
	h, err := r.aggressor("siege", addr, fmt.Sprint(r.task.port), siegeSource, fmt.Sprint(v.sources), fmt.Sprint(siegeCount),
		fmt.Sprint(siegeTime.Seconds()), fmt.Sprint(dripEvery.Milliseconds()), fmt.Sprint(siegeAgain))
	if err != nil {
		return nil, err
	}
	if _, err := h.out.ReadString('\n'); err != nil {
		return nil, fmt.Errorf("the siege: %w", err)
	}
	if v.drips {
		if _, err := io.WriteString(h.stdin, "d\n"); err != nil {
			return nil, err
		}
	}
	time.Sleep(settleTime)
	if err := measure(1, &war); err != nil {
		return nil, err
	}
	after, err := r.memory()
	if err != nil {
		return nil, err
	}
	held, err := h.held()
	if err != nil {
		return nil, err
	}
	figures := comparison(peace, war)
	calm, busy := spread(rates[0]).Median, spread(rates[1]).Median
	return append(figures, single("conn/s in peace", "", calm), single("conn/s", "", busy), single(spawnsName, "", quotient(busy, calm)),
		single("held", "", float64(held)), single(perPendingName, "B", quotient(float64(after-before)*1024, float64(held)))), nil
}

// held asks a siege how many of its connections are open.
func (h *helper) held() (n int, err error) {
	if _, err := io.WriteString(h.stdin, "s\n"); err != nil {
		return 0, err
	}
	line, err := h.out.ReadString('\n')
	if err == nil {
		_, err = fmt.Sscan(line, &n)
	}
	if err != nil {
		return 0, fmt.Errorf("the siege said %q: %w", line, err)
	}
	return n, nil
}

// memory is the PSS in KiB of the server and its children, without control
// groups of its own process.
func (r *running) memory() (sum int64, err error) {
	procs, err := os.ReadFile(filepath.Join(r.group.path, "cgroup.procs"))
	if r.group.path == "" || err != nil {
		return pss(r.process.Pid)
	}
	for word := range strings.FieldsSeq(string(procs)) {
		var pid int
		fmt.Sscan(word, &pid)
		if n, err := pss(pid); err == nil { // it may have ended
			sum += n
		}
	}
	return sum, nil
}

const (
	refusalRounds = 7
	refusalAsks   = 10000 // in each of them
)

// refusals measures how far apart the medians of the kinds of refusals are, and
// those of one kind that is measured twice.
func refusals(ctx context.Context, r *running) ([]Figure, error) {
	names := append(refusedNames[:len(refusedNames):len(refusedNames)], refusedNames...)
	args := append([]string{addr, fmt.Sprint(r.task.port), "127.3.0.1", "4096", fmt.Sprint(refusalAsks / len(names))}, names...)
	var all [][]float64
	for range refusalRounds {
		c := exec.CommandContext(ctx, filepath.Join(r.bench.dir, "refusals"), args...)
		c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		out, err := c.Output()
		if err != nil {
			if e, ok := err.(*exec.ExitError); ok {
				return nil, fmt.Errorf("%s", strings.TrimSpace(string(e.Stderr)))
			}
			return nil, err
		}
		medians, err := parseMedians(string(out), len(names))
		if err != nil {
			return nil, err
		}
		all = append(all, medians)
	}
	return refusalFigures(refusedNames, all), nil
}
