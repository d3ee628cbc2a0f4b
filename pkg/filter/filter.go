// Package filter lets the kernel itself refuse packets to a socket by the
// address they come from.
//
// It is for sockets whose packets the server reads: nobody else could look at
// them first. A Filter is an eBPF program on the socket that looks the source
// address of every packet up in a map of access.Rules; what they refuse is
// never queued, so that it wakes nobody. The address is that of the packet's own
// network header, whatever the family of the socket, so that a v4 packet to a v6
// socket is judged by v4 rules. What cannot be judged is dropped.
//
// Of TCP every packet is judged, on the listening socket and on those accepted
// from it, which have the same filter: a connection of a source that was allowed
// and is no longer falls silent. There is no reset: to a denied source the
// address looks as if nobody were there.
//
// A filter does not resolve names, count or log.
package filter

import (
	"fmt"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

// A Filter is a program with the rules it judges by. One Filter may be attached
// to any number of sockets. Its methods may be called concurrently.
//
// It costs the daemon two descriptors, and a thousand prefixes take about 200 kB
// of kernel memory, which before Linux 5.11 RLIMIT_MEMLOCK must leave room for.
type Filter struct {
	outer   int // map of maps: the one element is the map of rules
	program int
}

// New makes a Filter that judges by r; nil rules let everybody in. The error
// says what to do where the kernel or a container refuses bpf(2).
func New(r *access.Rules) (*Filter, error) {
	f, err := load(r)
	if err != nil {
		return nil, fmt.Errorf("making an access filter in the kernel: %w", explain(err))
	}
	return f, nil
}

// Attach puts the filter on a socket for good: nobody can take it off or
// replace it, not even root in a child that has the socket (SO_LOCK_FILTER in
// socket(7)). It remains when the Filter is closed. EPERM means that the
// socket has a locked filter already, EOPNOTSUPP that it is one of MPTCP.
func (f *Filter) Attach(fd int) error {
	if err := f.attach(fd); err != nil {
		return fmt.Errorf("attaching an access filter: %w", err)
	}
	return nil
}

// Update has all sockets of the filter judged by r, from one packet to the next:
// each is judged by either all of the old rules or all of the new. After an
// error the old ones stand.
func (f *Filter) Update(r *access.Rules) error {
	if err := f.update(r); err != nil {
		return fmt.Errorf("changing an access filter in the kernel: %w", explain(err))
	}
	return nil
}

// Close gives back the descriptors. Sockets go on with the rules they have; call
// nothing else afterwards.
func (f *Filter) Close() { f.close() }
