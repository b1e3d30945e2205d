/* SPDX-License-Identifier: Apache-2.0 */
/* The sockets of published ports. Bound when the sandbox starts, so a port that is in use is known at once,
 * and nobody else gets it later. */
#ifndef NET_PORTS_H
#define NET_PORTS_H

#include "net/net.h"

struct ports {
	struct net_publish *list; /* with the host's ports that were chosen */
	int *fd;
	size_t n;
};

/* In the calling thread's namespace, the host's. On failure nothing is bound, and *err names the port. */
int ports_bind(const struct net_publish *list, size_t n, struct ports *out, struct cai_error *err);
void ports_free(struct ports *p);

#endif
