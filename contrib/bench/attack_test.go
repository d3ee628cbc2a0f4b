package main

import (
	"testing"
	"time"
)

// value is one of figures by its name.
func value(t *testing.T, figures []Figure, name string) float64 {
	t.Helper()
	for _, f := range figures {
		if f.Name == name {
			return f.Median
		}
	}
	t.Fatalf("no figure %q", name)
	return 0
}

func TestComparison(t *testing.T) {
	sample := func(done, lost int64, p99, others float64) Sample {
		return Sample{Done: done, Failed: lost, P99: p99, P50: p99 / 2, Others: others, CPU: 1000, elapsed: time.Second}
	}
	peace := []Sample{sample(100, 0, 1, 0), sample(100, 0, 2, 0), sample(100, 0, 3, 0)}
	for _, tt := range []struct {
		what                           string
		war                            []Sample
		served, slower, others, cpuWar float64
	}{
		{"calm", []Sample{sample(100, 0, 4, 0.01), sample(100, 0, 4, 0.1)}, 100, 2, 10, 10},
		{"a lost one", []Sample{sample(99, 1, 4, 0)}, 99, 2, 0, 9.9},
		{"a disturbed one is left out", []Sample{sample(100, 0, 4, 0), sample(50, 50, 40, 0.5)}, 100, 2, 0, 10},
		{"all are disturbed", []Sample{sample(100, 0, 20, 0.5)}, 100, 10, 50, 10},
		{"nobody was served", []Sample{sample(0, 100, 0, 0)}, 0, 0, 0, 0},
	} {
		f := comparison(peace, tt.war)
		for name, want := range map[string]float64{servedName: tt.served, slowerName: tt.slower, othersName: tt.others, "CPU": tt.cpuWar} {
			if got := value(t, f, name); got < want-1e-9 || got > want+1e-9 {
				t.Errorf("%s: %s is %v, want %v", tt.what, name, got, want)
			}
		}
	}
}

func TestParseMedians(t *testing.T) {
	got, err := parseMedians("51000 52000 \n", 2)
	if err != nil || len(got) != 2 || got[0] != 51000 || got[1] != 52000 {
		t.Errorf("got %v, %v", got, err)
	}
	for _, line := range []string{"", "1\n", "1 2 3\n", "1 x\n"} {
		if got, err := parseMedians(line, 2); err == nil {
			t.Errorf("%q is %v", line, got)
		}
	}
}

// A kind that takes longer is found; noise of the same size in both is not.
func TestRefusalFigures(t *testing.T) {
	kinds := []string{"a", "b"}
	same := refusalFigures(kinds, [][]float64{{1000, 1010, 1020, 1000}, {1010, 1000, 1000, 1020}, {5000, 1000, 5000, 1000}})
	if value(t, same, "between") != 5 || value(t, same, "noise") != 20 || value(t, same, betweenName) != 0.25 {
		t.Errorf("the same kinds: %+v", same)
	}
	other := refusalFigures(kinds, [][]float64{{1000, 1100, 1010, 1110}})
	if value(t, other, "between") != 100 || value(t, other, "noise") != 10 || value(t, other, "b") != 1.105 {
		t.Errorf("different kinds: %+v", other)
	}
}

// What rests on disturbed samples is said to.
func TestJudgeAttack(t *testing.T) {
	r := &Report{Figures: []Figure{
		{Scenario: "scan", Server: "xinetd", Name: slowerName, Spread: Spread{99, 99, 99}},
		{Scenario: "scan", Server: oursName, Name: slowerName, Spread: Spread{1.5, 1, 3}},
		{Scenario: "scan", Server: oursName, Name: othersName, Spread: Spread{50, 0, 60}},
		{Scenario: "help", Server: oursName, Name: slowerName, Spread: Spread{1.5, 1, 3}},
		{Scenario: "help", Server: oursName, Name: othersName, Spread: Spread{5, 0, 60}},
	}}
	of := func(scenario string) []bar { return []bar{{what: slowerName, scenario: scenario, most: 2}} }
	if v := r.judge(of("scan"), isTestPeer)[0]; !v.Met || !v.Disturbed || v.Measured.Median != 1.5 {
		t.Errorf("scan: %+v", v)
	}
	if v := r.judge(of("help"), isTestPeer)[0]; !v.Met || v.Disturbed {
		t.Errorf("help: %+v", v)
	}
	if v := r.judge(of("greedy"), isTestPeer)[0]; v.Met || !v.Missing {
		t.Errorf("greedy: %+v", v)
	}
}
