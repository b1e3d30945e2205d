/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * Rules speak of kinds of links, never of one sandbox: "comes from a sandbox" is a link whose name starts
 * with cs; "is its own address" is a question to the routing table, which has one route for each address that
 * was given out, on that sandbox's link (fib saddr . iif); "is in the same named network" is a pair of equal
 * link groups. Links and routes vanish with their sandbox, so no rule has to.
 *
 * Two things are bounded for each sandbox because they are shared by all: connections that are tracked, and
 * requests that make the kernel remember a neighbour (its table is the host's own, even from another
 * namespace).
 *
 * The host's table is the wall in front of the host itself. It judges before anybody's destination NAT, so
 * that a port that other software publishes on the host's addresses is as closed as the host.
 */
#include "net/rules.h"

#include "net/nft.h"

#include <errno.h>
#include <linux/icmpv6.h>
#include <linux/if_arp.h>
#include <linux/netfilter_arp.h>
#include <linux/rtnetlink.h>
#include <netinet/ip_icmp.h>
#include <string.h>

#include "base/util.h"
#include "net/netns.h"

#define PRIO_RAW    (-300)
#define PRIO_GUARD  (-150) /* after connection tracking (-200), before destination NAT (-100) */
#define PRIO_FILTER (-10)
#define PRIO_SNAT   100

#define ND_SOLICIT   135
#define ND_ADVERTISE 136

enum {
	SET_MEMBERS = 1,
	SET_CONNS4,
	SET_CONNS6,
	SET_ND,
	SET_PING,
	SET_ARP,
	SET_ON4,
	SET_ON6,
	SET_HOST4,
	SET_HOST6
};

static struct ip_addr plan_addr(const struct ip_addr *pool, unsigned n)
{
	struct ip_addr a = *pool;
	unsigned last = ip_bytes(&a);
	a.b[last - 1] = (uint8_t)n;
	a.b[last - 2] = (uint8_t)(n >> 8);
	return a;
}

struct ip_addr plan_addr4(const struct net_plan *p, unsigned n)
{
	return plan_addr(&p->pool4, n);
}

struct ip_addr plan_addr6(const struct net_plan *p, unsigned n)
{
	return plan_addr(&p->pool6, n);
}

/* One rule: from (or to) a link, then a verdict. */
static void simple(struct nft *t, const char *chain, const char *in, const char *out, int verdict,
		   const char *to)
{
	nft_rule(t, chain);
	if (in)
		nft_iifname(t, in);
	if (out)
		nft_oifname(t, out);
	nft_verdict(t, verdict, to);
	nft_rule_end(t);
}

static void by_state(struct nft *t, const char *chain, const char *out, uint32_t states, int verdict)
{
	nft_rule(t, chain);
	if (out)
		nft_oifname(t, out);
	nft_ct_state(t, states);
	nft_verdict(t, verdict, NULL);
	nft_rule_end(t);
}

/* Refuses aloud, so that programs fail at once instead of waiting; but not without limit. */
static void reject_chain(struct nft *t)
{
	nft_chain(t, "refuse");
	nft_rule(t, "refuse");
	nft_limit(t, 200, 50, false);
	nft_reject(t, NFT_REJECT_ICMPX_UNREACH, NFT_REJECT_ICMPX_ADMIN_PROHIBITED);
	nft_rule_end(t);
	nft_rule(t, "refuse");
	nft_verdict(t, NF_DROP, NULL);
	nft_rule_end(t);
}

