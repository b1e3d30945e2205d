/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: a walk of the EROFS file with a path and a stack of directories; an inode with several
 * names is written at the first, the others are links to that. The file was made by a confined process of
 * ours, which may have been taken over by what it read, so depth, entries and every offset are checked as
 * with any other.
 */
#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <search.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include "base/file.h"
#include "image/digest.h"
#include "image/erofs_read.h"
#include "image/export.h"

#define CHUNK	  (256u << 10)
#define MAX_DEPTH 520 /* more than the writer makes */

struct seen {
	uint64_t nid;
	char path[];
};

struct walk {
	struct erofs_reader image;
	struct archive *a;
	int out;
	struct digest hash;
	uint64_t size, entries, max_entries;
	struct cai_error *err;
	void *seen;
	uint8_t *buf;
	unsigned depth;
	size_t len; /* of path */
	char path[4096 + 256];
};

static int by_nid(const void *a, const void *b)
{
	const struct seen *x = a, *y = b;
	return x->nid < y->nid ? -1 : x->nid > y->nid;
}

static la_ssize_t write_out(struct archive *a, void *ctx, const void *p, size_t n)
{
	struct walk *w = ctx;
	if (file_write_full(w->out, p, n) < 0) {
		archive_set_error(a, errno, "%s", strerror(errno));
		return -1;
	}
	digest_add(&w->hash, p, n);
	w->size += n;
	return (la_ssize_t)n;
}

static int archive_failed(struct walk *w)
{
	const char *why = archive_error_string(w->a);
	return cai_fail(w->err, archive_errno(w->a), "cannot write the archive: %s", why ? why : "it failed");
}

static int add_xattr(const char *name, const void *value, size_t len, void *arg, struct cai_error *err)
{
	archive_entry_xattr_add_entry(arg, name, value, len);
	return 0;
}

/* Holes are told only where there are any: what is not told is contents. */
static int tell_holes(struct walk *w, const struct erofs_node *n, struct archive_entry *e)
{
	struct erofs_extent x;
	bool holes = false;
	for (uint64_t off = 0; off < n->size && !holes; off += x.len) {
		if (erofs_read_extent(&w->image, n, off, &x, w->err) < 0)
			return -1;
		holes = x.hole;
	}
	for (uint64_t off = 0; holes && off < n->size; off += x.len) {
		if (erofs_read_extent(&w->image, n, off, &x, w->err) < 0)
			return -1;
		if (!x.hole)
			archive_entry_sparse_add_entry(e, (la_int64_t)off, (la_int64_t)x.len);
	}
	if (holes && !archive_entry_sparse_count(e))
		archive_entry_sparse_add_entry(e, (la_int64_t)n->size, 0);
	return 0;
}

/* Holes that were told are given as zeros, too; the archive's writer passes over them. */
static int write_contents(struct walk *w, const struct erofs_node *n)
{
	struct erofs_extent x;
	for (uint64_t off = 0; off < n->size; off += x.len) {
		if (erofs_read_extent(&w->image, n, off, &x, w->err) < 0)
			return -1;
		if (x.hole)
			memset(w->buf, 0, CHUNK);
		for (uint64_t done = 0; done < x.len;) {
			size_t part = x.len - done < CHUNK ? (size_t)(x.len - done) : CHUNK;
			if (!x.hole &&
			    file_pread_full(w->image.fd, w->buf, part, (off_t)(x.at + done)) != (ssize_t)part)
				return cai_fail(w->err, EIO, "cannot read the image");
			if (archive_write_data(w->a, w->buf, part) != (la_ssize_t)part)
				return archive_failed(w);
			done += part;
		}
	}
	return 0;
}

/* *first gets the name under which the inode was written before, or NULL. */
static int known(struct walk *w, const struct erofs_node *n, const char **first)
{
	struct seen *k = malloc(sizeof(*k) + w->len + 1);
	*first = NULL;
	if (!k)
		return cai_fail(w->err, ENOMEM, "out of memory");
	k->nid = n->nid;
	memcpy(k->path, w->path, w->len + 1);
	struct seen **found = tsearch(k, &w->seen, by_nid);
	if (!found || *found != k)
		free(k);
	if (!found)
		return cai_fail(w->err, ENOMEM, "out of memory");
	if (*found != k)
		*first = (*found)->path;
	return 0;
}

