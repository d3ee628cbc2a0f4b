package logs

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

// A word is a value that makes its text itself.
type word string

func (w word) LogValue() slog.Value                { return slog.StringValue(string(w)) }
func (w word) AppendText(b []byte) ([]byte, error) { return append(b, w...), nil }

// late is a value that slog asks for.
type late string

func (l late) LogValue() slog.Value { return slog.StringValue(string(l)) }

// both formats one event with a line and with slog, at the same moment.
func both(asJSON bool, at time.Time, level slog.Level, msg string, attrs []slog.Attr) (got, want string, ok bool) {
	var b bytes.Buffer
	o := &slog.HandlerOptions{Level: slog.LevelDebug}
	h := slog.Handler(slog.NewTextHandler(&b, o))
	if asJSON {
		h = slog.NewJSONHandler(&b, o)
	}
	r := slog.NewRecord(at, level, msg, 0)
	r.AddAttrs(attrs...)
	h.Handle(context.Background(), r)
	l := newLine()
	ok = l.make(asJSON, at, level, msg, attrs)
	return string(l.b), b.String(), ok
}

func FuzzLine(f *testing.F) {
	for _, s := range []string{"", "word", "two words", "a=b", `quo"te`, `back\slash`, "tab\t", "nul\x00", "\x7f", "<&>", "ü", "\u2028", "\ufeff", "\xff\xfe", "日本", "no\u00a0break", "\u200b", "100%"} {
		f.Add(s, s, int64(1), int64(1795393204123456789))
	}
	f.Add("key", "value", int64(math.MinInt64), int64(0))
	f.Add("before", "1970", int64(-1), int64(-48))
	f.Fuzz(func(t *testing.T, key, value string, n, at int64) {
		for _, zone := range []*time.Location{time.UTC, time.FixedZone("", -3*3600-1800)} {
			when := time.Unix(0, at).In(zone)
			if y := when.Year(); y < 1 || y > 9999 {
				return
			}
			attrs := []slog.Attr{
				slog.String(key, value), slog.Any("word", word(value)), slog.Any("late", late(value)),
				slog.Int64("n", n), slog.Uint64("u", uint64(n)), slog.Duration("d", time.Duration(n)), slog.Bool("b", n > 0),
			}
			for _, asJSON := range []bool{false, true} {
				got, want, ok := both(asJSON, when, slog.LevelWarn, value, attrs)
				if !ok || got != want {
					t.Errorf("it is\n%s, want\n%s", got, want)
				}
			}
		}
	})
}

// Of the time of one line nothing is left in that of the next but what is the same.
func TestTimesOfLines(t *testing.T) {
	l := newLine()
	at := time.Date(2026, 11, 29, 23, 59, 59, 998_999_999, time.UTC)
	for range 5 {
		l.make(false, at, slog.LevelInfo, "x", nil)
		if want := at.Format("time=2006-01-02T15:04:05.000Z07:00 "); !strings.HasPrefix(string(l.b), want) {
			t.Errorf("%q, want %q", l.b, want)
		}
		at = at.Add(time.Millisecond)
	}
}

// What only slog can format it does.
func TestOtherValues(t *testing.T) {
	testkit.Check(t)
	out := newStuck()
	close(out.free)
	w := New(out, dropped)
	h := NewHandler(w, true, slog.LevelInfo)
	h.Emit(slog.LevelInfo, "list", []slog.Attr{slog.Any("list", []int{1, 2})})
	h.Emit(slog.LevelDebug, "not", nil)
	slog.New(h).Info("logger", "n", 1)
	w.Close(time.Minute)
	got := out.String()
	if !strings.Contains(got, `"msg":"list","list":[1,2]}`) || !strings.Contains(got, `"msg":"logger","n":1}`) || strings.Contains(got, "not") {
		t.Errorf("the log is %s", got)
	}
}

func some() []slog.Attr {
	return []slog.Attr{slog.String("service", "tcpmux/+date"), slog.Any("peer", word("192.0.2.1:12345")), slog.Any("local", word("192.0.2.2:1")),
		slog.Int("pid", 12345), slog.Int("status", 0), slog.Duration("duration", 1234*time.Microsecond), slog.Int64("maxrss_kb", 1234)}
}

func TestEmitDoesNotAllocate(t *testing.T) {
	w := New(io.Discard, dropped)
	defer w.Close(time.Minute)
	attrs := some()
	for _, asJSON := range []bool{false, true} {
		h := NewHandler(w, asJSON, slog.LevelInfo)
		if n := testing.AllocsPerRun(1000, func() { h.Emit(slog.LevelInfo, "end", attrs) }); n != 0 {
			t.Errorf("%v allocations for a line (JSON: %v)", n, asJSON)
		}
	}
}

func BenchmarkEmit(b *testing.B) {
	w := New(io.Discard, dropped)
	defer w.Close(time.Minute)
	attrs := some()
	h := NewHandler(w, false, slog.LevelInfo)
	b.Run("line", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			h.Emit(slog.LevelInfo, "end", attrs)
		}
	})
	b.Run("slog", func(b *testing.B) {
		b.ReportAllocs()
		for b.Loop() {
			r := slog.NewRecord(time.Now(), slog.LevelInfo, "end", 0)
			r.AddAttrs(attrs...)
			h.Handle(context.Background(), r)
		}
	})
}
