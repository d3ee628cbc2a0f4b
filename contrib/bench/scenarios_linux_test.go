package main

import (
	"slices"
	"testing"
)

// What a bar is about is measured at all.
func TestBarsHaveScenarios(t *testing.T) {
	for _, b := range slices.Concat(bars, attackBars) {
		i := slices.IndexFunc(scenarios, func(sc scenario) bool { return sc.name == b.scenario })
		if i < 0 {
			t.Errorf("%v: no such scenario", b)
			continue
		}
		sc := scenarios[i]
		if !slices.ContainsFunc(sc.conditions(), func(v variant) bool { return v.name == b.variant }) {
			t.Errorf("%v: no such variant", b)
		}
		if b.inFlight > 0 && !slices.Contains(sc.inFlight, b.inFlight) {
			t.Errorf("%v: not with so many in flight", b)
		}
		for _, name := range []string{oursName, b.than} {
			if name == "" || name == bestPeer || name == itself {
				continue
			}
			if !slices.ContainsFunc(servers, func(s *server) bool { return s.name == name && s.runs(sc) }) {
				t.Errorf("%v: %s does not run in it", b, name)
			}
		}
	}
}

func TestInTableOrder(t *testing.T) {
	type place struct{ scenario, variant, server string }
	got := []place{{"rows", "10", "xinetd"}, {"direct", "", "xinetd"}, {"rows", "1000", oursName}, {"rows", "10", oursName}, {"direct", "", ceilingName}}
	want := []place{{"direct", "", ceilingName}, {"direct", "", "xinetd"}, {"rows", "10", oursName}, {"rows", "10", "xinetd"}, {"rows", "1000", oursName}}
	inTableOrder(servers, got, func(p place) (string, string, string) { return p.scenario, p.variant, p.server })
	if !slices.Equal(got, want) {
		t.Errorf("got %v\nwant %v", got, want)
	}
}
