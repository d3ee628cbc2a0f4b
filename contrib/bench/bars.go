package main

import "fmt"

// This file is the goals that the project has set itself, and whether a report
// meets them.

// A bar is one goal for tcpmuxd: what it does in a scenario, of a variant and
// with so many in flight, compared with another server's or with its own first
// variant's, or as it is. It has a lower or an upper end.
type bar struct {
	what     string // a figure's name, rate, cpu or calls
	scenario string
	variant  string
	inFlight int
	than     string // a server, bestPeer, itself, or "" for the amount as it is
	least    float64
	most     float64
}

// What is compared.
const (
	rate   = "rate"
	cpu    = "CPU" // per connection
	calls  = "system calls"
	itself = "its first variant" // of the same scenario
)

// Variants that bars are about.
const (
	bare     = "bare"
	together = "user, group, groups, rlimits, umask, nice"
	silent   = "silent"
	oneByte  = "one byte"
)

var bars = []bar{
	{what: rate, scenario: "direct", inFlight: 8, than: ceilingName, least: 0.92},
	{what: rate, scenario: "direct", inFlight: 64, than: ceilingName, least: 0.92},
	{what: rate, scenario: "direct", inFlight: 8, than: "tcpserver", least: 1.7},
	{what: rate, scenario: "direct", inFlight: 64, than: "tcpserver", least: 1.7},
	{what: rate, scenario: "direct", inFlight: 8, than: "xinetd", least: 3.3},
	{what: rate, scenario: "direct", inFlight: 64, than: "xinetd", least: 3.3},
	{what: rate, scenario: "direct", inFlight: 1, than: ceilingName, least: 0.80},
	{what: rate, scenario: "tcpmux", inFlight: 8, than: ceilingName, least: 0.80},
	{what: rate, scenario: "tcpmux", inFlight: 64, than: ceilingName, least: 0.80},
	{what: rate, scenario: "tcpmux", inFlight: 8, than: "xinetd", least: 3},
	{what: rate, scenario: "tcpmux", inFlight: 64, than: "xinetd", least: 3},
	{what: rate, scenario: "dynamic", inFlight: 8, than: ceilingName, least: 0.92},
	{what: rate, scenario: "descriptors", variant: "15000", inFlight: 8, than: itself, least: 0.9},
	{what: rate, scenario: "rows", variant: "5000", inFlight: 8, than: itself, least: 0.9},
	{what: rate, scenario: "pending", variant: "9000", inFlight: 8, than: itself, least: 0.9},
	{what: calls, scenario: "direct", inFlight: 8, most: 18},
	{what: calls, scenario: "tcpmux", inFlight: 8, most: 23},
	{what: idlePSS, scenario: "direct", most: 8 * 1024},
	{what: perChildName, scenario: "children", most: 512},
	{what: perNegotiationName, scenario: "negotiations", variant: silent, most: 1024},
	{what: perNegotiationName, scenario: "negotiations", variant: oneByte, most: 1024},
	{what: startReady, scenario: "rows", variant: "5000", most: 150},
	{what: startAnswer, scenario: "rows", variant: "5000", most: 150},
	{what: reloadSame, scenario: "rows", variant: "5000", most: 80},
	{what: rate, scenario: "daytime", inFlight: 1, than: ceilingName, least: 0.9},
	{what: rate, scenario: "daytime", inFlight: 8, than: ceilingName, least: 0.9},
	{what: rate, scenario: "daytime", inFlight: 64, than: ceilingName, least: 0.9},
	{what: rate, scenario: "echo", inFlight: 1, than: bestPeer, least: 1.5},
	{what: rate, scenario: "echo", inFlight: 8, than: bestPeer, least: 1.5},
	{what: rate, scenario: "udpecho", inFlight: 32, than: ceilingName, least: 0.9},
	{what: cpu, scenario: "options", variant: together, inFlight: 8, than: itself, most: 1.1},
	{what: rate, scenario: "forward", inFlight: 1, than: ceilingName, least: 0.9},
	{what: rate, scenario: "forward", inFlight: 8, than: ceilingName, least: 0.9},
	{what: rate, scenario: "forward", inFlight: 1, than: "xinetd", least: 1.5},
	{what: rate, scenario: "forward", inFlight: 8, than: "xinetd", least: 1.5},
}