static void match_nd(struct nft *t)
{
	uint8_t from = ND_SOLICIT, to = ND_ADVERTISE;
	nft_nfproto(t, NFPROTO_IPV6);
	nft_l4proto(t, IPPROTO_ICMPV6);
	nft_payload(t, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
	nft_cmp(t, NFT_CMP_GTE, NFT_REG_1, &from, 1);
	nft_cmp(t, NFT_CMP_LTE, NFT_REG_1, &to, 1);
}

static void router_prerouting(struct nft *t)
{
	const uint32_t none = 0;
	nft_chain(t, "nd");
	nft_rule(t, "nd");
	nft_meta(t, NFT_META_IIF, NFT_REG_1);
	nft_each_limit(t, "nd_rate", SET_ND, NFT_REG_1, 20, 40);
	nft_verdict(t, NF_DROP, NULL);
	nft_rule_end(t);
	simple(t, "nd", NULL, NULL, NF_ACCEPT, NULL);

	nft_chain(t, "from_sandbox");
	nft_rule(t, "from_sandbox");
	match_nd(t);
	nft_verdict(t, NFT_GOTO, "nd");
	nft_rule_end(t);
	nft_rule(t, "from_sandbox");
	nft_fib(t, NFT_FIB_RESULT_OIF, NFTA_FIB_F_SADDR | NFTA_FIB_F_IIF, NFT_REG_1);
	nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, &none, 4);
	nft_verdict(t, NF_DROP, NULL);
	nft_rule_end(t);

	nft_base_chain(t, "prerouting", "filter", NF_INET_PRE_ROUTING, PRIO_RAW, NF_ACCEPT);
	simple(t, "prerouting", SANDBOX_PREFIX "*", NULL, NFT_JUMP, "from_sandbox");
}

static void accept_port(struct nft *t, const char *chain, uint8_t proto, uint16_t port)
{
	nft_rule(t, chain);
	nft_l4proto(t, proto);
	nft_dport(t, port);
	nft_verdict(t, NF_ACCEPT, NULL);
	nft_rule_end(t);
}

/* An echo request, within a limit for each sandbox. */
static void accept_ping(struct nft *t, uint8_t nfproto, uint8_t proto, uint8_t type)
{
	for (int over = 1; over >= 0; over--) {
		nft_rule(t, "to_router");
		nft_nfproto(t, nfproto);
		nft_l4proto(t, proto);
		nft_payload(t, NFT_PAYLOAD_TRANSPORT_HEADER, 0, 1, NFT_REG_1);
		nft_cmp(t, NFT_CMP_EQ, NFT_REG_1, &type, 1);
		if (over) {
			nft_meta(t, NFT_META_IIF, NFT_REG_1);
			nft_each_limit(t, "ping_rate", SET_PING, NFT_REG_1, 50, 50);
		}
		nft_verdict(t, over ? NF_DROP : NF_ACCEPT, NULL);
		nft_rule_end(t);
	}
}

static void router_input(struct nft *t)
{
	nft_chain(t, "to_router");
	nft_rule(t, "to_router");
	match_nd(t);
	nft_verdict(t, NF_ACCEPT, NULL);
	nft_rule_end(t);
	accept_ping(t, NFPROTO_IPV4, IPPROTO_ICMP, ICMP_ECHO);
	accept_ping(t, NFPROTO_IPV6, IPPROTO_ICMPV6, ICMPV6_ECHO_REQUEST);
	accept_port(t, "to_router", IPPROTO_UDP, 53);
	accept_port(t, "to_router", IPPROTO_TCP, 53);
	simple(t, "to_router", NULL, NULL, NFT_GOTO, "refuse");

	nft_base_chain(t, "input", "filter", NF_INET_LOCAL_IN, PRIO_FILTER, NF_DROP);
	simple(t, "input", "lo", NULL, NF_ACCEPT, NULL);
	by_state(t, "input", NULL, NFT_CT_ESTABLISHED | NFT_CT_RELATED, NF_ACCEPT);
	simple(t, "input", SANDBOX_PREFIX "*", NULL, NFT_GOTO, "to_router");
}

/* Destinations that answer a cloud machine, and only it, with its credentials. */
static void refuse_metadata(struct nft *t)
{
	static const struct {
		const char *addr;
		unsigned prefix;
	} services[] = {
	    {"169.254.0.0", 16},	 /* nearly everybody's */
	    {"100.100.100.200", 32},	 /* Alibaba */
	    {"192.0.0.192", 32},	 /* Oracle, first generation */
	    {"fd00:ec2::", 32},		 /* Amazon */
	    {"fd20:ce::254", 128},	 /* Google */
	    {"fd00:c1::a9fe:a9fe", 128}, /* Oracle */
	};
	for (size_t k = 0; k < ARRAY_LEN(services); k++) {
		struct ip_addr a;
		if (ip_parse(services[k].addr, &a) < 0)
			continue;
		nft_rule(t, "from_sandbox_to");
		if (a.family == AF_INET)
			nft_daddr4(t, a.b, services[k].prefix);
		else
			nft_daddr6(t, a.b, services[k].prefix);
		nft_verdict(t, NFT_GOTO, "refuse");
		nft_rule_end(t);
	}
}

