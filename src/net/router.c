/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 *      sandbox A      sandbox B                             10.213.0.16   10.213.0.17
 *         |               |                                      |             |
 *        cs16            cs17        router namespace            +-- one route each
 *         +-----+   +-----+          rules_router, NAT to up
 *               up
 *               |
 *            caisson0                host's namespace           10.213.255.253/30
 *               |                    rules_host, NAT to the outside
 *              eth0
 *
 * Why a namespace between: its tables can be ours alone (a `nft flush ruleset` on the host cannot open one
 * sandbox to another), the host gets one link, whatever the number of sandboxes, and the last process that
 * holds it takes it along, with links, routes and rules, even when that process was killed.
 *
 * There is no bridge: each sandbox is alone on its link, so there is nobody whose address it could claim, no
 * flood, no spanning tree, and no need for br_netfilter. The router answers ARP for all others (proxy_arp)
 * and is the only neighbour. Every link has the same MAC address on the router's side, so that a restored
 * machine finds the neighbour that it remembers.
 *
 * Sockets of nf_tables stay open as long as the sandbox: closing one waits, for some
 * milliseconds, until the kernel has tidied up after the namespace's last transaction.
 *
 * The router can only be entered through a descriptor. Each user keeps one open, and says so in the roster;
 * whoever comes next opens /proc/PID/fd/N of a live one. All of it happens under the roster's lock.
 */
#include "net/router.h"

#include <errno.h>
#include <linux/netlink.h>
#include <linux/rtnetlink.h>
#include <net/if.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "net/netns.h"
#include "net/roster.h"

const uint8_t router_mac[6] = {0x02, 0xca, 0x15, 0x00, 0x00, 0x01};
static const uint8_t up_mac[6] = {0x02, 0xca, 0x15, 0x00, 0x00, 0x02};
static const uint8_t host_mac[6] = {0x02, 0xca, 0x15, 0x00, 0x00, 0x03};

#define UP_INDEX 2
#define LO_INDEX 1

void router_init(struct router *r)
{
	memset(r, 0, sizeof(*r));
	r->ns_fd = r->host_ns_fd = r->route_fd = r->nft_fd = r->host_fd = r->host_nft_fd = -1;
}

void router_close(struct router *r)
{
	int *fds[] = {&r->ns_fd, &r->host_ns_fd, &r->route_fd, &r->nft_fd, &r->host_fd, &r->host_nft_fd};
	for (size_t k = 0; k < ARRAY_LEN(fds); k++) {
		if (*fds[k] >= 0)
			close(*fds[k]);
		*fds[k] = -1;
	}
}

/* What the way out looks like, and which of the host's addresses the pool must not touch. */
struct survey {
	uint32_t taken[256]; /* first 16 bits of IPv4 prefixes; as pairs base, mask */
	size_t n;
	int out_index;
	uint32_t out_metric;
};

static int look_at_route(const struct rtnl_route *r, void *ctx)
{
	struct survey *s = ctx;
	if (r->type != RTN_UNICAST || r->table == RT_TABLE_LOCAL)
		return 0;
	if (r->prefix == 0) {
		if (!s->out_index || r->metric < s->out_metric) {
			s->out_index = r->index;
			s->out_metric = r->metric;
		}
		return 0;
	}
	if (r->dst.family == AF_INET && s->n + 2 <= ARRAY_LEN(s->taken)) {
		unsigned bits = r->prefix < 16 ? r->prefix : 16;
		s->taken[s->n++] = (uint32_t)r->dst.b[0] << 8 | r->dst.b[1];
		s->taken[s->n++] = (0xffffu << (16 - bits)) & 0xffff;
	}
	return 0;
}

static bool pool_taken(const struct survey *s, uint32_t pool)
{
	for (size_t k = 0; k < s->n; k += 2)
		if ((pool & s->taken[k + 1]) == (s->taken[k] & s->taken[k + 1]))
			return true;
	return false;
}

static void choose_plan(const struct survey *s, struct net_plan *p)
{
	static const uint8_t pools[][2] = {{10, 213}, {10, 87}, {10, 146}, {172, 29}, {172, 22}, {10, 244}};
	size_t k = 0;
	while (k + 1 < ARRAY_LEN(pools) && pool_taken(s, (uint32_t)pools[k][0] << 8 | pools[k][1]))
		k++;
	*p = (struct net_plan){.pool4 = {.family = AF_INET}, .pool6 = {.family = AF_INET6}};
	memcpy(p->pool4.b, pools[k], 2);
	/* RFC 4193: fd, 40 random bits, a subnet. */
	p->pool6.b[0] = 0xfd;
	if (getrandom(p->pool6.b + 1, 7, 0) != 7)
		memcpy(p->pool6.b + 1, "\xca\x15\x50\x4e\x00\x00\x01", 7);
}

