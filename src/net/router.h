/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The router: one network namespace that all sandboxes of this host's network namespace are linked to. It is
 * held only by the processes that use it; a file in /run/caisson says which, so that the next one finds it.
 * It and all in it vanish with the last of them.
 */
#ifndef NET_ROUTER_H
#define NET_ROUTER_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "net/rules.h"

struct router {
	int ns_fd, host_ns_fd;	       /* the two namespaces */
	int route_fd, nft_fd, host_fd, host_nft_fd; /* netlink: router's links, router's rules, host's links */
	struct net_plan plan;
	uint16_t mtu; /* of the host's way out */
	bool has6;
	char warning[256]; /* "" or one sentence */
};

void router_init(struct router *r);
/* Finds the router or makes it, and registers this process as a user of it. */
int router_join(struct router *r, struct cai_error *err);
/* As router_join, but only looks: -1 with ENOENT when there is none. Release it with router_close. */
int router_find(struct router *r, struct cai_error *err);
void router_close(struct router *r);
/* Strikes this process off; the last user takes away what the host had to be given. */
void router_leave(struct router *r);
/* As router_leave; if this is the last user, start is called first and gives the pid of a process that goes
 * on in its place (-1: none). */
void router_leave_to(struct router *r, pid_t (*start)(void *ctx, int ns_fd), void *ctx);
/* What such a process does: waits until nothing has happened for ms, then leaves. ns_fd is its descriptor. */
int router_linger(int ns_fd, unsigned ms, struct cai_error *err);
/* Does for dead users what router_leave does. 0 or -1. */
int router_heal(struct cai_error *err);

/* The MAC address that the router has on all links to sandboxes, and the IPv6 address that follows from it.
 */
extern const uint8_t router_mac[6];
#define ROUTER_GATEWAY6 "fe80::ca:15ff:fe00:1"

#endif
