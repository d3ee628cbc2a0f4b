package main

import (
	"reflect"
	"slices"
	"testing"
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

func TestSumUp(t *testing.T) {
	sample := func(server string, rate float64, disturbed bool) Sample {
		return Sample{Scenario: "direct", Server: server, InFlight: 8, Rate: rate, CPU: 100, Disturbed: disturbed, Wrong: 1}
	}
	rows := sumUp([]Sample{
		sample(ceilingName, 1000, false), sample("ours", 900, false), sample("slow", 100, true), sample("fast", 300, false),
		sample(ceilingName, 1200, false), sample("ours", 500, true), sample("slow", 300, true), sample("fast", 500, false),
		{Scenario: "tcpmux", Server: "ours", InFlight: 8, Rate: 7},
		{Scenario: "options", Variant: "bare", Server: "ours", InFlight: 8, Rate: 10, CPU: 4},
		{Scenario: "options", Variant: "nice", Server: "ours", InFlight: 8, Rate: 5, CPU: 5},
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
	want = append(want, Row{Scenario: "tcpmux", Server: "ours", InFlight: 8, Rate: Spread{7, 7, 7}, Clean: 1},
		Row{Scenario: "options", Variant: "bare", Server: "ours", InFlight: 8, Rate: Spread{10, 10, 10}, CPU: 4, Clean: 1, First: 1, FirstCPU: 1},
		Row{Scenario: "options", Variant: "nice", Server: "ours", InFlight: 8, Rate: Spread{5, 5, 5}, CPU: 5, Clean: 1, First: 0.5, FirstCPU: 1.25})
	if !slices.Equal(rows, want) {
		t.Errorf("got %+v\nwant %+v", rows, want)
	}
}

func TestMerge(t *testing.T) {
	figure := func(variant, name string, values ...float64) Figure {
		return Figure{Scenario: "rows", Variant: variant, Server: "x", Name: name, values: values}
	}
	got := merge([]Figure{figure("10", "a", 3), figure("10", "b", 7), figure("10", "a", 1), figure("20", "a", 5), figure("10", "a", 2)})
	want := []Figure{figure("10", "a", 3, 1, 2), figure("10", "b", 7), figure("20", "a", 5)}
	for i, s := range []Spread{{2, 1, 3}, {7, 7, 7}, {5, 5, 5}} {
		want[i].Spread = s
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
}
