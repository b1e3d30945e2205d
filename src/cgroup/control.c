/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Limits, statistics and freezing: which file of which version says what.
 *
 * Theory of operation: a group lies in v1 or in v2 for each controller on its own (hybrid hosts), so every function looks at the files that
 * are there. Memory means memory and swap together, so that a limit cannot be dodged by swapping: v1 has memsw for that, v2 is given no swap.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "cgroup/internal.h"

#define BIT_MEMORY  0
#define BIT_CPU     1
#define BIT_PIDS    2
#define BIT_FREEZER 3
#define BIT_CPUACCT 4

#define CPU_PERIOD_US 100000
#define CPU_MIN_US    1000
#define V1_UNLIMITED  (1ull << 60) /* v1 says "none" with the largest page-aligned number */
#define FREEZE_MS     2000

static bool exists(const char *dir, const char *name)
{
	char path[4096];
	return (size_t)snprintf(path, sizeof(path), "%s/%s", dir, name) < sizeof(path) && access(path, F_OK) == 0;
}

static int cannot(struct cai_error *err, const char *what, const char *value)
{
	return cai_fail_errno(err, errno, "cannot limit %s to %s", what, value);
}

static int set_memory(const char *dir, uint64_t bytes, struct cai_error *err)
{
	char v[24];
	snprintf(v, sizeof(v), "%llu", (unsigned long long)bytes);
	if (exists(dir, "memory.max")) {
		const char *value = bytes ? v : "max";
		if (cgroup_write_file(dir, "memory.max", value) < 0)
			return cannot(err, "memory", value);
		cgroup_write_file(dir, "memory.swap.max", bytes ? "0" : "max"); /* absent without swap accounting */
		return 0;
	}
	const char *value = bytes ? v : "-1";
	/* memsw may never be below the plain limit, so the order depends on the direction; try one, then the other. */
	if (cgroup_write_file(dir, "memory.limit_in_bytes", value) < 0) {
		cgroup_write_file(dir, "memory.memsw.limit_in_bytes", value);
		if (cgroup_write_file(dir, "memory.limit_in_bytes", value) < 0)
			return cannot(err, "memory", value);
	}
	if (exists(dir, "memory.memsw.limit_in_bytes") && cgroup_write_file(dir, "memory.memsw.limit_in_bytes", value) < 0 && errno != EOPNOTSUPP)
		return cannot(err, "memory with swap", value);
	return 0;
}

static int set_cpu(const char *dir, double cpus, struct cai_error *err)
{
	long long quota = (long long)(cpus * CPU_PERIOD_US);
	char v[64];
	if (quota < CPU_MIN_US && cpus > 0)
		quota = CPU_MIN_US;
	if (exists(dir, "cpu.max")) {
		if (cpus > 0)
			snprintf(v, sizeof(v), "%lld %d", quota, CPU_PERIOD_US);
		else
			snprintf(v, sizeof(v), "max %d", CPU_PERIOD_US);
		return cgroup_write_file(dir, "cpu.max", v) < 0 ? cannot(err, "CPU time", v) : 0;
	}
	snprintf(v, sizeof(v), "%lld", cpus > 0 ? quota : -1);
	return cgroup_write_file(dir, "cpu.cfs_quota_us", v) < 0 ? cannot(err, "CPU time", v) : 0;
}

static int set_pids(const char *dir, uint64_t pids, struct cai_error *err)
{
	char v[24] = "max";
	if (pids)
		snprintf(v, sizeof(v), "%llu", (unsigned long long)pids);
	return cgroup_write_file(dir, "pids.max", v) < 0 ? cannot(err, "the number of processes", v) : 0;
}

struct move_arg {
	const char *dir;
};

static int move_one(pid_t pid, void *arg)
{
	const struct move_arg *m = arg;
	char text[16];
	snprintf(text, sizeof(text), "%d", (int)pid);
	cgroup_write_file(m->dir, "cgroup.procs", text);
	return 0;
}

/* The directory for a controller, made now where it was not needed before. */
static const char *dir_for(const struct cgroup *cg, int bit, struct cai_error *err)
{
	int r = cg->have & (1u << bit) ? 1 : cgroup_extend(cg, bit, err);
	if (r < 0)
		return NULL;
	/* Twice: what was forked during the first pass is caught by the second, since its parent was moved by then. */
	for (int pass = 0; r == 0 && pass < 2; pass++)
		for (int i = 0; i < CGROUP_N; i++)
			if (i != bit && (cg->have & (1u << i))) {
				cgroup_each(cg->dir[i], move_one, &(struct move_arg){.dir = cg->dir[bit]});
				break;
			}
	return cg->dir[bit];
}

