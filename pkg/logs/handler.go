package logs

// Lines without memory of their own: the same bytes as log/slog's handlers make,
// for events that come with every connection. Whatever is not on that path, or
// not so simple, goes to those handlers.

import (
	"context"
	"encoding"
	"log/slog"
	"math"
	"slices"
	"strconv"
	"time"
	"unicode"
	"unicode/utf8"
)

// A Handler is a slog.Handler that writes text (key=value) or JSON to a Writer.
type Handler struct {
	slog.Handler
	out   *Writer
	level slog.Leveler
	json  bool
}

// NewHandler makes a Handler. The Writer takes each line whole.
func NewHandler(out *Writer, asJSON bool, level slog.Leveler) *Handler {
	h := &Handler{out: out, level: level, json: asJSON}
	if o := (&slog.HandlerOptions{Level: level}); asJSON {
		h.Handler = slog.NewJSONHandler(out, o)
	} else {
		h.Handler = slog.NewTextHandler(out, o)
	}
	return h
}

// A line is the memory for one, kept for the next.
type line struct {
	b, value []byte

	second int64 // what the next two are for
	stamp  []byte
	zone   []byte
}

// newLine is one for no second yet.
func newLine() line { return line{second: math.MinInt64} }

// Emit writes the line of an event now, as Handle would. It keeps nothing of attrs
// and allocates nothing, if their values are strings, numbers, durations, truth
// values, or slog.LogValuers that are encoding.TextAppenders as well.
func (h *Handler) Emit(level slog.Level, msg string, attrs []slog.Attr) {
	if level < h.level.Level() {
		return
	}
	now := time.Now()
	if h.out.emit(h.json, now, level, msg, attrs) {
		return
	}
	r := slog.NewRecord(now, level, msg, 0)
	r.AddAttrs(slices.Clone(attrs)...)
	h.Handler.Handle(context.Background(), r)
}

// emit is Write for a line that is made with the memory of the Writer.
func (w *Writer) emit(asJSON bool, now time.Time, level slog.Level, msg string, attrs []slog.Attr) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	ok := w.line.make(asJSON, now, level, msg, attrs)
	if ok {
		w.takeLocked(w.line.b)
	}
	return ok
}

// make makes the line in l.b. It reports false for what only slog can format.
func (l *line) make(asJSON bool, now time.Time, level slog.Level, msg string, attrs []slog.Attr) bool {
	b := l.b[:0]
	if asJSON {
		b = now.AppendFormat(append(b, `{"time":"`...), time.RFC3339Nano)
		b = append(append(append(b, `","level":"`...), level.String()...), `","msg":`...)
		b = appendJSON(b, msg)
	} else {
		b = l.appendTime(append(b, "time="...), now)
		b = append(append(append(b, " level="...), level.String()...), " msg="...)
		b = appendText(b, msg)
	}
	for i := range attrs {
		if asJSON {
			b = append(appendJSON(append(b, ','), attrs[i].Key), ':')
		} else {
			b = append(appendText(append(b, ' '), attrs[i].Key), '=')
		}
		var ok bool
		if b, ok = l.appendValue(b, asJSON, attrs[i].Value); !ok {
			return false
		}
	}
	if asJSON {
		b = append(b, '}')
	}
	l.b = append(b, '\n')
	return true
}

// appendTime is RFC 3339 with milliseconds. Of what does not change within a
// second the text is kept.
func (l *line) appendTime(b []byte, t time.Time) []byte {
	if s := t.Unix(); s != l.second {
		l.second = s
		l.stamp = t.AppendFormat(l.stamp[:0], "2006-01-02T15:04:05.")
		l.zone = t.AppendFormat(l.zone[:0], "Z07:00")
	}
	ms := t.Nanosecond() / int(time.Millisecond)
	b = append(b, l.stamp...)
	b = append(b, '0'+byte(ms/100), '0'+byte(ms/10%10), '0'+byte(ms%10))
	return append(b, l.zone...)
}

func (l *line) appendValue(b []byte, asJSON bool, v slog.Value) ([]byte, bool) {
	if v.Kind() == slog.KindLogValuer {
		if a, ok := v.Any().(encoding.TextAppender); ok {
			var err error
			if l.value, err = a.AppendText(l.value[:0]); err != nil {
				return b, false
			}
			return appendString(b, asJSON, l.value), true
		}
		v = v.Resolve()
	}
	switch v.Kind() {
	case slog.KindString:
		return appendString(b, asJSON, v.String()), true
	case slog.KindInt64:
		return strconv.AppendInt(b, v.Int64(), 10), true
	case slog.KindUint64:
		return strconv.AppendUint(b, v.Uint64(), 10), true
	case slog.KindBool:
		return strconv.AppendBool(b, v.Bool()), true
	case slog.KindDuration:
		if asJSON {
			return strconv.AppendInt(b, int64(v.Duration()), 10), true
		}
		return append(b, v.Duration().String()...), true
	}
	return b, false
}

func appendString[T string | []byte](b []byte, asJSON bool, s T) []byte {
	if asJSON {
		return appendJSON(b, s)
	}
	return appendText(b, s)
}

// plain reports whether a character below utf8.RuneSelf stands for itself in a
// JSON string.
func plain(c byte) bool { return c >= ' ' && c != '"' && c != '\\' }

// appendText quotes what would not be one word, or not one line.
func appendText[T string | []byte](b []byte, s T) []byte {
	word := len(s) > 0
	for i := 0; word && i < len(s); i++ {
		switch c := s[i]; {
		case c >= utf8.RuneSelf:
			return appendForeign(b, string(s))
		case c != '\\' && (c == ' ' || c == '=' || !plain(c)):
			word = false
		}
	}
	if word {
		return append(b, s...)
	}
	return strconv.AppendQuote(b, string(s))
}

// appendForeign is appendText for what is not all ASCII.
func appendForeign(b []byte, s string) []byte {
	for _, r := range s {
		if r == utf8.RuneError || r < utf8.RuneSelf && r != '\\' && (r == ' ' || r == '=' || !plain(byte(r))) ||
			r >= utf8.RuneSelf && (unicode.IsSpace(r) || !unicode.IsPrint(r)) {
			return strconv.AppendQuote(b, s)
		}
	}
	return append(b, s...)
}

func appendJSON[T string | []byte](b []byte, s T) []byte {
	for i := 0; i < len(s); i++ {
		if c := s[i]; c >= utf8.RuneSelf || !plain(c) {
			return appendEscaped(b, string(s))
		}
	}
	return append(append(append(b, '"'), s...), '"')
}

// appendEscaped is appendJSON for what has to be escaped (RFC 8259 section 7), or may
// have to: the two line separators that older JavaScript knows are, too.
func appendEscaped(b []byte, s string) []byte {
	const hex = "0123456789abcdef"
	b = append(b, '"')
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1:
			b = append(b, `\ufffd`...)
		case r == '\u2028' || r == '\u2029':
			b = append(b, `\u202`...)
			b = append(b, hex[r&0xf])
		case r >= utf8.RuneSelf || plain(byte(r)):
			b = append(b, s[i:i+size]...)
		case r == '"' || r == '\\':
			b = append(b, '\\', byte(r))
		case r == '\n':
			b = append(b, `\n`...)
		case r == '\r':
			b = append(b, `\r`...)
		case r == '\t':
			b = append(b, `\t`...)
		default:
			b = append(b, `\u00`...)
			b = append(b, hex[r>>4], hex[r&0xf])
		}
		i += size
	}
	return append(b, '"')
}
