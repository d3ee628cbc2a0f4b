package nft

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// answerTime bounds the wait for the kernel's answer.
const answerTime = 5 * time.Second

// batchEnd is NFNL_MSG_BATCH_END of linux/netfilter/nfnetlink.h.
const batchEnd = unix.NFNL_MSG_BATCH_BEGIN + 1

// What nft(8) calls the types of keys, datatypes of its own: the kernel keeps the
// number and makes nothing of it.
const typeIPv4, typeIPv6 = 7, 8

// elementFlags is NFTA_SET_ELEM_FLAGS.
const elementFlags = 3

var families = map[string]byte{
	"inet": unix.NFPROTO_INET, "ip": unix.NFPROTO_IPV4, "netdev": unix.NFPROTO_NETDEV,
	"bridge": unix.NFPROTO_BRIDGE, "ip6": unix.NFPROTO_IPV6,
}

func open() (*Conn, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC, unix.NETLINK_NETFILTER)
	if err != nil {
		return nil, os.NewSyscallError("socket", err)
	}
	wait := unix.NsecToTimeval(answerTime.Nanoseconds())
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &wait); err != nil {
		unix.Close(fd)
		return nil, os.NewSyscallError("setsockopt SO_RCVTIMEO", err)
	}
	return &Conn{fd: fd}, nil
}

func (c *Conn) close() { unix.Close(c.fd) }

// A builder makes messages: struct nlmsghdr and struct nfgenmsg, then attributes,
// struct nlattr, each filled up to four bytes. Of nf_tables all numbers in them
// are big endian.
type builder []byte

// message begins one, and end ends it.
func (b *builder) message(kind, flags uint16, seq uint32, family byte, resource uint16) (at int) {
	at = len(*b)
	*b = binary.NativeEndian.AppendUint32(*b, 0)
	*b = binary.NativeEndian.AppendUint16(*b, kind)
	*b = binary.NativeEndian.AppendUint16(*b, flags)
	*b = binary.NativeEndian.AppendUint32(*b, seq)
	*b = binary.NativeEndian.AppendUint32(*b, 0)
	*b = append(*b, family, unix.NFNETLINK_V0)
	*b = binary.BigEndian.AppendUint16(*b, resource)
	return at
}

func (b *builder) end(at int) {
	binary.NativeEndian.PutUint32((*b)[at:], uint32(len(*b)-at))
}

func (b *builder) attr(kind uint16, value []byte) {
	*b = binary.NativeEndian.AppendUint16(*b, uint16(4+len(value)))
	*b = binary.NativeEndian.AppendUint16(*b, kind)
	*b = append(*b, value...)
	*b = append(*b, make([]byte, -len(value)&3)...)
}

func (b *builder) text(kind uint16, s string) { b.attr(kind, append([]byte(s), 0)) }

// nest begins an attribute of attributes, and unnest ends it.
func (b *builder) nest(kind uint16) (at int) {
	at = len(*b)
	*b = append(*b, 0, 0)
	*b = binary.NativeEndian.AppendUint16(*b, kind|unix.NLA_F_NESTED)
	return at
}

func (b *builder) unnest(at int) {
	binary.NativeEndian.PutUint16((*b)[at:], uint16(len(*b)-at))
}

func (b *builder) element(a netip.Addr, flags uint32, left time.Duration) {
	e := b.nest(unix.NFTA_LIST_ELEM)
	k := b.nest(unix.NFTA_SET_ELEM_KEY)
	b.attr(unix.NFTA_DATA_VALUE, a.AsSlice())
	b.unnest(k)
	if flags != 0 {
		b.attr(elementFlags, binary.BigEndian.AppendUint32(nil, flags))
	}
	if left > 0 {
		b.attr(unix.NFTA_SET_ELEM_TIMEOUT, binary.BigEndian.AppendUint64(nil, uint64(max(1, left.Milliseconds()))))
	}
	b.unnest(e)
}

