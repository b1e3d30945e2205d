/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Routing netlink, one request and one acknowledgement at a time. Before anybody asks, the links are listed and brought up without an address,
 * so that a saved machine has the drivers' work, receive buffers above all, behind it. Then, for each interface of SETUP: MAC and MTU where
 * they differ, its addresses, its default routes. What SETUP does not name is taken down.
 *
 * To make an interface new it is taken down, with which the kernel drops its routes in all tables; what addresses are left are listed
 * and deleted until there are none, since some disappear with others.
 *
 * All addresses come from the host, so IPv6 neither asks routers nor probes for duplicates: both would only make the first seconds of a
 * sandbox's life different from the rest. It makes no link-local address by itself either, as a link that is up has not yet its
 * own MAC; an interface with IPv6 gets it here. Routes are "onlink": the next hop need not be in a subnet of the interface.
 */
#include "guest/netif.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "guest/kernel_abi.h"

#define MAX_OLD_ADDRS  64
#define MAX_ROUNDS     64
#define ROUTE_METRIC_6 1024u /* IPv6's usual one */

/* A request under construction. */
struct request {
	_Alignas(4) uint8_t bytes[512];
	size_t len;
};

int netif_parse(const char *text, struct netif_addr *a, struct cai_error *err)
{
	char address[INET6_ADDRSTRLEN];
	const char *slash = strchr(text, '/');
	size_t n = slash ? (size_t)(slash - text) : strlen(text);

	*a = (struct netif_addr){.family = strchr(text, ':') ? AF_INET6 : AF_INET};
	unsigned max = a->family == AF_INET6 ? 128 : 32;
	a->prefix = max;
	if (n >= sizeof(address))
		goto bad;
	memcpy(address, text, n);
	address[n] = 0;
	if (inet_pton(a->family, address, a->bits) != 1)
		goto bad;
	if (slash) {
		char *end;
		unsigned long p = strtoul(slash + 1, &end, 10);
		if (slash[1] < '0' || slash[1] > '9' || *end || p > max)
			goto bad;
		a->prefix = (unsigned)p;
	}
	return 0;
bad:
	return cai_fail(err, EINVAL, "\"%.64s\" is not an address", text);
}

static void *put(struct request *r, size_t n)
{
	void *p = r->bytes + r->len;
	r->len += align_up(n, 4);
	return p; /* requests here are far smaller than the buffer */
}

static void begin(struct request *r, unsigned type, unsigned flags)
{
	memset(r, 0, sizeof(*r));
	*(struct guest_nlmsghdr *)put(r, sizeof(struct guest_nlmsghdr)) =
		(struct guest_nlmsghdr){.type = (uint16_t)type, .flags = (uint16_t)(GUEST_NLM_REQUEST | flags)};
}

static void attr(struct request *r, unsigned type, const void *p, size_t n)
{
	struct guest_rtattr *a = put(r, sizeof(*a));
	*a = (struct guest_rtattr){.len = (uint16_t)(sizeof(*a) + n), .type = (uint16_t)type};
	memcpy(put(r, n), p, n);
}

static void attr_u32(struct request *r, unsigned type, uint32_t v)
{
	attr(r, type, &v, sizeof(v));
}

static int transmit(int fd, struct request *r)
{
	((struct guest_nlmsghdr *)r->bytes)->len = (uint32_t)r->len;
	return send(fd, r->bytes, r->len, 0) == (ssize_t)r->len ? 0 : -1;
}

/* Sends and waits for the acknowledgement. 0, or -1 with errno. */
static int ask(int fd, struct request *r)
{
	_Alignas(4) uint8_t answer[1024];
	struct guest_nlmsghdr h;
	int32_t code;

	((struct guest_nlmsghdr *)r->bytes)->flags |= GUEST_NLM_ACK;
	if (transmit(fd, r) < 0)
		return -1;
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < (ssize_t)(sizeof(h) + sizeof(code))) {
			errno = n < 0 ? errno : EBADMSG;
			return -1;
		}
		memcpy(&h, answer, sizeof(h));
		memcpy(&code, answer + sizeof(h), sizeof(code));
		if (h.type != GUEST_NLMSG_ERROR)
			continue;
		errno = -code;
		return code ? -1 : 0;
	}
}

