// What a row is registered as with rpcbind(8): the key rpc. Whether rpcbind runs is
// the supervisor's matter.

package config

import (
	"errors"
	"fmt"
	"math"
	"strconv"
	"strings"

	"github.com/tcpmuxd/tcpmuxd/pkg/account"
	"github.com/tcpmuxd/tcpmuxd/pkg/service"
)

// The bounds of rpc. rpcbind is told of every single version.
const (
	maxVersions = 64
	portmapper  = 100000 // rpcbind itself
)

// rpc reads the key of that name.
func (r *row) rpc() {
	t := &r.text.RPC
	if !t.Pos.IsSet() || r.both || r.kind&find(serviceKeys, "rpc").kinds == 0 {
		return
	}
	out := new(service.RPC)
	ok := r.rpcProgram(t, out)
	if ok = r.rpcVersions(t, out) && ok; !ok {
		return
	}
	r.svc.RPC = out
	at := map[service.Network]bound{}
	for _, b := range r.listen {
		for _, n := range netsAt(b) {
			other, twice := at[n]
			if twice && !r.isDefaults() {
				r.errorf("listen", b.pos, "rpcbind knows one address for %s of a program, and the row has %s already; take one out", n.Netid(), other.Endpoint)
				return
			}
			at[n] = b
		}
	}
}

// netsAt are the networks that rpcbind tells apart, of one socket.
func netsAt(b bound) []service.Network {
	switch {
	case !b.Network.IP():
		return nil
	case b.Dual && b.Network.UDP():
		return []service.Network{service.UDP4, service.UDP6}
	case b.Dual:
		return []service.Network{service.TCP4, service.TCP6}
	}
	return []service.Network{b.Network}
}

// rpcProgram reads rpc.program.
func (r *row) rpcProgram(t *RPC, out *service.RPC) bool {
	const key = "rpc.program"
	p := string(t.Program.V)
	if !t.Program.IsSet() {
		if !r.bad(key) {
			r.errorf(key, t.Pos, "there is none; write a name of rpc(5) or a number")
		}
		return false
	}
	if isDigits(p) {
		n, err := strconv.ParseUint(p, 10, 32)
		if err != nil || n == 0 {
			r.errorf(key, t.Program.Pos, "%s is out of bounds; write a number from 1 to %d, or a name of rpc(5)", clip(p), uint32(math.MaxUint32))
			return false
		}
		out.Program = uint32(n)
	} else {
		n, err := r.c.asked.rpcs.ask(p, r.c.o.Accounts.Program)
		switch {
		case errors.Is(err, account.ErrUnknown):
			r.errorf(key, t.Program.Pos, "%s is no program in rpc(5); write its number instead, or add it to /etc/rpc", clip(p))
			return false
		case err != nil:
			r.errorf(key, t.Program.Pos, "%s %s; write its number instead", clip(p), lookupError(err))
			return false
		}
		out.Program = n
	}
	if out.Program == portmapper {
		r.errorf(key, t.Program.Pos, "%s is rpcbind itself, which registers its own; start it by itself", clip(p))
		return false
	}
	return true
}

// rpcVersions reads rpc.versions.
func (r *row) rpcVersions(t *RPC, out *service.RPC) bool {
	const key = "rpc.versions"
	v := string(t.Versions.V)
	if !t.Versions.IsSet() {
		if !r.bad(key) {
			r.errorf(key, t.Pos, "there is none; write a version such as \"1\", or the first and the last as in \"1-3\"")
		}
		return false
	}
	first, last, two := strings.Cut(v, "-")
	if !two {
		last = first
	}
	low, err1 := strconv.ParseUint(first, 10, 32)
	high, err2 := strconv.ParseUint(last, 10, 32)
	switch {
	case !isDigits(first) || !isDigits(last):
		r.errorf(key, t.Versions.Pos, "%s is no version; write one such as \"1\", or the first and the last as in \"1-3\"", clip(v))
	case err1 != nil || err2 != nil:
		r.errorf(key, t.Versions.Pos, "%s is out of bounds; write numbers from 0 to %d", clip(v), uint32(math.MaxUint32))
	case low > high:
		r.errorf(key, t.Versions.Pos, "%s runs backwards; write \"%d-%d\" instead", clip(v), high, low)
	case high-low >= maxVersions:
		r.errorf(key, t.Versions.Pos, "%s are %d versions; write at most %d", clip(v), high-low+1, maxVersions)
	default:
		out.Low, out.High = uint32(low), uint32(high)
		return true
	}
	return false
}

// A registered is what rpcbind knows one address for.
type registered struct {
	program, version uint32
	network          service.Network
}

// register notes what a row is registered as, and reports a row that is so already:
// the one would take the other's place at rpcbind.
func (c *compiler) register(r *row) {
	p := r.svc.RPC
	if p == nil {
		return
	}
	for _, b := range r.listen {
		for _, n := range netsAt(b) {
			for v := uint64(p.Low); v <= uint64(p.High); v++ {
				k := registered{p.Program, uint32(v), n}
				other := c.rpcs[k]
				if other == nil {
					c.rpcs[k] = r
					continue
				}
				if other != r {
					pos := r.text.RPC.Pos
					if r.inherited["rpc"] { // the row is where the two can be told apart
						pos = r.text.Pos
					}
					f := r.problem("", pos, "version %d of program %d over %s is registered by row %q at %s already; take one of them out%s",
						[]any{v, p.Program, n.Netid(), other.text.ID, other.text.Pos, apart(other.svc.RPC, p)})
					f.Key = "rpc"
					r.fault(f)
					return
				}
			}
		}
	}
}

// apart says how two rows of one program could both be, where they could.
func apart(a, b *service.RPC) string {
	if b.High > a.High && b.Low > a.Low {
		return fmt.Sprintf(", or write versions = \"%s\"", (&service.RPC{Low: a.High + 1, High: b.High}).Versions())
	}
	return ""
}
