/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: net_setup puts the pieces together, in the order in which they can be undone: the
 * router, the link, the published ports with the helper that serves them, the files. What fails leaves
 * through net_teardown, which undoes whatever there is.
 */
#include "net/net.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/capability.h>
#include <linux/netlink.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "net/link.h"
#include "net/netns.h"
#include "net/networks.h"
#include "net/nft.h"
#include "net/private.h"
#include "net/publish.h"
#include "net/resolv.h"
#include "net/router.h"

#ifndef NS_GET_USERNS
#define NS_GET_USERNS _IO(0xb7, 0x1)
#endif

void net_init(struct net *n)
{
	memset(n, 0, sizeof(*n));
	for (unsigned k = 0; k < NET_MAX_QUEUES; k++)
		n->fd[k] = -1;
	n->netns_fd = -1;
}

void net_release_fds(struct net *n)
{
	for (unsigned k = 0; k < NET_MAX_QUEUES; k++) {
		if (n->fd[k] >= 0)
			close(n->fd[k]);
		n->fd[k] = -1;
	}
	n->n_fds = 0;
	if (n->netns_fd >= 0)
		close(n->netns_fd);
	n->netns_fd = -1;
}

/* How long the router is kept for the next sandbox: making it costs more than a sandbox's whole network. */
static unsigned linger_ms(void)
{
	const char *text = getenv("CAISSON_NET_LINGER_MS");
	unsigned long ms = text ? strtoul(text, NULL, 10) : 3000;
	return ms > 600000 ? 600000 : (unsigned)ms;
}

/* The keeper gets what takes time to be closed, too. */
static pid_t start_keeper(void *ctx, int ns_fd)
{
	struct net_private *p = ctx;
	unsigned ms = linger_ms(), n = p->n_taps;
	int fds[NET_MAX_QUEUES + 2];
	memcpy(fds, p->tap, n * sizeof(fds[0]));
	fds[n++] = p->router.nft_fd;
	fds[n++] = p->router.host_nft_fd;
	pid_t pid = ms ? helper_start_linger(p->libexec, ns_fd, ms, fds, n, NULL) : -1;
	if (pid > 0)
		p->taps_handed = true;
	return pid;
}

static void leave_router(struct net_private *p)
{
	router_leave_to(&p->router, start_keeper, p);
	if (p->n_taps && !p->taps_handed)
		helper_start_linger(p->libexec, -1, 0, p->tap, p->n_taps, NULL);
	for (unsigned k = 0; k < p->n_taps; k++)
		close(p->tap[k]);
}

void net_teardown(struct net *n)
{
	struct net_private *p = n->priv;
	net_release_fds(n);
	if (p) {
		helper_stop(&p->proxy);
		helper_stop(&p->names);
		helper_stop(&p->sieve);
		helper_stop(&p->outside);
		if (p->passt_fd >= 0)
			close(p->passt_fd);
		ports_free(&p->ports);
		link_close(&p->link);
		if (p->in_router)
			leave_router(p);
		free(p->libexec);
		free(p);
	}
	free(n->resolv_conf);
	free(n->hosts);
	free(n->publish);
	free(n->warning);
	net_init(n);
}

bool net_privileged(void)
{
	struct __user_cap_header_struct h = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct d[2] = {{0}};
	const uint32_t need = 1u << CAP_NET_ADMIN | 1u << CAP_SYS_ADMIN;
	struct stat owner, mine;
	if (syscall(SYS_capget, &h, d) < 0 || (d[0].effective & need) != need)
		return false;
	/* Capabilities count in one user namespace; the network may belong to another. */
	cleanup_close int net = netns_current(NULL);
	cleanup_close int user = net < 0 ? -1 : ioctl(net, NS_GET_USERNS);
	return user >= 0 && fstat(user, &owner) == 0 && stat("/proc/thread-self/ns/user", &mine) == 0 &&
	       owner.st_ino == mine.st_ino && owner.st_dev == mine.st_dev;
}

