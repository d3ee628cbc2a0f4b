//go:build !linux

package listener

import (
	"errors"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func stamp(int) (seconds, microseconds int64, err error) { return 0, 0, errors.ErrUnsupported }

// Datagrams is for Linux.
func (l *Listener) Datagrams(func(int)) (*Datagrams, error) { return nil, errors.ErrUnsupported }

func (d *Datagrams) zoned(a netip.Addr, _ uint32) netip.Addr { return a }

// Receive is for Linux.
func (d *Datagrams) Receive(*kernel.Batch) (int, error) { return 0, errors.ErrUnsupported }

// Open is for Linux.
func (d *Datagrams) Open(Datagram, service.Socket, *kernel.Batch) (*Session, error) {
	return nil, errors.ErrUnsupported
}

// Part is for Linux.
func (d *Datagrams) Part(*Session, *kernel.Batch) []Datagram { return nil }

// PutBack is for Linux.
func (d *Datagrams) PutBack(Datagram) error { return errors.ErrUnsupported }

// End is for Linux.
func (d *Datagrams) End(*Session, bool, *kernel.Batch, func(Datagram)) int { return 0 }

// Sweep is for Linux.
func (d *Datagrams) Sweep(*kernel.Batch, func(Datagram)) bool { return false }

// Close is for Linux.
func (d *Datagrams) Close() {}
