package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestParseLoad(t *testing.T) {
	s, err := parseLoad("2000 1 3 500000000 100000000 1500000 9000000 12000000\n", 1)
	if err != nil {
		t.Fatal(err)
	}
	want := Sample{Done: 2000, Wrong: 1, Failed: 3, Rate: 4000, P50: 1.5, P99: 9, Max: 12, LoadCPU: 50,
		elapsed: 500 * time.Millisecond, loadCPU: 100 * time.Millisecond}
	if s != want {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if s, err := parseLoad("0 0 100 1 3076000 0 0 0\n", 1); err != nil || s.Rate != 0 || s.LoadCPU != 0 {
		t.Errorf("nothing served: %+v, %v", s, err)
	}
	if s, err := parseLoad("50000000 0 0 500000000 200000000 0 0 0\n", 1e6); err != nil || s.Rate != 100 || s.LoadCPU != 4000 {
		t.Errorf("50 MB: %+v, %v", s, err)
	}
	for _, line := range []string{"", "1 2 3", "1 0 0 0 0 0 0 0", "one 0 0 1 1 1 1 1"} {
		if _, err := parseLoad(line, 1); err == nil {
			t.Errorf("no error for %q", line)
		}
	}
}

func TestParseCPULine(t *testing.T) {
	got, err := parseCPULine("cpu  1 20 300 4000 50000 600000 7000000 80000000 5 5\ncpu0 9 9 9 9 9 9 9 9 9 9\n")
	if want := int64(1 + 20 + 300 + 600000 + 7000000 + 80000000); err != nil || got != want {
		t.Errorf("got %d, %v, want %d", got, err, want)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu 1 2 3 4 5 6 7 x"} {
		if _, err := parseCPULine(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParseTreeTicks(t *testing.T) {
	got, err := parseTreeTicks("42 (a) b (c) S 1 42 42 0 -1 4194560 500 600 0 0 1 20 300 4000 20 0 1 0 99 4096 12")
	if err != nil || got != 4321 {
		t.Errorf("got %d, %v, want 4321", got, err)
	}
	for _, bad := range []string{"", "42 (a) S 1 2 3", "42 (a) S 1 42 42 0 -1 4194560 500 600 0 0 1 20 x 4000 20"} {
		if _, err := parseTreeTicks(bad); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParseValue(t *testing.T) {
	const rollup = "00400000-7ffd Rollup\nRss:   100 kB\nPss_Anon:  7 kB\nPss:    42 kB\n"
	if got, err := parseValue(rollup, "Pss"); err != nil || got != 42 {
		t.Errorf("Pss: got %d, %v", got, err)
	}
	if got, err := parseValue("usage_usec 1234\nuser_usec 1\n", "usage_usec"); err != nil || got != 1234 {
		t.Errorf("usage_usec: got %d, %v", got, err)
	}
	for _, bad := range []string{"", "Pss:\n", "Pss: many kB\n", "PssX: 1 kB\n"} {
		if _, err := parseValue(bad, "Pss"); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
}

func TestParsePerf(t *testing.T) {
	const table = `# started on Sun Nov 29 07:11:14 2026

2110,,raw_syscalls:sys_enter,tcpmuxd-bench.1.2,818422620,100.00,,
100,,syscalls:sys_enter_execve,tcpmuxd-bench.1.2,818422620,100.00,,
300,,syscalls:sys_enter_dup2,tcpmuxd-bench.1.2,818422620,100.00,,
0,,syscalls:sys_enter_fork,tcpmuxd-bench.1.2,818422620,100.00,,
100,,syscalls:sys_enter_exit,tcpmuxd-bench.1.2,818422620,100.00,,
1600,,syscalls:sys_enter_wait4,tcpmuxd-bench.1.2,818422620,100.00,,
`
	calls, total, err := parsePerf(strings.NewReader(table), 100)
	want := []Call{{"wait4", 16}, {"dup2", 3}, {"execve", 1}, {"other", 0.1}}
	close := func(a, b Call) bool { return a.Name == b.Name && math.Abs(a.PerConn-b.PerConn) < 1e-9 }
	if err != nil || !slices.EqualFunc(calls, want, close) || math.Abs(total-20.1) > 1e-9 {
		t.Errorf("got %v, %v, %v, want %v", calls, total, err, want)
	}
	for _, bad := range []string{"", "nothing\n", "<not counted>,,raw_syscalls:sys_enter,x,0,0.00,,\n", "5,,syscalls:sys_enter_read,x,1,100.00,,\n"} {
		if _, _, err := parsePerf(strings.NewReader(bad), 100); err == nil {
			t.Errorf("no error for %q", bad)
		}
	}
	if _, _, err := parsePerf(strings.NewReader(table), 0); err == nil {
		t.Error("no error for no connections")
	}
}
