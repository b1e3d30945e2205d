/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: looking a template up costs a hash over what a few fstat calls say and three opens. Making one boots (or restores)
 * a machine that nobody else sees, and asks its monitor for a snapshot; one process at a time does so, under ROOT/templates/lock,
 * and whoever waited for the lock looks again first.
 *
 * Nothing is synced: the host's boot is part of the generation, so what a crash of the host left half on disk is never found again.
 */
#include "sandbox/template.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/loop.h"
#include "sandbox/disk.h"
#include "sandbox/fingerprint.h"
#include "sandbox/monitor.h"
#include "sandbox/paths.h"
#include "sandbox/session.h"
#include "sandbox/state.h"

#define FORMAT	   3 /* of what is hashed into names: changes with what a template of a name holds */
#define BOOT_MS	   120000
#define WRITE_MS   60000
#define SETTLE_MS  100 /* for the guest to finish what its boot began, so that no copy has to */
#define FAILURE_SECONDS 600 /* before making a template that could not be made is tried again */
#define NAME_BYTES 64
#define RESTORE_START_SEQ 2 /* of START, in monitor_boot */
#define PREPARE_NS 60000000000ull

void template_init(struct template *t)
{
	*t = (struct template){.state = -1, .memory = -1, .code = -1, .upper = -1};
}

void template_close(struct template *t)
{
	int *fds[] = {&t->state, &t->memory, &t->code, &t->upper};
	for (unsigned i = 0; i < 4; i++)
		if (*fds[i] >= 0)
			close(*fds[i]);
	template_init(t);
}

static void add_file(struct siphash *h, int fd)
{
	struct stat st = {0};
	fstat(fd, &st);
	uint64_t v[] = {st.st_dev, st.st_ino, (uint64_t)st.st_size, (uint64_t)st.st_mtim.tv_sec, (uint64_t)st.st_mtim.tv_nsec};
	siphash_add(h, v, sizeof(v));
}

static uint64_t generation(const struct sandbox_plan *p)
{
	struct siphash h;
	uint64_t v[2], format = FORMAT;
	char boot[40];
	host_boot_id(boot);
	siphash_init(&h);
	siphash_add(&h, &format, sizeof(format));
	siphash_add(&h, boot, sizeof(boot));
	cleanup_close int vmm = open(p->monitor, O_PATH | O_CLOEXEC);
	add_file(&h, vmm);
	add_file(&h, p->kernel);
	add_file(&h, p->initrd);
	siphash_add(&h, p->cmdline, strlen(p->cmdline));
	siphash_end(&h, v);
	return v[0];
}

static void name_of(const struct sandbox_plan *p, const struct control_config *c, enum template_level level, uint64_t new_disk, char out[NAME_BYTES])
{
	struct siphash h;
	uint64_t v[2];
	uint64_t shape[] = {level, c->vcpus, c->mem_bytes, c->accel, c->n_disks, c->n_nets, level == TEMPLATE_DISK ? new_disk : 0};
	siphash_init(&h);
	siphash_add(&h, shape, sizeof(shape));
	for (unsigned i = 0; i < c->n_nets; i++) {
		const struct control_net *n = &c->net[i];
		uint64_t net[] = {n->kind, n->mtu, n->offloads, n->n_pairs ? n->n_pairs : n->n_fds};
		siphash_add(&h, net, sizeof(net));
	}
	if (level >= TEMPLATE_IMAGE) {
		if (p->spec->image_id)
			siphash_add(&h, p->spec->image_id, strlen(p->spec->image_id));
		else
			add_file(&h, p->root.fd);
	}
	siphash_end(&h, v);
	snprintf(out, NAME_BYTES, "%016llx-%016llx", (unsigned long long)generation(p), (unsigned long long)v[0]);
}

