package listener

// One session: its socket from the first datagram to the last.

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// Open makes the session of a datagram's peer, with the options of a row. From
// here on its datagrams come to the session's socket and to no other; those that
// were received before, g among them, are the caller's to put back. A socket
// costs one descriptor; each address that has sessions costs up to sparesMost, and
// one more where the listener is bound to none. What b held is overwritten; g
// must not be of b.
func (d *Datagrams) Open(g Datagram, s service.Socket, b *kernel.Batch) (*Session, error) {
	if !g.Local.IsValid() {
		return nil, ErrNoSession
	}
	x, err := d.open(g, s, b)
	if err != nil {
		return nil, fmt.Errorf("opening a session of %s: %w", g.Peer, err)
	}
	return x, nil
}

func (d *Datagrams) open(g Datagram, s service.Socket, b *kernel.Batch) (_ *Session, err error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed || !d.l.hold() {
		return nil, ErrClosed
	}
	defer d.l.release()
	x := &Session{Peer: g.Peer, Local: g.Local, fd: -1}
	if x.guard, err = d.guardLocked(g.Local, s); err != nil {
		return nil, err
	}
	with := []int{d.l.fd}
	if x.guard.fd >= 0 {
		with = append(with, x.guard.fd)
	}
	defer func() {
		if err != nil {
			unix.Close(x.fd)
			d.dismissLocked(x.guard, x.Local)
		}
	}()
	if x.fd = d.takeSpareLocked(x.guard, x.Local, s); x.fd < 0 {
		if x.fd, err = d.bind(g.Local, s, false, with...); err != nil {
			return nil, err
		}
	}
	x.parted = x.stamp() // from here on the kernel notes it; of a spare something may have been read
	sa, err := d.sockaddr(g.Peer)
	if err != nil {
		return nil, err
	}
	if err := unix.Connect(x.fd, sa); err != nil {
		return nil, os.NewSyscallError("connect", err)
	}
	if err := leaveGroup(x.fd); err != nil {
		return nil, err
	}
	d.makeSparesLocked(x.guard, x.Local, s, with)
	d.putBackAll(d.partLocked(x, b))
	return x, nil
}

// Part takes from the queue of a session what other peers have sent, and puts
// that back. While the session's socket is being connected, the kernel may look at
// its peer first and then whether it is connected, and takes it for another's;
// what it has chosen it for comes some microseconds later, or much later on a
// machine that is out of processors. So this is to be called as late as can be
// before the server reads, and before anybody asks Read. What the session's own
// peer has sent is returned, in order, for the caller to put back after what came
// earlier. What b held is overwritten.
func (d *Datagrams) Part(x *Session, b *kernel.Batch) []Datagram {
	d.mu.RLock()
	defer d.mu.RUnlock()
	if d.closed {
		return nil
	}
	return d.partLocked(x, b)
}

func (d *Datagrams) partLocked(x *Session, b *kernel.Batch) (own []Datagram) {
	for total := 0; total < partMost; {
		if x.stamp() != x.parted {
			x.served = true // it was faster
		}
		n, err := b.Receive(x.fd)
		if err != nil {
			break
		}
		for i := range n {
			g := d.DatagramOf(b, i)
			g.Local = x.Local
			if !samePeer(g.Peer, x.Peer) {
				d.putBack(g) // what the network loses is lost
				continue
			}
			g.Data, g.Peer = bytes.Clone(g.Data), x.Peer
			own = append(own, g)
		}
		if total += n; n > 0 {
			x.parted = x.stamp()
		}
	}
	return own
}

// samePeer compares addresses without their zones, which have more names than one.
func samePeer(a, b netip.AddrPort) bool {
	return a.Port() == b.Port() && a.Addr().WithZone("") == b.Addr().WithZone("")
}

func (d *Datagrams) putBackAll(list []Datagram) {
	for _, g := range list {
		d.putBack(g) // what the network loses is lost
	}
}

// partMost is more than can come within a few system calls.
const partMost = 256

// End ends a session: the next datagram of its peer comes to the listener again.
// What its server has left unread is passed to f as if it had just been received
// if the server has read anything at all, or if again is set; otherwise it is
// thrown away, so that a server that reads nothing is not started for it for
// ever. dropped is how many datagrams that were. The socket stays open until
// Sweep, for what is still on its way. The data that f gets are b's.
func (d *Datagrams) End(x *Session, again bool, b *kernel.Batch, f func(Datagram)) (dropped int) {
	l := late{fd: x.fd, since: time.Now(), read: again || x.Read() != 0, peer: x.Peer, local: x.Local}
	d.toItself(x.fd, x.Local)
	dropped = d.drain(b, l, f)
	d.mu.Lock()
	defer d.mu.Unlock()
	d.dismissLocked(x.guard, x.Local)
	if d.closed {
		unix.Close(x.fd)
		return dropped
	}
	d.late = append(d.late, l)
	return dropped
}