static int fill(struct walk *w, const struct erofs_node *n, struct archive_entry *e)
{
	char target[4096];
	archive_entry_set_pathname(e, w->len ? w->path : "./");
	archive_entry_set_filetype(e, n->mode & S_IFMT);
	archive_entry_set_perm(e, n->mode & 07777);
	archive_entry_set_uid(e, n->uid);
	archive_entry_set_gid(e, n->gid);
	archive_entry_set_mtime(e, n->mtime, n->mtime_ns);
	archive_entry_set_size(e, S_ISREG(n->mode) ? (la_int64_t)n->size : 0);
	if (S_ISCHR(n->mode) || S_ISBLK(n->mode))
		archive_entry_set_rdev(e, n->rdev);
	if (S_ISLNK(n->mode)) {
		if (erofs_read_link(&w->image, n, target, sizeof(target), w->err) < 0)
			return -1;
		archive_entry_set_symlink(e, target);
	}
	if (erofs_read_xattrs(&w->image, n, add_xattr, e, w->err) < 0)
		return -1;
	return S_ISREG(n->mode) ? tell_holes(w, n, e) : 0;
}

static int visit(const char *name, uint64_t nid, void *arg, struct cai_error *err);

static int write_node(struct walk *w, const struct erofs_node *n)
{
	const char *first = NULL;
	if (++w->entries > w->max_entries)
		return cai_fail(w->err, E2BIG, "the image has more entries than Caisson takes");
	if (S_ISSOCK(n->mode))
		return 0;
	if (!S_ISDIR(n->mode) && n->nlink > 1 && known(w, n, &first) < 0)
		return -1;
	struct archive_entry *e = archive_entry_new();
	if (!e)
		return cai_fail(w->err, ENOMEM, "out of memory");
	int ok = fill(w, n, e);
	if (ok == 0 && first) {
		archive_entry_set_size(e, 0);
		archive_entry_set_hardlink(e, first);
		archive_entry_sparse_clear(e);
		archive_entry_xattr_clear(e);
	}
	if (ok == 0) {
		int r = archive_write_header(w->a, e);
		ok = r == ARCHIVE_OK || r == ARCHIVE_WARN ? 0 : archive_failed(w);
	}
	archive_entry_free(e);
	if (ok == 0 && S_ISREG(n->mode) && !first)
		ok = write_contents(w, n);
	if (ok < 0 || !S_ISDIR(n->mode))
		return ok;
	if (++w->depth > MAX_DEPTH)
		return cai_fail(w->err, ELOOP, "the image's directories are nested too deep");
	ok = erofs_read_dir(&w->image, n, visit, w, w->err);
	w->depth--;
	return ok;
}

static int visit(const char *name, uint64_t nid, void *arg, struct cai_error *err)
{
	struct walk *w = arg;
	struct erofs_node n;
	size_t before = w->len, len = strlen(name);
	if (before + len + 2 > sizeof(w->path))
		return cai_fail(w->err, ENAMETOOLONG, "a path in the image is too long");
	w->len += (size_t)sprintf(w->path + before, "%s%s", before ? "/" : "", name);
	int ok = erofs_read_node(&w->image, nid, &n, w->err) < 0 ? -1 : write_node(w, &n);
	w->len = before;
	w->path[before] = 0;
	return ok;
}

int export_tar(int erofs, int out, const struct tree_limits *limits, uint64_t *size,
	       char diff_id[IMAGE_DIGEST_LEN + 1], struct cai_error *err)
{
	struct walk w = {.out = out, .err = err, .max_entries = limits->max_entries, .buf = malloc(CHUNK)};
	struct erofs_node root;
	int ok = -1;
	w.a = archive_write_new();
	if (!w.a || !w.buf || digest_init(&w.hash) < 0) {
		cai_fail(err, ENOMEM, "out of memory");
	} else if (archive_write_set_format_pax(w.a) != ARCHIVE_OK ||
		   archive_write_set_options(w.a, "hdrcharset=BINARY,xattrheader=SCHILY") != ARCHIVE_OK ||
		   archive_write_set_bytes_in_last_block(w.a, 1) != ARCHIVE_OK ||
		   archive_write_open(w.a, &w, NULL, write_out, NULL) != ARCHIVE_OK) {
		archive_failed(&w);
	} else if (erofs_read_open(&w.image, erofs, err) == 0 &&
		   erofs_read_node(&w.image, w.image.root, &root, err) == 0) {
		ok = S_ISDIR(root.mode) ? write_node(&w, &root)
					: cai_fail(err, EINVAL, "the image's root is no directory");
		if (ok == 0 && archive_write_close(w.a) != ARCHIVE_OK)
			ok = archive_failed(&w);
	}
	digest_end(&w.hash, diff_id);
	*size = w.size;
	archive_write_free(w.a);
	tdestroy(w.seen, free);
	free(w.buf);
	return ok;
}
