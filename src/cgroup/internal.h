/* SPDX-License-Identifier: Apache-2.0 */
/* Shared by the files of this folder; nobody else includes it. */
#ifndef CGROUP_INTERNAL_H
#define CGROUP_INTERNAL_H

#include <stddef.h>

#include "cgroup/cgroup.h"

#define CGROUP_PARENT  "caisson"
#define CGROUP_CPU_BIT 1 /* index of CGROUP_CPU in cgroup.dir; the others follow from the enum likewise */

/* Where groups can be made: for each controller the directory under which caisson/ lies. */
struct cgroup_host {
	enum cgroup_layout layout;
	unsigned have;
	bool no_permission;   /* there are hierarchies, but this user may not make groups in them */
	char *base[CGROUP_N]; /* owned; NULL where the controller is not in `have` */
};

int cgroup_host_find(struct cgroup_host *h);
void cgroup_host_free(struct cgroup_host *h);
/* The same from given text of mountinfo and of /proc/self/cgroup, without touching the file system: for tests and the fuzzer. */
void cgroup_host_parse(struct cgroup_host *h, char *mountinfo, const char *own, unsigned *v2_bits);

/* Files of a group. Reads give the text NUL-terminated; -1 with errno. */
int cgroup_read_file(const char *dir, const char *name, char *text, size_t size);
int cgroup_write_file(const char *dir, const char *name, const char *text);
/* The number behind "key " at the start of a line of text; 0 where there is none. */
uint64_t cgroup_field(const char *text, const char *key);

const char *cgroup_controller_name(int bit);
/* On v1, a controller that was not needed until now: makes the group there and brings its processes in. */
int cgroup_extend(const struct cgroup *cg, int bit, char **dir, struct cai_error *err);
/* Calls fn for each process in the group; stops when fn returns nonzero. Returns how many there were, -1 with errno. */
int cgroup_each(const char *dir, int (*fn)(pid_t pid, void *arg), void *arg);
int cgroup_apply(struct cgroup *cg, const struct cgroup_limits *limits, bool update, struct cai_error *err);

#endif
