/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * A number is tried by making its link; EEXIST means that another sandbox has it. Numbers start at random, so
 * that an address is not given to the next sandbox while the last one's connections are still remembered
 * somewhere.
 *
 * A microVM's tap is opened inside the router: it belongs to the namespace of its first open. IFF_TUN_EXCL
 * matters: without it, asking for a name that exists would add a queue to somebody else's tap.
 *
 * The neighbour entries are permanent: the router never has to ask a sandbox for its address, nor believe its
 * answers.
 */
#include "net/link.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/if_tun.h>
#include <linux/netlink.h>
#include <linux/virtio_net.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "net/netns.h"

#ifndef TUN_F_USO4
#define TUN_F_USO4 0x20
#define TUN_F_USO6 0x40
#endif

/* VIRTIO_NET_F_*, the newest of which not all kernel headers have (virtio 1.2 section 5.1.3). */
#define OFFLOADS                                                                                             \
	(BIT(VIRTIO_NET_F_CSUM) | BIT(VIRTIO_NET_F_GUEST_CSUM) | BIT(VIRTIO_NET_F_GUEST_TSO4) |              \
	 BIT(VIRTIO_NET_F_GUEST_TSO6) | BIT(VIRTIO_NET_F_GUEST_ECN) | BIT(VIRTIO_NET_F_HOST_TSO4) |          \
	 BIT(VIRTIO_NET_F_HOST_TSO6) | BIT(VIRTIO_NET_F_HOST_ECN))
#define OFFLOADS_USO (BIT(54) /* GUEST_USO4 */ | BIT(55) /* GUEST_USO6 */ | BIT(56) /* HOST_USO */)

#define GUEST_INDEX 2 /* of eth0 in a container's own namespace; 1 is lo */
#define TRIES	    200

void link_init(struct link *l)
{
	memset(l, 0, sizeof(*l));
	for (unsigned k = 0; k < NET_MAX_QUEUES; k++)
		l->tap[k] = -1;
	l->netns_fd = -1;
}

void link_close(struct link *l)
{
	for (unsigned k = 0; k < NET_MAX_QUEUES; k++) {
		if (l->tap[k] >= 0)
			close(l->tap[k]);
		l->tap[k] = -1;
	}
	l->n_taps = 0;
	if (l->netns_fd >= 0)
		close(l->netns_fd);
	l->netns_fd = -1;
}

static void set_number(struct router *r, const struct link_request *q, struct link *l, unsigned n)
{
	l->number = n;
	snprintf(l->name, sizeof(l->name), SANDBOX_PREFIX "%u", n);
	l->addr4 = plan_addr4(&r->plan, n);
	l->addr6 = plan_addr6(&r->plan, n);
	if (q->mac) {
		memcpy(l->mac, q->mac, 6);
	} else {
		const uint8_t mac[6] = {0x02,	       0xca,	      l->addr4.b[0],
					l->addr4.b[1], l->addr4.b[2], l->addr4.b[3]};
		memcpy(l->mac, mac, 6);
	}
}

/* Neither x.y.z.0 nor x.y.z.255: old software takes them for something else. */
static unsigned next_number(unsigned n)
{
	do
		n = n >= PLAN_LAST ? PLAN_FIRST : n + 1;
	while ((n & 0xff) == 0 || (n & 0xff) == 0xff);
	return n;
}

static int tap_queue(const char *name, unsigned short flags, struct cai_error *err)
{
	struct ifreq q = {.ifr_flags = (short)(IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | flags)};
	int size = sizeof(struct virtio_net_hdr_v1);
	cleanup_close int fd = open("/dev/net/tun", O_RDWR | O_CLOEXEC | O_NONBLOCK);
	if (fd < 0)
		return cai_fail_errno(err, errno, "cannot open /dev/net/tun");
	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	if (ioctl(fd, TUNSETIFF, &q) < 0)
		return cai_fail_errno(err, errno, "cannot make a tap device");
	if (ioctl(fd, TUNSETVNETHDRSZ, &size) < 0)
		return cai_fail_errno(err, errno, "cannot set the header size of a tap device");
	return steal_fd(&fd);
}

static int set_offloads(struct link *l, struct cai_error *err)
{
	const unsigned long base = TUN_F_CSUM | TUN_F_TSO4 | TUN_F_TSO6 | TUN_F_TSO_ECN;
	l->offloads = OFFLOADS | OFFLOADS_USO;
	/* UDP segmentation came with Linux 6.2. */
	if (ioctl(l->tap[0], TUNSETOFFLOAD, base | TUN_F_USO4 | TUN_F_USO6) == 0)
		return 0;
	l->offloads = OFFLOADS;
	return ioctl(l->tap[0], TUNSETOFFLOAD, base) < 0
		   ? cai_fail_errno(err, errno, "cannot set the offloads of a tap device")
		   : 0;
}

/* In the router's namespace. -1 with errno EBUSY in *err: the number is taken. */
static int open_taps(const struct link_request *q, struct link *l, struct cai_error *err)
{
	unsigned queues = q->queues < 1 ? 1 : q->queues > NET_MAX_QUEUES ? NET_MAX_QUEUES : q->queues;
	unsigned short multi = queues > 1 ? IFF_MULTI_QUEUE : 0;
	for (unsigned k = 0; k < queues; k++) {
		l->tap[k] = tap_queue(l->name, multi | (k == 0 ? IFF_TUN_EXCL : 0), err);
		if (l->tap[k] < 0)
			return -1;
		l->n_taps = k + 1;
	}
	return set_offloads(l, err);
}

