// Package rpcbind registers programs of Sun RPC with rpcbind(8), or with a
// portmapper that is older: RFC 1833, versions 3 and 2.
//
// It asks over rpcbind's own socket where there is one, because there the kernel
// says who asks: rpcbind notes it as the owner, and lets nobody else but root
// unregister the program. Elsewhere it asks over TCP on the loopback interface,
// from a reserved port if it may have one: some take no other's word.
//
// Every call ends by the deadline of its Conn. message.go has the codec, which does
// no input or output.
package rpcbind

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math/rand/v2"
	"net"
	"net/netip"
	"syscall"
)

// ErrRefused is in the errors that are about one Mapping, after which the Conn is as
// good as before.
var ErrRefused = errors.New("rpcbind refuses")

var (
	errTaken = fmt.Errorf("%w: another address is registered for it, or this user may not register it", ErrRefused)
	errNoSix = fmt.Errorf("%w: it is a portmapper, which knows nothing of IPv6", ErrRefused)
)

// A Server is where rpcbind can be asked.
type Server struct {
	Sockets []string       // its unix sockets, the first that there is
	Addr    netip.AddrPort // where it listens besides; a loopback address
}

// Local is this machine's.
var Local = Server{
	Sockets: []string{"/run/rpcbind.sock", "/var/run/rpcbind.sock"},
	Addr:    netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), 111),
}

// A Conn is a connection to rpcbind. It is for one goroutine.
type Conn struct {
	c       net.Conn
	version uint32
	xid     uint32
	out     []byte
	in      [maxReply]byte
}

// Dial connects to a server. What is done over the connection ends, too, by the
// deadline of ctx, which has one.
func (s Server) Dial(ctx context.Context) (*Conn, error) {
	c, err := s.dial(ctx)
	if err != nil {
		return nil, fmt.Errorf("connecting to rpcbind: %w", err)
	}
	if end, ok := ctx.Deadline(); ok {
		c.SetDeadline(end)
	}
	return &Conn{c: c, version: versionRpcbind, xid: rand.Uint32()}, nil
}

func (s Server) dial(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	var first error
	for _, path := range s.Sockets {
		c, err := d.DialContext(ctx, "unix", path)
		if err == nil {
			return c, nil
		}
		if first == nil && !errors.Is(err, fs.ErrNotExist) {
			first = fmt.Errorf("%s: %w", path, bare(err))
		}
	}
	c, err := s.loopback(ctx)
	if err != nil && first != nil {
		return nil, first // it is there, and was asked first
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", s.Addr, bare(err))
	}
	return c, nil
}

// bare is an error of package net without the addresses, one of which is another one
// every time.
func bare(err error) error {
	var op *net.OpError
	if errors.As(err, &op) {
		return op.Err
	}
	return err
}

// Reserved ports, of which the lowest are services' own; and how many are tried.
const (
	lowReserved  = 600
	highReserved = 1023
	portTries    = 16
)

// loopback connects from a reserved port, or where that is not to be had from
// another one.
func (s Server) loopback(ctx context.Context) (net.Conn, error) {
	port := lowReserved + rand.IntN(highReserved-lowReserved+1)
	for range portTries {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.Addr.Addr().AsSlice(), Port: port}}
		c, err := d.DialContext(ctx, "tcp", s.Addr.String())
		switch {
		case errors.Is(err, syscall.EADDRINUSE), errors.Is(err, syscall.EADDRNOTAVAIL):
			if port++; port > highReserved {
				port = lowReserved
			}
		case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
			var d net.Dialer
			return d.DialContext(ctx, "tcp", s.Addr.String())
		default:
			return c, err
		}
	}
	var d net.Dialer
	return d.DialContext(ctx, "tcp", s.Addr.String())
}

// Close ends the connection.
func (c *Conn) Close() error { return c.c.Close() }

// Portmapper reports whether what answers is no more than that: its Unset takes
// out a version of a program whatever the transport is. It is known after the first
// call.
func (c *Conn) Portmapper() bool { return c.version == versionPortmap }

// Set registers m, which may be registered already. The error wraps ErrRefused if
// another address is, and otherwise the Conn is of no use any more.
func (c *Conn) Set(m Mapping) error {
	done, err := c.call(procSet, m)
	if err == nil && !done {
		err = errTaken
	}
	return err
}

// Unset takes m's program, version and netid out, whatever its address is. That there
// is no such registration is no error, nor that it is somebody else's: rpcbind does
// not tell.
func (c *Conn) Unset(m Mapping) error {
	_, err := c.call(procUnset, m)
	return err
}

// call asks, and asks again in the older version if there is none but that.
func (c *Conn) call(proc uint32, m Mapping) (bool, error) {
	for {
		if c.version == versionPortmap && m.protocol() == 0 {
			return false, errNoSix
		}
		done, err := c.exchange(proc, m)
		var other mismatch
		if errors.As(err, &other) && c.version != versionPortmap && other.low <= versionPortmap && versionPortmap <= other.high {
			c.version = versionPortmap
			continue
		}
		if err != nil {
			err = fmt.Errorf("asking rpcbind: %w", bare(err))
		}
		return done, err
	}
}

// exchange sends one call and reads its reply.
func (c *Conn) exchange(proc uint32, m Mapping) (bool, error) {
	c.xid++
	c.out = appendCall(c.out[:0], c.xid, c.version, proc, m)
	if _, err := c.c.Write(c.out); err != nil {
		return false, err
	}
	reply, err := readRecord(c.c, c.in[:])
	if err != nil {
		return false, err
	}
	return parseReply(reply, c.xid)
}

// readRecord reads a record into b, which it has to fit into.
func readRecord(r io.Reader, b []byte) ([]byte, error) {
	n := 0
	for {
		var mark [4]byte
		if _, err := io.ReadFull(r, mark[:]); err != nil {
			return nil, err
		}
		size := binary.BigEndian.Uint32(mark[:])
		last := size&lastFragment != 0
		size &^= lastFragment
		switch {
		case size > uint32(len(b)-n):
			return nil, fmt.Errorf("a reply of more than %d bytes is none to this call", len(b))
		case size == 0 && !last:
			return nil, errors.New("a fragment of a reply is empty")
		}
		if _, err := io.ReadFull(r, b[n:n+int(size)]); err != nil {
			return nil, err
		}
		if n += int(size); last {
			return b[:n], nil
		}
	}
}
