package supervisor

import (
	"errors"
	"log/slog"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/pressure"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A machine is a pressure.Source that a test sets.
type machine struct {
	mu    sync.Mutex
	now   pressure.Levels
	err   error
	want  pressure.Want
	reads int
}

func (m *machine) Read(want pressure.Want) (pressure.Levels, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.reads++
	m.want = want
	return m.now, m.err
}

func (m *machine) set(l pressure.Levels, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.now, m.err = l, err
}

func (m *machine) took() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	n := m.reads
	m.reads = 0
	return n
}

func shedding(id string, s service.Shed) *unit {
	u := &unit{id: id}
	u.row.Store(&row{Service: &service.Service{ID: id, Shed: s}})
	return u
}

func TestShed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var got lineList
		var tasks sync.WaitGroup
		quit := make(chan struct{})
		m := &machine{}
		var h shedder
		h.init(newEvents(slog.New(&got)), quit, &tasks)
		h.source = m
		load, memory := shedding("load", service.Shed{Load: 10}), shedding("memory", service.Shed{MemorySome: 20, MemoryFull: 5})
		plain := shedding("plain", service.Shed{})
		units := map[string]*unit{"load": load, "memory": memory, "plain": plain}

		// Nobody wants to know: nothing is read, and nobody is there to read.
		h.set(map[string]*unit{"plain": plain})
		time.Sleep(time.Hour)
		if n := m.took(); n != 0 || h.running {
			t.Fatalf("%d readings, running is %v", n, h.running)
		}
		m.set(pressure.Levels{Load: 12}, nil)
		h.set(units)
		if !load.sheds.Load() || memory.sheds.Load() || plain.sheds.Load() {
			t.Fatal("the first reading comes with the table")
		}
		m.took()
		time.Sleep(time.Minute)
		synctest.Wait()
		if n := m.took(); n != 60 {
			t.Errorf("%d readings in a minute", n)
		}
		for _, step := range []struct {
			l            pressure.Levels
			err          error
			load, memory bool
		}{
			{pressure.Levels{Load: 8}, nil, true, false}, // four fifths are not below them
			{pressure.Levels{Load: 7.9}, nil, false, false},
			{pressure.Levels{Load: 9.9, MemorySome: 19, MemoryFull: 4.9}, nil, false, false},
			{pressure.Levels{Load: 10, MemorySome: 19, MemoryFull: 5}, nil, true, true},
			{pressure.Levels{Load: 0, MemorySome: 17, MemoryFull: 0}, nil, false, true},
			{pressure.Levels{}, errors.New("unreadable"), false, true}, // they stay as they are
			{pressure.Levels{MemorySome: 15.9, MemoryFull: 4}, nil, false, true},
			{pressure.Levels{MemorySome: 15.9, MemoryFull: 3.9}, nil, false, false},
			{pressure.Levels{MemorySome: 20}, nil, false, true},
		} {
			m.set(step.l, step.err)
			time.Sleep(shedEvery)
			synctest.Wait()
			if load.sheds.Load() != step.load || memory.sheds.Load() != step.memory {
				t.Errorf("at %+v, %v: load sheds is %v, memory sheds is %v", step.l, step.err, load.sheds.Load(), memory.sheds.Load())
			}
		}
		lines := got.take()
		if len(lines) < 5 || lines[0] != "row sheds service=load load=12" {
			t.Errorf("%q", lines)
		}
		// A reload takes it away from one, and from all.
		memory.row.Store(&row{Service: &service.Service{}})
		h.set(units)
		if memory.sheds.Load() || m.want != (pressure.Want{Load: true}) {
			t.Errorf("sheds is %v, and read is %+v", memory.sheds.Load(), m.want)
		}
		load.removed = true
		h.set(units)
		time.Sleep(2 * shedEvery)
		synctest.Wait()
		if h.running {
			t.Error("somebody still reads")
		}
		load.removed = false
		h.set(units)
		close(quit)
		tasks.Wait()
	})
}
