// Package main_test runs the programs as they are built: tcpmuxd as a process
// with a table, its sockets, its children and its log, tcpmux and tcpmuxctl
// beside it. Nothing of the daemon's own code runs in the test process, and no
// package is looked into: what is tested is what an administrator sees.
//
// This file builds the programs, and starts and ends daemons. After every daemon
// it looks for what must not be left: descriptors, instances, children, and
// words on stderr that are no log lines, a report of the race detector among them.
package main_test

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// bound is how long anything a test waits for may take. It is generous: it only
// ends what would never end.
const bound = 30 * time.Second

// The programs, by path.
var programs struct {
	tcpmuxd string // as it is shipped: static, without the race detector
	checked string // tcpmuxd with the race detector where the tests have it
	tcpmux  string
	ctl     string
}

func TestMain(m *testing.M) {
	switch {
	case os.Getenv(conditionEnv) != "":
		becomeUnder(os.Getenv(conditionEnv))
	case os.Getenv(stopperEnv) != "":
		becomeStopper()
	}
	os.Exit(testMain(m))
}

func testMain(m *testing.M) int {
	// Children that outlive their daemon come to this process, which can then
	// tell them from strangers, end them, and see that none is forgotten.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		fmt.Fprintln(os.Stderr, "becoming the reaper of orphans:", err)
		return 1
	}
	dir, err := os.MkdirTemp("", "tcpmuxd-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	if err := build(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	code := m.Run()
	for _, left := range orphans(5 * time.Second) {
		fmt.Fprintln(os.Stderr, "left behind by the tests:", left)
		code = 1
	}
	return code
}

// build builds the programs into dir, which everybody can read: they are run as
// nobody, too.
func build(dir string) error {
	if err := os.Chmod(dir, 0o755); err != nil {
		return err
	}
	run := func(cgo string, args ...string) error {
		cmd := exec.Command("go", append([]string{"build"}, args...)...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED="+cgo)
		if out, err := cmd.CombinedOutput(); err != nil {
			return fmt.Errorf("go build %s: %v\n%s", strings.Join(args, " "), err, out)
		}
		return nil
	}
	programs.tcpmuxd = filepath.Join(dir, "tcpmuxd")
	programs.checked = programs.tcpmuxd
	programs.tcpmux = filepath.Join(dir, "tcpmux")
	programs.ctl = filepath.Join(dir, "tcpmuxctl")
	if err := run("0", "-o", dir, "../tcpmuxd", "../tcpmux", "../tcpmuxctl"); err != nil {
		return err
	}
	if raced {
		programs.checked = filepath.Join(dir, "tcpmuxd.race")
		return run("1", "-race", "-o", programs.checked, ".")
	}
	return nil
}

// orphans reaps all children of this process. Those that still live after
// patience are ended, and described.
func orphans(patience time.Duration) (left []string) {
	deadline := time.Now().Add(patience)
	for {
		pid, err := syscall.Wait4(-1, nil, syscall.WNOHANG, nil)
		switch {
		case errors.Is(err, syscall.EINTR) || pid > 0:
		case err != nil: // ECHILD: there are none
			return left
		case time.Now().After(deadline):
			for _, child := range children(os.Getpid()) {
				name, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", child))
				left = append(left, fmt.Sprintf("process %d %q", child, name))
				syscall.Kill(child, syscall.SIGKILL)
			}
			deadline = time.Now().Add(time.Second)
		default:
			time.Sleep(5 * time.Millisecond)
		}
	}
}

// children lists the children of a process.
func children(of int) (pids []int) {
	stats, _ := filepath.Glob("/proc/[0-9]*/stat")
	for _, name := range stats {
		text, _ := os.ReadFile(name)
		pid, parent := 0, 0
		_, after, _ := bytes.Cut(text, []byte(") "))
		fmt.Sscan(string(text), &pid)
		fmt.Sscanf(string(after), "%s %d", new(string), &parent)
		if parent == of {
			pids = append(pids, pid)
		}
	}
	return pids
}

// A daemon is one tcpmuxd under test.
type daemon struct {
	testing.TB
	path string // of its table
	pid  int
	log  *logReader

	cmd     *exec.Cmd
	idle    int // descriptors, listeners aside, when it serves nobody
	exited  chan struct{}
	stopped bool
	how     *how
}

// how says in what way a daemon is started.
type how struct {
	args    []string            // besides -c
	env     []string            // the whole environment of the daemon
	cred    *syscall.Credential // who it is; nil: the tests' own identity
	under   *condition          // what it inherits
	wrap    []string            // a command that executes the daemon in the end
	clone   uintptr             // namespaces of its own, CLONE_NEWPID for example
	files   []*os.File          // descriptors from 3 on; they are closed after the start
	stderr  *os.File            // in place of the log; it is closed after the start
	shipped bool                // the shipped program also where there is one with the race detector
	leaves  bool                // instances may be left when it ends
	words   bool                // its stderr may have lines that are not JSON
}

// serve starts a daemon with a table and waits until it serves. When the test
// ends the daemon is stopped, and is looked after.
func serve(t testing.TB, table string) *daemon { return serveAs(t, table, &how{}) }

// jsonLog is the head of a table whose log the tests can read.
const jsonLog = "[server]\nlog_format = \"json\"\n"

func serveAs(t testing.TB, table string, h *how) *daemon {
	t.Helper()
	d := launch(t, table, h)
	if h.stderr == nil && !h.words {
		d.waitFor("serving")
		d.idle = d.settled()
	}
	return d
}

// launchOn launches the daemon on a file of whatever kind. waitFor waits until its
// log has something.
func launchOn(t testing.TB, conf string) (d *daemon, waitFor func(what string)) {
	t.Helper()
	path := filepath.Join(tempDir(t), "log")
	file, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	d = launch(t, "", &how{args: []string{"-c", conf}, stderr: file})
	return d, func(what string) {
		t.Helper()
		var text []byte
		if !poll(bound, func() bool {
			text, _ = os.ReadFile(path)
			return strings.Contains(string(text), what)
		}) {
			t.Fatalf("no %q in the log:\n%s", what, text)
		}
	}
}

// launch starts a daemon and waits for nothing.
func launch(t testing.TB, table string, h *how) *daemon {
	t.Helper()
	needRoot(t)
	d := &daemon{TB: t, path: filepath.Join(tempDir(t), "tcpmuxd.toml"), exited: make(chan struct{}), how: h}
	d.write(table)
	program := programs.checked
	if h.shipped {
		program = programs.tcpmuxd
	}
	argv := append(slices.Clone(h.wrap), program, "-c", d.path)
	argv = append(argv, h.args...)
	// Of the environment nothing may reach a child.
	env := append([]string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "SECRET=of the daemon"}, h.env...)
	if raced {
		env = append(env, "GORACE=atexit_sleep_ms=0 exitcode=66")
	}
	if h.under != nil {
		argv, env = h.under.command(t, argv, env)
	}
	d.cmd = exec.Command(argv[0], argv[1:]...)
	d.cmd.Env = env
	d.cmd.Dir = "/"
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Credential: h.cred, Cloneflags: h.clone}
	d.cmd.ExtraFiles = h.files
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	d.cmd.Stderr = w
	if h.stderr != nil {
		w.Close()
		w = h.stderr
		d.cmd.Stderr = w
	}
	err = d.cmd.Start()
	w.Close()
	for _, f := range h.files {
		f.Close()
	}
	if err != nil {
		r.Close()
		t.Fatal(err)
	}
	d.pid = d.cmd.Process.Pid
	d.log = readLog(r)
	go func() {
		d.cmd.Wait()
		close(d.exited)
	}()
	t.Cleanup(d.cleanup)
	return d
}

