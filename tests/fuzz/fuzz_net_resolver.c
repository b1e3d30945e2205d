/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The name server in front of a sandbox, between socket pairs: byte by byte the input says who speaks
 * (sandbox over datagrams, over a connection, a server) and what. A server's answer gets the id and question
 * of the last query that was carried to it, if the input wants that, so that answers are believed now and
 * then. Also the parsing by itself: what it accepts lies inside the message.
 */
#include "fuzz.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/util.h"
#include "net/helper/dns_message.h"
#include "net/helper/resolver.h"

static void must(bool ok)
{
	if (!ok)
		abort();
}

static void parse_alone(const uint8_t *p, size_t n)
{
	struct dns_question q;
	uint8_t out[4096], addr[48] = {0}, wire[300];
	if (!dns_parse_query(p, n, &q))
		return;
	must(q.end <= n && q.end > DNS_HEADER && memchr(q.name, 0, sizeof(q.name)));
	for (const char *c = q.name; *c; c++)
		must(!(*c >= 'A' && *c <= 'Z') && *c > ' ' && *c < 127);
	size_t len = dns_respond(p, &q, DNS_NOERROR, addr, 16, 3, 5, out, sizeof(out));
	must(len == q.end + 3 * 28 && dns_is_response(out, len, p + DNS_HEADER, q.end - DNS_HEADER));
	must(dns_respond(p, &q, DNS_NOERROR, addr, 16, 3, 5, out, q.end + 83) == 0);
	must(dns_reverse_address(q.name, addr) <= 16);
	must(dns_put_name(q.name, wire, sizeof(wire)) <= 256);
}

static void pair(int fd[2], int type)
{
	must(socketpair(AF_UNIX, type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0, fd) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	int udp[2], server[RESOLVER_SOCKETS][2];
	uint8_t query[4096] = {0}, message[4096];
	struct resolver_options o = {.tcp_fd = -1, .netlink_fd = -1, .n_servers = 1};
	struct loop *l = loop_new(NULL);
	parse_alone(data, size);
	pair(udp, SOCK_DGRAM);
	o.udp_fd = udp[0];
	for (unsigned k = 0; k < RESOLVER_SOCKETS; k++) {
		pair(server[k], SOCK_DGRAM);
		o.server_fd[0][k] = server[k][0];
	}
	struct resolver *r = resolver_new(l, &o, NULL);
	must(r);
	while (size > 2) {
		unsigned kind = data[0];
		size_t n = data[1], got = 0;
		data += 2;
		size -= 2;
		if (n > size)
			n = size;
		memcpy(message, data, n);
		data += n;
		size -= n;
		if (kind & 1) {
			(void)!send(udp[1], message, n, 0);
		} else {
			/* A carried query comes out of any of the sockets; the answer goes back into it. */
			unsigned which = kind >> 2 & 3;
			for (unsigned k = 0; k < RESOLVER_SOCKETS; k++) {
				ssize_t m = recv(server[k][1], query, sizeof(query), 0);
				if (m > 0) {
					got = (size_t)m;
					which = k;
				}
			}
			if ((kind & 2) && got) {
				memmove(message + got, message, n);
				memcpy(message, query, got);
				message[2] |= 0x80;
				n += got;
			}
			(void)!send(server[which][1], message, n, 0);
		}
		must(loop_poll(l, NULL) == 0);
		ssize_t answer;
		while ((answer = recv(udp[1], message, sizeof(message), 0)) >= 0)
			must(answer >= (ssize_t)DNS_HEADER && (message[2] & 0x80));
	}
	resolver_free(r);
	loop_free(l);
	close(udp[0]);
	close(udp[1]);
	for (unsigned k = 0; k < RESOLVER_SOCKETS; k++) {
		close(server[k][0]);
		close(server[k][1]);
	}
	return 0;
}
