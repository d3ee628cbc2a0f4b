/*
 * builtin: what this kernel allows for the small services, and the target of
 * the relays.  No table, no limits, no log, no idle time.
 *
 *	builtin ADDR PORT daytime|echo|discard|chargen
 *
 * daytime is accept, write, close by two threads on one listener; its text is
 * always the same.  The others have a blocking thread for each connection:
 * echo goes through a pipe without a copy, discard has the kernel throw away
 * what has come, chargen writes 64 KiB of RFC 864's lines at a time.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { BLOCK = 65536 };

static int listener;
static char lines[95 * 74 * 9];	/* all shifts of a line, nine times */

static void daytime(int c)
{
	static const char text[] = "Thu Jan  1 00:00:00 1970\r\n";

	send(c, text, sizeof text - 1, MSG_NOSIGNAL);
}

static void echo(int c)
{
	ssize_t n, m;
	int fd[2];

	if (pipe2(fd, O_CLOEXEC))
		err(1, "pipe");
	while ((n = splice(c, NULL, fd[1], NULL, BLOCK, SPLICE_F_MOVE)) > 0)
		for (; n > 0; n -= m)
			if ((m = splice(fd[0], NULL, c, NULL, n, SPLICE_F_MOVE)) <= 0)
				goto end;
end:
	close(fd[0]);
	close(fd[1]);
}

static void discard(int c)
{
	while (recv(c, NULL, 1 << 30, MSG_TRUNC) > 0)
		;
}

static void chargen(int c)
{
	while (send(c, lines, sizeof lines, MSG_NOSIGNAL) == sizeof lines)
		;
}

static const struct service {
	const char *name;
	void (*serve)(int);
} services[] = {
	{ "daytime", daytime }, { "echo", echo }, { "discard", discard }, { "chargen", chargen },
};
static const struct service *service;

static void *connection(void *c)
{
	service->serve((int)(intptr_t)c);
	close((int)(intptr_t)c);
	return NULL;
}

static void *serve(void *unused)
{
	pthread_t t;
	int c;

	for (;;) {
		c = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
		if (c < 0)
			continue;
		if (service->serve == daytime)
			connection((void *)(intptr_t)c);
		else if (pthread_create(&t, NULL, connection, (void *)(intptr_t)c) == 0)
			pthread_detach(t);
		else
			close(c);
	}
	return unused;
}

int main(int argc, char **argv)
{
	struct sockaddr_in a = { .sin_family = AF_INET };
	pthread_t second;
	int i, on = 1;

	if (argc != 4 || inet_pton(AF_INET, argv[1], &a.sin_addr) != 1)
		errx(2, "usage: builtin ADDR PORT SERVICE");
	signal(SIGPIPE, SIG_IGN);
	for (i = 0; i < 4; i++)
		if (!strcmp(argv[3], services[i].name))
			service = &services[i];
	if (!service)
		errx(2, "%s: no such service", argv[3]);
	for (i = 0; i < (int)sizeof lines; i++)
		lines[i] = i % 74 < 72 ? ' ' + (i / 74 + i % 74) % 95 : "\r\n"[i % 74 - 72];
	a.sin_port = htons(atoi(argv[2]));
	listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	setsockopt(listener, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on);
	if (bind(listener, (struct sockaddr *)&a, sizeof a) || listen(listener, 65535))
		err(1, "listening on %s port %s", argv[1], argv[2]);
	if (pthread_create(&second, NULL, serve, NULL))
		errx(1, "no second thread");
	serve(NULL);
}
