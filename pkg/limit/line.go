package limit

// This file is the Line: who waits for a place of a service, and whose turn it
// is. It admits nobody: whoever owns it asks the books.

// A Line is a queue that is fair between sources: they take turns, whoever has
// more waiting has no more turns for that, and the waiters of one source come in
// their order. Waiters are known by the caller's number for them, a small one,
// because the Line's memory goes with the highest. The zero Line is empty. It is
// not safe for concurrent use. No call takes longer the more there are that wait.
type Line struct {
	n       int
	waiters []placeLink // by number
	sources table[liner]
	ring    queue // sources, by whose turn it is
}

// keepWaiters is for how many the room is kept.
const keepWaiters = 1024

// A liner is a source with waiters.
type liner struct {
	waiters    queue // oldest first
	prev, next int32 // sources in the ring, 1 + slot; 0: none
}

// Len is how many wait.
func (l *Line) Len() int { return l.n }

// Add has h wait, which does not so far and is not negative. A source that is new
// here comes after all that there are.
func (l *Line) Add(h int32, src Source) {
	for int(h) >= len(l.waiters) {
		l.waiters = append(l.waiters, placeLink{})
	}
	l.n++
	i := l.sources.find(src)
	if i == noSlot {
		i = l.sources.insert(src)
		l.append(i)
	}
	s := l.sources.at(i)
	l.waiters[h] = placeLink{group: i + 1, prev: s.waiters.last}
	if s.waiters.last != 0 {
		l.waiters[s.waiters.last-1].next = h + 1
	} else {
		s.waiters.first = h + 1
	}
	s.waiters.last = h + 1
}

// Remove has h wait no more. It does nothing if h does not.
func (l *Line) Remove(h int32) { l.remove(h) }

// Serve is Remove for one that had his turn: the next of his source's comes after
// those of all others.
func (l *Line) Serve(h int32) {
	if i := l.remove(h); i != noSlot {
		l.cut(i)
		l.append(i)
	}
}

// Pass has the source of h, who waits, come after all others, and h stay its first.
func (l *Line) Pass(h int32) {
	i := l.waiters[h].group - 1
	l.cut(i)
	l.append(i)
}

// First is the waiter whose turn it is; ok is false if nobody waits.
func (l *Line) First() (h int32, ok bool) { return l.oldest(l.ring.first) }

// Next is the waiter whose turn it is if the source of h, who waits, is passed
// over.
func (l *Line) Next(h int32) (next int32, ok bool) {
	return l.oldest(l.sources.at(l.waiters[h].group - 1).next)
}

// oldest is the first waiter of a source, 1 + slot.
func (l *Line) oldest(source int32) (h int32, ok bool) {
	if source == 0 {
		return 0, false
	}
	return l.sources.at(source-1).waiters.first - 1, true
}

// remove says which source still has waiters after h is gone, if his has.
func (l *Line) remove(h int32) (source int32) {
	if h < 0 || int(h) >= len(l.waiters) || l.waiters[h].group == 0 {
		return noSlot
	}
	w := l.waiters[h]
	l.waiters[h] = placeLink{}
	l.n--
	i := w.group - 1
	s := l.sources.at(i)
	if w.prev != 0 {
		l.waiters[w.prev-1].next = w.next
	} else {
		s.waiters.first = w.next
	}
	if w.next != 0 {
		l.waiters[w.next-1].prev = w.prev
	} else {
		s.waiters.last = w.prev
	}
	if s.waiters.first != 0 {
		return i
	}
	l.cut(i)
	l.sources.remove(i)
	if l.n == 0 && len(l.waiters) > keepWaiters {
		l.waiters = nil // a flood is over: give its memory back
	}
	return noSlot
}

// append puts a source at the end of the ring, and cut takes it out.
func (l *Line) append(i int32) {
	s := l.sources.at(i)
	s.prev, s.next = l.ring.last, 0
	if l.ring.last != 0 {
		l.sources.at(l.ring.last - 1).next = i + 1
	} else {
		l.ring.first = i + 1
	}
	l.ring.last = i + 1
}

func (l *Line) cut(i int32) {
	s := l.sources.at(i)
	if s.prev != 0 {
		l.sources.at(s.prev - 1).next = s.next
	} else {
		l.ring.first = s.next
	}
	if s.next != 0 {
		l.sources.at(s.next - 1).prev = s.prev
	} else {
		l.ring.last = s.prev
	}
}
