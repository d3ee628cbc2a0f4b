//go:build !linux

package kernel

import (
	"errors"
	"net/netip"
)

// CameBy is for Linux.
func CameBy(int, bool) (uint32, error) { return 0, errors.ErrUnsupported }

// A Batch is memory for datagrams that are received together.
type Batch struct{}

// NewBatch makes a Batch.
func NewBatch(_, _ int) *Batch { return &Batch{} }

// Receive is for Linux.
func (b *Batch) Receive(int) (int, error) { return 0, errors.ErrUnsupported }

// Message is for Linux.
func (b *Batch) Message(int) Message { return Message{} }

// An Outbox is memory for datagrams that are sent together.
type Outbox struct{}

// NewOutbox makes an Outbox.
func NewOutbox(int) *Outbox { return &Outbox{} }

// Full is for Linux.
func (o *Outbox) Full() bool { return true }

// Len is for Linux.
func (o *Outbox) Len() int { return 0 }

// Answer is for Linux.
func (o *Outbox) Answer(Message, []byte, bool) {}

// Add is for Linux.
func (o *Outbox) Add([]byte, netip.AddrPort, uint32, netip.Addr, uint32, bool) {}

// Send is for Linux.
func (o *Outbox) Send(int) (int, error) { return 0, errors.ErrUnsupported }
