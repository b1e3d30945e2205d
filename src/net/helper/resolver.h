/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The router's name server for one sandbox: names of its network's members from the router's links,
 * everything else from the host's servers. It reads hostile messages on both sides; see confine.h for what it
 * may do.
 */
#ifndef NET_HELPER_RESOLVER_H
#define NET_HELPER_RESOLVER_H

#include <stdbool.h>
#include <stdint.h>

#include "base/loop.h"
#include "net/rules.h"

#define RESOLVER_SERVERS 3
#define RESOLVER_SOCKETS 4 /* a server: answers are harder to guess when the port varies too */

struct resolver_options {
	int udp_fd, tcp_fd; /* where the sandbox asks; tcp_fd: listening, or -1 */
	int netlink_fd;	    /* NETLINK_ROUTE of the router, for names; -1: no names */
	uint32_t group;	    /* members' link group */
	struct net_plan plan;
	bool has6;
	/* Datagram sockets, connected to the servers; none: nothing but members is known (internal networks).
	 */
	int server_fd[RESOLVER_SERVERS][RESOLVER_SOCKETS];
	unsigned n_servers;
};

struct resolver;
struct resolver *resolver_new(struct loop *l, const struct resolver_options *o, struct cai_error *err);
void resolver_free(struct resolver *r);

#endif
