/*
 * relay: what this kernel allows for a relay.  Accept, connect, splice(2) both
 * ways, and nothing else: no table, no names, no limits, no log, no idle time.
 *
 *	relay ADDR PORT TARGET-PORT
 *
 * Each direction of a connection has a blocking thread and a pipe of its own.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

enum { PIPE = 1 << 18 };

struct pair {
	int from, to;
};

/* one_way moves bytes until the end, and then says so. */
static void *one_way(void *arg)
{
	struct pair *p = arg;
	ssize_t n, m;
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		err(1, "pipe");
	fcntl(fd[1], F_SETPIPE_SZ, PIPE);
	while ((n = splice(p->from, NULL, fd[1], NULL, PIPE, SPLICE_F_MOVE)) > 0)
		for (; n > 0; n -= m)
			if ((m = splice(fd[0], NULL, p->to, NULL, n, SPLICE_F_MOVE)) <= 0)
				goto end;
end:
	shutdown(p->from, SHUT_RD);
	shutdown(p->to, SHUT_WR);
	close(fd[0]);
	close(fd[1]);
	return NULL;
}

static struct sockaddr_in target;

static void *connection(void *arg)
{
	struct pair *there = arg, back;
	pthread_t t;

	there->to = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	back.from = there->to;
	back.to = there->from;
	if (connect(there->to, (struct sockaddr *)&target, sizeof target) == 0 &&
	    pthread_create(&t, NULL, one_way, &back) == 0) {
		one_way(there);
		pthread_join(t, NULL);
	}
	close(there->from);
	close(there->to);
	free(there);
	return NULL;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	struct pair *p;
	pthread_t t;
	int listener, on = 1;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		errx(2, "usage: relay ADDR PORT TARGET-PORT");
	signal(SIGPIPE, SIG_IGN);
	target = a;
	a.sin_port = htons(atoi(argv[2]));
	target.sin_port = htons(atoi(argv[3]));
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 65535))
		err(1, "listening on %s port %s", argv[1], argv[2]);
	for (;;) {
		if (!(p = malloc(sizeof *p)))
			err(1, "connection");
		p->from = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (p->from >= 0 && pthread_create(&t, NULL, connection, p) == 0)
			pthread_detach(t);
		else
			free(p);
	}
}