static void set_router_sysctls(struct router *r)
{
	static const struct {
		const char *name;
		int value;
	} settings[] = {
	    {"ipv4/ip_forward", 1},
	    {"ipv4/conf/default/proxy_arp", 1},
	    {"ipv4/conf/all/send_redirects", 0},
	    {"ipv4/conf/default/send_redirects", 0},
	    /* The rules check sources, more strictly; whatever the host's defaults are. */
	    {"ipv4/conf/all/rp_filter", 0},
	    {"ipv4/conf/default/rp_filter", 0},
	    {"ipv4/conf/all/arp_ignore", 0},
	    {"ipv4/conf/default/arp_ignore", 0},
	    {"ipv4/conf/all/arp_filter", 0},
	    {"ipv4/conf/default/arp_filter", 0},
	    {"ipv4/conf/all/route_localnet", 0},
	    {"ipv4/conf/default/route_localnet", 0},
	    {"ipv4/conf/all/accept_local", 0},
	    {"ipv4/conf/default/accept_local", 0},
	    {"ipv4/conf/all/accept_source_route", 0},
	    {"ipv4/conf/default/accept_source_route", 0},
	    {"ipv6/conf/default/accept_dad", 0},
	    {"ipv6/conf/default/dad_transmits", 0},
	    {"ipv6/conf/all/forwarding", 1},
	};
	for (size_t k = 0; k < ARRAY_LEN(settings); k++)
		if (sysctl_write(settings[k].name, settings[k].value) == 0)
			r->has6 = r->has6 || strncmp(settings[k].name, "ipv6", 4) == 0;
}

/* Opens the netlink sockets of the namespace that the thread is in. */
static int open_inside(struct router *r, struct cai_error *err)
{
	r->route_fd = nl_open(NETLINK_ROUTE, err);
	r->nft_fd = r->route_fd < 0 ? -1 : nl_open(NETLINK_NETFILTER, err);
	return r->nft_fd < 0 ? -1 : 0;
}

static int enter_and_open(struct router *r, struct cai_error *err)
{
	if (netns_enter(r->ns_fd, err) < 0)
		return -1;
	int result = open_inside(r, err);
	r->has6 = sysctl_read("ipv6/conf/all/forwarding") >= 0;
	if (netns_enter(r->host_ns_fd, result < 0 ? NULL : err) < 0)
		return -1;
	return result;
}

static int make_namespace(struct router *r, struct cai_error *err)
{
	int result;
	r->ns_fd = netns_create(err);
	if (r->ns_fd < 0) {
		netns_enter(r->host_ns_fd, NULL);
		return -1;
	}
	set_router_sysctls(r);
	result = open_inside(r, err);
	if (netns_enter(r->host_ns_fd, result < 0 ? NULL : err) < 0)
		return -1;
	return result;
}

static void remove_host_link(struct router *r)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	int index = (int)if_nametoindex(HOST_LINK);
	if (index == 0)
		return;
	rtnl_del_link(&b, index);
	nl_transact(r->host_fd, &b, NULL, NULL, "");
}

static int add_uplink(struct router *r, struct cai_error *err)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	const struct net_plan *p = &r->plan;
	struct ip_addr gw4 = plan_addr4(p, PLAN_GATEWAY), up4 = plan_addr4(p, PLAN_UP_END),
		       up6 = plan_addr6(p, PLAN_UP_END);
	struct ip_addr host4 = plan_addr4(p, PLAN_HOST_END), host6 = plan_addr6(p, PLAN_HOST_END);
	const struct rtnl_change up = {.group = -1, .up = true};

	rtnl_add_veth(&b, &(struct rtnl_veth){.name = UP_LINK,
					      .peer = HOST_LINK,
					      .index = UP_INDEX,
					      .peer_netns = r->host_ns_fd,
					      .mac = up_mac,
					      .peer_mac = host_mac,
					      .mtu = r->mtu});
	rtnl_set_link(&b, LO_INDEX, &up);
	rtnl_add_addr(&b, LO_INDEX, &gw4, 32);
	rtnl_set_link(&b, UP_INDEX, &up);
	rtnl_add_addr(&b, UP_INDEX, &up4, PLAN_UP_PREFIX4);
	rtnl_add_neigh(&b, UP_INDEX, &host4, host_mac);
	rtnl_add_route(&b, UP_INDEX, NULL, 0, &host4, AF_INET);
	if (r->has6) {
		rtnl_add_addr(&b, UP_INDEX, &up6, PLAN_UP_PREFIX6);
		rtnl_add_neigh(&b, UP_INDEX, &host6, host_mac);
		rtnl_add_route(&b, UP_INDEX, NULL, 0, &host6, AF_INET6);
	}
	return nl_transact(r->route_fd, &b, NULL, err, "cannot link the sandboxes' router to the host");
}

