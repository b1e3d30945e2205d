/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * On v2 a group is one directory. On v1 it is one directory a hierarchy, and each costs some 200 us in its life, so only what
 * is asked for is made at the start (what is limited, and memory and cpuacct for the statistics); a later update or pause makes what it needs
 * then and brings the processes in.
 *
 * A process that is moved makes the kernel wait for an RCU grace period (14 ms measured), unless it moves itself by writing 0 to "tasks"
 * (v1) or is born in the group (v2, clone3): these two ways are the ones offered for starting something.
 *
 * Killing does not trust process ids: each is pinned with a pidfd and its membership read again before the signal is sent.
 */
#include "cgroup/cgroup.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/util.h"
#include "cgroup/internal.h"

#define KILL_TIMEOUT_MS 2000
#define MAX_DEPTH       8
#define BIT_FREEZER     3

static bool good_id(const char *id)
{
	size_t n = id ? strspn(id, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_.-") : 0;
	return n && n <= CGROUP_ID_MAX && !id[n] && id[0] != '.' && strncmp(id, "cgroup.", 7);
}

static void pause_ms(unsigned ms)
{
	struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = (long)(ms % 1000) * 1000000};
	nanosleep(&t, NULL);
}

/* The i-th directory is made, and the first of its name: on v2, and where v1 mounts two controllers together, several are one. */
static bool first_of(const struct cgroup *cg, int i, unsigned among)
{
	if (!cg->dir[i] || !(among & (1u << i)))
		return false;
	for (int j = 0; j < i; j++)
		if ((among & (1u << j)) && cg->dir[j] && !strcmp(cg->dir[j], cg->dir[i]))
			return false;
	return true;
}

/* Passes memory, cpu and pids on from a v2 directory to its children. Refusal shows later, by the files that are missing. */
static void v2_pass_on(const char *dir, unsigned have)
{
	static const char *const words[] = {"+memory", "+cpu", "+pids"};
	char now[256] = "";
	cgroup_read_file(dir, "cgroup.subtree_control", now, sizeof(now));
	for (unsigned i = 0; i < ARRAY_LEN(words); i++)
		if ((have & (1u << i)) && !strstr(now, words[i] + 1))
			cgroup_write_file(dir, "cgroup.subtree_control", words[i]);
}

/* Makes the directory of one controller. 1 where it is there already. */
static int make_dir(const struct cgroup *cg, int bit, struct cai_error *err)
{
	const char *dir = cg->dir[bit];
	if (mkdir(dir, 0755) == 0)
		return 0;
	if (errno == ENOENT) {
		/* The first sandbox since boot: BASE/caisson/ID. */
		cleanup_free char *parent = strdup(dir), *base = NULL;
		if (!parent || !strrchr(parent, '/'))
			return cai_fail_errno(err, ENOMEM, "cannot make a control group");
		*strrchr(parent, '/') = 0;
		base = strdup(parent);
		if (!base || !strrchr(base, '/'))
			return cai_fail_errno(err, ENOMEM, "cannot make a control group");
		*strrchr(base, '/') = 0;
		bool v2 = cg->v2 & (1u << bit);
		if (v2)
			v2_pass_on(base, cg->v2);
		if (mkdir(parent, 0755) < 0 && errno != EEXIST)
			return cai_fail_errno(err, errno, "cannot make the control group %s", parent);
		if (v2)
			v2_pass_on(parent, cg->v2);
		if (mkdir(dir, 0755) == 0)
			return 0;
	}
	return errno == EEXIST ? 1 : cai_fail_errno(err, errno, "cannot make the control group %s", dir);
}

int cgroup_extend(const struct cgroup *cg, int bit, struct cai_error *err)
{
	if (!cg->dir[bit])
		return cai_fail(err, ENOTSUP, "this host has no control groups of %s", cgroup_controller_name(bit));
	return make_dir(cg, bit, err);
}

/* Names where the group lies or would lie. *have: what the host offers. */
static int name_group(struct cgroup *cg, const char *id, unsigned *have, struct cai_error *err)
{
	*cg = (struct cgroup){.layout = CGROUP_NONE};
	if (!good_id(id))
		return cai_fail(err, EINVAL, "a control group cannot have the name \"%.80s\"", id ? id : "");
	struct cgroup_host h;
	if (cgroup_host_find(&h) < 0)
		return cai_fail_errno(err, errno, "cannot read /proc/self/mountinfo");
	snprintf(cg->id, sizeof(cg->id), "%s", id);
	cg->layout = h.layout;
	cg->v2 = h.v2;
	*have = h.have;
	int r = 0;
	for (int i = 0; i < CGROUP_N; i++)
		if (h.base[i] && asprintf(&cg->dir[i], "%s/" CGROUP_PARENT "/%s", h.base[i], id) < 0) {
			cg->dir[i] = NULL;
			r = cai_fail_errno(err, ENOMEM, "cannot name a control group");
		}
	cgroup_host_free(&h);
	if (r < 0)
		cgroup_close(cg);
	return r;
}

