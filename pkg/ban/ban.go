// Package ban keeps the books on sources that try names: who has asked for how
// many names that he may not have, and who is held off until when.
//
// Its memory is bounded, whoever asks and how often. A record costs about 150
// bytes, and 40 for each name of a source that is watched: names count by their
// hash, and of each no more than its beginning is kept, for the log. A ban stands
// until its time is over or somebody lifts it; no number of other sources can
// push it out. What gives way to a newcomer is whoever of those that are only
// watched was heard of least recently; if all records are bans, newcomers are
// not watched until one of them is over.
//
// The package has no clock: now is always an argument, a monotonic time since
// any fixed moment. It has no lock either: whoever owns a Book locks it. It
// refuses nobody, logs nothing, and does not know which names there are.
package ban

import (
	"container/heap"
	"hash/maphash"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

// Limits say what makes a scanner. All of them are above 0.
type Limits struct {
	Names   int           // so many different names ...
	Within  time.Duration // ... within so long ...
	Hold    time.Duration // ... hold a source off for so long
	Sources int           // records at most, watched and banned together
}

// A Ban is one source that is held off.
type Ban struct {
	Source  limit.Source
	Until   time.Duration // on the clock of now
	Refused uint64        // how often it has come since
}

// nameKept is how much of a name is kept for the log, in bytes.
const nameKept = 23

// A name is one that a source has asked for.
type name struct {
	hash uint64
	at   time.Duration // the last time
	size uint8
	text [nameKept]byte
}

// A record is what is known of one source.
type record struct {
	source  limit.Source
	names   []name // watched only; the last to come is the last here, too
	heard   time.Duration
	until   time.Duration
	refused uint64
	place   int32 // in the heap of bans; -1: it is watched
	// In the queue of those that are watched, or the list of free records.
	prev, next int32
}

// A Book is the records of all sources. It is not safe for concurrent use.
type Book struct {
	limits  Limits
	index   map[limit.Source]int32
	records []record // number 0 is none
	free    int32
	// Those that are watched, least recently heard first.
	first, last int32
	held        byEnd
	missed      uint64
}

// New makes an empty Book. It takes up memory as sources come.
func New(l Limits) *Book {
	b := &Book{limits: l}
	b.reset()
	return b
}

func (b *Book) reset() {
	b.index = make(map[limit.Source]int32)
	b.records = make([]record, 1)
	b.free, b.first, b.last = 0, 0, 0
	b.held = byEnd{book: b}
}

// SetLimits changes the limits and keeps the books. Bans that stand are not made
// longer or shorter, and none is freed where there are more than Sources now.
func (b *Book) SetLimits(l Limits) {
	b.limits = l
	for len(b.index) > l.Sources && b.first != 0 {
		b.forget(b.first)
	}
}

// Len is how many sources there are records of.
func (b *Book) Len() int { return len(b.index) }

// Held is how many of them are banned, those included whose time is over since
// the last Expire.
func (b *Book) Held() int { return len(b.held.list) }

// Missed is how often a newcomer was not watched because all records are bans.
func (b *Book) Missed() uint64 { return b.missed }

// seed keeps strangers from finding names that count as one.
var seed = maphash.MakeSeed()

// Ask notes that a source has asked for a name that it may not have. If that
// makes it a scanner, banned is true and names are the beginnings of what it has
// asked for. A source that is banned already is not noted.
func (b *Book) Ask(now time.Duration, src limit.Source, asked []byte) (ban Ban, names []string, banned bool) {
	b.sweep(now, 2)
	r := b.record(now, src)
	if r == nil {
		return Ban{}, nil, false
	}
	r.note(now-b.limits.Within, name{hash: maphash.Bytes(seed, asked), at: now}, asked)
	if len(r.names) < b.limits.Names {
		return Ban{}, nil, false
	}
	for i := range r.names {
		names = append(names, string(r.names[i].text[:r.names[i].size]))
	}
	return b.ban(now, r), names, true
}

// Hold bans a source at once. It reports false where it is banned already, or
// all records are bans.
func (b *Book) Hold(now time.Duration, src limit.Source) (ban Ban, banned bool) {
	r := b.record(now, src)
	if r == nil {
		return Ban{}, false
	}
	return b.ban(now, r), true
}

// record finds or makes the record of a source that is to be watched, the last
// of its queue. It is nil for one that is banned, and where there is no room.
func (b *Book) record(now time.Duration, src limit.Source) *record {
	i := b.index[src]
	switch {
	case i == 0:
		if len(b.index) >= b.limits.Sources {
			if b.first == 0 {
				b.missed++
				return nil
			}
			b.forget(b.first)
		}
		i = b.add(src)
	case b.records[i].place >= 0 && b.records[i].until > now:
		return nil
	case b.records[i].place >= 0: // its time is over
		heap.Remove(&b.held, int(b.records[i].place))
		b.records[i] = record{source: src, place: -1}
	default:
		b.unlink(i)
	}
	b.link(i)
	r := &b.records[i]
	r.heard = now
	return r
}

// note counts a name, and forgets those that were last asked for before since.
func (r *record) note(since time.Duration, n name, asked []byte) {
	kept := r.names[:0]
	for _, old := range r.names {
		if old.at > since && old.hash != n.hash {
			kept = append(kept, old)
		}
	}
	n.size = uint8(copy(n.text[:], asked))
	r.names = append(kept, n)
}

// ban bans the source of a record that is watched.
func (b *Book) ban(now time.Duration, r *record) Ban {
	i := b.index[r.source]
	b.unlink(i)
	r.names, r.refused, r.until = nil, 0, now+b.limits.Hold
	heap.Push(&b.held, i)
	return Ban{Source: r.source, Until: r.until}
}

// Check says until when a source is banned, and counts that it has come.
func (b *Book) Check(now time.Duration, src limit.Source) (until time.Duration, banned bool) {
	if !b.Banned(now, src) {
		return 0, false
	}
	r := &b.records[b.index[src]]
	r.refused++
	return r.until, true
}

// Banned reports whether a source is banned.
func (b *Book) Banned(now time.Duration, src limit.Source) bool {
	i := b.index[src]
	return i != 0 && b.records[i].place >= 0 && b.records[i].until > now
}

// Lift ends the ban of a source, and reports whether there was one. What it has
// asked for before counts no more.
func (b *Book) Lift(now time.Duration, src limit.Source) bool {
	i := b.index[src]
	if i == 0 || b.records[i].place < 0 {
		return false
	}
	stood := b.records[i].until > now
	b.forget(i)
	return stood
}

// Expire forgets one ban whose time is over, and says whose it was. If there is
// none, ok is false and next is when there will be one; 0: there are no bans.
func (b *Book) Expire(now time.Duration) (src limit.Source, ok bool, next time.Duration) {
	b.sweep(now, 16)
	if len(b.held.list) == 0 {
		return limit.Source{}, false, 0
	}
	i := b.held.list[0]
	r := &b.records[i]
	if r.until > now {
		return limit.Source{}, false, r.until
	}
	src = r.source
	b.forget(i)
	return src, true, 0
}

// Each calls f for every ban that stands, in no order.
func (b *Book) Each(now time.Duration, f func(Ban)) {
	for _, i := range b.held.list {
		if r := &b.records[i]; r.until > now {
			f(Ban{Source: r.source, Until: r.until, Refused: r.refused})
		}
	}
}

// sweep forgets some of those that have not asked for anything for so long that
// nothing counts any more.
func (b *Book) sweep(now time.Duration, most int) {
	for ; most > 0 && b.first != 0 && b.records[b.first].heard <= now-b.limits.Within; most-- {
		b.forget(b.first)
	}
}

// add makes a record, which is in no queue yet.
func (b *Book) add(src limit.Source) int32 {
	i := b.free
	if i != 0 {
		b.free = b.records[i].next
	} else {
		b.records = append(b.records, record{})
		i = int32(len(b.records) - 1)
	}
	b.records[i] = record{source: src, place: -1}
	b.index[src] = i
	return i
}

// forget takes a record out of everything.
func (b *Book) forget(i int32) {
	r := &b.records[i]
	if r.place >= 0 {
		heap.Remove(&b.held, int(r.place))
	} else {
		b.unlink(i)
	}
	delete(b.index, r.source)
	if len(b.index) == 0 && len(b.records) > keepRecords {
		b.reset() // a flood is over: give its memory back
		return
	}
	*r = record{next: b.free}
	b.free = i
}

// keepRecords is how many are kept for the next flood.
const keepRecords = 1024

// link makes a record the last of those that are watched.
func (b *Book) link(i int32) {
	b.records[i].prev, b.records[i].next = b.last, 0
	if b.last != 0 {
		b.records[b.last].next = i
	} else {
		b.first = i
	}
	b.last = i
}

func (b *Book) unlink(i int32) {
	r := &b.records[i]
	if r.prev != 0 {
		b.records[r.prev].next = r.next
	} else {
		b.first = r.next
	}
	if r.next != 0 {
		b.records[r.next].prev = r.prev
	} else {
		b.last = r.prev
	}
	r.prev, r.next = 0, 0
}

// byEnd is the bans by the end of their time, a heap.
type byEnd struct {
	book *Book
	list []int32
}

func (h *byEnd) Len() int { return len(h.list) }

func (h *byEnd) Less(i, j int) bool {
	return h.book.records[h.list[i]].until < h.book.records[h.list[j]].until
}

func (h *byEnd) Swap(i, j int) {
	h.list[i], h.list[j] = h.list[j], h.list[i]
	h.book.records[h.list[i]].place, h.book.records[h.list[j]].place = int32(i), int32(j)
}

// Push is heap.Interface's.
func (h *byEnd) Push(x any) {
	h.book.records[x.(int32)].place = int32(len(h.list))
	h.list = append(h.list, x.(int32))
}

// Pop is heap.Interface's.
func (h *byEnd) Pop() any {
	i := h.list[len(h.list)-1]
	h.list = h.list[:len(h.list)-1]
	h.book.records[i].place = -1
	return i
}
