/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What is known about the router between commands: /run/caisson/net-<host namespace>/state, read and written
 * under a lock. /run is empty after a boot, as is everything that the file speaks of.
 */
#ifndef NET_ROSTER_H
#define NET_ROSTER_H

#include <sys/types.h>

#include "net/forwarding.h"
#include "net/rules.h"

struct roster_user {
	pid_t pid;
	unsigned long long start; /* when the process started: pids are used again */
	int fd;			  /* its descriptor of the router's namespace */
};

struct roster {
	int lock_fd, dir_fd;
	bool exists;	 /* a state was found (or has been made) */
	uint64_t ns_ino; /* the router's namespace */
	struct net_plan plan;
	struct forwarding forwarding;
	uint64_t host_addrs; /* a hash of the host's addresses that the router knows */
	struct roster_user *user;
	size_t n_users;
};

/* Takes the lock and reads the state. host_ns: names the host's namespace. Waits for others, who hold it for
 * milliseconds. */
int roster_open(struct roster *s, int host_ns, struct cai_error *err);
void roster_close(struct roster *s); /* gives the lock back; saves nothing */
int roster_save(struct roster *s, struct cai_error *err);
int roster_add(struct roster *s, pid_t pid, int ns_fd, struct cai_error *err);
uint64_t roster_age_ms(const struct roster *s); /* since the last change */
void roster_drop_self(struct roster *s, int ns_fd);
/* Strikes off dead users; returns a descriptor of the namespace that a live one holds, or -1. */
int roster_find_namespace(struct roster *s);
/* Whether any user lives; looks no further than the first. */
bool roster_in_use(const struct roster *s);
/* Forgets all: there is no router any more. */
void roster_clear(struct roster *s);

#endif