static int make_dirs(struct cgroup *cg, unsigned want, struct cai_error *err)
{
	for (int i = 0; i < CGROUP_N; i++) {
		if (!first_of(cg, i, want))
			continue;
		int r = make_dir(cg, i, err);
		if (r == 1) {
			/* One of this id is there: left by a crash. Its processes and its limits are not to be this one's. */
			struct cgroup old = {.layout = cg->layout, .have = 1u << i, .v2 = cg->v2};
			memcpy(old.id, cg->id, sizeof(old.id));
			old.dir[i] = strdup(cg->dir[i]);
			r = !old.dir[i] ? -1 : cgroup_destroy(&old, err);
			if (r == 0)
				r = make_dir(cg, i, err);
			if (r == 1)
				r = cai_fail(err, EBUSY, "the control group %s is in use", cg->dir[i]);
		}
		if (r < 0)
			return -1;
	}
	/* A directory brings all controllers that lie there: on v2 all. */
	for (int i = 0; i < CGROUP_N; i++)
		for (int j = 0; j < CGROUP_N; j++)
			if (cg->dir[i] && (want & (1u << j)) && cg->dir[j] && !strcmp(cg->dir[i], cg->dir[j]))
				cg->have |= 1u << i;
	return 0;
}

int cgroup_create(struct cgroup *cg, const char *id, const struct cgroup_limits *limits, struct cai_error *err)
{
	unsigned host;
	if (name_group(cg, id, &host, err) < 0)
		return -1;
	unsigned asked = (limits->memory ? CGROUP_MEMORY : 0) | (limits->cpus > 0 ? CGROUP_CPU : 0) | (limits->pids ? CGROUP_PIDS : 0);
	if (asked & ~host) {
		char text[300];
		cgroup_missing(text, sizeof(text));
		cgroup_close(cg);
		return cai_fail(err, ENOTSUP, "%s", *text ? text : "a limit that was asked for cannot be kept on this host");
	}
	if (make_dirs(cg, (asked | CGROUP_MEMORY | CGROUP_CPUACCT) & host, err) < 0 || (asked && cgroup_apply(cg, limits, false, err) < 0)) {
		cgroup_destroy(cg, NULL);
		return -1;
	}
	return 0;
}

int cgroup_open(struct cgroup *cg, const char *id, struct cai_error *err)
{
	unsigned host;
	if (name_group(cg, id, &host, err) < 0)
		return -1;
	for (int i = 0; i < CGROUP_N; i++)
		if (cg->dir[i] && access(cg->dir[i], F_OK) == 0)
			cg->have |= 1u << i;
	return 0;
}

void cgroup_close(struct cgroup *cg)
{
	for (int i = 0; i < CGROUP_N; i++)
		free(cg->dir[i]);
	*cg = (struct cgroup){.layout = CGROUP_NONE};
}

int cgroup_clone_fd(const struct cgroup *cg)
{
	/* Only where one directory is all of it can a process be born there. */
	if (cg->layout != CGROUP_V2)
		return -1;
	for (int i = 0; i < CGROUP_N; i++)
		if (first_of(cg, i, cg->have))
			return open(cg->dir[i], O_PATH | O_DIRECTORY | O_CLOEXEC);
	return -1;
}

int cgroup_enter_self(const struct cgroup *cg, struct cai_error *err)
{
	for (int i = 0; i < CGROUP_N; i++) {
		if (!first_of(cg, i, cg->have))
			continue;
		if (cgroup_write_file(cg->dir[i], cg->v2 & (1u << i) ? "cgroup.procs" : "tasks", "0") < 0)
			return cai_fail_errno(err, errno, "cannot enter the control group %s", cg->dir[i]);
	}
	return 0;
}

int cgroup_add(const struct cgroup *cg, pid_t pid, struct cai_error *err)
{
	char text[16];
	snprintf(text, sizeof(text), "%d", (int)pid);
	for (int i = 0; i < CGROUP_N; i++)
		if (first_of(cg, i, cg->have) && cgroup_write_file(cg->dir[i], "cgroup.procs", text) < 0)
			return cai_fail_errno(err, errno, "cannot put process %d into the control group %s", (int)pid, cg->dir[i]);
	return 0;
}

