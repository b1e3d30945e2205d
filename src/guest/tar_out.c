/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: the tree is walked with one open directory for each level, so that nothing that is renamed meanwhile leads the walk
 * elsewhere, and written through one buffer. What vanishes while it is walked is left out; a file that shrinks is filled up with zeros,
 * for its size has been said already.
 *
 * A file with several names is written under the first one; the others become hard links to it.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <sys/vfs.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "base/util.h"
#include "guest/tar.h"

#define CHUNK     (128u << 10)
#define MAX_DEPTH 900
#define MAX_LINKS (1u << 20) /* files with several names that are remembered; beyond, each name is a file of its own */

struct seen {
	dev_t dev;
	ino_t ino;
	char *name; /* NULL: a free slot */
};

struct walk {
	int out;
	struct buf buf;   /* waits to be written */
	struct buf name;  /* of the current entry, not terminated */
	struct seen *seen; /* a hash table with cap slots, a power of two */
	size_t n_seen, cap;
	struct stat dev;  /* of /dev: its contents are the kernel's */
	unsigned depth;
};

static int flush(struct walk *w, struct cai_error *err)
{
	if (w->buf.failed)
		return cai_fail(err, ENOMEM, "out of memory");
	if (file_write_full(w->out, w->buf.p, w->buf.len) < 0)
		return cai_fail_errno(err, errno, "cannot write the archive");
	w->buf.len = 0;
	return 0;
}

static const char *name_text(struct walk *w)
{
	buf_put_u8(&w->name, 0);
	w->name.len -= !w->name.failed;
	return w->name.failed ? "" : (const char *)w->name.p;
}

static struct seen *slot(struct seen *table, size_t cap, dev_t dev, ino_t ino)
{
	uint64_t h = ((uint64_t)ino ^ (uint64_t)dev << 32) * 0x9e3779b97f4a7c15ull;
	for (size_t i = (size_t)(h >> 32);; i++) {
		struct seen *s = &table[i & (cap - 1)];
		if (!s->name || (s->dev == dev && s->ino == ino))
			return s;
	}
}

/* The name under which the file was written before; NULL when this is the first one (now remembered) or there is no memory for it. */
static const char *seen_before(struct walk *w, const struct stat *st)
{
	if (w->n_seen * 2 >= w->cap && w->cap < 2 * MAX_LINKS) {
		size_t cap = w->cap ? w->cap * 2 : 64;
		struct seen *table = calloc(cap, sizeof(*table));
		if (!table)
			return NULL;
		for (size_t i = 0; i < w->cap; i++)
			if (w->seen[i].name)
				*slot(table, cap, w->seen[i].dev, w->seen[i].ino) = w->seen[i];
		free(w->seen);
		w->seen = table;
		w->cap = cap;
	}
	struct seen *s = slot(w->seen, w->cap, st->st_dev, st->st_ino);
	if (s->name)
		return s->name;
	if (w->n_seen >= MAX_LINKS)
		return NULL;
	s->name = strdup(name_text(w));
	s->dev = st->st_dev;
	s->ino = st->st_ino;
	w->n_seen += s->name != NULL;
	return NULL;
}

static int put(struct walk *w, enum tar_type type, const struct stat *st, const char *target, struct cai_error *err)
{
	const struct tar_entry e = {
		.type = type,
		.name = name_text(w),
		.target = target,
		.mode = st->st_mode & 07777,
		.uid = st->st_uid,
		.gid = st->st_gid,
		.major = type == TAR_CHAR || type == TAR_BLOCKDEV ? major(st->st_rdev) : 0,
		.minor = type == TAR_CHAR || type == TAR_BLOCKDEV ? minor(st->st_rdev) : 0,
		.size = type == TAR_FILE ? (uint64_t)st->st_size : 0,
		.mtime = st->st_mtime,
	};
	if (w->name.failed)
		return cai_fail(err, ENOMEM, "out of memory");
	tar_put_header(&w->buf, &e);
	return w->buf.len >= CHUNK || w->buf.failed ? flush(w, err) : 0;
}

static int put_data(struct walk *w, int fd, uint64_t size, struct cai_error *err)
{
	static const uint8_t zero[TAR_BLOCK];
	cleanup_free uint8_t *data = malloc(CHUNK);
	if (!data)
		return cai_fail(err, ENOMEM, "out of memory");
	for (uint64_t left = size; left;) {
		ssize_t n = read(fd, data, left < CHUNK ? (size_t)left : CHUNK);
		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return cai_fail_errno(err, errno, "cannot read %.200s", name_text(w));
		if (n == 0) {
			n = (ssize_t)(left < CHUNK ? left : CHUNK);
			memset(data, 0, (size_t)n);
		}
		buf_put_bytes(&w->buf, data, (size_t)n);
		left -= (uint64_t)n;
		if ((w->buf.len >= CHUNK || w->buf.failed) && flush(w, err) < 0)
			return -1;
	}
	buf_put_bytes(&w->buf, zero, tar_padding(size));
	return 0;
}

static int put_file(struct walk *w, int dir, const char *base, struct cai_error *err)
{
	struct stat st;
	/* Not blocking: a FIFO may have taken the file's place. */
	cleanup_close int fd = openat(dir, base, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY | O_CLOEXEC);
	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot open %.200s", name_text(w));
	if (!S_ISREG(st.st_mode))
		return cai_fail(err, 0, "%.200s changed while it was read", name_text(w));
	/* Only now: a first name that had vanished would leave links to nothing. */
	const char *first = st.st_nlink > 1 ? seen_before(w, &st) : NULL;
	if (first)
		return put(w, TAR_HARDLINK, &st, first, err);
	if (put(w, TAR_FILE, &st, "", err) < 0)
		return -1;
	return put_data(w, fd, (uint64_t)st.st_size, err);
}

