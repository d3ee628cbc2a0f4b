package filter

// The program on the socket, in eBPF. It is what this C would be:
//
//	struct key { u32 bits; u8 about[4]; u8 address[16]; } key = { 160 };
//	u8 version; u32 zero = 0, one = 1, *value;
//
//	void *rules = map_lookup(outer, &zero);
//	if (!rules) return 0;
//	key.about[0] = INTERFACE; *(u32 *)key.address = skb->ifindex;
//	if (!(value = map_lookup(rules, &key)) || !*value) return 0;
//	if (skb_load_bytes_relative(skb, 0, &version, 1, NET)) return 0;
//	version >>= 4;
//	key.about[0] = version + LOCAL;
//	if (version == 4) {
//		if (skb_load_bytes_relative(skb, 16, key.address, 4, NET)) return 0;
//	} else if (version == 6) {
//		if (skb_load_bytes_relative(skb, 24, key.address, 16, NET)) return 0;
//	} else return 0;
//	if (!(value = map_lookup(rules, &key)) || !*value) return 0;
//	key.about[0] = version;
//	... and the source, at 12 or 8.
//	void *bans = map_lookup(outer, &one);
//	if (bans && map_lookup(bans, &key)) return 0;
//	if (!(value = map_lookup(rules, &key)) || !*value) return 0;
//	return *value;

import (
	"golang.org/x/sys/unix"

	"github.com/tcpmuxd/tcpmuxd/pkg/kernel"
)

// Helpers, enum bpf_func_id of linux/bpf.h.
const (
	mapLookup            = 1
	skbLoadBytesRelative = 68     // Linux 4.18
	headerOfNetwork      = 1      // BPF_HDR_START_NET
	v4Source, v4Local    = 12, 16 // RFC 791 section 3.1
	v6Source, v6Local    = 8, 24  // RFC 8200 section 3
	v4Len, v6Len         = 4, 16
	packetIfindex        = 40 // __sk_buff.ifindex
)

// Registers: r0 is what helpers return, r1 to r5 are their arguments, r6 to r9
// are kept over calls, r10 is the end of the stack.
const (
	r0, r1, r2, r3, r4, r5, r6, r7, r8, r10 = 0, 1, 2, 3, 4, 5, 6, 7, 8, 10
)

// On the stack, from r10.
const (
	stackKey     = -keySize
	stackFamily  = stackKey + 4
	stackAddress = stackFamily + familySize
	stackPlace   = stackKey - 8
	stackVersion = stackKey - 16
)

