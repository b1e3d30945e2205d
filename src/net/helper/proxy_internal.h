/* SPDX-License-Identifier: Apache-2.0 */
/* What the two files of the proxy share. */
#ifndef NET_HELPER_PROXY_INTERNAL_H
#define NET_HELPER_PROXY_INTERNAL_H

#include <netinet/in.h>
#include <stddef.h>

#include "net/helper/proxy.h"

#define PROXY_SCRATCH 65536u

struct proxy_conn;
struct proxy_udp;
struct proxy_listener;

struct proxy {
	struct loop *loop;
	struct proxy_target target;
	char device[16];
	struct proxy_listener *listeners;
	struct proxy_udp *udp;
	struct proxy_conn *conns; /* all, doubly linked */
	size_t n_conns;
	uint8_t scratch[PROXY_SCRATCH];
};

union proxy_addr {
	struct sockaddr sa;
	struct sockaddr_in in;
	struct sockaddr_in6 in6;
};

/* The sandbox's address of a family, with a port; its size, or 0 when it has none. */
socklen_t proxy_guest_addr(const struct proxy *p, bool six, uint16_t port, union proxy_addr *out);
/* A non-blocking socket on the sandbox's link; -1 with errno. */
int proxy_guest_socket(const struct proxy *p, bool six, int type);

void proxy_udp_free(struct proxy *p);

#endif