int cgroup_each(const char *dir, int (*fn)(pid_t pid, void *arg), void *arg)
{
	char path[4096];
	if ((size_t)snprintf(path, sizeof(path), "%s/cgroup.procs", dir) >= sizeof(path))
		return errno = ENAMETOOLONG, -1;
	cleanup_fclose FILE *f = fopen(path, "re");
	if (!f)
		return -1;
	int n = 0, pid;
	while (fscanf(f, "%d", &pid) == 1) {
		n++;
		if (pid > 0 && fn && fn(pid, arg))
			break;
	}
	return n;
}

struct kill_arg {
	const char *id;
};

static int kill_one(pid_t pid, void *arg)
{
	const struct kill_arg *k = arg;
	cleanup_close int fd = (int)syscall(SYS_pidfd_open, pid, 0);
	if (fd < 0)
		return 0;
	/* The process that the descriptor pins is still the group's? */
	char dir[32], text[8192], tail[CGROUP_ID_MAX + 16];
	snprintf(dir, sizeof(dir), "/proc/%d", (int)pid);
	snprintf(tail, sizeof(tail), "/" CGROUP_PARENT "/%s", k->id);
	if (cgroup_read_file(dir, "cgroup", text, sizeof(text)) < 0)
		return 0;
	char *at = strstr(text, tail);
	if (at && strchr("/\n", at[strlen(tail)]))
		syscall(SYS_pidfd_send_signal, fd, SIGKILL, NULL, 0);
	return 0;
}

int cgroup_kill(const struct cgroup *cg, struct cai_error *err)
{
	struct kill_arg k = {.id = cg->id};
	unsigned waited = 0, step = 1;
	for (int i = 0; i < CGROUP_N; i++)
		if (first_of(cg, i, CGROUP_ALL & cg->v2))
			cgroup_write_file(cg->dir[i], "cgroup.kill", "1"); /* v2 since 5.14; elsewhere there is no such file */
	for (;;) {
		int left = 0;
		for (int i = 0; i < CGROUP_N; i++) {
			int n = first_of(cg, i, CGROUP_ALL) ? cgroup_each(cg->dir[i], kill_one, &k) : 0;
			left += n > 0 ? n : 0;
		}
		if (!left)
			return 0;
		/* A frozen process of v1 dies only when it thaws; v2 kills it as it is. */
		if (cg->dir[BIT_FREEZER] && !(cg->v2 & CGROUP_FREEZER))
			cgroup_write_file(cg->dir[BIT_FREEZER], "freezer.state", "THAWED");
		if (waited >= KILL_TIMEOUT_MS)
			return cai_fail(err, EBUSY, "%d processes of %s do not end", left, cg->id);
		pause_ms(step);
		waited += step;
		step = step < 16 ? step * 2 : 16;
	}
}

/* Groups that were made inside go first. */
static int remove_tree(const char *dir, int depth)
{
	if (rmdir(dir) == 0 || errno == ENOENT)
		return 0;
	if (errno != EBUSY || depth >= MAX_DEPTH)
		return -1;
	cleanup_closedir DIR *d = opendir(dir);
	for (struct dirent *e; d && (e = readdir(d));) {
		char path[4096];
		if (e->d_type == DT_DIR && e->d_name[0] != '.' && (size_t)snprintf(path, sizeof(path), "%s/%s", dir, e->d_name) < sizeof(path))
			remove_tree(path, depth + 1);
	}
	return rmdir(dir) == 0 || errno == ENOENT ? 0 : -1;
}

int cgroup_destroy(struct cgroup *cg, struct cai_error *err)
{
	int r = 0;
	bool killed = false;
	/* All that could have been made, since an update or a pause may have added to it later. */
	for (int i = 0; i < CGROUP_N; i++) {
		if (!first_of(cg, i, CGROUP_ALL))
			continue;
		for (unsigned waited = 0, step = 1; remove_tree(cg->dir[i], 0) < 0; waited += step, step = step < 16 ? step * 2 : 16) {
			if (!killed && cgroup_kill(cg, err) < 0)
				r = -1;
			killed = true;
			if (waited > KILL_TIMEOUT_MS) {
				r = cai_fail_errno(err, errno, "cannot remove the control group %s", cg->dir[i]);
				break;
			}
			pause_ms(step);
		}
	}
	cgroup_close(cg);
	return r;
}
