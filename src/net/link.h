/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A sandbox's link into the router. Its number n is its name (cs<n>) and its addresses (pool + n): the
 * kernel, which has no two links of one name, is the register of addresses.
 */
#ifndef NET_LINK_H
#define NET_LINK_H

#include <stdint.h>

#include "net/net.h"
#include "net/router.h"

struct link_request {
	bool microvm;
	unsigned queues;
	const uint8_t *mac; /* NULL: made from the number */
	uint32_t group;
	uint16_t mtu;
	const char *alias; /* what the router's DNS reads: "id name name ..."; NULL: nothing */
};

struct link {
	unsigned number;
	int index;
	char name[16];
	struct ip_addr addr4, addr6;
	uint8_t mac[6];
	/* what the sandbox gets */
	int tap[NET_MAX_QUEUES];
	unsigned n_taps;
	uint64_t offloads;
	int netns_fd;
};

void link_init(struct link *l);
/* Makes link and addresses; on failure nothing is left. */
int link_make(struct router *r, const struct link_request *q, struct link *l, struct cai_error *err);
/* Closes what is still open here. The link itself goes with its other end: the tap with its last descriptor,
 * the veth with its namespace. */
void link_close(struct link *l);

#endif