func (c *Conn) change(s Set, kind Kind, list []Element, add bool) error {
	c.seq += 3
	op, flags := uint16(unix.NFT_MSG_DELSETELEM), uint16(unix.NLM_F_REQUEST|unix.NLM_F_ACK)
	if add {
		op, flags = unix.NFT_MSG_NEWSETELEM, flags|unix.NLM_F_CREATE
	}
	var b builder
	b.end(b.message(unix.NFNL_MSG_BATCH_BEGIN, unix.NLM_F_REQUEST, c.seq-2, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
	at := b.message(unix.NFNL_SUBSYS_NFTABLES<<8|op, flags, c.seq-1, families[s.Family], 0)
	b.text(unix.NFTA_SET_ELEM_LIST_TABLE, s.Table)
	b.text(unix.NFTA_SET_ELEM_LIST_SET, s.Name)
	elements := b.nest(unix.NFTA_SET_ELEM_LIST_ELEMENTS)
	for _, e := range list {
		left := e.Left
		if add {
			left = max(left, time.Millisecond)
		}
		b.element(e.Prefix.Masked().Addr(), 0, left)
		if end, ok := after(e.Prefix); kind.interval && ok {
			b.element(end, unix.NFT_SET_ELEM_INTERVAL_END, 0)
		}
	}
	b.unnest(elements)
	b.end(at)
	b.end(b.message(batchEnd, unix.NLM_F_REQUEST, c.seq, unix.AF_UNSPEC, unix.NFNL_SUBSYS_NFTABLES))
	_, err := c.exchange(b, c.seq-1)
	if err == unix.ENOENT && !add {
		if _, err := c.look(s, list[0].Prefix.Addr().Is6()); err != nil {
			return err // it is the set that is not there
		}
		return nil
	}
	return explain(err)
}

func (c *Conn) look(s Set, v6 bool) (k Kind, err error) {
	c.seq++
	var b builder
	at := b.message(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETSET, unix.NLM_F_REQUEST|unix.NLM_F_ACK, c.seq, families[s.Family], 0)
	b.text(unix.NFTA_SET_TABLE, s.Table)
	b.text(unix.NFTA_SET_NAME, s.Name)
	b.end(at)
	found, err := c.exchange(b, c.seq)
	if err != nil {
		return k, explain(err)
	}
	number := map[uint16]uint32{}
	for len(found) >= 4 {
		n, kind := int(binary.NativeEndian.Uint16(found)), binary.NativeEndian.Uint16(found[2:])
		if n < 4 || n > len(found) {
			break
		}
		if n == 8 {
			number[kind&^(unix.NLA_F_NESTED|unix.NLA_F_NET_BYTEORDER)] = binary.BigEndian.Uint32(found[4:])
		}
		found = found[min(len(found), (n+3)&^3):]
	}
	typ, size, name := uint32(typeIPv4), uint32(4), "ipv4_addr"
	if v6 {
		typ, size, name = typeIPv6, 16, "ipv6_addr"
	}
	flags := number[unix.NFTA_SET_FLAGS]
	k.interval = flags&unix.NFT_SET_INTERVAL != 0
	switch {
	case number[unix.NFTA_SET_KEY_TYPE] != typ || number[unix.NFTA_SET_KEY_LEN] != size || flags&unix.NFT_SET_MAP != 0:
		return k, fmt.Errorf("it is no set of addresses; make it with \"type %s\"", name)
	case flags&unix.NFT_SET_TIMEOUT == 0:
		return k, errors.New("its elements have no time; make it with \"flags timeout\"")
	case v6 && !k.interval:
		return k, errors.New("it has room for single addresses only, and what is banned is a network; make it with \"flags interval, timeout\"")
	}
	return k, nil
}

// exchange sends messages, waits for the answer to the one with the number seq,
// and returns the attributes that came before it.
func (c *Conn) exchange(b builder, seq uint32) (found []byte, err error) {
	if err := unix.Sendto(c.fd, b, 0, &unix.SockaddrNetlink{Family: unix.AF_NETLINK}); err != nil {
		return nil, os.NewSyscallError("sendto", err)
	}
	buf := make([]byte, 16<<10)
	for deadline := time.Now().Add(answerTime); ; {
		n, from, err := unix.Recvfrom(c.fd, buf, 0)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, os.NewSyscallError("recvfrom", err)
		case time.Now().After(deadline):
			return nil, unix.ETIMEDOUT
		}
		if a, ok := from.(*unix.SockaddrNetlink); !ok || a.Pid != 0 {
			continue // not from the kernel
		}
		for m := buf[:n]; len(m) >= unix.NLMSG_HDRLEN; {
			size := int(binary.NativeEndian.Uint32(m))
			if size < unix.NLMSG_HDRLEN || size > len(m) {
				break
			}
			kind, number, body := binary.NativeEndian.Uint16(m[4:]), binary.NativeEndian.Uint32(m[8:]), m[unix.NLMSG_HDRLEN:size]
			m = m[min(len(m), (size+3)&^3):]
			// The beginning and the end of a batch have numbers of their own: an
			// error there is about all of it. What is older is nobody's any more.
			if number != seq && number != seq-1 && number != seq+1 {
				continue
			}
			switch {
			case kind == unix.NLMSG_ERROR && len(body) >= 4:
				if errno := -int32(binary.NativeEndian.Uint32(body)); errno != 0 {
					return nil, unix.Errno(errno)
				}
				if number == seq {
					return found, nil
				}
			case number == seq && len(body) >= 4:
				found = append([]byte(nil), body[4:]...) // behind struct nfgenmsg
			}
		}
	}
}

// explain adds to an error what can be done about it.
func explain(err error) error {
	switch err {
	case unix.ENOENT:
		return fmt.Errorf("%w: there is no such table or set; make it with nft(8), and reload tcpmuxd", err)
	case unix.EPERM:
		return fmt.Errorf("%w: it needs root or CAP_NET_ADMIN", err)
	}
	return err
}
