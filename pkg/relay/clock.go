package relay

import "time"

// A clock has the records that something becomes of when a time is over,
// earliest first: one timer for all. A record knows its place, so that it can
// leave. It is a binary heap.
//
// A record whose time has grown longer stays where it is: whoever finds it due
// looks again. So a byte that moves costs the clock nothing.
type clock []*record

func (c clock) before(i, j int) bool { return c[i].due < c[j].due }

func (c clock) swap(i, j int) {
	c[i], c[j] = c[j], c[i]
	c[i].place, c[j].place = int32(i)+1, int32(j)+1
}

// set enters a record, or moves it.
func (c *clock) set(r *record, due time.Duration) {
	r.due = due
	if r.place == 0 {
		*c = append(*c, r)
		r.place = int32(len(*c))
	}
	c.fix(int(r.place) - 1)
}

// drop takes a record out, if it is in.
func (c *clock) drop(r *record) {
	if r.place == 0 {
		return
	}
	i, last := int(r.place)-1, len(*c)-1
	if i != last {
		c.swap(i, last)
	}
	(*c)[last] = nil
	*c = (*c)[:last]
	r.place = 0
	if i != last {
		c.fix(i)
	}
}

func (c clock) fix(i int) {
	for i > 0 && c.before(i, (i-1)/2) {
		c.swap(i, (i-1)/2)
		i = (i - 1) / 2
	}
	for {
		least := i
		for child := 2*i + 1; child <= 2*i+2 && child < len(c); child++ {
			if c.before(child, least) {
				least = child
			}
		}
		if least == i {
			return
		}
		c.swap(i, least)
		i = least
	}
}
