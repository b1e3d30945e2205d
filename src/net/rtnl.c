/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: each function is one message, with the attributes that it needs and no others.
 * Interface indices may be chosen by the caller, so that a link and all that hangs on it fit into one batch.
 */
#include "net/rtnl.h"

#include <arpa/inet.h>
#include <errno.h>
#include <linux/if_addr.h>
#include <linux/if_link.h>
#include <linux/neighbour.h>
#include <linux/rtnetlink.h>
#include <linux/veth.h>
#include <stdio.h>
#include <string.h>

#include "base/util.h"

#define ADD (NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL)

int ip_parse(const char *text, struct ip_addr *a)
{
	memset(a, 0, sizeof(*a));
	a->family = strchr(text, ':') ? AF_INET6 : AF_INET;
	return inet_pton(a->family, text, a->b) == 1 ? 0 : -1;
}

void ip_format(const struct ip_addr *a, char *text, size_t n)
{
	if (a->family == 0 || !inet_ntop(a->family, a->b, text, (socklen_t)n))
		snprintf(text, n, "%s", "");
}

void rtnl_add_veth(struct nl_batch *b, const struct rtnl_veth *v)
{
	struct ifinfomsg here = {.ifi_index = v->index}, there = {.ifi_index = v->peer_index};
	nl_begin(b, RTM_NEWLINK, ADD, &here, sizeof(here));
	nl_attr_str(b, IFLA_IFNAME, v->name);
	if (v->mac)
		nl_attr(b, IFLA_ADDRESS, v->mac, 6);
	if (v->mtu)
		nl_attr_u32(b, IFLA_MTU, v->mtu);
	if (v->group)
		nl_attr_u32(b, IFLA_GROUP, v->group);
	nl_nest(b, IFLA_LINKINFO);
	nl_attr(b, IFLA_INFO_KIND, "veth", 4);
	nl_nest(b, IFLA_INFO_DATA);
	nl_nest(b, VETH_INFO_PEER);
	nl_raw(b, &there, sizeof(there));
	nl_attr_str(b, IFLA_IFNAME, v->peer);
	if (v->peer_mac)
		nl_attr(b, IFLA_ADDRESS, v->peer_mac, 6);
	if (v->mtu)
		nl_attr_u32(b, IFLA_MTU, v->mtu);
	nl_attr_u32(b, IFLA_NET_NS_FD, (uint32_t)v->peer_netns);
	nl_unnest(b);
	nl_unnest(b);
	nl_unnest(b);
	nl_end(b);
}

void rtnl_set_link(struct nl_batch *b, int index, const struct rtnl_change *c)
{
	struct ifinfomsg m = {.ifi_index = index};
	if (c->up)
		m.ifi_flags |= IFF_UP;
	if (c->no_arp)
		m.ifi_flags |= IFF_NOARP;
	m.ifi_change = m.ifi_flags;
	nl_begin(b, RTM_NEWLINK, NLM_F_ACK, &m, sizeof(m));
	if (c->mac)
		nl_attr(b, IFLA_ADDRESS, c->mac, 6);
	if (c->mtu)
		nl_attr_u32(b, IFLA_MTU, c->mtu);
	if (c->group >= 0)
		nl_attr_u32(b, IFLA_GROUP, (uint32_t)c->group);
	if (c->alias)
		nl_attr(b, IFLA_IFALIAS, c->alias, strlen(c->alias));
	nl_end(b);
}

void rtnl_del_link(struct nl_batch *b, int index)
{
	struct ifinfomsg m = {.ifi_index = index};
	nl_begin(b, RTM_DELLINK, NLM_F_ACK, &m, sizeof(m));
	nl_end(b);
}

void rtnl_add_addr(struct nl_batch *b, int index, const struct ip_addr *a, unsigned prefix)
{
	struct ifaddrmsg m = {
	    .ifa_family = a->family, .ifa_prefixlen = (uint8_t)prefix, .ifa_index = (uint32_t)index};
	if (a->family == AF_INET6)
		m.ifa_flags = IFA_F_NODAD;
	nl_begin(b, RTM_NEWADDR, ADD, &m, sizeof(m));
	nl_attr(b, IFA_LOCAL, a->b, ip_bytes(a));
	if (a->family == AF_INET)
		nl_attr(b, IFA_ADDRESS, a->b, ip_bytes(a));
	nl_end(b);
}

