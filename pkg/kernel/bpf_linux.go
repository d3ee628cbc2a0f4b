package kernel

// bpf(2). Its argument is a structure whose layout depends on the command:
// union bpf_attr of linux/bpf.h. It is written field by field, so that nothing
// depends on how a compiler lays out a structure.

import (
	"bytes"
	"encoding/binary"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// A Map says what MapCreate makes, in the words of union bpf_attr.
type Map struct {
	Type       uint32 // BPF_MAP_TYPE_*
	KeySize    uint32 // bytes
	ValueSize  uint32 // bytes
	MaxEntries uint32
	Flags      uint32 // BPF_F_*
	Inner      int    // of a map of maps: a map as its elements will be
	Name       string // for bpftool(8): letters, digits, "_" and "."; cut to 15 bytes
}

// MapCreate makes a map. The descriptor is close-on-exec and the caller's.
// EPERM means that the process may not use bpf(2), and on kernels before 5.11
// also that the map would go past RLIMIT_MEMLOCK.
func MapCreate(m Map) (fd int, err error) {
	var a attr
	a.u32(m.Type, m.KeySize, m.ValueSize, m.MaxEntries, m.Flags, uint32(m.Inner))
	a.u32(0) // numa_node
	a.name(m.Name)
	return bpf(unix.BPF_MAP_CREATE, a)
}

// MapUpdate sets the value of a key: of a map of maps, to a descriptor. A
// reader sees either the old value or the new one.
func MapUpdate(fd int, key, value []byte) error {
	return element(unix.BPF_MAP_UPDATE_ELEM, fd, key, value)
}

// MapDelete removes a key. ENOENT: there is none.
func MapDelete(fd int, key []byte) error {
	return element(unix.BPF_MAP_DELETE_ELEM, fd, key, nil)
}

// MapLookup copies the value of a key to value, which must be as long as the
// values of the map. ENOENT: there is none.
func MapLookup(fd int, key, value []byte) error {
	return element(unix.BPF_MAP_LOOKUP_ELEM, fd, key, value)
}

func element(command, fd int, key, value []byte) error {
	var p runtime.Pinner
	defer p.Unpin()
	var a attr
	a.u32(uint32(fd), 0)
	a.u64(pin(&p, key), pin(&p, value), unix.BPF_ANY)
	_, err := bpf(command, a)
	return err
}

// An Instruction is struct bpf_insn of linux/bpf.h.
type Instruction struct {
	Op       uint8
	Dst, Src uint8 // registers, 0 to 10
	Off      int16
	Imm      int32
}

// ProgLoad has the kernel check and take a program of a type BPF_PROG_TYPE_*.
// The descriptor is close-on-exec and the caller's. EPERM: see MapCreate.
// license decides which helpers the program may call.
func ProgLoad(kind uint32, program []Instruction, license, name string) (fd int, err error) {
	var p runtime.Pinner
	defer p.Unpin()
	var text attr
	for _, i := range program {
		registers := i.Src<<4 | i.Dst
		if bigEndian {
			registers = i.Dst<<4 | i.Src
		}
		text = append(text, i.Op, registers)
		text = binary.NativeEndian.AppendUint16(text, uint16(i.Off))
		text.u32(uint32(i.Imm))
	}
	var a attr
	a.u32(kind, uint32(len(program)))
	a.u64(pin(&p, text), pin(&p, append([]byte(license), 0)))
	a.u32(0, 0) // log_level, log_size
	a.u64(0)    // log_buf
	a.u32(0, 0) // kern_version, prog_flags
	a.name(name)
	return bpf(unix.BPF_PROG_LOAD, a)
}

// NextMap is the id of the map of the whole machine that comes after an id, the
// first after 0. ENOENT: there is none; EPERM: the process lacks CAP_SYS_ADMIN in
// the first user namespace.
func NextMap(id uint32) (uint32, error) { return next(unix.BPF_MAP_GET_NEXT_ID, id) }

// NextProg is NextMap for programs.
func NextProg(id uint32) (uint32, error) { return next(unix.BPF_PROG_GET_NEXT_ID, id) }

func next(command int, id uint32) (uint32, error) {
	var a attr
	a.u32(id, 0)
	_, err := bpf(command, a)
	return binary.NativeEndian.Uint32(a[4:]), err
}

// MapByID opens a map. The descriptor is close-on-exec and the caller's. ENOENT:
// it is there no more; EPERM: see NextMap.
func MapByID(id uint32) (fd int, err error) { return byID(unix.BPF_MAP_GET_FD_BY_ID, id) }

// ProgByID is MapByID for programs.
func ProgByID(id uint32) (fd int, err error) { return byID(unix.BPF_PROG_GET_FD_BY_ID, id) }

func byID(command int, id uint32) (int, error) {
	var a attr
	a.u32(id)
	return bpf(command, a)
}

// MapInfo says what a map is, but for Inner, and its id.
func MapInfo(fd int) (m Map, id uint32, err error) {
	b := make([]byte, 40) // the beginning of struct bpf_map_info
	if err := info(fd, b); err != nil {
		return Map{}, 0, err
	}
	u32 := func(at int) uint32 { return binary.NativeEndian.Uint32(b[at:]) }
	return Map{Type: u32(0), KeySize: u32(8), ValueSize: u32(12), MaxEntries: u32(16), Flags: u32(20), Name: text(b[24:])}, u32(4), nil
}

// A Prog is what the kernel tells of a program.
type Prog struct {
	ID, Type uint32  // BPF_PROG_TYPE_*
	Tag      [8]byte // a digest of the instructions, whichever maps they name
	Maps     []uint32
}

// ProgInfo says what a program is. Of its maps it tells the ids of 16.
func ProgInfo(fd int) (Prog, error) {
	var p runtime.Pinner
	defer p.Unpin()
	maps := make([]byte, 16*4)
	b := make([]byte, 64) // the beginning of struct bpf_prog_info
	binary.NativeEndian.PutUint32(b[52:], uint32(len(maps)/4))
	binary.NativeEndian.PutUint64(b[56:], pin(&p, maps))
	if err := info(fd, b); err != nil {
		return Prog{}, err
	}
	u32 := func(b []byte) uint32 { return binary.NativeEndian.Uint32(b) }
	g := Prog{Type: u32(b), ID: u32(b[4:]), Tag: [8]byte(b[8:])}
	for n := u32(b[52:]); n > 0 && len(maps) > 0; n-- {
		g.Maps, maps = append(g.Maps, u32(maps)), maps[4:]
	}
	return g, nil
}

func info(fd int, b []byte) error {
	var p runtime.Pinner
	defer p.Unpin()
	var a attr
	a.u32(uint32(fd), uint32(len(b)))
	a.u64(pin(&p, b))
	_, err := bpf(unix.BPF_OBJ_GET_INFO_BY_FD, a)
	return err
}

// text is what comes before the first NUL byte.
func text(b []byte) string {
	s, _, _ := bytes.Cut(b, []byte{0})
	return string(s)
}

var bigEndian = binary.NativeEndian.Uint16([]byte{0, 1}) == 1

// An attr is union bpf_attr so far as it is written; the kernel takes what is
// missing for zeroes.
type attr []byte

func (a *attr) u32(list ...uint32) {
	for _, n := range list {
		*a = binary.NativeEndian.AppendUint32(*a, n)
	}
}

func (a *attr) u64(list ...uint64) {
	for _, n := range list {
		*a = binary.NativeEndian.AppendUint64(*a, n)
	}
}

// name is a name with its NUL bytes, BPF_OBJ_NAME_LEN.
func (a *attr) name(s string) {
	var b [16]byte
	copy(b[:15], s)
	*a = append(*a, b[:]...)
}

func bpf(command int, a attr) (int, error) {
	var p runtime.Pinner
	defer p.Unpin()
	for {
		n, _, errno := syscall.Syscall(unix.SYS_BPF, uintptr(command), uintptr(pin(&p, a)), uintptr(len(a)))
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR, unix.EAGAIN: // of the verifier, when a signal is pending
			continue
		}
		return -1, errno
	}
}
