/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces: from what SETUP says to an interface that is up, with addresses and routes. */
#ifndef GUEST_NETIF_H
#define GUEST_NETIF_H

#include <stdbool.h>
#include <stdint.h>

#include "base/error.h"
#include "proto/agent.h"

/* An address as SETUP carries it. */
struct netif_addr {
	int family;      /* AF_INET or AF_INET6 */
	uint8_t bits[16]; /* network order; the first 4 or all */
	unsigned prefix;
};
/* "ADDRESS" or "ADDRESS/PREFIX". Without a prefix it is that one address: 32 or 128. */
int netif_parse(const char *text, struct netif_addr *a, struct cai_error *err);

#define NETIF_MAX_LINKS 64
struct netif_link {
	int index;
	bool up, taken;
	uint8_t mac[6];
	uint32_t mtu;
	char name[16];
};

/* The Ethernet interfaces of a network namespace. Zeroes: not looked at yet. */
struct netif {
	unsigned n_links;
	struct netif_link link[NETIF_MAX_LINKS];
};

/* Brings up loopback, and all interfaces without an address. */
void netif_early(struct netif *n);
/* Makes m's interfaces what m says, in the caller's network namespace, and takes down what netif_early has brought up besides. */
int netif_setup(struct netif *n, const struct agent_setup *m, struct cai_error *err);
/* The same for interfaces that are in use: they are taken down first and lose all addresses and routes. */
int netif_renew(struct netif *n, const struct agent_setup *m, struct cai_error *err);

void netif_loopback_up(void);
/* Makes a pair of connected interfaces (veth), to have something to set up. */
void netif_make_pair(void);

#endif
