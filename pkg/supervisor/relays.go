package supervisor

import "github.com/tcpmuxd/tcpmuxd/pkg/tcpmux"

// inside runs a service in the daemon itself: a built-in or a relay. The lease is
// in.lease; the descriptor of c is taken over.
func (w *worker) inside(u *unit, r *row, c connection, in *instance) {
	w.s.giveBack(u, &in.lease)
	w.refuse(c, u, refusedRow, tcpmux.NotAvailable)
}
