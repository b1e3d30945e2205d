/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the order of renames is the protocol. Coming: EROFS file, JSON, tag. Going: tag, JSON,
 * EROFS file. So a name never means an image that is not whole, and what a crash leaves over (an EROFS file
 * without JSON) can be told. All changes happen under one lock; a temporary file is locked for as long as a
 * process has it open, so the lock's next holder knows the abandoned ones by being able to lock them. They
 * are made under the lock too, which closes the moment between making and locking.
 */
#include "image/store.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"

#define MAX_META MIB(8)

static int make_dirs_for(char *path)
{
	for (char *s = path + 1;; s++) {
		if (*s != '/' && *s)
			continue;
		char c = *s;
		*s = 0;
		int r = mkdir(path, 0700);
		*s = c;
		if (r < 0 && errno != EEXIST && errno != EROFS && errno != EACCES)
			return -1;
		if (!c)
			return 0;
	}
}

int image_store_open(struct image_store *s, const char *root, struct cai_error *err)
{
	const char *env = getenv("CAISSON_ROOT"), *home = getenv("HOME"), *data = getenv("XDG_DATA_HOME");
	char *p = NULL;
	int r = -1;
	s->path = NULL;
	s->dir = -1;
	if (!root && env && *env)
		root = env;
	if (root && root[0] != '/')
		return cai_fail(err, EINVAL, "CAISSON_ROOT must be an absolute path, not '%s'", root);
	if (root)
		r = asprintf(&p, "%s/images", root);
	else if (geteuid() == 0)
		r = asprintf(&p, "/var/lib/caisson/images");
	else if (data && data[0] == '/')
		r = asprintf(&p, "%s/caisson/images", data);
	else if (home && home[0] == '/')
		r = asprintf(&p, "%s/.local/share/caisson/images", home);
	else
		return cai_fail(err, ENOENT, "no place for images: neither CAISSON_ROOT nor HOME is set");
	if (r < 0)
		return cai_fail(err, ENOMEM, "out of memory");
	s->path = p;
	if (make_dirs_for(p) < 0 || (s->dir = open(p, O_RDONLY | O_DIRECTORY | O_CLOEXEC)) < 0 ||
	    (mkdirat(s->dir, "tmp", 0700) < 0 && errno != EEXIST)) {
		cai_fail_errno(err, errno, "cannot make the image store %s", p);
		image_store_close(s);
		return -1;
	}
	return 0;
}

void image_store_close(struct image_store *s)
{
	free(s->path);
	s->path = NULL;
	if (s->dir >= 0)
		close(s->dir);
	s->dir = -1;
}

static bool hex_file(const char *name, const char *suffix)
{
	return strspn(name, "0123456789abcdef") == 64 && !strcmp(name + 64, suffix);
}