static uint32_t max_connections(void)
{
	int all = sysctl_read("netfilter/nf_conntrack_max");
	uint32_t share = all > 0 ? (uint32_t)all / 64 : RULES_MAX_CONNS;
	return share < 256 ? 256 : share > RULES_MAX_CONNS ? RULES_MAX_CONNS : share;
}

static void limit_connections(struct nft *t, uint8_t nfproto, const char *set, uint32_t id)
{
	bool v4 = nfproto == NFPROTO_IPV4;
	nft_rule(t, "from_sandbox_to");
	nft_nfproto(t, nfproto);
	nft_payload(t, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 12 : 8, v4 ? 4 : 16, NFT_REG_1);
	nft_each_connlimit(t, set, id, NFT_REG_1, max_connections());
	nft_verdict(t, NF_DROP, NULL);
	nft_rule_end(t);
}

static void refuse_host(struct nft *t, uint8_t nfproto, const char *set, uint32_t id)
{
	bool v4 = nfproto == NFPROTO_IPV4;
	nft_rule(t, "from_sandbox_to");
	nft_nfproto(t, nfproto);
	nft_payload(t, NFT_PAYLOAD_NETWORK_HEADER, v4 ? 16 : 24, v4 ? 4 : 16, NFT_REG_1);
	nft_lookup(t, set, id, NFT_REG_1, false);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
}

static void router_forward(struct nft *t, const struct net_plan *p)
{
	const uint32_t internal = GROUP_INTERNAL, zero = 0;

	nft_chain(t, "from_sandbox_to");
	limit_connections(t, NFPROTO_IPV4, "conns4", SET_CONNS4);
	limit_connections(t, NFPROTO_IPV6, "conns6", SET_CONNS6);
	simple(t, "from_sandbox_to", NULL, SANDBOX_PREFIX "*", NF_ACCEPT,
	       NULL); /* members: see the forward chain */
	nft_rule(t, "from_sandbox_to");
	nft_meta(t, NFT_META_IIFGROUP, NFT_REG_1);
	nft_mask(t, NFT_REG_1, &internal, 4);
	nft_cmp(t, NFT_CMP_NEQ, NFT_REG_1, &zero, 4);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
	/* An address of the pool that no sandbox has is nobody's, not somebody's outside. */
	nft_rule(t, "from_sandbox_to");
	nft_daddr4(t, p->pool4.b, 16);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
	nft_rule(t, "from_sandbox_to");
	nft_daddr6(t, p->pool6.b, 64);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
	refuse_host(t, NFPROTO_IPV4, "host4", SET_HOST4);
	refuse_host(t, NFPROTO_IPV6, "host6", SET_HOST6);
	refuse_metadata(t);
	simple(t, "from_sandbox_to", NULL, NULL, NF_ACCEPT, NULL);

	nft_base_chain(t, "forward", "filter", NF_INET_FORWARD, PRIO_FILTER, NF_DROP);
	/*
	 * Between sandboxes before any question of state: an ICMP error that one forges about a connection of
	 * another is "related", too. What is not tracked (neighbour discovery) would not be translated
	 * either, and is for one link anyway.
	 */
	nft_rule(t, "forward");
	nft_iifname(t, SANDBOX_PREFIX "*");
	nft_oifname(t, SANDBOX_PREFIX "*");
	nft_meta(t, NFT_META_IIFGROUP, NFT_REG32_00);
	nft_meta(t, NFT_META_OIFGROUP, NFT_REG32_01);
	nft_lookup(t, "members", SET_MEMBERS, NFT_REG32_00, true);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
	by_state(t, "forward", NULL, NFT_CT_INVALID | NFT_CT_UNTRACKED, NF_DROP);
	by_state(t, "forward", NULL, NFT_CT_ESTABLISHED | NFT_CT_RELATED, NF_ACCEPT);
	simple(t, "forward", SANDBOX_PREFIX "*", NULL, NFT_GOTO, "from_sandbox_to");
}

