package supervisor

// Rows that start nothing while the machine is busy, so that others can. One
// goroutine reads how busy it is, at a fixed pace, while there are such rows; on
// the path of a connection it is one load.

import (
	"log/slog"
	"sync"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/pressure"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

const (
	// shedEvery is how often the machine is looked at: the kernel itself makes new
	// averages every 2 (PSI) and 5 seconds.
	shedEvery = time.Second
	// shedUntil is the part of its limits below which a row starts again.
	shedUntil = 0.8
)

type shedder struct {
	source pressure.Source
	log    *events
	quit   <-chan struct{}
	tasks  *sync.WaitGroup

	mu      sync.Mutex
	units   []*unit
	running bool // there is a goroutine, and it has not seen that units is empty
}

func (h *shedder) init(log *events, quit <-chan struct{}, tasks *sync.WaitGroup) {
	h.source, h.log, h.quit, h.tasks = pressure.System, log, quit, tasks
}

// set says which rows there are. Those that shed know whether they have to when it
// returns.
func (h *shedder) set(units map[string]*unit) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.units = nil
	for _, u := range units {
		if u.row.Load().Shed != (service.Shed{}) && !u.removed {
			h.units = append(h.units, u)
		} else if u.sheds.Load() {
			u.sheds.Store(false)
		}
	}
	h.lookLocked()
	if len(h.units) > 0 && !h.running {
		h.running = true
		h.tasks.Go(h.watch)
	}
}

// watch looks at the machine until no row wants to know.
func (h *shedder) watch() {
	tick := time.NewTicker(shedEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-h.quit:
			return
		}
		if !h.look() {
			return
		}
	}
}

func (h *shedder) look() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.running = len(h.units) > 0
	h.lookLocked()
	return h.running
}

// lookLocked reads how busy the machine is, in files of proc(5), and says so to
// the rows. If that fails they stay as they are.
func (h *shedder) lookLocked() {
	var want pressure.Want
	for _, u := range h.units {
		s := &u.row.Load().Shed
		want.Load = want.Load || s.Load > 0
		want.Memory = want.Memory || s.MemorySome > 0 || s.MemoryFull > 0
	}
	if want == (pressure.Want{}) {
		return
	}
	l, err := h.source.Read(want)
	if err != nil {
		h.log.problem("cannot read how busy the machine is", err)
		return
	}
	for _, u := range h.units {
		s := &u.row.Load().Shed
		switch was := u.sheds.Load(); {
		case !was && busy(s, &l, 1):
			u.sheds.Store(true)
			h.log.shedding(u, &l)
		case was && !busy(s, &l, shedUntil):
			u.sheds.Store(false)
			h.log.shedsNoMore(u, &l)
		}
	}
}

// busy reports whether a level is at or above that part of its limit.
func busy(s *service.Shed, l *pressure.Levels, part float64) bool {
	return s.Load > 0 && l.Load >= part*s.Load ||
		s.MemorySome > 0 && l.MemorySome >= part*s.MemorySome ||
		s.MemoryFull > 0 && l.MemoryFull >= part*s.MemoryFull
}

// shedding: a row starts nothing, because the machine is busy.
func (e *events) shedding(u *unit, l *pressure.Levels) {
	e.warn("row sheds", levelAttrs(u, l)...)
}

// shedsNoMore: it does again.
func (e *events) shedsNoMore(u *unit, l *pressure.Levels) {
	e.info("row sheds no more", levelAttrs(u, l)...)
}

// levelAttrs has those levels that the row wants to know.
func levelAttrs(u *unit, l *pressure.Levels) []slog.Attr {
	attrs := []slog.Attr{slog.String("service", u.id)}
	s := &u.row.Load().Shed
	for _, x := range []struct {
		key        string
		limit, now float64
	}{{"load", s.Load, l.Load}, {"memory_some", s.MemorySome, l.MemorySome}, {"memory_full", s.MemoryFull, l.MemoryFull}} {
		if x.limit > 0 {
			attrs = append(attrs, slog.Float64(x.key, x.now))
		}
	}
	return attrs
}
