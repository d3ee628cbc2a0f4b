/*
 * tiny: the cheapest possible service, a few hundred bytes without libc or
 * loader, so that what is measured is the super-server and the kernel.  It
 * writes "ok\n" to its standard output and exits; it reads nothing.
 */
#if defined(__x86_64__)
__asm__(".globl _start\n"
	"_start:	mov $1, %eax\n"		/* write(1, text, 3) */
	"	mov $1, %edi\n"
	"	lea text(%rip), %rsi\n"
	"	mov $3, %edx\n"
	"	syscall\n"
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
	"	mov x8, #93\n"			/* exit(0) */
	"	mov x0, #0\n"
	"	svc #0\n"
	"text:	.ascii \"ok\\n\"\n");
#else
#error "tiny: no start code for this machine"
#endif
