// access.hours and access.timezone: from "mon-fri 08:00-18:00" to access.Hours.

package config

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

var weekdays = []string{"mon", "tue", "wed", "thu", "fri", "sat", "sun"}

// hours reads access.hours and access.timezone.
func (r *row) hours() *access.Hours {
	a := &r.text.Access
	if a.Hours.IsSet() && len(a.Hours.V) == 0 {
		r.errorf("access.hours", a.Hours.Pos, "an empty list would always let nobody in; take it out, or write enabled = false")
	}
	if a.Timezone.IsSet() && !a.Hours.IsSet() && !r.inherited["access.timezone"] && !r.isDefaults() && !r.bad("access.hours") {
		r.errorf("access.timezone", a.Timezone.Pos, "means nothing without access.hours; write those as well, or take it out")
	}
	var spans []access.Span
	for _, h := range a.Hours.V {
		if !h.IsSet() {
			continue
		}
		list, wrong := parseHours(h.V)
		if wrong != "" {
			r.errorf("access.hours", h.Pos, "%s %s; write such as \"mon-fri 08:00-18:00\" or \"22:00-06:00\" instead", clip(h.V), wrong)
		}
		spans = append(spans, list...)
	}
	z, ok := r.zone(a)
	if !ok || len(spans) == 0 {
		return nil
	}
	h := access.NewHours(spans, z.location, z.rules)
	if h.Always() && !r.inherited["access.hours"] {
		r.warnf("access.hours", a.Hours.Pos, "this is the whole week; take it out")
	}
	return h
}

// parseHours reads "08:00-18:00", of every day, or of the days before it:
// "mon,wed-fri 08:00-18:00". An end that is not after its beginning is on the next
// day. wrong says what is wrong.
func parseHours(s string) (spans []access.Span, wrong string) {
	fields := strings.Fields(s)
	days := []int{0, 1, 2, 3, 4, 5, 6}
	switch len(fields) {
	case 1:
	case 2:
		if days, wrong = parseDays(fields[0]); wrong != "" {
			return nil, wrong
		}
	default:
		return nil, "is not days and two times"
	}
	from, to, ok := strings.Cut(fields[len(fields)-1], "-")
	begin, ok1 := parseClock(from)
	end, ok2 := parseClock(to)
	switch {
	case !ok || !ok1 || !ok2 || begin == access.Day:
		return nil, "has no two times from 00:00 to 24:00 in it"
	case begin == end:
		return nil, "ends when it begins (a whole day is 00:00-24:00)"
	case end < begin:
		end += access.Day
	}
	for _, d := range days {
		spans = append(spans, access.Span{From: d*access.Day + begin, To: d*access.Day + end})
	}
	return spans, ""
}

func parseDays(s string) (days []int, wrong string) {
	for part := range strings.SplitSeq(s, ",") {
		from, to, isRange := strings.Cut(part, "-")
		first := slices.Index(weekdays, from)
		last := first
		if isRange {
			last = slices.Index(weekdays, to)
		}
		if first < 0 || last < 0 {
			return nil, fmt.Sprintf("has %s where a day is wanted, which is one of mon, tue, wed, thu, fri, sat and sun", clip(part))
		}
		for d := first; ; d = (d + 1) % 7 {
			days = append(days, d)
			if d == last {
				break
			}
		}
	}
	return days, ""
}

// parseClock reads "HH:MM" as minutes.
func parseClock(s string) (minutes int, ok bool) {
	if len(s) != 5 || s[2] != ':' {
		return 0, false
	}
	digit := func(i int) int {
		if s[i] < '0' || s[i] > '9' {
			return 1000
		}
		return int(s[i] - '0')
	}
	hour, minute := 10*digit(0)+digit(1), 10*digit(3)+digit(4)
	if hour > 24 || minute > 59 || hour == 24 && minute > 0 {
		return 0, false
	}
	return 60*hour + minute, true
}

// A zone is a time zone with its rules, by which two are compared.
type zone struct {
	location *time.Location
	rules    string
}

func sameZone(a, b zone) bool { return a.rules == b.rules }

// zone is that of access.timezone, or the machine's own.
func (r *row) zone(a *Access) (zone, bool) {
	if !a.Hours.IsSet() && !a.Timezone.IsSet() {
		return zone{}, false
	}
	if a.Timezone.IsSet() && !validZone(a.Timezone.V) {
		r.errorf("access.timezone", a.Timezone.Pos, "%s is no name of a time zone; write one such as \"Europe/Berlin\" or \"UTC\" instead", clip(a.Timezone.V))
		return zone{}, false
	}
	z, err := r.c.asked.zones.ask(a.Timezone.V, r.c.o.zone)
	switch {
	case err == nil:
		return z, true
	case !a.Timezone.IsSet():
		r.errorf("access.hours", a.Hours.Pos, "the time zone of this machine cannot be read: %v; write access.timezone = \"UTC\" or another", reason(err))
	case errors.Is(err, os.ErrNotExist):
		r.errorf("access.timezone", a.Timezone.Pos, "there is no time zone %s on this machine; write the name of a file below /usr/share/zoneinfo, or install tzdata", clip(a.Timezone.V))
	default:
		r.errorf("access.timezone", a.Timezone.Pos, "%s cannot be read: %v; write the name of a file of tzdata below /usr/share/zoneinfo", clip(a.Timezone.V), reason(err))
	}
	return zone{}, false
}

func validZone(s string) bool {
	return s != "" && len(s) < 100 && s[0] != '/' && path.Clean(s) == s && !strings.HasPrefix(s, "..") && !strings.ContainsRune(s, 0)
}

func (o *Options) zone(name string) (zone, error) {
	if name == "UTC" {
		return zone{time.UTC, name}, nil // also where there is no tzdata
	}
	text, err := o.Zone(name)
	if err != nil {
		return zone{}, err
	}
	called := name
	if called == "" {
		called = "local"
	}
	l, err := time.LoadLocationFromTZData(called, text)
	return zone{l, called + string(text)}, err
}

// zoneDirs are where tzdata is installed.
var zoneDirs = []string{"/usr/share/zoneinfo", "/etc/zoneinfo"}

const maxZoneFile = 1 << 20

// readZone is Options.Zone of this machine: TZ and /etc/localtime say what its own
// is, as for every other program.
func readZone(name string) ([]byte, error) {
	if name == "" {
		tz, set := os.LookupEnv("TZ")
		switch tz = strings.TrimPrefix(tz, ":"); {
		case !set:
			text, err := readFile("/etc/localtime", maxZoneFile)
			if errors.Is(err, os.ErrNotExist) {
				return utc, nil
			}
			return text, err
		case tz == "" || tz == "UTC":
			return utc, nil
		case tz[0] == '/':
			return readFile(tz, maxZoneFile)
		}
		name = tz
	}
	err := error(os.ErrNotExist)
	for _, dir := range zoneDirs {
		text, e := readFile(path.Join(dir, name), maxZoneFile)
		if e == nil {
			return text, nil
		}
		if !errors.Is(e, os.ErrNotExist) {
			err = e
		}
	}
	return nil, err
}

// utc is the smallest tzfile(5): no changes, one type of local time, and its name.
var utc = []byte("TZif" + strings.Repeat("\x00", 16) +
	"\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x01\x00\x00\x00\x04" + // counts
	"\x00\x00\x00\x00\x00\x00" + "UTC\x00")
