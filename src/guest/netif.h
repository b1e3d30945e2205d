/* SPDX-License-Identifier: Apache-2.0 */
/* Network interfaces: from what SETUP says to an interface that is up, with addresses and routes. */
#ifndef GUEST_NETIF_H
#define GUEST_NETIF_H

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

/* Brings up m's interfaces in the caller's network namespace. */
int netif_setup(const struct agent_setup *m, struct cai_error *err);
/* The same for interfaces that are up already: they are taken down first and lose all addresses and routes. */
int netif_renew(const struct agent_setup *m, struct cai_error *err);

void netif_loopback_up(void);

#endif
