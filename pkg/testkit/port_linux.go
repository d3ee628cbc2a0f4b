// The lock of a port: a name in the abstract space of unix sockets, which
// reaches exactly as far as the port itself (the network namespace), goes away
// with its process and leaves no file. It does not bind the port.

package testkit

import (
	"net"
	"strconv"
)

func lockPort(port int) (unlock func(), ok bool) {
	name := "@tcpmuxd-test-port-" + strconv.Itoa(port)
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: name, Net: "unixgram"})
	if err != nil {
		return nil, false
	}
	return func() { c.Close() }, true
}
