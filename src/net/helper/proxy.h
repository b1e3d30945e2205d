/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Published ports: connections and datagrams that arrive on sockets of the host go to the sandbox over its
 * own link and back. Looks at no byte of what it carries.
 */
#ifndef NET_HELPER_PROXY_H
#define NET_HELPER_PROXY_H

#include <stdint.h>

#include "base/loop.h"
#include "net/rtnl.h"

struct proxy;

struct proxy_target {
	const char *device; /* the sandbox's link: sockets are bound to it, so they reach nobody else; NULL:
			       any (tests) */
	struct ip_addr addr4, addr6; /* family 0: the sandbox has none */
};

struct proxy *proxy_new(struct loop *l, const struct proxy_target *t, struct cai_error *err);
void proxy_free(struct proxy *p);
/* fd: listening (TCP) or bound (UDP), non-blocking; owned by the caller. */
int proxy_add_tcp(struct proxy *p, int fd, bool six, uint16_t guest_port, struct cai_error *err);
int proxy_add_udp(struct proxy *p, int fd, bool six, uint16_t guest_port, struct cai_error *err);

#endif