static int put_symlink(struct walk *w, int dir, const char *base, const struct stat *st, struct cai_error *err)
{
	char target[4097];
	ssize_t n = readlinkat(dir, base, target, sizeof(target) - 1);
	if (n < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot read the link %.200s", name_text(w));
	target[n] = 0;
	return put(w, TAR_SYMLINK, st, target, err);
}

/* What a kernel shows there is not what anyone means to copy. */
static bool is_kernels(const struct walk *w, int fd, const struct stat *st)
{
	static const uint32_t magic[] = {
		0x9fa0, 0x62656572, 0x1cd1, 0x63677270, 0x27e0eb, 0x64626720, 0x74726163, 0x73636673, 0x62656570, 0x19800202, 0xcafe4a11,
	}; /* proc, sysfs, devpts, cgroup2, cgroup, debugfs, tracefs, securityfs, configfs, mqueue, bpf: linux/magic.h */
	struct statfs fs;
	if (st->st_dev == w->dev.st_dev && st->st_ino == w->dev.st_ino)
		return true;
	if (fstatfs(fd, &fs) < 0)
		return false;
	for (size_t i = 0; i < ARRAY_LEN(magic); i++)
		if ((uint32_t)fs.f_type == magic[i])
			return true;
	return false;
}

static int put_any(struct walk *w, int dir, const char *base, dev_t above, bool follow, struct cai_error *err);

static int put_contents(struct walk *w, int fd, dev_t dev, struct cai_error *err)
{
	cleanup_closedir DIR *d = fdopendir(fd);
	struct dirent *e;
	size_t len = w->name.len;

	if (!d) {
		close(fd);
		return cai_fail(err, ENOMEM, "out of memory");
	}
	if (++w->depth > MAX_DEPTH)
		return cai_fail(err, ELOOP, "%.200s...: more than %d directories inside each other", name_text(w), MAX_DEPTH);
	while (errno = 0, (e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		buf_put_bytes(&w->name, e->d_name, strlen(e->d_name));
		if (put_any(w, dirfd(d), e->d_name, dev, false, err) < 0)
			return -1;
		w->name.len = len;
	}
	if (errno)
		return cai_fail_errno(err, errno, "cannot list %.200s", name_text(w));
	w->depth--;
	return 0;
}

/* above: the file system that the walk comes from. */
static int put_dir(struct walk *w, int dir, const char *base, dev_t above, bool follow, struct cai_error *err)
{
	struct stat st;
	size_t len = w->name.len;
	cleanup_close int fd = openat(dir, base, O_RDONLY | O_DIRECTORY | O_CLOEXEC | (follow ? 0 : O_NOFOLLOW));
	if (fd < 0 || fstat(fd, &st) < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(err, errno, "cannot open %.200s", name_text(w));
	buf_put_u8(&w->name, '/');
	if (put(w, TAR_DIR, &st, "", err) < 0)
		return -1;
	if (st.st_dev != above && is_kernels(w, fd, &st))
		return 0;
	int rc = put_contents(w, steal_fd(&fd), st.st_dev, err);
	w->name.len = len;
	return rc;
}

static int put_any(struct walk *w, int dir, const char *base, dev_t above, bool follow, struct cai_error *err)
{
	struct stat st;
	if (fstatat(dir, base, &st, follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT && w->depth ? 0 : cai_fail_errno(err, errno, "%.300s", w->depth ? name_text(w) : base);
	switch (st.st_mode & S_IFMT) {
	case S_IFREG:
		return put_file(w, dir, base, err);
	case S_IFDIR:
		return put_dir(w, dir, base, w->depth ? above : st.st_dev, follow, err);
	case S_IFLNK:
		return put_symlink(w, dir, base, &st, err);
	case S_IFCHR:
		return put(w, TAR_CHAR, &st, "", err);
	case S_IFBLK:
		return put(w, TAR_BLOCKDEV, &st, "", err);
	case S_IFIFO:
		return put(w, TAR_FIFO, &st, "", err);
	default: /* a socket: no archive can hold one, and no one could connect to it */
		return w->depth ? 0 : cai_fail(err, 0, "%.300s is a socket", base);
	}
}

/* The name that the entries begin with: the path's last component. */
static void put_first_name(struct buf *name, const char *path)
{
	size_t end = strlen(path), from;
	while (end && path[end - 1] == '/')
		end--;
	for (from = end; from && path[from - 1] != '/'; from--)
		;
	size_t n = end - from;
	if (!n || (n == 2 && !memcmp(path + from, "..", 2)))
		buf_put_u8(name, '.');
	else
		buf_put_bytes(name, path + from, n);
}

int tar_out(const char *path, int out_fd, struct cai_error *err)
{
	static const uint8_t end[TAR_END_SIZE];
	struct walk w = {.out = out_fd};
	struct rlimit files;
	size_t n = strlen(path);

	if (!n)
		return cai_fail(err, ENOENT, "the path is empty");
	/* One descriptor a level. */
	if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
		files.rlim_cur = files.rlim_max;
		setrlimit(RLIMIT_NOFILE, &files);
	}
	if (stat("/dev", &w.dev) < 0)
		w.dev = (struct stat){0};
	put_first_name(&w.name, path);
	int rc = put_any(&w, AT_FDCWD, path, 0, path[n - 1] == '/', err);
	if (rc == 0) {
		buf_put_bytes(&w.buf, end, sizeof(end));
		rc = flush(&w, err);
	}
	for (size_t i = 0; i < w.cap; i++)
		free(w.seen[i].name);
	free(w.seen);
	buf_free(&w.buf);
	buf_free(&w.name);
	return rc;
}
