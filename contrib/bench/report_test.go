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
		Memory:   []Memory{{"direct", "xinetd", 1649, 1700}},
		Syscalls: []Syscalls{{"direct", "xinetd", 34.1, []Call{{"close", 7}, {"brk", 0.01}}}},
	}
	var b strings.Builder
	if err := r.text(&b, func(name string) string { return "about " + name }); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"notice: tcpmuxd is left out\n", "xinetd 2.3\n", "direct: about direct\n",
		"xinetd          8    3500  3400  3600    2.20    4.10          470         1.00          -  2 of 3 samples disturbed  3 wrong answers  4 connections failed\n",
		"xinetd          1649        1700\n",
		"xinetd               34.1  close 7.0\n",
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
	if err := json.Unmarshal(text, &back); err != nil || len(back.Rows) != 1 || back.Rows[0] != r.Rows[0] {
		t.Errorf("JSON came back as %+v, %v", back, err)
	}
}
