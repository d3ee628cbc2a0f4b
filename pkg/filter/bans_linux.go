package filter

import (
	"encoding/binary"
	"net/netip"
	"os"

	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/access"
	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
)

// Places in the map of maps. The second may be empty.
const (
	placeRules = 0
	placeBans  = 1
	places     = 2
)

func placeOf(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

func newBans(most int) (*Bans, error) {
	// It is like a map of rules, so that it can stand in the map of maps.
	m := rules(most)
	m.Name = "access_bans"
	fd, err := kernel.MapCreate(m)
	if err != nil {
		return nil, os.NewSyscallError("bpf (map of bans)", err)
	}
	return &Bans{fd}, nil
}

func (b *Bans) add(p netip.Prefix) error {
	return os.NewSyscallError("bpf (ban)", kernel.MapUpdate(b.m, banned(p), binary.NativeEndian.AppendUint32(nil, drop)))
}

func (b *Bans) remove(p netip.Prefix) error {
	err := kernel.MapDelete(b.m, banned(p))
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("bpf (ban)", err)
}

// banned is the key of a source, as the program makes it of a packet.
func banned(p netip.Prefix) []byte { return newEntry(family(p), p, access.Deny).key() }

func (b *Bans) close() { unix.Close(b.m) }

func (f *Filter) ban(b *Bans) error {
	if b != nil {
		err := kernel.MapUpdate(f.outer, placeOf(placeBans), binary.NativeEndian.AppendUint32(nil, uint32(b.m)))
		return os.NewSyscallError("bpf (change of bans)", err)
	}
	err := kernel.MapDelete(f.outer, placeOf(placeBans))
	if err == unix.ENOENT {
		return nil
	}
	return os.NewSyscallError("bpf (change of bans)", err)
}
