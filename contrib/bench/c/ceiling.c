/*
 * ceiling: what this kernel allows.  Accept, (negotiate,) spawn, reap, and
 * nothing else: no table, no users, no limits, no log.  A super-server cannot
 * be faster than this; how near it comes is what the harness reports.
 *
 *	ceiling ADDR PORT PROGRAM [NAME]
 *
 * Two threads share one blocking listener.  vfork(2) is
 * clone(CLONE_VM|CLONE_VFORK).  With NAME the thread first peeks for
 * "NAME\r\n", blocking (one silent client would hold it for ever, which is
 * why this is a yardstick and not a server), takes exactly the line and
 * answers "+Go\r\n".
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

static int listener;
static char *child[2];
static const char *name;
static char *none[1];

/* negotiate returns 1 when the peer asked for NAME and was told so. */
static int negotiate(int c)
{
	char line[258], *end;
	ssize_t n;
	size_t len;

	for (;;) {
		n = recv(c, line, sizeof line, MSG_PEEK);
		if (n <= 0)
			return 0;
		if ((end = memmem(line, n, "\r\n", 2)))
			break;
		if (n == sizeof line)
			return 0;
	}
	len = end + 2 - line;
	if (recv(c, line, len, 0) != (ssize_t)len)
		return 0;
	*end = 0;
	if (strcasecmp(line, name))
		return 0;
	return send(c, "+Go\r\n", 5, MSG_NOSIGNAL) == 5;
}

static void *serve(void *unused)
{
	int c;

	for (;;) {
		c = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (c < 0)
			continue;
		if (!name || negotiate(c))
			if (vfork() == 0) {
				dup2(c, 0);
				dup2(c, 1);
				dup2(c, 2);
				execve(child[0], child, none);
				_exit(127);
			}
		close(c);
		while (waitpid(-1, NULL, WNOHANG) > 0)
			;
	}
	return unused;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	pthread_t second;
	int on = 1;

	if (argc < 4 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		errx(2, "usage: ceiling ADDR PORT PROGRAM [NAME]");
	a.sin_port = htons(atoi(argv[2]));
	child[0] = argv[3];
	name = argv[4];
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 65535))
		err(1, "listening on %s port %s", argv[1], argv[2]);
	if (pthread_create(&second, NULL, serve, NULL))
		errx(1, "no second thread");
	serve(NULL);
}