void rtnl_add_route(struct nl_batch *b, int index, const struct ip_addr *dst, unsigned prefix,
		    const struct ip_addr *gateway, int family)
{
	struct rtmsg m = {
	    .rtm_family = (uint8_t)family,
	    .rtm_dst_len = (uint8_t)(dst ? prefix : 0),
	    .rtm_table = RT_TABLE_MAIN,
	    .rtm_protocol = RTPROT_STATIC,
	    .rtm_scope = gateway || family == AF_INET6 ? RT_SCOPE_UNIVERSE : RT_SCOPE_LINK,
	    .rtm_type = RTN_UNICAST,
	};
	nl_begin(b, RTM_NEWROUTE, ADD, &m, sizeof(m));
	if (dst)
		nl_attr(b, RTA_DST, dst->b, ip_bytes(dst));
	if (gateway)
		nl_attr(b, RTA_GATEWAY, gateway->b, ip_bytes(gateway));
	nl_attr_u32(b, RTA_OIF, (uint32_t)index);
	nl_end(b);
}

void rtnl_add_neigh(struct nl_batch *b, int index, const struct ip_addr *a, const uint8_t mac[6])
{
	struct ndmsg m = {.ndm_family = a->family, .ndm_ifindex = index, .ndm_state = NUD_PERMANENT};
	nl_begin(b, RTM_NEWNEIGH, NLM_F_ACK | NLM_F_CREATE | NLM_F_REPLACE, &m, sizeof(m));
	nl_attr(b, NDA_DST, a->b, ip_bytes(a));
	nl_attr(b, NDA_LLADDR, mac, 6);
	nl_end(b);
}

void rtnl_no_proxy_delay(struct nl_batch *b, int index)
{
	struct ndtmsg m = {.ndtm_family = AF_INET};
	uint64_t zero = 0;
	nl_begin(b, RTM_SETNEIGHTBL, NLM_F_ACK, &m, sizeof(m));
	nl_attr_str(b, NDTA_NAME, "arp_cache");
	nl_nest(b, NDTA_PARMS);
	nl_attr_u32(b, NDTPA_IFINDEX, (uint32_t)index);
	nl_attr(b, NDTPA_PROXY_DELAY, &zero, sizeof(zero));
	nl_unnest(b);
	nl_end(b);
}

static void read_link(const struct nlmsghdr *h, struct rtnl_link *l)
{
	const struct nlattr *t[IFLA_GROUP + 1];
	const struct ifinfomsg *m = NLMSG_DATA(h);
	struct rtnl_link_stats64 s;

	memset(l, 0, sizeof(*l));
	if (h->nlmsg_type != RTM_NEWLINK || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)))
		return;
	nl_parse((const uint8_t *)m + NLMSG_ALIGN(sizeof(*m)), h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), t,
		 IFLA_GROUP);
	l->index = m->ifi_index;
	l->flags = m->ifi_flags;
	l->mtu = nl_get_u32(t[IFLA_MTU]);
	l->group = nl_get_u32(t[IFLA_GROUP]);
	nl_get_str(t[IFLA_IFNAME], l->name, sizeof(l->name));
	nl_get_str(t[IFLA_IFALIAS], l->alias, sizeof(l->alias));
	if (t[IFLA_LINKINFO]) {
		const struct nlattr *info[IFLA_INFO_KIND + 1];
		nl_parse(nl_data(t[IFLA_LINKINFO]), nl_len(t[IFLA_LINKINFO]), info, IFLA_INFO_KIND);
		nl_get_str(info[IFLA_INFO_KIND], l->kind, sizeof(l->kind));
	}
	if (nl_len(t[IFLA_STATS64]) >= offsetof(struct rtnl_link_stats64, multicast)) {
		memset(&s, 0, sizeof(s));
		memcpy(&s, nl_data(t[IFLA_STATS64]), offsetof(struct rtnl_link_stats64, multicast));
		l->rx_bytes = s.rx_bytes;
		l->rx_packets = s.rx_packets;
		l->rx_dropped = s.rx_dropped;
		l->tx_bytes = s.tx_bytes;
		l->tx_packets = s.tx_packets;
		l->tx_dropped = s.tx_dropped;
	}
}

static int take_link(const struct nlmsghdr *h, void *ctx)
{
	read_link(h, ctx);
	return 1;
}

int rtnl_get_link(int fd, const char *name, struct rtnl_link *out, struct cai_error *err)
{
	struct ifinfomsg m = {0};
	cleanup_batch struct nl_batch b = NL_BATCH;
	char what[64];
	nl_begin(&b, RTM_GETLINK, 0, &m, sizeof(m));
	nl_attr_str(&b, IFLA_IFNAME, name);
	nl_end(&b);
	memset(out, 0, sizeof(*out));
	snprintf(what, sizeof(what), "cannot find the link %s", name);
	if (nl_dump(fd, &b, take_link, out, err, what) < 0)
		return -1;
	return out->index ? 0 : cai_fail(err, ENODEV, "%s", what);
}

