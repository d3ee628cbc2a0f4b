package main

import (
	"fmt"
	"slices"
	"strings"
)

// This file makes figures of what was seen during an attack.

// Figures of an attack that there are bars for.
const (
	servedName     = "honest served"
	slowerName     = "p99 × peace"
	spawnsName     = "conn/s × peace"
	perPendingName = "per pending"
	mostShownName  = "answers to one"
	betweenName    = "between / noise"
	othersName     = "taken by others" // in the samples that the figures are of
)

// comparison is what the honest user saw in samples of peace and of war. Its
// latencies are of the connections that were served, and only of those. Disturbed
// samples count only where there is no clean one.
func comparison(peace, war []Sample) []Figure {
	peace, war = clean(peace), clean(war)
	median := func(samples []Sample, of func(Sample) float64) float64 {
		var v []float64
		for _, s := range samples {
			v = append(v, of(s))
		}
		return spread(v).Median
	}
	p50 := func(s Sample) float64 { return s.P50 }
	p99 := func(s Sample) float64 { return s.P99 }
	busyFor := func(s Sample) float64 {
		return 100 * quotient(s.CPU*float64(s.Done), float64(s.elapsed.Microseconds()))
	}
	var done, asked, others float64
	for _, s := range war {
		done += float64(s.Done)
		asked += float64(s.Done + s.Wrong + s.Failed)
	}
	for _, s := range slices.Concat(peace, war) {
		others = max(others, s.Others)
	}
	calm, busy := median(peace, p99), median(war, p99)
	return []Figure{
		single(servedName, "%", 100*quotient(done, asked)),
		single("p50 in peace", "ms", median(peace, p50)), single("p50", "ms", median(war, p50)),
		single("p99 in peace", "ms", calm), single("p99", "ms", busy), single(slowerName, "", quotient(busy, calm)),
		single("CPU in peace", "% of one", median(peace, busyFor)), single("CPU", "% of one", median(war, busyFor)),
		single(othersName, "% of all CPUs", 100*others),
	}
}

func clean(samples []Sample) (clean []Sample) {
	for _, s := range samples {
		if s.Others <= disturbing {
			clean = append(clean, s)
		}
	}
	if clean == nil {
		return samples
	}
	return clean
}

// parseMedians reads the line of c/refusals.c, in nanoseconds.
func parseMedians(line string, count int) (medians []float64, err error) {
	for word := range strings.FieldsSeq(line) {
		var ns float64
		if _, err := fmt.Sscan(word, &ns); err != nil {
			return nil, fmt.Errorf("refusals said %q", line)
		}
		medians = append(medians, ns)
	}
	if len(medians) != count {
		return nil, fmt.Errorf("refusals said %q", line)
	}
	return medians, nil
}

// refusalFigures compares kinds of refusals. Each of all has a first median of
// every kind and then a second one. Between is how far the kinds are from each
// other, both their series together; noise how far the series of one kind are from
// one another. The medians of both over all repetitions are what is compared: one
// repetition finds a difference where there is none about one time in six.
func refusalFigures(kinds []string, all [][]float64) (figures []Figure) {
	n := len(kinds)
	var betweens, noises []float64
	of := make([][]float64, n)
	for _, medians := range all {
		var noise float64
		both := make([]float64, n)
		for i := range kinds {
			first, second := medians[i], medians[i+n]
			both[i] = (first + second) / 2
			noise = max(noise, first-second, second-first)
			of[i] = append(of[i], both[i])
		}
		betweens, noises = append(betweens, slices.Max(both)-slices.Min(both)), append(noises, noise)
	}
	for i, kind := range kinds {
		figures = append(figures, single(kind, "µs", spread(of[i]).Median/1e3))
	}
	between, noise := spread(betweens).Median, spread(noises).Median
	return append(figures, single("between", "ns", between), single("noise", "ns", noise), single(betweenName, "", quotient(between, noise)))
}
