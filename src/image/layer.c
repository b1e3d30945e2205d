/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Theory of operation: two readers in a chain. The outer one only decompresses; the inner one reads tar from
 * what comes out. Between and before them, every byte is hashed, so that both digests are known when the last
 * byte has passed; what either reader leaves unread (padding behind the archive's end) is read for the
 * digests' sake. Whether the bytes were the right ones is therefore known only at the end, which is why
 * nothing made from them is visible before.
 *
 * Expansion is bounded where it happens, between the readers: a compressed layer that unpacks to far more
 * than any real one is refused before it has cost much time.
 */
#include "image/layer.h"

#include <archive.h>
#include <archive_entry.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/file.h"
#include "base/util.h"
#include "image/digest.h"

#define CHUNK	   (256u << 10)
#define MAX_TARGET 4095u

struct stream {
	struct blob blob;
	uint64_t done; /* packed bytes read */
	uint64_t unpacked;
	struct digest packed_hash, unpacked_hash;
	struct archive *outer;
	uint8_t *buf;
	const struct tree_limits *limits;
	struct cai_error *err;
	bool failed; /* *err says why */
};

static la_ssize_t read_packed(struct archive *a, void *ctx, const void **out)
{
	struct stream *s = ctx;
	uint64_t left = s->blob.len - s->done;
	size_t n = left < CHUNK ? (size_t)left : CHUNK;
	if (!n)
		return 0;
	ssize_t got = file_pread_full(s->blob.fd, s->buf, n, (off_t)(s->blob.off + s->done));
	if (got != (ssize_t)n) {
		s->failed = true;
		if (got < 0)
			cai_fail_errno(s->err, errno, "cannot read the layer");
		else
			cai_fail(s->err, EIO, "the layer is cut short: %llu of %llu bytes are there",
				 (unsigned long long)(s->done + (uint64_t)got),
				 (unsigned long long)s->blob.len);
		archive_set_error(a, EIO, "%s", s->err ? s->err->text : "");
		return ARCHIVE_FATAL;
	}
	digest_add(&s->packed_hash, s->buf, n);
	s->done += n;
	*out = s->buf;
	return (la_ssize_t)n;
}

static la_ssize_t read_unpacked(struct archive *a, void *ctx, const void **out)
{
	struct stream *s = ctx;
	size_t n;
	la_int64_t off;
	int r;
	do
		r = archive_read_data_block(s->outer, out, &n, &off);
	while (r == ARCHIVE_OK && n == 0);
	if (r == ARCHIVE_EOF)
		return 0;
	if (r != ARCHIVE_OK) {
		if (!s->failed) {
			const char *why = archive_error_string(s->outer);
			cai_fail(s->err, EIO, "the layer cannot be unpacked: %s",
				 why ? why : "it is damaged");
		}
		s->failed = true;
		archive_set_error(a, EIO, "damaged");
		return ARCHIVE_FATAL;
	}
	s->unpacked += n;
	if (s->unpacked > s->limits->ratio_from && s->unpacked / s->limits->max_ratio > s->done) {
		s->failed = true;
		cai_fail(s->err, EFBIG,
			 "the layer unpacks to more than %u times its size, which no real one does",
			 s->limits->max_ratio);
		archive_set_error(a, EIO, "bomb");
		return ARCHIVE_FATAL;
	}
	/* Padding and headers are not in the EROFS file, so the bound on that one does not hold this one. */
	if (s->unpacked > 2 * s->limits->max_bytes) {
		s->failed = true;
		cai_fail(s->err, EFBIG, "the layer unpacks to more than %llu MiB, which is the limit",
			 (unsigned long long)(2 * s->limits->max_bytes) >> 20);
		archive_set_error(a, EIO, "too large");
		return ARCHIVE_FATAL;
	}
	digest_add(&s->unpacked_hash, *out, n);
	return (la_ssize_t)n;
}

static int fill_xattrs(struct tree *t, struct tree_inode *i, struct archive_entry *e, struct cai_error *err)
{
	const char *name;
	const void *value;
	size_t n;
	archive_entry_xattr_reset(e);
	while (archive_entry_xattr_next(e, &name, &value, &n) == ARCHIVE_OK)
		if (name && tree_set_xattr(t, i, name, value, n, err) < 0)
			return -1;
	return 0;
}

static int fill(struct tree *t, struct tree_inode *i, struct archive_entry *e, const char *path,
		struct cai_error *err)
{
	la_int64_t uid = archive_entry_uid(e), gid = archive_entry_gid(e), size = archive_entry_size(e);
	i->mode = (uint32_t)(archive_entry_filetype(e) | (archive_entry_perm(e) & 07777));
	if (uid < 0 || uid >= UINT32_MAX || gid < 0 || gid >= UINT32_MAX)
		return cai_fail(err, EINVAL, "the entry '%.200s' has an impossible owner", path);
	i->uid = (uint32_t)uid;
	i->gid = (uint32_t)gid;
	i->mtime = archive_entry_mtime(e);
	long ns = archive_entry_mtime_nsec(e);
	i->mtime_ns = ns >= 0 && ns < 1000000000 ? (uint32_t)ns : 0;
	switch (i->mode & S_IFMT) {
	case S_IFREG:
		if (size < 0)
			return cai_fail(err, EINVAL, "the entry '%.200s' has a negative size", path);
		i->size = (uint64_t)size;
		break;
	case S_IFLNK: {
		const char *to = archive_entry_symlink(e);
		if (!to || !to[0] || strlen(to) > MAX_TARGET)
			return cai_fail(err, EINVAL, "the symbolic link '%.200s' has %s target", path,
					to && to[0] ? "too long a" : "no");
		if (!(i->target = strdup(to)))
			return cai_fail(err, ENOMEM, "out of memory");
		break;
	}
	case S_IFCHR:
	case S_IFBLK:
		i->rdev = archive_entry_rdev(e);
		break;
	case S_IFDIR:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	default:
		return cai_fail(err, EINVAL, "the entry '%.200s' is of a kind that Caisson does not know",
				path);
	}
	return fill_xattrs(t, i, e, err);
}

static int tar_failed(struct archive *a, const struct stream *s, const char *path, struct cai_error *err)
{
	if (s->failed)
		return -1;
	const char *why = archive_error_string(a);
	return cai_fail(err, EIO, "the layer is no valid tar archive%s%.200s: %s", path ? ", at " : "",
			path ? path : "", why ? why : "it is damaged");
}

static int copy_contents(struct archive *a, struct archive_entry *e, struct tree_inode *i,
			 struct erofs_writer *w, struct stream *s, const char *path, struct cai_error *err)
{
	const void *p;
	size_t n;
	la_int64_t off;
	int r;
	if (erofs_file_begin(w, i, archive_entry_sparse_count(e) > 0, err) < 0)
		return -1;
	while ((r = archive_read_data_block(a, &p, &n, &off)) == ARCHIVE_OK)
		if (n && erofs_file_put(w, (uint64_t)off, p, n, err) < 0)
			return -1;
	if (r != ARCHIVE_EOF)
		return tar_failed(a, s, path, err);
	return erofs_file_end(w, err);
}

static int one_entry(struct archive *a, struct archive_entry *e, uint32_t layer, struct tree *t,
		     struct erofs_writer *w, struct stream *s, struct cai_error *err)
{
	const char *path = archive_entry_pathname(e);
	if (!path)
		path = archive_entry_pathname_utf8(e);
	if (!path || !path[0])
		return cai_fail(err, EINVAL, "an entry of the layer has no name");
	if (tree_is_whiteout(path))
		return tree_whiteout(t, layer, path, err);
	const char *link = archive_entry_hardlink(e);
	if (link)
		return tree_link(t, layer, path, link, err);
	struct tree_inode *i = tree_inode_new();
	if (!i)
		return cai_fail(err, ENOMEM, "out of memory");
	if (fill(t, i, e, path, err) < 0) {
		tree_inode_free(i);
		return -1;
	}
	bool file = S_ISREG(i->mode);
	if (tree_add(t, layer, path, i, &i, err) < 0)
		return -1;
	return file ? copy_contents(a, e, i, w, s, path, err) : 0;
}

static int read_tar(struct archive *a, uint32_t layer, struct tree *t, struct erofs_writer *w,
		    struct stream *s, struct cai_error *err)
{
	struct archive_entry *e;
	int r;
	while ((r = archive_read_next_header(a, &e)) == ARCHIVE_OK || r == ARCHIVE_WARN)
		if (one_entry(a, e, layer, t, w, s, err) < 0)
			return -1;
	return r == ARCHIVE_EOF ? 0 : tar_failed(a, s, NULL, err);
}

/* Reads on to the end for the digests. */
static int drain(struct stream *s)
{
	const void *p;
	la_ssize_t n;
	struct archive *scratch = s->outer; /* only for its error text */
	while ((n = read_unpacked(scratch, s, &p)) > 0)
		;
	if (n < 0)
		return -1;
	while ((n = read_packed(scratch, s, &p)) > 0)
		;
	return n < 0 ? -1 : 0;
}

static int check(const char *what, const char *want, const char *got, struct cai_error *err)
{
	if (!want || !want[0] || !strcmp(want, got))
		return 0;
	return cai_fail(err, EBADMSG, "%s is not what its digest says: expected %s, got %s", what, want, got);
}

int layer_apply(const struct blob *b, uint32_t n, const char *digest, const char *diff_id, struct tree *t,
		struct erofs_writer *w, char diff_id_out[IMAGE_DIGEST_LEN + 1], struct cai_error *err)
{
	struct cai_error own;
	struct stream s = {.blob = *b, .limits = &t->limits, .err = err ? err : &own};
	char packed[IMAGE_DIGEST_LEN + 1], unpacked[IMAGE_DIGEST_LEN + 1];
	struct archive_entry *e;
	struct archive *inner = archive_read_new();
	int r = -1;
	s.outer = archive_read_new();
	s.buf = malloc(CHUNK);
	if (!inner || !s.outer || !s.buf || digest_init(&s.packed_hash) < 0 ||
	    digest_init(&s.unpacked_hash) < 0) {
		cai_fail(s.err, ENOMEM, "out of memory");
		goto out;
	}
	archive_read_support_filter_gzip(s.outer);
	archive_read_support_filter_zstd(s.outer);
	archive_read_support_filter_bzip2(s.outer);
	archive_read_support_filter_xz(s.outer);
	archive_read_support_format_raw(s.outer);
	archive_read_support_format_empty(s.outer);
	archive_read_support_format_tar(inner);
	archive_read_support_format_empty(inner);
	if (archive_read_open(s.outer, &s, NULL, read_packed, NULL) != ARCHIVE_OK) {
		tar_failed(s.outer, &s, NULL, s.err);
		goto out;
	}
	int h = archive_read_next_header(s.outer, &e);
	if (h != ARCHIVE_OK && h != ARCHIVE_EOF) {
		tar_failed(s.outer, &s, NULL, s.err);
		goto out;
	}
	if (archive_read_open(inner, &s, NULL, read_unpacked, NULL) != ARCHIVE_OK) {
		tar_failed(inner, &s, NULL, s.err);
		goto out;
	}
	if (read_tar(inner, n, t, w, &s, s.err) < 0 || drain(&s) < 0) {
		/* A layer that is not the one announced is the better explanation of bytes that make no
		 * sense. */
		struct cai_error first = *s.err;
		if (!s.failed && digest && digest[0] && drain(&s) == 0) {
			digest_end(&s.packed_hash, packed);
			if (check("the layer", digest, packed, s.err) == 0)
				*s.err = first;
		} else {
			*s.err = first;
		}
		goto out;
	}
	digest_end(&s.packed_hash, packed);
	digest_end(&s.unpacked_hash, unpacked);
	if (check("the layer", digest, packed, s.err) < 0 ||
	    check("the unpacked layer", diff_id, unpacked, s.err) < 0)
		goto out;
	if (diff_id_out)
		strcpy(diff_id_out, unpacked);
	r = 0;
out:
	archive_read_free(inner);
	archive_read_free(s.outer);
	digest_free(&s.packed_hash);
	digest_free(&s.unpacked_hash);
	free(s.buf);
	return r;
}
