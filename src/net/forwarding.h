/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Packets from the router to the outside cross the host, so the host must forward: between HOST_LINK and its
 * ways out, and nothing else. What is changed is little, remembered, guarded by rules (rules_guard: two
 * interfaces that forward only for us do not forward to each other) and put back by forwarding_restore.
 */
#ifndef NET_FORWARDING_H
#define NET_FORWARDING_H

#include <net/if.h>
#include <stdbool.h>
#include <stddef.h>

#include "base/error.h"

#define FORWARDING_MAX 64

struct forwarding {
	char on4[FORWARDING_MAX][IFNAMSIZ],
	    on6[FORWARDING_MAX][IFNAMSIZ]; /* interfaces that were turned on */
	size_t n4, n6;
	bool all6;    /* net.ipv6.conf.all.forwarding was turned on */
	bool no_way6; /* there is a way out over IPv6, and it may not be used: see forwarding_describe */
};

/*
 * Adds what is needed and not yet on; called again later it adds what has come since. True when the host's
 * rules have to be set anew, and forwarding_apply to be called after that. Changes nothing itself. route_fd:
 * the host's.
 */
bool forwarding_plan(struct forwarding *f, int route_fd);
/* Turns on what was planned; HOST_LINK exists. */
void forwarding_apply(const struct forwarding *f);
void forwarding_restore(struct forwarding *f);
extern const char forwarding_no_way6[]; /* the sentence for no_way6 */

#endif
