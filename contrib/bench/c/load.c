/*
 * load: the load generator.  Keeps a number of connections in flight for a
 * bounded time, one connection being: connect, (send a TCPMUX name,) read the
 * answer to its end, close by reset so that no TIME_WAIT is left behind.
 *
 *	load ADDR PORT INFLIGHT SECONDS COUNT THREADS [NAME] < expected-answer
 *
 * It stops opening when SECONDS or COUNT (over all threads) is reached and
 * gives what is in flight 2 s more.  Prints one line of numbers:
 *
 *	connections  wrong  failed  elapsed-ns  own-cpu-ns  p50-ns  p99-ns  max-ns
 *
 * wrong: the answer was another one than expected (nothing expected: anything
 * that ends in CR LF is right); failed: no orderly end of
 * file (refused, reset, not ended in time).  A latency is from before
 * connect(2) to the end of file seen; elapsed is to the last of them.  Only
 * connections answered as expected are counted and timed.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <errno.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum { ANSWER = 256, DRAIN_MS = 2000, MAX_FAILED = 1000 };

struct conn {
	int fd;
	int64_t began;
};

struct thread {
	pthread_t id;
	int ep, inflight, busy;
	struct conn *conn;
	int64_t *lat;		/* of the good ones */
	long good, room, wrong, failed;
	int64_t last;
};

static struct sockaddr_in addr = { .sin_family = AF_INET };
static char expected[ANSWER], request[ANSWER];
static ssize_t expected_len;
static int request_len;
static int64_t stop_at;
static atomic_long left;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int as_expected(const char *answer, ssize_t len)
{
	if (expected_len == 0)
		return len > 2 && !memcmp(answer + len - 2, "\r\n", 2);
	return len == expected_len && !memcmp(answer, expected, len);
}

static void finish(struct thread *t, struct conn *c)
{
	close(c->fd);
	c->fd = -1;
	t->busy--;
}

/*
 * start opens a connection in the idle place c.  Waiting for EPOLLRDHUP alone
 * means one wake-up a connection: the answer is read when its end is there.
 */
static void start(struct thread *t, struct conn *c)
{
	struct linger reset = { 1, 0 };
	struct epoll_event e = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = c };

	while (t->failed < MAX_FAILED && now() < stop_at && atomic_fetch_sub(&left, 1) > 0) {
		c->fd = socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);
		if (c->fd < 0)
			err(1, "socket");
		setsockopt(c->fd, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
		c->began = now();
		t->busy++;
		if (connect(c->fd, (struct sockaddr *)&addr, sizeof addr) == 0 || errno == EINPROGRESS) {
			/* On loopback the handshake is over when connect returns, unless the backlog is full. */
			if (request_len && send(c->fd, request, request_len, MSG_NOSIGNAL) != request_len)
				e.events |= EPOLLOUT;
			if (epoll_ctl(t->ep, EPOLL_CTL_ADD, c->fd, &e) == 0)
				return;
		}
		t->failed++;
		finish(t, c);
	}
}

static void event(struct thread *t, struct conn *c, uint32_t what)
{
	char answer[ANSWER];
	ssize_t n, have = 0;

	if ((what & (EPOLLOUT | EPOLLRDHUP | EPOLLERR | EPOLLHUP)) == EPOLLOUT) {
		struct epoll_event e = { .events = EPOLLRDHUP | EPOLLET, .data.ptr = c };

		if (send(c->fd, request, request_len, MSG_NOSIGNAL) == request_len) {
			epoll_ctl(t->ep, EPOLL_CTL_MOD, c->fd, &e);
			return;
		}
	}
	while ((n = recv(c->fd, answer + have, sizeof answer - have, 0)) > 0)
		have += n;
	if (n < 0 && errno == EAGAIN)
		return;
	if (n < 0)
		t->failed++;
	else if (!as_expected(answer, have))
		t->wrong++;
	else {
		if (t->good == t->room) {
			t->room = 2 * t->room + 4096;
			if (!(t->lat = realloc(t->lat, t->room * sizeof *t->lat)))
				err(1, "latencies");
		}
		t->last = now();
		t->lat[t->good++] = t->last - c->began;
	}
	finish(t, c);
	start(t, c);
}

static void *run(void *arg)
{
	struct thread *t = arg;
	struct epoll_event e[64];
	int i, n;

	if ((t->ep = epoll_create1(EPOLL_CLOEXEC)) < 0 || !(t->conn = calloc(t->inflight, sizeof *t->conn)))
		err(1, "thread");
	for (i = 0; i < t->inflight; i++)
		start(t, &t->conn[i]);
	while (t->busy > 0) {
		int64_t rest = (stop_at - now()) / 1000000 + DRAIN_MS;

		if (rest <= 0)
			break;
		n = epoll_wait(t->ep, e, 64, rest);
		for (i = 0; i < n; i++)
			event(t, e[i].data.ptr, e[i].events);
	}
	t->failed += t->busy;
	return NULL;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct thread *t, all = { 0 };
	struct rusage u;
	int64_t began;
	int i, threads, inflight;

	if (argc < 7 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
		errx(2, "usage: load ADDR PORT INFLIGHT SECONDS COUNT THREADS [NAME] < expected-answer");
	addr.sin_port = htons(atoi(argv[2]));
	inflight = atoi(argv[3]);
	left = atol(argv[5]);
	threads = atoi(argv[6]);
	if (threads > inflight)
		threads = inflight;
	if (threads < 1)
		errx(2, "nothing to do");
	if (argc > 7)
		request_len = snprintf(request, sizeof request, "%s\r\n", argv[7]);
	if ((expected_len = read(0, expected, sizeof expected)) < 0)
		err(1, "expected answer");
	if (!(t = calloc(threads, sizeof *t)))
		err(1, "threads");

	began = now();
	stop_at = began + (int64_t)(atof(argv[4]) * 1e9);
	for (i = 0; i < threads; i++) {
		t[i].inflight = inflight / threads + (i < inflight % threads);
		if (pthread_create(&t[i].id, NULL, run, &t[i]))
			errx(1, "no thread");
	}
	all.last = began + 1;
	for (i = 0; i < threads; i++) {
		pthread_join(t[i].id, NULL);
		all.lat = realloc(all.lat, (all.good + t[i].good + 1) * sizeof *all.lat);
		if (!all.lat)
			err(1, "latencies");
		if (t[i].good)
			memcpy(all.lat + all.good, t[i].lat, t[i].good * sizeof *all.lat);
		all.good += t[i].good;
		all.wrong += t[i].wrong;
		all.failed += t[i].failed;
		if (t[i].last > all.last)
			all.last = t[i].last;
	}
	getrusage(RUSAGE_SELF, &u);
	qsort(all.lat, all.good, sizeof *all.lat, by_value);
	if (!all.good)
		all.lat[0] = 0;
	printf("%ld %ld %ld %lld %lld %lld %lld %lld\n", all.good, all.wrong, all.failed,
	    (long long)(all.last - began),
	    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL,
	    (long long)all.lat[all.good * 50 / 100], (long long)all.lat[all.good * 99 / 100],
	    (long long)all.lat[all.good ? all.good - 1 : 0]);
	return 0;
}
