//go:build amd64 || arm64

package spawn

// TestMain is three programs: the tests; the helpers, which are this binary
// under another name, for what needs a process of its own; and process 1 of a
// virtual machine that has nothing else, see contrib/ci/qemu-arm64.sh.

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"sort"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperName is argv[0] of a helper; its own name follows, then its arguments.
const helperName = "spawn-test-helper"

// helpers are run in a process of their own. What they return is printed as
// JSON.
var helpers = map[string]func(args []string) (any, error){}

var helpersUsed sync.Map

// helperArgv is the command line of a helper.
func helperArgv(name string, args ...string) []string {
	if helpers[name] == nil {
		panic("no helper " + name)
	}
	helpersUsed.Store(name, true)
	return append([]string{helperName, name}, args...)
}

// runHelper runs a helper to its end and decodes what it printed.
func runHelper(t *testing.T, result any, name string, args ...string) {
	t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(executable)
	cmd.Args = helperArgv(name, args...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.WaitDelay = time.Second
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer time.AfterFunc(30*time.Second, func() { cmd.Process.Kill() }).Stop()
	if err := cmd.Wait(); err != nil {
		t.Fatalf("helper %s: %v\n%s", name, err, errs.String())
	}
	if err := json.Unmarshal(out.Bytes(), result); err != nil {
		t.Fatalf("helper %s: %v: %q", name, err, out.String())
	}
}

func helperMain(name string, args []string) int {
	f := helpers[name]
	if f == nil {
		fmt.Fprintln(os.Stderr, "no helper", name)
		return 2
	}
	v, err := f(args)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	if v != nil {
		json.NewEncoder(helperOut).Encode(v)
	}
	return 0
}

// helperOut is where helpers print. One that has had its descriptors moved about
// changes it.
var helperOut = os.Stdout

var executable string

func TestMain(m *testing.M) { os.Exit(testMain(m)) }

func testMain(m *testing.M) int {
	if os.Getpid() == 1 {
		return machineMain()
	}
	executable, _ = os.Executable()
	// The directory of the programs is the same in helpers.
	dir := os.Getenv(programsEnv)
	if len(os.Args) > 1 && os.Args[0] == helperName {
		progWait, progExit = dir+"/wait", dir+"/exit"
		return helperMain(os.Args[1], os.Args[2:])
	}
	if dir != "" {
		progWait, progExit = dir+"/wait", dir+"/exit"
	} else {
		var err error
		if dir, err = os.MkdirTemp("", "spawn-test-"); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		os.Chmod(dir, 0o755)
		if err := writePrograms(dir); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		os.Setenv(programsEnv, dir)
		// The race detector lets a program sleep for a second at its end.
		os.Setenv("GORACE", os.Getenv("GORACE")+" atexit_sleep_ms=0")
	}
	flag.Parse()
	if f := flag.Lookup("test.fuzzworker"); f == nil || f.Value.String() != "true" {
		// A fuzzing worker talks through inherited descriptors, which Init moves.
		if err := Init(); err != nil {
			fmt.Fprintln(os.Stderr, "Init:", err)
			return 1
		}
	}
	code := m.Run()
	if code == 0 {
		code = unusedHelpers()
	}
	return code
}

const (
	programsEnv = "SPAWN_TEST_PROGRAMS"
	machineEnv  = "SPAWN_TEST_MACHINE"
)

// unusedHelpers fails a complete run that has not used every helper.
func unusedHelpers() int {
	for _, f := range []string{"test.run", "test.skip", "test.list", "test.fuzz", "test.bench"} {
		if f := flag.Lookup(f); f != nil && f.Value.String() != "" {
			return 0
		}
	}
	var unused []string
	for name := range helpers {
		if _, ok := helpersUsed.Load(name); !ok {
			unused = append(unused, name)
		}
	}
	if len(unused) == 0 {
		return 0
	}
	sort.Strings(unused)
	fmt.Fprintln(os.Stderr, "FAIL: helpers that no test used:", strings.Join(unused, " "))
	return 1
}

// inMachine reports whether the tests have a system of their own, whose settings
// they may change (machineMain).
func inMachine() bool { return os.Getenv(machineEnv) != "" }

// scaled is n, or what of it an emulated processor can do in the same time.
func scaled(n int) int {
	if inMachine() {
		return n / 10
	}
	return n
}

// machineMain is process 1: it makes a system of an empty memory disk, runs the
// tests in it, says how they ended, and turns the machine off.
func machineMain() int {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"}, {"sys", "/sys", "sysfs"}, {"dev", "/dev", "devtmpfs"}, {"tmp", "/tmp", "tmpfs"},
	} {
		os.MkdirAll(m.target, 0o755)
		if err := unix.Mount(m.source, m.target, m.kind, 0, ""); err != nil {
			fmt.Println("mounting", m.target+":", err)
		}
	}
	os.Chmod("/tmp", 0o1777)
	var uts unix.Utsname
	unix.Uname(&uts)
	fmt.Println("linux", unix.ByteSliceToString(uts.Release[:]), unix.ByteSliceToString(uts.Machine[:]))
	// As for a service of a usual system, but with room for the tests.
	unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 1024, Max: 20000})
	cmd := exec.Command("/proc/self/exe", append([]string{"-test.v", "-test.timeout=270s", "-test.shuffle=on"}, os.Args[1:]...)...)
	cmd.Env = []string{"PATH=/", "HOME=/", "TMPDIR=/tmp", machineEnv + "=1"}
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	verdict := "pass"
	if err := cmd.Run(); err != nil {
		verdict = "fail: " + err.Error()
	}
	fmt.Println("verdict of the tests:", verdict)
	unix.Sync()
	unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	return 1
}