static int make_taps(struct router *r, const struct link_request *q, struct link *l, struct cai_error *err)
{
	if (netns_enter(r->ns_fd, err) < 0)
		return -1;
	int result = open_taps(q, l, err);
	l->index = result < 0 ? 0 : (int)if_nametoindex(l->name);
	if (netns_enter(r->host_ns_fd, result < 0 ? NULL : err) < 0)
		result = -1;
	if (result < 0)
		link_close(l);
	return result;
}

/* Everything on the router's side, and the link itself when it is a veth. Message 0 is the one that can find
 * the number taken. */
static int set_router_side(struct router *r, const struct link_request *q, struct link *l, unsigned *failed,
			   struct cai_error *err)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	if (!q->microvm) {
		l->index = (int)l->number;
		rtnl_add_veth(&b, &(struct rtnl_veth){.name = l->name,
						      .peer = "eth0",
						      .index = l->index,
						      .peer_index = GUEST_INDEX,
						      .peer_netns = l->netns_fd,
						      .mac = router_mac,
						      .peer_mac = l->mac,
						      .mtu = q->mtu,
						      .group = q->group});
	}
	rtnl_set_link(&b, l->index,
		      &(struct rtnl_change){.mac = q->microvm ? router_mac : NULL,
					    .mtu = q->microvm ? q->mtu : 0,
					    .group = q->microvm ? (int64_t)q->group : -1,
					    .alias = q->alias,
					    .up = true});
	rtnl_add_route(&b, l->index, &l->addr4, 32, NULL, AF_INET);
	rtnl_add_neigh(&b, l->index, &l->addr4, l->mac);
	rtnl_no_proxy_delay(&b, l->index);
	if (r->has6) {
		rtnl_add_route(&b, l->index, &l->addr6, 128, NULL, AF_INET6);
		rtnl_add_neigh(&b, l->index, &l->addr6, l->mac);
	}
	*failed = UINT32_MAX;
	return nl_transact(r->route_fd, &b, failed, err, "cannot link the sandbox to the router");
}

static int set_container_side(struct router *r, struct link *l, int fd, struct cai_error *err)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	const struct rtnl_change up = {.group = -1, .up = true};
	struct ip_addr gw4 = plan_addr4(&r->plan, PLAN_GATEWAY), gw6;
	rtnl_set_link(&b, 1, &up);
	rtnl_add_addr(&b, GUEST_INDEX, &l->addr4, 16);
	rtnl_set_link(&b, GUEST_INDEX, &up);
	rtnl_add_neigh(&b, GUEST_INDEX, &gw4, router_mac);
	rtnl_add_route(&b, GUEST_INDEX, NULL, 0, &gw4, AF_INET);
	if (r->has6 && ip_parse(ROUTER_GATEWAY6, &gw6) == 0) {
		rtnl_add_addr(&b, GUEST_INDEX, &l->addr6, 128);
		rtnl_add_neigh(&b, GUEST_INDEX, &gw6, router_mac);
		rtnl_add_route(&b, GUEST_INDEX, NULL, 0, &gw6, AF_INET6);
	}
	return nl_transact(fd, &b, NULL, err, "cannot set up the container's network");
}

/* The namespace, and a netlink socket inside it. */
static int make_container_namespace(struct router *r, struct link *l, struct cai_error *err)
{
	int fd = -1;
	l->netns_fd = netns_create(err);
	if (l->netns_fd >= 0)
		fd = nl_open(NETLINK_ROUTE, err);
	if (netns_enter(r->host_ns_fd, fd < 0 ? NULL : err) < 0 && fd >= 0) {
		close(fd);
		fd = -1;
	}
	return fd;
}

static int try_number(struct router *r, const struct link_request *q, struct link *l, bool *taken,
		      struct cai_error *err)
{
	struct cai_error e;
	unsigned failed = 0;
	*taken = false;
	if (q->microvm && make_taps(r, q, l, &e) < 0) {
		*taken = e.errnum == EBUSY;
		goto fail;
	}
	if (set_router_side(r, q, l, &failed, &e) < 0) {
		*taken = !q->microvm && failed == 0 && (e.errnum == EEXIST || e.errnum == EBUSY);
		if (!q->microvm && !*taken) {
			cleanup_batch struct nl_batch b = NL_BATCH;
			rtnl_del_link(&b, l->index);
			nl_transact(r->route_fd, &b, NULL, NULL, "");
		}
		goto fail;
	}
	return 0;
fail:
	if (err)
		*err = e;
	return -1;
}

int link_make(struct router *r, const struct link_request *q, struct link *l, struct cai_error *err)
{
	cleanup_close int inside = -1;
	uint16_t start = 0;
	bool taken, made = false;
	link_init(l);
	if (!q->microvm && (inside = make_container_namespace(r, l, err)) < 0)
		goto fail;
	(void)!getrandom(&start, sizeof(start), GRND_NONBLOCK);
	unsigned n = PLAN_FIRST + start % (PLAN_LAST - PLAN_FIRST);
	for (unsigned tries = 0; tries < TRIES && !made; tries++) {
		n = next_number(n);
		set_number(r, q, l, n);
		made = try_number(r, q, l, &taken, err) == 0;
		if (!made && !taken)
			goto fail;
	}
	if (!made)
		goto fail;
	if (q->microvm || set_container_side(r, l, inside, err) == 0)
		return 0;
fail:
	link_close(l);
	return -1;
}
