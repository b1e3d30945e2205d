/* SPDX-License-Identifier: Apache-2.0 */
/* Links, addresses, routes and neighbours: messages of rtnetlink(7). The functions that take a batch only add
 * to it. */
#ifndef NET_RTNL_H
#define NET_RTNL_H

#include <net/if.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/socket.h>

#include "net/netlink.h"

/* An IPv4 or IPv6 address in network order. */
struct ip_addr {
	uint8_t family; /* AF_INET or AF_INET6 */
	uint8_t b[16];
};
static inline unsigned ip_bytes(const struct ip_addr *a)
{
	return a->family == AF_INET ? 4 : 16;
}
/* Numbers only; 0 or -1. */
int ip_parse(const char *text, struct ip_addr *a);
void ip_format(const struct ip_addr *a, char *text, size_t n); /* 46 bytes are enough */

struct rtnl_veth {
	const char *name, *peer; /* names of the two ends */
	int index, peer_index;	 /* 0: the kernel chooses */
	int peer_netns;		 /* descriptor of the namespace that the peer goes to */
	const uint8_t *mac, *peer_mac;
	uint32_t mtu, group;
};
/* Both ends, down. Fails with EEXIST where a name is taken. */
void rtnl_add_veth(struct nl_batch *b, const struct rtnl_veth *v);
/* Changes link `index`; mac, alias: NULL to leave; mtu 0 to leave; group < 0 to leave. */
struct rtnl_change {
	const uint8_t *mac;
	const char *alias;
	uint32_t mtu;
	int64_t group;
	bool up, no_arp;
};
void rtnl_set_link(struct nl_batch *b, int index, const struct rtnl_change *c);
void rtnl_del_link(struct nl_batch *b, int index);

/* IPv6 addresses are usable at once (no duplicate address detection). */
void rtnl_add_addr(struct nl_batch *b, int index, const struct ip_addr *a, unsigned prefix);
/* dst NULL: the default route; gateway NULL: dst is on the link. src NULL: the kernel chooses. EEXIST when
 * the same route exists. */
void rtnl_add_route(struct nl_batch *b, int index, const struct ip_addr *dst, unsigned prefix,
		    const struct ip_addr *gateway, int family);
/* A neighbour that never has to be asked for. */
void rtnl_add_neigh(struct nl_batch *b, int index, const struct ip_addr *a, const uint8_t mac[6]);

/* Answers to ARP requests for others' addresses (proxy_arp) go out at once on this link, instead of after up
 * to 0.8 s. */
void rtnl_no_proxy_delay(struct nl_batch *b, int index);

struct rtnl_link {
	int index;
	char name[IFNAMSIZ], alias[256], kind[16];
	uint32_t mtu, group, flags;
	uint64_t rx_bytes, rx_packets, rx_dropped, tx_bytes, tx_packets, tx_dropped;
};
/* One link, by name. ENODEV when there is none. */
int rtnl_get_link(int fd, const char *name, struct rtnl_link *out, struct cai_error *err);
int rtnl_each_link(int fd, int (*fn)(const struct rtnl_link *l, void *ctx), void *ctx, struct cai_error *err);

struct rtnl_route {
	struct ip_addr dst, gateway; /* family 0: none (a default route has no dst) */
	unsigned prefix;
	int index; /* outgoing link; 0: several or none */
	uint8_t type, table, protocol;
	uint32_t metric;
};
int rtnl_each_route(int fd, int family, int (*fn)(const struct rtnl_route *r, void *ctx), void *ctx,
		    struct cai_error *err);

/* All addresses of all links. */
int rtnl_each_addr(int fd, int (*fn)(const struct ip_addr *a, void *ctx), void *ctx, struct cai_error *err);

#endif