// program is the program that looks up in the map of maps with the descriptor
// outer.
func program(outer int) []kernel.Instruction {
	var p []kernel.Instruction
	var toDrop []int // jumps to the end of the program
	emit := func(list ...kernel.Instruction) { p = append(p, list...) }
	dropIf := func(op uint8, imm int32) {
		toDrop = append(toDrop, len(p))
		emit(kernel.Instruction{Op: unix.BPF_JMP | op | unix.BPF_K, Dst: r0, Imm: imm})
	}
	load := func(offset, to, size int32) { // skb_load_bytes_relative
		emit(
			copyOf(r1, r6), set(r2, offset), copyOf(r3, r10), add(r3, to), set(r4, size), set(r5, headerOfNetwork),
			call(skbLoadBytesRelative))
		dropIf(unix.BPF_JNE, 0)
	}

	emit(
		copyOf(r6, r1), // the packet
		store(stackKey, 8*dataSize),
		store(stackFamily, 0),
		store(stackAddress, 0), store(stackAddress+4, 0), store(stackAddress+8, 0), store(stackAddress+12, 0),
		store(stackPlace, placeRules))
	lookupOuter := func() {
		emit(
			// A map's descriptor, in two instructions.
			kernel.Instruction{Op: unix.BPF_LD | unix.BPF_DW | unix.BPF_IMM, Dst: r1, Src: unix.BPF_PSEUDO_MAP_FD, Imm: int32(outer)},
			kernel.Instruction{},
			copyOf(r2, r10), add(r2, stackPlace),
			call(mapLookup))
	}
	lookupOuter()
	dropIf(unix.BPF_JEQ, 0)
	emit(copyOf(r7, r0)) // the rules

	lookup := func() { // drops what the key at hand says so of, and what none covers
		emit(copyOf(r1, r7), copyOf(r2, r10), add(r2, stackKey), call(mapLookup))
		dropIf(unix.BPF_JEQ, 0)
		emit(kernel.Instruction{Op: unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W, Dst: r0, Src: r0})
		dropIf(unix.BPF_JEQ, drop)
	}
	address := func(about, in4, in6 int32) { // puts an address of the packet into the key
		emit(
			copyOf(r0, r8), add(r0, about),
			kernel.Instruction{Op: unix.BPF_STX | unix.BPF_MEM | unix.BPF_B, Dst: r10, Src: r0, Off: stackFamily})
		to4 := len(p)
		emit(kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Dst: r8, Imm: 4})
		load(in6, stackAddress, v6Len)
		to6 := len(p)
		emit(kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_JA})
		p[to4].Off = int16(len(p) - to4 - 1)
		load(in4, stackAddress, v4Len)
		p[to6].Off = int16(len(p) - to6 - 1)
	}

	emit(
		kernel.Instruction{Op: unix.BPF_ST | unix.BPF_MEM | unix.BPF_B, Dst: r10, Off: stackFamily, Imm: aboutInterface},
		kernel.Instruction{Op: unix.BPF_LDX | unix.BPF_MEM | unix.BPF_W, Dst: r0, Src: r6, Off: packetIfindex},
		kernel.Instruction{Op: unix.BPF_STX | unix.BPF_MEM | unix.BPF_W, Dst: r10, Src: r0, Off: stackAddress})
	lookup()
	load(0, stackVersion, 1)
	emit(
		kernel.Instruction{Op: unix.BPF_LDX | unix.BPF_MEM | unix.BPF_B, Dst: r8, Src: r10, Off: stackVersion},
		kernel.Instruction{Op: unix.BPF_ALU64 | unix.BPF_RSH | unix.BPF_K, Dst: r8, Imm: 4},
		kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Dst: r8, Imm: 4, Off: 2},
		copyOf(r0, r8))
	dropIf(unix.BPF_JNE, 6)
	address(aboutLocal, v4Local, v6Local)
	lookup()
	address(0, v4Source, v6Source)

	emit(store(stackPlace, placeBans))
	lookupOuter()
	noBans := len(p)
	emit(
		kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, Dst: r0, Imm: 0},
		copyOf(r1, r0), copyOf(r2, r10), add(r2, stackKey), call(mapLookup))
	dropIf(unix.BPF_JNE, 0)
	p[noBans].Off = int16(len(p) - noBans - 1)

	lookup()
	emit(exit) // what it says is in r0

	for _, i := range toDrop {
		p[i].Off = int16(len(p) - i - 1)
	}
	emit(set(r0, drop), exit)
	return p
}

var exit = kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_EXIT}

func copyOf(to, from uint8) kernel.Instruction {
	return kernel.Instruction{Op: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_X, Dst: to, Src: from}
}

func set(to uint8, n int32) kernel.Instruction {
	return kernel.Instruction{Op: unix.BPF_ALU64 | unix.BPF_MOV | unix.BPF_K, Dst: to, Imm: n}
}

func add(to uint8, n int32) kernel.Instruction {
	return kernel.Instruction{Op: unix.BPF_ALU64 | unix.BPF_ADD | unix.BPF_K, Dst: to, Imm: n}
}

// store writes four bytes to the stack.
func store(at int16, n int32) kernel.Instruction {
	return kernel.Instruction{Op: unix.BPF_ST | unix.BPF_MEM | unix.BPF_W, Dst: r10, Off: at, Imm: n}
}

func call(helper int32) kernel.Instruction {
	return kernel.Instruction{Op: unix.BPF_JMP | unix.BPF_CALL, Imm: helper}
}
