/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Requests and responses over TCP, one at a time, a millisecond or PAUSE_MS apart.
 *
 *   request serve ADDRESS              sends back what comes, until it is ended
 *   request ask ADDRESS SECONDS BYTES [PAUSE_MS]  prints the nanoseconds from each request to its response
 *   request connect ADDRESS COUNT      prints the nanoseconds that each connection took to set up
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
	PORT = 10,
	SIZE = 65536,
	CLIENTS = 64,
	PAUSE_NS = 1000000,
};

static unsigned long long clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static long pause_ns = PAUSE_NS;

static void pause_shortly(void)
{
	nanosleep(&(struct timespec){ .tv_nsec = pause_ns }, NULL);
}

static int open_socket(const char *address, int (*join)(int, const struct sockaddr *, socklen_t))
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, SOCK_STREAM, 0), one = 1;

	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
	    join(fd, (struct sockaddr *)&to, sizeof(to)) != 0) {
		perror(address);
		exit(1);
	}
	return fd;
}

static void answer(struct pollfd *client)
{
	char message[SIZE];
	ssize_t got = recv(client->fd, message, SIZE, 0);

	if (got <= 0) {
		close(client->fd);
		client->fd = -1;
	} else {
		send(client->fd, message, got, MSG_NOSIGNAL);
	}
}

static void admit(struct pollfd *fds, int listener)
{
	int fd = accept(listener, NULL, NULL), one = 1;

	setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	for (int i = 1; i <= CLIENTS; i++)
		if (fds[i].fd < 0) {
			fds[i] = (struct pollfd){ .fd = fd, .events = POLLIN };
			return;
		}
	close(fd);
}

static _Noreturn void serve(const char *address)
{
	struct pollfd fds[1 + CLIENTS];

	memset(fds, -1, sizeof(fds));
	fds[0] = (struct pollfd){ .fd = open_socket(address, bind), .events = POLLIN };
	listen(fds[0].fd, CLIENTS);
	puts("ready");
	fflush(stdout);
	for (;;) {
		poll(fds, 1 + CLIENTS, -1);
		for (int i = 1; i <= CLIENTS; i++)
			if (fds[i].fd >= 0 && fds[i].revents)
				answer(&fds[i]);
		if (fds[0].revents)
			admit(fds, fds[0].fd);
	}
}

static int ask(const char *address, double seconds, ssize_t size)
{
	int fd = open_socket(address, connect);
	unsigned long long end = clock_ns() + seconds * 1e9;
	static char message[SIZE];

	while (clock_ns() < end) {
		unsigned long long begin = clock_ns();

		if (send(fd, message, size, 0) != size || recv(fd, message, size, MSG_WAITALL) != size)
			return 1;
		printf("%llu\n", clock_ns() - begin);
		pause_shortly();
	}
	return 0;
}

static int connect_often(const char *address, int count)
{
	while (count--) {
		unsigned long long begin = clock_ns();

		close(open_socket(address, connect));
		printf("%llu\n", clock_ns() - begin);
		pause_shortly();
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], "serve"))
		serve(argv[2]);
	if (argc == 6)
		pause_ns = 1000000 * atol(argv[5]);
	if ((argc == 5 || argc == 6) && !strcmp(argv[1], "ask") && atol(argv[4]) <= SIZE)
		return ask(argv[2], atof(argv[3]), atol(argv[4]));
	if (argc == 4 && !strcmp(argv[1], "connect"))
		return connect_often(argv[2], atoi(argv[3]));
	return 2;
}
