package relay

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"strings"
	"sync"
	"testing"
	"time"
)

// much is more than any socket's buffer takes.
var much = func() []byte {
	b := make([]byte, 24<<20)
	r := rand.NewChaCha8([32]byte{})
	r.Read(b)
	return b
}()

func TestEcho(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			c := r.serve(network, &Plan{Flow: Echo, Prefix: "+Go\r\n"})
			receive(t, c, "+Go\r\n")
			for range 3 {
				send(t, c, "hello")
				receive(t, c, "hello")
			}
			send(t, c, "bye")
			c.CloseWrite()
			receive(t, c, "bye")
			receiveEnd(t, c)
			if e := r.expect(Closed); e.In != 18 || e.Out != 18 || e.ID != 1 {
				t.Errorf("%+v", e)
			}
		})
	}
}

// A client that sends without reading stops, and gets everything later.
func TestEchoOfMuchToASlowReader(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			c := r.serve(network, &Plan{Flow: Echo})
			c.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			n, err := c.Write(much)
			if !errors.Is(err, os.ErrDeadlineExceeded) {
				t.Fatalf("wrote %d bytes, %v; want it to be stopped", n, err)
			}
			c.SetDeadline(time.Now().Add(bound))
			got := make([]byte, n)
			var reading sync.WaitGroup
			reading.Go(func() { _, err = io.ReadFull(c, got) })
			reading.Wait()
			if err != nil || !bytes.Equal(got, much[:n]) {
				t.Fatalf("what came back is not what was sent: %v", err)
			}
			c.CloseWrite()
			receiveEnd(t, c)
			if e := r.expect(Closed); e.In != uint64(n) || e.Out != uint64(n) {
				t.Errorf("counted %d and %d, want %d", e.In, e.Out, n)
			}
		})
	}
}

func TestDiscard(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			c := r.serve(network, &Plan{Flow: Discard})
			if _, err := c.Write(much); err != nil {
				t.Fatal(err)
			}
			c.CloseWrite()
			receiveEnd(t, c)
			if e := r.expect(Closed); e.In != uint64(len(much)) || e.Out != 0 {
				t.Errorf("%+v", e)
			}
		})
	}
}

func TestChargen(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			pattern := bytes.Repeat([]byte("0123456789"), 1001)
			c := r.serve(network, &Plan{Flow: Chargen, Pattern: pattern})
			send(t, c, "what comes is dropped")
			c.CloseWrite() // and no reason to end
			receive(t, c, strings.Repeat(string(pattern), 100))
			c.Close()
			r.expect(Closed)
		})
	}
}

// One that takes all it can get does not keep others waiting.
func TestChargenStarvesNobody(t *testing.T) {
	r := run(t, nil)
	plan := &Plan{Flow: Chargen, Pattern: bytes.Repeat([]byte("x"), 100_000)}
	greedy := r.serve("tcp", plan)
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(io.Discard, greedy) })
	c := r.serve("tcp", &Plan{Flow: Echo})
	for range 1000 {
		send(t, c, "x")
		receive(t, c, "x")
	}
	greedy.Close()
	reading.Wait()
	r.expect(Closed)
}

func TestIdle(t *testing.T) {
	const idle = 150 * time.Millisecond
	for _, flow := range []Flow{Echo, Discard} {
		r := run(t, nil)
		// On a machine that is too busy to keep it alive it is tried again.
		for try := 0; ; try++ {
			c := r.serve("tcp", &Plan{Flow: flow, Idle: idle})
			start := time.Now()
			last, gap := start, time.Duration(0)
			for last.Sub(start) < 2*idle {
				c.Write([]byte("x"))
				time.Sleep(idle / 10) // it lives by what is sent meanwhile
				now := time.Now()
				last, gap = now, max(gap, now.Sub(last))
			}
			e := r.expect(Idle)
			if d := time.Since(start); gap < idle/2 && d < 2*idle {
				t.Errorf("ended after %v, with a byte every %v", d, gap)
			}
			if gap < idle/2 || try == 20 {
				if e.In == 0 {
					t.Error("nothing has come")
				}
				break
			}
		}
	}
}

