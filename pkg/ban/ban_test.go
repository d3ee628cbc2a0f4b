package ban

import (
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
)

var limits = Limits{Names: 3, Within: time.Minute, Hold: 10 * time.Minute, Sources: 8}

func src(n uint32) limit.Source {
	var l limit.Limits
	return l.Source(netip.AddrFrom4([4]byte(binary.BigEndian.AppendUint32(nil, n))))
}

func TestAsk(t *testing.T) {
	b := New(limits)
	ask := func(at time.Duration, s uint32, name string) bool {
		t.Helper()
		_, _, banned := b.Ask(at, src(s), []byte(name))
		return banned
	}
	// One name, however often, is one name.
	for i := range 100 {
		if ask(time.Duration(i)*time.Second/10, 1, "a") {
			t.Fatal("banned for one name")
		}
	}
	if ask(20*time.Second, 1, "b") {
		t.Fatal("banned for two names")
	}
	if ask(20*time.Second, 2, "c") {
		t.Fatal("banned for what another has asked")
	}
	ban, names, banned := b.Ask(21*time.Second, src(1), []byte("a name that is longer than what is kept"))
	if !banned || ban.Source != src(1) || ban.Until != 21*time.Second+limits.Hold || !slices.Equal(names, []string{"a", "b", "a name that is longer t"}) {
		t.Fatalf("%v %q %v", ban, names, banned)
	}
	if ask(22*time.Second, 1, "d") {
		t.Error("banned twice")
	}
	if until, held := b.Check(22*time.Second, src(1)); !held || until != ban.Until {
		t.Errorf("Check: %v %v", until, held)
	}
	if _, held := b.Check(22*time.Second, src(2)); held {
		t.Error("another is held")
	}
	if _, held := b.Check(ban.Until, src(1)); held {
		t.Error("held at the end")
	}
	if _, ok, next := b.Expire(ban.Until - 1); ok || next != ban.Until {
		t.Errorf("Expire before: %v, next %v", ok, next)
	}
	// It begins anew, also before it was expired.
	if ask(ban.Until, 1, "a") || ask(ban.Until, 1, "b") || !ask(ban.Until, 1, "c") {
		t.Error("after its end a source does not begin anew")
	}
	end := ban.Until + limits.Hold
	if s, ok, _ := b.Expire(end); !ok || s != src(1) {
		t.Errorf("Expire: %v %v", s, ok)
	}
	if _, ok, next := b.Expire(end); ok || next != 0 || b.Held() != 0 {
		t.Errorf("Expire of none: %v %v, %d held", ok, next, b.Held())
	}
}

// Names count for Within, each from when it was last asked for.
func TestWithin(t *testing.T) {
	b := New(limits)
	for i := range 200 {
		at := time.Duration(i) * (limits.Within/2 + 1)
		if _, _, banned := b.Ask(at, src(1), fmt.Append(nil, i)); banned {
			t.Fatal("banned for two names within the time")
		}
	}
	if n := len(b.records[b.index[src(1)]].names); n > limits.Names {
		t.Errorf("%d names are kept", n)
	}
}

func TestHoldAndLift(t *testing.T) {
	b := New(limits)
	if _, ok := b.Hold(0, src(1)); !ok {
		t.Fatal("not banned")
	}
	if _, ok := b.Hold(1, src(1)); ok {
		t.Error("banned twice")
	}
	b.Check(1, src(1))
	b.Check(2, src(1))
	var all []Ban
	b.Each(2, func(x Ban) { all = append(all, x) })
	if !slices.Equal(all, []Ban{{src(1), limits.Hold, 2}}) {
		t.Errorf("Each: %v", all)
	}
	if b.Lift(3, src(2)) || !b.Lift(3, src(1)) || b.Lift(3, src(1)) {
		t.Error("Lift")
	}
	if _, held := b.Check(4, src(1)); held {
		t.Error("held after Lift")
	}
	b.Hold(0, src(1))
	if b.Lift(limits.Hold, src(1)) {
		t.Error("a ban was lifted that was over")
	}
}

// A naive book: every ask with its time, in a list.
type naive struct {
	asks  []naiveAsk
	until map[limit.Source]time.Duration
}

type naiveAsk struct {
	at   time.Duration
	src  limit.Source
	name string
}

func (n *naive) ask(l Limits, now time.Duration, s limit.Source, name string) bool {
	if n.until[s] > now {
		return false
	}
	n.asks = append(n.asks, naiveAsk{now, s, name})
	seen := map[string]bool{}
	for _, a := range n.asks {
		if a.src == s && a.at > now-l.Within {
			seen[a.name] = true
		}
	}
	if len(seen) < l.Names {
		return false
	}
	n.until[s] = now + l.Hold
	n.asks = slices.DeleteFunc(n.asks, func(a naiveAsk) bool { return a.src == s })
	return true
}

