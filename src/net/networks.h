/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Named networks: ROOT/networks/NAME.json, one small file each, written atomically. Members are not in the
 * file: they are the links that exist. Safe under concurrent commands.
 */
#ifndef NET_NETWORKS_H
#define NET_NETWORKS_H

#include <stdbool.h>
#include <stdint.h>

#include "net/net.h"

struct network {
	char name[NET_NAME_MAX + 1];
	char id[33];	  /* random, hexadecimal */
	uint32_t group;	  /* the link group of its members */
	bool internal;	  /* no way out: members reach each other only */
	uint64_t created; /* seconds since 1970 */
};
struct network_member {
	char id[80], name[80];
	char addr4[16], addr6[46];
};

int network_create(int root_fd, const char *name, bool internal, struct network *out,
		   struct cai_error *err);						     /* EEXIST */
int network_load(int root_fd, const char *name, struct network *out, struct cai_error *err); /* ENOENT */
/* Refused (EBUSY) while it has members. */
int network_remove(int root_fd, const char *name, struct cai_error *err);
/* Sorted by name; *list is malloc'd. */
int network_list(int root_fd, struct network **list, size_t *n, struct cai_error *err);
int network_members(const struct network *net, struct network_member **list, size_t *n,
		    struct cai_error *err);

#endif
