/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Listens and knocks, in a sandbox: static, so that any image will do.
 *
 *   probe serve TEXT PORT        says TEXT to whoever connects or sends a datagram, over IPv4 and IPv6
 *   probe try tcp|udp,ADDR,PORT...   tries all at once for 1.5 seconds; prints "TARGET TEXT" for each that answered
 */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_TARGETS 128
#define PATIENCE_MS 1500
#define AGAIN_MS    400 /* a datagram may be lost */

static int listener(int family, int type, unsigned port)
{
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6, .sin6_port = htons((uint16_t)port)};
	struct sockaddr_in a4 = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};
	int fd = socket(family, type, 0), one = 1;
	setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof(one));
	if (family == AF_INET6)
		setsockopt(fd, IPPROTO_IPV6, IPV6_V6ONLY, &one, sizeof(one));
	int r = family == AF_INET6 ? bind(fd, (struct sockaddr *)&a6, sizeof(a6)) : bind(fd, (struct sockaddr *)&a4, sizeof(a4));
	if (r < 0 || (type == SOCK_STREAM && listen(fd, 64) < 0)) {
		perror("probe: listening");
		exit(1);
	}
	return fd;
}

static int serve(const char *text, unsigned port)
{
	struct pollfd p[4];
	for (unsigned k = 0; k < 4; k++)
		p[k] = (struct pollfd){.fd = listener(k & 1 ? AF_INET6 : AF_INET, k & 2 ? SOCK_DGRAM : SOCK_STREAM, port), .events = POLLIN};
	printf("ready\n");
	fflush(stdout);
	while (poll(p, 4, -1) > 0)
		for (unsigned k = 0; k < 4; k++) {
			struct sockaddr_storage peer;
			socklen_t n = sizeof(peer);
			char sink[512];
			if (!p[k].revents)
				continue;
			if (k & 2) {
				if (recvfrom(p[k].fd, sink, sizeof(sink), 0, (struct sockaddr *)&peer, &n) >= 0)
					sendto(p[k].fd, text, strlen(text), 0, (struct sockaddr *)&peer, n);
				continue;
			}
			int c = accept(p[k].fd, NULL, NULL);
			if (c >= 0 && write(c, text, strlen(text)) < 0)
				perror("probe: answering");
			if (c >= 0)
				close(c);
		}
	return 1;
}

static int knock(const char *target)
{
	char kind[4], addr[64];
	unsigned port;
	struct sockaddr_in6 a6 = {.sin6_family = AF_INET6};
	struct sockaddr_in a4 = {.sin_family = AF_INET};
	if (sscanf(target, "%3[a-z],%63[^,],%u", kind, addr, &port) != 3) {
		fprintf(stderr, "probe: what is '%s'?\n", target);
		exit(1);
	}
	int six = inet_pton(AF_INET6, addr, &a6.sin6_addr), type = strcmp(kind, "udp") ? SOCK_STREAM : SOCK_DGRAM;
	if (!six && inet_pton(AF_INET, addr, &a4.sin_addr) != 1) {
		fprintf(stderr, "probe: '%s' is no address\n", addr);
		exit(1);
	}
	a6.sin6_port = a4.sin_port = htons((uint16_t)port);
	int fd = socket(six ? AF_INET6 : AF_INET, type | SOCK_NONBLOCK, 0);
	int r = six ? connect(fd, (struct sockaddr *)&a6, sizeof(a6)) : connect(fd, (struct sockaddr *)&a4, sizeof(a4));
	if (r < 0 && errno != EINPROGRESS) {
		close(fd);
		return -1;
	}
	if (type == SOCK_DGRAM && write(fd, "?", 1) < 0)
		errno = 0; /* what is refused is no answer; later ones may come through */
	return fd;
}

static long now_ms(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static int try(char **target, unsigned n)
{
	struct pollfd p[MAX_TARGETS];
	long start = now_ms(), sent = start;
	for (unsigned k = 0; k < n; k++)
		p[k] = (struct pollfd){.fd = knock(target[k]), .events = POLLIN};
	for (long now; (now = now_ms()) - start < PATIENCE_MS;) {
		unsigned open = 0;
		for (unsigned k = 0; k < n; k++)
			open += p[k].fd >= 0;
		if (!open)
			break;
		poll(p, n, 100);
		for (unsigned k = 0; k < n; k++) {
			char text[256];
			if (p[k].fd < 0 || !p[k].revents)
				continue;
			ssize_t got = read(p[k].fd, text, sizeof(text) - 1);
			int udp = target[k][0] == 'u';
			if (got > 0)
				printf("%s %.*s\n", target[k], (int)strcspn((text[got] = 0, text), "\n"), text);
			if (got >= 0 || (!udp && errno != EAGAIN)) {
				close(p[k].fd);
				p[k].fd = -1;
			}
		}
		if (now - sent > AGAIN_MS) {
			sent = now;
			for (unsigned k = 0; k < n; k++)
				if (p[k].fd >= 0 && target[k][0] == 'u' && write(p[k].fd, "?", 1) < 0)
					errno = 0;
		}
	}
	return 0;
}

int main(int argc, char **argv)
{
	if (argc == 4 && !strcmp(argv[1], "serve"))
		return serve(argv[2], (unsigned)atoi(argv[3]));
	if (argc >= 3 && argc - 2 <= MAX_TARGETS && !strcmp(argv[1], "try"))
		return try(argv + 2, (unsigned)argc - 2);
	fprintf(stderr, "usage: probe serve TEXT PORT | probe try TARGET...\n");
	return 2;
}
