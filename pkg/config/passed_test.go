package config

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// given makes a passed socket: "tcp4 0.0.0.0:21", "dual [::]:21", "unix /run/x".
func given(fd int, name, what string) service.Passed {
	kind, at, _ := strings.Cut(what, " ")
	p := service.Passed{FD: fd, Name: name}
	e := &p.Endpoint
	switch kind {
	case "dual":
		kind, e.Dual = "tcp6", true
	case "dual-udp":
		kind, e.Dual = "udp6", true
	}
	for n := service.TCP4; n <= service.VsockSeqpacket; n++ {
		if strings.ReplaceAll(n.String(), " ", "-") == kind {
			e.Network = n
		}
	}
	switch {
	case e.Network.IP():
		e.Addr = netip.MustParseAddrPort(at)
	case e.Network.Vsock():
		e.CID = service.VsockAny
		fmt.Sscan(at, &e.Port)
	default:
		e.Path = at
	}
	return p
}

func TestPassed(t *testing.T) {
	const run = "exec = \"/bin/a\"\n"
	type list = []service.Passed
	for _, tt := range []struct {
		name, text string
		passed     list
		want       string // rows that listen, and where; then warnings; or the error
	}{
		{"by the row's key, without a port in services", "[service.x]\n" + run,
			list{given(3, "x", "tcp6 [::1]:99"), given(4, "x", "unix /run/x")}, "x [::1]:99 /run/x"},
		{"by the row's name", "[service.y]\nname = \"x\"\n" + run, list{given(3, "x", "tcp4 192.0.2.1:99")}, "y 192.0.2.1:99"},
		{"the key before the name", "[service.x]\n" + run + "[service.y]\nname = \"x\"\nlisten = \"5000\"\n" + run,
			list{given(3, "x", "tcp4 192.0.2.1:99")}, "x 192.0.2.1:99\ny 0.0.0.0:5000 [::]:5000"},
		{"the name of two rows", "[service.y]\nname = \"x\"\n" + run + "[service.z]\nname = \"x\"\nlisten = \"5000\"\n" + run,
			list{given(3, "x", "tcp4 192.0.2.1:99")},
			`t.toml:4:10: row "z": the socket 192.0.2.1:99 (tcp4, descriptor 3, name "x") was passed, and row "y" at t.toml:1:10 has that name, too; give the socket the key of the row it is for`},
		{"by name, and others besides", "[service.x]\nlisten = [\"192.0.2.1:99\", \"5000\"]\n" + run,
			list{given(3, "x", "tcp4 192.0.2.1:99"), given(4, "x", "tcp4 192.0.2.2:99")}, "x 192.0.2.1:99 192.0.2.2:99 0.0.0.0:5000 [::]:5000"},
		{"by name, for both families", "[service.x]\nlisten = [\"99\", \"5000\"]\n" + run,
			list{given(3, "x", "dual [::]:99")}, "x [::]:99 0.0.0.0:5000 [::]:5000"},
		{"by address", "[service.x]\nlisten = [\"80\", \"/run//x\", \"vsock:6\"]\n" + run,
			list{given(3, "a", "tcp4 0.0.0.0:80"), given(4, "", "tcp6 [::]:80"), given(5, "unknown", "unix /run/x"), given(6, "a.socket", "vsock 6")},
			"x 0.0.0.0:80 [::]:80 /run/x vsock:6"},
		{"by address, for both families", "[service.ftp]\n" + run + "[service.time]\nsocket = \"dgram\"\nwait = true\n" + run,
			list{given(3, "", "dual [::]:21"), given(4, "", "dual-udp [::]:37")}, "ftp [::]:21\ntime [::]:37"},
		{"for both families, and one is wanted", "[service.ftp]\nprotocol = \"tcp4\"\n" + run, list{given(3, "", "dual [::]:21")},
			`t.toml:1:10: row "ftp": listen: the socket [::]:21 (tcp6, descriptor 3, name "") was passed, which is for IPv4 and IPv6, and the row wants one of them; write both, or pass one with BindIPv6Only=ipv6-only`},
		{"v6 alone leaves v4 to be opened", "[service.x]\nlisten = \"8021\"\n" + run, list{given(3, "", "tcp6 [::]:8021")}, "x 0.0.0.0:8021 [::]:8021"},
		{"datagrams for a stream row", "[service.x]\n" + run, list{given(3, "x", "udp4 0.0.0.0:69")},
			`t.toml:1:10: row "x": the socket 0.0.0.0:69 (udp4, descriptor 3, name "x") was passed, a dgram socket, and the row wants a stream one; write socket = "dgram" or pass another`},
		{"datagrams for the multiplexer", "[service.tcpmux]\nbuiltin = \"tcpmux\"\n", list{given(3, "tcpmux", "udp4 0.0.0.0:69")},
			`t.toml:1:10: row "tcpmux": the socket 0.0.0.0:69 (udp4, descriptor 3, name "tcpmux") was passed, a dgram socket, and the row wants a stream one; pass another`},
		{"another protocol", "[service.x]\nprotocol = \"tcp4\"\n" + run, list{given(3, "x", "tcp6 [::1]:69")},
			`t.toml:1:10: row "x": the socket [::1]:69 (tcp6, descriptor 3, name "x") was passed, which is tcp6, and the row has protocol "tcp4"; write another protocol or pass another`},
		{"the implied multiplexer by name", "[service.\"tcpmux/a\"]\n" + run,
			list{given(3, "tcpmux", "tcp4 127.0.0.1:10001"), given(4, "tcpmux", "unix @mux")}, "tcpmux 127.0.0.1:10001 @mux\ntcpmux/a"},
		{"the implied multiplexer by address", "[service.\"tcpmux/a\"]\n" + run,
			list{given(3, "x.socket", "dual [::]:1"), given(4, "", "tcp4 127.0.0.1:5")},
			"tcpmux [::]:1\ntcpmux/a\n" + `warning: t.toml:1:1: the socket 127.0.0.1:5 (tcp4, descriptor 4, name "") was passed and matches no row; give it the key of a row, or write its address in listen`},
		{"the implied multiplexer by what is left", "[service.ftp]\nlisten = \"2000\"\n" + run + "[service.\"tcpmux/a\"]\n" + run,
			list{given(3, "x.socket", "tcp4 0.0.0.0:2000"), given(4, "unknown", "tcp4 127.0.0.1:5"), given(5, "", "udp4 127.0.0.1:5")},
			"ftp 0.0.0.0:2000 [::]:2000\ntcpmux 127.0.0.1:5\ntcpmux/a\n" + `warning: t.toml:1:1: the socket 127.0.0.1:5 (udp4, descriptor 5, name "") was passed and matches no row; give it the key of a row, or write its address in listen`},
		{"a multiplexer without listen", "[service.m]\nbuiltin = \"tcpmux\"\n", list{given(3, "", "unix /run/m")}, "m /run/m"},
		{"a row that is disabled", "[service.x]\nenabled = false\n" + run + "[service.y]\nlisten = \"5000\"\n" + run, list{given(3, "x", "tcp4 127.0.0.1:5")},
			"y 0.0.0.0:5000 [::]:5000\n" + `warning: t.toml:1:1: the socket 127.0.0.1:5 (tcp4, descriptor 3, name "x") was passed and matches no row; give it the key of a row, or write its address in listen`},
		{"the same place by name and by address", "[service.x]\n" + run + "[service.y]\nlisten = \"127.0.0.1:5000\"\n" + run, list{given(3, "x", "dual [::]:5000")},
			`t.toml:4:10: row "y": listen: 127.0.0.1:5000 is taken: row "x" at t.toml:1:10 has 0.0.0.0:5000; write another address or port`},
		{"passed twice", "[service.x]\n" + run, list{given(3, "x", "tcp4 127.0.0.1:5"), given(4, "x", "tcp4 127.0.0.1:5")},
			"x 127.0.0.1:5\n" + `warning: t.toml:1:10: row "x": the socket 127.0.0.1:5 (tcp4, descriptor 4, name "x") was passed twice; one of them is not used`},
		{"not said beside errors", "[service.x]\nlisten = \"y\"\n" + run, list{given(3, "", "tcp4 127.0.0.1:5")},
			`t.toml:2:10: row "x": listen: TCP service "y" is unknown; write a port from 1 to 65535 instead`},
		{"access judges what was passed", "[service.x]\naccess.allow = \"192.0.2.1\"\n" + run, list{given(3, "x", "unix /run/x")},
			`t.toml:2:16: row "x": access.allow: says nothing of users, and row "x" listens on /run/x; write access.uids or access.gids as well`},
		{"options of what was passed", "[service.x]\nnodelay = true\n" + run, list{given(3, "x", "unix /run/x")},
			`t.toml:2:11: row "x": nodelay: means nothing for a unix socket; take it out`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			// Neither rights nor addresses matter for what is passed.
			for _, o := range []*Options{asRoot(), asAlice()} {
				o.Passed = tt.passed
				o.Up = func(netip.Addr, string) bool { return false }
				text := tt.text
				if o.UID == 0 {
					text += "[defaults]\nuser = \"root\"\n"
				}
				table, warnings, err := compile(t, text, o)
				var got []string
				if err != nil {
					got = append(got, err.Error())
				} else {
					for _, s := range table.Services {
						line := s.ID
						for _, e := range s.Listen {
							line += " " + e.String()
						}
						got = append(got, line)
					}
					for _, w := range warnings {
						if !strings.Contains(w.Text, "is not up") {
							got = append(got, "warning: "+w.Error())
						}
					}
				}
				if got := strings.Join(got, "\n"); got != tt.want {
					t.Errorf("uid %d:\n%s\nwant:\n%s", o.UID, got, tt.want)
				}
			}
		})
	}
}