struct each_link {
	int (*fn)(const struct rtnl_link *l, void *ctx);
	void *ctx;
};

static int one_link(const struct nlmsghdr *h, void *ctx)
{
	const struct each_link *e = ctx;
	struct rtnl_link l;
	read_link(h, &l);
	return l.index ? e->fn(&l, e->ctx) : 0;
}

int rtnl_each_link(int fd, int (*fn)(const struct rtnl_link *l, void *ctx), void *ctx, struct cai_error *err)
{
	struct ifinfomsg m = {0};
	struct each_link e = {fn, ctx};
	cleanup_batch struct nl_batch b = NL_BATCH;
	nl_begin(&b, RTM_GETLINK, NLM_F_DUMP, &m, sizeof(m));
	nl_end(&b);
	return nl_dump(fd, &b, one_link, &e, err, "cannot list the network's links");
}

struct each_route {
	int (*fn)(const struct rtnl_route *r, void *ctx);
	void *ctx;
};

static void take_addr(const struct nlattr *a, uint8_t family, struct ip_addr *out)
{
	unsigned n = family == AF_INET ? 4 : 16;
	memset(out, 0, sizeof(*out));
	if (nl_len(a) < n)
		return;
	out->family = family;
	memcpy(out->b, nl_data(a), n);
}

static int one_route(const struct nlmsghdr *h, void *ctx)
{
	const struct each_route *e = ctx;
	const struct rtmsg *m = NLMSG_DATA(h);
	const struct nlattr *t[RTA_TABLE + 1];
	struct rtnl_route r = {0};
	if (h->nlmsg_type != RTM_NEWROUTE || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) ||
	    (m->rtm_family != AF_INET && m->rtm_family != AF_INET6))
		return 0;
	nl_parse((const uint8_t *)m + NLMSG_ALIGN(sizeof(*m)), h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), t,
		 RTA_TABLE);
	take_addr(t[RTA_DST], m->rtm_family, &r.dst);
	take_addr(t[RTA_GATEWAY], m->rtm_family, &r.gateway);
	r.prefix = m->rtm_dst_len;
	r.index = (int)nl_get_u32(t[RTA_OIF]);
	r.type = m->rtm_type;
	r.table = m->rtm_table;
	r.protocol = m->rtm_protocol;
	r.metric = nl_get_u32(t[RTA_PRIORITY]);
	return e->fn(&r, e->ctx);
}

int rtnl_each_route(int fd, int family, int (*fn)(const struct rtnl_route *r, void *ctx), void *ctx,
		    struct cai_error *err)
{
	struct rtmsg m = {.rtm_family = (uint8_t)family};
	struct each_route e = {fn, ctx};
	cleanup_batch struct nl_batch b = NL_BATCH;
	nl_begin(&b, RTM_GETROUTE, NLM_F_DUMP, &m, sizeof(m));
	nl_end(&b);
	return nl_dump(fd, &b, one_route, &e, err, "cannot list the network's routes");
}

struct each_addr {
	int (*fn)(const struct ip_addr *a, void *ctx);
	void *ctx;
};

static int one_addr(const struct nlmsghdr *h, void *ctx)
{
	const struct each_addr *e = ctx;
	const struct ifaddrmsg *m = NLMSG_DATA(h);
	const struct nlattr *t[IFA_LOCAL + 1];
	struct ip_addr a;
	if (h->nlmsg_type != RTM_NEWADDR || h->nlmsg_len < NLMSG_LENGTH(sizeof(*m)) ||
	    (m->ifa_family != AF_INET && m->ifa_family != AF_INET6))
		return 0;
	nl_parse((const uint8_t *)m + NLMSG_ALIGN(sizeof(*m)), h->nlmsg_len - NLMSG_LENGTH(sizeof(*m)), t,
		 IFA_LOCAL);
	/* On a point-to-point link IFA_ADDRESS is the other end. */
	take_addr(t[IFA_LOCAL] ? t[IFA_LOCAL] : t[IFA_ADDRESS], m->ifa_family, &a);
	return a.family ? e->fn(&a, e->ctx) : 0;
}

int rtnl_each_addr(int fd, int (*fn)(const struct ip_addr *a, void *ctx), void *ctx, struct cai_error *err)
{
	struct ifaddrmsg m = {.ifa_family = AF_UNSPEC};
	struct each_addr e = {fn, ctx};
	cleanup_batch struct nl_batch b = NL_BATCH;
	nl_begin(&b, RTM_GETADDR, NLM_F_DUMP, &m, sizeof(m));
	nl_end(&b);
	return nl_dump(fd, &b, one_addr, &e, err, "cannot list the host's addresses");
}
