package filter

import (
	"fmt"
	"net/netip"
)

// Bans are sources that no socket hears, whatever its rules say. One Bans may be
// that of any number of Filters, whose sockets all go by it from one packet to
// the next. Its methods may be called concurrently, but for Close.
//
// It costs the daemon one descriptor, and each source about 100 bytes of kernel
// memory.
type Bans struct{ m int }

// NewBans makes an empty Bans with room for so many sources.
func NewBans(most int) (*Bans, error) {
	b, err := newBans(most)
	if err != nil {
		return nil, fmt.Errorf("making a list of bans in the kernel: %w", explain(err))
	}
	return b, nil
}

// Add has packets from a prefix dropped. It may be there already.
func (b *Bans) Add(p netip.Prefix) error {
	if err := b.add(p.Masked()); err != nil {
		return fmt.Errorf("adding %s to the bans in the kernel: %w", p, explain(err))
	}
	return nil
}

// Remove lets the packets of a prefix that was added be judged by rules again. It
// need not be there.
func (b *Bans) Remove(p netip.Prefix) error {
	if err := b.remove(p.Masked()); err != nil {
		return fmt.Errorf("removing %s from the bans in the kernel: %w", p, explain(err))
	}
	return nil
}

// Close gives back the descriptor. Filters that have the Bans go on with what is
// in it until they get another, or nil.
func (b *Bans) Close() { b.close() }

// Ban has all sockets of the filter go by bans; nil: by none any more. A Filter
// that Find has found may still have those of an earlier daemon.
func (f *Filter) Ban(b *Bans) error {
	if err := f.ban(b); err != nil {
		return fmt.Errorf("changing the bans of an access filter in the kernel: %w", explain(err))
	}
	return nil
}
