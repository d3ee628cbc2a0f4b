// The child's few instructions. See native_linux.go for what they rely on.

#include "go_asm.h"
#include "textflag.h"

// func rawSpawn(c *call) uintptr
//
// The kernel keeps all registers but R0 over a system call, in the parent and
// for the child. R19 is free for assembly; the child uses R20 to R23 as it
// likes besides: it has its own registers and never returns. The function is a
// leaf without a frame, so not even the link register is stored.
TEXT ·rawSpawn(SB),NOSPLIT,$0-16
	MOVD	c+0(FP), R19
	ADD	$call_clone, R19, R0
	MOVD	$const_cloneSize, R1
	MOVD	$const_sysClone3, R8
	SVC
	CBZ	R0, child
	MOVD	R0, ret+8(FP)
	RET

child:
	MOVD	call_result(R19), R20
	MOVD	call_n(R19), R21
	MOVD	call_first(R19), R22
	MOVD	call_from(R19), R23
step:
	MOVD	R23, result_step(R20)
	MOVD	op_nr(R22), R8
	MOVD	(op_a+0)(R22), R0
	MOVD	(op_a+8)(R22), R1
	MOVD	(op_a+16)(R22), R2
	MOVD	(op_a+24)(R22), R3
	MOVD	(op_a+32)(R22), R4
	MOVD	(op_a+40)(R22), R5
	SVC
	CMN	$4095, R0
	BCS	failed		// unsigned: -4095 to -1
	ADD	$op__size, R22
	ADD	$1, R23
	CMP	R21, R23
	BLT	step
	MOVD	$0, R0		// a list that does not end in execve or exit
failed:
	NEG	R0, R0
	MOVD	R0, result_errno(R20)
	CMP	$const_headLen, R23
	BCC	exit		// unsigned: lower
	MOVD	call_refuse(R19), R22
	MOVD	call_told(R19), R21
	CMP	R21, R23
	BCC	tell
	MOVD	call_reset(R19), R22
tell:
	MOVD	op_nr(R22), R8
	CMN	$1, R8
	BEQ	exit
	MOVD	(op_a+0)(R22), R0
	MOVD	(op_a+8)(R22), R1
	MOVD	(op_a+16)(R22), R2
	MOVD	(op_a+24)(R22), R3
	MOVD	(op_a+32)(R22), R4
	MOVD	(op_a+40)(R22), R5
	SVC
	ADD	$op__size, R22
	JMP	tell
exit:
	MOVD	$const_exitFailed, R0
	MOVD	$const_sysExitGroup, R8
	SVC
	JMP	exit
