// The host argument: what people and ssh's %h write for a host, made into what
// the dialer reads. Nothing is resolved here.

package main

import (
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"
)

// defaultPort is tcpmux in the registry of port numbers (RFC 1078).
const defaultPort = "1"

// parseAddress splits HOST[:PORT] and joins it again with the default port. An
// IPv6 address stands in brackets when a port follows it; alone it may stand
// bare, with or without a zone. A port is a number or a name of services(5).
func parseAddress(s string) (string, error) {
	host, port := s, defaultPort
	switch {
	case strings.HasPrefix(s, "["):
		inside, after, ok := strings.Cut(s[1:], "]")
		if !ok {
			return "", fmt.Errorf("%q: a bracket is not closed", s)
		}
		if a, err := netip.ParseAddr(inside); err != nil || !a.Is6() {
			return "", fmt.Errorf("%q: no IPv6 address in the brackets", s)
		}
		host = inside
		if after != "" {
			if after[0] != ':' {
				return "", fmt.Errorf("%q: only :port can follow the bracket", s)
			}
			port = after[1:]
		}
	case strings.Count(s, ":") == 1:
		host, port, _ = strings.Cut(s, ":")
	case strings.Contains(s, ":"):
		if _, err := netip.ParseAddr(s); err != nil {
			return "", fmt.Errorf("%q: neither host:port nor an IPv6 address", s)
		}
	}
	if host == "" {
		return "", fmt.Errorf("%q: the host is empty", s)
	}
	if n, err := strconv.Atoi(port); port == "" || err == nil && (n < 1 || n > 65535) {
		return "", fmt.Errorf("%q: a port is 1 to 65535 or a name of services(5)", s)
	}
	return net.JoinHostPort(host, port), nil
}