// write replaces the table on disk as an editor does, by a rename.
func (d *daemon) write(table string) {
	d.Helper()
	tmp := d.path + ".new"
	if err := os.WriteFile(tmp, []byte(table), 0o644); err != nil {
		d.Fatal(err)
	}
	if err := os.Rename(tmp, d.path); err != nil {
		d.Fatal(err)
	}
}

// reload puts a table in place and waits until it runs.
func (d *daemon) reload(table string) {
	d.Helper()
	d.write(table)
	n := len(d.events("reloaded"))
	d.signal(syscall.SIGHUP)
	d.waitForN(n+1, "reloaded")
}

func (d *daemon) signal(sig syscall.Signal) {
	d.Helper()
	if err := d.cmd.Process.Signal(sig); err != nil {
		d.Fatalf("signal %v: %v", sig, err)
	}
}

// stop ends the daemon by SIGTERM and returns its exit code.
func (d *daemon) stop() int {
	d.Helper()
	d.signal(syscall.SIGTERM)
	return d.wait()
}

// wait waits for the end of the daemon and returns its exit code.
func (d *daemon) wait() int {
	d.Helper()
	d.stopped = true
	select {
	case <-d.exited:
	case <-time.After(bound):
		// SIGABRT makes a Go program print its goroutines.
		d.cmd.Process.Signal(syscall.SIGABRT)
		select {
		case <-d.exited:
		case <-time.After(5 * time.Second):
			d.cmd.Process.Kill()
			<-d.exited
		}
		d.Errorf("the daemon does not end\n%s", d.log.tail(100))
	}
	d.log.drain()
	return d.cmd.ProcessState.ExitCode()
}

