// The child's few instructions. See native_linux.go for what they rely on.

#include "go_asm.h"
#include "textflag.h"

// func rawSpawn(c *call) uintptr
//
// The kernel keeps all registers but AX, CX and R11 over a system call, in the
// parent and for the child. The child uses BX, R12, R13, R14 and R15 as it
// likes: it has its own registers and never returns.
TEXT ·rawSpawn(SB),NOSPLIT,$0-16
	MOVQ	c+0(FP), R12
	LEAQ	call_clone(R12), DI
	MOVQ	$const_cloneSize, SI
	MOVQ	$const_sysClone3, AX
	SYSCALL
	TESTQ	AX, AX
	JEQ	child
	MOVQ	AX, ret+8(FP)
	RET

child:
	MOVQ	call_result(R12), R13
	MOVQ	call_n(R12), R15
	MOVQ	call_first(R12), R14
	MOVQ	call_from(R12), BX
step:
	MOVQ	BX, result_step(R13)
	MOVQ	op_nr(R14), AX
	MOVQ	(op_a+0)(R14), DI
	MOVQ	(op_a+8)(R14), SI
	MOVQ	(op_a+16)(R14), DX
	MOVQ	(op_a+24)(R14), R10
	MOVQ	(op_a+32)(R14), R8
	MOVQ	(op_a+40)(R14), R9
	SYSCALL
	CMPQ	AX, $-4095
	JCC	failed		// unsigned: -4095 to -1
	ADDQ	$op__size, R14
	INCQ	BX
	CMPQ	BX, R15
	JLT	step
	XORL	AX, AX		// a list that does not end in execve or exit
failed:
	NEGQ	AX
	MOVQ	AX, result_errno(R13)
	CMPQ	BX, $const_headLen
	JCS	exit
	MOVQ	call_refuse(R12), R14
	CMPQ	BX, call_told(R12)
	JCS	tell
	MOVQ	call_reset(R12), R14
tell:
	MOVQ	op_nr(R14), AX
	CMPQ	AX, $-1
	JEQ	exit
	MOVQ	(op_a+0)(R14), DI
	MOVQ	(op_a+8)(R14), SI
	MOVQ	(op_a+16)(R14), DX
	MOVQ	(op_a+24)(R14), R10
	MOVQ	(op_a+32)(R14), R8
	MOVQ	(op_a+40)(R14), R9
	SYSCALL
	ADDQ	$op__size, R14
	JMP	tell
exit:
	MOVQ	$const_exitFailed, DI
	MOVQ	$const_sysExitGroup, AX
	SYSCALL
	JMP	exit
