#include "textflag.h"

// func prlimitNofile(old *struct{ soft, hard uint64 }) (errno uintptr)
TEXT ·prlimitNofile(SB),NOSPLIT,$0-16
	MOVD	$261, R8	// prlimit64
	MOVD	$0, R0		// this process
	MOVD	$7, R1		// RLIMIT_NOFILE
	MOVD	$0, R2		// nothing new
	MOVD	old+0(FP), R3
	SVC
	NEG	R0, R0
	MOVD	R0, errno+8(FP)
	RET
