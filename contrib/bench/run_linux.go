package main

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// This file starts one server and the helpers it needs, and ends them.
// Everything is started from the main goroutine, whose thread is in the
// namespace of the bench.

const (
	startTime = 10 * time.Second
	stopTime  = 3 * time.Second
)

// A bench is what all samples share.
type bench struct {
	dir       string              // scratch
	commands  map[string][]string // how each server's program is started
	threads   int                 // of the load generator
	cpus      int
	retries   int           // disturbed samples that may still be repeated
	perSample int           // tries of one sample
	length    time.Duration // of a sample of an honest user under attack
	starts    int
}

// A running server is ended by stop.
type running struct {
	*bench
	*server
	sc      scenario
	task    task
	process *os.Process
	group   group     // of the server and its children
	helpers []*helper // of ours
	aside   group     // of these
	notify  *notify
	began   time.Time
	ready   time.Duration // from exec to READY=1; 0 if it does not say so
	serves  time.Duration // from exec to the first answer
}

// start returns when the server has answered as expected and the conditions of
// the variant hold.
func (b *bench) start(ctx context.Context, s *server, sc scenario, v variant) (r *running, err error) {
	b.starts++
	name := fmt.Sprintf("tcpmuxd-bench.%d.%d", os.Getpid(), b.starts)
	r = &running{bench: b, server: s, sc: sc, task: task{work: sc.work, variant: v, scenario: sc.name,
		dir: filepath.Join(b.dir, fmt.Sprint(b.starts)), scratch: b.dir, child: filepath.Join(b.dir, sc.child), port: sc.port(v)}}
	if err := os.Mkdir(r.task.dir, 0o755); err != nil {
		return nil, err
	}
	r.group, r.aside = newGroup(name), newGroup(name+".helpers")
	log, err := os.Create(filepath.Join(r.task.dir, "log"))
	if err == nil {
		defer log.Close()
		if err = r.exec(log); err == nil {
			err = r.settle(ctx)
		}
	}
	if err != nil {
		text, _ := os.ReadFile(filepath.Join(r.task.dir, "log"))
		r.stop()
		return nil, fmt.Errorf("starting %s for %s: %w\n%s", s.name, sc.name, err, text[:min(len(text), 2000)])
	}
	return r, nil
}

// exec starts what the load needs besides the server, and the server.
func (r *running) exec(log *os.File) error {
	if r.sc.work == forward {
		if _, err := r.help("builtin", addr, fmt.Sprint(targetPort), string(chargen)); err != nil {
			return err
		}
	}
	c, err := r.command()
	if err != nil {
		return err
	}
	c.Stdout, c.Stderr = log, log
	c.Env = append(c.Env, "PATH=/usr/sbin:/usr/bin:/sbin:/bin")
	if r.env != "" {
		c.Env = append(c.Env, r.env)
	}
	if r.name == oursName && r.task.rows > 0 {
		if r.notify, err = listenNotify(filepath.Join(r.task.dir, "notify")); err != nil {
			return err
		}
		c.Env = append(c.Env, "NOTIFY_SOCKET="+r.notify.path)
	}
	if r.task.descriptors > 0 {
		null, err := openAbove(os.DevNull, r.task.descriptors+8)
		if err != nil {
			return err
		}
		defer null.Close()
		c.ExtraFiles = slices.Repeat([]*os.File{null}, r.task.descriptors)
	}
	r.began = time.Now()
	if err := startIn(c, r.group); err != nil {
		return err
	}
	r.process = c.Process
	return nil
}

// command is how the server is started, its configuration written.
func (r *running) command() (*exec.Cmd, error) {
	base := r.commands[r.name]
	configure := r.server.command
	if r.sc.attack {
		configure = r.server.defend
	}
	argv, err := configure(base[len(base)-1], r.task)
	if err != nil {
		return nil, err
	}
	argv = append(base[:len(base)-1:len(base)-1], argv...)
	return exec.Command(argv[0], argv[1:]...), nil
}

// startIn starts a program that dies with this one, in a group.
func startIn(c *exec.Cmd, g group) error {
	c.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if g.path != "" {
		f, err := os.Open(g.path)
		if err != nil {
			return err
		}
		defer f.Close()
		c.SysProcAttr.UseCgroupFD, c.SysProcAttr.CgroupFD = true, int(f.Fd())
	}
	return c.Start()
}

