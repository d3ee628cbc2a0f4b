// The conditions a daemon may be started in: what shells, supervisors and
// careless programs let it inherit. The test binary sets them up and then
// executes the daemon, because a Go program cannot hand them on otherwise.

package main_test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// conditionEnv tells the test binary to become something else.
const conditionEnv = "TCPMUXD_TEST_CONDITION"

type condition struct {
	Block, Ignore []syscall.Signal
	Files         []int  // descriptors that are open on this and that
	Close         []int  // descriptors that are closed
	Nofile        uint64 // soft limit on descriptors; 0: as it is
	Umask         int    // 0: as it is; 0o1000: none
	Argv          []string
}

// command turns a command into one that is run in the condition.
func (c condition) command(t testing.TB, argv, env []string) ([]string, []string) {
	t.Helper()
	c.Argv = argv
	text, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	return []string{os.Args[0]}, append(slices.Clone(env), conditionEnv+"="+string(text))
}

// becomeUnder executes a command in a condition. It does not return.
func becomeUnder(text string) {
	var c condition
	check := func(what string, err error) {
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", what, err)
			os.Exit(126)
		}
	}
	check("condition", json.Unmarshal([]byte(text), &c))
	runtime.LockOSThread() // the mask is a thread's
	env := slices.DeleteFunc(os.Environ(), func(e string) bool { return strings.HasPrefix(e, conditionEnv+"=") })
	for _, sig := range c.Ignore {
		signal.Ignore(sig)
	}
	if c.Umask != 0 {
		syscall.Umask(c.Umask & 0o777)
	}
	for i, fd := range c.Files {
		check("opening", openAt(i, fd))
	}
	if c.Nofile != 0 {
		var lim unix.Rlimit
		check("getrlimit", unix.Getrlimit(unix.RLIMIT_NOFILE, &lim))
		lim.Cur = c.Nofile
		check("setrlimit", syscall.Setrlimit(unix.RLIMIT_NOFILE, &syscall.Rlimit{Cur: lim.Cur, Max: lim.Max}))
	}
	for _, fd := range c.Close {
		unix.Close(fd)
	}
	if len(c.Block) > 0 {
		var set unix.Sigset_t
		for _, sig := range c.Block {
			set.Val[(sig-1)/64] |= 1 << ((sig - 1) % 64)
		}
		check("blocking", unix.PthreadSigmask(unix.SIG_SETMASK, &set, nil))
	}
	check("executing "+c.Argv[0], syscall.Exec(c.Argv[0], c.Argv, env))
}

// openAt opens something as fd, to be inherited.
func openAt(i, fd int) (err error) {
	var from int
	switch i % 5 {
	case 0:
		from, err = unix.Open("/etc/passwd", unix.O_RDONLY, 0)
	case 1:
		from, err = unix.Open("/", unix.O_RDONLY|unix.O_DIRECTORY, 0)
	case 2:
		var p [2]int
		err = unix.Pipe(p[:])
		from = p[1] // its other end is inherited as well
	case 3:
		from, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	case 4:
		from, err = unix.EpollCreate1(0)
	}
	if err != nil || from == fd {
		return err
	}
	if err := unix.Dup3(from, fd, 0); err != nil {
		return err
	}
	return unix.Close(from)
}
