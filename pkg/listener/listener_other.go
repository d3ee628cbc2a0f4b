//go:build !linux

package listener

import (
	"errors"
	"net/netip"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

func closeFd(int)       {}
func readable(int) bool { return false }

func interfaceIndex(string) (uint32, error) { return 0, errors.ErrUnsupported }

func cookieOf(int) (uint64, error) { return 0, errors.ErrUnsupported }

func setBlocking(int, bool) error { return errors.ErrUnsupported }

func (l *Listener) open(*service.Service) error { return errors.ErrUnsupported }

func adopt(int, service.Endpoint, *service.Service) (*Listener, error) {
	return nil, errors.ErrUnsupported
}

func inspect(int) (service.Endpoint, error) { return service.Endpoint{}, errors.ErrUnsupported }

func isUp(netip.Addr, string) bool { return true }

func (l *Listener) change(_, _ *service.Service) error { return errors.ErrUnsupported }

func (l *Listener) accept() (int, service.Peer, error) {
	return -1, service.Peer{}, errors.ErrUnsupported
}

func (l *Listener) local(int) service.Endpoint { return l.Endpoint }

func (l *Listener) unlisten() {}

func (l *Listener) unlink() {}

func (l *Listener) takeRights(*service.Service) {}