int rules_router(int nft_fd, const struct net_plan *p, struct cai_error *err)
{
	const uint32_t dynamic = NFT_SET_EVAL | NFT_SET_TIMEOUT;
	cleanup_nft struct nft t;

	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	nft_table(&t, 0);
	nft_set(&t, "members", SET_MEMBERS, 8, 0, 0, 0);
	nft_set(&t, "conns4", SET_CONNS4, 4, NFT_SET_EVAL, 0x10000, 0);
	nft_set(&t, "conns6", SET_CONNS6, 16, NFT_SET_EVAL, 0x10000, 0);
	nft_set(&t, "host4", SET_HOST4, 4, 0, 0, 0);
	nft_set(&t, "host6", SET_HOST6, 16, 0, 0, 0);
	nft_set(&t, "nd_rate", SET_ND, 4, dynamic, 0x10000, 60000);
	nft_set(&t, "ping_rate", SET_PING, 4, dynamic, 0x10000, 60000);
	reject_chain(&t);
	router_prerouting(&t);
	router_input(&t);
	router_forward(&t, p);

	/* The router itself speaks to sandboxes (its helpers do), and to the outside only in answer. */
	nft_base_chain(&t, "output", "filter", NF_INET_LOCAL_OUT, PRIO_FILTER, NF_ACCEPT);
	by_state(&t, "output", UP_LINK, NFT_CT_NEW, NF_DROP);

	nft_base_chain(&t, "postrouting", "nat", NF_INET_POST_ROUTING, PRIO_SNAT, NF_ACCEPT);
	nft_rule(&t, "postrouting");
	nft_oifname(&t, UP_LINK);
	nft_masquerade(&t);
	nft_rule_end(&t);

	nft_switch(&t, NFPROTO_ARP, RULES_TABLE);
	nft_table(&t, 0);
	nft_set(&t, "arp_rate", SET_ARP, 4, dynamic, 0x10000, 60000);
	nft_base_chain(&t, "input", "filter", NF_ARP_IN, 0, NF_ACCEPT);
	nft_rule(&t, "input");
	nft_meta(&t, NFT_META_IIF, NFT_REG_1);
	nft_each_limit(&t, "arp_rate", SET_ARP, NFT_REG_1, 20, 40);
	nft_verdict(&t, NF_DROP, NULL);
	nft_rule_end(&t);
	return nft_commit(&t, nft_fd, err, "cannot set the rules of the sandboxes' router");
}

int rules_router_hosts(int nft_fd, const struct ip_addr *list, size_t n, struct cai_error *err)
{
	cleanup_nft struct nft t;
	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	nft_flush_set(&t, "host4");
	nft_flush_set(&t, "host6");
	for (size_t k = 0; k < n; k++)
		nft_elements(&t, list[k].family == AF_INET ? "host4" : "host6", 0, list[k].b,
			     ip_bytes(&list[k]), 1);
	return nft_commit(&t, nft_fd, err, "cannot tell the sandboxes' router the host's addresses");
}

int rules_router_group(int nft_fd, uint32_t group, struct cai_error *err)
{
	const uint32_t pair[2] = {group, group};
	cleanup_nft struct nft t;
	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	nft_elements(&t, "members", 0, pair, sizeof(pair), 1);
	return nft_commit(&t, nft_fd, err, "cannot add the network to the sandboxes' router");
}

