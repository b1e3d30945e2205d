/* SPDX-License-Identifier: Apache-2.0 */
#include "sandbox/checkpoint.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/loop.h"

static const char *const files[] = {"checkpoint.json", "state", "memory", "upper.ext4", ".upper.new"};

static int open_all(struct store *s, bool make, struct cai_error *err)
{
	if (make && mkdirat(s->root_fd, "checkpoints", 0700) < 0 && errno != EEXIST)
		return cai_fail_errno(err, errno, "cannot make %s/checkpoints", s->root);
	int fd = openat(s->root_fd, "checkpoints", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	return fd < 0 ? cai_fail_errno(err, errno, "cannot open %s/checkpoints", s->root) : fd;
}

static void remove_at(int parent, const char *name)
{
	cleanup_close int d = openat(parent, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (d < 0)
		return;
	for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++)
		unlinkat(d, files[i], 0);
	unlinkat(parent, name, AT_REMOVEDIR);
}

/* Removes what killed commands left: directories without a name for good that nobody has locked. */
static void heal(int all)
{
	int fd = openat(all, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; l && (e = readdir(l));) {
		if (strncmp(e->d_name, ".new-", 5))
			continue;
		cleanup_close int d = openat(all, e->d_name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
		if (d >= 0 && flock(d, LOCK_EX | LOCK_NB) == 0)
			remove_at(all, e->d_name);
	}
}

int checkpoint_begin(struct store *s, char **path, struct cai_error *err)
{
	uint64_t v = 0;
	cleanup_close int all = open_all(s, true, err);
	if (all < 0)
		return -1;
	if (getrandom(&v, sizeof(v), 0) != sizeof(v) ||
	    asprintf(path, "%s/checkpoints/.new-%012llx", s->root, (unsigned long long)(v & 0xffffffffffff)) < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	/* Made and locked under the store's lock, so that nobody heals it in between. */
	cleanup_close int making = store_lock(s, err);
	int lock = -1;
	if (making >= 0) {
		heal(all);
		if (mkdir(*path, 0700) < 0 || (lock = open(*path, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 || flock(lock, LOCK_EX | LOCK_NB) < 0)
			cai_fail_errno(err, errno, "cannot make %s", *path);
		else
			return lock;
	}
	if (lock >= 0)
		close(lock);
	free(*path);
	*path = NULL;
	return -1;
}

int checkpoint_commit(struct store *s, const char *path, const char *name, char out[SANDBOX_NAME_MAX + 1], struct cai_error *err)
{
	const char *tmp = strrchr(path, '/') + 1;
	cleanup_close int all = open_all(s, false, err);
	if (all < 0)
		return -1;
	snprintf(out, SANDBOX_NAME_MAX + 1, "%s", name ? name : tmp + 5);
	cleanup_close int d = openat(all, tmp, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (d < 0 || fsync(d) < 0)
		return cai_fail_errno(err, errno, "cannot write %s", path);
	/* Not over another one: a directory that is not empty cannot be replaced, and none of ours is empty. */
	if (renameat(all, tmp, all, out) < 0)
		return errno == EEXIST || errno == ENOTEMPTY ? cai_fail(err, EEXIST, "there is a checkpoint '%s' already", out)
							     : cai_fail_errno(err, errno, "cannot name the checkpoint");
	fsync(all);
	return 0;
}

void checkpoint_abandon(const char *path)
{
	remove_at(AT_FDCWD, path);
}

int checkpoint_open_at(int parent, const char *path, struct checkpoint_info *c, struct cai_error *err)
{
	struct sandbox_dir d;
	memset(c, 0, sizeof(*c));
	c->dir = openat(parent, path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	if (c->dir < 0)
		return cai_fail_errno(err, errno, "cannot open the checkpoint");
	sandbox_dir_init(&d);
	d.dir_fd = c->dir;
	d.path = (char *)(uintptr_t)path;
	json_t *o = sandbox_dir_read(&d, "checkpoint.json", err);
	json_t *pid = json_object_get(o, "pid");
	const char *id = json_string_value(json_object_get(o, "sandbox")), *name = json_string_value(json_object_get(o, "sandbox_name"));
	int r = o ? 0 : -1;
	if (r == 0 && (json_integer_value(json_object_get(o, "version")) != 1 || !json_is_integer(pid) || json_integer_value(pid) <= 0 ||
		       json_integer_value(pid) > INT32_MAX))
		r = cai_fail(err, EINVAL, "the checkpoint's description is damaged, or of another version of Caisson");
	if (r == 0)
		r = sandbox_spec_from_json(json_object_get(o, "config"), &c->conf, err);
	c->pid = (uint32_t)json_integer_value(pid);
	c->created_ns = json_integer_value(json_object_get(o, "created_ns"));
	snprintf(c->sandbox, sizeof(c->sandbox), "%s", id ? id : "");
	snprintf(c->sandbox_name, sizeof(c->sandbox_name), "%s", name ? name : "");
	json_decref(o);
	if (r < 0) {
		close(c->dir);
		c->dir = -1;
	}
	return r;
}

void checkpoint_close(struct checkpoint_info *c)
{
	spec_loaded_free(&c->conf);
	if (c->dir >= 0)
		close(c->dir);
	c->dir = -1;
}

/* The one whose name begins so. */
static int find(struct store *s, const char *what, char out[SANDBOX_NAME_MAX + 1], struct cai_error *err)
{
	int fd = openat(s->root_fd, "checkpoints", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	size_t n = strlen(what);
	out[0] = 0;
	for (struct dirent *e; l && n && (e = readdir(l));) {
		if (!sandbox_name_ok(e->d_name) || strncmp(e->d_name, what, n))
			continue;
		if (!strcmp(e->d_name, what)) {
			snprintf(out, SANDBOX_NAME_MAX + 1, "%.63s", e->d_name);
			return 0;
		}
		if (out[0])
			return cai_fail(err, EINVAL, "'%.63s' fits more than one checkpoint; write more of its name", what);
		snprintf(out, SANDBOX_NAME_MAX + 1, "%.63s", e->d_name);
	}
	return out[0] ? 0 : cai_fail(err, ENOENT, "there is no checkpoint '%.63s'; 'caisson checkpoint ls' lists them", what);
}

int checkpoint_open(struct store *s, const char *name, struct checkpoint_info *c, struct cai_error *err)
{
	char found[SANDBOX_NAME_MAX + 1], path[SANDBOX_NAME_MAX + 16];
	if (find(s, name, found, err) < 0)
		return -1;
	snprintf(path, sizeof(path), "checkpoints/%s", found);
	return checkpoint_open_at(s->root_fd, path, c, err) < 0 ? cai_wrap(err, "checkpoint %s", found) : 0;
}

int checkpoint_remove(struct store *s, const char *name, struct cai_error *err)
{
	char found[SANDBOX_NAME_MAX + 1];
	if (find(s, name, found, err) < 0)
		return -1;
	cleanup_close int all = open_all(s, false, err);
	if (all < 0)
		return -1;
	remove_at(all, found);
	return 0;
}

json_t *checkpoint_list(struct store *s, struct cai_error *err)
{
	json_t *list = json_array();
	cleanup_close int making = store_lock(s, NULL);
	cleanup_close int all = making < 0 ? -1 : open_all(s, false, NULL);
	if (all >= 0)
		heal(all);
	int fd = openat(s->root_fd, "checkpoints", O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
	cleanup_closedir DIR *l = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; l && (e = readdir(l));) {
		struct checkpoint_info c;
		uint64_t bytes = 0;
		char when[40];
		if (!sandbox_name_ok(e->d_name) || checkpoint_open_at(dirfd(l), e->d_name, &c, NULL) < 0)
			continue;
		for (unsigned i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
			struct stat st;
			if (fstatat(c.dir, files[i], &st, AT_SYMLINK_NOFOLLOW) == 0)
				bytes += (uint64_t)st.st_blocks * 512;
		}
		format_time(c.created_ns, when);
		const struct sandbox_spec *sp = &c.conf.spec;
		json_array_append_new(list, json_pack("{s:s,s:s,s:s,s:o,s:i,s:I,s:s,s:I}", "name", e->d_name, "sandbox", c.sandbox, "sandbox_name",
						      c.sandbox_name, "image", spec_json_text(sp->image ? sp->image : sp->rootfs ? sp->rootfs : "built-in"),
						      "cpus", (int)sp->cpus, "memory", (json_int_t)sp->memory, "created", when, "bytes",
						      (json_int_t)bytes));
		checkpoint_close(&c);
	}
	return list;
}

int checkpoint_use(const struct checkpoint_info *c, struct sandbox_plan *p, struct cai_error *err)
{
	p->restore_dir = fcntl(c->dir, F_DUPFD_CLOEXEC, 3);
	p->restore_pid = c->pid;
	return p->restore_dir < 0 ? cai_fail_errno(err, errno, "cannot open the checkpoint") : 0;
}
