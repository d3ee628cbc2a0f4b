package limit

// This file is the Crowd: who holds the places of a multiplexer's pending
// negotiations. It ends none of them: it only says whose turn it is.

// A Crowd knows which peers hold the places in a table of pending connections,
// and names the one that is to make room. Places are known by the caller's
// number for them, a small one, because the Crowd's memory goes with the
// highest. The zero Crowd is empty. It is not safe for concurrent use.
//
// Places are counted by source, by the wider network around it (24 bits of v4,
// 56 of v6) and by the widest (48 bits of v6), because whoever has one v6
// address has as many as he likes, and whoever has one network of 48 bits has
// 65,536 sources.
//
// A place costs 36 bytes, and each source and network that holds one costs 52:
// at most 192 bytes for a place whose source and networks hold no other.
type Crowd struct {
	n      int
	places []place // by number
	levels [3]level
}

// The levels of a Crowd: how wide their groups are, and how much what a group
// holds weighs against what a source holds.
var levels = [...]struct {
	v4, v6 int
	weight int64
}{
	{32, 128, 64}, // as narrow as Limits says
	{24, 56, 4},
	{0, 48, 1}, // v6 only
}

// A place is one entry: its links in the groups that it is in.
type place [len(levels)]placeLink

type placeLink struct {
	group      int32 // 1 + its slot; 0: not in a group of this level
	prev, next int32 // places of the group by age, 1 + number; 0: none
}

// A level is all groups of one width.
type level struct {
	groups table[group]
	// held[c] are the groups that hold c places, those that have held so
	// many for longest first. held[top] is not empty unless top is 0.
	held []queue
	top  int32
}

// A group is a source, or a network, that holds places.
type group struct {
	count      int32
	places     queue // by age, oldest first
	prev, next int32 // groups with the same count, 1 + slot; 0: none
}

// A queue is the two ends of a linked list, 1 + number; 0: empty.
type queue struct{ first, last int32 }

// Len is how many places are held.
func (c *Crowd) Len() int { return c.n }

// Add enters the place h, held by src from now on. If h is held already, it
// changes hands. h must not be negative.
func (c *Crowd) Add(h int32, src Source) {
	c.Remove(h)
	for int(h) >= len(c.places) {
		c.places = append(c.places, place{})
	}
	c.n++
	for i := range levels {
		if i == 2 && src.kind != kindV6 {
			break
		}
		c.enter(i, h, src.widen(levels[i].v4, levels[i].v6))
	}
}

// Remove strikes out the place h. It does nothing if h is not held.
func (c *Crowd) Remove(h int32) {
	if !c.holds(h) {
		return
	}
	c.n--
	for i := range levels {
		c.leave(i, h)
	}
}

func (c *Crowd) holds(h int32) bool {
	return h >= 0 && int(h) < len(c.places) && c.places[h][0].group != 0
}

// CountSource is how many places src holds.
func (c *Crowd) CountSource(src Source) int {
	groups := &c.levels[0].groups
	if g := groups.find(src); g != noSlot {
		return int(groups.at(g).count)
	}
	return 0
}

// VictimOf names the oldest place of src. ok is false if it holds none.
func (c *Crowd) VictimOf(src Source) (h int32, ok bool) {
	groups := &c.levels[0].groups
	if g := groups.find(src); g != noSlot {
		return groups.at(g).places.first - 1, true
	}
	return 0, false
}

// Victim names the place that is to make room: the oldest one of whoever holds
// most. A wider network counts a sixteenth of what it holds and the widest a
// sixty-fourth, so that one greedy source is found first, and one that spreads
// over a network is found by the network. Among equals the narrower is named,
// and among those the one that has held so many for longest. ok is false if no
// place is held.
func (c *Crowd) Victim() (h int32, ok bool) {
	var most int64
	var from *level
	for i := range c.levels {
		if w := int64(c.levels[i].top) * levels[i].weight; w > most {
			most, from = w, &c.levels[i]
		}
	}
	if from == nil {
		return 0, false
	}
	g := from.held[from.top].first - 1
	return from.groups.at(g).places.first - 1, true
}

// enter puts the place h at the end of the group of key.
func (c *Crowd) enter(i int, h int32, key Source) {
	l := &c.levels[i]
	s := l.groups.find(key)
	if s == noSlot {
		s = l.groups.insert(key)
	}
	g := l.groups.at(s)
	c.places[h][i] = placeLink{group: s + 1, prev: g.places.last}
	if g.places.last != 0 {
		c.places[g.places.last-1][i].next = h + 1
	} else {
		g.places.first = h + 1
	}
	g.places.last = h + 1
	l.recount(s, g, 1)
}

// leave takes the place h out of its group of level i, if it is in one.
func (c *Crowd) leave(i int, h int32) {
	p := c.places[h][i]
	if p.group == 0 {
		return
	}
	c.places[h][i] = placeLink{}
	l := &c.levels[i]
	s := p.group - 1
	g := l.groups.at(s)
	if p.prev != 0 {
		c.places[p.prev-1][i].next = p.next
	} else {
		g.places.first = p.next
	}
	if p.next != 0 {
		c.places[p.next-1][i].prev = p.prev
	} else {
		g.places.last = p.prev
	}
	l.recount(s, g, -1)
	if g.count == 0 {
		l.groups.remove(s)
	}
}

// recount adds d, 1 or -1, to what group s holds and moves it to the queue of
// its new count. A group that holds nothing is in none.
func (l *level) recount(s int32, g *group, d int32) {
	if g.count > 0 {
		q := &l.held[g.count]
		if g.prev != 0 {
			l.groups.at(g.prev - 1).next = g.next
		} else {
			q.first = g.next
		}
		if g.next != 0 {
			l.groups.at(g.next - 1).prev = g.prev
		} else {
			q.last = g.prev
		}
	}
	g.count += d
	for int(g.count) >= len(l.held) {
		l.held = append(l.held, queue{})
	}
	if g.count > 0 {
		q := &l.held[g.count]
		g.prev, g.next = q.last, 0
		if q.last != 0 {
			l.groups.at(q.last - 1).next = s + 1
		} else {
			q.first = s + 1
		}
		q.last = s + 1
	}
	// One count has changed by one, so the top has by one at most.
	if g.count > l.top {
		l.top = g.count
	} else if l.top > 0 && l.held[l.top].first == 0 {
		l.top--
	}
}
