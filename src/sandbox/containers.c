/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the engine that is a container. src/container makes it; its PID 1 is the agent, which listens on agent.sock
 * itself, so the connection needs no monitor in between. The container dies with this process: the kernel sees to it.
 */
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "container/container.h"
#include "sandbox/engine.h"
#include "sandbox/paths.h"

struct box {
	struct engine_base base;
	struct loop *loop;
	const struct sandbox_plan *plan;
	struct engine_hooks hooks;
	struct container c;
	struct loop_source *w_pid;
	int stream; /* to the agent; -1 once taken */
	struct net *net;
	bool ended, reaped;
	int status;
};

static struct box *box(struct engine *e)
{
	return (struct box *)e;
}

static void on_pid(void *ctx, uint32_t events)
{
	struct box *b = ctx;
	loop_del(b->w_pid);
	b->w_pid = NULL;
	b->ended = true;
	if (container_wait(&b->c, 0, &b->status, NULL) == 1)
		b->reaped = true;
	b->hooks.gone(b->hooks.ctx);
}

/* The volumes and memory file systems of the spec. Paths are resolved here, as the user wrote them; *n says how many. */
static int mounts(const struct sandbox_spec *s, struct container_mount *m, char **owned, unsigned *n, struct cai_error *err)
{
	unsigned k = 0, o = 0;
	for (char *const *t = s->volumes; t && *t; t++) {
		struct spec_volume v;
		if (spec_parse_volume(*t, &v, err) < 0)
			return -1;
		char *source = realpath(v.source, NULL), *target = strdup(v.target);
		if (!source && errno == ENOENT && make_dirs(v.source, 0755) == 0) /* as docker does */
			source = realpath(v.source, NULL);
		owned[o++] = source;
		owned[o++] = target;
		if (!source || !target)
			return cai_fail_errno(err, errno, "-v %s", *t);
		m[k++] = (struct container_mount){.kind = CONTAINER_BIND, .source = source, .target = target, .readonly = v.read_only};
	}
	for (char *const *t = s->tmpfs; t && *t; t++) {
		char *target = strdup(*t), *options = target ? strchr(target, ':') : NULL;
		owned[o++] = target;
		if (!target)
			return cai_fail(err, ENOMEM, "out of memory");
		if (options)
			*options++ = 0;
		m[k++] = (struct container_mount){.kind = CONTAINER_TMPFS, .target = target, .options = options};
	}
	/* The image's VOLUMEs are directories of the writable layer, and of a read-only root memory. */
	for (char *const *t = s->anon; t && *t && k < SPEC_MAX_MOUNTS; t++)
		m[k++] = (struct container_mount){.kind = s->read_only ? CONTAINER_TMPFS : CONTAINER_DIRECTORY, .target = *t};
	*n = k;
	return 0;
}

/*
 * The image as a directory, for a user who may not mount EROFS: ROOT/unpacked/NAME, made at its first use. Files have a name that changes
 * when they do.
 */
static char *unpacked(const struct sandbox_plan *p, struct cai_error *err)
{
	const char *hex = p->spec->image_id ? strchr(p->spec->image_id, ':') : NULL;
	char *dir = NULL;
	struct stat st;
	if (fstat(p->root.fd, &st) < 0 || (mkdirat(p->store.root_fd, "unpacked", 0711) < 0 && errno != EEXIST)) {
		cai_fail_errno(err, errno, "cannot make %s/unpacked", p->store.root);
		return NULL;
	}
	int n = hex ? asprintf(&dir, "%s/unpacked/%s", p->store.root, hex + 1)
		    : asprintf(&dir, "%s/unpacked/file-%lx-%lx-%llx", p->store.root, (unsigned long)st.st_dev, (unsigned long)st.st_ino,
			       (unsigned long long)st.st_mtim.tv_sec * 1000000000ull + (unsigned long long)st.st_mtim.tv_nsec);
	if (n < 0) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (access(dir, F_OK) == 0 || container_unpack(p->root.fd, dir, err) == 0)
		return dir;
	free(dir);
	return NULL;
}