func (b bar) String() string {
	s := b.scenario
	if b.variant != "" {
		s += " (" + b.variant + ")"
	}
	if b.inFlight > 0 {
		s += fmt.Sprintf(", %d in flight", b.inFlight)
	}
	s += ": " + b.what
	if b.than != "" {
		s += " / " + b.than
	}
	return s
}

// A Verdict is one bar and what was measured.
type Verdict struct {
	Measure   string  `json:"measure"`
	Least     float64 `json:"least,omitempty"`
	Most      float64 `json:"most,omitempty"`
	Measured  Spread  `json:"measured"` // the median is of the medians, the ends are of single rounds
	Met       bool    `json:"met"`
	Missing   bool    `json:"not_measured,omitempty"`
	Disturbed bool    `json:"disturbed,omitempty"` // it rests on samples of which none was clean
}

// judge compares the report with every bar, including those that it has
// nothing for.
func (r *Report) judge(bars []bar, isPeer func(server string) bool) (all []Verdict) {
	rounds := map[int][]Sample{}
	for _, s := range r.Samples {
		rounds[s.Round] = append(rounds[s.Round], s)
	}
	var single [][]Row
	for _, samples := range rounds {
		single = append(single, sumUp(samples, isPeer))
	}
	for _, b := range bars {
		v := Verdict{Measure: b.String(), Least: b.least, Most: b.most}
		ok := false
		switch b.what {
		case rate, cpu:
			v.Measured, v.Disturbed, ok = b.ratios(r.Rows, single, isPeer)
		case calls:
			for _, c := range r.Syscalls {
				if c.Scenario == b.scenario && c.Server == oursName && c.InFlight == b.inFlight {
					v.Measured, ok = Spread{c.Total, c.Total, c.Total}, true
				}
			}
		default:
			for _, f := range r.Figures {
				if f.Scenario == b.scenario && f.Variant == b.variant && f.Server == oursName && f.Name == b.what {
					v.Measured, ok = f.Spread, true
				}
				if f.Scenario == b.scenario && f.Variant == b.variant && f.Server == oursName && f.Name == othersName {
					v.Disturbed = f.Median > 100*disturbing
				}
			}
		}
		v.Missing = !ok
		v.Met = ok && (b.least == 0 || v.Measured.Median >= b.least) && (b.most == 0 || v.Measured.Median <= b.most)
		all = append(all, v)
	}
	return all
}

// ratios has the ratio of medians in the middle and at its ends those of single
// rounds, of clean ones if there are any.
func (b bar) ratios(medians []Row, rounds [][]Row, isPeer func(server string) bool) (s Spread, disturbed, ok bool) {
	var clean, all []float64
	for _, rows := range rounds {
		x, disturbed, ok := b.ratio(rows, isPeer)
		if ok {
			all = append(all, x)
		}
		if ok && !disturbed {
			clean = append(clean, x)
		}
	}
	if s = spread(clean); len(clean) == 0 {
		s = spread(all)
	}
	s.Median, disturbed, ok = b.ratio(medians, isPeer)
	return s, disturbed, ok
}

// ratio is what the bar is about, among rows in table order.
func (b bar) ratio(rows []Row, isPeer func(server string) bool) (ratio float64, disturbed, ok bool) {
	var ours, other *Row
	for i := range rows {
		r := &rows[i]
		if r.Scenario != b.scenario || r.InFlight != b.inFlight {
			continue
		}
		if r.Server == oursName && r.Variant == b.variant {
			ours = r
		}
		switch {
		case b.than == itself:
			if r.Server == oursName && other == nil {
				other = r
			}
		case b.than == bestPeer:
			if isPeer(r.Server) && (other == nil || r.Rate.Median > other.Rate.Median) {
				other = r
			}
		case b.than == r.Server && r.Variant == b.variant:
			other = r
		}
	}
	if ours == nil || other == nil {
		return 0, false, false
	}
	if b.what == cpu {
		ratio = quotient(ours.CPU, other.CPU)
	} else {
		ratio = quotient(ours.Rate.Median, other.Rate.Median)
	}
	return ratio, ours.Clean == 0 || other.Clean == 0, ratio > 0
}
