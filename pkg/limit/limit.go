// Package limit counts what peers have taken and says when it is enough.
//
// A Book belongs to one service, or to the daemon, and holds its limits:
// instances at a time and starts per time, as a whole and for each source, which
// is a peer's address cut to a prefix, or on a unix socket its user. A Crowd
// belongs to one multiplexer and knows who holds its pending negotiations, so
// that in a full house the one who holds most makes room. A Line knows who waits
// for a place of a service, and whose turn it is.
//
// Only the offender suffers: a source that is over its limit is refused, and
// nothing of anybody else's is used up by that. Every structure here is
// bounded, whoever knocks and how often; what happens at the bound is said at
// each. No call does more than a bounded amount of work.
//
// The package has no clock: now is always an argument, a monotonic time since
// any fixed moment, and if it ever steps back it is taken to stand still. It
// has no lock either: whoever owns a Book, a Crowd or a Line locks it. It does not
// decide who may have a service at all; that is package access, and it comes
// first.
package limit

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"time"
)

// Limits are the limits of one service. The zero value limits nothing.
type Limits struct {
	Instances          int // at a time; 0: unlimited
	InstancesPerSource int // at a time; 0: unlimited

	Rate  Rate // starts of the service as a whole
	Burst int  // starts at once after a quiet time; 0: as many as Rate.N

	RatePerSource  Rate // starts by each source
	BurstPerSource int  // 0: as many as RatePerSource.N

	PrefixV4 int // bits that make a v4 source, 1 to 32; 0: DefaultPrefixV4
	PrefixV6 int // bits that make a v6 source, 1 to 128; 0: DefaultPrefixV6
}

// A Rate is N starts in every Per, evenly spread: 60 in a minute is one every
// second. The zero Rate is unlimited. N is at most MaxRate and Per at most
// MaxPer; what is above is taken as that.
type Rate struct {
	N   int
	Per time.Duration
}

// Bounds of Rate and of a burst.
const (
	MaxRate = 1_000_000_000        // N, and a burst
	MaxPer  = 366 * 24 * time.Hour // Per
)

// String is the rate as the configuration writes it where it can: "60/min".
// The unlimited rate is "0".
func (r Rate) String() string {
	if r.N <= 0 || r.Per <= 0 {
		return "0"
	}
	switch r.Per {
	case time.Second:
		return fmt.Sprintf("%d/s", r.N)
	case time.Minute:
		return fmt.Sprintf("%d/min", r.N)
	case time.Hour:
		return fmt.Sprintf("%d/h", r.N)
	case 24 * time.Hour:
		return fmt.Sprintf("%d/d", r.N)
	}
	return fmt.Sprintf("%d/%v", r.N, r.Per)
}

// A Reason says which limit a refusal is for.
type Reason uint8

// The reasons. OK is not a refusal.
const (
	OK Reason = iota
	OverInstances
	OverInstancesPerSource
	OverRate
	OverRatePerSource

	// The same of the daemon as a whole, see AdmitBoth.
	ServerInstances
	ServerInstancesPerSource
	ServerRate
	ServerRatePerSource
)

// OfServer is the reason of the daemon's own book that is like r, one of a
// service's.
func (r Reason) OfServer() Reason {
	if r == OK {
		return OK
	}
	return r - OverInstances + ServerInstances
}

// Passes reports whether a refusal is over when an instance ends: the others
// are over when time has passed.
func (r Reason) Passes() bool {
	return r == OverInstances || r == OverInstancesPerSource || r == ServerInstances || r == ServerInstancesPerSource
}

// OfSource reports whether a refusal is for a limit of the source: others may be
// admitted meanwhile.
func (r Reason) OfSource() bool {
	return r == OverInstancesPerSource || r == OverRatePerSource || r == ServerInstancesPerSource || r == ServerRatePerSource
}

