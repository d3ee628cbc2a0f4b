package relay

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A dial is the search for a target that accepts.
type dial struct {
	peer    netip.AddrPort // for Transparent
	header  string         // what a target is told first, see greet
	target  int            // the one in hand
	begun   bool           // it is in hand: limit is set
	places  []place        // its addresses; nil: not known yet
	place   int            // the one in hand
	limit   time.Duration  // how long to wait for it, or for its addresses
	again   time.Duration  // when to try it once more; 0: not
	failed  failures
	pending bool // connect(2) is under way
}

// A place is one address of a target.
type place struct {
	addr netip.AddrPort
	path string
}

// until is when to look at the dial again.
func (d *dial) until() time.Duration {
	if d.again > 0 && d.again < d.limit {
		return d.again
	}
	return d.limit
}

// next gives the target in hand up.
func (d *dial) next() {
	d.target++
	d.begun, d.places, d.place, d.again, d.pending = false, nil, 0, 0, false
}

// note keeps why the place in hand did not do.
func (d *dial) note(t *service.Target, err error) {
	name := t.String()
	if t.Host != "" && d.place < len(d.places) {
		name += " (" + d.places[d.place].addr.Addr().String() + ")"
	}
	d.failed = append(d.failed, fmt.Errorf("%s: %w", name, err))
}

func (d *dial) errors() error {
	if len(d.failed) == 0 {
		return nil
	}
	return d.failed
}

var (
	errTimeout     = errors.New("no answer in time")
	errNameTimeout = errors.New("looking up the name: no answer in time")
	errNoAddress   = errors.New("source = \"transparent\": the peer has no IP address")
	errFamily      = errors.New("source = \"transparent\": the peer's address is of the other family")
	errUnixSource  = errors.New("source = \"transparent\": a unix socket shows no addresses")
)

// failures are the errors of several targets, in one line.
type failures []error

func (f failures) Error() string {
	texts := make([]string, len(f))
	for i, err := range f {
		texts[i] = err.Error()
	}
	return strings.Join(texts, "; ")
}

// Unwrap is for errors.Is.
func (f failures) Unwrap() []error { return f }

// placesOf returns the addresses of a target; ok is false if they are being
// looked up.
func placesOf(t *service.Target, names *Names, w ringer) (list []place, ok bool, err error) {
	switch {
	case t.Path != "":
		return []place{{path: t.Path}}, true, nil
	case t.Host == "":
		return []place{{addr: t.Addr}}, true, nil
	}
	addrs, ok, err := names.get(t.Host, w)
	if err != nil {
		return nil, true, fmt.Errorf("looking up the name: %w", err)
	}
	for _, a := range addrs {
		list = append(list, place{addr: netip.AddrPortFrom(a, t.Port)})
	}
	return list, ok, nil
}
