//go:build !linux

package listener

import (
	"errors"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func closeFd(int)       {}
func unlisten(int)      {}
func readable(int) bool { return false }

func (l *Listener) open(service.Socket) error { return errors.ErrUnsupported }

func isUp(netip.Addr, string) bool { return true }

func tune(int, service.Network, service.Socket, service.Socket) error { return errors.ErrUnsupported }

func (l *Listener) accept() (int, netip.AddrPort, error) {
	return -1, netip.AddrPort{}, errors.ErrUnsupported
}

// Local is the address that the peer of conn has connected to.
func (l *Listener) local(int) netip.AddrPort { return l.Endpoint.Addr }

func (l *Listener) SetBlocking(bool) error { return errors.ErrUnsupported }