static void host_prerouting(struct nft *t)
{
	const uint32_t first = RTN_LOCAL, last = RTN_MULTICAST;
	nft_base_chain(t, "prerouting", "filter", NF_INET_PRE_ROUTING, PRIO_GUARD, NF_ACCEPT);
	/* local, broadcast, anycast, multicast: one byte of a little-endian number decides */
	nft_rule(t, "prerouting");
	nft_iifname(t, HOST_LINK);
	nft_fib(t, NFT_FIB_RESULT_ADDRTYPE, NFTA_FIB_F_DADDR, NFT_REG_1);
	nft_cmp(t, NFT_CMP_GTE, NFT_REG_1, &first, 4);
	nft_cmp(t, NFT_CMP_LTE, NFT_REG_1, &last, 4);
	nft_verdict(t, NFT_GOTO, "refuse");
	nft_rule_end(t);
}

static void guard(struct nft *t, uint8_t family, const char *set, uint32_t id, char (*names)[IFNAMSIZ],
		  size_t n)
{
	nft_set(t, set, id, IFNAMSIZ, 0, 0, 0);
	if (n == 0)
		return;
	nft_elements(t, set, id, names, IFNAMSIZ, n);
	nft_rule(t, "forward");
	nft_nfproto(t, family);
	nft_meta(t, NFT_META_IIFNAME, NFT_REG_1);
	nft_lookup(t, set, id, NFT_REG_1, false);
	nft_meta(t, NFT_META_OIFNAME, NFT_REG_1);
	nft_lookup(t, set, id, NFT_REG_1, false);
	nft_verdict(t, NF_DROP, NULL);
	nft_rule_end(t);
}

static void host_postrouting(struct nft *t, const struct net_plan *p)
{
	struct ip_addr up4 = plan_addr4(p, PLAN_UP_END), up6 = plan_addr6(p, PLAN_UP_END);
	nft_base_chain(t, "postrouting", "nat", NF_INET_POST_ROUTING, PRIO_SNAT, NF_ACCEPT);
	nft_rule(t, "postrouting");
	nft_saddr4(t, up4.b, 32);
	nft_not_oifname(t, HOST_LINK);
	nft_masquerade(t);
	nft_rule_end(t);
	nft_rule(t, "postrouting");
	nft_saddr6(t, up6.b, 128);
	nft_not_oifname(t, HOST_LINK);
	nft_masquerade(t);
	nft_rule_end(t);
}

bool rules_host_present(int nft_fd)
{
	return nft_table_exists(nft_fd, NFPROTO_INET, RULES_TABLE);
}

int rules_host(int nft_fd, const struct net_plan *p, const struct rules_guard *g, struct cai_error *err)
{
	cleanup_nft struct nft t;

	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	if (rules_host_present(nft_fd))
		nft_del_table(&t);
	nft_table(&t, 0);
	reject_chain(&t);
	host_prerouting(&t);

	nft_base_chain(&t, "input", "filter", NF_INET_LOCAL_IN, PRIO_FILTER, NF_ACCEPT);
	simple(&t, "input", HOST_LINK, NULL, NF_DROP, NULL);

	nft_base_chain(&t, "forward", "filter", NF_INET_FORWARD, PRIO_FILTER, NF_ACCEPT);
	simple(&t, "forward", HOST_LINK, HOST_LINK, NF_DROP, NULL);
	simple(&t, "forward", HOST_LINK, NULL, NF_ACCEPT, NULL);
	by_state(&t, "forward", HOST_LINK, NFT_CT_ESTABLISHED | NFT_CT_RELATED, NF_ACCEPT);
	simple(&t, "forward", NULL, HOST_LINK, NF_DROP, NULL);
	guard(&t, NFPROTO_IPV4, "on4", SET_ON4, g->on4, g->n4);
	guard(&t, NFPROTO_IPV6, "on6", SET_ON6, g->on6, g->n6);
	host_postrouting(&t, p);
	return nft_commit(&t, nft_fd, err, "cannot set the host's rules for sandboxes");
}

int rules_host_remove(int nft_fd, struct cai_error *err)
{
	cleanup_nft struct nft t;
	nft_begin(&t, NFPROTO_INET, RULES_TABLE);
	nft_table(&t, 0);
	nft_del_table(&t);
	return nft_commit(&t, nft_fd, err, "cannot remove the host's rules for sandboxes");
}
