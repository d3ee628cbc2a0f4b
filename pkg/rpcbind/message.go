package rpcbind

// Calls and replies as bytes: RFC 5531 (RPC) and RFC 4506 (XDR), as far as two
// procedures need them. Nothing here touches a socket; a reply may be anything.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"strconv"
)

// Numbers of RFC 1833 and RFC 5531.
const (
	program    = 100000
	procSet    = 1
	procUnset  = 2
	rpcVersion = 2
	msgCall    = 0
	msgReply   = 1
	accepted   = 0
	denied     = 1

	progUnavail  = 1
	progMismatch = 2
	procUnavail  = 3
	garbageArgs  = 4
	systemError  = 5

	authNone    = 0
	maxVerifier = 400 // opaque_auth, RFC 5531 section 8.2

	lastFragment = 1 << 31 // of a record, RFC 5531 section 11
	// maxReply is more than any reply to these procedures has.
	maxReply = 1024
)

// Versions of the protocol: that of the portmapper, which knows ports of IPv4
// alone, and that of rpcbind.
const (
	versionPortmap = 2
	versionRpcbind = 3
)

// A Mapping says that a version of a program is served at an address.
type Mapping struct {
	Program, Version uint32
	Netid            string // tcp, udp, tcp6 or udp6
	Addr             netip.AddrPort
}

// Universal is the address as RFC 1833 section 2.2.1 writes it: that of the host and
// both bytes of the port, with dots between.
func (m Mapping) Universal() string {
	port := m.Addr.Port()
	return m.Addr.Addr().WithZone("").String() + "." + strconv.Itoa(int(port>>8)) + "." + strconv.Itoa(int(port&0xff))
}

// protocol is that of IP, for netids of IPv4; 0 for others.
func (m Mapping) protocol() uint32 {
	switch m.Netid {
	case "tcp":
		return 6
	case "udp":
		return 17
	}
	return 0
}

// appendCall appends a whole record with a call about m.
func appendCall(b []byte, xid, version, proc uint32, m Mapping) []byte {
	start := len(b)
	u := func(list ...uint32) {
		for _, n := range list {
			b = binary.BigEndian.AppendUint32(b, n)
		}
	}
	u(0, xid, msgCall, rpcVersion, program, version, proc, authNone, 0, authNone, 0, m.Program, m.Version)
	if version == versionPortmap {
		u(m.protocol(), uint32(m.Addr.Port()))
	} else {
		// Whose it is comes last, and is not believed: rpcbind asks the kernel.
		for _, s := range []string{m.Netid, m.Universal(), ""} {
			u(uint32(len(s)))
			b = append(b, s...)
			b = append(b, "\x00\x00\x00"[:-len(s)&3]...)
		}
	}
	binary.BigEndian.PutUint32(b[start:], lastFragment|uint32(len(b)-start-4))
	return b
}

// errShort: a reply ends before it is complete.
var errShort = errors.New("the reply is cut short")

// A mismatch says which versions there are instead of the one that was asked for.
type mismatch struct{ low, high uint32 }

func (m mismatch) Error() string {
	return fmt.Sprintf("only versions %d to %d of the protocol are spoken", m.low, m.high)
}

// parseReply reads a reply without its record marks: whether what was asked for was
// done. A mismatch is an error of its own kind; errWrongXid says that it is no reply
// to this call.
func parseReply(b []byte, xid uint32) (done bool, err error) {
	next := func() (n uint32) {
		if len(b) < 4 {
			err = errShort
			return 0
		}
		n = binary.BigEndian.Uint32(b)
		b = b[4:]
		return n
	}
	gotXid, kind, state := next(), next(), next()
	switch {
	case err != nil:
		return false, err
	case kind != msgReply:
		return false, fmt.Errorf("a message of type %d is no reply", kind)
	case gotXid != xid:
		return false, errWrongXid
	case state == denied:
		why, detail := next(), next()
		if err == nil {
			err = fmt.Errorf("the call was denied (%d, %d)", why, detail)
		}
		return false, err
	case state != accepted:
		return false, fmt.Errorf("a reply of state %d is neither accepted nor denied", state)
	}
	_, size := next(), next()
	if size > maxVerifier {
		return false, fmt.Errorf("a verifier of %d bytes is too long", size)
	}
	if size = (size + 3) &^ 3; err == nil && uint32(len(b)) < size {
		err = errShort
	}
	if err != nil {
		return false, err
	}
	b = b[size:]
	switch state := next(); {
	case err != nil:
	case state == progMismatch:
		low, high := next(), next()
		if err == nil {
			err = mismatch{low, high}
		}
	case state != 0:
		words := map[uint32]string{progUnavail: "it is no rpcbind", procUnavail: "it does not register anything",
			garbageArgs: "it does not understand the call", systemError: "it is in trouble"}
		word, known := words[state]
		if !known {
			word = fmt.Sprintf("an answer of state %d", state)
		}
		err = errors.New(word)
	default:
		switch answer := next(); {
		case err != nil:
		case answer > 1:
			err = fmt.Errorf("%d is no truth value", answer)
		case len(b) > 0:
			err = fmt.Errorf("%d bytes stand behind the reply", len(b))
		default:
			return answer == 1, nil
		}
	}
	return false, err
}

var errWrongXid = errors.New("a reply to another call")
