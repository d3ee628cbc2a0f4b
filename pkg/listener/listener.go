// Package listener opens the sockets a row listens on, takes those that were
// passed to the daemon, and accepts from them.
//
// It sets exactly the options the row names, and no others: the kernel hands
// them on to every accepted socket, so whatever the daemon set for its own
// comfort would be seen by the child. It does not poll and does not know what
// a connection is for; it reads no datagram of a wait row.
package listener

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// ErrNotUp means that the address, the interface or the family of an endpoint
// does not exist at the moment. It may come up later, so it is worth another try
// when addresses change.
var ErrNotUp = errors.New("address is not up")

// ErrLocked means that a passed socket has a filter that nobody can take off, and
// that it cannot be changed either. It stays in force; the socket must not be
// served by a row that may have other rules.
var ErrLocked = errors.New("the locked filter that it has cannot be changed " +
	"(to have the socket opened anew, systemctl restart its .socket unit)")

// ErrClosed is what the methods of a Listener return after Close.
var ErrClosed = errors.New("listener is closed")

// A Listener is one socket that peers connect or send to. All methods may be
// called concurrently.
type Listener struct {
	Endpoint service.Endpoint // where it is bound
	Asked    service.Endpoint // what it was opened for: Endpoint, or any port
	fd       int
	zone     uint32      // interface index of Endpoint's zone
	adopted  bool        // the socket is that of whoever has passed it
	groups   atomic.Bool // the row asks for groups of peers
	priority atomic.Int64
	blocking atomic.Bool
	guard    *guard
	file     file // of a unix socket that is not adopted

	// refs counts users of fd, plus one for the owner. A close while another
	// thread stands before its accept4 would let that thread accept from
	// whatever got the number next.
	refs   atomic.Int64
	closed atomic.Bool
	// accepting counts those who are in accept4, for SetBlocking.
	accepting atomic.Int64
}

// A file is what is known of the path of a unix socket: which inode it is, and
// whom it belonged to when it was made. The zero value is no file.
type file struct {
	dev, ino uint64
	uid, gid int
}

func newListener(ep service.Endpoint, sv *service.Service, g *guard) *Listener {
	l := &Listener{Endpoint: ep, Asked: ep, fd: -1, guard: g}
	l.refs.Store(1)
	l.blocking.Store(sv.Wait)
	l.heed(sv)
	return l
}

// heed notes what Accept does for each peer.
func (l *Listener) heed(sv *service.Service) {
	// Asking for groups takes a system call.
	l.groups.Store(sv.Users != nil && len(sv.Users.GIDs) > 0)
	// Alone of all options it is not handed on by the kernel.
	l.priority.Store(int64(sv.Socket.Priority))
}

// Open makes a close-on-exec socket that listens on ep with the options of sv. It
// is blocking if sv has Wait and not otherwise. Where the server reads from the
// socket by itself and sv has Access, the kernel judges every packet (package
// filter) from the first one on. An error wraps ErrNotUp where only the address
// is missing. For port 0 the kernel chooses one, and Endpoint has it.
//
// A socket in the file system replaces one that nobody is bound to any more, and
// no other file; directories that are missing are made. Nobody can use it before
// it has its owner and mode.
func Open(ep service.Endpoint, sv *service.Service) (*Listener, error) {
	l := newListener(ep, sv, new(guard))
	if err := l.open(sv); err != nil {
		l.guard.close()
		return nil, fmt.Errorf("listening on %s %s: %w", ep.Network, ep, err)
	}
	return l, nil
}

// Adopt makes a Listener of a socket that the daemon was passed, which Inspect
// says ep of. fd stays the caller's, who may adopt it again after Close: the
// Listener has a descriptor of its own. The socket stays that of whoever has made
// it: Close neither ends the listening nor removes a path, owner and mode of
// which are never changed. What is common to all its descriptors is set as sv
// needs it, and remains: the options that sv names, O_NONBLOCK and, for good, the
// access filter, which the next Adopt changes as its row needs. The error wraps
// ErrLocked where the filter is that of another process, not even an earlier
// daemon's, or the right to find it is missing (package filter).
func Adopt(fd int, ep service.Endpoint, sv *service.Service) (*Listener, error) {
	l, err := adopt(fd, ep, sv)
	if err != nil {
		return nil, fmt.Errorf("taking the passed socket %s %s: %w", ep.Network, ep, err)
	}
	l.takeRights(sv)
	return l, nil
}

