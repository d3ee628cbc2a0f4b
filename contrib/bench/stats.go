// Bench is the project's own benchmark: it sets tcpmuxd beside Debian's
// super-servers and beside small C programs that do nothing but accept,
// (negotiate,) spawn and reap, and prints how they compare. README.md says
// what is measured and how far the figures may be trusted.
//
// It is not part of the daemon and nothing of the daemon is linked into it:
// tcpmuxd is started as an operator would start it.
package main

import (
	"slices"
	"time"
)

// This file is the statistics: how the samples of all rounds become rows.

// Servers and figures that bars.go asks for, too.
const (
	ceilingName = "ceiling"
	oursName    = "tcpmuxd"
	bestPeer    = "best peer" // whichever it is

	idlePSS       = "PSS idle"
	loadedPSS     = "PSS after load"
	startReady    = "start until READY"
	startAnswer   = "start until answered"
	reloadSame    = "reload, unchanged"
	reloadChanged = "reload, one row changed"

	perChildName       = "per live child"
	perNegotiationName = "per pending negotiation"
)

// disturbing is the share of the machine's time that others may take in a sample.
const disturbing = 0.12

// A Spread is the middle and the ends of one figure over the rounds.
type Spread struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
}

// spread is the zero Spread for no values. The median of an even number of
// values is the mean of the two in the middle.
func spread(values []float64) Spread {
	if len(values) == 0 {
		return Spread{}
	}
	v := slices.Sorted(slices.Values(values))
	n := len(v)
	return Spread{(v[(n-1)/2] + v[n/2]) / 2, v[0], v[n-1]}
}

// A Sample is one run of the load generator against one server.
type Sample struct {
	Scenario  string  `json:"scenario"`
	Variant   string  `json:"variant,omitempty"`
	Server    string  `json:"server"`
	InFlight  int     `json:"in_flight"`
	Round     int     `json:"round"`
	Done      int64   `json:"done"`   // connections or datagrams answered as expected, or bytes
	Wrong     int64   `json:"wrong"`  // answered otherwise
	Failed    int64   `json:"failed"` // no orderly end of file, or no answer
	Rate      float64 `json:"rate"`   // of the scenario's unit per second
	P50       float64 `json:"p50_ms"` // connect to end of file
	P99       float64 `json:"p99_ms"`
	Max       float64 `json:"max_ms"`
	CPU       float64 `json:"cpu_us_per_unit"`      // of the server and its children
	LoadCPU   float64 `json:"load_cpu_us_per_unit"` // of the load generator
	Others    float64 `json:"others_share"`         // of the machine's CPU time, taken by anyone else
	Disturbed bool    `json:"disturbed"`            // Others was too large in every try
	loadCPU   time.Duration
	elapsed   time.Duration
}

// perUnit is in microseconds.
func perUnit(d time.Duration, units float64) float64 {
	if units == 0 {
		return 0
	}
	return float64(d.Nanoseconds()) / 1e3 / units
}

// A Figure is what is no rate: an amount of memory, a time, a count.
type Figure struct {
	Scenario string `json:"scenario"`
	Variant  string `json:"variant,omitempty"`
	Server   string `json:"server"`
	Name     string `json:"name"`
	Unit     string `json:"unit"`
	Spread          // over the rounds
	values   []float64
}

func single(name, unit string, value float64) Figure {
	return Figure{Name: name, Unit: unit, Spread: Spread{value, value, value}}
}

