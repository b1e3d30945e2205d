/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The packet filter, all of it: two rule sets that do not depend on which sandboxes exist. docs/networks.md
 * shows them in nft's words.
 *
 *   router:  table inet caisson and table arp caisson in the router's namespace: who may speak to whom, and
 * as whom. host:    table inet caisson in the host's: nothing from the router reaches an address of the host;
 * NAT to the outside.
 */
#ifndef NET_RULES_H
#define NET_RULES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "net/rtnl.h"

#define RULES_TABLE    "caisson"
#define HOST_LINK      "caisson0" /* the host's end of the way between host and router */
#define UP_LINK	       "up"	  /* the router's end */
#define SANDBOX_PREFIX "cs"	  /* links to sandboxes, in the router: cs<number> */

/* Link groups: a private sandbox has none; a named network's is random with the lowest bit set, so that it is
 * never 0. */
#define GROUP_PRIVATE  0u
#define GROUP_INTERNAL 0x40000000u /* set in the groups of networks without a way out */

/*
 * How many connections one address of a sandbox may have tracked at once: this many, or a 64th of what the
 * kernel tracks where that is less, so that a few sandboxes cannot fill the table, the host's included.
 */
#define RULES_MAX_CONNS 4096

/* The addresses that Caisson uses on this host. */
struct net_plan {
	struct ip_addr pool4, pool6; /* a /16 and a /64 */
};
/* Address number n of a pool (1: the gateway, IPv4 only). */
struct ip_addr plan_addr4(const struct net_plan *p, unsigned n);
struct ip_addr plan_addr6(const struct net_plan *p, unsigned n);
#define PLAN_GATEWAY	1u
#define PLAN_FIRST	16u
#define PLAN_LAST	0xfeffu
#define PLAN_HOST_END	0xfffdu /* 255.253/30 and ::ffff:fffd/126: the two ends of HOST_LINK */
#define PLAN_UP_END	0xfffeu
#define PLAN_UP_PREFIX4 30u
#define PLAN_UP_PREFIX6 126u

int rules_router(int nft_fd, const struct net_plan *p, struct cai_error *err);
/* The host's addresses, refused in the router too: a second wall, which nobody's `nft flush ruleset` tears
 * down. */
int rules_router_hosts(int nft_fd, const struct ip_addr *list, size_t n, struct cai_error *err);
/* Members of `group` may reach each other. Harmless when they may already. */
int rules_router_group(int nft_fd, uint32_t group, struct cai_error *err);

/* on4, on6: names of interfaces that forward only for Caisson: between two of them nothing is forwarded, as
 * before. Replaces the table. */
struct rules_guard {
	char (*on4)[IFNAMSIZ], (*on6)[IFNAMSIZ];
	size_t n4, n6;
};
int rules_host(int nft_fd, const struct net_plan *p, const struct rules_guard *g, struct cai_error *err);
/* Whether the host's table is there and in use: somebody may have flushed all rules. */
bool rules_host_present(int nft_fd);
/* 0 also when there is none. */
int rules_host_remove(int nft_fd, struct cai_error *err);

#endif
