// The window between a child's setuid and its program, in which the user of its
// row can stop it, and the thread of the daemon that makes it.

package main_test

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// stopperEnv makes the test binary stop whatever its user may stop.
const stopperEnv = "TCPMUXD_TEST_STOPPER"

// hostile is a user that nothing else on this machine belongs to.
const hostile = 31999

// becomeStopper guesses the next process ids and stops them, as long as the test
// runs. All that it can hit are processes of its own user.
func becomeStopper() {
	// Here, because the test binary is root's alone to execute.
	if syscall.Setgroups(nil) != nil || syscall.Setresgid(hostile, hostile, hostile) != nil || syscall.Setresuid(hostile, hostile, hostile) != nil {
		os.Exit(1)
	}
	f, err := os.Open("/proc/loadavg")
	if err != nil {
		os.Exit(1)
	}
	b := make([]byte, 128)
	for parent := os.Getppid(); os.Getppid() == parent; {
		n, _ := f.ReadAt(b, 0)
		last, _ := strconv.Atoi(string(bytes.TrimSpace(b[bytes.LastIndexByte(b[:n], ' ')+1 : n])))
		for pid := last; pid < last+4; pid++ {
			// kill(2) takes the number of a thread, ours too, for its process.
			if pid > 1 && unix.Tgkill(os.Getpid(), pid, 0) != nil {
				syscall.Kill(pid, syscall.SIGSTOP)
			}
		}
	}
	os.Exit(0)
}

// A user who stops every child it can find has its own row refused for a while;
// other rows are served as ever, and its own is when it has stopped that.
func TestStoppedChildrenConcernTheirRowOnly(t *testing.T) {
	mux, theirs := local(t), local(t)
	// To enter it takes a while, in which the child is its user's already.
	long := strings.Repeat("/usr/..", 500) + "/usr"
	d := serveAs(t, fmt.Sprintf(jsonLog+`
[defaults]
exec = ["/bin/echo", "ok"]
user = "nobody"
groups = []
[service.tcpmux]
builtin = "tcpmux"
listen = [%q]
[service."tcpmux/+other"]
[service.theirs]
user = "%d"
group = "%d"
listen = [%q]
cwd = %q
`, mux, hostile, hostile, theirs, long), &how{shipped: true})
	stopper := exec.Command(os.Args[0])
	stopper.Env = []string{stopperEnv + "=1"}
	if err := stopper.Start(); err != nil {
		t.Fatal(err)
	}
	stop := func() {
		stopper.Process.Kill()
		stopper.Wait()
	}
	defer stop()
	// Most children are hit when they run their program already, which holds
	// up nobody: what is stopped then is their user's own affair.
	release := func() {
		for _, pid := range children(d.pid) {
			if s, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && bytes.Contains(s, fmt.Appendf(nil, "\nUid:\t%d\t", hostile)) {
				if exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid)); exe == "/usr/bin/echo" {
					syscall.Kill(pid, syscall.SIGKILL)
				}
			}
		}
	}
	slowest := time.Duration(0)
	if !poll(bound, func() bool {
		for range 10 {
			c, err := connect("", theirs)
			if err != nil {
				continue
			}
			defer c.Close()
		}
		began := time.Now()
		expect(t, "", mux, "other\r\n", replyGo+"ok\n")
		slowest = max(slowest, time.Since(began))
		release()
		return len(d.events("back off")) > 0
	}) {
		t.Fatal("no child was stopped before its program")
	}
	t.Logf("the other row waited %v at most", slowest)
	if slowest > 3*time.Second {
		t.Errorf("the other row waited %v", slowest)
	}
	for _, e := range d.events("back off") {
		if e.text("service") != "theirs" {
			t.Errorf("%s backs off, which nobody has stopped", e.text("service"))
		}
	}
	stop()
	if !poll(bound, func() bool {
		release()
		got, err := talk("", theirs, "")
		return err == nil && got == "ok\n"
	}) {
		t.Error("the row does not recover")
	}
}
