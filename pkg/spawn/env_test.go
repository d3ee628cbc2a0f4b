package spawn

import (
	"slices"
	"testing"
)

func TestMergeEnv(t *testing.T) {
	for _, c := range []struct {
		env   []string
		extra string
		want  []string
	}{
		{nil, "", []string{}},
		{[]string{"A=1", "B=2"}, "", []string{"A=1", "B=2"}},
		{[]string{"A=1"}, "B=2\x00C=3\x00", []string{"A=1", "B=2", "C=3"}},
		{[]string{"A=1"}, "B=2\x00C=3", []string{"A=1", "B=2", "C=3"}},
		{[]string{"A=1", "B=2", "C="}, "B=x\x00C=y\x00", []string{"A=1", "B=x", "C=y"}},
		{[]string{"AB=1", "A=2"}, "A=x\x00", []string{"AB=1", "A=x"}},
		{[]string{"A=B=1"}, "A=B=2\x00", []string{"A=B=2"}},
		{[]string{"A=1"}, "\x00\x00B=\x00\x00", []string{"A=1", "B="}},
		{[]string{"A=1"}, "=x\x00", []string{"A=1", "=x"}},
		{[]string{"A=1"}, "A\x00", []string{"A=1", "A"}},
	} {
		if got := mergeEnv(c.env, []byte(c.extra)); !slices.Equal(got, c.want) {
			t.Errorf("mergeEnv(%q, %q) = %q, want %q", c.env, c.extra, got, c.want)
		}
	}
}

// After any block the merged environment has no name twice, unless one of the
// two had it twice.
func FuzzMergeEnv(f *testing.F) {
	f.Add("A=1", "B=2", "A=3\x00C=4\x00")
	f.Add("A=", "AA=", "A=\x00\x00=\x00A")
	f.Fuzz(func(t *testing.T, a, b, extra string) {
		env := []string{a, b}
		merged := mergeEnv(env, []byte(extra))
		at := 0
		for _, e := range env {
			if !replaced(e, []byte(extra)) {
				if merged[at] != e {
					t.Fatalf("entry %d is %q, want %q", at, merged[at], e)
				}
				at++
			}
		}
		rest := []byte(extra)
		for len(rest) > 0 {
			var e []byte
			if e, rest = cutEnv(rest); len(e) == 0 {
				continue
			}
			if merged[at] != string(e) {
				t.Fatalf("entry %d is %q, want %q", at, merged[at], e)
			}
			at++
		}
		if at != len(merged) {
			t.Fatalf("%d entries, want %d", len(merged), at)
		}
	})
}
