/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation
 *
 * An entry's name is cut into its parent, which is opened below the directory of extraction with openat2 (resolve.h), and one last
 * component, which is made there by a call that neither follows a link nor opens what exists. So an archive can make a link that leads
 * anywhere, but never go through it: the kernel refuses to resolve a parent that leaves the directory, at the moment of use and
 * whatever else runs in the sandbox at the same time.
 *
 * What exists under the name and is no directory is unlinked first, so a hard link made earlier is never written through. Directories are
 * made private and get owner, mode and time when all else is done, the last one first: what they hold has changed their time by then,
 * and a mode may forbid what is still to be made.
 */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "guest/resolve.h"
#include "guest/tar.h"

#define MAX_LATER  100000u    /* directories that are remembered; those beyond get their attributes at once */
#define DATA_CHUNK (128u << 10)

struct later {
	char *name;
	struct tar_entry e; /* its strings are not valid */
};

struct extraction {
	int dir;
	const struct tar_in_options *o;
	struct tar_reader *reader;
	char parent_name[PATH_MAX]; /* of parent_fd */
	int parent_fd;              /* -1: none */
	struct later *later;
	size_t n_later, cap_later;
	uint8_t *data;
};

/* A name without empty and "." components; "" is the directory of extraction. */
static int clean(const char *name, char out[PATH_MAX], struct cai_error *err)
{
	size_t len = 0;
	for (const char *p = name; *p;) {
		size_t n = strcspn(p, "/");
		bool dot = n == 1 && p[0] == '.';
		if (n == 2 && p[0] == '.' && p[1] == '.')
			return cai_fail(err, EINVAL, "the archive's name \"%.200s\" would leave the directory", name);
		if (n && !dot) {
			if (len + 1 + n + 1 > PATH_MAX)
				return cai_fail(err, ENAMETOOLONG, "a name of the archive is too long: %.60s...", name);
			if (len)
				out[len++] = '/';
			memcpy(out + len, p, n);
			len += n;
		}
		p += n;
		p += *p == '/';
	}
	out[len] = 0;
	return 0;
}

static int refuse(struct cai_error *err, const char *name)
{
	int e = errno;
	if (e == EXDEV || e == ELOOP)
		return cai_fail(err, e, "%.200s would go through a link that leaves the directory", name);
	return cai_fail_errno(err, e, "cannot make %.200s", name);
}

/* Splits a clean name in place and opens its parent. The last component. */
static const char *enter_parent(struct extraction *x, char *name, struct cai_error *err)
{
	char *slash = strrchr(name, '/');
	const char *parent = slash ? name : "";
	const char *last = slash ? slash + 1 : name;
	if (slash)
		*slash = 0;
	if (x->parent_fd < 0 || strcmp(parent, x->parent_name) != 0) {
		if (x->parent_fd >= 0)
			close(x->parent_fd);
		x->parent_fd = resolve_dir(x->dir, parent, RESOLVE_BENEATH, true);
		if (x->parent_fd < 0) {
			refuse(err, parent);
			return NULL;
		}
		snprintf(x->parent_name, sizeof(x->parent_name), "%s", parent);
	}
	return last;
}

static uint32_t owner_of(const struct extraction *x, const struct tar_entry *e, uint32_t *gid)
{
	*gid = x->o->set_owner ? x->o->gid : e->gid;
	return x->o->set_owner ? x->o->uid : e->uid;
}

/* Only root can give things away; others keep what they make. */
static bool owners_wanted(const struct extraction *x)
{
	return x->o->set_owner || geteuid() == 0;
}

static void times_of(const struct tar_entry *e, struct timespec ts[2])
{
	ts[0] = ts[1] = (struct timespec){.tv_sec = (time_t)e->mtime, .tv_nsec = (long)e->mtime_ns};
}

