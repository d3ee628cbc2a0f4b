// Package filter lets the kernel itself refuse packets to a socket by the
// address they come from.
//
// It is for sockets whose packets the server reads: nobody else could look at
// them first. A Filter is an eBPF program on the socket that looks every packet
// up in a map that was made of a Judgment: the interface it came by, the address
// it goes to and the one it comes from. What is refused is never queued, so that
// it wakes nobody. Addresses are those of the packet's own network header,
// whatever the family of the socket, so that a v4 packet to a v6 socket is judged
// by v4 rules. What cannot be judged is dropped.
//
// Of TCP every packet is judged, on the listening socket and on those accepted
// from it, which have the same filter: a connection of a source that was allowed
// and is no longer falls silent. There is no reset: to a denied source the
// address looks as if nobody were there.
//
// Besides its rules a filter goes by bans, which all filters of a daemon share.
//
// A filter is named after its socket, so that a daemon that is passed a socket
// with the filter of an earlier one can find the rules, and change them.
//
// A filter does not resolve names, count or log.
package filter

import (
	"errors"
	"fmt"
	"slices"
	"strconv"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
)

// A Filter is a program with the rules it judges by. One Filter may be attached
// to any number of sockets. Its methods may be called concurrently.
//
// It costs the daemon two descriptors, and a thousand prefixes take about 200 kB
// of kernel memory, which before Linux 5.11 RLIMIT_MEMLOCK must leave room for.
type Filter struct {
	outer   int // map of maps: the map of rules and, if there are any, that of bans
	program int
}

// ErrNotFound means that the filter of a socket is none of ours as far as can be
// told.
var ErrNotFound = errors.New("it is not one of tcpmuxd's, or of another version's")

// A Judgment is what packets are judged by: each has to pass all of it. The zero
// Judgment lets everybody in.
type Judgment struct {
	Closed     bool          // nobody
	Sources    *access.Rules // by the address they come from; nil: all
	Locals     *access.Rules // by the address they go to; nil: all
	Interfaces []uint32      // by index, those they may come in by; nil: all
}

// Equal reports whether both judge alike.
func (j Judgment) Equal(k Judgment) bool {
	return j.Closed == k.Closed && j.Sources.Equal(k.Sources) && j.Locals.Equal(k.Locals) &&
		(j.Interfaces == nil) == (k.Interfaces == nil) && slices.Equal(j.Interfaces, k.Interfaces)
}

// New makes a Filter that judges by j. cookie is the SO_COOKIE of a socket that
// Find shall find it by. The error says what to do where the kernel or a
// container refuses bpf(2).
func New(j Judgment, cookie uint64) (*Filter, error) {
	f, err := load(j, cookie)
	if err != nil {
		return nil, fmt.Errorf("making an access filter in the kernel: %w", explain(err))
	}
	return f, nil
}

// Find is the Filter that another process has made for a socket and attached to
// it. The error wraps ErrNotFound, or says which right is missing: the kernel
// shows maps and programs only to CAP_SYS_ADMIN in the first user namespace.
func Find(fd int) (*Filter, error) {
	f, err := find(fd)
	if err != nil {
		return nil, fmt.Errorf("looking for its access filter in the kernel: %w", err)
	}
	return f, nil
}

// nameOf is the name of the map of maps for a socket. Whatever the number, it
// is short enough for the kernel, which keeps 15 bytes of it.
func nameOf(cookie uint64) string { return "tm" + strconv.FormatUint(cookie, 36) }

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

// Update has all sockets of the filter judged by j, from one packet to the next:
// each is judged by either all of the old rules or all of the new. After an
// error the old ones stand.
func (f *Filter) Update(j Judgment) error {
	if err := f.update(j); err != nil {
		return fmt.Errorf("changing an access filter in the kernel: %w", explain(err))
	}
	return nil
}

// Close gives back the descriptors. Sockets go on with the rules they have; call
// nothing else afterwards.
func (f *Filter) Close() { f.close() }