static void each_file(int dir, const char *sub, void (*fn)(void *ctx, int dir, const char *name), void *ctx)
{
	int fd = openat(dir, sub, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	for (struct dirent *e; d && (e = readdir(d));)
		if (e->d_name[0] != '.')
			fn(ctx, dirfd(d), e->d_name);
}

static void drop_abandoned(void *ctx, int dir, const char *name)
{
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		unlinkat(dir, name, 0);
}

static void drop_orphan(void *ctx, int dir, const char *name)
{
	char json[80];
	if (strstr(name, ".tmp.")) { /* a JSON file being replaced; the lock is ours, so its writer is dead */
		unlinkat(dir, name, 0);
		return;
	}
	if (!hex_file(name, ".erofs"))
		return;
	snprintf(json, sizeof(json), "%.64s.json", name);
	if (faccessat(dir, json, F_OK, 0) < 0 && errno == ENOENT)
		unlinkat(dir, name, 0);
}

int image_store_lock(struct image_store *s, struct cai_error *err)
{
	cleanup_close int lock = openat(s->dir, "lock", O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r = -1;
	while (lock >= 0 && (r = flock(lock, LOCK_EX)) < 0 && errno == EINTR)
		;
	if (lock < 0 || r < 0)
		return cai_fail_errno(err, errno, "cannot lock the image store %s", s->path);
	each_file(s->dir, "tmp", drop_abandoned, NULL);
	each_file(s->dir, ".", drop_orphan, NULL);
	return steal_fd(&lock);
}

int image_store_temp(struct image_store *s, char name[64], struct cai_error *err)
{
	struct timespec ts;
	cleanup_close int lock = image_store_lock(s, err);
	if (lock < 0)
		return -1;
	clock_gettime(CLOCK_REALTIME, &ts);
	for (unsigned k = 0; k < 100; k++) {
		snprintf(name, 64, "tmp/%d-%lld-%u", (int)getpid(),
			 (long long)ts.tv_sec * 1000 + ts.tv_nsec / 1000000, k);
		cleanup_close int fd = openat(s->dir, name, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
		if (fd < 0 && errno == EEXIST)
			continue;
		if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) < 0)
			break;
		return steal_fd(&fd);
	}
	return cai_fail_errno(err, errno, "cannot make a file in %s/tmp", s->path);
}

void image_store_temp_drop(struct image_store *s, const char *name)
{
	unlinkat(s->dir, name, 0);
}

/* PATH of a file in the store; owned by the caller. */
static char *in_store(struct image_store *s, const char *id, const char *suffix)
{
	char *p;
	return asprintf(&p, "%s/%s%s", s->path, id, suffix) < 0 ? NULL : p;
}

static int put_json(struct image_store *s, const char *name, const char *suffix, const json_t *o,
		    struct cai_error *err)
{
	cleanup_free char *path = in_store(s, name, suffix);
	cleanup_free char *text = json_dumps(o, JSON_COMPACT | JSON_SORT_KEYS);
	if (!path || !text)
		return cai_fail(err, ENOMEM, "out of memory");
	if (strlen(text) > MAX_META)
		return cai_fail(err, EFBIG, "the description of the image is larger than %llu MiB",
				(unsigned long long)(MAX_META >> 20));
	return file_replace(path, text, strlen(text), 0600, err);
}

static json_t *get_json(struct image_store *s, const char *name, const char *suffix, struct cai_error *err)
{
	cleanup_free char *path = in_store(s, name, suffix), *text = NULL;
	size_t n;
	if (!path) {
		cai_fail(err, ENOMEM, "out of memory");
		return NULL;
	}
	if (file_read_all(path, MAX_META, &text, &n, err) < 0)
		return NULL;
	json_error_t je;
	json_t *o = json_loadb(text, n, 0, &je);
	if (!json_is_object(o)) {
		json_decref(o);
		cai_fail(err, EINVAL, "%s is damaged: %s", path, je.text);
		return NULL;
	}
	return o;
}

/* {"NAME": "sha256:..."}; empty when there is none yet. */
static json_t *get_tags(struct image_store *s, struct cai_error *err)
{
	if (faccessat(s->dir, "tags.json", F_OK, 0) < 0 && errno == ENOENT)
		return json_object();
	json_t *t = get_json(s, "tags", ".json", err);
	const char *k;
	json_t *v;
	json_object_foreach(t, k, v) if (!json_is_string(v) || !image_digest_valid(json_string_value(v)))
	{
		cai_fail(err, EINVAL, "%s/tags.json is damaged at '%s'", s->path, k);
		json_decref(t);
		return NULL;
	}
	return t;
}

static int set_tag(struct image_store *s, const char *tag, const char *id, struct cai_error *err)
{
	json_t *t = get_tags(s, err);
	if (!t)
		return -1;
	int r = json_object_set_new(t, tag, json_string(id)) < 0 ? cai_fail(err, ENOMEM, "out of memory")
								 : put_json(s, "tags", ".json", t, err);
	json_decref(t);
	return r;
}

static bool have(struct image_store *s, const char *id)
{
	char name[80];
	snprintf(name, sizeof(name), "%s.json", id + 7);
	return faccessat(s->dir, name, F_OK, 0) == 0;
}

int image_store_tag(struct image_store *s, const char *tag, const char *id, struct cai_error *err)
{
	cleanup_close int lock = image_store_lock(s, err);
	if (lock < 0)
		return -1;
	if (!have(s, id))
		return cai_fail(err, ENOENT, "the image %s is gone", id);
	return set_tag(s, tag, id, err) < 0 || fsync(s->dir) < 0 ? -1 : 0;
}

int image_store_commit(struct image_store *s, const char *temp, int fd, json_t *meta, const char *tag,
		       struct cai_error *err)
{
	const char *id = json_string_value(json_object_get(meta, "id"));
	if (!id || !image_digest_valid(id))
		return cai_fail(err, EINVAL, "the image has no valid id");
	if (fchmod(fd, 0400) < 0 || fsync(fd) < 0)
		return cai_fail_errno(err, errno, "cannot sync the image to %s", s->path);
	cleanup_close int lock = image_store_lock(s, err);
	if (lock < 0)
		return -1;
	if (!have(s, id)) {
		char name[80];
		snprintf(name, sizeof(name), "%s.erofs", id + 7);
		if (renameat(s->dir, temp, s->dir, name) < 0 || fsync(s->dir) < 0)
			return cai_fail_errno(err, errno, "cannot name the image in %s", s->path);
		if (put_json(s, id + 7, ".json", meta, err) < 0)
			return -1;
	} else {
		image_store_temp_drop(s, temp);
	}
	if (fsync(s->dir) < 0)
		return cai_fail_errno(err, errno, "cannot sync %s", s->path);
	if (tag && set_tag(s, tag, id, err) < 0)
		return -1;
	return fsync(s->dir) < 0 ? cai_fail_errno(err, errno, "cannot sync %s", s->path) : 0;
}

json_t *image_store_meta(struct image_store *s, const char *id, struct cai_error *err)
{
	if (!image_digest_valid(id)) {
		cai_fail(err, EINVAL, "'%.100s' is no image id", id);
		return NULL;
	}
	return get_json(s, id + 7, ".json", err);
}

struct prefix {
	const char *text;
	size_t len;
	unsigned n;
	char id[IMAGE_DIGEST_LEN + 1];
};

static void match_prefix(void *ctx, int dir, const char *name)
{
	struct prefix *p = ctx;
	if (!hex_file(name, ".json") || strncmp(name, p->text, p->len))
		return;
	p->n++;
	snprintf(p->id, sizeof(p->id), "sha256:%.64s", name);
}

/* *tag (may be NULL) gets the full name when the reference is one, else "". */
static int find(struct image_store *s, const char *text, char id[IMAGE_DIGEST_LEN + 1], char tag[720],
		struct cai_error *err)
{
	struct image_ref ref;
	struct cai_error bad;
	char full[720];
	bool named = !image_digest_valid(text) && image_ref_parse(text, &ref, &bad) == 0;
	tag[0] = 0;
	if (named) {
		json_t *t = get_tags(s, err);
		if (!t)
			return -1;
		const char *to =
		    json_string_value(json_object_get(t, image_ref_full(&ref, full, sizeof(full))));
		if (to && have(s, to)) {
			strcpy(id, to);
			strcpy(tag, full);
		}
		json_decref(t);
		if (tag[0])
			return 0;
	}
	struct prefix p = {.text = strncmp(text, "sha256:", 7) ? text : text + 7};
	p.len = strlen(p.text);
	if (p.len >= 6 && p.len <= 64 && strspn(p.text, "0123456789abcdef") == p.len)
		each_file(s->dir, ".", match_prefix, &p);
	if (p.n > 1)
		return cai_fail(err, EINVAL, "%u images have an id that begins with %s; give more digits",
				p.n, text);
	if (p.n == 1) {
		strcpy(id, p.id);
		return 0;
	}
	if (!named && !image_digest_valid(text)) {
		if (err)
			*err = bad;
		return -1;
	}
	return cai_fail(err, ENOENT, "there is no image '%s' here", text);
}

int image_store_find(struct image_store *s, const char *ref, char id[IMAGE_DIGEST_LEN + 1],
		     struct cai_error *err)
{
	char tag[720];
	return find(s, ref, id, tag, err);
}

static json_t *tags_of(const json_t *tags, const char *id)
{
	json_t *list = json_array(), *v;
	const char *k;
	json_object_foreach((json_t *)(uintptr_t)tags, k, v) if (!strcmp(json_string_value(v), id))
	    json_array_append_new(list, json_string(k));
	return list;
}

json_t *image_store_resolve(struct image_store *s, const char *ref, struct cai_error *err)
{
	char id[IMAGE_DIGEST_LEN + 1];
	if (image_store_find(s, ref, id, err) < 0)
		return NULL;
	json_t *meta = image_store_meta(s, id, err), *tags = meta ? get_tags(s, err) : NULL;
	cleanup_free char *path = in_store(s, id + 7, ".erofs");
	json_t *o = NULL;
	if (meta && tags && path) {
		json_t *config = json_object_get(json_object_get(meta, "image"), "config");
		o = json_pack("{s:s,s:s,s:o,s:O}", "id", id, "rootfs", path, "tags", tags_of(tags, id),
			      "config", json_is_object(config) ? config : json_object());
		if (!o)
			cai_fail(err, ENOMEM, "out of memory");
	}
	json_decref(meta);
	json_decref(tags);
	return o;
}

struct listing {
	struct image_store *s;
	json_t *tags, *list;
};

static void list_one(void *ctx, int dir, const char *name)
{
	struct listing *l = ctx;
	char id[IMAGE_DIGEST_LEN + 1];
	if (!hex_file(name, ".json"))
		return;
	snprintf(id, sizeof(id), "sha256:%.64s", name);
	json_t *m = image_store_meta(l->s, id, NULL);
	if (!m)
		return; /* removed meanwhile, or damaged: `inspect` says more */
	json_t *created = json_object_get(json_object_get(m, "image"), "created");
	json_t *o = json_pack("{s:s,s:o,s:I,s:I,s:s,s:s}", "id", id, "tags", tags_of(l->tags, id), "size",
			      json_integer_value(json_object_get(m, "size")), "imported",
			      json_integer_value(json_object_get(m, "imported")), "created",
			      json_is_string(created) ? json_string_value(created) : "", "source",
			      json_is_string(json_object_get(m, "source"))
				  ? json_string_value(json_object_get(m, "source"))
				  : "");
	json_decref(m);
	/* insertion, newest first */
	size_t k = 0;
	while (k < json_array_size(l->list) &&
	       json_integer_value(json_object_get(json_array_get(l->list, k), "imported")) >=
		   json_integer_value(json_object_get(o, "imported")))
		k++;
	json_array_insert_new(l->list, k, o);
}

json_t *image_store_list(struct image_store *s, struct cai_error *err)
{
	struct listing l = {.s = s, .tags = get_tags(s, err)};
	if (!l.tags)
		return NULL;
	l.list = json_array();
	each_file(s->dir, ".", list_one, &l);
	json_decref(l.tags);
	return l.list;
}

/* Removes the files of an image; returns the bytes they took on disk. */
static int64_t delete_image(struct image_store *s, const char *id)
{
	char name[80];
	struct stat st = {0};
	snprintf(name, sizeof(name), "%s.json", id + 7);
	unlinkat(s->dir, name, 0);
	fsync(s->dir);
	snprintf(name, sizeof(name), "%s.erofs", id + 7);
	fstatat(s->dir, name, &st, AT_SYMLINK_NOFOLLOW);
	unlinkat(s->dir, name, 0);
	return (int64_t)st.st_blocks * 512;
}

static unsigned used(const struct image_users *users, const char *id)
{
	return users ? users->count(users->ctx, id) : 0;
}

json_t *image_store_remove(struct image_store *s, const char *ref, const struct image_users *users,
			   struct cai_error *err)
{
	char id[IMAGE_DIGEST_LEN + 1], tag[720];
	cleanup_close int lock = image_store_lock(s, err);
	if (lock < 0 || find(s, ref, id, tag, err) < 0)
		return NULL;
	json_t *tags = get_tags(s, err), *mine = tags ? tags_of(tags, id) : NULL, *gone = json_array(), *v;
	if (!tags)
		return NULL;
	size_t k, left = json_array_size(mine);
	unsigned users_left = !tag[0] || left <= 1 ? used(users, id) : 0;
	if (users_left) {
		json_decref(tags);
		json_decref(mine);
		json_decref(gone);
		cai_fail(err, EBUSY, "the image %s is used by %u sandbox%s; remove %s first, or use --force",
			 ref, users_left, users_left == 1 ? "" : "es", users_left == 1 ? "that" : "those");
		return NULL;
	}
	json_array_foreach(mine, k, v)
	{
		const char *name = json_string_value(v);
		if (tag[0] && strcmp(name, tag))
			continue;
		json_object_del(tags, name);
		json_array_append(gone, v);
		left--;
	}
	json_t *deleted = json_array();
	bool ok = !json_array_size(gone) || put_json(s, "tags", ".json", tags, err) == 0;
	if (ok && fsync(s->dir) == 0 && left == 0) {
		delete_image(s, id);
		json_array_append_new(deleted, json_string(id));
	}
	json_decref(tags);
	json_decref(mine);
	json_t *r = json_pack("{s:o,s:o}", "untagged", gone, "deleted", deleted);
	if (!ok) {
		json_decref(r);
		return NULL;
	}
	return r;
}

/* What interrupted pulls have fetched, unless one is at it. */
static void drop_blob(void *ctx, int dir, const char *name)
{
	struct stat st;
	cleanup_close int fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0 && fstat(fd, &st) == 0 &&
	    unlinkat(dir, name, 0) == 0)
		*(int64_t *)ctx += (int64_t)st.st_blocks * 512;
}

json_t *image_store_prune(struct image_store *s, const struct image_users *users, struct cai_error *err)
{
	cleanup_close int lock = image_store_lock(s, err);
	json_t *list = lock < 0 ? NULL : image_store_list(s, err), *deleted = json_array(), *v;
	int64_t freed = 0;
	size_t k;
	if (!list)
		return NULL;
	json_array_foreach(list, k, v)
	{
		if (json_array_size(json_object_get(v, "tags")) ||
		    used(users, json_string_value(json_object_get(v, "id"))))
			continue;
		freed += delete_image(s, json_string_value(json_object_get(v, "id")));
		json_array_append(deleted, json_object_get(v, "id"));
	}
	json_decref(list);
	each_file(s->dir, "blobs", drop_blob, &freed);
	return json_pack("{s:o,s:I}", "deleted", deleted, "freed", (json_int_t)freed);
}