// settle waits until the server works, and makes the conditions hold. It also
// finds the process that stays, where a server forks.
func (r *running) settle(ctx context.Context) error {
	if stays := r.sc.child == "stay"; stays || r.task.rows > 0 {
		if err := awaitAnswer(ctx, r.task.port, r.began.Add(startTime)); err != nil {
			return err
		}
		r.serves = time.Since(r.began)
		if stays { // load would wait for its end
			return nil
		}
	}
	if err := r.awaitReady(ctx); err != nil {
		return err
	}
	if r.notify != nil {
		at, err := r.notify.await(startTime)
		if err != nil {
			return err
		}
		r.ready = at.Sub(r.began)
	}
	if open, err := descriptors(r.process.Pid); err != nil || open < r.task.descriptors {
		return fmt.Errorf("it has %d descriptors open, not %d: %v", open, r.task.descriptors, err)
	}
	if r.task.pending > 0 {
		return r.hold(ctx, r.task.pending, 0, "")
	}
	return nil
}

func (r *running) awaitReady(ctx context.Context) error {
	var s Sample
	for end := time.Now().Add(startTime); time.Now().Before(end) && ctx.Err() == nil; time.Sleep(5 * time.Millisecond) {
		if r.forks {
			text, _ := os.ReadFile(filepath.Join(r.task.dir, "pid"))
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
		if s, err = r.generate(ctx, 1, time.Second, r.sc.load.first); err != nil || s.Done > 0 && s.Wrong == 0 {
			return err
		}
	}
	return fmt.Errorf("no right answer within %v (the last try: %d wrong, %d failed)", startTime, s.Wrong, s.Failed)
}

// stop ends the server, first gently, and what it leaves behind.
func (r *running) stop() {
	for _, h := range r.helpers {
		h.stop()
	}
	if r.process != nil {
		r.process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(stopTime, func() { r.process.Kill() })
		r.process.Wait()
		kill.Stop()
	}
	if r.notify != nil {
		r.notify.close()
	}
	for _, g := range []group{r.group, r.aside} {
		if err := g.remove(); err != nil {
			fmt.Fprintf(os.Stderr, "bench: removing the control group of %s: %v\n", r.name, err)
		}
	}
	// What the server had started is ours now; nothing else of ours runs at this point.
	for pid := 1; pid > 0; {
		pid, _ = syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
	}
	os.RemoveAll(r.task.dir)
}

// A helper is a program of c/ that runs beside the load until its standard
// input ends or it is killed.
type helper struct {
	cmd   *exec.Cmd
	stdin io.WriteCloser
	out   *bufio.Reader
}

func (r *running) help(program string, args ...string) (*helper, error) {
	h := &helper{cmd: exec.Command(filepath.Join(r.bench.dir, program), args...)}
	stdin, err := h.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := h.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	h.stdin, h.out = stdin, bufio.NewReader(out)
	h.cmd.Stderr = os.Stderr
	if err := startIn(h.cmd, r.aside); err != nil {
		return nil, err
	}
	r.helpers = append(r.helpers, h)
	return h, nil
}

func (h *helper) stop() {
	h.stdin.Close()
	h.cmd.Process.Kill()
	h.cmd.Wait()
}

// hold opens connections that stay until stop: each sends text and waits for
// answer bytes. All of them have to succeed.
func (r *running) hold(ctx context.Context, count, answer int, text string) error {
	args := []string{addr, fmt.Sprint(r.task.port), fmt.Sprint(count), fmt.Sprint(answer)}
	if text != "" {
		args = append(args, text)
	}
	h, err := r.help("hold", args...)
	if err != nil {
		return err
	}
	stop := context.AfterFunc(ctx, func() { h.cmd.Process.Kill() })
	defer stop()
	line, err := h.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("holding %d connections: %w", count, err)
	}
	if got := strings.TrimSpace(line); got != fmt.Sprint(count) {
		return fmt.Errorf("of %d connections %s are held", count, got)
	}
	// Without an answer nothing else says that the server has accepted them.
	return r.rest(ctx)
}
