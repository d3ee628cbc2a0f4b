package main

import (
	"context"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// This file loads a running server and takes samples.

const (
	warmUp  = 100 * time.Millisecond
	endless = 1 << 60
)

// one starts a server, warms it up, takes a sample at each number in flight,
// measures what else the scenario has, and ends it.
func (b *bench) one(ctx context.Context, s *server, sc scenario, v variant, d time.Duration) (samples []Sample, figures []Figure, err error) {
	r, err := b.start(ctx, s, sc, v)
	if err != nil {
		return nil, nil, err
	}
	defer r.stop()
	figure := func(name, unit string, value float64) {
		figures = append(figures, Figure{Scenario: sc.name, Variant: v.name, Server: s.name, Name: name, Unit: unit, values: []float64{value}})
	}
	size := func(name string) error {
		if len(sc.variants) > 0 && sc.more == nil { // the rate is what such a scenario is about
			return nil
		}
		n, err := pss(r.process.Pid)
		if err != nil {
			return fmt.Errorf("memory of %s: %w", s.name, err)
		}
		figure(name, "KiB", float64(n))
		return nil
	}
	if err := size(idlePSS); err != nil {
		return nil, nil, err
	}
	if r.serves > 0 {
		figure(startAnswer, "ms", r.serves.Seconds()*1e3)
	}
	if r.ready > 0 {
		figure(startReady, "ms", r.ready.Seconds()*1e3)
	}
	if len(sc.inFlight) > 0 {
		if _, err := r.generate(ctx, min(8, sc.inFlight[len(sc.inFlight)-1]), warmUp, endless); err != nil {
			return nil, nil, err
		}
		for _, inFlight := range sc.inFlight {
			got, err := r.sample(ctx, inFlight, d)
			if err != nil {
				return nil, nil, err
			}
			samples = append(samples, got)
		}
		if err := size(loadedPSS); err != nil {
			return nil, nil, err
		}
	}
	if sc.more != nil {
		more, err := sc.more(ctx, r)
		if err != nil {
			return nil, nil, fmt.Errorf("%s of %s: %w", sc.name, s.name, err)
		}
		for _, f := range more {
			figure(f.Name, f.Unit, f.Median)
		}
	}
	return samples, figures, nil
}

// generate runs the load generator for d or count connections, bytes or datagrams.
func (r *running) generate(ctx context.Context, inFlight int, d time.Duration, count int) (Sample, error) {
	g := r.sc.load
	args := []string{addr, fmt.Sprint(r.task.port), fmt.Sprint(inFlight), fmt.Sprint(d.Seconds()), fmt.Sprint(count)}
	want := ""
	switch {
	case g.program == connections.program:
		args = append(args, fmt.Sprint(r.threads))
		if r.sc.child != "" {
			want = "ok\n"
		}
		if r.sc.work == mux {
			args, want = append(args, muxName), r.ack+want
		}
	case g.last != "":
		args = append(args, g.last)
	}
	c := exec.CommandContext(ctx, filepath.Join(r.bench.dir, g.program), args...)
	c.Stdin = strings.NewReader(want)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.Output()
	if err != nil {
		return Sample{}, fmt.Errorf("load generator: %w", err)
	}
	return parseLoad(string(out), g.scale)
}

// sample measures once, and again where others disturbed it; of disturbed
// tries only, the least disturbed one is kept, and marked.
func (r *running) sample(ctx context.Context, inFlight int, d time.Duration) (best Sample, err error) {
	for try := 1; ; try++ {
		s, err := r.try(ctx, inFlight, d)
		if err != nil {
			return s, err
		}
		s.Scenario, s.Variant, s.Server, s.InFlight = r.sc.name, r.task.variant.name, r.name, inFlight
		s.Disturbed = s.Others > disturbing
		if try == 1 || s.Others < best.Others {
			best = s
		}
		if !best.Disturbed || try >= r.perSample || r.retries == 0 || ctx.Err() != nil {
			return best, nil
		}
		r.retries--
		awaitQuiet(ctx, r.cpus)
	}
}

func (r *running) try(ctx context.Context, inFlight int, d time.Duration) (Sample, error) {
	return r.accounted(func() (Sample, error) { return r.generate(ctx, inFlight, d, endless) })
}

// accounted takes a sample, and says what CPU time the server and others had
// meanwhile.
func (r *running) accounted(take func() (Sample, error)) (Sample, error) {
	var busy, server, aside [2]time.Duration
	account := func(i int) (err error) {
		if busy[i], err = machineBusy(); err != nil {
			return err
		}
		if server[i], err = r.group.cpu(r.process.Pid); err != nil {
			return fmt.Errorf("%s has gone: %w", r.name, err)
		}
		for _, h := range r.helpers {
			cpu, err := r.aside.cpu(h.cmd.Process.Pid)
			if err != nil {
				return fmt.Errorf("a helper has gone: %w", err)
			}
			aside[i] = cpu
			if r.aside.path != "" { // then it is of all helpers
				break
			}
		}
		return nil
	}
	began := time.Now()
	if err := account(0); err != nil {
		return Sample{}, err
	}
	s, err := take()
	if err != nil {
		return s, err
	}
	if err := account(1); err != nil {
		return s, err
	}
	s.CPU = perUnit(server[1]-server[0], float64(s.Done)/r.sc.load.scale)
	others := (busy[1] - busy[0]) - (server[1] - server[0]) - (aside[1] - aside[0]) - s.loadCPU
	s.Others = max(0, others.Seconds()/time.Since(began).Seconds()/float64(r.cpus))
	return s, nil
}

// rest waits until the server has nothing more to do: no CPU time, to speak of,
// for a while.
func (r *running) rest(ctx context.Context) error {
	const (
		window = 50 * time.Millisecond
		little = 500 * time.Microsecond
	)
	quiet := 0
	last, err := r.group.cpu(r.process.Pid)
	for end := time.Now().Add(startTime); quiet < 2 && err == nil; {
		if time.Now().After(end) || ctx.Err() != nil {
			return fmt.Errorf("%s does not come to rest", r.name)
		}
		time.Sleep(window)
		var cpu time.Duration
		cpu, err = r.group.cpu(r.process.Pid)
		quiet++
		if cpu-last > little {
			quiet = 0
		}
		last = cpu
	}
	return err
}
