// Package pressure reads how busy the machine is: its load average, and how much
// of the time processes have waited for memory (PSI).
//
// It decides nothing and has no clock: who wants to know reads as often as he
// likes, and a Source that is none of the machine's can take its place.
package pressure

import (
	"bytes"
	"fmt"
	"os"
	"strconv"
)

// Levels is one reading.
type Levels struct {
	Load       float64 // of one minute
	MemorySome float64 // percent of the last ten seconds in which some task waited for memory
	MemoryFull float64 // ... and in which all did
}

// A Source is asked for Levels. Of the fields that are false in want the answer
// may have any value.
type Source interface {
	Read(want Want) (Levels, error)
}

// Want says what is to be read.
type Want struct{ Load, Memory bool }

// System is the machine itself. It is read from proc(5), in two files at most.
var System Source = files{"/proc/loadavg", "/proc/pressure/memory"}

type files struct{ load, memory string }

func (f files) Read(want Want) (l Levels, err error) {
	if want.Load {
		text, err := os.ReadFile(f.load)
		if err != nil {
			return l, err
		}
		if l.Load, err = parseLoad(text); err != nil {
			return l, fmt.Errorf("%s: %w", f.load, err)
		}
	}
	if want.Memory {
		text, err := os.ReadFile(f.memory)
		if err != nil {
			return l, err
		}
		if l.MemorySome, l.MemoryFull, err = parsePressure(text); err != nil {
			return l, fmt.Errorf("%s: %w", f.memory, err)
		}
	}
	return l, nil
}

// parseLoad reads proc_loadavg(5): "0.20 0.18 0.12 1/80 11206".
func parseLoad(text []byte) (float64, error) {
	first, _, _ := bytes.Cut(text, []byte(" "))
	return number(first)
}

// parsePressure reads a file of the kernel's accounting/psi.rst:
//
//	some avg10=0.00 avg60=0.00 avg300=0.00 total=0
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func parsePressure(text []byte) (some, full float64, err error) {
	for _, l := range []struct {
		name string
		to   *float64
	}{{"some", &some}, {"full", &full}} {
		_, rest, ok := bytes.Cut(append([]byte("\n"), text...), []byte("\n"+l.name+" avg10="))
		if !ok {
			return 0, 0, fmt.Errorf("there is no \"%s avg10=\" in it", l.name)
		}
		value, _, _ := bytes.Cut(rest, []byte(" "))
		if *l.to, err = number(value); err != nil {
			return 0, 0, err
		}
	}
	return some, full, nil
}

func number(b []byte) (float64, error) {
	v, err := strconv.ParseFloat(string(b), 64)
	if err == nil && !(v >= 0 && v < 1e9) {
		err = fmt.Errorf("%q is out of bounds", b)
	}
	return v, err
}