// A Row sums up all rounds of one server at one number in flight. Ratios are
// of medians; 0 where there is nothing to compare with.
type Row struct {
	Scenario  string  `json:"scenario"`
	Variant   string  `json:"variant,omitempty"`
	Server    string  `json:"server"`
	InFlight  int     `json:"in_flight"`
	Rate      Spread  `json:"rate"`
	P50       float64 `json:"p50_ms"`
	P99       float64 `json:"p99_ms"`
	CPU       float64 `json:"cpu_us_per_unit"`
	BestPeer  float64 `json:"of_best_peer"`
	Ceiling   float64 `json:"of_ceiling"`
	First     float64 `json:"of_first_variant"`     // rate
	FirstCPU  float64 `json:"cpu_of_first_variant"` // of the same server
	Clean     int     `json:"clean_samples"`
	Disturbed int     `json:"disturbed_samples"`
	Wrong     int64   `json:"wrong"`
	Failed    int64   `json:"failed"`
}

// sumUp makes one Row of the samples of every scenario, variant, server and
// number in flight, in the order of their first sample. Disturbed samples
// count only where there is no clean one.
func sumUp(samples []Sample, isPeer func(server string) bool) []Row {
	type key struct {
		scenario, variant, server string
		inFlight                  int
	}
	var order []key
	groups := map[key][]Sample{}
	for _, s := range samples {
		k := key{s.Scenario, s.Variant, s.Server, s.InFlight}
		if groups[k] == nil {
			order = append(order, k)
		}
		groups[k] = append(groups[k], s)
	}
	rows := make([]Row, 0, len(order))
	best, ceilings, firsts := map[key]float64{}, map[key]float64{}, map[key]Row{}
	for _, k := range order {
		r := sumUpOne(groups[k])
		rows = append(rows, r)
		if k.variant = ""; firsts[k].Server == "" {
			firsts[k] = r
		}
		k.variant, k.server = r.Variant, ""
		if isPeer(r.Server) {
			best[k] = max(best[k], r.Rate.Median)
		} else if r.Server == ceilingName {
			ceilings[k] = r.Rate.Median
		}
	}
	for i := range rows {
		r := &rows[i]
		k := key{r.Scenario, r.Variant, "", r.InFlight}
		r.BestPeer, r.Ceiling = quotient(r.Rate.Median, best[k]), quotient(r.Rate.Median, ceilings[k])
		if r.Variant != "" {
			first := firsts[key{r.Scenario, "", r.Server, r.InFlight}]
			r.First, r.FirstCPU = quotient(r.Rate.Median, first.Rate.Median), quotient(r.CPU, first.CPU)
		}
	}
	return rows
}

func sumUpOne(samples []Sample) Row {
	r := Row{Scenario: samples[0].Scenario, Variant: samples[0].Variant, Server: samples[0].Server, InFlight: samples[0].InFlight}
	for _, s := range samples {
		r.Wrong += s.Wrong
		r.Failed += s.Failed
		if s.Disturbed {
			r.Disturbed++
		} else {
			r.Clean++
		}
	}
	middle := func(of func(Sample) float64) Spread {
		var v []float64
		for _, s := range samples {
			if !s.Disturbed || r.Clean == 0 {
				v = append(v, of(s))
			}
		}
		return spread(v)
	}
	r.Rate = middle(func(s Sample) float64 { return s.Rate })
	r.P50 = middle(func(s Sample) float64 { return s.P50 }).Median
	r.P99 = middle(func(s Sample) float64 { return s.P99 }).Median
	r.CPU = middle(func(s Sample) float64 { return s.CPU }).Median
	return r
}

// quotient is 0 where there is nothing to divide by.
func quotient(a, b float64) float64 {
	if b == 0 {
		return 0
	}
	return a / b
}

// merge makes one Figure of those of all rounds, in the order of their first.
func merge(all []Figure) (merged []Figure) {
	type key struct{ scenario, variant, server, name string }
	at := map[key]int{}
	for _, f := range all {
		k := key{f.Scenario, f.Variant, f.Server, f.Name}
		i, ok := at[k]
		if !ok {
			i = len(merged)
			at[k] = i
			merged = append(merged, f)
			merged[i].values = nil
		}
		merged[i].values = append(merged[i].values, f.values...)
	}
	for i := range merged {
		merged[i].Spread = spread(merged[i].values)
	}
	return merged
}