func TestChargenIsIdleIfNobodyReads(t *testing.T) {
	r := run(t, nil)
	r.serve("tcp", &Plan{Flow: Chargen, Pattern: bytes.Repeat([]byte("x"), 10_000), Idle: 50 * time.Millisecond})
	if e := r.expect(Idle); e.Out == 0 {
		t.Error("nothing was sent")
	}
}

func TestLifetime(t *testing.T) {
	r := run(t, nil)
	start := time.Now()
	c := r.serve("tcp", &Plan{Flow: Chargen, Pattern: bytes.Repeat([]byte("x"), 1000), Lifetime: 100 * time.Millisecond, Idle: time.Hour})
	var reading sync.WaitGroup
	reading.Go(func() { io.Copy(io.Discard, c) })
	r.expect(Lifetime)
	if d := time.Since(start); d < 100*time.Millisecond {
		t.Errorf("it lived for %v", d)
	}
	reading.Wait()
	echo := r.serve("tcp", &Plan{Flow: Echo, Lifetime: 50 * time.Millisecond})
	r.expect(Lifetime)
	receiveReset(t, echo)
}

func TestReset(t *testing.T) {
	for _, flow := range []Flow{Echo, Discard} {
		r := run(t, nil)
		c := r.serve("tcp", &Plan{Flow: flow})
		send(t, c, "x")
		reset(t, c)
		r.expect(Reset)
	}
}

func TestCut(t *testing.T) {
	r := run(t, nil)
	a, b := r.serve("tcp", &Plan{Flow: Echo}), r.serve("tcp", &Plan{Flow: Echo})
	for _, c := range []conn{a, b} {
		send(t, c, "x")
		receive(t, c, "x")
	}
	r.Cut(1, 77)
	if e := r.expect(Cut); e.ID != 1 {
		t.Errorf("number %d was cut, want 1", e.ID)
	}
	receiveReset(t, a)
	send(t, b, "y")
	receive(t, b, "y")
	r.CutAll()
	if e := r.expect(Cut); e.ID != 2 {
		t.Errorf("number %d was cut, want 2", e.ID)
	}
	d := r.serve("tcp", &Plan{Flow: Echo})
	r.Close()
	r.expect(Cut)
	receiveReset(t, d)
	if err := r.Add(Conn{FD: -1}); err != ErrClosed {
		t.Errorf("Add after Close: %v", err)
	}
}

// Without descriptors for pipes bytes go through the process, and nothing is
// lost or told twice.
func TestWithoutPipes(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			r.pipes.none = true
			server := listen(t, network)
			c := r.serve(network, to(targetOf(server)))
			exchange(t, c, accept(t, server))
			if e := r.expect(Closed); e.In != uint64(len(much)) || e.Out != uint64(len(much)) {
				t.Errorf("%+v", e)
			}
		})
	}
}

// What is a share, or a few bytes more or less, comes back whole.
func TestEchoAroundAShare(t *testing.T) {
	r := run(t, nil)
	for _, n := range []int{share - 1, share, share + 1, 2 * share, 2*share + 1} {
		c := r.serve("tcp", &Plan{Flow: Echo})
		var reading sync.WaitGroup
		var got []byte
		var err error
		reading.Go(func() { got, err = io.ReadAll(c) })
		if _, err := c.Write(much[:n]); err != nil {
			t.Fatal(err)
		}
		c.CloseWrite()
		reading.Wait()
		if err != nil || !bytes.Equal(got, much[:n]) {
			t.Fatalf("of %d bytes %d came back, or others: %v", n, len(got), err)
		}
		if e := r.expect(Closed); e.In != uint64(n) || e.Out != uint64(n) {
			t.Errorf("counted %d and %d, want %d", e.In, e.Out, n)
		}
	}
}

// One that sends and takes all it can does not keep others waiting.
func TestEchoStarvesNobody(t *testing.T) {
	r := run(t, nil)
	greedy := r.serve("tcp", &Plan{Flow: Echo})
	var busy sync.WaitGroup
	busy.Go(func() { io.Copy(io.Discard, greedy) })
	busy.Go(func() {
		for {
			if _, err := greedy.Write(much); err != nil {
				return
			}
		}
	})
	c := r.serve("tcp", &Plan{Flow: Echo})
	for range 200 {
		send(t, c, "x")
		receive(t, c, "x")
	}
	greedy.Close()
	busy.Wait()
	r.end() // closed or reset, as it happened to stand
}
