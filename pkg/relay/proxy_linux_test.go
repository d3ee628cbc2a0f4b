package relay

import (
	"fmt"
	"net/netip"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/proxy"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// TestSendProxy: the header is the first that a target gets, before a byte of the
// peer; the peer gets none, and none of it counts.
func TestSendProxy(t *testing.T) {
	for i, version := range []service.SendProxy{service.SendV1, service.SendV2} {
		number := byte(i + 1)
		for _, by := range networks {
			for _, from := range []string{"tcp", "unix", "proxy"} {
				t.Run(fmt.Sprintf("v%d from %s to %s", number, from, by), func(t *testing.T) {
					r := run(t, nil)
					server := listen(t, by)
					p := to(targetOf(server))
					p.Forward.SendProxy = version
					p.Prefix = "+Go\r\n"
					network := "tcp"
					if from == "unix" {
						network = "unix"
					}
					c, fd, peer := pair(t, network)
					var source, destination netip.AddrPort
					switch from {
					case "tcp":
						source = peer.Addr
						destination = netip.MustParseAddrPort(c.RemoteAddr().String())
					case "proxy":
						source, destination = netip.MustParseAddrPort("[2001:db8::7]:4096"), netip.MustParseAddrPort("198.51.100.1:80")
						peer.Proxy = &service.Proxy{Addr: peer.Addr, Local: destination}
						peer.Addr = source
					}
					if err := r.Add(Conn{ID: 1, FD: fd, Plan: p, Peer: peer}); err != nil {
						unix.Close(fd)
						t.Fatal(err)
					}
					s := accept(t, server)
					header := string(proxy.New(number, source, destination))
					send(t, c, "question")
					receive(t, s, header+"question")
					send(t, s, "answer")
					receive(t, c, "+Go\r\nanswer")
					c.CloseWrite()
					receiveEnd(t, s)
					s.Close()
					receiveEnd(t, c)
					if e := r.expect(Closed); e.In != uint64(len("question")) || e.Out != uint64(len("answer")) {
						t.Errorf("%+v", e)
					}
				})
			}
		}
	}
}

// TestSendProxyToTheNext: each target that accepts is told, and the header is not used up by one that does
// not.
func TestSendProxyToTheNext(t *testing.T) {
	r := run(t, nil)
	gone := listen(t, "tcp")
	nobody := targetOf(gone)
	gone.Close()
	server := listen(t, "tcp")
	p := to(nobody, targetOf(server))
	p.Forward.SendProxy = service.SendV1
	c := r.serve("tcp", p)
	s := accept(t, server)
	receive(t, s, fmt.Sprintf("PROXY TCP4 127.0.0.1 127.0.0.1 %d %d\r\n",
		netip.MustParseAddrPort(c.LocalAddr().String()).Port(), netip.MustParseAddrPort(c.RemoteAddr().String()).Port()))
	s.Close()
	receiveEnd(t, c)
	c.Close()
	r.expect(Closed)
}