static int set_by_fd(const struct extraction *x, int fd, const struct tar_entry *e)
{
	struct timespec ts[2];
	uint32_t gid, uid = owner_of(x, e, &gid);
	times_of(e, ts);
	/* In this order: a change of owner takes the set-id bits away. */
	if (owners_wanted(x) && fchown(fd, uid, gid) < 0)
		return -1;
	return fchmod(fd, e->mode) < 0 || futimens(fd, ts) < 0 ? -1 : 0;
}

/* For what is not opened; its mode was given when it was made. */
static int set_by_name(const struct extraction *x, const char *last, const struct tar_entry *e)
{
	struct timespec ts[2];
	uint32_t gid, uid = owner_of(x, e, &gid);
	times_of(e, ts);
	if (owners_wanted(x) && fchownat(x->parent_fd, last, uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -1;
	return utimensat(x->parent_fd, last, ts, AT_SYMLINK_NOFOLLOW);
}

/* Takes away what is there under the name, unless it is a directory. */
static int make_way(struct extraction *x, const char *last, struct cai_error *err)
{
	struct stat st;
	if (fstatat(x->parent_fd, last, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : refuse(err, last);
	if (S_ISDIR(st.st_mode))
		return cai_fail(err, EISDIR, "the directory %.200s cannot be replaced by something else", last);
	if (unlinkat(x->parent_fd, last, 0) < 0 && errno != ENOENT)
		return cai_fail_errno(err, errno, "cannot replace %.200s", last);
	return 0;
}

static int make_file(struct extraction *x, const char *last, const struct tar_entry *e, struct cai_error *err)
{
	cleanup_close int fd = openat(x->parent_fd, last, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	if (fd < 0)
		return refuse(err, last);
	ssize_t n;
	while ((n = tar_data(x->reader, x->data, DATA_CHUNK, err)) > 0)
		if (file_write_full(fd, x->data, (size_t)n) < 0)
			return cai_fail_errno(err, errno, "cannot write %.200s", last);
	if (n < 0)
		return -1;
	return set_by_fd(x, fd, e) < 0 ? cai_fail_errno(err, errno, "cannot set owner, mode and time of %.200s", last) : 0;
}

static int make_hardlink(struct extraction *x, const char *name, const char *last, const struct tar_entry *e, struct cai_error *err)
{
	char target[PATH_MAX];
	if (clean(e->target, target, err) < 0)
		return -1;
	char *slash = strrchr(target, '/');
	const char *base = slash ? slash + 1 : target;
	if (slash)
		*slash = 0;
	cleanup_close int dir = resolve_dir(x->dir, slash ? target : "", RESOLVE_BENEATH, false);
	if (dir < 0 || !*base)
		return cai_fail_errno(err, dir < 0 ? errno : EINVAL, "%.100s cannot be a link to %.100s", name, e->target);
	if (linkat(dir, base, x->parent_fd, last, 0) == 0)
		return 0;
	int e1 = errno;
	if (e1 == EEXIST) {
		struct stat a, b;
		if (fstatat(dir, base, &a, AT_SYMLINK_NOFOLLOW) == 0 && fstatat(x->parent_fd, last, &b, AT_SYMLINK_NOFOLLOW) == 0 &&
		    a.st_dev == b.st_dev && a.st_ino == b.st_ino)
			return 0; /* it is that already */
		if (make_way(x, last, err) < 0)
			return -1;
		if (linkat(dir, base, x->parent_fd, last, 0) == 0)
			return 0;
		e1 = errno;
	}
	return cai_fail_errno(err, e1, "%.100s cannot be a link to %.100s", name, e->target);
}

static int make_node(struct extraction *x, const char *last, const struct tar_entry *e, struct cai_error *err)
{
	mode_t type = e->type == TAR_CHAR ? S_IFCHR : e->type == TAR_BLOCKDEV ? S_IFBLK : S_IFIFO;
	int rc = e->type == TAR_SYMLINK ? symlinkat(e->target, x->parent_fd, last)
					: mknodat(x->parent_fd, last, type | e->mode, makedev(e->major, e->minor));
	if (rc < 0)
		return refuse(err, last);
	return set_by_name(x, last, e) < 0 ? cai_fail_errno(err, errno, "cannot set owner and time of %.200s", last) : 0;
}

static int finish_dir(struct extraction *x, const char *name, const struct tar_entry *e, struct cai_error *err)
{
	cleanup_close int fd = resolve_open(x->dir, name, RESOLVE_BENEATH, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
	if (fd < 0 || set_by_fd(x, fd, e) < 0)
		return cai_fail_errno(err, errno, "cannot set owner, mode and time of %.200s", name);
	return 0;
}

static int make_dir(struct extraction *x, const char *name, const char *last, const struct tar_entry *e, struct cai_error *err)
{
	struct stat st;
	if (mkdirat(x->parent_fd, last, 0700) < 0) {
		if (errno != EEXIST || fstatat(x->parent_fd, last, &st, AT_SYMLINK_NOFOLLOW) < 0)
			return refuse(err, last);
		if (!S_ISDIR(st.st_mode))
			return cai_fail(err, ENOTDIR, "%.200s cannot be replaced by a directory", last);
	}
	if (x->n_later >= MAX_LATER)
		return finish_dir(x, name, e, err);
	if (x->n_later == x->cap_later) {
		size_t cap = x->cap_later ? x->cap_later * 2 : 64;
		struct later *more = realloc(x->later, cap * sizeof(*more));
		if (!more)
			return cai_fail(err, ENOMEM, "out of memory");
		x->later = more;
		x->cap_later = cap;
	}
	char *copy = strdup(name);
	if (!copy)
		return cai_fail(err, ENOMEM, "out of memory");
	x->later[x->n_later++] = (struct later){.name = copy, .e = *e};
	return 0;
}

static int extract(struct extraction *x, const struct tar_entry *e, struct cai_error *err)
{
	char name[PATH_MAX], whole[PATH_MAX];

	if (clean(e->name, name, err) < 0)
		return -1;
	if (!*name) /* the directory itself is the caller's */
		return e->type == TAR_DIR ? 0 : cai_fail(err, EISDIR, "the archive has something in the place of the directory itself");
	memcpy(whole, name, sizeof(whole));
	const char *last = enter_parent(x, name, err);
	if (!last)
		return -1;
	if (e->type == TAR_DIR)
		return make_dir(x, whole, last, e, err);
	if (e->type == TAR_HARDLINK)
		return make_hardlink(x, whole, last, e, err);
	if (make_way(x, last, err) < 0)
		return -1;
	return e->type == TAR_FILE ? make_file(x, last, e, err) : make_node(x, last, e, err);
}

static int extract_all(struct extraction *x, struct cai_error *err)
{
	struct tar_entry e;
	int rc;
	while ((rc = tar_next(x->reader, &e, err)) > 0)
		if (extract(x, &e, err) < 0)
			return -1;
	return rc;
}

int tar_in(int dir, tar_read_fn *fn, void *ctx, const struct tar_in_options *o, struct cai_error *err)
{
	struct extraction x = {.dir = dir, .o = o, .parent_fd = -1, .data = malloc(DATA_CHUNK)};
	mode_t mask = umask(0); /* modes are the archive's */

	x.reader = x.data ? tar_reader_new(fn, ctx, err) : NULL;
	int rc = x.reader ? extract_all(&x, err) : cai_fail(err, ENOMEM, "out of memory");
	/* Also after a fault: what is there must not stay private. */
	for (size_t i = x.n_later; i-- > 0;) {
		struct cai_error first;
		if (finish_dir(&x, x.later[i].name, &x.later[i].e, &first) < 0 && rc == 0) {
			*err = first;
			rc = -1;
		}
		free(x.later[i].name);
	}
	umask(mask);
	if (x.parent_fd >= 0)
		close(x.parent_fd);
	tar_reader_free(x.reader);
	free(x.later);
	free(x.data);
	return rc;
}
