package limit

// Sources as an administrator writes them.

import (
	"fmt"
	"net/netip"
	"strconv"
	"strings"
)

// ParseSource reads what String writes of a source with the default prefixes: an
// address, which stands for all of its source, the prefix of one, "uid:1000" or
// "vsock:3".
func ParseSource(s string) (Source, error) {
	for word, make := range map[string]func(uint32) Source{"uid:": User, "vsock:": Machine} {
		if number, ok := strings.CutPrefix(s, word); ok {
			n, err := strconv.ParseUint(number, 10, 32)
			if err != nil {
				return Source{}, fmt.Errorf("%q has no number after %q", s, word)
			}
			return make(uint32(n)), nil
		}
	}
	var l Limits
	if a, err := netip.ParseAddr(s); err == nil {
		return l.Source(a), nil
	}
	p, err := netip.ParsePrefix(s)
	if err != nil {
		return Source{}, fmt.Errorf("%q is no source; write an address, a prefix, \"uid:1000\" or \"vsock:3\"", s)
	}
	if src := l.Source(p.Addr()); src.Prefix() == p {
		return src, nil
	}
	return Source{}, fmt.Errorf("%q is not one source; write an address in it, or a prefix of 32 bits or, for IPv6, 64", s)
}
