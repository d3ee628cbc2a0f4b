/*
 * tiny: the cheapest possible service, a few hundred bytes without libc or
 * loader, so that what is measured is the super-server and the kernel.  It
 * writes "ok\n" to its standard output and exits; it reads nothing.  Compiled with
 * STAY it then waits until its standard input says something or ends.
 */
#ifdef STAY
#define WAIT_X86 "	xor %eax, %eax\n	xor %edi, %edi\n	lea -64(%rsp), %rsi\n	mov $1, %edx\n	syscall\n"
#define WAIT_ARM "	mov x8, #63\n	mov x0, #0\n	sub x1, sp, #64\n	mov x2, #1\n	svc #0\n"
#else
#define WAIT_X86
#define WAIT_ARM
#endif
#if defined(__x86_64__)
__asm__(".globl _start\n"
	"_start:	mov $1, %eax\n"		/* write(1, text, 3) */
	"	mov $1, %edi\n"
	"	lea text(%rip), %rsi\n"
	"	mov $3, %edx\n"
	"	syscall\n"
	WAIT_X86			/* read(0, stack, 1) */
	"	mov $60, %eax\n"		/* exit(0) */
	"	xor %edi, %edi\n"
	"	syscall\n"
	"text:	.ascii \"ok\\n\"\n");
#elif defined(__aarch64__)
__asm__(".globl _start\n"
	"_start:	mov x8, #64\n"		/* write(1, text, 3) */
	"	mov x0, #1\n"
	"	adr x1, text\n"
	"	mov x2, #3\n"
	"	svc #0\n"
	WAIT_ARM
	"	mov x8, #93\n"			/* exit(0) */
	"	mov x0, #0\n"
	"	svc #0\n"
	"text:	.ascii \"ok\\n\"\n");
#else
#error "tiny: no start code for this machine"
#endif
