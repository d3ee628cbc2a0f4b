// Package listener opens the sockets a row listens on and accepts from them.
//
// It sets exactly the options the row names, and no others: the kernel hands
// them on to every accepted socket, so whatever the daemon set for its own
// comfort would be seen by the child. It does not poll and does not know what
// a connection is for.
package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// ErrNotUp means that the address or the interface of an endpoint does not
// exist at the moment. It may come up later, so it is worth another try when
// addresses change.
var ErrNotUp = errors.New("address is not up")

// ErrClosed is what Accept returns after Close.
var ErrClosed = errors.New("listener is closed")

// A Listener is one listening socket. All methods may be called concurrently.
type Listener struct {
	Endpoint service.Endpoint
	fd       int
	wait     bool
	blocking atomic.Bool
	zone     uint32 // interface index of Endpoint's zone

	// refs counts users of fd, plus one for the owner. A close while another
	// thread stands before its accept4 would let that thread accept from
	// whatever got the number next.
	refs   atomic.Int64
	closed atomic.Bool
}

// Open makes a non-blocking, close-on-exec socket that listens on ep with the
// options of s. An error wraps ErrNotUp where only the address is missing.
func Open(ep service.Endpoint, sv *service.Service) (*Listener, error) {
	l := &Listener{Endpoint: ep}
	l.refs.Store(1)
	l.wait = sv.Wait
	if err := l.open(sv.Socket); err != nil {
		return nil, fmt.Errorf("listening on %s %s: %w", ep.Network, ep.Addr, err)
	}
	return l, nil
}

// Up reports whether a socket can have the address a now and, unless device is
// empty, be bound to that interface; for the zero Addr only the interface is
// looked for. It is true where that cannot be told. Nothing is listened on, and
// the answer may be wrong a moment later: it is for telling an administrator.
func Up(a netip.Addr, device string) bool {
	if !a.IsValid() {
		a = netip.IPv4Unspecified()
	}
	return isUp(a, device)
}

// Retune applies the options of s to a socket that listens already with those
// of old, which it has again after an error. Queued connections are kept.
// ReusePort, Freebind and BindToDevice act only when a socket is bound, and stay
// as they were.
func (l *Listener) Retune(old_, s_ *service.Service) error {
	old, s := old_.Socket, s_.Socket
	if err := tune(l.fd, l.Endpoint.Network, old, s); err != nil {
		// What stood before the option that failed is set back.
		tune(l.fd, l.Endpoint.Network, s, old)
		return fmt.Errorf("changing the options of %s %s: %w", l.Endpoint.Network, l.Endpoint.Addr, err)
	}
	return nil
}

// Fd is the socket's descriptor. It belongs to the Listener.
func (l *Listener) Fd() int { return l.fd }

// Accept takes one connection from the queue. The descriptor is the caller's;
// it is close-on-exec and blocking, as children have always got it. A v4 peer
// is a v4 address also on a v6 socket. Errors are ErrClosed or bare errno
// values; EAGAIN means that nobody waits.
func (l *Listener) Accept() (fd int, peer service.Peer, err error) {
	if !l.hold() {
		return -1, peer, ErrClosed
	}
	defer l.release()
	fd, peer.Addr, err = l.accept()
	peer.Network = l.Endpoint.Network
	if err != nil && l.closed.Load() {
		err = ErrClosed
	}
	return fd, peer, err
}

// Waiting reports whether a peer is in the queue. accept4(2) takes a descriptor
// before it looks, so its EMFILE does not tell.
func (l *Listener) Waiting() bool {
	if !l.hold() {
		return false
	}
	defer l.release()
	return readable(l.fd)
}

// Close ends the listening: afterwards the address is free, and the peers in
// the queue are reset. The descriptor is closed as soon as no Accept is under
// way.
func (l *Listener) Close() {
	if l.closed.CompareAndSwap(false, true) {
		// A child that is just being made may have a copy for a moment, with
		// which the socket would listen on.
		unlisten(l.fd)
		l.release()
	}
}

// hold never brings a socket back that nobody holds any more: its number may
// belong to something else by then.
func (l *Listener) hold() bool {
	for {
		n := l.refs.Load()
		if n == 0 || l.closed.Load() {
			return false
		}
		if l.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

func (l *Listener) release() {
	if l.refs.Add(-1) == 0 {
		closeFd(l.fd)
	}
}

func Adopt(fd int, ep service.Endpoint, sv *service.Service) (*Listener, error) {
	return nil, errors.New("no")
}
func (l *Listener) Abandon() {
	if l.closed.CompareAndSwap(false, true) {
		l.release()
	}
}
func (l *Listener) Local(conn int) service.Endpoint {
	return service.Endpoint{Network: l.Endpoint.Network, Addr: l.local(conn)}
}
