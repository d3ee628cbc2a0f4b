// What kind of sockets a row has: the keys socket, protocol and wait. Where
// they are is in listen.go.

package config

import (
	"slices"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// A style is a type of socket, socket(2).
type style uint8

const (
	stream style = iota
	dgram
	seqpacket
)

var styleWords = []choice[style]{{"stream", stream}, {"dgram", dgram}, {"seqpacket", seqpacket}}

func (s style) String() string { return styleWords[s].word }

// families are the words of protocol that go with a style; the first is the
// default.
var families = map[style][]string{
	stream:    {"tcp", "tcp4", "tcp6", "unix", "vsock"},
	dgram:     {"udp", "udp4", "udp6", "unix"},
	seqpacket: {"unix", "vsock"},
}

var familyWords = []choice[string]{{"", ""}, {"tcp", "tcp"}, {"tcp4", "tcp4"}, {"tcp6", "tcp6"},
	{"udp", "udp"}, {"udp4", "udp4"}, {"udp6", "udp6"}, {"unix", "unix"}, {"vsock", "vsock"}}

// networks are the kinds of sockets by style and word of protocol.
var networks = map[style]map[string][]service.Network{
	stream: {"tcp": {service.TCP4, service.TCP6}, "tcp4": {service.TCP4}, "tcp6": {service.TCP6},
		"unix": {service.UnixStream}, "vsock": {service.VsockStream}},
	dgram: {"udp": {service.UDP4, service.UDP6}, "udp4": {service.UDP4}, "udp6": {service.UDP6},
		"unix": {service.UnixDgram}},
	seqpacket: {"unix": {service.UnixSeqpacket}, "vsock": {service.VsockSeqpacket}},
}

// styleOf is the style of a kind of socket.
func styleOf(n service.Network) style {
	switch {
	case n.Dgram():
		return dgram
	case n == service.UnixSeqpacket || n == service.VsockSeqpacket:
		return seqpacket
	}
	return stream
}

// transport is "TCP" or "UDP", what ports of the row are of.
func (r *row) transport() string {
	if r.style == dgram {
		return "UDP"
	}
	return "TCP"
}

// styles are what a row of kind k may have.
func (k kind) styles() []style {
	switch {
	case k == execDirect || k == all:
		return []style{stream, dgram, seqpacket}
	case k == builtinDirect:
		return []style{stream, dgram}
	}
	return []style{stream}
}

// kindOfSocket finds out the style, the family of ports, and who accepts. What
// comes from [defaults] and does not fit the row is not taken.
func (r *row) kindOfSocket() {
	s := r.text
	r.style = choose(r, "socket", s.Socket, styleWords)
	r.family = choose(r, "protocol", s.Protocol, familyWords)
	ownStyle, ownFamily := s.Socket.IsSet() && !r.inherited["socket"], r.family != "" && !r.inherited["protocol"]
	fits := func(st style) bool { return r.family == "" || slices.Contains(families[st], r.family) }
	if !fits(r.style) && !ownStyle && (ownFamily || !s.Socket.IsSet()) {
		for _, st := range []style{stream, dgram} { // protocol = "udp" says it all
			if fits(st) {
				r.style = st
				break
			}
		}
	}
	// A row that cannot have what it asks for is said so once.
	if !slices.Contains(r.kind.styles(), r.style) {
		key, pos := "socket", s.Socket.Pos
		if !ownStyle {
			key, pos = "protocol", s.Protocol.Pos
		}
		if (ownStyle || ownFamily) && !r.both {
			words := make([]string, 0, 2)
			for _, st := range r.kind.styles() {
				words = append(words, st.String())
			}
			r.errorf(key, pos, "%s has no %s sockets; write socket = %s instead", r.kind, r.style, either(words))
			ownFamily = false
		}
		r.style, ownStyle = stream, false
	}
	if !fits(r.style) {
		if ownFamily {
			r.errorf("protocol", s.Protocol.Pos, "there are no %s sockets of it; write %s instead", r.style, either(families[r.style]))
			ownFamily = false
		}
		r.family = ""
	}
	if r.family == "" {
		r.family, ownFamily = families[r.style][0], false
	}
	r.own = ownFamily

	switch {
	case !s.Wait.V:
	case r.kind&(execDirect) != 0:
		r.wait = true
	case !r.inherited["wait"] && !r.both:
		switch {
		case r.kind&byName != 0:
			r.errorf("wait", s.Wait.Pos, "only a program with sockets of its own can take them over, the multiplexer keeps its own; write wait = false instead")
		default:
			r.errorf("wait", s.Wait.Pos, "only a program can take the sockets over, %s runs in tcpmuxd; write wait = false instead", r.kind)
		}
	}
	r.svc.Wait = r.wait && !r.isDefaults()
}

// session reports whether peers of the row's datagram sockets have an instance
// each.
func (r *row) session() bool { return r.kind == execDirect && r.style == dgram && !r.wait }

// answers reports whether the row is a built-in service that answers datagrams.
func (r *row) answers() bool { return r.kind == builtinDirect && r.style == dgram }