static int add_host_end(struct router *r, struct cai_error *err)
{
	cleanup_batch struct nl_batch b = NL_BATCH;
	const struct net_plan *p = &r->plan;
	struct ip_addr up4 = plan_addr4(p, PLAN_UP_END), up6 = plan_addr6(p, PLAN_UP_END);
	struct ip_addr host4 = plan_addr4(p, PLAN_HOST_END), host6 = plan_addr6(p, PLAN_HOST_END);
	const struct rtnl_change up = {.group = -1, .up = true};
	int index = (int)if_nametoindex(HOST_LINK);
	if (index == 0)
		return cai_fail_errno(err, errno, "cannot find the link %s just made", HOST_LINK);
	/* Only addresses that were given; nothing learned, nothing announced. */
	sysctl_write("ipv6/conf/" HOST_LINK "/accept_ra", 0);
	sysctl_write("ipv6/conf/" HOST_LINK "/addr_gen_mode", 1);
	rtnl_set_link(&b, index, &up);
	rtnl_add_addr(&b, index, &host4, PLAN_UP_PREFIX4);
	rtnl_add_neigh(&b, index, &up4, up_mac);
	if (r->has6 && sysctl_read("ipv6/conf/" HOST_LINK "/disable_ipv6") == 0) {
		rtnl_add_addr(&b, index, &host6, PLAN_UP_PREFIX6);
		rtnl_add_neigh(&b, index, &up6, up_mac);
	}
	return nl_transact(r->host_fd, &b, NULL, err,
			   "cannot set up the host's link to the sandboxes' router");
}

static int set_host_rules(struct router *r, struct roster *s, struct cai_error *err)
{
	const struct rules_guard g = {s->forwarding.on4, s->forwarding.on6, s->forwarding.n4,
				      s->forwarding.n6};
	return rules_host(r->host_nft_fd, &r->plan, &g, err);
}

#define HOST_ADDRS_MAX 512

struct host_addrs {
	struct ip_addr list[HOST_ADDRS_MAX];
	size_t n;
	uint64_t hash;
};

static int one_host_addr(const struct ip_addr *a, void *ctx)
{
	struct host_addrs *h = ctx;
	if (h->n == HOST_ADDRS_MAX)
		return 1;
	h->list[h->n++] = *a;
	for (unsigned k = 0; k < ip_bytes(a); k++)
		h->hash = (h->hash ^ a->b[k]) * 1099511628211ull; /* FNV-1a */
	return 0;
}

/* Tells the router the host's addresses, where they are not those that it knows. */
static int set_host_addrs(struct router *r, struct roster *s, struct cai_error *err)
{
	cleanup_free struct host_addrs *h = calloc(1, sizeof(*h));
	if (!h)
		return cai_fail(err, ENOMEM, "out of memory");
	h->hash = 14695981039346656037ull;
	if (rtnl_each_addr(r->host_fd, one_host_addr, h, err) < 0)
		return -1;
	if (h->hash == s->host_addrs)
		return 0;
	s->host_addrs = h->hash;
	return rules_router_hosts(r->nft_fd, h->list, h->n, err);
}

/* Takes away what the host had to be given. Called when no user is left. */
static int unmake(struct router *r, struct roster *s, struct cai_error *err)
{
	remove_host_link(r);
	if (rules_host_remove(r->host_nft_fd, err) < 0)
		return -1;
	forwarding_restore(&s->forwarding);
	roster_clear(s);
	return roster_save(s, err);
}

/* Walls first, then the way: at no moment can anything pass that should not. */
static int make(struct router *r, struct roster *s, const struct survey *v, struct cai_error *err)
{
	struct stat st;
	if (s->exists)
		forwarding_restore(&s->forwarding);
	roster_clear(s);
	s->host_addrs = 0;
	choose_plan(v, &r->plan);
	s->plan = r->plan;
	remove_host_link(r);
	forwarding_plan(&s->forwarding, r->host_fd);
	if (set_host_rules(r, s, err) < 0 || make_namespace(r, err) < 0 ||
	    rules_router(r->nft_fd, &r->plan, err) < 0 || add_uplink(r, err) < 0 || add_host_end(r, err) < 0)
		return -1;
	if (fstat(r->ns_fd, &st) < 0)
		return cai_fail_errno(err, errno, "cannot examine a network namespace");
	forwarding_apply(&s->forwarding);
	s->ns_ino = st.st_ino;
	s->exists = true;
	return 0;
}

static int open_host(struct router *r, struct cai_error *err)
{
	r->host_ns_fd = netns_current(err);
	r->host_fd = r->host_ns_fd < 0 ? -1 : nl_open(NETLINK_ROUTE, err);
	r->host_nft_fd = r->host_fd < 0 ? -1 : nl_open(NETLINK_NETFILTER, err);
	return r->host_nft_fd < 0 ? -1 : 0;
}

