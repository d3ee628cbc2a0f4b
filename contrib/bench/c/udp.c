/*
 * udp: the load generator of datagrams.  Keeps a window of datagrams on their
 * way to an echo service for a bounded time and counts what comes back.
 *
 *	udp ADDR PORT WINDOW SECONDS COUNT
 *
 * Datagrams are 64 bytes long and carry the time they were sent at.  If nothing
 * comes for 100 ms the whole window is lost and sent again.  Prints the same
 * line as load; failed is what was lost.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <time.h>

enum { MAX_WINDOW = 64, SIZE = 64, LOST_MS = 100 };

static char data[MAX_WINDOW][SIZE];
static struct mmsghdr m[MAX_WINDOW];
static struct iovec v[MAX_WINDOW];
static int64_t *lat;
static long good, room;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static void transmit(int s, int n)
{
	int64_t t = now();
	int i, done, more;

	for (i = 0; i < n; i++)
		memcpy(data[i], &t, sizeof t);
	for (done = 0; done < n; done += more)
		if ((more = sendmmsg(s, m + done, n - done, 0)) <= 0)
			return;		/* refused: nobody is there yet, the time-out counts it */
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	struct sockaddr_in addr = { .sin_family = AF_INET };
	struct timeval patience = { 0, LOST_MS * 1000 };
	struct rusage u;
	int64_t began, stop_at, last, t, sent;
	long count, wrong = 0, failed = 0;
	int i, n, s, window;

	if (argc != 6 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1)
		errx(2, "usage: udp ADDR PORT WINDOW SECONDS COUNT");
	addr.sin_port = htons(atoi(argv[2]));
	window = atoi(argv[3]);
	count = atol(argv[5]);
	if (window < 1 || window > MAX_WINDOW)
		errx(2, "%s: no such window", argv[3]);
	s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	if (connect(s, (struct sockaddr *)&addr, sizeof addr))
		err(1, "connecting to %s port %s", argv[1], argv[2]);
	for (i = 0; i < MAX_WINDOW; i++) {
		v[i].iov_base = data[i];
		v[i].iov_len = SIZE;
		m[i].msg_hdr.msg_iov = &v[i];
		m[i].msg_hdr.msg_iovlen = 1;
	}
	began = last = now();
	stop_at = began + (int64_t)(atof(argv[4]) * 1e9);
	transmit(s, window);
	while ((t = now()) < stop_at && good < count) {
		n = recvmmsg(s, m, window, MSG_WAITFORONE, NULL);
		if (n <= 0) {
			if (now() - t < LOST_MS * 900000LL)
				continue;	/* an error that the socket had kept, not the time-out */
			failed += window;
			n = window;
		} else {
			last = now();
			if (good + n > room) {
				room = 2 * room + 4096;
				if (!(lat = realloc(lat, room * sizeof *lat)))
					err(1, "latencies");
			}
			for (i = 0; i < n; i++) {
				memcpy(&sent, data[i], sizeof sent);
				if (m[i].msg_len != SIZE || sent < began || sent > last)
					wrong++;
				else
					lat[good++] = last - sent;
			}
		}
		transmit(s, n);
	}
	getrusage(RUSAGE_SELF, &u);
	if (good)
		qsort(lat, good, sizeof *lat, by_value);
	printf("%ld %ld %ld %lld %lld %lld %lld %lld\n", good, wrong, failed, (long long)(last > began ? last - began : 1),
	    (u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1000000000LL + (u.ru_utime.tv_usec + u.ru_stime.tv_usec) * 1000LL,
	    good ? (long long)lat[good * 50 / 100] : 0LL, good ? (long long)lat[good * 99 / 100] : 0LL,
	    good ? (long long)lat[good - 1] : 0LL);
	return 0;
}