/* Reads one RTM_NEWLINK. False for what is no Ethernet interface. */
static bool read_link(const uint8_t *p, size_t n, struct netif_link *l)
{
	struct guest_ifinfomsg info;
	struct guest_rtattr a;
	bool mac = false;

	*l = (struct netif_link){0};
	if (n < sizeof(info))
		return false;
	memcpy(&info, p, sizeof(info));
	l->index = info.index;
	p += sizeof(info);
	n -= sizeof(info);
	while (n >= sizeof(a)) {
		memcpy(&a, p, sizeof(a));
		if (a.len < sizeof(a) || a.len > n)
			break;
		const uint8_t *data = p + sizeof(a);
		size_t len = a.len - sizeof(a), step = (size_t)align_up(a.len, 4);
		if (a.type == GUEST_IFLA_ADDRESS && len == sizeof(l->mac)) {
			memcpy(l->mac, data, len);
			mac = true;
		} else if (a.type == GUEST_IFLA_MTU && len == sizeof(l->mtu)) {
			memcpy(&l->mtu, data, len);
		} else if (a.type == GUEST_IFLA_IFNAME && len <= sizeof(l->name)) {
			memcpy(l->name, data, len);
			l->name[sizeof(l->name) - 1] = 0;
		}
		if (step >= n)
			break;
		p += step;
		n -= step;
	}
	/* A "dummy", which some kernels make by themselves, looks like Ethernet but for this. */
	return mac && info.type == GUEST_ARPHRD_ETHER && !(info.flags & IFF_NOARP);
}

typedef void item_fn(void *ctx, unsigned type, const uint8_t *p, size_t n);

/* Sends a request for a list; fn gets each item. 0, or -1 with errno. */
static int dump(int fd, struct request *r, item_fn *fn, void *ctx)
{
	_Alignas(4) uint8_t answer[16384];
	if (transmit(fd, r) < 0)
		return -1;
	for (;;) {
		ssize_t n = recv(fd, answer, sizeof(answer), 0);
		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			return -1;
		for (size_t at = 0; (size_t)n - at >= sizeof(struct guest_nlmsghdr);) {
			struct guest_nlmsghdr h;
			memcpy(&h, answer + at, sizeof(h));
			if (h.len < sizeof(h) || h.len > (size_t)n - at || h.type == GUEST_NLMSG_ERROR) {
				errno = EBADMSG;
				return -1;
			}
			if (h.type == GUEST_NLMSG_DONE)
				return 0;
			fn(ctx, h.type, answer + at + sizeof(h), h.len - sizeof(h));
			at += align_up(h.len, 4);
			if (at > (size_t)n)
				break;
		}
	}
}

static void add_link(void *ctx, unsigned type, const uint8_t *p, size_t n)
{
	struct netif *list = ctx;
	if (type == GUEST_RTM_NEWLINK && list->n_links < NETIF_MAX_LINKS && read_link(p, n, &list->link[list->n_links]))
		list->n_links++;
}

/* Lists the Ethernet interfaces, in the order that they came to be. 0, or -1 with errno. */
static int list_links(int fd, struct netif *n)
{
	struct request r;
	n->n_links = 0;
	begin(&r, GUEST_RTM_GETLINK, GUEST_NLM_DUMP);
	*(struct guest_ifinfomsg *)put(&r, sizeof(struct guest_ifinfomsg)) = (struct guest_ifinfomsg){0};
	return dump(fd, &r, add_link, n);
}

struct old_addrs {
	int index; /* of the interface */
	unsigned n;
	struct netif_addr addr[MAX_OLD_ADDRS];
};