static int launch(struct box *b, struct sandbox_dir *dir, struct cai_error *err)
{
	const struct sandbox_spec *s = b->plan->spec;
	struct container_mount m[SPEC_MAX_MOUNTS];
	char *owned[SPEC_MAX_MOUNTS * 2] = {0};
	cleanup_free char *upper = path_join(dir->path, "upper"), *root = NULL;
	cleanup_close int sock = sandbox_dir_listen(dir, "agent.sock", SOCK_STREAM, err);
	if (!upper || sock < 0)
		return -1;
	struct stat st;
	bool in_dir = s->rootfs && !s->image_id && stat(s->rootfs, &st) == 0 && S_ISDIR(st.st_mode);
	if (in_dir && !(root = realpath(s->rootfs, NULL)))
		return cai_fail_errno(err, errno, "cannot open the root file system %s", s->rootfs);
	if (!in_dir && geteuid() != 0 && !(root = unpacked(b->plan, err)))
		return -1;
	bool keep = !s->ephemeral && !s->read_only;
	if (keep && mkdirat(dir->dir_fd, "upper", 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make %s", upper);
	struct container_spec c = {
		.id = dir->id,
		.hostname = s->hostname ? s->hostname : s->name,
		.image_fd = root ? -1 : b->plan->root.fd,
		.rootfs_dir = root,
		.upper_dir = keep ? upper : NULL,
		.discard = s->remove,
		.read_only = s->read_only,
		.mounts = m,
		.netns_fd = b->net ? b->net->netns_fd : -1,
		.resolv_conf = b->net ? b->net->resolv_conf : NULL,
		.hosts = b->net ? b->net->hosts : NULL,
		.limits = {.memory = s->memory, .cpus = s->cpu_milli / 1000.0, .pids = s->pids},
		.agent_fd = b->plan->agent,
		.listen_fd = sock,
	};
	int r = mounts(s, m, owned, &c.n_mounts, err);
	if (r == 0 && (b->stream = sandbox_dir_connect(dir, "agent.sock", SOCK_STREAM, err)) < 0)
		r = -1;
	if (r == 0)
		r = container_start(&c, &b->c, err);
	for (unsigned i = 0; i < SPEC_MAX_MOUNTS * 2; i++)
		free(owned[i]);
	return r;
}

static void free_box(struct engine *e)
{
	struct box *b = box(e);
	if (!b)
		return;
	if (b->stream >= 0)
		close(b->stream);
	loop_del(b->w_pid);
	container_destroy(&b->c, NULL);
	free(b);
}

static struct engine *start(struct loop *l, const struct sandbox_plan *p, struct sandbox_dir *dir, struct net *net,
			    const struct engine_hooks *h, struct cai_error *err)
{
	struct box *b = calloc(1, sizeof(*b));
	if (!b) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	*b = (struct box){.base.ops = &engine_container, .loop = l, .plan = p, .hooks = *h, .net = net, .c.pidfd = -1, .stream = -1};
	if (launch(b, dir, err) < 0 || (net && net->attach_later && net_attach(net, b->c.pid, err) < 0) ||
	    !(b->w_pid = loop_add_fd(l, b->c.pidfd, EPOLLIN, on_pid, b, err))) {
		free_box((struct engine *)b);
		return NULL;
	}
	return (struct engine *)b;
}

static bool over(struct engine *e)
{
	return box(e)->ended;
}

static bool booted(struct engine *e)
{
	return true;
}

static bool oom(struct engine *e)
{
	struct cgroup_stats st;
	return container_stats(&box(e)->c, &st, NULL) == 0 && (st.have & CGROUP_MEMORY) && st.oom_kills > 0;
}

static bool explain(struct engine *e, char *why, size_t n)
{
	struct box *b = box(e);
	int st = b->status;
	if (oom(e))
		snprintf(why, n, "the sandbox ran out of memory");
	else if (b->reaped && WIFSIGNALED(st))
		snprintf(why, n, "the container was killed by signal %d (%s)", WTERMSIG(st), strsignal(WTERMSIG(st)));
	else
		snprintf(why, n, "the container ended before the command had");
	return false;
}

static const char *console_tail(struct engine *e)
{
	return "";
}

static int take_stream(struct engine *e)
{
	return steal_fd(&box(e)->stream);
}

static pid_t get_pid(struct engine *e)
{
	return box(e)->c.pid;
}

static void about(struct engine *e, uint64_t *start_time, const char **note)
{
	*start_time = box(e)->c.start_time;
	*note = box(e)->c.note;
}

static int pause_box(struct engine *e, struct cai_error *err)
{
	return container_freeze(&box(e)->c, err);
}

static int resume_box(struct engine *e, struct cai_error *err)
{
	return container_thaw(&box(e)->c, err);
}

static int stats(struct engine *e, json_t *o, struct cai_error *err)
{
	struct box *b = box(e);
	struct cgroup_stats st;
	if (container_stats(&b->c, &st, err) < 0)
		return -1;
	if (st.have & CGROUP_CPUACCT)
		json_object_set_new(o, "cpu_ns", json_integer((json_int_t)st.cpu_ns));
	if (st.have & CGROUP_CPU)
		json_object_set_new(o, "throttled_ns", json_integer((json_int_t)st.throttled_ns));
	if (st.have & CGROUP_MEMORY) {
		json_object_set_new(o, "memory", json_integer((json_int_t)st.memory));
		json_object_set_new(o, "memory_file", json_integer((json_int_t)st.memory_file));
		if (st.memory_limit)
			json_object_set_new(o, "memory_limit", json_integer((json_int_t)st.memory_limit));
	}
	if (st.have & CGROUP_PIDS)
		json_object_set_new(o, "pids", json_integer((json_int_t)st.pids));
	struct net_counters nc;
	if (b->net && b->net->kind != NET_KIND_NONE && net_stats(b->net, &nc, NULL) == 0) {
		json_object_set_new(o, "net_rx", json_integer((json_int_t)nc.rx_bytes));
		json_object_set_new(o, "net_tx", json_integer((json_int_t)nc.tx_bytes));
	}
	return 0;
}

static int update(struct engine *e, const struct sandbox_spec *s, struct cai_error *err)
{
	struct cgroup_limits l = {.memory = s->memory, .cpus = s->cpu_milli / 1000.0, .pids = s->pids};
	return container_update(&box(e)->c, &l, err);
}

const struct engine_ops engine_container = {
	.connect_line = false,
	.start = start,
	.take_stream = take_stream,
	.over = over,
	.booted = booted,
	.explain = explain,
	.console_tail = console_tail,
	.pid = get_pid,
	.about = about,
	.oom = oom,
	.pause = pause_box,
	.resume = resume_box,
	.stats = stats,
	.update = update,
	.free = free_box,
};
