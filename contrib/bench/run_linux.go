package main

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file starts one server, loads it, and ends it. Everything is started
// from the main goroutine, whose thread is in the namespace of the bench.

const (
	disturbing = 0.12 // share of the machine's time others may take in a sample
	startTime  = 5 * time.Second
	stopTime   = 3 * time.Second
)

// A bench is what all samples share.
type bench struct {
	dir       string              // scratch
	commands  map[string][]string // how each server's program is started
	threads   int                 // of the load generator
	cpus      int
	retries   int // disturbed samples that may still be repeated
	perSample int // tries of one sample
	starts    int
}

// A running server is ended by stop.
type running struct {
	*bench
	*server
	sc      scenario
	dir     string
	process *os.Process
	group   group
}

// start returns when the server has answered one connection as expected.
func (b *bench) start(ctx context.Context, s *server, sc scenario) (r *running, err error) {
	b.starts++
	r = &running{bench: b, server: s, sc: sc, dir: filepath.Join(b.dir, fmt.Sprintf("%s.%d", s.name, b.starts))}
	if err := os.Mkdir(r.dir, 0o755); err != nil {
		return nil, err
	}
	base := b.commands[s.name]
	argv, err := s.command(base[len(base)-1], r.dir, filepath.Join(b.dir, sc.child), sc)
	if err != nil {
		return nil, err
	}
	argv = append(base[:len(base)-1:len(base)-1], argv...)
	log, err := os.Create(filepath.Join(r.dir, "log"))
	if err != nil {
		return nil, err
	}
	defer log.Close()
	c := exec.Command(argv[0], argv[1:]...)
	c.Stdout, c.Stderr = log, log
	c.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin"}
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	r.group = newGroup(fmt.Sprintf("tcpmuxd-bench.%d.%d", os.Getpid(), b.starts))
	if r.group.path != "" {
		g, err := os.Open(r.group.path)
		if err != nil {
			return nil, err
		}
		defer g.Close()
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(g.Fd())
	}
	err = c.Start()
	if err == nil {
		r.process = c.Process
		err = r.awaitReady(ctx)
	}
	if err != nil {
		text, _ := os.ReadFile(log.Name())
		r.stop()
		return nil, fmt.Errorf("starting %s for %s: %w\n%s", s.name, sc.name, err, text[:min(len(text), 2000)])
	}
	return r, nil
}

// awaitReady also finds the process that stays, where a server forks.
func (r *running) awaitReady(ctx context.Context) error {
	var s Sample
	for end := time.Now().Add(startTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if r.forks {
			text, _ := os.ReadFile(filepath.Join(r.dir, "pid"))
			pid, err := strconv.Atoi(strings.TrimSpace(string(text)))
			if err != nil {
				continue
			}
			if pid != r.process.Pid {
				r.process.Wait()
				if r.process, err = os.FindProcess(pid); err != nil {
					return err
				}
			}
		}
		var err error
		if s, err = r.load(ctx, 1, time.Second, 1); err != nil || s.Conns == 1 {
			return err
		}
	}
	return fmt.Errorf("no right answer within %v (the last try: %d wrong, %d failed)", startTime, s.Wrong, s.Failed)
}

// stop ends the server, first gently, and what it leaves behind.
func (r *running) stop() {
	if r.process != nil {
		r.process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(stopTime, func() { r.process.Kill() })
		r.process.Wait()
		kill.Stop()
	}
	if err := r.group.remove(); err != nil {
		fmt.Fprintf(os.Stderr, "bench: removing the control group of %s: %v\n", r.name, err)
	}
	// What the server had started is ours now; nothing else of ours runs at this point.
	for pid := 1; pid > 0; {
		pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	}
	os.RemoveAll(r.dir)
}

// load runs the generator for d or count connections.
func (r *running) load(ctx context.Context, inFlight int, d time.Duration, count int) (Sample, error) {
	args := []string{addr, fmt.Sprint(r.sc.port()), fmt.Sprint(inFlight), fmt.Sprint(d.Seconds()), fmt.Sprint(count), fmt.Sprint(r.threads)}
	want := "ok\n"
	if r.sc.mux {
		args, want = append(args, muxName), r.ack+want
	}
	c := exec.CommandContext(ctx, filepath.Join(r.bench.dir, "load"), args...)
	c.Stdin = strings.NewReader(want)
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	out, err := c.Output()
	if err != nil {
		return Sample{}, fmt.Errorf("load generator: %w", err)
	}
	return parseLoad(string(out))
}

// sample measures once, and again where others disturbed it; of disturbed
// tries only, the least disturbed one is kept, and marked.
func (r *running) sample(ctx context.Context, inFlight int, d time.Duration) (best Sample, err error) {
	for try := 1; ; try++ {
		s, err := r.try(ctx, inFlight, d)
		if err != nil {
			return s, err
		}
		s.Scenario, s.Server, s.InFlight, s.Disturbed = r.sc.name, r.name, inFlight, s.Others > disturbing
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
	began := time.Now()
	busy, err := machineBusy()
	if err != nil {
		return Sample{}, err
	}
	cpu, err := r.group.cpu(r.process.Pid)
	if err != nil {
		return Sample{}, fmt.Errorf("%s has gone: %w", r.name, err)
	}
	s, err := r.load(ctx, inFlight, d, 1<<30)
	if err != nil {
		return s, err
	}
	busy2, err := machineBusy()
	if err != nil {
		return s, err
	}
	cpu2, err := r.group.cpu(r.process.Pid)
	if err != nil {
		return s, fmt.Errorf("%s has gone: %w", r.name, err)
	}
	s.CPU = perConn(cpu2-cpu, s.Conns)
	others := (busy2 - busy) - (cpu2 - cpu) - s.loadCPU
	s.Others = max(0, others.Seconds()/time.Since(began).Seconds()/float64(r.cpus))
	return s, nil
}

// strace counts the system calls of the server and of its children up to and
// including the child's own: tiny's one write.
func (r *running) strace(ctx context.Context, conns int) ([]Call, float64, error) {
	table, said := filepath.Join(r.dir, "strace"), filepath.Join(r.dir, "strace.log")
	log, err := os.Create(said)
	if err != nil {
		return nil, 0, err
	}
	defer log.Close()
	c := exec.Command("strace", "-f", "-c", "-o", table, "-p", fmt.Sprint(r.process.Pid))
	c.Stderr = log
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := c.Start(); err != nil {
		return nil, 0, err
	}
	for end := time.Now().Add(startTime); ; time.Sleep(5 * time.Millisecond) {
		if text, _ := os.ReadFile(said); strings.Contains(string(text), "attached") {
			break
		}
		if time.Now().After(end) {
			c.Process.Kill()
			c.Wait()
			text, _ := os.ReadFile(said)
			return nil, 0, fmt.Errorf("strace did not attach: %s", text)
		}
	}
	s, err := r.load(ctx, 2, 20*time.Second, conns)
	c.Process.Signal(os.Interrupt) // detaches, then prints its table
	c.Wait()
	if err != nil {
		return nil, 0, err
	}
	f, err := os.Open(table)
	if err != nil {
		return nil, 0, err
	}
	defer f.Close()
	return parseStrace(f, s.Conns)
}
