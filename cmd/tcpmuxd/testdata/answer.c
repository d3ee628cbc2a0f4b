/*
 * answer: a server for one request, as small as it can be with libc, so that a
 * test can have a hundred thousand of them. It sends back what it receives on
 * descriptor 0, and ends. With an argument it accepts connections first, and ends
 * after a hundred of them, or when none has come for a while.
 */
#include <sys/socket.h>
#include <sys/time.h>
#include <unistd.h>

static int answer(int fd)
{
	char buf[512];
	struct sockaddr_storage from;
	socklen_t len = sizeof from;
	ssize_t n = recvfrom(fd, buf, sizeof buf, 0, (struct sockaddr *)&from, &len);

	if (n < 0)
		return 2;
	/* A connected socket takes no address, and may report none. */
	if (send(fd, buf, n, MSG_NOSIGNAL) == n)
		return 0;
	return sendto(fd, buf, n, 0, (struct sockaddr *)&from, len) == n ? 0 : 3;
}

int main(int argc, char **argv)
{
	struct timeval patience = {0, 200000};
	int i, fd;

	(void)argv;
	if (argc == 1)
		return answer(0);
	setsockopt(0, SOL_SOCKET, SO_RCVTIMEO, &patience, sizeof patience);
	for (i = 0; i < 100 && (fd = accept(0, NULL, NULL)) >= 0; i++) {
		answer(fd);
		close(fd);
	}
	return 0;
}
