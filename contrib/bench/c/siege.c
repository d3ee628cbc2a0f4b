/*
 * siege: holds many connections open against a server that may not want them,
 * from a number of sources; in silence, or each with a byte now and then.
 *
 *	siege ADDR PORT SOURCE SOURCES COUNT SECONDS DRIP-MS AGAIN
 *
 * Opens COUNT connections by turns from SOURCES addresses from SOURCE on, for at
 * most SECONDS, and prints how many of them are open.  After that it takes
 * commands, one letter a line, until its standard input ends:
 *
 *	d	each sends a byte every DRIP-MS from now on
 *	s	prints how many are open, how many have ended, and its own CPU time in ns
 *
 * At most AGAIN a second of those that have ended are opened again.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { STEP_MS = 10 };

static struct sockaddr_in addr = { .sin_family = AF_INET }, source = { .sin_family = AF_INET };
static int ep, sources, count, *fd, alive;
static long opened, ended;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void begin(int i)
{
	struct linger reset = { 1, 0 };
	struct timeval patience = { 1, 0 };
	struct epoll_event e = { .events = EPOLLRDHUP | EPOLLET, .data.u32 = i };
	struct sockaddr_in from = source;
	int one = 1, s;

	from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + opened++ % sources);
	s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (s < 0)
		err(1, "socket");
	setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &patience, sizeof patience);
	setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	if (bind(s, (struct sockaddr *)&from, sizeof from))
		err(1, "bind");
	if (connect(s, (struct sockaddr *)&addr, sizeof addr) || epoll_ctl(ep, EPOLL_CTL_ADD, s, &e)) {
		close(s);
		return;
	}
	fd[i] = s;
	alive++;
}

static void end(int i)
{
	if (fd[i] < 0)
		return;
	close(fd[i]);
	fd[i] = -1;
	alive--;
	ended++;
}

/* look waits for ends and commands; it is 0 when standard input has ended. */
static int look(int ms, int *drips)
{
	struct epoll_event e[64];
	struct rusage u;
	char c;
	int i, n = epoll_wait(ep, e, 64, ms);

	for (i = 0; i < n; i++) {
		if (e[i].data.u32 != (uint32_t)count) {
			end(e[i].data.u32);
			continue;
		}
		if (read(0, &c, 1) <= 0)
			return 0;
		if (c == 'd')
			*drips = 1;
		if (c != 's')
			continue;
		getrusage(RUSAGE_SELF, &u);
		printf("%d %ld %lld\n", alive, ended, (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL +
		    (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL);
		fflush(stdout);
	}
	return 1;
}

int main(int argc, char **argv)
{
	struct epoll_event in = { .events = EPOLLIN };
	int64_t stop, step;
	double due = 0, fresh = 0, drip, again;
	int i, drips = 0, nothing = 0, next = 0, empty = 0;

	if (argc != 9 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1 || inet_pton(AF_INET, argv[3], &source.sin_addr) != 1)
		errx(2, "usage: siege ADDR PORT SOURCE SOURCES COUNT SECONDS DRIP-MS AGAIN");
	addr.sin_port = htons(atoi(argv[2]));
	sources = atoi(argv[4]);
	in.data.u32 = count = atoi(argv[5]);
	stop = now() + atoi(argv[6]) * 1000000000LL;
	drip = atof(argv[7]);
	again = atof(argv[8]);
	if (sources < 1 || count < 1 || drip < 1 || !(fd = calloc(count, sizeof *fd)) || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
		errx(2, "nothing to do");
	for (i = 0; i < count; i++)
		fd[i] = -1;
	for (i = 0; i < count && now() < stop; i++) {
		begin(i);
		look(0, &nothing);
	}
	look(0, &nothing);
	printf("%d\n", alive);
	fflush(stdout);
	if (epoll_ctl(ep, EPOLL_CTL_ADD, 0, &in))
		err(1, "standard input");

	for (step = now();;) {
		int64_t ms = (step - now()) / 1000000;

		if (!look(ms > 0 ? ms : 0, &drips))
			return 0;
		if (now() < step)
			continue;
		step += STEP_MS * 1000000LL;
		for (due += drips ? count * STEP_MS / drip : 0; due >= 1; due--, next = (next + 1) % count)
			if (fd[next] >= 0)
				send(fd[next], "a", 1, MSG_NOSIGNAL | MSG_DONTWAIT);
		if ((fresh += again * STEP_MS / 1000) > again)
			fresh = again;
		for (i = 0; i < count && fresh >= 1 && alive < count; i++, empty = (empty + 1) % count)
			if (fd[empty] < 0) {
				begin(empty);
				fresh--;
			}
	}
}
