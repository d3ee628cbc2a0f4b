package main

import (
	"strings"
	"testing"
)

func isTestPeer(server string) bool { return server == "tcpserver" || server == "xinetd" }

// judged is the verdict on one bar.
func judged(t *testing.T, r *Report, measure string) Verdict {
	t.Helper()
	for _, v := range r.judge(bars, isTestPeer) {
		if v.Measure == measure {
			return v
		}
	}
	t.Fatalf("no bar %q", measure)
	return Verdict{}
}

func TestJudge(t *testing.T) {
	r := &Report{}
	sample := func(round int, scenario, variant, server string, inFlight int, rate, cpu float64) {
		r.Samples = append(r.Samples, Sample{Round: round, Scenario: scenario, Variant: variant, Server: server, InFlight: inFlight, Rate: rate, CPU: cpu})
	}
	for round, ours := range []float64{90, 95, 100} {
		sample(round+1, "direct", "", ceilingName, 8, 100, 0)
		sample(round+1, "direct", "", oursName, 8, ours, 0)
		sample(round+1, "direct", "", "tcpserver", 8, 60, 0)
		sample(round+1, "echo", "", oursName, 8, 300, 0)
		sample(round+1, "echo", "", "xinetd", 8, 100, 0)
		sample(round+1, "echo", "", "tcpserver", 8, 150, 0)
	}
	for _, v := range []struct {
		name      string
		rate, cpu float64
	}{{bare, 100, 100}, {"umask", 1, 1}, {together, 100, 120}} {
		sample(1, "options", v.name, oursName, 8, v.rate, v.cpu)
	}
	r.Rows = sumUp(r.Samples, isTestPeer)
	r.Figures = []Figure{
		{Scenario: "children", Server: "xinetd", Name: perChildName, Spread: Spread{9999, 9999, 9999}},
		{Scenario: "children", Server: oursName, Name: perChildName, Spread: Spread{-3, -5, 600}},
		{Scenario: "rows", Variant: "5000", Server: oursName, Name: reloadSame, Spread: Spread{81, 79, 90}},
	}
	r.Syscalls = []Syscalls{{Scenario: "direct", Server: oursName, InFlight: 1, Total: 30}, {Scenario: "direct", Server: oursName, InFlight: 8, Total: 17.5}}
	for _, tt := range []struct {
		measure  string
		measured Spread
		met      bool
	}{
		{"direct, 8 in flight: rate / ceiling", Spread{0.95, 0.9, 1}, true},
		{"direct, 8 in flight: rate / tcpserver", Spread{95. / 60, 1.5, 100. / 60}, false},
		{"echo, 8 in flight: rate / best peer", Spread{2, 2, 2}, true},
		{"options (" + together + "), 8 in flight: CPU / its first variant", Spread{1.2, 1.2, 1.2}, false},
		{"children: per live child", Spread{-3, -5, 600}, true},
		{"rows (5000): reload, unchanged", Spread{81, 79, 90}, false},
		{"direct, 8 in flight: system calls", Spread{17.5, 17.5, 17.5}, true},
	} {
		if v := judged(t, r, tt.measure); v.Measured != tt.measured || v.Met != tt.met || v.Missing || v.Disturbed {
			t.Errorf("%s: got %+v, want %v, met: %v", tt.measure, v, tt.measured, tt.met)
		}
	}
	if v := judged(t, r, "direct, 8 in flight: rate / xinetd"); !v.Missing || v.Met {
		t.Errorf("a bar that nothing was measured for: %+v", v)
	}
}

func TestJudgeDisturbed(t *testing.T) {
	r := &Report{Samples: []Sample{
		{Round: 1, Scenario: "direct", Server: ceilingName, InFlight: 8, Rate: 100, Disturbed: true},
		{Round: 1, Scenario: "direct", Server: oursName, InFlight: 8, Rate: 100},
	}}
	r.Rows = sumUp(r.Samples, isTestPeer)
	const measure = "direct, 8 in flight: rate / ceiling"
	if v := judged(t, r, measure); !v.Met || !v.Disturbed || v.Measured != (Spread{1, 1, 1}) {
		t.Errorf("got %+v", v)
	}
	// A clean round counts alone.
	r.Samples = append(r.Samples,
		Sample{Round: 3, Scenario: "direct", Server: ceilingName, InFlight: 8, Rate: 100},
		Sample{Round: 3, Scenario: "direct", Server: oursName, InFlight: 8, Rate: 50},
		Sample{Round: 4, Scenario: "direct", Server: oursName, InFlight: 8, Rate: 50})
	r.Rows = sumUp(r.Samples, isTestPeer)
	if v := judged(t, r, measure); v.Met || v.Disturbed || v.Measured != (Spread{0.5, 0.5, 0.5}) {
		t.Errorf("got %+v", v)
	}
}

// Each bar has one end, and none is there twice.
func TestBars(t *testing.T) {
	seen := map[string]bool{}
	for _, b := range bars {
		if (b.least > 0) == (b.most > 0) {
			t.Errorf("%v: from %v to %v", b, b.least, b.most)
		}
		if seen[b.String()] {
			t.Errorf("%v: twice", b)
		}
		seen[b.String()] = true
		if strings.TrimSpace(b.what) == "" {
			t.Errorf("%v: of nothing", b)
		}
	}
}