func TestAgainstNaive(t *testing.T) {
	l := Limits{Names: 4, Within: 50, Hold: 120, Sources: 100}
	rnd := rand.New(rand.NewPCG(3, 4))
	b, n := New(l), naive{until: map[limit.Source]time.Duration{}}
	bans := 0
	for now := time.Duration(1); now < 20_000; now += time.Duration(rnd.IntN(3)) {
		s, name := src(rnd.Uint32N(6)), fmt.Sprint(rnd.IntN(12))
		_, held := b.Check(now, s)
		if held != (n.until[s] > now) {
			t.Fatalf("at %d: %v held %v", now, s, held)
		}
		switch rnd.IntN(20) {
		case 0:
			if got := b.Lift(now, s); got != held {
				t.Fatalf("at %d: Lift %v, want %v", now, got, held)
			}
			if held {
				delete(n.until, s)
			}
		case 1:
			for ok := true; ok; {
				var over limit.Source
				if over, ok, _ = b.Expire(now); ok && n.until[over] > now {
					t.Fatalf("at %d: %v expired early", now, over)
				}
			}
		}
		_, _, banned := b.Ask(now, s, []byte(name))
		if want := n.ask(l, now, s, name); banned != want {
			t.Fatalf("at %d: %v asks for %s: banned %v, want %v", now, s, name, banned, want)
		}
		if banned {
			bans++
		}
	}
	if bans < 20 {
		t.Errorf("only %d bans", bans)
	}
}

// Whatever comes, nobody is freed, and no more memory is taken than at the cap.
func TestFlood(t *testing.T) {
	l := Limits{Names: 3, Within: time.Hour, Hold: time.Hour, Sources: 1000}
	b := New(l)
	for i := range uint32(900) {
		b.Hold(0, src(i))
	}
	newcomer := uint32(1 << 20)
	flood := func(n int) {
		for range n {
			newcomer++
			b.Ask(1, src(newcomer), []byte("x"))
		}
	}
	flood(100_000) // the places that are left have been taken by now
	// Somebody who has just been heard of is still known after half as many
	// newcomers as there are places for those that are watched.
	b.Ask(1, src(1<<19), []byte("a"))
	flood(50)
	b.Ask(1, src(1<<19), []byte("b"))
	flood(50)
	if _, _, banned := b.Ask(1, src(1<<19), []byte("c")); !banned {
		t.Error("a scanner was forgotten among few newcomers")
	}
	for i := range uint32(99) {
		b.Hold(1, src(1000+i))
	}
	if b.Held() != l.Sources {
		t.Fatalf("%d held", b.Held())
	}
	before := heapInUse()
	missed := b.Missed()
	n := 10_000_000
	if testing.Short() {
		n /= 10
	}
	flood(n)
	if grown := heapInUse() - before; grown > 1<<20 {
		t.Errorf("%d bytes more", grown)
	}
	if got := b.Missed() - missed; got != uint64(n) || b.Len() != l.Sources || b.Held() != l.Sources {
		t.Errorf("%d missed, %d records, %d held", got, b.Len(), b.Held())
	}
	for i := range uint32(900) {
		if _, held := b.Check(2, src(i)); !held {
			t.Fatalf("%v was freed", src(i))
		}
	}
	// When it is over nothing is left.
	for ok := true; ok; {
		_, ok, _ = b.Expire(3 * time.Hour)
	}
	if b.Len() != 0 || len(b.index) != 0 {
		t.Errorf("%d records", b.Len())
	}
}

func heapInUse() int64 {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return int64(m.HeapInuse)
}

// A reload that wants fewer records frees those that are only watched.
func TestSetLimits(t *testing.T) {
	b := New(limits)
	for i := range uint32(4) {
		b.Hold(0, src(i))
	}
	for i := range uint32(4) {
		b.Ask(0, src(10+i), []byte("x"))
	}
	l := limits
	l.Sources, l.Hold = 2, time.Second
	b.SetLimits(l)
	if b.Len() != 4 || b.Held() != 4 {
		t.Errorf("%d records, %d held", b.Len(), b.Held())
	}
	l.Sources = 100
	b.SetLimits(l)
	b.Hold(0, src(50))
	if s, ok, _ := b.Expire(time.Second); !ok || s != src(50) {
		t.Errorf("the one that is over first: %v %v", s, ok)
	}
	if _, ok, next := b.Expire(time.Second); ok || next != limits.Hold {
		t.Errorf("bans of before end at %v", next)
	}
}

func BenchmarkCheckNobody(b *testing.B) {
	book := New(limits)
	book.Hold(0, src(1))
	for b.Loop() {
		book.Check(1, src(2))
	}
}
