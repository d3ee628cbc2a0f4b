package limit

// This file is admission by two books at once: a service's, and the daemon's. It
// does not know why there are two.

import "time"

// An Ask is a question to one Book on behalf of a source. Reserved says that the
// asker has a place by Reserve, as for AdmitReserved.
type Ask struct {
	Book     *Book
	Source   Source
	Reserved bool
}

// Leases are an instance's places in the books of its service and of the daemon.
type Leases struct{ Row, Server Lease }

// AdmitBoth is Admit, of row's book and of server's: both say yes and all is
// taken, or nothing is used up in either. The caller holds both books until it
// returns. row's is asked first; a Reason of the other has Server in its name.
func AdmitBoth(now time.Duration, row, server Ask) (Leases, Reason) {
	a, why := row.Book.look(now, row.Source, row.Reserved)
	if why != OK {
		return Leases{}, why
	}
	b, why := server.Book.look(now, server.Source, server.Reserved)
	if why != OK {
		return Leases{}, why.OfServer()
	}
	return Leases{row.Book.take(row.Source, a, true, row.Reserved), server.Book.take(server.Source, b, true, server.Reserved)}, OK
}

// Enter counts an instance that runs already, whatever the limits say. It costs
// no token.
func (b *Book) Enter(now time.Duration, src Source) Lease {
	e, _ := b.look(now, src, false)
	return b.take(src, e, false, false)
}
