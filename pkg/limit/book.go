package limit

// This file is the Book: who is admitted to one service. It does not know what
// an instance is, nor how a refusal looks on the wire.

import "time"

// DefaultMaxSources is how many sources a Book tells apart unless NewBook is
// told otherwise.
const DefaultMaxSources = 1 << 16

// When the table of sources is full, those without a place in it share this
// many accounts, by the hash of the network they are in.
const (
	sharedAccounts = 256
	sharedV4       = 24
	sharedV6       = 48
)

// How many slots a call looks at for one that is idle: always a few, so that
// the table empties by itself when a flood is over, and more while it is full.
const (
	sweepAlways = 2
	sweepFull   = 16
)

// A Book is the state of one service's limits: its instances, its bucket, and
// an account for each source that has an instance or is not yet done paying
// for its last ones. It is not safe for concurrent use.
//
// An account costs 48 bytes, and there are at most maxSources. A source's
// account is closed only when it says nothing any more: no instance, and a
// full bucket. So a flood of new sources frees nobody who is being limited.
// While every place is taken by such a source (or a newcomer finds no other
// among the 18 that it looks at), newcomers are counted together:
// each network of 24 (v4) or 48 (v6) bits falls, by a hash that nobody outside
// knows, on one of 256 shared accounts, which has the limits of one source. So
// newcomers are not all refused either, and those from other networks than the
// flood's seldom notice. A source that gets an account of its own afterwards
// starts afresh there; what it holds by the shared one ends there.
type Book struct {
	limits Limits
	whole  meter // Rate
	each   meter // RatePerSource

	now       int64 // the latest that was ever passed in
	at        moment
	instances int
	reserved  int

	sources table[account]
	max     int
	hand    int32 // where the sweep goes on
	shared  *[sharedAccounts]account
}

// An account is what one source owes: its leases, and the moment of its bucket
// in its two parts, which take 8 bytes less than a moment.
type account struct {
	ns     int64
	frac   uint32
	leases int32
}

func (a *account) at() moment { return moment{a.ns, a.frac} }

func (a *account) set(m moment) { a.ns, a.frac = m.ns, m.frac }

// A Lease is a place among the instances of one service. The zero Lease holds
// none. It belongs to the Book that gave it and is kept with the instance.
type Lease struct {
	// 0: none; above: 1 + the slot; below: -1 - the shared account, or nobodys
	account int32
}

// nobodys is the account of a lease that only counts for the whole.
const nobodys = -1 << 31

// NewBook returns an empty Book that tells maxSources sources apart, or
// DefaultMaxSources if that is 0 or less. It takes up memory as sources come.
func NewBook(l Limits, maxSources int) *Book {
	if maxSources <= 0 {
		maxSources = DefaultMaxSources
	}
	return &Book{
		limits: l,
		whole:  newMeter(l.Rate, l.Burst),
		each:   newMeter(l.RatePerSource, l.BurstPerSource),
		now:    nanos(-1 << 63),
		at:     full,
		max:    min(maxSources, 1<<30),
	}
}

// SetLimits changes the limits and keeps the books: instances stay counted, a
// source that was missing five tokens is missing five (or all that its bucket
// now holds), and a limit that was not there before starts with a full bucket.
// If the length of a source's prefix changes, instances that run are counted
// to the sources of old until they end. It takes time in proportion to
// Sources.
func (b *Book) SetLimits(l Limits) {
	whole, each := newMeter(l.Rate, l.Burst), newMeter(l.RatePerSource, l.BurstPerSource)
	b.at = whole.convert(b.now, b.at, &b.whole)
	for i := range b.sources.made {
		a := b.sources.at(i)
		a.set(each.convert(b.now, a.at(), &b.each))
	}
	if b.shared != nil {
		for i := range b.shared {
			a := &b.shared[i]
			a.set(each.convert(b.now, a.at(), &b.each))
		}
	}
	b.limits, b.whole, b.each = l, whole, each
}

// Admit asks for an instance on behalf of src, which Limits.Source has made.
// If every limit allows it, all is taken at once: a place among the instances,
// a token of the service's bucket and one of the source's, and the Lease must
// be given to Release when the instance has ended. Otherwise nothing is used
// up, the Lease is zero, and the Reason is the first limit in the way; those
// of the source are asked first, so that a source that is to blame is blamed.
func (b *Book) Admit(now time.Duration, src Source) (Lease, Reason) {
	return b.admit(now, src, false)
}

// Reserve takes a place among the instances before it is known for whom, and
// reports whether there was one. The place is given up by Unreserve, or turned
// into an instance by AdmitReserved.
func (b *Book) Reserve() bool {
	if b.full() {
		return false
	}
	b.reserved++
	return true
}