/* Adds one RTM_NEWADDR. */
static void add_old_addr(void *ctx, unsigned type, const uint8_t *p, size_t n)
{
	struct old_addrs *old = ctx;
	struct guest_ifaddrmsg m;
	struct guest_rtattr a;

	if (type != GUEST_RTM_NEWADDR || n < sizeof(m) || old->n == MAX_OLD_ADDRS)
		return;
	memcpy(&m, p, sizeof(m));
	size_t size = m.family == AF_INET6 ? 16 : 4;
	if (m.index != (uint32_t)old->index || (m.family != AF_INET && m.family != AF_INET6))
		return;
	struct netif_addr *addr = &old->addr[old->n];
	*addr = (struct netif_addr){.family = m.family, .prefix = m.prefixlen};
	bool local = false, any = false;
	p += sizeof(m);
	n -= sizeof(m);
	while (n >= sizeof(a)) {
		memcpy(&a, p, sizeof(a));
		if (a.len < sizeof(a) || a.len > n)
			break;
		/* Where there is a LOCAL, ADDRESS is the peer's. */
		if (a.len - sizeof(a) == size && (a.type == GUEST_IFA_LOCAL || (a.type == GUEST_IFA_ADDRESS && !local))) {
			memcpy(addr->bits, p + sizeof(a), size);
			any = true;
			local = a.type == GUEST_IFA_LOCAL;
		}
		size_t step = (size_t)align_up(a.len, 4);
		if (step >= n)
			break;
		p += step;
		n -= step;
	}
	old->n += any;
}

static int delete_address(int fd, const struct netif_link *l, const struct netif_addr *a)
{
	struct request r;
	begin(&r, GUEST_RTM_DELADDR, 0);
	*(struct guest_ifaddrmsg *)put(&r, sizeof(struct guest_ifaddrmsg)) =
		(struct guest_ifaddrmsg){.family = (uint8_t)a->family, .prefixlen = (uint8_t)a->prefix, .index = (uint32_t)l->index};
	attr(&r, GUEST_IFA_LOCAL, a->bits, a->family == AF_INET6 ? 16 : 4);
	return ask(fd, &r);
}

static int set_up_or_down(int fd, const struct netif_link *l, bool up)
{
	struct request r;
	begin(&r, GUEST_RTM_NEWLINK, 0);
	*(struct guest_ifinfomsg *)put(&r, sizeof(struct guest_ifinfomsg)) =
		(struct guest_ifinfomsg){.index = l->index, .flags = up ? IFF_UP : 0, .change = IFF_UP};
	return ask(fd, &r);
}

/* Takes an interface down and its addresses away. 0, or -1 with errno. */
static int clear_link(int fd, const struct netif_link *l)
{
	struct request r;
	if (set_up_or_down(fd, l, false) < 0)
		return -1;
	for (unsigned round = 0; round < MAX_ROUNDS; round++) {
		struct old_addrs old = {.index = l->index};
		begin(&r, GUEST_RTM_GETADDR, GUEST_NLM_DUMP);
		*(struct guest_ifaddrmsg *)put(&r, sizeof(struct guest_ifaddrmsg)) = (struct guest_ifaddrmsg){0};
		if (dump(fd, &r, add_old_addr, &old) < 0)
			return -1;
		if (!old.n)
			return 0;
		for (unsigned i = 0; i < old.n; i++)
			if (delete_address(fd, l, &old.addr[i]) < 0 && errno != EADDRNOTAVAIL)
				return -1;
	}
	errno = EAGAIN;
	return -1;
}

static struct netif_link *find(struct netif *n, const uint8_t mac[6])
{
	for (unsigned i = 0; i < n->n_links; i++)
		if (!n->link[i].taken && !memcmp(n->link[i].mac, mac, 6))
			return &n->link[i];
	return NULL;
}

static bool named(const struct agent_setup *m, const struct netif_link *l)
{
	for (unsigned i = 0; i < m->n_ifaces; i++)
		if (!memcmp(m->iface[i].mac, l->mac, 6))
			return true;
	return false;
}

static void write_sysctl(const char *link, const char *name, const char *value)
{
	char path[128];
	snprintf(path, sizeof(path), "/proc/sys/net/ipv6/conf/%.16s/%s", link, name);
	cleanup_close int fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd >= 0 && write(fd, value, strlen(value)) < 0)
		return; /* it only saves time */
}

/* Up, without an address of any kind. */
static int bring_up(int fd, struct netif_link *l)
{
	write_sysctl(l->name, "accept_ra", "0");
	write_sysctl(l->name, "accept_dad", "0");
	write_sysctl(l->name, "addr_gen_mode", "1"); /* none */
	if (set_up_or_down(fd, l, true) < 0)
		return -1;
	l->up = true;
	return 0;
}

