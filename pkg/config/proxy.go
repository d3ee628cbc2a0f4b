// Who is believed when he says for whom a connection is: the keys proxy_from and
// proxy_timeout. What is sent to targets is in forward.go.

package config

import (
	"time"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

// A header is sent at once or not at all, so that this is about machines that are
// slow or broken; nobody who comes through a proxy can make it wait.
const (
	defaultProxyTimeout = 5 * time.Second
	maxProxyTimeout     = time.Minute
)

// proxies reads proxy_from and proxy_timeout, when it is known where the row
// listens.
func (r *row) proxies() {
	s := r.text
	timeout := r.duration("proxy_timeout", s.ProxyTimeout, defaultProxyTimeout, 100*time.Millisecond, maxProxyTimeout, 0)
	from := r.prefixes("proxy_from", s.ProxyFrom, nil)
	switch {
	case r.isDefaults():
		return
	case len(s.ProxyFrom.V) == 0: // nobody
		if s.ProxyTimeout.IsSet() && !r.inherited["proxy_timeout"] && !r.bad("proxy_from") && !r.both {
			r.errorf("proxy_timeout", s.ProxyTimeout.Pos, "nobody is to send a header; write proxy_from = [\"ADDRESS\"] beside it, or take it out")
		}
		return
	case r.wait:
		// Access would judge the proxy instead of the peer, and the program would
		// take the header for what the peer says.
		r.errorf("proxy_from", s.ProxyFrom.Pos, "row %q has wait = true, so its program accepts the connections and nobody can read a header before; write proxy_from = [] in it, or wait = false", r.text.ID)
		return
	}
	rules, err := access.New(from, nil)
	if err != nil {
		r.errorf("proxy_from", s.ProxyFrom.Pos, "%v", err)
	}
	if rules != nil { // not only sets that are empty
		r.svc.ProxyFrom, r.svc.ProxyTimeout = rules, timeout
	}
}
