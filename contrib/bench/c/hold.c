/*
 * hold: keeps connections open: silent or half-said negotiations, or children
 * that stay.
 *
 *	hold ADDR PORT COUNT ANSWER [TEXT]
 *
 * Opens COUNT connections, sends TEXT on each, waits until each has ANSWER
 * bytes or has ended, prints how many have come so far, and keeps them until
 * its standard input ends.  It goes by 32 at a time, for servers with a short
 * queue.  With ANSWER 0 nothing says that the server has accepted.
 */
#include <arpa/inet.h>
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BATCH = 32 };

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct timeval patience = { 5, 0 };
	struct linger reset = { 1, 0 };
	struct rlimit files;
	int i, fd[BATCH], n, count, answer, good = 0;
	char buf[256];

	if (argc < 5 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
		errx(2, "usage: hold ADDR PORT COUNT ANSWER [TEXT]");
	addr.sin_port = htons(atoi(argv[2]));
	answer = atoi(argv[4]);
	getrlimit(RLIMIT_NOFILE, &files);
	files.rlim_cur = files.rlim_max;
	setrlimit(RLIMIT_NOFILE, &files);
	for (count = atoi(argv[3]); count > 0; count -= n) {
		n = count < BATCH ? count : BATCH;
		for (i = 0; i < n; i++) {
			fd[i] = socket(AF_INET, SOCK_STREAM, 0);
			if (fd[i] < 0)
				err(1, "socket");
			setsockopt(fd[i], SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
			setsockopt(fd[i], SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
			if (connect(fd[i], (struct sockaddr *)&addr, sizeof addr))
				err(1, "connect");
			if (argc > 5)
				send(fd[i], argv[5], strlen(argv[5]), MSG_NOSIGNAL);
		}
		for (i = 0; i < n; i++)
			good += !answer || recv(fd[i], buf, answer, MSG_WAITALL) == answer;
	}
	printf("%d\n", good);
	fflush(stdout);
	while (read(0, buf, sizeof buf) > 0)
		;
	return 0;
}
