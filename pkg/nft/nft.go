// Package nft puts addresses into sets of nftables and takes them out, and does
// nothing else there: tables, sets and rules are the administrator's own.
//
// It speaks netlink itself (netfilter's subsystem nf_tables, linux/netfilter/
// nf_tables.h), three kinds of messages. The sets have single addresses or, with
// the flag interval, prefixes, and the flag timeout.
package nft

import (
	"errors"
	"fmt"
	"net/netip"
	"syscall"
	"time"
)

// A Set is the name of one.
type Set struct {
	Family string // ip, ip6, inet, netdev or bridge
	Table  string
	Name   string
}

func (s Set) String() string { return s.Family + " " + s.Table + " " + s.Name }

// An Element is a prefix that is to be in a set for so long, 1 ms at least.
type Element struct {
	Prefix netip.Prefix
	Left   time.Duration
}

// A Conn is a way to the kernel, in the network namespace of who has opened it.
// It is for one goroutine at a time.
type Conn struct {
	fd  int
	seq uint32
}

// most is how many elements go in one message.
const most = 256

// Open makes a Conn.
func Open() (*Conn, error) {
	c, err := open()
	if err != nil {
		return nil, fmt.Errorf("opening netlink for nftables: %w", err)
	}
	return c, nil
}

// Close gives back the descriptor.
func (c *Conn) Close() { c.close() }

// A Kind is what is to be known of a set to write to it.
type Kind struct {
	interval bool
}

// Look finds a set, and says what is wrong with it if it cannot have prefixes of
// such addresses with a time.
func (c *Conn) Look(s Set, v6 bool) (Kind, error) {
	k, err := c.look(s, v6)
	if err != nil {
		return k, fmt.Errorf("the nftables set %q: %w", s, err)
	}
	return k, nil
}

// Add puts elements into a set that Look has found. Those that are there already
// are as good as new. One that overlaps another that is there, which somebody else
// has put there, is an error, which keeps none of the others out.
func (c *Conn) Add(s Set, k Kind, list []Element) error {
	var overlap error
	for len(list) > 0 {
		n := min(len(list), most)
		err := c.change(s, k, list[:n], true)
		if errors.Is(err, syscall.EEXIST) { // and the kernel has taken none
			for _, e := range list[:n] {
				if err = c.change(s, k, []Element{e}, true); errors.Is(err, syscall.EEXIST) {
					overlap = fmt.Errorf("adding %s to the nftables set %q: %w", e.Prefix, s, err)
					err = nil
				}
				if err != nil {
					break
				}
			}
		}
		if err != nil {
			return fmt.Errorf("adding to the nftables set %q: %w", s, err)
		}
		list = list[n:]
	}
	return overlap
}

// Remove takes a prefix out of a set. It need not be there.
func (c *Conn) Remove(s Set, k Kind, p netip.Prefix) error {
	if err := c.change(s, k, []Element{{Prefix: p}}, false); err != nil {
		return fmt.Errorf("removing %s from the nftables set %q: %w", p, s, err)
	}
	return nil
}

// after is the first address that is not in p; false if p goes to the end.
func after(p netip.Prefix) (netip.Addr, bool) {
	b := p.Masked().Addr().AsSlice()
	for i, bit := (p.Bits()-1)/8, byte(0x80)>>((p.Bits()+7)%8); p.Bits() > 0 && i >= 0; i, bit = i-1, 1 {
		b[i] += bit
		if b[i] != 0 {
			a, _ := netip.AddrFromSlice(b)
			return a, true
		}
	}
	return netip.Addr{}, false
}
