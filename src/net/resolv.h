/* SPDX-License-Identifier: Apache-2.0 */
/* The sandbox's /etc/resolv.conf and /etc/hosts: who answers its questions about names. */
#ifndef NET_RESOLV_H
#define NET_RESOLV_H

#include <stdbool.h>
#include <stddef.h>

#include "net/net.h"
#include "net/rtnl.h"

#define RESOLV_MAX 3 /* as many as the C library asks */

struct resolv {
	struct ip_addr server[RESOLV_MAX];
	size_t n_servers;
	bool direct;	   /* a sandbox can ask all of them itself */
	char search[512];  /* the words after "search", or "" */
	char options[256]; /* the words after "options", or "" */
};

/* Reads text (a resolv.conf). Lines that make no sense are passed over. */
void resolv_parse(const char *text, struct resolv *r);
/* What the request and the host's /etc/resolv.conf say together. Must be called in the host's namespace. */
void resolv_collect(const struct net_request *q, struct resolv *r);
/* An address that a sandbox cannot reach: loopback, link-local, one of the host's own. */
bool resolv_unreachable(const struct ip_addr *a);

/* Files, malloc'd; NULL without memory. server: "nameserver" lines instead of r's own, or NULL. */
char *resolv_text(const struct resolv *r, const char *server);
char *hosts_text(const struct net_request *q, const struct ip_addr *addr4, const struct ip_addr *addr6);

#endif
