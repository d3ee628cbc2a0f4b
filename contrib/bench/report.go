package main

import (
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
	Machine  string            `json:"machine"`
	Programs map[string]string `json:"programs"` // server to version
	Settings string            `json:"settings"`
	Notices  []string          `json:"notices,omitempty"`
	Rows     []Row             `json:"rows,omitempty"`
	Memory   []Memory          `json:"memory,omitempty"` // medians over the rounds
	Syscalls []Syscalls        `json:"syscalls,omitempty"`
	Samples  []Sample          `json:"samples,omitempty"`
}

// Syscalls is what strace counted for one server.
type Syscalls struct {
	Scenario string  `json:"scenario"`
	Server   string  `json:"server"`
	Total    float64 `json:"per_conn"`
	Calls    []Call  `json:"calls"`
}

// text writes one table for each scenario; title says what a scenario is.
func (r *Report) text(w io.Writer, title func(scenario string) string) error {
	fmt.Fprintf(w, "%s\n%s\n", r.Machine, r.Settings)
	for _, name := range slices.Sorted(maps.Keys(r.Programs)) {
		fmt.Fprintf(w, "%s %s\n", name, r.Programs[name])
	}
	for _, n := range r.Notices {
		fmt.Fprintf(w, "notice: %s\n", n)
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	heading := func(scenario, columns string) {
		t.Flush()
		fmt.Fprintf(w, "\n%s: %s\n", scenario, title(scenario))
		fmt.Fprint(t, columns)
	}
	last := ""
	for _, x := range r.Rows {
		if x.Scenario != last {
			heading(x.Scenario, "server\tin flight\tconn/s\tmin\tmax\tp50 ms\tp99 ms\tCPU µs/conn\t× best peer\t× ceiling\t\n")
			last = x.Scenario
		}
		fmt.Fprintf(t, "%s\t%d\t%.0f\t%.0f\t%.0f\t%.2f\t%.2f\t%.0f\t%s\t%s\t%s\n", x.Server, x.InFlight,
			x.Rate.Median, x.Rate.Min, x.Rate.Max, x.P50, x.P99, x.CPU, ratio(x.BestPeer), ratio(x.Ceiling), x.remarks())
	}
	last = ""
	for _, m := range r.Memory {
		if m.Scenario != last {
			heading(m.Scenario, "server\tPSS KiB idle\tafter load\t\n")
			last = m.Scenario
		}
		fmt.Fprintf(t, "%s\t%d\t%d\t\n", m.Server, m.Idle, m.Loaded)
	}
	last = ""
	for _, s := range r.Syscalls {
		if s.Scenario != last {
			heading(s.Scenario, "server\tsystem calls/conn\t\n")
			last = s.Scenario
		}
		var calls []string
		for _, c := range s.Calls {
			if c.PerConn >= 0.1 {
				calls = append(calls, fmt.Sprintf("%s %.1f", c.Name, c.PerConn))
			}
		}
		fmt.Fprintf(t, "%s\t%.1f\t  %s\n", s.Server, s.Total, strings.Join(calls, ", "))
	}
	return t.Flush()
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
		fmt.Fprintf(&b, "  %d connections failed", x.Failed)
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
