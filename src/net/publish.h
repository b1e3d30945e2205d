/* SPDX-License-Identifier: Apache-2.0 */
/* What a user writes about networks, parsed and checked. Nothing here touches the system. */
#ifndef NET_PUBLISH_H
#define NET_PUBLISH_H

#include "net/net.h"

/*
 * -p [ADDR:]HOST:GUEST[/tcp|/udp], -p GUEST, -p ADDR::GUEST (any free host port); HOST and GUEST may be
 * ranges of the same length (8000-8009:80-89); ADDR is an IPv4 address or [IPv6]. Appends to the malloc'd
 * array *list of *n.
 */
int net_publish_parse(const char *text, struct net_publish **list, size_t *n, struct cai_error *err);
/* "127.0.0.1:8080 -> 80/tcp"; "[::1]:53 -> 53/udp". */
void net_publish_format(const struct net_publish *p, char *text, size_t n);

int net_mac_parse(const char *text, uint8_t mac[6], struct cai_error *err); /* unicast only */
int net_dns_parse(const char *text, struct cai_error *err);		    /* an address */
int net_add_host_parse(const char *text, struct cai_error *err);	    /* NAME:ADDRESS, NAME=ADDRESS */
bool net_name_ok(const char *name);

#endif