static int no_network(const struct net_request *q, struct net *n, struct cai_error *err)
{
	n->kind = NET_KIND_NONE;
	if (q->n_publish)
		return cai_fail(err, EINVAL, "a sandbox without a network cannot publish ports");
	n->resolv_conf = strdup("");
	n->hosts = hosts_text(q, NULL, NULL);
	return n->resolv_conf && n->hosts ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

static void describe_link(struct net *n, const struct router *r, const struct link *l, uint16_t mtu)
{
	char text[46];
	struct ip_addr gw = plan_addr4(&r->plan, PLAN_GATEWAY);
	memcpy(n->mac, l->mac, 6);
	n->mtu = mtu;
	ip_format(&l->addr4, text, sizeof(text));
	snprintf(n->addr[n->n_addrs++], sizeof(n->addr[0]), "%s/16", text);
	ip_format(&gw, n->gateway4, sizeof(n->gateway4));
	if (r->has6) {
		ip_format(&l->addr6, text, sizeof(text));
		snprintf(n->addr[n->n_addrs++], sizeof(n->addr[0]), "%s/128", text);
		snprintf(n->gateway6, sizeof(n->gateway6), "%s", ROUTER_GATEWAY6);
	}
}

static void hand_over(struct net *n, struct link *l, bool microvm)
{
	struct net_private *p = n->priv;
	for (unsigned k = 0; k < l->n_taps; k++) {
		int copy = fcntl(l->tap[k], F_DUPFD_CLOEXEC, 3);
		if (copy >= 0)
			p->tap[p->n_taps++] = copy;
	}
	n->kind = microvm ? NET_KIND_TAP : NET_KIND_NETNS;
	n->offloads = l->offloads;
	n->n_fds = l->n_taps;
	for (unsigned k = 0; k < l->n_taps; k++)
		n->fd[k] = steal_fd(&l->tap[k]);
	n->netns_fd = steal_fd(&l->netns_fd);
}

/* "ID NAME HOSTNAME": what members of a named network call it; read by the helper and by network_members. */
static void make_alias(const struct net_request *q, char *alias, size_t n)
{
	snprintf(alias, n, "%s %s %s", q->id, q->name ? q->name : "-", q->hostname ? q->hostname : "-");
}

/* Names are asked of the host's servers where the sandbox can reach them, else of the router. */
static int set_names(const struct net_request *q, struct net *n, const struct network *network,
		     struct cai_error *err)
{
	struct net_private *p = n->priv;
	struct resolv names;
	resolv_collect(q, &names);
	bool own = q->mode == NET_NAMED || !names.direct;
	if (own && helper_start_names(&p->names, q->libexec, &p->router, &p->link, network->group,
				      network->internal ? NULL : &names, err) < 0)
		return -1;
	/* A name without a dot may be a member's: it is asked for as it is, before the host's search list is
	 * tried. */
	if (q->mode == NET_NAMED && !(q->dns_option && q->dns_option[0]))
		snprintf(names.options, sizeof(names.options), "ndots:0");
	n->resolv_conf = resolv_text(&names, own ? n->gateway4 : NULL);
	n->hosts = hosts_text(q, &p->link.addr4, p->router.has6 ? &p->link.addr6 : NULL);
	return n->resolv_conf && n->hosts ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

static int set_ports(const struct net_request *q, struct net *n, struct ports *ports, struct cai_error *err)
{
	struct net_private *p = n->priv;
	if (ports->n == 0)
		return 0;
	if (helper_start_proxy(&p->proxy, q->libexec, &p->router, &p->link, ports, err) < 0)
		return -1;
	n->n_publish = ports->n;
	n->publish = steal_ptr(&ports->list);
	return 0;
}

static int through_router(const struct net_request *q, struct net *n, struct cai_error *err)
{
	struct net_private *p = n->priv;
	struct network network = {.group = GROUP_PRIVATE};
	struct link_request lq = {
	    .microvm = q->microvm, .queues = q->queues, .mac = q->have_mac ? q->mac : NULL};
	__attribute__((cleanup(ports_free))) struct ports ports = {.n = 0};
	char alias[200];

	if (q->mode == NET_NAMED && network_load(q->root_fd, q->network, &network, err) < 0)
		return -1;
	if (ports_bind(q->publish, q->n_publish, &ports, err) < 0)
		return -1;
	if (router_join(&p->router, err) < 0)
		return -1;
	p->in_router = true;
	if (network.group != GROUP_PRIVATE && rules_router_group(p->router.nft_fd, network.group, err) < 0)
		return -1;
	make_alias(q, alias, sizeof(alias));
	lq.alias = alias;
	lq.group = network.group;
	lq.mtu = q->mtu ? q->mtu : p->router.mtu;
	if (link_make(&p->router, &lq, &p->link, err) < 0)
		return -1;
	describe_link(n, &p->router, &p->link, lq.mtu);
	hand_over(n, &p->link, q->microvm);
	if (p->router.warning[0])
		n->warning = strdup(p->router.warning);
	if (set_names(q, n, &network, err) < 0)
		return -1;
	return set_ports(q, n, &ports, err);
}

static int report_ports(struct net *n, const struct ports *p, struct cai_error *err)
{
	if (p->n == 0)
		return 0;
	n->publish = malloc(p->n * sizeof(*n->publish));
	if (!n->publish)
		return cai_fail(err, ENOMEM, "out of memory");
	memcpy(n->publish, p->list, p->n * sizeof(*n->publish));
	n->n_publish = p->n;
	return 0;
}

/* The host's own addresses, as passt does it. */
static void describe_passt(const struct net_request *q, struct net *n)
{
	const struct passt_plan *plan = &n->priv->passt;
	static const uint8_t mac[6] = {0x02, 0xca, 0x15, 0x00, 0x01, 0x00};
	char text[46];
	memcpy(n->mac, q->have_mac ? q->mac : mac, 6);
	n->mtu = q->mtu ? q->mtu : 65520;
	if (plan->addr4.family) {
		ip_format(&plan->addr4, text, sizeof(text));
		snprintf(n->addr[n->n_addrs++], sizeof(n->addr[0]), "%s/%u", text, plan->prefix4);
		ip_format(&plan->gateway4, n->gateway4, sizeof(n->gateway4));
	}
	if (plan->addr6.family) {
		ip_format(&plan->addr6, text, sizeof(text));
		snprintf(n->addr[n->n_addrs++], sizeof(n->addr[0]), "%s/128", text);
		snprintf(n->gateway6, sizeof(n->gateway6), "%s", PASST_GATEWAY6);
	}
}

/* n->fd[0]: the monitor's end of a stream to the sieve. */
static int join_monitor(struct net *n, struct cai_error *err)
{
	struct net_private *p = n->priv;
	int pair[2];
	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
		return cai_fail_errno(err, errno, "cannot make a socket pair");
	cleanup_close int theirs = pair[1];
	n->kind = NET_KIND_STREAM;
	n->fd[0] = pair[0];
	n->n_fds = 1;
	if (passt_sieve(&p->sieve, p->libexec, &p->passt, p->forward_dns, false, theirs, p->passt_fd, err) <
	    0)
		return -1;
	close(steal_fd(&p->passt_fd));
	return 0;
}

static int without_root(const struct net_request *q, struct net *n, struct cai_error *err)
{
	struct net_private *p = n->priv;
	struct resolv names;
	if (q->mode == NET_NAMED)
		return cai_fail(err, EPERM,
				"named networks need root; without it a sandbox has a network of its own "
				"(passt), or none");
	if (passt_survey(&p->passt, err) < 0 || ports_bind(q->publish, q->n_publish, &p->ports, err) < 0 ||
	    report_ports(n, &p->ports, err) < 0)
		return -1;
	resolv_collect(q, &names);
	p->forward_dns = !names.direct;
	describe_passt(q, n);
	p->passt_fd = passt_start(&p->outside, &p->passt, &p->ports, p->forward_dns, err);
	if (p->passt_fd < 0 || (q->microvm && join_monitor(n, err) < 0))
		return -1;
	if (!q->microvm) {
		n->kind = NET_KIND_NETNS;
		n->attach_later = true;
	}
	n->resolv_conf = resolv_text(&names, p->forward_dns ? PASST_DNS : NULL);
	n->hosts = hosts_text(q, &p->passt.addr4, &p->passt.addr6);
	return n->resolv_conf && n->hosts ? 0 : cai_fail(err, ENOMEM, "out of memory");
}

int net_setup(const struct net_request *q, struct net *n, struct cai_error *err)
{
	int result;
	net_init(n);
	n->priv = calloc(1, sizeof(*n->priv));
	if (!n->priv)
		return cai_fail(err, ENOMEM, "out of memory");
	router_init(&n->priv->router);
	link_init(&n->priv->link);
	helper_init(&n->priv->proxy);
	helper_init(&n->priv->names);
	helper_init(&n->priv->outside);
	helper_init(&n->priv->sieve);
	n->priv->passt_fd = -1;
	n->priv->libexec = q->libexec ? strdup(q->libexec) : NULL;
	if (q->mode == NET_NONE)
		result = no_network(q, n, err);
	else if (net_privileged())
		result = through_router(q, n, err);
	else
		result = without_root(q, n, err);
	if (result < 0)
		net_teardown(n);
	return result;
}

int net_attach(struct net *n, pid_t pid, struct cai_error *err)
{
	struct net_private *p = n->priv;
	if (!n->attach_later)
		return 0;
	cleanup_close int tap = passt_make_tap(&p->passt, pid, n->mac, n->mtu, err);
	if (tap < 0 ||
	    passt_sieve(&p->sieve, p->libexec, &p->passt, p->forward_dns, true, tap, p->passt_fd, err) < 0)
		return -1;
	close(steal_fd(&p->passt_fd));
	n->attach_later = false;
	return 0;
}

int net_stats(struct net *n, struct net_counters *out, struct cai_error *err)
{
	struct rtnl_link l;
	memset(out, 0, sizeof(*out));
	if (!n->priv || !n->priv->in_router)
		return 0;
	if (rtnl_get_link(n->priv->router.route_fd, n->priv->link.name, &l, err) < 0)
		return -1;
	/* What the router sends is what the sandbox receives. */
	*out = (struct net_counters){.rx_bytes = l.tx_bytes,
				     .rx_packets = l.tx_packets,
				     .rx_dropped = l.tx_dropped,
				     .tx_bytes = l.rx_bytes,
				     .tx_packets = l.rx_packets,
				     .tx_dropped = l.rx_dropped};
	return 0;
}

int net_heal(int root_fd, struct cai_error *err)
{
	return net_privileged() ? router_heal(err) : 0;
}

int net_describe(char *text, size_t n)
{
	if (net_privileged()) {
		if (access("/dev/net/tun", R_OK | W_OK) < 0) {
			snprintf(text, n, "containers only: cannot open /dev/net/tun (%s)", strerror(errno));
			return -1;
		}
		cleanup_close int nft = nl_open(NETLINK_NETFILTER, NULL);
		if (nft < 0 || !nft_supported(nft)) {
			snprintf(text, n, "none: this kernel has no nf_tables");
			return -1;
		}
		snprintf(text, n, "private networks through a router namespace, nftables NAT");
		return 0;
	}
	if (!passt_program()) {
		snprintf(text, n, "none without root: Debian's package passt is missing");
		return -1;
	}
	snprintf(text, n, "private networks through passt; named networks need root");
	return 0;
}