int cgroup_apply(const struct cgroup *cg, const struct cgroup_limits *limits, bool update, struct cai_error *err)
{
	struct {
		int bit;
		bool set;
	} todo[] = {{BIT_MEMORY, limits->memory != 0}, {BIT_CPU, limits->cpus > 0}, {BIT_PIDS, limits->pids != 0}};
	for (unsigned i = 0; i < sizeof(todo) / sizeof(todo[0]); i++) {
		/* "No limit" has to be written only over another one, where the group has the controller. */
		if (!todo[i].set && (!update || !cg->dir[todo[i].bit] || access(cg->dir[todo[i].bit], F_OK) < 0))
			continue;
		const char *dir = dir_for(cg, todo[i].bit, err);
		if (!dir)
			return -1;
		int r = todo[i].bit == BIT_MEMORY ? set_memory(dir, limits->memory, err)
			: todo[i].bit == BIT_CPU  ? set_cpu(dir, limits->cpus, err)
						  : set_pids(dir, limits->pids, err);
		if (r < 0)
			return -1;
	}
	return 0;
}

int cgroup_update(const struct cgroup *cg, const struct cgroup_limits *limits, struct cai_error *err)
{
	return cgroup_apply(cg, limits, true, err);
}

int cgroup_freeze(const struct cgroup *cg, bool frozen, struct cai_error *err)
{
	const char *dir = dir_for(cg, BIT_FREEZER, err);
	if (!dir)
		return -1;
	bool v2 = exists(dir, "cgroup.freeze");
	int r = cgroup_write_file(dir, v2 ? "cgroup.freeze" : "freezer.state", v2 ? (frozen ? "1" : "0") : (frozen ? "FROZEN" : "THAWED"));
	if (r < 0)
		cai_fail_errno(err, errno, "cannot %s %s", frozen ? "freeze" : "thaw", cg->id);
	for (int ms = 0; r == 0; ms++) {
		char text[256];
		if (cgroup_read_file(dir, v2 ? "cgroup.events" : "freezer.state", text, sizeof(text)) < 0) {
			r = cai_fail_errno(err, errno, "cannot read whether %s is frozen", cg->id);
			break;
		}
		if (v2 ? (cgroup_field(text, "frozen") == 1) == frozen : !strncmp(text, frozen ? "FROZEN" : "THAWED", 6))
			break;
		if (ms == FREEZE_MS) {
			cgroup_write_file(dir, v2 ? "cgroup.freeze" : "freezer.state", v2 ? "0" : "THAWED");
			r = cai_fail(err, ETIMEDOUT, "%s did not freeze within %d ms", cg->id, FREEZE_MS);
			break;
		}
		nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
	}
	return r;
}

static uint64_t number(const char *dir, const char *name)
{
	char text[64];
	if (!dir || cgroup_read_file(dir, name, text, sizeof(text)) < 0 || !strncmp(text, "max", 3))
		return 0;
	return strtoull(text, NULL, 10);
}

static uint64_t field(const char *dir, const char *file, const char *key)
{
	char text[8192];
	return dir && cgroup_read_file(dir, file, text, sizeof(text)) == 0 ? cgroup_field(text, key) : 0;
}

static void stat_memory(const char *dir, struct cgroup_stats *s)
{
	if (exists(dir, "memory.current")) {
		s->memory = number(dir, "memory.current");
		s->memory_peak = number(dir, "memory.peak");
		s->memory_limit = number(dir, "memory.max");
		s->memory_file = field(dir, "memory.stat", "file");
		s->oom_kills = field(dir, "memory.events", "oom_kill");
		return;
	}
	s->memory = number(dir, "memory.usage_in_bytes");
	s->memory_peak = number(dir, "memory.max_usage_in_bytes");
	s->memory_limit = number(dir, "memory.limit_in_bytes");
	if (s->memory_limit >= V1_UNLIMITED)
		s->memory_limit = 0;
	s->memory_file = field(dir, "memory.stat", "total_cache");
	s->oom_kills = field(dir, "memory.oom_control", "oom_kill");
}

int cgroup_stat(const struct cgroup *cg, struct cgroup_stats *s, struct cai_error *err)
{
	*s = (struct cgroup_stats){0};
	/* What exists now: an update may have added a controller since. */
	for (int i = 0; i < CGROUP_N; i++)
		if (cg->dir[i] && access(cg->dir[i], F_OK) == 0)
			s->have |= 1u << i;
	if (cg->have && !s->have)
		return cai_fail(err, ENOENT, "the control group of %s is gone", cg->id);
	if (s->have & CGROUP_MEMORY)
		stat_memory(cg->dir[BIT_MEMORY], s);
	if (s->have & CGROUP_CPUACCT) {
		const char *d = cg->dir[BIT_CPUACCT];
		s->cpu_ns = exists(d, "cpuacct.usage") ? number(d, "cpuacct.usage") : field(d, "cpu.stat", "usage_usec") * 1000;
	}
	if (s->have & CGROUP_CPU) {
		const char *d = cg->dir[BIT_CPU];
		s->throttled_ns = exists(d, "cpu.max") ? field(d, "cpu.stat", "throttled_usec") * 1000 : field(d, "cpu.stat", "throttled_time");
	}
	if (s->have & CGROUP_PIDS) {
		s->pids = number(cg->dir[BIT_PIDS], "pids.current");
		s->pids_limit = number(cg->dir[BIT_PIDS], "pids.max");
	}
	return 0;
}
