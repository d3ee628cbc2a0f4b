package pressure

import (
	"os"
	"path/filepath"
	"testing"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	f := files{filepath.Join(dir, "load"), filepath.Join(dir, "memory")}
	write := func(path, text string) {
		t.Helper()
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write(f.load, "15.82 11.50 6.23 15/246 6700\n")
	write(f.memory, "some avg10=12.50 avg60=0.00 avg300=0.00 total=0\nfull avg10=3.25 avg60=0.00 avg300=0.00 total=0\n")
	if l, err := f.Read(Want{true, true}); err != nil || l != (Levels{15.82, 12.5, 3.25}) {
		t.Errorf("%+v, %v", l, err)
	}
	// What is not wanted need not be there.
	none := files{filepath.Join(dir, "none"), filepath.Join(dir, "none")}
	if _, err := (files{f.load, none.memory}).Read(Want{Load: true}); err != nil {
		t.Error(err)
	}
	if _, err := (files{none.load, f.memory}).Read(Want{Memory: true}); err != nil {
		t.Error(err)
	}
	for _, want := range []Want{{Load: true}, {Memory: true}} {
		if _, err := none.Read(want); err == nil {
			t.Errorf("%+v: no error", want)
		}
	}
	for _, text := range []string{"", "x", "-1 0", "nan 0", "inf 0", "1e300 0"} {
		write(f.load, text)
		if l, err := f.Read(Want{Load: true}); err == nil {
			t.Errorf("%q is %+v", text, l)
		}
	}
	for _, text := range []string{"", "some avg10=1 x\n", "full avg10=1 x\n", "some avg10=x y\nfull avg10=1 y\n", "awesome avg10=1 x\nfull avg10=1 x\n"} {
		write(f.memory, text)
		if l, err := f.Read(Want{Memory: true}); err == nil {
			t.Errorf("%q is %+v", text, l)
		}
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte("0.20 0.18 0.12 1/80 11206\n"))
	f.Add([]byte("some avg10=0.00 avg60=0.00 avg300=0.00 total=0\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if v, err := parseLoad(text); err == nil && !(v >= 0) {
			t.Errorf("load %v", v)
		}
		if some, full, err := parsePressure(text); err == nil && !(some >= 0 && full >= 0) {
			t.Errorf("pressure %v, %v", some, full)
		}
	})
}
