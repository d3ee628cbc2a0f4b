/*
 * ask: asks at a rate of its own, whatever the server makes of it: the honest
 * user of the attack bench, and its floods and scans.
 *
 *	ask ADDR PORT SOURCE SOURCES RATE SECONDS COUNT MOST [REQUEST] < expected-answer
 *
 * One connection is: bind to a source, connect, send REQUEST and CR LF, read the
 * answer to its end, close by reset.  RATE of them are begun in a second, from
 * SOURCES addresses from SOURCE on by turns, until SECONDS are over or COUNT have
 * begun; what is in flight has 2 s more.  One that is due while MOST are in flight
 * is left out.  A "%" in REQUEST is the number of the connection.  Prints the line
 * of load.c:
 *
 *	connections  wrong  failed  elapsed-ns  own-cpu-ns  p50-ns  p99-ns  max-ns
 *
 * wrong: another answer than expected; failed: no byte of an answer before the
 * end, or no end in time.  A latency is from before connect(2), which may be
 * later than it was due, to the end of file.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 8192, REQUEST = 128, DRAIN = 2000000000 };

struct conn {
	int fd, sent, number;
	int64_t began;
};

static struct sockaddr_in addr = { .sin_family = AF_INET }, source = { .sin_family = AF_INET };
static char expected[ANSWER], answer[ANSWER];
static const char *request;
static ssize_t expected_len;
static int ep, sources, busy, *idle, idles;
static struct conn *conns;
static int64_t *lat, last;
static long good, wrong, failed;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void finish(struct conn *c)
{
	close(c->fd);
	idle[idles++] = c - conns;
	busy--;
}

static void say(struct conn *c)
{
	char text[REQUEST + 16], *p = text;
	const char *q;

	if (!request || c->sent)
		return;
	for (q = request; *q && p < text + REQUEST; q++)
		if (*q == '%')
			p += sprintf(p, "%d", c->number);
		else
			*p++ = *q;
	*p++ = '\r';
	*p++ = '\n';
	c->sent = send(c->fd, text, p - text, MSG_NOSIGNAL) == p - text;
}

static void start(int number)
{
	struct conn *c = &conns[idle[--idles]];
	struct linger reset = { 1, 0 };
	struct epoll_event e = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = c };
	struct sockaddr_in from = source;
	int one = 1;

	busy++;
	from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + number % sources);
	c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
	if (c->fd < 0)
		err(1, "socket");
	c->sent = 0;
	c->number = number;
	setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	setsockopt(c->fd, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	if (bind(c->fd, (struct sockaddr *)&from, sizeof from))
		err(1, "bind");
	c->began = now();
	if (connect(c->fd, (struct sockaddr *)&addr, sizeof addr) == 0 || errno == EINPROGRESS) {
		say(c);
		if (request && !c->sent)
			e.events |= EPOLLOUT;
		if (epoll_ctl(ep, EPOLL_CTL_ADD, c->fd, &e) == 0)
			return;
	}
	failed++;
	finish(c);
}

static void event(struct conn *c, uint32_t what)
{
	ssize_t n, have = 0;

	if ((what & (EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) == EPOLLOUT) {
		say(c);
		return;
	}
	while ((n = recv(c->fd, answer + have, sizeof answer - have, 0)) > 0)
		have += n;
	if (n < 0 && errno == EAGAIN)
		return;
	if (have == 0)
		failed++;
	else if (have != expected_len || memcmp(answer, expected, have))
		wrong++;
	else {
		last = now();
		lat[good++] = last - c->began;
	}
	finish(c);
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct epoll_event e[64];
	struct rusage u;
	double rate, seconds;
	int64_t began, stop;
	long count, n = 0;
	int i, got, most;

	if (argc < 9 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1 || inet_pton(AF_INET, argv[3], &source.sin_addr) != 1)
		errx(2, "usage: ask ADDR PORT SOURCE SOURCES RATE SECONDS COUNT MOST [REQUEST] < expected-answer");
	addr.sin_port = htons(atoi(argv[2]));
	sources = atoi(argv[4]);
	rate = atof(argv[5]);
	seconds = atof(argv[6]);
	count = atol(argv[7]);
	most = atoi(argv[8]);
	request = argc > 9 ? argv[9] : NULL;
	if (sources < 1 || rate <= 0 || seconds <= 0 || seconds > 600 || most < 1)
		errx(2, "nothing to do");
	if (count > rate * seconds + 1)
		count = rate * seconds + 1;
	if ((expected_len = read(0, expected, sizeof expected)) < 0)
		err(1, "expected answer");
	conns = calloc(most, sizeof *conns);
	idle = calloc(most, sizeof *idle);
	lat = calloc(count + 1, sizeof *lat);
	if (!conns || !idle || !lat || (ep = epoll_create1(EPOLL_CLOEXEC)) < 0)
		err(1, "room");
	for (i = 0; i < most; i++)
		conns[i].fd = -1, idle[idles++] = i;

	last = began = now();
	stop = began + seconds * 1e9;
	for (;;) {
		int64_t t = now(), due = began + n * 1e9 / rate;
		struct timespec wait;

		if (n < count && t < stop && t >= due) {
			if (idles)
				start(n);
			n++;
			if (n % 16) /* answers are read between a few of those that are late */
				continue;
			due = t;
		}
		if (n >= count || t >= stop)
			due = (n >= count && t < stop ? t : stop) + DRAIN;
		if ((n >= count || t >= stop) && (!busy || t >= stop + DRAIN))
			break;
		due = due > t ? due - t : 0;
		wait.tv_sec = due / 1000000000;
		wait.tv_nsec = due % 1000000000;
		got = epoll_pwait2(ep, e, 64, &wait, NULL);
		for (i = 0; i < got; i++)
			event(e[i].data.ptr, e[i].events);
	}
	failed += busy;
	getrusage(RUSAGE_SELF, &u);
	qsort(lat, good, sizeof *lat, by_value);
	printf("%ld %ld %ld %lld %lld %lld %lld %lld\n", good, wrong, failed, (long long)(now() - began),
	    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL,
	    (long long)lat[good * 50 / 100], (long long)lat[good * 99 / 100], (long long)lat[good ? good - 1 : 0]);
	return 0;
}