// Unreserve gives up a place that Reserve took.
func (b *Book) Unreserve() {
	if b.reserved == 0 {
		panic("limit: Unreserve without Reserve")
	}
	b.reserved--
}

// AdmitReserved is Admit for a caller who has a place by Reserve: if the
// Reason is OK, the reservation has become the instance's; if not, the caller
// still has it. It is never OverInstances.
func (b *Book) AdmitReserved(now time.Duration, src Source) (Lease, Reason) {
	if b.reserved == 0 {
		panic("limit: AdmitReserved without Reserve")
	}
	return b.admit(now, src, true)
}

// full reports whether all instances are taken or reserved.
func (b *Book) full() bool {
	return b.limits.Instances > 0 && b.instances+b.reserved >= b.limits.Instances
}

func (b *Book) admit(now time.Duration, src Source, reserved bool) (Lease, Reason) {
	e, why := b.look(now, src, reserved)
	if why != OK {
		return Lease{}, why
	}
	return b.take(src, e, true, reserved), OK
}

// An entry is where a source stands in a Book, until the next call of a method.
type entry struct {
	account *account // nil: it has none yet, and needs none if it is Nobody
	lease   Lease    // of account
}

// look finds out whether an instance may be had. It takes nothing.
func (b *Book) look(now time.Duration, src Source, reserved bool) (entry, Reason) {
	b.now = max(b.now, nanos(now))
	b.sweep(sweepAlways)

	// A source without an account has taken nothing: none of its own limits
	// can be in the way, unless it must share.
	var e entry
	if src.kind == kindNobody {
		e.lease.account = nobodys
	} else if i := b.sources.find(src); i != noSlot {
		e.account, e.lease.account = b.sources.at(i), i+1
	} else if b.sources.used >= b.max && !b.sweep(sweepFull) {
		k := int32(hashOf(src.widen(sharedV4, sharedV6)) % sharedAccounts)
		if b.shared == nil {
			b.shared = new([sharedAccounts]account)
			for i := range b.shared {
				b.shared[i].set(full)
			}
		}
		e.account, e.lease.account = &b.shared[k], -1-k
	}

	switch a := e.account; {
	case a != nil && b.limits.InstancesPerSource > 0 && int(a.leases) >= b.limits.InstancesPerSource:
		return e, OverInstancesPerSource
	case a != nil && !b.each.ready(b.now, a.at()):
		return e, OverRatePerSource
	case !reserved && b.full():
		return e, OverInstances
	case !b.whole.ready(b.now, b.at):
		return e, OverRate
	}
	return e, OK
}

// take enters an instance: paid says that it costs tokens.
func (b *Book) take(src Source, e entry, paid, reserved bool) Lease {
	if e.lease.account == 0 {
		i := b.sources.insert(src)
		e.account, e.lease.account = b.sources.at(i), i+1
		e.account.set(full)
	}
	if a := e.account; a != nil {
		a.leases++
		if paid {
			a.set(b.each.take(b.now, a.at()))
		}
	}
	if paid {
		b.at = b.whole.take(b.now, b.at)
	}
	b.instances++
	if reserved {
		b.reserved--
	}
	return e.lease
}

// Release gives back what Admit gave, except for the tokens, and zeroes *l: to
// release a lease twice, or the zero Lease, does nothing.
func (b *Book) Release(l *Lease) {
	k := l.account
	if k == 0 {
		return
	}
	l.account = 0
	b.instances--
	if k == nobodys {
		return
	}
	if k < 0 {
		b.shared[-1-k].leases--
		return
	}
	b.sources.at(k-1).leases--
	b.closeIdle(k - 1)
}

// closeIdle closes an account that says nothing any more, and reports whether
// it did.
func (b *Book) closeIdle(i int32) bool {
	s := b.sources.slot(i)
	if !s.used || s.val.leases > 0 || !s.val.at().over(b.now) {
		return false
	}
	b.sources.remove(i)
	return true
}

// sweep looks at the next n slots, at most, until it has closed an account.
func (b *Book) sweep(n int) bool {
	for ; n > 0 && b.sources.made > 0; n-- {
		b.hand++
		if b.hand >= b.sources.made {
			b.hand = 0
		}
		if b.closeIdle(b.hand) {
			return true
		}
	}
	return false
}

// Instances is how many leases are out. Reservations are not counted.
func (b *Book) Instances() int { return b.instances }

// Sources is how many sources have an account of their own.
func (b *Book) Sources() int { return b.sources.used }
