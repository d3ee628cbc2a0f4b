package relay

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"
)

// answering is a plan and what answers: the question in brackets, at once or later.
func answering(later bool) (*Plan, func([]byte, func(string))) {
	return &Plan{Flow: Ask, MaxLine: 20, Lifetime: bound, Refusal: "late\n"}, func(q []byte, reply func(string)) {
		text := fmt.Sprintf("[%s]\n", q)
		if later {
			go reply(text)
		} else {
			reply(text)
		}
	}
}

func (r *runner) ask(network string, p *Plan, ask func([]byte, func(string))) conn {
	r.t.Helper()
	client, fd, peer := pair(r.t, network)
	r.next++
	if err := r.Add(Conn{ID: r.next, FD: fd, Plan: p, Peer: peer, Ask: ask}); err != nil {
		r.t.Fatal(err)
	}
	return client
}

func TestAsk(t *testing.T) {
	for _, network := range networks {
		for _, later := range []bool{false, true} {
			t.Run(fmt.Sprint(network, later), func(t *testing.T) {
				r := run(t, nil)
				p, ask := answering(later)
				for question, want := range map[string]string{
					"hello\r\n":                             "[hello]\n",
					"hello\n":                               "[hello]\n",
					"\n":                                    "[]\n",
					"hello\nand more\n":                     "[hello]\n",
					strings.Repeat("x", 20) + "\r\n":        "[" + strings.Repeat("x", 20) + "]\n",
					strings.Repeat("x", 22):                 "[" + strings.Repeat("x", 22) + "]\n", // too long, and whole enough to say so
					strings.Repeat("x", 1000) + "\r\n more": "[" + strings.Repeat("x", 22) + "]\n",
				} {
					c := r.ask(network, p, ask)
					send(t, c, question)
					receive(t, c, want)
					receiveEnd(t, c)
					c.Close()
					if e := r.expect(Closed); e.Out != uint64(len(want)) || e.In == 0 {
						t.Errorf("%q: %+v", question, e)
					}
				}
				// Byte by byte, behind what is sent first.
				prefixed := *p
				prefixed.Prefix = "+Go\r\n"
				c := r.ask(network, &prefixed, ask)
				for _, b := range "hello\r\n" {
					send(t, c, string(b))
					time.Sleep(time.Millisecond)
				}
				c.CloseWrite()
				receive(t, c, "+Go\r\n[hello]\n")
				receiveEnd(t, c)
				r.expect(Closed)
			})
		}
	}
}

// Who says nothing, or not all of it, is told that it is late; who leaves is not
// answered.
func TestAskInTime(t *testing.T) {
	for _, network := range networks {
		t.Run(network, func(t *testing.T) {
			r := run(t, nil)
			p, ask := answering(false)
			short := *p
			short.Lifetime = 50 * time.Millisecond
			for _, said := range []string{"", "hel"} {
				c := r.ask(network, &short, ask)
				send(t, c, said)
				receive(t, c, "late\n")
				receiveEnd(t, c)
				c.Close()
				if e := r.expect(Lifetime); e.Out != 0 || e.In != uint64(len(said)) {
					t.Errorf("%+v", e)
				}
			}
			// The answer does not come; what comes of it later is nobody's.
			var late func(string)
			var asked sync.WaitGroup
			asked.Add(1)
			c := r.ask(network, &short, func(_ []byte, reply func(string)) { late = reply; asked.Done() })
			send(t, c, "hello\n")
			receive(t, c, "late\n")
			receiveEnd(t, c)
			asked.Wait()
			late("too late\n")
			c.Close()
			r.expect(Lifetime)
			late("far too late\n")

			c = r.ask(network, p, ask)
			send(t, c, "hel")
			c.CloseWrite()
			receiveEnd(t, c)
			r.expect(Closed)
			c = r.ask(network, p, func([]byte, func(string)) { asked.Done() })
			asked.Add(1)
			send(t, c, "hello\n")
			asked.Wait()
			reset(t, c)
			if network == "tcp" {
				r.expect(Reset)
			}
		})
	}
}
