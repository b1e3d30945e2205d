/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/quota.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/log.h"
#include "base/util.h"
#include "cgroup/cgroup.h"

#define OVERHEAD MIB(192) /* of a monitor: code cache, page tables charged to it, queues; far more than it is known to need */

struct quota {
	struct cgroup cg;
};

static struct cgroup_limits wanted(const struct sandbox_spec *s)
{
	return (struct cgroup_limits){.memory = s->memory + OVERHEAD, .cpus = s->cpu_milli / 1000.0};
}

struct quota *quota_new(const char *id, const struct sandbox_spec *spec, struct cai_error *err)
{
	struct quota *l = calloc(1, sizeof(*l));
	struct cgroup_limits w = wanted(spec);
	struct cai_error e = {0};
	if (!l) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (cgroup_create(&l->cg, id, &w, &e) == 0)
		return l;
	if (spec->cpu_milli) {
		cai_fail(err, e.errnum, "%s", e.text);
		free(l);
		return NULL;
	}
	log_debug("no control group for the monitor: %s", e.text);
	memset(&l->cg, 0, sizeof(l->cg));
	return l;
}

void quota_enter(void *limits)
{
	const struct quota *l = limits;
	if (l->cg.have)
		cgroup_enter_self(&l->cg, NULL);
}

bool quota_oom(const struct quota *l)
{
	struct cgroup_stats st;
	return l && l->cg.have && cgroup_stat(&l->cg, &st, NULL) == 0 && (st.have & CGROUP_MEMORY) && st.oom_kills > 0;
}

/* CPU time and resident memory of one process. */
static void process_stats(pid_t pid, json_t *into)
{
	char path[64];
	cleanup_free char *text = NULL;
	size_t n;
	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	if (file_read_all(path, 4096, &text, &n, NULL) < 0)
		return;
	const char *p = strrchr(text, ')');
	unsigned long long utime, stime;
	long rss;
	if (!p || sscanf(p + 1, " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %llu %llu %*d %*d %*d %*d %*d %*d %*u %*u %ld", &utime, &stime,
			 &rss) != 3)
		return;
	long hz = sysconf(_SC_CLK_TCK);
	json_object_set_new(into, "cpu_ns", json_integer((json_int_t)((utime + stime) * (1000000000ull / (unsigned long long)hz))));
	json_object_set_new(into, "memory", json_integer((json_int_t)rss * sysconf(_SC_PAGESIZE)));
}

void quota_stats(const struct quota *l, pid_t pid, json_t *into)
{
	struct cgroup_stats st = {0};
	process_stats(pid, into);
	if (!l || !l->cg.have || cgroup_stat(&l->cg, &st, NULL) < 0)
		return;
	if (st.have & CGROUP_CPUACCT)
		json_object_set_new(into, "cpu_ns", json_integer((json_int_t)st.cpu_ns));
	if (st.have & CGROUP_MEMORY)
		json_object_set_new(into, "memory", json_integer((json_int_t)st.memory));
	if (st.have & CGROUP_CPU)
		json_object_set_new(into, "throttled_ns", json_integer((json_int_t)st.throttled_ns));
}

int quota_update(const struct quota *l, const struct sandbox_spec *spec, struct cai_error *err)
{
	struct cgroup_limits w = wanted(spec);
	if (!l || !l->cg.have)
		return cai_fail(err, ENOTSUP, "this host has no control group for the sandbox, so its limits cannot be changed");
	return cgroup_update(&l->cg, &w, err);
}

void quota_free(struct quota *l)
{
	if (!l)
		return;
	if (l->cg.have)
		cgroup_destroy(&l->cg, NULL);
	cgroup_close(&l->cg);
	free(l);
}

void quota_heal(const char *id)
{
	struct cgroup cg;
	if (cgroup_open(&cg, id, NULL) < 0)
		return;
	if (cg.have)
		cgroup_destroy(&cg, NULL);
	cgroup_close(&cg);
}