static bool open_template(int dir, const char *name, enum template_level level, struct template *t)
{
	cleanup_close int d = openat(dir, name, O_PATH | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d < 0)
		return false;
	t->state = openat(d, "state", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	t->memory = openat(d, "memory", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	t->code = openat(d, "code", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (level == TEMPLATE_DISK)
		t->upper = openat(d, "upper.ext4", O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
	if (t->state < 0 || t->memory < 0 || (level == TEMPLATE_DISK && t->upper < 0)) {
		template_close(t);
		return false;
	}
	t->level = level;
	snprintf(t->name, sizeof(t->name), "%s", name);
	return true;
}

/* Waits for a packet of that type (with that sequence, unless 0). */
static int await(struct monitor *m, enum control_type type, uint32_t seq, int ms, struct cai_error *err)
{
	uint64_t end = clock_mono_ns() + (uint64_t)ms * 1000000;
	for (;;) {
		struct monitor_event e;
		int r = monitor_next(m, &e);
		if (r > 0) {
			bool found = e.type == type && (!seq || e.seq == seq);
			int bad = 0;
			if (e.type == CONTROL_ERROR)
				bad = cai_fail(err, (int)e.errnum, "%s", e.text ? e.text : "the monitor refused");
			else if (e.type == CONTROL_ENDED && !found)
				bad = cai_fail(err, 0, "the machine ended: %s", e.ended.text ? e.ended.text : "it gave no reason");
			monitor_event_free(&e);
			if (found || bad)
				return bad;
			continue;
		}
		uint64_t now = clock_mono_ns();
		struct pollfd p = {.fd = m->control, .events = POLLIN};
		if (r < 0)
			return cai_fail(err, 0, "the monitor is gone");
		if (now >= end)
			return cai_fail(err, ETIMEDOUT, "the machine does not come up");
		poll(&p, 1, (int)((end - now) / 1000000) + 1);
	}
}

static int snapshot(struct monitor *m, int dir, bool code, struct cai_error *err)
{
	static const char *const names[] = {"state", "memory", "code"};
	int fds[3] = {-1, -1, -1}, r = 0;
	unsigned n = code ? 3 : 2;
	for (unsigned i = 0; i < n && r == 0; i++)
		if ((fds[i] = openat(dir, names[i], O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600)) < 0)
			r = cai_fail_errno(err, errno, "cannot make a file for the template");
	struct control_snapshot s = {.flags = CONTROL_SNAPSHOT_STOP | (code ? CONTROL_SNAPSHOT_CODE : 0), .state_fd = fds[0], .memory_fd = fds[1], .code_fd = fds[2]};
	struct buf b = {0};
	uint32_t seq = ++m->seq;
	control_put_snapshot(&b, seq, &s);
	if (r == 0 && (b.failed || control_send(m->control, b.p, b.len, fds, n) < 0))
		r = cai_fail_errno(err, errno, "cannot ask for the snapshot");
	buf_free(&b);
	if (r == 0)
		r = await(m, CONTROL_OK, seq, WRITE_MS, err);
	for (unsigned i = 0; i < 3; i++)
		if (fds[i] >= 0)
			close(fds[i]);
	return r;
}

static void on_started(void *ctx)
{
}

static void on_ended(void *ctx)
{
	loop_stop(ctx);
}

/* The agent's function that mounts the root's lower file system and runs a first program. */
static int prepare(struct sandbox_dir *d, const char *fstype, enum template_level level, unsigned n_disks, char *const *warm, struct cai_error *err)
{
	char *argv[64] = {(char *)"prepare", (char *)"/dev/vda", (char *)(uintptr_t)fstype};
	unsigned n = 3;
	if (level == TEMPLATE_DISK) {
		argv[n++] = (char *)"--upper";
		argv[n++] = (char *)"/dev/vdb";
		argv[n++] = (char *)"ext4";
	} else if (n_disks == 1) {
		argv[n++] = (char *)"--overlay";
	}
	if (warm && *warm)
		argv[n++] = (char *)"--";
	for (; warm && *warm && n < 63; warm++)
		argv[n++] = *warm;
	struct agent_start start = {.flags = AGENT_START_BUILTIN, .argv = argv};
	cleanup_close int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
	struct session_config c = {.stream = sandbox_dir_connect(d, "agent.sock", SOCK_STREAM, err),
				   .connect_line = true,
				   .in = -1,
				   .out = null,
				   .err = null,
				   .start = &start,
				   .started = on_started,
				   .ended = on_ended};
	struct loop *l = c.stream < 0 ? NULL : loop_new(err);
	if (!l) {
		if (c.stream >= 0)
			close(c.stream);
		return -1;
	}
	c.ctx = l;
	struct session *s = session_new(l, &c, err);
	struct loop_source *patience = loop_add_timer(l, on_ended, l, NULL);
	if (patience)
		loop_timer_set(patience, clock_mono_ns() + PREPARE_NS);
	int r = -1;
	if (s && loop_run(l, err) == 0) {
		const struct session_result *q = session_result(s);
		if (q->end == SESSION_EXITED && !q->status && !q->signal)
			r = 0;
		else
			cai_fail(err, 0, "the guest cannot prepare the image: %s", q->text[0] ? q->text : "its agent failed");
	}
	session_free(s);
	loop_free(l);
	return r;
}

static int attach(struct monitor *m, unsigned disk, uint32_t flags, int fd, struct cai_error *err)
{
	struct control_attach a = {.disk = disk, .flags = flags, .fd = fd};
	struct buf b = {0};
	control_put_attach(&b, ++m->seq, &a);
	int r = b.failed || control_send(m->control, b.p, b.len, &fd, 1) < 0 ? cai_fail_errno(err, errno, "cannot attach a disk") : 0;
	buf_free(&b);
	return r;
}

/* The first disk that comes after the restore. */
static unsigned attached_from(const struct template *t, const struct control_config *c)
{
	return t->level >= TEMPLATE_DISK ? c->n_disks : t->level == TEMPLATE_IMAGE ? 1 : 0;
}

int monitor_restore(struct monitor *m, const struct template *t, const struct control_config *c, struct cai_error *err)
{
	struct control_config q = *c; /* descriptors stay the caller's */
	q.fd[CONTROL_FD_KERNEL] = q.fd[CONTROL_FD_INITRD] = -1;
	q.cmdline = (char *)"";
	q.fd[CONTROL_FD_STATE] = t->state;
	q.fd[CONTROL_FD_MEMORY] = t->memory;
	q.fd[CONTROL_FD_CODE] = t->code;
	/* SETUP, before any program runs, has the agent make the random numbers anew. */
	if (t->level != TEMPLATE_WHOLE)
		q.flags |= CONTROL_FLAG_QUIET_GENERATION;
	for (unsigned i = attached_from(t, &q); i < q.n_disks; i++) {
		q.disk[i].flags |= CONTROL_DISK_EMPTY;
		q.disk_fd[i] = -1;
	}
	if (monitor_boot(m, &q, err) < 0)
		return -1;
	for (unsigned i = attached_from(t, &q); i < q.n_disks; i++)
		if (c->disk_fd[i] >= 0 && attach(m, i, c->disk[i].flags & CONTROL_DISK_READONLY, c->disk_fd[i], err) < 0)
			return -1;
	return 0;
}

/* A machine that nobody sees, up to where its snapshot is taken. from: the base to start from, or NULL to boot. */
static int run(struct monitor *m, const struct sandbox_plan *p, const struct control_config *shape, enum template_level level, uint64_t new_disk,
	       const struct template *from, char *const *warm, struct sandbox_dir *d, struct cai_error *err)
{
	struct control_config c = *shape;
	cleanup_close int upper = level == TEMPLATE_DISK ? disk_open((struct store *)&p->store, d, new_disk, -1, err) : -1;
	if (level == TEMPLATE_DISK && upper < 0)
		return -1;
	for (unsigned i = 0; i < c.n_nets; i++) { /* not connected; the same number of queues */
		c.net[i].n_pairs = c.net[i].n_pairs ? c.net[i].n_pairs : c.net[i].n_fds;
		c.net[i].n_fds = 0;
	}
	for (unsigned i = 0; i < CONTROL_N_FDS; i++)
		if (i != CONTROL_FD_KERNEL && i != CONTROL_FD_INITRD && i != CONTROL_FD_KVM)
			c.fd[i] = -1;
	for (unsigned i = from ? 1 : 0; i < c.n_disks; i++) {
		c.disk[i].flags |= CONTROL_DISK_EMPTY;
		c.disk_fd[i] = -1;
	}
	if (upper >= 0) {
		c.disk[1].flags &= ~CONTROL_DISK_EMPTY;
		c.disk_fd[1] = upper;
	}
	cleanup_close int sock = sandbox_dir_listen(d, "agent.sock", SOCK_STREAM, err);
	if (sock < 0 || monitor_start(m, p->monitor, NULL, NULL, err) < 0)
		return -1;
	c.fd[CONTROL_FD_VSOCK] = sock;
	if (from) {
		if (monitor_restore(m, from, &c, err) < 0 || await(m, CONTROL_OK, RESTORE_START_SEQ, WRITE_MS, err) < 0 || prepare(d, p->root.fstype, level, c.n_disks, warm, err) < 0)
			return -1;
	} else if (monitor_boot(m, &c, err) < 0 || await(m, CONTROL_READY, 0, BOOT_MS, err) < 0) {
		return -1;
	}
	poll(NULL, 0, SETTLE_MS);
	return snapshot(m, d->dir_fd, c.accel == CONTROL_ACCEL_SOFT, err);
}

static int write_description(const struct sandbox_plan *p, const struct control_config *c, enum template_level level, struct sandbox_dir *d,
			     struct cai_error *err)
{
	const char *image = level >= TEMPLATE_IMAGE ? (p->spec->image ? p->spec->image : "built-in") : "";
	json_t *o = json_pack("{s:s,s:o,s:i,s:I,s:I}", "level", level == TEMPLATE_DISK ? "disk" : level == TEMPLATE_IMAGE ? "image" : "base", "image", spec_json_text(image), "cpus",
			      (int)c->vcpus, "memory", (json_int_t)c->mem_bytes, "created_ns", (json_int_t)clock_real_ns());
	int r = sandbox_dir_write(d, "template.json", o, false, err);
	json_decref(o);
	return r;
}

static void remove_one(int dir, const char *name)
{
	cleanup_close int d = openat(dir, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	static const char *const files[] = {"state", "memory", "code", "template.json", "agent.sock", "upper.ext4", ".upper.new"};
	if (d < 0) {
		unlinkat(dir, name, 0); /* the mark of one that cannot be made */
		return;
	}
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(d, files[i], 0);
	unlinkat(dir, name, AT_REMOVEDIR);
}

/*
 * That a template cannot be made is remembered, so that not every start tries: an empty file beside it. Not for ever: the monitor may have
 * been killed, or the disk full.
 */
static bool known_to_fail(int dir, const char *name)
{
	char mark[NAME_BYTES + 8];
	struct stat st;
	snprintf(mark, sizeof(mark), "%s.no", name);
	return fstatat(dir, mark, &st, AT_SYMLINK_NOFOLLOW) == 0 && time(NULL) - st.st_mtim.tv_sec < FAILURE_SECONDS;
}

static void remember_failure(int dir, const char *name, bool failed)
{
	char mark[NAME_BYTES + 8];
	snprintf(mark, sizeof(mark), "%s.no", name);
	cleanup_close int fd = -1;
	if (!failed)
		unlinkat(dir, mark, 0);
	else if ((fd = openat(dir, mark, O_WRONLY | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600)) >= 0)
		futimens(fd, NULL);
}

/* Under the lock: what is of another generation, and what killed makers have left. */
static void prune(int dir, const char *name)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; l && (e = readdir(l));)
		if (strcmp(e->d_name, ".") && strcmp(e->d_name, "..") && strcmp(e->d_name, "lock") && strncmp(e->d_name, name, 17))
			remove_one(dir, e->d_name);
}

/* Under the lock. */
static int make(const struct sandbox_plan *p, const struct control_config *c, int dir, const char *name, enum template_level level, uint64_t new_disk,
		const struct template *from, char *const *warm, struct cai_error *err)
{
	struct sandbox_dir d;
	struct monitor m;
	char tmp[NAME_BYTES + 8];
	uint64_t t0 = clock_mono_ns();
	snprintf(tmp, sizeof(tmp), "%.17snew", name);
	remove_one(dir, tmp);
	prune(dir, name);
	sandbox_dir_init(&d);
	strcpy(d.id, "template");
	if (mkdirat(dir, tmp, 0700) < 0 || (d.dir_fd = openat(dir, tmp, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC)) < 0 ||
	    asprintf(&d.path, "%s/templates/%s", p->store.root, tmp) < 0)
		return cai_fail_errno(err, errno, "cannot make a directory for the template in %s", p->store.root);
	monitor_init(&m);
	int r = run(&m, p, c, level, new_disk, from, warm, &d, err);
	monitor_stop(&m);
	unlinkat(d.dir_fd, "agent.sock", 0);
	if (r == 0)
		r = write_description(p, c, level, &d, err);
	if (r == 0) {
		remove_one(dir, name);
		if (renameat(dir, tmp, dir, name) < 0)
			r = cai_fail_errno(err, errno, "cannot name the template");
	}
	remember_failure(dir, name, r < 0);
	if (r < 0)
		remove_one(dir, tmp);
	else
		log_debug("made the template %s in %llu ms", name, (unsigned long long)((clock_mono_ns() - t0) / 1000000));
	sandbox_dir_close(&d);
	return r;
}

static int get(const struct sandbox_plan *p, const struct control_config *c, int dir, enum template_level level, uint64_t new_disk, char *const *warm,
	       bool fresh, struct template *t, struct cai_error *err)
{
	char name[NAME_BYTES];
	name_of(p, c, level, new_disk, name);
	if (!fresh && open_template(dir, name, level, t))
		return 0;
	struct template base;
	template_init(&base);
	if (!fresh && known_to_fail(dir, name))
		return cai_fail(err, 0, "it could not be made before");
	if (level >= TEMPLATE_IMAGE && get(p, c, dir, TEMPLATE_BASE, 0, NULL, false, &base, err) < 0)
		return -1;
	cleanup_close int lock = openat(dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = lock < 0 || flock(lock, LOCK_EX) < 0 ? cai_fail_errno(err, errno, "cannot lock %s/templates", p->store.root) : 0;
	if (r == 0 && (fresh || !open_template(dir, name, level, t))) {
		r = make(p, c, dir, name, level, new_disk, level >= TEMPLATE_IMAGE ? &base : NULL, warm, err);
		if (r < 0 && base.name[0]) { /* perhaps the base is damaged: once more with a new one */
			char old[NAME_BYTES];
			memcpy(old, base.name, sizeof(old));
			template_close(&base);
			remove_one(dir, old);
			if (make(p, c, dir, old, TEMPLATE_BASE, 0, NULL, NULL, err) == 0 && open_template(dir, old, TEMPLATE_BASE, &base))
				r = make(p, c, dir, name, level, new_disk, &base, warm, err);
		}
		if (r == 0 && !open_template(dir, name, level, t))
			r = cai_fail(err, ENOENT, "the template that was just made is gone");
	}
	template_close(&base);
	return r;
}

int template_get(const struct sandbox_plan *p, const struct control_config *c, uint64_t new_disk, char *const *warm, bool fresh,
		 struct template *t, struct cai_error *err)
{
	const struct sandbox_spec *s = p->spec;
	template_init(t);
	if (s->kernel || s->initrd || s->append || s->console || s->debug || c->n_fs || (c->accel == CONTROL_ACCEL_KVM && p->accel.verdict.state != KVM_USABLE))
		return cai_fail(err, 0, "a machine with a kernel, shares or a console of its own boots");
	if (mkdirat(p->store.root_fd, "templates", 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make %s/templates", p->store.root);
	cleanup_close int dir = openat(p->store.root_fd, "templates", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (dir < 0)
		return cai_fail_errno(err, errno, "cannot open %s/templates", p->store.root);
	/* A directory's image is made anew with each change of the directory: not worth a template of its own. */
	if (!s->rootfs && new_disk && get(p, c, dir, TEMPLATE_DISK, new_disk, warm, fresh, t, err) == 0)
		return 0;
	if (!s->rootfs && get(p, c, dir, TEMPLATE_IMAGE, 0, warm, fresh, t, err) == 0)
		return 0;
	if (warm || fresh)
		return s->rootfs ? cai_fail(err, EINVAL, "a template is made of an image, not of --rootfs") : -1;
	return get(p, c, dir, TEMPLATE_BASE, 0, NULL, false, t, err);
}

/* What a killed maker has left goes with the next one that is made; or whenever somebody looks at templates and nobody is making one. */
static void tidy(int dir)
{
	cleanup_close int lock = openat(dir, "lock", O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	if (lock < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
		return;
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; l && (e = readdir(l));) {
		size_t n = strlen(e->d_name);
		if (n > 4 && !strcmp(e->d_name + n - 4, "-new"))
			remove_one(dir, e->d_name);
	}
}

json_t *template_list(struct store *s, struct cai_error *err)
{
	json_t *list = json_array();
	int fd = openat(s->root_fd, "templates", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	if (l)
		tidy(dirfd(l));
	for (struct dirent *e; l && (e = readdir(l));) {
		struct sandbox_dir d;
		uint64_t bytes = 0;
		sandbox_dir_init(&d);
		d.dir_fd = openat(dirfd(l), e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		d.path = strdup(e->d_name);
		json_t *o = d.dir_fd < 0 || e->d_name[0] == '.' ? NULL : sandbox_dir_read(&d, "template.json", NULL);
		static const char *const files[] = {"state", "memory", "code", "upper.ext4"};
		for (unsigned i = 0; o && i < 4; i++) {
			struct stat st;
			if (fstatat(d.dir_fd, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
				bytes += (uint64_t)st.st_blocks * 512;
		}
		if (o) {
			char when[40];
			format_time(json_integer_value(json_object_get(o, "created_ns")), when);
			json_object_set_new(o, "name", json_string(e->d_name));
			json_object_set_new(o, "created", json_string(when));
			json_object_set_new(o, "bytes", json_integer((json_int_t)bytes));
			json_array_append_new(list, o);
		}
		sandbox_dir_close(&d);
	}
	return list;
}

int template_remove(struct store *s, const char *name, struct cai_error *err)
{
	int fd = openat(s->root_fd, "templates", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	size_t n = strlen(name);
	char found[NAME_BYTES + 8] = "";
	for (struct dirent *e; l && n >= 4 && (e = readdir(l));) {
		const char *dash = strchr(e->d_name, '-');
		if (e->d_name[0] == '.' || !dash || (strncmp(e->d_name, name, n) && strncmp(dash + 1, name, n)))
			continue;
		if (found[0])
			return cai_fail(err, EINVAL, "'%s' fits more than one template; write more of its name", name);
		snprintf(found, sizeof(found), "%.60s", e->d_name);
	}
	if (!found[0])
		return cai_fail(err, ENOENT, "there is no template '%.60s'; 'caisson template ls' lists them", name);
	remove_one(dirfd(l), found);
	return 0;
}
