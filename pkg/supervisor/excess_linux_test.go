package supervisor

// What becomes of the excess: texts and resets.

import (
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/limit"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
	"github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"
	"github.com/tcpmuxd/tcpmuxd/pkg/testkit"
)

func TestRefusalText(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Instances: 1})
	for i := range list {
		list[i].no, list[i].sv.Refusal = "come again\r\nlater\r\n", "come again\r\nlater\r\n"
		if list[i].line != "" {
			list[i].no, list[i].sv.Refusal = "-come again\r\n", "-come again\r\n"
		}
		list[i].sv.Access = rules(t, "", "127.0.0.66/32")
	}
	s := serve(t, rows...)
	for _, d := range list {
		held := d.in(t, "127.0.0.1")
		for _, more := range []string{"", "what he says does not destroy it", string(make([]byte, 100_000))} {
			c := dialFrom(t, "127.0.0.2", d.port)
			go c.Write([]byte(d.line + more))
			b := make([]byte, len(d.no)+10)
			n, err := io.ReadFull(c, b)
			if string(b[:n]) != d.no || err != nil && !errors.Is(err, io.ErrUnexpectedEOF) && len(more) < lingerBytes {
				t.Errorf("%s: read %q, %v", d.name, b[:n], err)
			}
			c.Close()
		}
		// It is for those over a limit, and nobody else.
		c := dialFrom(t, "127.0.0.66", d.port)
		if d.line != "" {
			c.send(d.line).ends(tcpmux.NotAvailable)
		} else {
			c.gone()
		}
		held.half().ends("")
		s.instances(0)
	}
	s.waiting(0)
}

// Those who linger over their text are bounded, by source and all of them.
func TestRefusalTextIsBounded(t *testing.T) {
	testkit.Check(t)
	port := testkit.FreePort(t)
	s := serve(t, anywhere(with(direct("cat", port, cat()), func(sv *service.Service) {
		sv.Limits.Instances, sv.Refusal = 1, "later\r\n"
	})))
	held := dial(t, port).send("x").expect("x")
	most := 0
	for i := range tellMost + 100 {
		from := "127.0.1.1"
		if i >= 2*tellPerSource {
			from = fmt.Sprintf("127.0.2.%d", 1+i/8)
		}
		dialFrom(t, from, port).expect("later\r\n")
		n := int(s.pending.count.Load())
		if most = max(most, n); n > tellMost || i < 2*tellPerSource && n > tellPerSource {
			t.Fatalf("%d linger after %d", n, i)
		}
	}
	if most < tellPerSource {
		t.Errorf("no more than %d linger", most)
	}
	held.half().ends("")
	s.waiting(0)
}

func TestOverflowReset(t *testing.T) {
	testkit.Check(t)
	list, rows := doors(t, limit.Limits{Instances: 1})
	for _, d := range list {
		d.sv.Overflow = service.OverflowReset
	}
	s := serve(t, rows...)
	for _, d := range list {
		held := d.in(t, "127.0.0.1")
		var b []byte
		c, err := tryFrom("127.0.0.2", d.port) // the reset may be faster
		if err == nil {
			if d.line != "" { // even an empty write would take the error away
				c.Write([]byte(d.line))
			}
			b, err = io.ReadAll(c)
			c.Close()
		}
		if len(b) > 0 || !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: read %q, %v", d.name, b, err)
		}
		held.half().ends("")
		s.instances(0)
	}
	s.waiting(0)
}

// On a unix socket there is no reset, and the text arrives whatever the peer sends.
func TestExcessOfUnixPeers(t *testing.T) {
	testkit.Check(t)
	for _, how := range []service.Overflow{service.OverflowRefuse, service.OverflowReset} {
		name := fmt.Sprintf("@tcpmuxd-test-%d-%d", syscall.Getpid(), how)
		row := direct("cat", 1, cat())
		row.Listen = []service.Endpoint{{Network: service.UnixStream, Path: name}}
		row.Limits.Instances, row.Overflow = 1, how
		want := ""
		if how == service.OverflowRefuse {
			row.Refusal, want = "later\r\n", "later\r\n"
		}
		s := serve(t, row)
		peer := func() net.Conn {
			c, err := net.Dial("unix", name)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			c.SetDeadline(time.Now().Add(bound))
			return c
		}
		held := peer()
		held.Write([]byte("x"))
		if _, err := io.ReadFull(held, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
		for range 5 {
			c := peer()
			c.Write([]byte("y"))
			b := make([]byte, 100)
			n, _ := io.ReadFull(c, b)
			if string(b[:n]) != want {
				t.Errorf("overflow %d: read %q, want %q", how, b[:n], want)
			}
		}
		held.Close()
		s.instances(0)
		s.stop()
	}
}
