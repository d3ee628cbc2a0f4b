package kernel

import (
	"bytes"
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
)

func key(n uint32) []byte { return binary.NativeEndian.AppendUint32(nil, n) }

// keepAll returns 1: one byte of every packet.
var keepAll = []Instruction{
	{Op: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, Imm: 1},
	{Op: unix.BPF_JMP | unix.BPF_EXIT},
}

func createMap(t *testing.T) int {
	t.Helper()
	fd, err := MapCreate(Map{Type: unix.BPF_MAP_TYPE_HASH, KeySize: 4, ValueSize: 8, MaxEntries: 4, Name: "name_that_is_far_too_long"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

func TestMap(t *testing.T) {
	m := createMap(t)
	got := make([]byte, 8)
	if err := MapLookup(m, key(1), got); err != unix.ENOENT {
		t.Errorf("looking up what is not there: %v, want ENOENT", err)
	}
	if err := MapDelete(m, key(1)); err != unix.ENOENT {
		t.Errorf("deleting what is not there: %v, want ENOENT", err)
	}
	for i := range uint32(4) {
		if err := MapUpdate(m, key(i), bytes.Repeat([]byte{byte(i + 1)}, 8)); err != nil {
			t.Fatal(err)
		}
	}
	if err := MapUpdate(m, key(9), got); err != unix.E2BIG {
		t.Errorf("a fifth of four: %v, want E2BIG", err)
	}
	if err := MapLookup(m, key(2), got); err != nil || !bytes.Equal(got, bytes.Repeat([]byte{3}, 8)) {
		t.Errorf("looked up %x, %v", got, err)
	}
	if err := MapDelete(m, key(2)); err != nil {
		t.Error(err)
	}
	if err := MapLookup(m, key(2), got); err != unix.ENOENT {
		t.Errorf("looking up what was deleted: %v, want ENOENT", err)
	}
	if err := MapUpdate(-1, key(2), got); err != unix.EBADF {
		t.Errorf("of no map: %v, want EBADF", err)
	}
	if _, err := MapCreate(Map{Type: 1 << 20}); err != unix.EINVAL {
		t.Errorf("a map of no type: %v, want EINVAL", err)
	}
}

// The verifier is asked.
func TestProgramIsChecked(t *testing.T) {
	endless := []Instruction{{Op: unix.BPF_JMP | unix.BPF_JA, Off: -1}}
	if fd, err := ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, endless, "GPL", "endless"); err == nil {
		unix.Close(fd)
		t.Error("an endless program was taken")
	}
	fd, err := ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, keepAll, "GPL", "keep")
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	s, _ := socket(t, unix.AF_INET)
	if err := unix.SetsockoptInt(s, unix.SOL_SOCKET, unix.SO_ATTACH_BPF, fd); err != nil {
		t.Errorf("attaching: %v", err)
	}
}
