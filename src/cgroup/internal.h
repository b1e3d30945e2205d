/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this folder; nobody else includes it. */
#ifndef CGROUP_INTERNAL_H
#define CGROUP_INTERNAL_H

#include <stddef.h>

#include "cgroup/cgroup.h"

#define CGROUP_PARENT  "caisson"

/* Where groups can be made: for each controller the directory under which caisson/ lies. */
struct cgroup_host {
	enum cgroup_layout layout;
	unsigned have;
	unsigned v2;          /* controllers that version 2 offers */
	bool no_permission;   /* there are hierarchies, but this user may not make groups in them */
	char *base[CGROUP_N]; /* owned; NULL where the controller is not in `have` */
};

int cgroup_host_find(struct cgroup_host *h);
void cgroup_host_free(struct cgroup_host *h);
/* Its first half: where which controllers are mounted, from a text like /proc/self/mountinfo, which is changed. *v2_bits: those that could be of
 * version 2, if that offers them. */
void cgroup_host_parse(struct cgroup_host *h, char *mountinfo, unsigned *v2_bits);
/* From a text like /proc/self/cgroup: the caller's own directory in the hierarchy of that controller ("": version 2), below base; NULL where
 * there is none. The caller frees it. */
char *cgroup_own_group(const char *own, const char *controller, const char *base);

/* Files of a group. Reads give the text NUL-terminated; -1 with errno. */
int cgroup_read_file(const char *dir, const char *name, char *text, size_t size);
int cgroup_write_file(const char *dir, const char *name, const char *text);
/* The number behind "key " at the start of a line of text; 0 where there is none. */
uint64_t cgroup_field(const char *text, const char *key);

const char *cgroup_controller_name(int bit);
/* On v1, a controller that was not needed until now: makes the group's directory there. 1 where it was there already. */
int cgroup_extend(const struct cgroup *cg, int bit, struct cai_error *err);
/* Calls fn for each process in the group; stops when fn returns nonzero. Returns how many there were, -1 with errno. */
int cgroup_each(const char *dir, int (*fn)(pid_t pid, void *arg), void *arg);
int cgroup_apply(const struct cgroup *cg, const struct cgroup_limits *limits, bool update, struct cai_error *err);

#endif
