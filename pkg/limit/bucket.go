package limit

// This file is the token bucket, as the generic cell rate algorithm (ITU-T
// I.371) has it: one moment of time is a whole bucket. It knows no sources and
// no services.

import (
	"math"
	"math/bits"
	"time"
)

// A moment is the state of one bucket: the time at which it is full again. It
// is exact: ns nanoseconds and frac parts of a nanosecond, of which there are
// as many as the meter's n. A bucket that is read by another meter must go
// through convert first.
type moment struct {
	ns   int64
	frac uint32
}

// full is the moment of a bucket that nobody has taken from.
var full = moment{ns: math.MinInt64}

// over reports whether a bucket is full at now.
func (m moment) over(now int64) bool { return m.ns < now || m.ns == now && m.frac == 0 }

// A meter is a Rate and a burst, prepared. The zero meter is unlimited.
//
// An admission pushes the moment on by step, the time that one token takes to
// drip in, and is allowed as long as the moment is not further off than slack,
// the time that all tokens but one take. Both are fractions with denominator
// n, so that nothing is ever rounded: 7 in a second are 7, for ever.
type meter struct {
	n     uint32 // Rate.N; 0: unlimited
	burst uint32
	per   int64 // Rate.Per in ns
	step  moment
	slack moment
}

func newMeter(r Rate, burst int) meter {
	if r.N <= 0 || r.Per <= 0 {
		return meter{}
	}
	if burst <= 0 {
		burst = r.N
	}
	m := meter{
		n:     uint32(min(r.N, MaxRate)),
		burst: uint32(min(burst, MaxRate)),
		per:   int64(min(r.Per, MaxPer)),
	}
	m.step = m.span(1)
	m.slack = m.span(uint64(m.burst) - 1)
	return m
}

// span is the time that so many tokens take. It is capped at 73 years.
func (m *meter) span(tokens uint64) moment {
	hi, lo := bits.Mul64(tokens, uint64(m.per))
	return m.quotient(hi, lo)
}

// quotient is the 128-bit number hi, lo, in parts of a nanosecond, as a moment.
func (m *meter) quotient(hi, lo uint64) moment {
	const most = 1 << 61
	if hi >= uint64(m.n) {
		return moment{ns: most}
	}
	q, r := bits.Div64(hi, lo, uint64(m.n))
	if q > most {
		return moment{ns: most}
	}
	return moment{ns: int64(q), frac: uint32(r)}
}

// ready reports whether a bucket has a token at now.
func (m *meter) ready(now int64, at moment) bool {
	if m.n == 0 || at.over(now) {
		return true
	}
	d := at.ns - now // not negative, and both are far from the ends of int64
	return d < m.slack.ns || d == m.slack.ns && at.frac <= m.slack.frac
}

// take is the bucket after one token was taken from it at now.
func (m *meter) take(now int64, at moment) moment {
	if m.n == 0 {
		return full
	}
	if at.over(now) {
		at = moment{ns: now}
	}
	return m.later(at, m.step)
}

// later is at + d.
func (m *meter) later(at, d moment) moment {
	at.ns += d.ns
	at.frac += d.frac // below 2*MaxRate, which fits
	if at.frac >= m.n {
		at.frac -= m.n
		at.ns++
	}
	return at
}

// convert is the bucket at of meter old as a bucket of m: as many tokens are
// missing from it as before, but not more than it holds now. It may round up
// by one part of a nanosecond.
func (m *meter) convert(now int64, at moment, old *meter) moment {
	if m.n == 0 || old.n == 0 || at.over(now) {
		return full
	}
	if m.n == old.n && m.per == old.per && m.burst == old.burst {
		return at
	}
	// missing = (ns*n + frac) / per tokens; whole ones and a rest below per.
	hi, lo := bits.Mul64(uint64(at.ns-now), uint64(old.n))
	lo, carry := bits.Add64(lo, uint64(at.frac), 0)
	hi += carry
	if hi >= uint64(old.per) {
		return m.later(moment{ns: now}, m.span(uint64(m.burst)))
	}
	whole, rest := bits.Div64(hi, lo, uint64(old.per))
	if whole >= uint64(m.burst) {
		return m.later(moment{ns: now}, m.span(uint64(m.burst)))
	}
	// The rest, below one token, becomes rest/old.per of a token of m.
	hi, lo = bits.Mul64(rest, uint64(m.per))
	part, r := bits.Div64(hi, lo, uint64(old.per)) // rest < old.per, so part < m.per
	if r > 0 {
		part++
	}
	hi, lo = bits.Mul64(whole, uint64(m.per))
	lo, carry = bits.Add64(lo, part, 0)
	return m.later(moment{ns: now}, m.quotient(hi+carry, lo))
}

// nanos is a time as the meters count it, kept away from the ends of int64 so
// that sums of a moment and spans stay inside.
func nanos(d time.Duration) int64 { return min(max(int64(d), -1<<61), 1<<61) }
