package relay

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// bell counts how often it was rung.
type bell struct{ rung atomic.Int32 }

func (b *bell) ring() { b.rung.Add(1) }

// A resolver answers what it is told to.
type resolver struct {
	addrs  []netip.Addr
	err    error
	takes  time.Duration
	asked  atomic.Int32
	asking atomic.Int32
	most   atomic.Int32
}

func (r *resolver) lookup(ctx context.Context, _ string) ([]netip.Addr, error) {
	r.asked.Add(1)
	asking := r.asking.Add(1)
	for most := r.most.Load(); asking > most && !r.most.CompareAndSwap(most, asking); most = r.most.Load() {
	}
	defer r.asking.Add(-1)
	select {
	case <-time.After(r.takes):
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	return r.addrs, r.err
}

var (
	one      = []netip.Addr{netip.MustParseAddr("192.0.2.1")}
	two      = []netip.Addr{netip.MustParseAddr("192.0.2.2")}
	notFound = &net.DNSError{Err: "no such host", IsNotFound: true}
	servfail = &net.DNSError{Err: "server misbehaving", IsTemporary: true}
)

// names runs f in a bubble with a Names that asks r.
func names(t *testing.T, r *resolver, f func(t *testing.T, n *Names, b *bell)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		n := NewNames(r.lookup)
		defer n.Close()
		f(t, n, new(bell))
	})
}

// is asks for a host, and says what is known.
func is(t *testing.T, n *Names, b *bell, want []netip.Addr, wantErr error) {
	t.Helper()
	addrs, ok, err := n.get("host", b)
	if !ok || !errors.Is(err, wantErr) || len(addrs) != len(want) || len(want) > 0 && addrs[0] != want[0] {
		t.Fatalf("got %v, %v, %v; want %v, %v", addrs, ok, err, want, wantErr)
	}
}

func pass(d time.Duration) {
	time.Sleep(d) // of the bubble
	synctest.Wait()
}

func TestNamesAreFreshForAWhile(t *testing.T) {
	r := &resolver{addrs: one, takes: time.Second}
	names(t, r, func(t *testing.T, n *Names, b *bell) {
		for range 3 {
			if _, ok, _ := n.get("host", b); ok {
				t.Fatal("known before it was looked up")
			}
		}
		pass(time.Second)
		if b.rung.Load() != 1 {
			t.Fatalf("rung %d times for one answer", b.rung.Load())
		}
		r.addrs = two
		is(t, n, b, one, nil)
		pass(nameFresh)
		is(t, n, b, one, nil) // and is renewed
		is(t, n, b, one, nil)
		pass(time.Second)
		is(t, n, b, two, nil)
		if r.asked.Load() != 2 || b.rung.Load() != 1 {
			t.Errorf("looked up %d times, rung %d times", r.asked.Load(), b.rung.Load())
		}
	})
}

func TestNamesKeepTheLastGoodAnswer(t *testing.T) {
	r := &resolver{addrs: one}
	names(t, r, func(t *testing.T, n *Names, b *bell) {
		n.get("host", b)
		synctest.Wait()
		r.addrs, r.err = nil, servfail
		pass(nameFresh)
		for range 20 {
			is(t, n, b, one, nil)
			pass(time.Second)
		}
		if asked := r.asked.Load(); asked < 4 || asked > 6 {
			t.Errorf("a resolver that fails was asked %d times in 20 s", asked-1)
		}
		r.err = notFound // this is an answer
		pass(nameRetry)
		is(t, n, b, one, nil)
		synctest.Wait()
		is(t, n, b, nil, notFound)
	})
}

func TestNamesRememberFailuresForLess(t *testing.T) {
	for _, err := range []error{servfail, notFound} {
		r := &resolver{err: err}
		names(t, r, func(t *testing.T, n *Names, b *bell) {
			n.get("host", b)
			synctest.Wait()
			is(t, n, b, nil, err)
			r.addrs, r.err = one, nil
			pass(nameRetry - 1)
			is(t, n, b, nil, err)
			pass(1)
			is(t, n, b, nil, err)
			synctest.Wait()
			is(t, n, b, one, nil)
		})
	}
}

func TestNamesHaveAnAddress(t *testing.T) {
	r := &resolver{}
	names(t, r, func(t *testing.T, n *Names, b *bell) {
		n.get("host", b)
		synctest.Wait()
		if _, ok, err := n.get("host", b); !ok || err == nil {
			t.Error("an answer without addresses is no error")
		}
	})
}

func TestLookupsAreBounded(t *testing.T) {
	r := &resolver{takes: time.Hour}
	names(t, r, func(t *testing.T, n *Names, b *bell) {
		for i := range 3 * lookups {
			n.get(string(rune('a'+i)), b)
		}
		synctest.Wait()
		if r.most.Load() != lookups {
			t.Errorf("%d look-ups at the same time, want %d", r.most.Load(), lookups)
		}
		pass(3*lookupTime + time.Second)
		if b.rung.Load() != 3*lookups {
			t.Errorf("%d of %d look-ups have come to an end", b.rung.Load(), 3*lookups)
		}
	})
}

func TestNamesForgetWhatNobodyAsksFor(t *testing.T) {
	r := &resolver{addrs: one}
	names(t, r, func(t *testing.T, n *Names, b *bell) {
		n.get("host", b)
		pass(nameKept + time.Second)
		n.get("other", b)
		if n.hosts["host"] != nil || n.hosts["other"] == nil {
			t.Error("the old name is kept, or the new one is not")
		}
	})
}

func TestRealResolver(t *testing.T) {
	n := NewNames(nil)
	defer n.Close()
	b := new(bell)
	for end := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if addrs, ok, err := n.get("localhost", b); ok {
			if err != nil || !addrs[0].IsLoopback() {
				t.Errorf("localhost is %v, %v", addrs, err)
			}
			return
		}
		if time.Now().After(end) {
			t.Fatal("no answer")
		}
	}
}
