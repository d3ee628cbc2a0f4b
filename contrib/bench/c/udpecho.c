/*
 * udpecho: what this kernel allows for echo over UDP.  One thread takes what
 * has come with recvmmsg(2) and sends it back with sendmmsg(2); it looks at no
 * address and counts nothing.
 *
 *	udpecho ADDR PORT
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { BATCH = 32, SIZE = 2048 };

int main(int argc, char **argv)
{
	static char data[BATCH][SIZE];
	static struct sockaddr_in peer[BATCH];
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct mmsghdr m[BATCH] = { 0 };
	struct iovec v[BATCH];
	int i, n, s;

	if (argc != 3 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		errx(2, "usage: udpecho ADDR PORT");
	a.sin_port = htons(atoi(argv[2]));
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (bind(s, (struct sockaddr *)&a, sizeof a))
		err(1, "binding %s port %s", argv[1], argv[2]);
	for (i = 0; i < BATCH; i++) {
		v[i].iov_base = data[i];
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
		m[i].msg_hdr.msg_name = &peer[i];
	}
	for (;;) {
		for (i = 0; i < BATCH; i++) {
			v[i].iov_len = SIZE;
			m[i].msg_hdr.msg_namelen = sizeof peer[i];
		}
		n = recvmmsg(s, m, BATCH, MSG_WAITFORONE, NULL);
		for (i = 0; i < n; i++)
			v[i].iov_len = m[i].msg_len;
		if (n > 0)
			sendmmsg(s, m, n, 0);
	}
}
