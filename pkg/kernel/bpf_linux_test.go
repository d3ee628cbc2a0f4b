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

// What is there is found by its id, and said to be what it is.
func TestInfo(t *testing.T) {
	want := Map{Type: unix.BPF_MAP_TYPE_HASH, KeySize: 4, ValueSize: 8, MaxEntries: 4, Flags: unix.BPF_F_NO_PREALLOC, Name: "fifteen_letters"}
	m, err := MapCreate(want)
	if err != nil {
		t.Fatal(err)
	}
	got, id, err := MapInfo(m)
	if err != nil || got != want || id == 0 {
		t.Errorf("the map is %+v, %d, %v", got, id, err)
	}
	text := append([]Instruction{
		{Op: unix.BPF_LD | unix.BPF_DW | unix.BPF_IMM, Dst: 1, Src: unix.BPF_PSEUDO_MAP_FD, Imm: int32(m)}, {},
	}, keepAll...)
	var all [2]Prog
	for i := range all {
		fd, err := ProgLoad(unix.BPF_PROG_TYPE_SOCKET_FILTER, text, "", "test")
		if err != nil {
			t.Fatal(err)
		}
		defer unix.Close(fd)
		if all[i], err = ProgInfo(fd); err != nil || len(all[i].Maps) != 1 || all[i].Maps[0] != id || all[i].Type != unix.BPF_PROG_TYPE_SOCKET_FILTER {
			t.Errorf("the program is %+v, %v", all[i], err)
		}
		if n, err := NextProg(all[i].ID - 1); err != nil || n != all[i].ID {
			t.Errorf("after program %d comes %d, %v", all[i].ID-1, n, err)
		}
	}
	if all[0].ID == all[1].ID || all[0].Tag != all[1].Tag || all[0].Tag == [8]byte{} {
		t.Errorf("the same program twice: %+v", all)
	}
	if n, err := NextMap(id - 1); err != nil || n != id {
		t.Errorf("after map %d comes %d, %v", id-1, n, err)
	}
	if _, err := NextMap(1<<31 - 2); err != unix.ENOENT {
		t.Errorf("after the last map: %v, want ENOENT", err)
	}
	again, err := MapByID(id)
	if err != nil {
		t.Fatal(err)
	}
	if _, n, err := MapInfo(again); n != id || err != nil {
		t.Errorf("map %d is %d, %v", id, n, err)
	}
	unix.Close(again)
	if fd, err := ProgByID(all[0].ID); err != nil {
		t.Error(err)
	} else {
		unix.Close(fd)
	}
	unix.Close(m)
	if _, _, err := MapInfo(-1); err == nil {
		t.Error("of no map there is something to tell")
	}
	if _, err := MapByID(1<<31 - 1); err != unix.ENOENT {
		t.Errorf("of no id: %v, want ENOENT", err)
	}
}
