/*
 * refusals: how long an answer takes, by what was asked for.
 *
 *	refusals ADDR PORT SOURCE SOURCES COUNT NAME...
 *
 * Asks COUNT times for every NAME over TCPMUX, one after the other, in an order by
 * chance, from SOURCES addresses from SOURCE on by turns.  Prints for each NAME, in
 * the order of the command line, the median of the time from before connect(2) to
 * the first bytes of the answer in ns; the answers have to be the same.  The caller
 * writes a name twice to learn what is noise.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <err.h>
#include <netinet/in.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

static struct sockaddr_in addr = { .sin_family = AF_INET }, source = { .sin_family = AF_INET };
static int sources;
static char expected[256];
static ssize_t expected_len;

static int64_t now(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}

static int64_t ask(const char *name, long number)
{
	struct linger reset = { 1, 0 };
	struct timeval patience = { 5, 0 };
	struct sockaddr_in from = source;
	char text[128], answer[256];
	int s, one = 1, len = snprintf(text, sizeof text, "%s\r\n", name);
	int64_t began, took;
	ssize_t n;

	from.sin_addr.s_addr = htonl(ntohl(source.sin_addr.s_addr) + number % sources);
	if ((s = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0)) < 0)
		err(1, "socket");
	setsockopt(s, SOL_SOCKET, SO_LINGER, &reset, sizeof reset);
	setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	setsockopt(s, IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, &one, sizeof one);
	if (bind(s, (struct sockaddr *)&from, sizeof from))
		err(1, "bind");
	began = now();
	if (connect(s, (struct sockaddr *)&addr, sizeof addr) || send(s, text, len, MSG_NOSIGNAL) != len)
		err(1, "asking for %s", name);
	n = recv(s, answer, sizeof answer, 0);
	took = now() - began;
	if (n < 0)
		err(1, "no answer for %s", name);
	if (n == 0)
		errx(1, "%s gets no answer", name);
	if (!expected_len)
		memcpy(expected, answer, expected_len = n);
	if (n != expected_len || memcmp(answer, expected, n))
		errx(1, "%s is answered %.*s, others %.*s", name, (int)n, answer, (int)expected_len, expected);
	close(s);
	return took;
}

static int by_value(const void *a, const void *b)
{
	int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

	return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
	int i, j, names = argc - 6, *order;
	int64_t **took;
	long count, n, asked = 0;

	if (names < 1 || inet_pton(AF_INET, argv[1], &addr.sin_addr) != 1 || inet_pton(AF_INET, argv[3], &source.sin_addr) != 1)
		errx(2, "usage: refusals ADDR PORT SOURCE SOURCES COUNT NAME...");
	addr.sin_port = htons(atoi(argv[2]));
	sources = atoi(argv[4]);
	count = atol(argv[5]);
	order = calloc(names, sizeof *order);
	took = calloc(names, sizeof *took);
	if (sources < 1 || count < 1 || !order || !took)
		errx(2, "nothing to do");
	for (i = 0; i < names; i++) {
		order[i] = i;
		if (!(took[i] = calloc(count, sizeof **took)))
			err(1, "room");
	}
	srandom(getpid());
	for (n = 0; n < count; n++)
		for (i = 0; i < names; i++) {
			j = i + random() % (names - i);
			int k = order[j];
			order[j] = order[i];
			order[i] = k;
			took[k][n] = ask(argv[6 + k], asked++);
		}
	for (i = 0; i < names; i++) {
		qsort(took[i], count, sizeof **took, by_value);
		printf("%lld ", (long long)(took[i][(count - 1) / 2] + took[i][count / 2]) / 2);
	}
	printf("\n");
	return 0;
}