static uint16_t mtu_of(int index)
{
	char name[IFNAMSIZ];
	if (index == 0 || !if_indextoname((unsigned)index, name))
		return 1500;
	struct ifreq q = {0};
	cleanup_close int s = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	snprintf(q.ifr_name, sizeof(q.ifr_name), "%s", name);
	if (s < 0 || ioctl(s, SIOCGIFMTU, &q) < 0 || q.ifr_mtu < 1280 || q.ifr_mtu > 65521)
		return 1500;
	return (uint16_t)q.ifr_mtu;
}

static int join_locked(struct router *r, struct roster *s, struct cai_error *err)
{
	struct survey v = {.n = 0};
	if (rtnl_each_route(r->host_fd, AF_INET, look_at_route, &v, err) < 0)
		return -1;
	r->mtu = mtu_of(v.out_index);
	r->ns_fd = s->exists ? roster_find_namespace(s) : -1;
	if (r->ns_fd < 0) {
		if (make(r, s, &v, err) < 0)
			return -1;
	} else {
		r->plan = s->plan;
		if (enter_and_open(r, err) < 0)
			return -1;
		if (forwarding_plan(&s->forwarding, r->host_fd) || !rules_host_present(r->host_nft_fd)) {
			if (set_host_rules(r, s, err) < 0)
				return -1;
			forwarding_apply(&s->forwarding);
		}
	}
	if (set_host_addrs(r, s, err) < 0)
		return -1;
	if (s->forwarding.no_way6)
		snprintf(r->warning, sizeof(r->warning), "%s", forwarding_no_way6);
	if (roster_add(s, getpid(), r->ns_fd, err) < 0 || roster_save(s, err) < 0)
		return -1;
	return 0;
}

int router_join(struct router *r, struct cai_error *err)
{
	struct roster s;
	router_init(r);
	if (open_host(r, err) < 0 || roster_open(&s, r->host_ns_fd, err) < 0) {
		router_close(r);
		return -1;
	}
	int result = join_locked(r, &s, err);
	if (result < 0) {
		/* What was begun goes, unless others use it. */
		roster_drop_self(&s, r->ns_fd);
		if (s.n_users == 0)
			unmake(r, &s, NULL);
		router_close(r);
	}
	roster_close(&s);
	return result;
}

int router_find(struct router *r, struct cai_error *err)
{
	struct roster s;
	router_init(r);
	if (open_host(r, err) < 0 || roster_open(&s, r->host_ns_fd, err) < 0) {
		router_close(r);
		return -1;
	}
	r->plan = s.plan;
	r->ns_fd = s.exists ? roster_find_namespace(&s) : -1;
	int result =
	    r->ns_fd < 0 ? cai_fail(err, ENOENT, "no sandbox has a network") : enter_and_open(r, err);
	roster_close(&s);
	if (result < 0)
		router_close(r);
	return result;
}

void router_leave_to(struct router *r, pid_t (*start)(void *ctx, int ns_fd), void *ctx)
{
	struct roster s;
	if (r->host_ns_fd < 0 || roster_open(&s, r->host_ns_fd, NULL) < 0) {
		router_close(r);
		return;
	}
	roster_drop_self(&s, r->ns_fd);
	int other = s.exists ? roster_find_namespace(&s) : -1;
	pid_t keeper = other < 0 && s.exists && start ? start(ctx, r->ns_fd) : -1;
	if (other >= 0 || (keeper > 0 && roster_add(&s, keeper, r->ns_fd, NULL) == 0))
		roster_save(&s, NULL);
	else if (s.exists)
		unmake(r, &s, NULL);
	if (other >= 0)
		close(other);
	roster_close(&s);
	router_close(r);
}

void router_leave(struct router *r)
{
	router_leave_to(r, NULL, NULL);
}

int router_linger(int ns_fd, unsigned ms, struct cai_error *err)
{
	struct router r;
	struct roster s;
	uint64_t wait = ms;
	router_init(&r);
	if (open_host(&r, err) < 0)
		return -1;
	r.ns_fd = ns_fd;
	while (wait) {
		usleep((useconds_t)wait * 1000);
		if (roster_open(&s, r.host_ns_fd, err) < 0)
			return -1;
		uint64_t age = roster_age_ms(&s);
		wait = age >= ms ? 0 : ms - age;
		roster_close(&s);
	}
	router_leave(&r);
	return 0;
}

int router_heal(struct cai_error *err)
{
	struct router r;
	struct roster s;
	router_init(&r);
	int result = -1;
	if (open_host(&r, err) < 0 || roster_open(&s, r.host_ns_fd, err) < 0)
		goto out;
	result = s.exists && !roster_in_use(&s) ? unmake(&r, &s, err) : 0;
	roster_close(&s);
out:
	router_close(&r);
	return result;
}
