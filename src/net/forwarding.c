/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * IPv4 decides by the interface that a packet came in on, so net.ipv4.ip_forward stays as it is and only
 * interfaces that have routes are turned on. If somebody turns on ip_forward for all, now or later, nothing
 * is left to be turned on, guarded or put back.
 *
 * IPv6 knew only one switch for the whole host until Linux 6.17 (force_forwarding), and turning that on makes
 * the host forget default routes that it learned from router advertisements. There it is turned on only when
 * there are none; else sandboxes have no way out over IPv6, and are told.
 */
#include "net/forwarding.h"

#include <linux/rtnetlink.h>
#include <stdio.h>
#include <string.h>

#include "net/netns.h"
#include "net/rtnl.h"
#include "net/rules.h"

const char forwarding_no_way6[] = "no way out over IPv6: this kernel would forget the host's default route "
				  "(sysctl net.ipv6.conf.all.forwarding=1 with accept_ra=2 on "
				  "the way out allows it)";

struct ways {
	char name[FORWARDING_MAX][IFNAMSIZ];
	size_t n;
	bool advertised; /* a route that a router advertisement brought */
};

static int add_way(const struct rtnl_route *r, void *ctx)
{
	struct ways *w = ctx;
	char name[IFNAMSIZ];
	if (r->type != RTN_UNICAST || r->table == RT_TABLE_LOCAL || r->index == 0)
		return 0;
	if (r->dst.family == AF_INET6 && r->dst.b[0] == 0xfe && (r->dst.b[1] & 0xc0) == 0x80)
		return 0;
	if (!if_indextoname((unsigned)r->index, name) || strcmp(name, "lo") == 0 ||
	    strcmp(name, HOST_LINK) == 0)
		return 0;
	w->advertised = w->advertised || r->protocol == RTPROT_RA;
	for (size_t k = 0; k < w->n; k++)
		if (strcmp(w->name[k], name) == 0)
			return 0;
	if (w->n < FORWARDING_MAX)
		memcpy(w->name[w->n++], name, sizeof(name));
	return 0;
}

static bool known(char (*names)[IFNAMSIZ], size_t n, const char *name)
{
	for (size_t k = 0; k < n; k++)
		if (strcmp(names[k], name) == 0)
			return true;
	return false;
}

/* Adds each way that has conf/NAME/KEY off. */
static bool add_ways(const struct ways *w, const char *family, const char *key, char (*on)[IFNAMSIZ],
		     size_t *n)
{
	bool changed = false;
	char path[96];
	for (size_t k = 0; k < w->n; k++) {
		snprintf(path, sizeof(path), "%s/conf/%s/%s", family, w->name[k], key);
		if (sysctl_read(path) != 0)
			continue;
		changed = true;
		if (*n < FORWARDING_MAX && !known(on, *n, w->name[k]))
			memcpy(on[(*n)++], w->name[k], IFNAMSIZ);
	}
	return changed;
}

static bool plan4(struct forwarding *f, int route_fd)
{
	struct ways w = {.n = 0};
	if (sysctl_read("ipv4/ip_forward") == 1) {
		bool changed = f->n4 != 0;
		f->n4 = 0;
		return changed;
	}
	rtnl_each_route(route_fd, AF_INET, add_way, &w, NULL);
	return add_ways(&w, "ipv4", "forwarding", f->on4, &f->n4);
}

static bool plan6(struct forwarding *f, int route_fd)
{
	struct ways w = {.n = 0};
	f->no_way6 = false;
	int all = sysctl_read("ipv6/conf/all/forwarding");
	if (all < 0)
		return false;
	if (all == 1) {
		/* Ours, or somebody else's since then: nothing to add either way. */
		bool changed = !f->all6 && f->n6 != 0;
		if (!f->all6)
			f->n6 = 0;
		return changed;
	}
	rtnl_each_route(route_fd, AF_INET6, add_way, &w, NULL);
	if (w.n == 0)
		return false;
	if (sysctl_read("ipv6/conf/all/force_forwarding") >= 0)
		return add_ways(&w, "ipv6", "force_forwarding", f->on6, &f->n6);
	if (w.advertised) {
		f->no_way6 = true;
		return false;
	}
	f->all6 = true;
	memcpy(f->on6, w.name, sizeof(w.name));
	f->n6 = w.n;
	return true;
}

bool forwarding_plan(struct forwarding *f, int route_fd)
{
	bool four = plan4(f, route_fd), six = plan6(f, route_fd);
	return four || six;
}

void forwarding_apply(const struct forwarding *f)
{
	char path[96];
	sysctl_write("ipv4/conf/" HOST_LINK "/forwarding", 1);
	for (size_t k = 0; k < f->n4; k++) {
		snprintf(path, sizeof(path), "ipv4/conf/%s/forwarding", f->on4[k]);
		sysctl_write(path, 1);
	}
	if (f->all6) {
		sysctl_write("ipv6/conf/all/forwarding", 1);
		return;
	}
	sysctl_write("ipv6/conf/" HOST_LINK "/force_forwarding", 1);
	for (size_t k = 0; k < f->n6; k++) {
		snprintf(path, sizeof(path), "ipv6/conf/%s/force_forwarding", f->on6[k]);
		sysctl_write(path, 1);
	}
}

void forwarding_restore(struct forwarding *f)
{
	char path[96];
	/* Whoever has turned it on for all since then wants it on. */
	if (sysctl_read("ipv4/ip_forward") == 0)
		for (size_t k = 0; k < f->n4; k++) {
			snprintf(path, sizeof(path), "ipv4/conf/%s/forwarding", f->on4[k]);
			sysctl_write(path, 0);
		}
	if (f->all6)
		sysctl_write("ipv6/conf/all/forwarding", 0);
	else
		for (size_t k = 0; k < f->n6; k++) {
			snprintf(path, sizeof(path), "ipv6/conf/%s/force_forwarding", f->on6[k]);
			sysctl_write(path, 0);
		}
	*f = (struct forwarding){.n4 = 0};
}