// cleanup stops a daemon that still runs, and says what is left of it.
func (d *daemon) cleanup() {
	if d.Failed() {
		d.Logf("the log:\n%s", d.log.tail(60))
	}
	if !d.stopped {
		if d.idle > 0 {
			d.checkIdle()
		}
		if code := d.stop(); code != 0 {
			d.Errorf("exit code %d\n%s", code, d.log.tail(40))
		}
	}
	for _, pid := range d.running() {
		if !d.how.leaves {
			d.Errorf("instance %d is left", pid)
		}
		reap(pid)
	}
	if words := d.log.words(); len(words) > 0 && !d.how.words {
		d.Errorf("on stderr, and no log line:\n%s", strings.Join(words, "\n"))
	}
}

// checkIdle waits until all instances have ended, and compares the descriptors
// with those from before the first one.
func (d *daemon) checkIdle() {
	d.Helper()
	var now, open int
	if !poll(10*time.Second, func() bool {
		open, now = len(d.running()), d.descriptors()
		return open == 0 && now <= d.idle // fewer: it was opening something when they were counted
	}) {
		d.Errorf("%d instances run and %d descriptors are open after the test; want none and %d\n%s",
			open, now, d.idle, strings.Join(d.files(), "\n"))
	}
}

// running lists the instances that have started and not ended, by the log.
func (d *daemon) running() []int {
	pids := map[int]bool{}
	for _, e := range d.log.all() {
		switch e["msg"] {
		case "start":
			pids[e.number("pid")] = true
		case "end":
			delete(pids, e.number("pid"))
		}
	}
	return slices.Sorted(maps.Keys(pids))
}

// reap ends a process that was left to this one. One that is no child of ours
// is nobody we know.
func reap(pid int) {
	if pid > 0 && poll(bound, func() bool { return slices.Contains(children(os.Getpid()), pid) }) {
		syscall.Kill(pid, syscall.SIGKILL)
		syscall.Wait4(pid, nil, 0, nil)
	}
}

// files describes the open descriptors of the daemon.
func (d *daemon) files() (list []string) {
	dir := fmt.Sprintf("/proc/%d/fd", d.pid)
	entries, _ := os.ReadDir(dir)
	for _, e := range entries {
		target, _ := os.Readlink(filepath.Join(dir, e.Name()))
		list = append(list, e.Name()+" "+target)
	}
	return list
}

// descriptors counts the open descriptors of the daemon but for its listeners, of
// which a reload can make more or fewer, and the two that a row has from its first
// child on for what its children write to the log.
func (d *daemon) descriptors() int {
	rows := map[string]bool{}
	for _, e := range d.events("start") {
		rows[e.text("service")] = true
	}
	return len(d.files()) - d.listening() - 2*len(rows)
}

// listening counts the listeners, by the log. One that a reload gives to another
// row stands there twice.
func (d *daemon) listening() int {
	open := map[string]bool{}
	for _, e := range d.log.all() {
		switch e["msg"] {
		case "listen":
			open[e.text("local")] = true
		case "close":
			delete(open, e.text("local"))
		}
	}
	return len(open)
}

// sockets lists the sockets that the daemon has open, by their inodes.
func (d *daemon) sockets() (list []string) {
	for _, f := range d.files() {
		if _, target, _ := strings.Cut(f, " "); strings.HasPrefix(target, "socket:") {
			list = append(list, target)
		}
	}
	slices.Sort(list)
	return list
}

// settled waits until the daemon has opened what it opens once, and counts. The
// last of it comes after "serving": the watch on the account files, which is
// complete when there is something in it, and the watch on addresses.
func (d *daemon) settled() int {
	d.Helper()
	if !poll(bound, func() bool {
		watched := false
		for _, f := range d.files() {
			if fd, target, _ := strings.Cut(f, " "); target == "anon_inode:inotify" {
				info, _ := os.ReadFile(fmt.Sprintf("/proc/%d/fdinfo/%s", d.pid, fd))
				watched = bytes.Contains(info, []byte("inotify wd:"))
			}
		}
		return watched && d.hasNetlink()
	}) {
		d.Fatalf("the daemon does not come to rest:\n%s", strings.Join(d.files(), "\n"))
	}
	return d.descriptors()
}

// hasNetlink says whether one of the daemon's sockets is of netlink(7).
func (d *daemon) hasNetlink() bool {
	text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/net/netlink", d.pid))
	sockets := d.sockets()
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) > 0 && slices.Contains(sockets, "socket:["+f[len(f)-1]+"]") {
			return true
		}
	}
	return false
}

// poll asks until the answer is yes, or the time is up.
func poll(most time.Duration, ok func() bool) bool {
	deadline := time.Now().Add(most)
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if ok() {
			return true
		}
		if time.Now().After(deadline) {
			return false
		}
		time.Sleep(wait)
	}
}

// needRoot fails: a test that was not run must not look like one that passed.
func needRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Fatal("the tests of the built daemon change users, mounts and networks: run them as root")
	}
}

// tempDir is a directory for the test that other users can read.
func tempDir(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	for _, d := range []string{filepath.Dir(dir), dir} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}
