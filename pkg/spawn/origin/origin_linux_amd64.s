#include "textflag.h"

// func prlimitNofile(old *struct{ soft, hard uint64 }) (errno uintptr)
TEXT ·prlimitNofile(SB),NOSPLIT,$0-16
	MOVQ	$302, AX	// prlimit64
	XORL	DI, DI		// this process
	MOVQ	$7, SI		// RLIMIT_NOFILE
	XORL	DX, DX		// nothing new
	MOVQ	old+0(FP), R10
	SYSCALL
	NEGQ	AX
	MOVQ	AX, errno+8(FP)
	RET