static int change(int fd, struct netif_link *l, const struct agent_iface *i)
{
	struct request r;
	bool mac = memcmp(l->mac, i->mac, 6) != 0, mtu = i->mtu && i->mtu != l->mtu;
	if (!mac && !mtu)
		return 0;
	begin(&r, GUEST_RTM_NEWLINK, 0);
	*(struct guest_ifinfomsg *)put(&r, sizeof(struct guest_ifinfomsg)) = (struct guest_ifinfomsg){.index = l->index};
	if (mac)
		attr(&r, GUEST_IFLA_ADDRESS, i->mac, 6);
	if (mtu)
		attr_u32(&r, GUEST_IFLA_MTU, i->mtu);
	if (ask(fd, &r) < 0)
		return -1;
	memcpy(l->mac, i->mac, 6);
	l->mtu = mtu ? i->mtu : l->mtu;
	return 0;
}

static int add_address(int fd, const struct netif_link *l, const struct netif_addr *a)
{
	struct request r;
	size_t n = a->family == AF_INET6 ? 16 : 4;
	begin(&r, GUEST_RTM_NEWADDR, GUEST_NLM_CREATE | GUEST_NLM_REPLACE);
	*(struct guest_ifaddrmsg *)put(&r, sizeof(struct guest_ifaddrmsg)) =
		(struct guest_ifaddrmsg){.family = (uint8_t)a->family, .prefixlen = (uint8_t)a->prefix, .index = (uint32_t)l->index};
	attr(&r, GUEST_IFA_LOCAL, a->bits, n);
	attr(&r, GUEST_IFA_ADDRESS, a->bits, n);
	if (a->family == AF_INET6) {
		attr_u32(&r, GUEST_IFA_FLAGS, GUEST_IFA_F_NODAD);
	} else if (a->prefix <= 30) {
		uint32_t host = a->prefix ? 0xffffffffu >> a->prefix : 0xffffffffu, broadcast;
		memcpy(&broadcast, a->bits, 4);
		broadcast |= htonl(host);
		attr(&r, GUEST_IFA_BROADCAST, &broadcast, 4);
	}
	return ask(fd, &r);
}

/* rank: 0 for the first interface, whose route is preferred. */
static int add_default_route(int fd, const struct netif_link *l, const struct netif_addr *gateway, unsigned rank)
{
	struct request r;
	bool six = gateway->family == AF_INET6;
	begin(&r, GUEST_RTM_NEWROUTE, GUEST_NLM_CREATE | GUEST_NLM_REPLACE);
	*(struct guest_rtmsg *)put(&r, sizeof(struct guest_rtmsg)) = (struct guest_rtmsg){
		.family = (uint8_t)gateway->family,
		.table = GUEST_RT_TABLE_MAIN,
		.protocol = GUEST_RTPROT_BOOT,
		.type = GUEST_RTN_UNICAST,
		.flags = GUEST_RTNH_F_ONLINK,
	};
	attr_u32(&r, GUEST_RTA_OIF, (uint32_t)l->index);
	attr(&r, GUEST_RTA_GATEWAY, gateway->bits, six ? 16 : 4);
	if (six || rank)
		attr_u32(&r, GUEST_RTA_PRIORITY, (six ? ROUTE_METRIC_6 : 0) + rank);
	return ask(fd, &r);
}

static int route_through(int fd, const struct netif_link *l, const char *gateway, int family, unsigned rank, struct cai_error *err)
{
	struct netif_addr a;
	if (!gateway || !*gateway)
		return 0;
	if (netif_parse(gateway, &a, err) < 0)
		return -1;
	if (a.family != family)
		return cai_fail(err, EINVAL, "the gateway %.64s is of the wrong family", gateway);
	if (add_default_route(fd, l, &a, rank) < 0)
		return cai_fail_errno(err, errno, "the guest cannot use the gateway %.64s", gateway);
	return 0;
}

/* RFC 4291 appendix A: from the MAC. */
static struct netif_addr link_local(const uint8_t mac[6])
{
	return (struct netif_addr){.family = AF_INET6,
				   .bits = {0xfe, 0x80, 0, 0, 0, 0, 0, 0, mac[0] ^ 2, mac[1], mac[2], 0xff, 0xfe, mac[3], mac[4], mac[5]},
				   .prefix = 64};
}

