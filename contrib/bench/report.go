package main

import (
	"cmp"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
)

// This file is how a report reads, as text and as JSON.

// A Report is everything that one call of the bench has measured.
type Report struct {
	Machine   string            `json:"machine"`
	Programs  map[string]string `json:"programs"` // server to version
	Settings  string            `json:"settings"`
	Notices   []string          `json:"notices,omitempty"`
	Scenarios []About           `json:"scenarios"`
	Rows      []Row             `json:"rows,omitempty"`
	Figures   []Figure          `json:"figures,omitempty"`
	Syscalls  []Syscalls        `json:"syscalls,omitempty"`
	Bars      []Verdict         `json:"bars,omitempty"`
	Samples   []Sample          `json:"samples,omitempty"`
}

// About says what a scenario is and what its rates are rates of.
type About struct {
	Name  string `json:"name"`
	Title string `json:"title"`
	Unit  string `json:"unit"`
}

// text writes the tables of one scenario after the other, then the bars.
func (r *Report) text(w io.Writer) error {
	fmt.Fprintf(w, "%s\n%s\n", r.Machine, r.Settings)
	for _, name := range slices.Sorted(maps.Keys(r.Programs)) {
		fmt.Fprintf(w, "%s %s\n", name, r.Programs[name])
	}
	for _, n := range r.Notices {
		fmt.Fprintf(w, "notice: %s\n", n)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	for _, about := range r.Scenarios {
		fmt.Fprintf(w, "\n%s: %s\n", about.Name, about.Title)
		for _, table := range []func(*tabwriter.Writer, About){r.rates, r.figures, r.syscalls} {
			table(t, about)
			t.Flush()
		}
	}
	t.Init(w, 0, 0, 2, ' ', 0)
	r.bars(t)
	return t.Flush()
}

// rates are compared with the other servers, or with the first variant.
func (r *Report) rates(t *tabwriter.Writer, about About) {
	heading := true
	for _, x := range r.Rows {
		if x.Scenario != about.Name {
			continue
		}
		variant, against := "", fmt.Sprintf("%s\t%s", ratio(x.BestPeer), ratio(x.Ceiling))
		if x.Variant != "" {
			variant, against = x.Variant+"\t", fmt.Sprintf("%s\t%s", ratio(x.First), ratio(x.FirstCPU))
		}
		if heading {
			columns := "server\tin flight\t%s/s\tmin\tmax\tp50 ms\tp99 ms\tCPU µs/%s\t× best peer\t× ceiling\t\n"
			if x.Variant != "" {
				columns = "server\tvariant\tin flight\t%s/s\tmin\tmax\tp50 ms\tp99 ms\tCPU µs/%s\t× first\tCPU × first\t\n"
			}
			fmt.Fprintf(t, columns, about.Unit, about.Unit)
			heading = false
		}
		fmt.Fprintf(t, "%s\t%s%d\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.*f\t%s\t%s\n", x.Server, variant, x.InFlight,
			x.Rate.Median, x.Rate.Min, x.Rate.Max, x.P50, x.P99, digits(x.CPU), x.CPU, against, x.remarks())
	}
}

// digits is how many places a small amount has.
func digits(x float64) int {
	if x < 20 {
		return 1
	}
	return 0
}

// figures are the medians, in one line for each server and variant.
func (r *Report) figures(t *tabwriter.Writer, about About) {
	type line struct{ server, variant string }
	var names []string
	var lines []line
	medians := map[line]map[string]string{}
	for _, f := range r.Figures {
		if f.Scenario != about.Name {
			continue
		}
		l, name := line{f.Server, f.Variant}, f.Name
		if f.Unit != "" {
			name += ", " + f.Unit
		}
		if !slices.Contains(names, name) {
			names = append(names, name)
		}
		if medians[l] == nil {
			lines, medians[l] = append(lines, l), map[string]string{}
		}
		medians[l][name] = fmt.Sprintf("%.*f", digits(f.Median), f.Median)
	}
	if len(lines) > 0 {
		fmt.Fprintf(t, "server\tvariant\t%s\t\n", strings.Join(names, "\t"))
	}
	for _, l := range lines {
		fmt.Fprintf(t, "%s\t%s\t", l.server, l.variant)
		for _, name := range names {
			fmt.Fprintf(t, "%s\t", cmp.Or(medians[l][name], "-"))
		}
		fmt.Fprintln(t)
	}
}

func (r *Report) syscalls(t *tabwriter.Writer, about About) {
	heading := true
	for _, s := range r.Syscalls {
		if s.Scenario != about.Name {
			continue
		}
		if heading {
			fmt.Fprint(t, "server\tin flight\tsystem calls/conn\t\n")
			heading = false
		}
		var calls []string
		for _, c := range s.Calls {
			if c.PerConn >= 0.05 {
				calls = append(calls, fmt.Sprintf("%s %.1f", c.Name, c.PerConn))
			}
		}
		fmt.Fprintf(t, "%s\t%d\t%.1f\t  %s\n", s.Server, s.InFlight, s.Total, strings.Join(calls, ", "))
	}
}

// bars are written if there is anything to judge.
func (r *Report) bars(t *tabwriter.Writer) {
	if len(r.Bars) == 0 {
		return
	}
	met, missed, missing := 0, 0, 0
	fmt.Fprint(t, "\nBARS\nmeasure\tbar\tmeasured\tmin\tmax\t\n")
	for _, v := range r.Bars {
		bar, places := fmt.Sprintf("≥ %.4g", v.Least), 3
		if v.Most > 0 {
			bar = fmt.Sprintf("≤ %.4g", v.Most)
		}
		if max(v.Least, v.Most) > 10 {
			places = 1
		}
		said := "met"
		switch {
		case v.Missing:
			missing++
			fmt.Fprintf(t, "%s\t%s\t-\t-\t-\tnot measured\n", v.Measure, bar)
			continue
		case v.Met:
			met++
		default:
			missed++
			said = "MISSED"
		}
		if v.Disturbed {
			said += ", but rests on disturbed samples"
		}
		fmt.Fprintf(t, "%s\t%s\t%.*f\t%.*f\t%.*f\t%s\n", v.Measure, bar,
			places, v.Measured.Median, places, v.Measured.Min, places, v.Measured.Max, said)
	}
	fmt.Fprintf(t, "%d met, %d missed, %d not measured\n", met, missed, missing)
}

func ratio(x float64) string {
	if x == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f", x)
}

// remarks says what speaks against a row.
func (x Row) remarks() string {
	var b strings.Builder
	if x.Disturbed > 0 {
		fmt.Fprintf(&b, "  %d of %d samples disturbed", x.Disturbed, x.Disturbed+x.Clean)
	}
	if x.Wrong > 0 {
		fmt.Fprintf(&b, "  %d wrong answers", x.Wrong)
	}
	if x.Failed > 0 {
		fmt.Fprintf(&b, "  %d failed", x.Failed)
	}
	return b.String()
}

func (r *Report) writeJSON(file string) error {
	b, err := json.MarshalIndent(r, "", "\t")
	if err != nil {
		return err
	}
	return os.WriteFile(file, append(b, '\n'), 0o644)
}
