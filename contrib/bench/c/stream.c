/*
 * stream: the load generator of bytes.  Keeps a number of connections busy for
 * a bounded time and counts the bytes that have come (echo, chargen) or that
 * the kernel has taken (discard).
 *
 *	stream ADDR PORT CONNECTIONS SECONDS BYTES echo|chargen|discard
 *
 * Ends after SECONDS or BYTES, counted from the first byte that shows that the
 * server works: how long it takes to accept is not measured here.  For discard
 * that is when more has gone than the kernel's buffers would take.  What has come is thrown away by the
 * kernel without a copy, but for the first 64 KiB of a connection, which have
 * to be what was sent, or text.  Prints the same line as load; a connection that
 * ends early has failed, and the latencies are 0.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK = 65536, BUFFERS = 8 << 20, FIRST_BYTE_MS = 3000 };

struct conn {
	int fd, bad;
	size_t sent, received;
};

static char pattern[2 * BLOCK];		/* of period BLOCK, so that it can be sent from any place */
static int writes, reads;
static long bytes, wrong, failed;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

/* as_expected looks at n bytes that begin at the connection's received. */
static int as_expected(const struct conn *c, const char *got, ssize_t n)
{
	ssize_t i;

	if (writes)
		return !memcmp(got, pattern + c->received, n);
	for (i = 0; i < n; i++)
		if ((got[i] < ' ' || got[i] > '~') && got[i] != '\r' && got[i] != '\n')
			return 0;
	return 1;
}

static void receive(struct conn *c)
{
	char got[BLOCK];
	ssize_t n;

	if (c->received < BLOCK) {
		n = recv(c->fd, got, BLOCK - c->received, 0);
		if (n > 0 && !c->bad && !as_expected(c, got, n)) {
			c->bad = 1;
			wrong++;
		}
	} else
		n = recv(c->fd, NULL, 1 << 30, MSG_TRUNC);
	if (n > 0) {
		c->received += n;
		bytes += n;
	} else if (n == 0 || errno != EAGAIN) {
		failed++;
		close(c->fd);
	}
}

static void transmit(struct conn *c)
{
	ssize_t n = send(c->fd, pattern + c->sent % BLOCK, BLOCK, MSG_NOSIGNAL);

	if (n > 0) {
		c->sent += n;
		if (!reads)
			bytes += n;
	} else if (!reads && errno != EAGAIN) {
		failed++;
		close(c->fd);
	}
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct linger reset = { 1, 0 };
	struct epoll_event e[64], want = { 0 };
	struct conn *conn;
	struct rusage u;
	int64_t first = 0, end, length, t;
	int count, ep, i, n;
	long most, head;

	if (argc != 7 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
		errx(2, "usage: stream ADDR PORT CONNECTIONS SECONDS BYTES echo|chargen|discard");
	addr.sin_port = htons(atoi(argv[2]));
	count = atoi(argv[3]);
	length = (int64_t)(atof(argv[4]) * 1e9);
	most = atol(argv[5]);
	writes = strcmp(argv[6], "chargen") != 0;
	reads = strcmp(argv[6], "discard") != 0;
	head = reads ? 0 : (long)BUFFERS * count;
	for (i = 0; i < 2 * BLOCK; i++)
		pattern[i] = (i % BLOCK) * 2654435761u >> 24;
	if ((ep = epoll_create1(EPOLL_CLOEXEC)) < 0 || !(conn = calloc(count, sizeof *conn)))
		err(1, "connections");
	end = now() + FIRST_BYTE_MS * 1000000LL;
	want.events = (reads ? EPOLLIN : 0) | (writes ? EPOLLOUT : 0);
	for (i = 0; i < count; i++) {
		want.data.ptr = &conn[i];
		conn[i].fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
		setsockopt(conn[i].fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		if ((connect(conn[i].fd, (struct sockaddr *)&addr, sizeof addr) && errno != EINPROGRESS) ||
		    epoll_ctl(ep, EPOLL_CTL_ADD, conn[i].fd, &want))
			failed++;
	}
	while ((t = now()) < end && (!first || bytes < most) && failed < count) {
		n = epoll_wait(ep, e, 64, (end - t) / 1000000 + 1);
		for (i = 0; i < n; i++) {
			if (reads && e[i].events & (EPOLLIN | EPOLLERR | EPOLLHUP))
				receive(e[i].data.ptr);
			if (writes && e[i].events & EPOLLOUT)
				transmit(e[i].data.ptr);
			else if (!reads && e[i].events & (EPOLLERR | EPOLLHUP))
				transmit(e[i].data.ptr);
		}
		if (!first && bytes > head) {
			first = now();
			end = first + length;
			bytes -= head;
		}
	}
	t = now();
	getrusage(RUSAGE_SELF, &u);
	printf("%ld %ld %ld %lld %lld 0 0 0\n", first ? bytes : 0, wrong, failed, (long long)(first && t > first ? t - first : 1),
	    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL);
	return 0;
}