static int set_up_one(int fd, struct netif_link *l, const struct agent_iface *i, unsigned rank, struct cai_error *err)
{
	bool six = false;
	if (change(fd, l, i) < 0 || (!l->up && bring_up(fd, l) < 0))
		return cai_fail_errno(err, errno, "the guest's network interface %.16s cannot be brought up", l->name);
	for (unsigned k = 0; k < i->n_addrs; k++) {
		struct netif_addr a;
		if (netif_parse(i->addr[k], &a, err) < 0)
			return -1;
		if (a.family == AF_INET6 && !six) {
			const struct netif_addr own = link_local(i->mac);
			six = true;
			if (add_address(fd, l, &own) < 0)
				return cai_fail_errno(err, errno, "the guest's network interface %.16s cannot have a link-local address", l->name);
		}
		if (add_address(fd, l, &a) < 0)
			return cai_fail_errno(err, errno, "the guest's network interface %.16s cannot have the address %.64s", l->name,
					      i->addr[k]);
	}
	if (route_through(fd, l, i->gateway4, AF_INET, rank, err) < 0)
		return -1;
	return route_through(fd, l, i->gateway6, AF_INET6, rank, err);
}

void netif_loopback_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP | IFF_RUNNING};
	cleanup_close int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0);
	if (fd >= 0)
		ioctl(fd, SIOCSIFFLAGS, &ifr);
}

static int open_netlink(void)
{
	return socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, 0 /* NETLINK_ROUTE */);
}

void netif_early(struct netif *n)
{
	netif_loopback_up();
	cleanup_close int fd = open_netlink();
	if (fd < 0 || list_links(fd, n) < 0)
		n->n_links = 0;
	for (unsigned i = 0; i < n->n_links; i++)
		bring_up(fd, &n->link[i]); /* or SETUP tries again, and says what is wrong */
}

static int set_up_all(struct netif *n, const struct agent_setup *m, bool again, struct cai_error *err)
{
	if (!m->n_ifaces && (again || !n->n_links))
		return 0;
	cleanup_close int fd = open_netlink();
	/* What has run since may have made others, and renamed these. */
	if (fd < 0 || ((again || !n->n_links) && list_links(fd, n) < 0))
		return cai_fail_errno(err, errno, "the guest cannot list its network interfaces");
	for (unsigned i = 0; i < n->n_links; i++)
		n->link[i].taken = false;
	for (unsigned i = 0; i < m->n_ifaces; i++) {
		const uint8_t *mac = m->iface[i].mac;
		struct netif_link *l = find(n, mac);
		for (unsigned k = 0; !l && k < n->n_links; k++)
			if (!n->link[k].taken && !named(m, &n->link[k]))
				l = &n->link[k];
		if (!l)
			return cai_fail(err, ENODEV, "the guest has no network interface for %02x:%02x:%02x:%02x:%02x:%02x", mac[0], mac[1],
					mac[2], mac[3], mac[4], mac[5]);
		l->taken = true;
		if (again && clear_link(fd, l) < 0)
			return cai_fail_errno(err, errno, "the guest's network interface %.16s cannot be cleared", l->name);
		if (set_up_one(fd, l, &m->iface[i], i, err) < 0)
			return -1;
	}
	for (unsigned i = 0; i < n->n_links; i++)
		if (n->link[i].up && !n->link[i].taken && set_up_or_down(fd, &n->link[i], false) == 0)
			n->link[i].up = false;
	return 0;
}

int netif_setup(struct netif *n, const struct agent_setup *m, struct cai_error *err)
{
	return set_up_all(n, m, false, err);
}

int netif_renew(struct netif *n, const struct agent_setup *m, struct cai_error *err)
{
	return set_up_all(n, m, true, err);
}

void netif_make_pair(void)
{
	static const char kind[] = "veth";
	struct request r, info = {.len = 0};
	cleanup_close int fd = open_netlink();
	attr(&info, GUEST_IFLA_INFO_KIND, kind, sizeof(kind) - 1);
	begin(&r, GUEST_RTM_NEWLINK, GUEST_NLM_CREATE);
	*(struct guest_ifinfomsg *)put(&r, sizeof(struct guest_ifinfomsg)) = (struct guest_ifinfomsg){0};
	attr(&r, GUEST_IFLA_LINKINFO, info.bytes, info.len);
	if (fd >= 0 && ask(fd, &r) < 0)
		return; /* a kernel without: nothing depends on it */
}