// Inspect says what a descriptor is that the daemon was passed. listening is
// true if there is no error: peers can connect, or send, to it. The error says
// what it is instead. fd is not changed and stays the caller's.
func Inspect(fd int) (ep service.Endpoint, listening bool, err error) {
	ep, err = inspect(fd)
	return ep, err == nil, err
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

// Retune applies the options and the access of sv to a socket that listens
// already with those of old, which it has again after an error. Queued peers are
// kept. ReusePort of TCP, Freebind and BindToDevice act only when a socket is
// bound, and stay as they were. Whether the socket blocks is SetBlocking's.
func (l *Listener) Retune(old, sv *service.Service) error {
	if !l.hold() {
		return ErrClosed
	}
	defer l.release()
	if err := l.change(old, sv); err != nil {
		return fmt.Errorf("changing the options of %s %s: %w", l.Endpoint.Network, l.Endpoint, err)
	}
	l.heed(sv)
	l.takeRights(sv)
	return nil
}

// SetBlocking makes the socket blocking, as servers of wait rows need it, or not,
// as Accept needs it, for everybody who has it. It does nothing if it is so
// already. It is called by one goroutine at a time.
func (l *Listener) SetBlocking(on bool) error {
	if !l.hold() {
		return ErrClosed
	}
	defer l.release()
	if l.blocking.Load() == on {
		return nil
	}
	if on {
		// An accept4 that comes after this would wait, and its thread with it.
		l.blocking.Store(true)
		for l.accepting.Load() > 0 {
			time.Sleep(50 * time.Microsecond)
		}
	}
	if err := setBlocking(l.fd, on); err != nil {
		l.blocking.Store(!on)
		return err
	}
	l.blocking.Store(on)
	return nil
}

// Fd is the socket's descriptor. It belongs to the Listener.
func (l *Listener) Fd() int { return l.fd }

// Accept takes one connection from the queue. The descriptor is the caller's;
// it is close-on-exec and blocking, as children have always got it. A v4 peer
// is a v4 address also on a v6 socket. Who the peer of a unix socket is was found
// out by the kernel when it connected. Errors are ErrClosed or bare errno values;
// EAGAIN means that nobody waits, or that the socket blocks.
func (l *Listener) Accept() (fd int, peer service.Peer, err error) {
	if !l.hold() {
		return -1, peer, ErrClosed
	}
	defer l.release()
	l.accepting.Add(1)
	defer l.accepting.Add(-1)
	if l.blocking.Load() {
		return -1, peer, syscall.EAGAIN
	}
	fd, peer, err = l.accept()
	if err != nil && l.closed.Load() {
		err = ErrClosed
	}
	return fd, peer, err
}

// Local is the address that the peer of conn, a socket accepted here, has
// connected to.
func (l *Listener) Local(conn int) service.Endpoint { return l.local(conn) }

// Waiting reports whether a peer or a datagram is in the queue. accept4(2) takes
// a descriptor before it looks, so its EMFILE does not tell.
func (l *Listener) Waiting() bool {
	if !l.hold() {
		return false
	}
	defer l.release()
	return readable(l.fd)
}

// Close ends the listening: afterwards the address is free, and the peers in
// the queue are reset. The path of a unix socket is removed if it still is that
// of this socket. The descriptor is closed as soon as no Accept is under way. A
// socket that was adopted listens on.
func (l *Listener) Close() {
	if l.closed.CompareAndSwap(false, true) {
		if !l.adopted {
			l.unlink()
			// A child that is just being made may have a copy for a moment, with
			// which the socket would listen on.
			l.unlisten()
		}
		l.release()
	}
}

// Abandon gives up the socket for those who have it besides the daemon, such as
// the server of a wait row: they go on with it, and its path remains.
func (l *Listener) Abandon() {
	if l.closed.CompareAndSwap(false, true) {
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
		if !l.adopted && l.guard != nil {
			l.guard.close()
		}
	}
}
