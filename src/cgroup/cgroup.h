/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Control groups of the host: one group a sandbox, on cgroup v2, on v1 and on hosts that mix both, without systemd.
 *
 * A group is named by an id (a sandbox's id, or any other name of [A-Za-z0-9_.-], at most CGROUP_ID_MAX characters) and lies at
 * caisson/ID, at the root of each hierarchy where that may be written, else below the caller's own group. Nothing
 * is kept in memory: cgroup_open() finds a group again by its id, from any process, after any crash.
 *
 * Which controllers a host offers differs. A limit that cannot be kept is an error from cgroup_create() that names the missing
 * controller; a host without any control groups fails only where a limit is asked for, and then every function is a harmless no-op
 * (`have` is 0). cgroup_missing() tells in one sentence what a host lacks, for `doctor` and `inspect`.
 */
#ifndef CGROUP_CGROUP_H
#define CGROUP_CGROUP_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#include "base/error.h"

#define CGROUP_ID_MAX 64

/* What can be limited or measured; bits of `have`. */
enum cgroup_controller {
	CGROUP_MEMORY = 1u << 0,
	CGROUP_CPU = 1u << 1,     /* quota */
	CGROUP_PIDS = 1u << 2,
	CGROUP_FREEZER = 1u << 3, /* pause, and a kill that nothing can outrun */
	CGROUP_CPUACCT = 1u << 4, /* CPU time used */
	CGROUP_ALL = (1u << 5) - 1,
};
#define CGROUP_N 5

enum cgroup_layout { CGROUP_NONE, CGROUP_V1, CGROUP_HYBRID, CGROUP_V2 };

/* Limits; 0 means none. */
struct cgroup_limits {
	uint64_t memory; /* bytes, of memory and (where the kernel accounts for it) swap together */
	double cpus;     /* 1.5: one and a half processors' time */
	uint64_t pids;   /* processes and threads */
};

struct cgroup_stats {
	unsigned have;                         /* which of the fields below mean something */
	uint64_t memory, memory_peak, memory_limit; /* bytes; peak 0 where the kernel does not keep it; limit 0: none */
	uint64_t memory_file;                  /* of `memory`: page cache */
	uint64_t oom_kills;                    /* processes that the kernel killed for memory in this group */
	uint64_t cpu_ns;                       /* CPU time used */
	uint64_t throttled_ns;                 /* time spent waiting for the quota */
	uint64_t pids, pids_limit;             /* limit 0: none */
};

/* A group: names only, no descriptor is held. */
struct cgroup {
	char id[CGROUP_ID_MAX + 1];
	enum cgroup_layout layout;
	unsigned have;       /* the controllers in which the group was made, or found by cgroup_open() */
	unsigned v2;         /* the controllers whose directory is one of cgroup v2 */
	char *dir[CGROUP_N]; /* by bit number: the group's absolute directory, also where it is not made yet; owned; on v2 all the same */
};

/* What the host offers: layout and the controllers in which groups can be made. Costs one read of /proc/self/mountinfo. */
enum cgroup_layout cgroup_probe(unsigned *have);
/* One sentence about what is missing (no controller, no permission), "" where all is there. */
void cgroup_missing(char *text, size_t size);

/* Makes the group with its limits, empty. An existing one of the same id is taken over (its processes are killed first). */
int cgroup_create(struct cgroup *cg, const char *id, const struct cgroup_limits *limits, struct cai_error *err);
/* Finds a group that exists; have is 0 where it does not. */
int cgroup_open(struct cgroup *cg, const char *id, struct cai_error *err);
/* Frees what the struct owns; the group stays. */
void cgroup_close(struct cgroup *cg);

/*
 * Getting a process in. Moving a running process can wait for an RCU grace period (10 ms and more); the two fast ways are
 * starting it there and letting it move itself:
 *  cgroup_clone_fd   an O_PATH descriptor for clone3(CLONE_INTO_CGROUP), or -1 (v1, or v2 without the need): the caller closes it.
 *  cgroup_enter_self moves the calling process (which must have one thread). On v2 after CLONE_INTO_CGROUP a no-op is enough.
 *  cgroup_add        moves another process.
 */
int cgroup_clone_fd(const struct cgroup *cg);
int cgroup_enter_self(const struct cgroup *cg, struct cai_error *err);
int cgroup_add(const struct cgroup *cg, pid_t pid, struct cai_error *err);

int cgroup_update(const struct cgroup *cg, const struct cgroup_limits *limits, struct cai_error *err);
int cgroup_freeze(const struct cgroup *cg, bool frozen, struct cai_error *err); /* returns when it is so */
int cgroup_stat(const struct cgroup *cg, struct cgroup_stats *out, struct cai_error *err);
/* Kills every process in the group, also frozen ones; returns when none is left (at most about 2 seconds). */
int cgroup_kill(const struct cgroup *cg, struct cai_error *err);
/* Kills and removes. A group that does not exist is no error. */
int cgroup_destroy(struct cgroup *cg, struct cai_error *err);

#endif
