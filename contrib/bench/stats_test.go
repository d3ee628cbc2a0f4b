package main

import (
	"math"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestSpread(t *testing.T) {
	for _, tt := range []struct {
		in   []float64
		want Spread
	}{
		{nil, Spread{}},
		{[]float64{4}, Spread{4, 4, 4}},
		{[]float64{9, 1}, Spread{5, 1, 9}},
		{[]float64{3, 100, 1}, Spread{3, 1, 100}},
		{[]float64{4, 1, 3, 2}, Spread{2.5, 1, 4}},
	} {
		in := slices.Clone(tt.in)
		if got := spread(tt.in); got != tt.want {
			t.Errorf("spread(%v) = %v, want %v", tt.in, got, tt.want)
		}
		if !slices.Equal(in, tt.in) {
			t.Errorf("spread sorted its argument: %v", tt.in)
		}
	}
}

func TestParseLoad(t *testing.T) {
	s, err := parseLoad("2000 1 3 500000000 100000000 1500000 9000000 12000000\n")
	if err != nil {
		t.Fatal(err)
	}
	want := Sample{Conns: 2000, Wrong: 1, Failed: 3, Rate: 4000, P50: 1.5, P99: 9, Max: 12, LoadCPU: 50,
		elapsed: 500 * time.Millisecond, loadCPU: 100 * time.Millisecond}
	if s != want {
		t.Errorf("got %+v\nwant %+v", s, want)
	}
	if s, err := parseLoad("0 0 100 1 3076000 0 0 0\n"); err != nil || s.Rate != 0 || s.LoadCPU != 0 {
		t.Errorf("nothing served: %+v, %v", s, err)
	}
	for _, line := range []string{"", "1 2 3", "1 0 0 0 0 0 0 0", "one 0 0 1 1 1 1 1"} {
		if _, err := parseLoad(line); err == nil {
			t.Errorf("no error for %q", line)
		}
	}
}

func TestSumUp(t *testing.T) {
	sample := func(server string, rate float64, disturbed bool) Sample {
		return Sample{Scenario: "direct", Server: server, InFlight: 8, Rate: rate, CPU: 100, Disturbed: disturbed, Wrong: 1}
	}
	rows := sumUp([]Sample{
		sample(ceilingName, 1000, false), sample("ours", 900, false), sample("slow", 100, true), sample("fast", 300, false),
		sample(ceilingName, 1200, false), sample("ours", 500, true), sample("slow", 300, true), sample("fast", 500, false),
		{Scenario: "tcpmux", Server: "ours", InFlight: 8, Rate: 7},
	}, func(server string) bool { return server == "slow" || server == "fast" })
	want := []Row{
		{Server: ceilingName, Rate: Spread{1100, 1000, 1200}, BestPeer: 2.75, Ceiling: 1, Clean: 2},
		{Server: "ours", Rate: Spread{900, 900, 900}, BestPeer: 2.25, Ceiling: 900. / 1100, Clean: 1, Disturbed: 1},
		{Server: "slow", Rate: Spread{200, 100, 300}, BestPeer: 0.5, Ceiling: 200. / 1100, Disturbed: 2},
		{Server: "fast", Rate: Spread{400, 300, 500}, BestPeer: 1, Ceiling: 400. / 1100, Clean: 2},
	}
	for i := range want {
		want[i].Scenario, want[i].InFlight, want[i].CPU, want[i].Wrong = "direct", 8, 100, 2
	}
	want = append(want, Row{Scenario: "tcpmux", Server: "ours", InFlight: 8, Rate: Spread{7, 7, 7}, Clean: 1})
	if !slices.Equal(rows, want) {
		t.Errorf("got %+v\nwant %+v", rows, want)
	}
}

func TestMiddleMemory(t *testing.T) {
	got := middleMemory([]Memory{{"a", "x", 1, 10}, {"a", "x", 3, 30}, {"a", "x", 2, 20}, {"a", "y", 5, 6}, {"b", "x", 7, 8}})
	want := []Memory{{"a", "x", 2, 20}, {"a", "y", 5, 6}, {"b", "x", 7, 8}}
	if !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
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

func TestParseStrace(t *testing.T) {
	const table = `% time     seconds  usecs/call     calls    errors syscall
------ ----------- ----------- --------- --------- ----------------
 60.00    0.006000          60       100           execve
 30.00    0.003000          10       300           dup2
 10.00    0.001000           5       200       100 wait4
------ ----------- ----------- --------- --------- ----------------
100.00    0.010000          16       600       100 total
`
	calls, total, err := parseStrace(strings.NewReader(table), 100)
	if want := []Call{{"dup2", 3}, {"wait4", 2}, {"execve", 1}}; err != nil || !slices.Equal(calls, want) || math.Abs(total-6) > 1e-9 {
		t.Errorf("got %v, %v, %v, want %v", calls, total, err, want)
	}
	if _, _, err := parseStrace(strings.NewReader(table), 0); err == nil {
		t.Error("no error for no connections")
	}
	if _, _, err := parseStrace(strings.NewReader("nothing\n"), 1); err == nil {
		t.Error("no error for no table")
	}
}