// String is the word for the log, which is also the limit's key in the
// configuration, with "server_" before it for the daemon's.
func (r Reason) String() string {
	switch r {
	case OK:
		return "ok"
	case OverInstances:
		return "instances"
	case OverInstancesPerSource:
		return "instances_per_source"
	case OverRate:
		return "rate"
	case OverRatePerSource:
		return "rate_per_source"
	case ServerInstances:
		return "server_instances"
	case ServerInstancesPerSource:
		return "server_instances_per_source"
	case ServerRate:
		return "server_rate"
	case ServerRatePerSource:
		return "server_rate_per_source"
	}
	return fmt.Sprintf("Reason(%d)", uint8(r))
}

// The bits that make a source unless Limits says otherwise: a v4 address, and
// the v6 network that one customer's link has (RFC 4291, section 2.5.4).
const (
	DefaultPrefixV4 = 32
	DefaultPrefixV6 = 64
)

// A Source is what limits count a peer as. It is comparable, and small.
type Source struct {
	addr [16]byte // masked; a v4 address is in the first four bytes
	kind kind
	bits uint8
}

type kind uint8

const (
	kindNone kind = iota // no valid address: all such peers are one source
	kindV4
	kindV6
	kindUser    // addr begins with the uid
	kindMachine // addr begins with the context id
	kindNobody
)

// Nobody is the source of an instance that has no peer: only what limits the
// whole is asked for it.
var Nobody = Source{kind: kindNobody}

// User returns the source of a peer on a unix socket: its user.
func User(uid uint32) Source { return numbered(kindUser, uid) }

// Machine returns the source of a vsock peer: the virtual machine it is in, by
// its context id, vsock(7).
func Machine(cid uint32) Source { return numbered(kindMachine, cid) }

func numbered(k kind, n uint32) Source {
	s := Source{kind: k}
	binary.BigEndian.PutUint32(s.addr[:], n)
	return s
}

func (s Source) number() uint32 { return binary.BigEndian.Uint32(s.addr[:]) }

// Source returns the source of the peer at a: the prefix of the length that l
// sets. A v4-mapped address counts as v4, and a zone is of no account.
func (l *Limits) Source(a netip.Addr) Source {
	return sourceOf(a, l.PrefixV4, l.PrefixV6)
}

func sourceOf(a netip.Addr, v4, v6 int) Source {
	if v4 <= 0 || v4 > 32 {
		v4 = DefaultPrefixV4
	}
	if v6 <= 0 || v6 > 128 {
		v6 = DefaultPrefixV6
	}
	switch a = a.Unmap(); {
	case a.Is4():
		s := Source{kind: kindV4, bits: 32}
		b := a.As4()
		copy(s.addr[:], b[:])
		return s.widen(v4, v6)
	case a.Is6():
		return Source{kind: kindV6, bits: 128, addr: a.As16()}.widen(v4, v6)
	}
	return Source{}
}

// widen is the source that s is a part of and that has at most v4 or v6 bits.
func (s Source) widen(v4, v6 int) Source {
	bits := v6
	if s.kind == kindV4 {
		bits = v4
	}
	if s.kind != kindV4 && s.kind != kindV6 || int(s.bits) <= bits {
		return s
	}
	s.bits = uint8(bits)
	i := bits / 8
	if bits%8 != 0 {
		s.addr[i] &^= 0xff >> (bits % 8)
		i++
	}
	clear(s.addr[i:])
	return s
}

// Prefix is the source as a prefix; it is not valid for the source of peers
// without an address.
func (s Source) Prefix() netip.Prefix {
	switch s.kind {
	case kindV4:
		return netip.PrefixFrom(netip.AddrFrom4([4]byte(s.addr[:4])), int(s.bits))
	case kindV6:
		return netip.PrefixFrom(netip.AddrFrom16(s.addr), int(s.bits))
	}
	return netip.Prefix{}
}

// String is the source for the log: an address if it is a single one, else a
// prefix, a user as "uid:1000", a virtual machine as "vsock:3", or "unknown".
func (s Source) String() string {
	p := s.Prefix()
	switch {
	case s.kind == kindUser:
		return fmt.Sprintf("uid:%d", s.number())
	case s.kind == kindMachine:
		return fmt.Sprintf("vsock:%d", s.number())
	case !p.IsValid():
		return "unknown"
	case p.IsSingleIP():
		return p.Addr().String()
	}
	return p.String()
}
