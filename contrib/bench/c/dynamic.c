/*
 * dynamic: an ordinary service as far as start-up goes, dynamically linked
 * against libc.  It says the same as tiny; the difference is ld.so and libc.
 */
#include <stdio.h>

int main(void)
{
	puts("ok");
	return 0;
}
