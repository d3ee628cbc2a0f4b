package supervisor

// The tests run supervisors on real sockets with real children. Children are
// programs of the system where those do, and otherwise this test binary, run
// again under the name of a helper.
//
// What needs a process of its own, for its limits, its user or its network, is
// a test that runs itself again: see alone.

import (
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/spawn"
)

// helperPrefix begins the argv[0] of a helper.
const helperPrefix = "tcpmuxd-helper-"

// helpers are the programs that this binary can be.
var helpers = map[string]func(args []string){
	"acceptor": helperAcceptor,
	"options":  helperOptions,
	"receiver": helperReceiver,
	"stopper":  helperStopper,
	"stray":    helperStray,
	"vandal":   helperVandal,
}

var helpersUsed = map[string]bool{}

// self is a copy of this binary that every user may run; the one that go test
// makes is in a directory that only its owner can enter.
var self string

func TestMain(m *testing.M) {
	if name, ok := strings.CutPrefix(os.Args[0], helperPrefix); ok {
		helpers[name](os.Args[1:])
		os.Exit(0)
	}
	if err := spawn.Init(); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	flag.Parse()
	dir, err := copySelf()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	os.RemoveAll(dir)
	if run := flag.Lookup("test.run"); code == 0 && (run == nil || run.Value.String() == "") {
		for name := range helpers {
			if !helpersUsed[name] {
				fmt.Fprintf(os.Stderr, "helper %q is not used by any test\n", name)
				code = 1
			}
		}
	}
	os.Exit(code)
}

func copySelf() (dir string, err error) {
	exe, err := os.Executable()
	if err != nil {
		return "", err
	}
	if os.Getenv(aloneMark) != "" {
		self = exe // it is the copy
		return "", nil
	}
	if dir, err = os.MkdirTemp("", "supervisor-test"); err != nil {
		return "", err
	}
	if err := os.Chmod(dir, 0o755); err != nil {
		return dir, err
	}
	b, err := os.ReadFile(exe)
	if err != nil {
		return dir, err
	}
	self = filepath.Join(dir, "supervisor.test")
	return dir, os.WriteFile(self, b, 0o755)
}

// helper is the child of a row that runs one of the helpers.
func helper(name string, args ...string) *service.Exec {
	if helpers[name] == nil {
		panic("no helper " + name)
	}
	helpersUsed[name] = true
	e := program(self, args...)
	e.Argv[0] = helperPrefix + name
	e.Env = append(e.Env, quickExit)
	return e
}

// quickExit keeps the race detector from sleeping for a second at each exit.
const quickExit = "GORACE=atexit_sleep_ms=0"

// aloneMark names the test that a process was started for.
const aloneMark = "TCPMUXD_TEST_ALONE"

// alone has a test run in a process of its own, and reports whether this is
// that process; in the other one the test is over.
func alone(t *testing.T, attr *syscall.SysProcAttr) bool {
	t.Helper()
	if os.Getenv(aloneMark) == t.Name() {
		return true
	}
	if attr == nil {
		attr = new(syscall.SysProcAttr)
	}
	attr.Pdeathsig = syscall.SIGKILL
	cmd := exec.Command(self, "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
	cmd.Dir = "/"
	cmd.Env = append(os.Environ(), aloneMark+"="+t.Name(), quickExit)
	cmd.SysProcAttr = attr
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a process of its own: %v\n%s", err, out)
	} else if testing.Verbose() {
		t.Logf("%s", out)
	}
	return false
}
