/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: one descriptor a level, every entry opened below its directory without following
 * links, as in scan.c: a tree that changes meanwhile cannot lead elsewhere. A file that grows or shrinks
 * while it is read gets the size that its header announced, with zeros for what is missing, since a header
 * cannot be taken back.
 */
#include <archive.h>
#include <archive_entry.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <locale.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/file.h"
#include "image/confine.h"
#include "image/copy.h"

#define MAX_LEVELS 256 /* descriptors */
#define CHUNK	   (256u << 10)

/* A file with several names. */
struct seen {
	dev_t dev;
	ino_t ino;
	char path[];
};

struct writer {
	struct archive *a;
	const struct copy_out_options *o;
	struct copy_result *r;
	struct cai_error *err;
	void *seen;
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

static int archive_failed(struct writer *w)
{
	const char *why = archive_error_string(w->a);
	return cai_fail(w->err, archive_errno(w->a), "cannot write the archive at %.300s: %s", w->path,
			why ? why : "it failed");
}

/* *first gets the name under which the file was written before, or NULL. */
static int known_file(struct writer *w, const struct stat *st, const char **first)
{
	size_t n = strlen(w->path) + 1;
	struct seen *k = malloc(sizeof(*k) + n);
	*first = NULL;
	if (!k)
		return cai_fail(w->err, ENOMEM, "out of memory");
	k->dev = st->st_dev;
	k->ino = st->st_ino;
	memcpy(k->path, w->path, n);
	struct seen **found = tsearch(k, &w->seen, by_file);
	if (!found || *found != k)
		free(k);
	if (!found)
		return cai_fail(w->err, ENOMEM, "out of memory");
	if (*found != k)
		*first = (*found)->path;
	return 0;
}

static int write_contents(struct writer *w, int fd, uint64_t size)
{
	uint64_t at = 0;
	while (at < size) {
		size_t n = size - at < CHUNK ? (size_t)(size - at) : CHUNK;
		ssize_t got = file_pread_full(fd, w->buf, n, (off_t)at);
		if (got < 0)
			return cai_fail_errno(w->err, errno, "cannot read %.300s", w->path);
		if ((size_t)got < n)
			memset(w->buf + got, 0, n - (size_t)got);
		if (archive_write_data(w->a, w->buf, n) != (la_ssize_t)n)
			return archive_failed(w);
		at += n;
	}
	w->r->bytes += size;
	return 0;
}

/* One entry called w->path; fd for files and directories, link for symbolic links. */
static int write_entry(struct writer *w, const struct stat *st, int fd, const char *link)
{
	const char *first = NULL;
	struct archive_entry *e = archive_entry_new();
	if (!e)
		return cai_fail(w->err, ENOMEM, "out of memory");
	if (!S_ISDIR(st->st_mode) && st->st_nlink > 1 && known_file(w, st, &first) < 0) {
		archive_entry_free(e);
		return -1;
	}
	archive_entry_set_pathname(e, w->path);
	archive_entry_set_filetype(e, st->st_mode & S_IFMT);
	archive_entry_set_perm(e, st->st_mode & 07777);
	archive_entry_set_uid(e, w->o->owner ? st->st_uid : 0);
	archive_entry_set_gid(e, w->o->owner ? st->st_gid : 0);
	archive_entry_set_mtime(e, st->st_mtim.tv_sec, st->st_mtim.tv_nsec);
	archive_entry_set_size(e, S_ISREG(st->st_mode) && !first ? st->st_size : 0);
	if (S_ISCHR(st->st_mode) || S_ISBLK(st->st_mode))
		archive_entry_set_rdev(e, st->st_rdev);
	if (first)
		archive_entry_set_hardlink(e, first);
	else if (link)
		archive_entry_set_symlink(e, link);
	int r = archive_write_header(w->a, e);
	archive_entry_free(e);
	if (r != ARCHIVE_OK && r != ARCHIVE_WARN)
		return archive_failed(w);
	w->r->entries++;
	return S_ISREG(st->st_mode) && !first ? write_contents(w, fd, (uint64_t)st->st_size) : 0;
}

static int write_level(struct writer *w, int dir, unsigned level);

static int write_child(struct writer *w, int dir, const char *name, unsigned level)
{
	struct stat st;
	char link[4096];
	if (fstatat(dir, name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return errno == ENOENT ? 0 : cai_fail_errno(w->err, errno, "cannot look at %.300s", w->path);
	if (S_ISSOCK(st.st_mode)) {
		fprintf(stderr, "caisson: left out %s: a socket\n", w->path);
		w->r->left_out++;
		return 0;
	}
	if (S_ISLNK(st.st_mode)) {
		ssize_t n = readlinkat(dir, name, link, sizeof(link) - 1);
		if (n < 0)
			return cai_fail_errno(w->err, errno, "cannot read the link %.300s", w->path);
		link[n] = 0;
		return write_entry(w, &st, -1, link);
	}
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return write_entry(w, &st, -1, NULL);
	cleanup_close int fd =
	    openat(dir, name,
		   O_RDONLY | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK | (S_ISDIR(st.st_mode) ? O_DIRECTORY : 0));
	if (fd < 0 || fstat(fd, &st) < 0)
		return cai_fail_errno(w->err, errno, "cannot open %.300s", w->path);
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return cai_fail(w->err, EAGAIN, "%.300s changed while it was read", w->path);
	if (write_entry(w, &st, fd, NULL) < 0)
		return -1;
	return S_ISDIR(st.st_mode) ? write_level(w, fd, level + 1) : 0;
}

static int write_level(struct writer *w, int dir, unsigned level)
{
	size_t len = strlen(w->path);
	int fd = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	cleanup_closedir DIR *d = fd < 0 ? NULL : fdopendir(fd);
	if (!d)
		return cai_fail_errno(w->err, errno, "cannot read the directory %.300s", len ? w->path : ".");
	if (level > MAX_LEVELS)
		return cai_fail(w->err, ENAMETOOLONG, "directories are nested more than %d deep", MAX_LEVELS);
	for (struct dirent *e; (e = readdir(d));) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (len + strlen(e->d_name) + 2 > sizeof(w->path))
			return cai_fail(w->err, ENAMETOOLONG, "a path below %.100s... is too long", w->path);
		sprintf(w->path + len, "%s%s", len ? "/" : "", e->d_name);
		int r = write_child(w, dir, e->d_name, level);
		w->path[len] = 0;
		if (r < 0)
			return -1;
	}
	return 0;
}

static int open_archive(struct writer *w, int out)
{
	w->a = archive_write_new();
	w->buf = malloc(CHUNK);
	if (!w->a || !w->buf)
		return cai_fail(w->err, ENOMEM, "out of memory");
	/* Names are bytes: nothing is converted to another character set. */
	if (archive_write_set_format_pax(w->a) != ARCHIVE_OK ||
	    archive_write_set_options(w->a, "hdrcharset=BINARY") != ARCHIVE_OK ||
	    archive_write_set_bytes_in_last_block(w->a, 1) != ARCHIVE_OK ||
	    archive_write_open_fd(w->a, out) != ARCHIVE_OK)
		return archive_failed(w);
	return 0;
}

/* The last part of path; "" where that says nothing. */
static void top_name(const char *path, char out[256])
{
	size_t n = strlen(path), k;
	while (n && path[n - 1] == '/')
		n--;
	for (k = n; k && path[k - 1] != '/'; k--)
		;
	snprintf(out, 256, "%.*s", (int)(n - k < 255 ? n - k : 255), path + k);
	if (!strcmp(out, ".") || !strcmp(out, ".."))
		out[0] = 0;
}

/* What path is: *fd open for a file or directory, *link filled for a symbolic link. */
static int open_top(const char *path, const struct copy_out_options *o, struct stat *st, int *fd,
		    char link[4096], struct cai_error *err)
{
	if (fstatat(AT_FDCWD, path, st, o->follow ? 0 : AT_SYMLINK_NOFOLLOW) < 0)
		return cai_fail_errno(err, errno, "cannot copy %.300s", path);
	if (S_ISSOCK(st->st_mode))
		return cai_fail(err, EINVAL, "%.300s is a socket, which cannot be copied", path);
	if (S_ISLNK(st->st_mode)) {
		ssize_t n = readlink(path, link, 4095);
		if (n < 0)
			return cai_fail_errno(err, errno, "cannot read the link %.300s", path);
		link[n] = 0;
	} else if (S_ISREG(st->st_mode) || S_ISDIR(st->st_mode)) {
		*fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK | (o->follow ? 0 : O_NOFOLLOW));
		if (*fd < 0 || fstat(*fd, st) < 0)
			return cai_fail_errno(err, errno, "cannot open %.300s", path);
	}
	if (o->contents && !S_ISDIR(st->st_mode))
		return cai_fail(err, ENOTDIR, "%.300s is no directory", path);
	return 0;
}

int copy_out(const char *path, const struct copy_out_options *o, int out, struct copy_result *r,
	     struct cai_error *err)
{
	struct writer w = {.o = o, .r = r, .err = err};
	struct stat st;
	char name[256], link[4096];
	cleanup_close int fd = -1;
	memset(r, 0, sizeof(*r));
	setlocale(LC_CTYPE, "C.UTF-8"); /* its tables come from a file */
	top_name(path, name);
	if (open_top(path, o, &st, &fd, link, err) < 0)
		return -1;
	struct confine_limits limits = {.memory = 1ull << 30, .file = UINT64_MAX};
	if (confine_enter(&limits, S_ISDIR(st.st_mode) ? CONFINE_READ_TREE : CONFINE_NO_FILES, fd, err) < 0)
		return -1;
	int ok = open_archive(&w, out);
	if (!o->contents)
		snprintf(w.path, sizeof(w.path), "%s", o->name ? o->name : name);
	if (ok == 0 && !w.path[0] && !S_ISDIR(st.st_mode))
		ok = cai_fail(err, EINVAL, "%.300s has no name to be copied under", path);
	if (ok == 0 && w.path[0])
		ok = write_entry(&w, &st, fd, S_ISLNK(st.st_mode) ? link : NULL);
	if (ok == 0 && S_ISDIR(st.st_mode))
		ok = write_level(&w, fd, 0);
	if (ok == 0 && archive_write_close(w.a) != ARCHIVE_OK)
		ok = archive_failed(&w);
	archive_write_free(w.a);
	tdestroy(w.seen, free);
	free(w.buf);
	return ok;
}
