package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	r := &Report{
		Machine:  "a machine",
		Settings: "1 round",
		Programs: map[string]string{"xinetd": "2.3"},
		Notices:  []string{"tcpmuxd is left out"},
		Rows: []Row{
			{Scenario: "direct", Server: "xinetd", InFlight: 8, Rate: Spread{3500, 3400, 3600}, P50: 2.2, P99: 4.1, CPU: 470, BestPeer: 1, Clean: 1, Disturbed: 2, Wrong: 3, Failed: 4},
		},
		Scenarios: []About{{"direct", "about direct", "conn"}, {"options", "about options", "conn"}},
		Figures: []Figure{
			{Scenario: "direct", Server: "xinetd", Name: idlePSS, Unit: "KiB", Spread: Spread{1649, 1600, 1700}},
			{Scenario: "direct", Server: "tcpserver", Name: loadedPSS, Unit: "KiB", Spread: Spread{7.25, 7, 8}},
		},
		Syscalls: []Syscalls{{"direct", "xinetd", 8, 34.1, []Call{{"close", 7}, {"brk", 0.01}}}},
		Bars: []Verdict{
			{Measure: "one", Least: 0.92, Measured: Spread{0.934, 0.9, 0.95}, Met: true},
			{Measure: "two", Most: 512, Measured: Spread{600, 500, 700}, Disturbed: true},
			{Measure: "three", Least: 3, Missing: true},
		},
	}
	r.Rows = append(r.Rows, Row{Scenario: "options", Variant: "bare", Server: "tcpmuxd", InFlight: 8, Rate: Spread{9, 8, 10}, CPU: 12.5, First: 1, FirstCPU: 1, Clean: 1})
	var b strings.Builder
	if err := r.text(&b); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"notice: tcpmuxd is left out\n", "xinetd 2.3\n", "direct: about direct\n",
		"xinetd          8    3500  3400  3600    2.20    4.10          470         1.00          -  2 of 3 samples disturbed  3 wrong answers  4 failed\n",
		" tcpmuxd     bare          8       9    8   10    0.00    0.00         12.5     1.00         1.00\n",
		"     server  variant  PSS idle, KiB  PSS after load, KiB\n",
		"     xinetd                    1649                    -\n",
		"  tcpserver                       -                  7.2\n",
		"xinetd          8               34.1  close 7.0\n",
		"one      ≥ 0.92  0.934     0.900  0.950  met\n",
		"two      ≤ 512   600.0     500.0  700.0  MISSED, but rests on disturbed samples\n",
		"three    ≥ 3     -         -      -      not measured\n",
		"1 met, 1 missed, 1 not measured\n",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}

	file := filepath.Join(t.TempDir(), "report.json")
	if err := r.writeJSON(file); err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	var back Report
	if err := json.Unmarshal(text, &back); err != nil || len(back.Rows) != 2 || back.Rows[0] != r.Rows[0] {
		t.Errorf("JSON came back as %+v, %v", back, err)
	}
}
