/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one descriptor a level, every entry opened below its directory without following
 * links, so that a tree that changes meanwhile cannot lead elsewhere. Names are visited in sorted order: the
 * same tree gives the same image, bit for bit.
 */
#include "image/scan.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"

#define MAX_LEVELS 256 /* descriptors */
#define CHUNK	   (256u << 10)

struct seen {
	dev_t dev;
	ino_t ino;
	char path[];
};

struct scan {
	struct tree *t;
	struct erofs_writer *w;
	struct cai_error *err;
	uid_t me;
	gid_t my_group;
	dev_t dev;
	struct stat out; /* the file being written, which may lie in the tree */
	void *seen;	 /* files with several names: tsearch of struct seen */
	uint8_t *buf;
	char path[4096];
};

static int by_file(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	if (x->dev != y->dev)
		return x->dev < y->dev ? -1 : 1;
	return x->ino < y->ino ? -1 : x->ino > y->ino;
}

static int xattrs(struct scan *s, struct tree_inode *i, int fd)
{
	char names[8192], value[65536];
	ssize_t n = flistxattr(fd, names, sizeof(names));
	if (n < 0)
		return errno == ENOTSUP || errno == EPERM || errno == EBADF
			   ? 0
			   : cai_fail_errno(s->err, errno, "cannot read the attributes of %s", s->path);
	for (char *p = names; p < names + n; p += strlen(p) + 1) {
		ssize_t len = fgetxattr(fd, p, value, sizeof(value));
		if (len >= 0 && tree_set_xattr(s->t, i, p, value, (size_t)len, s->err) < 0)
			return -1;
	}
	return 0;
}

static int contents(struct scan *s, struct tree_inode *i, int fd, const struct stat *st)
{
	bool sparse = (uint64_t)st->st_blocks * 512 < (uint64_t)st->st_size;
	off_t at = 0, size = st->st_size, end = size;
	if (erofs_file_begin(s->w, i, sparse, s->err) < 0)
		return -1;
	while (at < size) {
		if (sparse) {
			at = lseek(fd, at, SEEK_DATA);
			if (at < 0 || at >= size)
				break;
			end = lseek(fd, at, SEEK_HOLE);
			if (end < 0 || end > size)
				end = size;
		}
		while (at < end) {
			size_t n = end - at < (off_t)CHUNK ? (size_t)(end - at) : CHUNK;
			ssize_t got = file_pread_full(fd, s->buf, n, at);
			if (got < 0)
				return cai_fail_errno(s->err, errno, "cannot read %s", s->path);
			if (got == 0)
				return cai_fail(s->err, EIO, "%s became shorter while it was read", s->path);
			if (erofs_file_put(s->w, (uint64_t)at, s->buf, (size_t)got, s->err) < 0)
				return -1;
			at += got;
		}
	}
	return erofs_file_end(s->w, s->err);
}

static int scan_level(struct scan *s, int dir, unsigned level);

static int fill(struct scan *s, struct tree_inode *i, const struct stat *st)
{
	i->mode = st->st_mode;
	i->uid = s->me && st->st_uid == s->me ? 0 : st->st_uid;
	i->gid = s->me && st->st_gid == s->my_group ? 0 : st->st_gid;
	i->mtime = st->st_mtim.tv_sec;
	i->mtime_ns = (uint32_t)st->st_mtim.tv_nsec;
	i->rdev = st->st_rdev;
	if (S_ISREG(st->st_mode))
		i->size = (uint64_t)st->st_size;
	return 0;
}

/* 1 when the file was there under another name already; s->path is the new one. */
static int known_file(struct scan *s, const struct stat *st)
{
	size_t n = strlen(s->path) + 1;
	struct seen *k = malloc(sizeof(*k) + n);
	if (!k)
		return cai_fail(s->err, ENOMEM, "out of memory");
	k->dev = st->st_dev;
	k->ino = st->st_ino;
	memcpy(k->path, s->path, n);
	struct seen **found = tsearch(k, &s->seen, by_file);
	if (!found) {
		free(k);
		return cai_fail(s->err, ENOMEM, "out of memory");
	}
	if (*found == k)
		return 0;
	free(k);
	return tree_link(s->t, 1, s->path, (*found)->path, s->err) < 0 ? -1 : 1;
}

