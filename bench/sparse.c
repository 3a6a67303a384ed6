/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Many sparse flows of UDP: sparse ADDRESS RECEIVER_NETNS FLOWS PAYLOAD_BYTES PACKETS_PER_S SECONDS.
 *
 * Each flow has a socket of its own, and sends in its turn. The receiver runs in another network namespace
 * and prints the nanoseconds that each packet took; the last line is the number of packets sent.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

enum {
	PORT = 11,
	PAYLOAD_MAX = 1472,
	FLOWS_MAX = 1000,
	RECEIVE_BUFFER = 1 << 24,
	LAST_MS = 1000,
};

static unsigned long long clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static int open_socket(struct sockaddr_in *to, int (*join)(int, const struct sockaddr *, socklen_t))
{
	int fd = socket(AF_INET, SOCK_DGRAM, 0), size = RECEIVE_BUFFER;

	setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size));
	if (fd < 0 || join(fd, (struct sockaddr *)to, sizeof(*to)) != 0) {
		perror("socket");
		exit(1);
	}
	return fd;
}

static void receive(int fd)
{
	struct pollfd ready = { .fd = fd, .events = POLLIN };
	char payload[PAYLOAD_MAX];

	while (poll(&ready, 1, LAST_MS) > 0)
		if (recv(fd, payload, sizeof(payload), 0) >= (ssize_t)sizeof(unsigned long long))
			printf("%llu\n", clock_ns() - *(unsigned long long *)payload);
	fflush(stdout);
}

static unsigned long long send_in_turn(const int *fds, int flows, size_t bytes, double per_ns,
				       unsigned long long ns)
{
	static unsigned long long payload[PAYLOAD_MAX / sizeof(unsigned long long)];
	unsigned long long sent = 0, begin = clock_ns(), elapsed;

	while ((elapsed = clock_ns() - begin) < ns) {
		if (elapsed * per_ns <= sent) {
			nanosleep(&(struct timespec){ .tv_nsec = 20000 }, NULL);
			continue;
		}
		payload[0] = clock_ns();
		sent += send(fds[sent % flows], payload, bytes, 0) == (ssize_t)bytes;
	}
	return sent;
}

int main(int argc, char **argv)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fds[FLOWS_MAX], flows, receiver, home = open("/proc/self/ns/net", O_RDONLY);
	unsigned long long sent;

	if (argc != 7 || inet_pton(AF_INET, argv[1], &to.sin_addr) != 1 ||
	    (flows = atoi(argv[3])) > FLOWS_MAX)
		return 2;
	if (setns(open(argv[2], O_RDONLY), CLONE_NEWNET) != 0)
		return 1;
	receiver = open_socket(&to, bind);
	if (setns(home, CLONE_NEWNET) != 0)
		return 1;
	for (int i = 0; i < flows; i++)
		fds[i] = open_socket(&to, connect);
	if (fork() == 0) {
		receive(receiver);
		_exit(0);
	}
	sent = send_in_turn(fds, flows, atoi(argv[4]), atof(argv[5]) / 1e9, atof(argv[6]) * 1e9);
	wait(NULL);
	printf("%llu\n", sent);
	return 0;
}
