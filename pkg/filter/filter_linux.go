package filter

// The program, the maps and their keys.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
)

// A key of the map of rules is struct bpf_lpm_trie_key of linux/bpf.h: the
// length of the prefix in bits and, in network order, what it is about, a byte
// and three zeros, and the address or number, which has 16 bytes even if it is
// shorter. A key of nothing but what it is about says what becomes of those that
// no other key covers. All that a packet is judged by is in one map, so that it
// changes in one step.
const (
	familySize  = 4
	addressSize = 16
	dataSize    = familySize + addressSize
	keySize     = 4 + dataSize
)

// What keys are about. The program finds the first two in the packet, the IP
// version, and makes the next two of them.
const (
	about4         = 4  // a source of IPv4
	about6         = 6  // ... of IPv6
	aboutLocal     = 16 // added to 4 or 6: where the packet goes
	aboutInterface = 1  // where it came by: the interface's index
)

// The values of the map of rules are what the program returns: how many bytes
// of the packet are kept, socket(7).
const (
	drop = 0
	keep = 1<<31 - 1
)

// rules is what a map of rules is but for its size.
func rules(entries int) kernel.Map {
	return kernel.Map{
		Type: unix.BPF_MAP_TYPE_LPM_TRIE, KeySize: keySize, ValueSize: 4, MaxEntries: uint32(entries),
		Flags: unix.BPF_F_NO_PREALLOC, Name: "access_rules",
	}
}

// outer is what the map of maps is for a socket.
func outer(cookie uint64) kernel.Map {
	return kernel.Map{
		Type: unix.BPF_MAP_TYPE_ARRAY_OF_MAPS, KeySize: 4, ValueSize: 4, MaxEntries: places, Name: nameOf(cookie),
	}
}

func load(j Judgment, cookie uint64) (_ *Filter, err error) {
	inner, err := newRules(j)
	if err != nil {
		return nil, err
	}
	defer unix.Close(inner) // the outer map holds it
	f := &Filter{outer: -1, program: -1}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	m := outer(cookie) // its elements are as inner, in all but size
	m.Inner = inner
	if f.outer, err = kernel.MapCreate(m); err != nil {
		return nil, os.NewSyscallError("bpf (map of maps)", err)
	}
	if err := f.use(inner); err != nil {
		return nil, err
	}
	f.program, err = loadProgram(f.outer)
	return f, err
}

func loadProgram(outer int) (fd int, err error) {
	// The helpers used need no GPL-compatible license.
	fd, err = kernel.ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, program(outer), "", "access")
	return fd, os.NewSyscallError("bpf (program)", err)
}

func (f *Filter) update(j Judgment) error {
	inner, err := newRules(j)
	if err != nil {
		return err
	}
	defer unix.Close(inner)
	return f.use(inner)
}

func (f *Filter) use(inner int) error {
	err := kernel.MapUpdate(f.outer, placeOf(placeRules), binary.NativeEndian.AppendUint32(nil, uint32(inner)))
	return os.NewSyscallError("bpf (change of rules)", err)
}

func (f *Filter) attach(fd int) error {
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, f.program); err != nil {
		return os.NewSyscallError("setsockopt SO_ATTACH_BPF", err)
	}
	return os.NewSyscallError("setsockopt SO_LOCK_FILTER", unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_LOCK_FILTER, 1))
}

func (f *Filter) close() {
	unix.Close(f.outer)
	unix.Close(f.program)
}

// An entry is one key of a map of rules.
type entry struct {
	bits int // of the data
	data [dataSize]byte
	keep bool
}

// newEntry is the key about a prefix.
func newEntry(about byte, p netip.Prefix, v access.Verdict) *entry {
	e := &entry{bits: 8*familySize + p.Bits(), keep: v == access.Allow}
	e.data[0] = about
	copy(e.data[familySize:], p.Addr().AsSlice())
	return e
}

// key is the entry's key as struct bpf_lpm_trie_key.
func (e *entry) key() []byte {
	return append(binary.NativeEndian.AppendUint32(make([]byte, 0, keySize), uint32(e.bits)), e.data[:]...)
}

// entries are the keys that say what j says.
func entries(j Judgment) (list []entry) {
	rest := func(about byte, v access.Verdict) {
		list = append(list, entry{bits: 8 * familySize, data: [dataSize]byte{about}, keep: v == access.Allow})
	}
	if j.Closed {
		return nil // what no key covers is dropped
	}
	for _, side := range []struct {
		rules *access.Rules
		about byte
	}{{j.Sources, 0}, {j.Locals, aboutLocal}} {
		// First, because a prefix of no bits has the same key.
		rest(about4+side.about, side.rules.Otherwise())
		rest(about6+side.about, side.rules.Otherwise())
		for p, v := range side.rules.All() {
			list = append(list, *newEntry(family(p)+side.about, p, v))
		}
	}
	if j.Sources != nil {
		// Rules about v4-mapped sources are v4 rules. A v6 packet from such
		// an address is forged: RFC 4291 has them in sockets' interfaces
		// only, and Linux drops it as well.
		list = append(list, *newEntry(about6, netip.MustParsePrefix("::ffff:0:0/96"), access.Deny))
	}
	all := access.Allow
	if j.Interfaces != nil {
		all = access.NoRule
	}
	rest(aboutInterface, all)
	for _, index := range j.Interfaces {
		var number [4]byte
		binary.NativeEndian.PutUint32(number[:], index)
		list = append(list, *newEntry(aboutInterface, netip.PrefixFrom(netip.AddrFrom4(number), 32), access.Allow))
	}
	return list
}

func family(p netip.Prefix) byte {
	if p.Addr().Is4() {
		return about4
	}
	return about6
}

// newRules makes a map of what j says. The descriptor is the caller's.
func newRules(j Judgment) (fd int, err error) {
	list := entries(j)
	fd, err = kernel.MapCreate(rules(max(1, len(list))))
	if err != nil {
		return -1, os.NewSyscallError("bpf (map of rules)", err)
	}
	for _, e := range list {
		value := uint32(drop)
		if e.keep {
			value = keep
		}
		if err := kernel.MapUpdate(fd, e.key(), binary.NativeEndian.AppendUint32(nil, value)); err != nil {
			unix.Close(fd)
			return -1, os.NewSyscallError("bpf (rule)", err)
		}
	}
	return fd, nil
}

// errRefused is what to do about EPERM.
var errRefused = errors.New("bpf(2) is refused: it needs root, or CAP_BPF and CAP_NET_ADMIN, in the first user namespace, " +
	"a seccomp profile that lets it through and, before Linux 5.11, room in RLIMIT_MEMLOCK")

// explain adds to an error of bpf(2) what can be done about it.
func explain(err error) error {
	switch {
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		return fmt.Errorf("%w: %w", err, errRefused)
	case errors.Is(err, unix.ENOSYS):
		return fmt.Errorf("%w: this kernel has no bpf(2)", err)
	}
	return err
}