static int scan_entry(struct scan *s, int dir, const char *name, unsigned level)
{
	struct stat st;
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return cai_fail_errno(s->err, errno, "cannot look at %s", s->path);
	if (st.st_dev == s->out.st_dev && st.st_ino == s->out.st_ino)
		return 0;
	cleanup_close int fd = -1;
	if (S_ISREG(st.st_mode) || S_ISDIR(st.st_mode)) {
		fd = openat(dir, name,
			    O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK |
				(S_ISDIR(st.st_mode) ? O_DIRECTORY : 0));
		if (fd < 0 || fstat(fd, &st) < 0)
			return cai_fail_errno(s->err, errno, "cannot open %s", s->path);
	}
	if (!S_ISDIR(st.st_mode) && st.st_nlink > 1) {
		int r = known_file(s, &st);
		if (r != 0)
			return r < 0 ? -1 : 0;
	}
	struct tree_inode *i = tree_inode_new();
	if (!i)
		return cai_fail(s->err, ENOMEM, "out of memory");
	fill(s, i, &st);
	if (S_ISLNK(st.st_mode)) {
		char to[4096];
		ssize_t n = readlinkat(dir, name, to, sizeof(to) - 1);
		if (n > 0) {
			to[n] = 0;
			i->target = strdup(to);
		}
		if (!i->target) {
			int e = errno;
			tree_inode_free(i);
			return cai_fail_errno(s->err, e, "cannot read the link %s", s->path);
		}
	}
	if (fd >= 0 && xattrs(s, i, fd) < 0) {
		tree_inode_free(i);
		return -1;
	}
	if (tree_add(s->t, 1, s->path, i, &i, s->err) < 0)
		return -1;
	if (S_ISREG(st.st_mode))
		return contents(s, i, fd, &st);
	if (S_ISDIR(st.st_mode) && st.st_dev == s->dev)
		return scan_level(s, fd, level + 1);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static int list(int dir, char ***out, size_t *n)
{
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	char **l = NULL;
	*out = NULL;
	*n = 0;
	if (!d)
		return -1;
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (!(*n & (*n - 1))) {
			char **m = realloc(l, (*n ? *n * 2 : 1) * sizeof(*m));
			if (!m)
				goto fail;
			l = m;
		}
		if (!(l[*n] = strdup(e->d_name)))
			goto fail;
		++*n;
	}
	if (*n)
		qsort(l, *n, sizeof(*l), by_text);
	*out = l;
	return 0;
fail:
	while (*n)
		free(l[--*n]);
	free(l);
	errno = ENOMEM;
	return -1;
}

static int scan_level(struct scan *s, int dir, unsigned level)
{
	char **names;
	size_t n, len = strlen(s->path);
	int r = 0;
	if (level > MAX_LEVELS)
		return cai_fail(s->err, ENAMETOOLONG, "directories are nested more than %d deep", MAX_LEVELS);
	if (list(dir, &names, &n) < 0)
		return cai_fail_errno(s->err, errno, "cannot read the directory %s",
				      s->path[0] ? s->path : ".");
	for (size_t k = 0; k < n; k++) {
		if (r == 0 && len + strlen(names[k]) + 2 > sizeof(s->path))
			r = cai_fail(s->err, ENAMETOOLONG, "a path below %.100s... is too long", s->path);
		if (r == 0) {
			sprintf(s->path + len, "%s%s", len ? "/" : "", names[k]);
			r = scan_entry(s, dir, names[k], level);
			s->path[len] = 0;
		}
		free(names[k]);
	}
	free(names);
	return r;
}

int scan_directory(int dir, struct tree *t, struct erofs_writer *w, struct cai_error *err)
{
	struct stat st;
	struct scan s = {
	    .t = t, .w = w, .err = err, .me = getuid(), .my_group = getgid(), .buf = malloc(CHUNK)};
	struct tree_inode *root = tree_inode_new();
	int r = 0;
	if (!s.buf || !root) {
		r = cai_fail(err, ENOMEM, "out of memory");
		tree_inode_free(root);
	} else if (fstat(dir, &st) < 0 || fstat(w->fd, &s.out) < 0) {
		r = cai_fail_errno(err, errno, "cannot look at the directory");
		tree_inode_free(root);
	} else {
		s.dev = st.st_dev;
		fill(&s, root, &st);
		if (xattrs(&s, root, dir) < 0) {
			tree_inode_free(root);
			r = -1;
		} else {
			r = tree_add(t, 1, "", root, NULL, err);
		}
		if (r == 0)
			r = scan_level(&s, dir, 0);
	}
	tdestroy(s.seen, free);
	free(s.buf);
	return r;
}
