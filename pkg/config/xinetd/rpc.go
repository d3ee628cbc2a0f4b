// Services of Sun RPC: type = RPC, rpc_version and rpc_number.

package xinetd

import (
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/config"
)

// rpc fills in what the service is registered as with rpcbind(8): its name is that
// of rpc(5), unless it is UNLISTED and has a number.
func (s *svc) rpc() {
	w, ok := s.types["RPC"]
	_, version, versioned := s.one("rpc_version")
	a, number, numbered := s.one("rpc_number")
	switch {
	case !ok:
		for _, name := range []string{"rpc_version", "rpc_number"} {
			if a, _, ok := s.one(name); ok {
				s.lost(a.name, "means nothing without type = RPC, and is passed over")
			}
		}
		return
	case s.named || s.kind != program && s.kind != relay:
		s.wrong(w, "is for programs that are reached at a port of their own; take it out")
		return
	case !versioned:
		s.wrong(w, "says that the service has versions, and there are none here; write rpc_version = NUMBER or FIRST-LAST")
		return
	case !s.is("UNLISTED"):
		if numbered {
			s.lost(a.name, "means nothing without type = UNLISTED: the number is that of the name in /etc/rpc")
		}
		number = s.name
	case !numbered:
		s.wrong(s.types["UNLISTED"], "says that the service is not in /etc/rpc, and there is no number here; write rpc_number = NUMBER")
		return
	case strings.Trim(number.V, "0123456789") != "":
		s.bad(a, number, "is no number of a program; write one")
		return
	}
	s.out.RPC.Pos = w.Pos
	put(&s.out.RPC.Program, number)
	put(&s.out.RPC.Versions, version)
}

// put fills in what may be a number or a name.
func put[T ~string](dst *config.Value[T], v config.String) {
	*dst = config.Value[T]{V: T(v.V), Pos: v.Pos}
}
