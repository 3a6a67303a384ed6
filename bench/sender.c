/* SPDX-License-Identifier: GPL-2.0-only OR BSD-2-Clause */
/*
 * Sends UDP at a steady rate, paced by the clock: sender ADDRESS PAYLOAD_BYTES PACKETS_PER_S SECONDS.
 * What it could not send in time it makes up for later. At the end it prints the packets sent, and the
 * nanoseconds from the first to the end.
 */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum {
	BATCH = 32,
	PORT = 9,
	PAYLOAD_MAX = 1472,
	SHORT_SLEEP_NS = 50000,
};

static unsigned long long clock_ns(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000000ULL + now.tv_nsec;
}

static int connected(const char *address)
{
	struct sockaddr_in to = { .sin_family = AF_INET, .sin_port = htons(PORT) };
	int fd = socket(AF_INET, SOCK_DGRAM, 0);

	if (inet_pton(AF_INET, address, &to.sin_addr) != 1 ||
	    connect(fd, (struct sockaddr *)&to, sizeof(to)) != 0)
		return -1;
	return fd;
}

static unsigned long long send_paced(int fd, struct mmsghdr *messages, double per_ns, unsigned long long ns)
{
	const struct timespec nap = { .tv_nsec = SHORT_SLEEP_NS };
	unsigned long long sent = 0, begin = clock_ns(), elapsed;

	while ((elapsed = clock_ns() - begin) < ns) {
		unsigned long long due = elapsed * per_ns;
		int count;

		if (due <= sent) {
			if (per_ns * SHORT_SLEEP_NS < BATCH)
				nanosleep(&nap, NULL);
			continue;
		}
		count = sendmmsg(fd, messages, due - sent < BATCH ? due - sent : BATCH, 0);
		if (count > 0)
			sent += count;
	}
	return sent;
}

int main(int argc, char **argv)
{
	static char payload[PAYLOAD_MAX];
	struct iovec part = { .iov_base = payload };
	struct mmsghdr messages[BATCH] = {};
	unsigned long long begin, sent;
	int fd;

	if (argc != 5 || (fd = connected(argv[1])) < 0)
		return 2;
	part.iov_len = atoi(argv[2]);
	if (part.iov_len > PAYLOAD_MAX)
		return 2;
	for (int i = 0; i < BATCH; i++)
		messages[i].msg_hdr = (struct msghdr){ .msg_iov = &part, .msg_iovlen = 1 };
	begin = clock_ns();
	sent = send_paced(fd, messages, atof(argv[3]) / 1e9, atof(argv[4]) * 1e9);
	printf("%llu %llu\n", sent, clock_ns() - begin);
	return 0;
}
