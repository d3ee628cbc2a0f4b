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
// length of the prefix in bits and, in network order, the family, 4 or 6, and
// the address, which is 16 bytes even for v4. A key of length 0 says what
// becomes of sources that no rule covers.
const (
	familySize  = 4
	addressSize = 16
	dataSize    = familySize + addressSize
	keySize     = 4 + dataSize
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
		Type: unix.BPF_MAP_TYPE_ARRAY_OF_MAPS, KeySize: 4, ValueSize: 4, MaxEntries: 1, Name: nameOf(cookie),
	}
}

func load(r *access.Rules, cookie uint64) (_ *Filter, err error) {
	inner, err := newRules(r)
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
	m := outer(cookie)
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

func (f *Filter) update(r *access.Rules) error {
	inner, err := newRules(r)
	if err != nil {
		return err
	}
	defer unix.Close(inner)
	return f.use(inner)
}

func (f *Filter) use(inner int) error {
	err := kernel.MapUpdate(f.outer, make([]byte, 4), binary.NativeEndian.AppendUint32(nil, uint32(inner)))
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

// newRules makes a map with the rules of r. The descriptor is the caller's.
func newRules(r *access.Rules) (fd int, err error) {
	type entry struct {
		prefix  netip.Prefix
		verdict access.Verdict
	}
	var list []entry
	otherwise := access.Allow
	for p, v := range r.All() {
		list = append(list, entry{p, v})
		if v == access.Allow {
			otherwise = access.NoRule
		}
	}
	if r != nil {
		// Rules about v4-mapped sources are v4 rules. A v6 packet from such
		// an address is forged: RFC 4291 has them in sockets' interfaces
		// only, and Linux drops it as well.
		list = append(list, entry{netip.MustParsePrefix("::ffff:0:0/96"), access.Deny})
	}
	fd, err = kernel.MapCreate(rules(len(list) + 1))
	if err != nil {
		return -1, os.NewSyscallError("bpf (map of rules)", err)
	}
	set := func(key []byte, v access.Verdict) {
		value := uint32(drop)
		if v == access.Allow {
			value = keep
		}
		if err == nil {
			err = kernel.MapUpdate(fd, key, binary.NativeEndian.AppendUint32(nil, value))
		}
	}
	set(make([]byte, keySize), otherwise)
	for _, e := range list {
		set(keyOf(e.prefix), e.verdict)
	}
	if err != nil {
		unix.Close(fd)
		return -1, os.NewSyscallError("bpf (rule)", err)
	}
	return fd, nil
}

func keyOf(p netip.Prefix) []byte {
	family := byte(6)
	if p.Addr().Is4() {
		family = 4
	}
	key := binary.NativeEndian.AppendUint32(nil, uint32(8*familySize+p.Bits()))
	key = append(key, family, 0, 0, 0)
	key = append(key, p.Addr().AsSlice()...)
	return append(key, make([]byte, keySize-len(key))...)
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
